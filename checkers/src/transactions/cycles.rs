//! `Cycle`: transactions each of which must come before the next, and the last before the first; and which anomaly that is.
//!
//! ```text
//! no rw                     only ww: G0        with a wr: G1c
//! one rw                    G-single
//! more, never two in a row  G-nonadjacent      also not from the last to the first
//! more                      G2-item
//! with a process edge -process; with a realtime edge, or both, -realtime
//! ```
//!
//! [`step`] reads this off edge by edge, so that a search can carry it. Adya's thesis, chapters 3 and 4; G-nonadjacent as in
//! Elle. Deliberately no predicates: every dependency is on an item.

use super::{components::Level, graph::EdgeKind, models::Phenomenon};

/// The worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    G0,
    G1c,
    GSingle,
    GNonadjacent,
    G2Item,
}

impl Class {
    pub(super) const ALL: [Class; 5] =
        [Class::G0, Class::G1c, Class::GSingle, Class::GNonadjacent, Class::G2Item];

    pub(super) fn phenomenon(self, level: Level) -> Phenomenon {
        use Phenomenon::*;
        let of_class = match self {
            Class::G0 => [G0, G0Process, G0Realtime],
            Class::G1c => [G1c, G1cProcess, G1cRealtime],
            Class::GSingle => [GSingle, GSingleProcess, GSingleRealtime],
            Class::GNonadjacent => [GNonadjacent, GNonadjacentProcess, GNonadjacentRealtime],
            Class::G2Item => [G2Item, G2ItemProcess, G2ItemRealtime],
        };
        of_class[level as usize]
    }
}

/// What is known of a path: 0 only ww, 1 also wr, 2 and 3 one rw, 4 and 5 more that are not in a row, 6 two in a row. Even
/// ones but 0 and 6 end in rw.
pub(super) type State = u8;
/// The number of states, as a power of two.
pub(super) const STATE_BITS: u32 = 3;
pub(super) const ONE_RW: State = 2;
pub(super) const MANY: State = 5;
pub(super) const IN_A_ROW: State = 6;

/// The state behind one more edge.
pub(super) fn step(state: State, kind: EdgeKind) -> State {
    match (kind, state) {
        (EdgeKind::Rw, 0 | 1) => 2,
        (EdgeKind::Rw, 3 | 5) => 4,
        (EdgeKind::Rw, _) => 6,
        (EdgeKind::Wr, 0) => 1,
        (_, 2) => 3,
        (_, 4) => 5,
        (_, same) => same,
    }
}

/// What the path is, if an edge that is no rw closes it.
pub(super) fn class(state: State) -> Class {
    match state {
        0 => Class::G0,
        1 => Class::G1c,
        2 | 3 => Class::GSingle,
        4 | 5 => Class::GNonadjacent,
        _ => Class::G2Item,
    }
}

/// The largest state of a class.
pub(super) fn last_state(class: Class) -> State {
    [0, 1, 3, 5, 6][class as usize]
}

/// `kinds[i]` is the edge from `nodes[i]` to the next, the last one back to the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    pub(super) nodes: Vec<u32>,
    pub(super) kinds: Vec<EdgeKind>,
}

impl Cycle {
    /// What it is, and which order in time it needs.
    pub(super) fn classify(&self) -> (Class, Level) {
        let last = *self.kinds.last().expect("a cycle has edges");
        // Twice around, so that the last edge and the first are neighbours too; what is counted is one round.
        let rws = self.kinds.iter().filter(|kind| **kind == EdgeKind::Rw).count();
        let start = if last == EdgeKind::Rw { ONE_RW } else { 0 };
        let around = self.kinds.iter().fold(start, |state, kind| step(state, *kind));
        let class = match (rws, class(around)) {
            (0, class) => class,
            (1, _) => Class::GSingle,
            (_, Class::G2Item) => Class::G2Item,
            (_, _) => Class::GNonadjacent,
        };
        let level = match self.kinds.iter().max() {
            Some(EdgeKind::Realtime) => Level::Realtime,
            Some(EdgeKind::Process) => Level::Process,
            _ => Level::Plain,
        };
        (class, level)
    }

    /// Whether no node comes twice.
    pub(super) fn is_simple(&self) -> bool {
        let mut nodes = self.nodes.clone();
        nodes.sort_unstable();
        nodes.windows(2).all(|pair| pair[0] != pair[1])
    }

    /// A part of it in which no node comes twice, and which is no milder than `worst` if there is one.
    ///
    /// At a node that comes twice it falls into two. If no two rw were neighbours, they are in at most one of the two: there
    /// the last edge and the first would both be rw, and then the neighbours of these, in the other one, are not.
    pub(super) fn simplify(mut self, worst: Class) -> Cycle {
        while let Some((from, to)) = self.loop_within() {
            let inner = Cycle { nodes: self.nodes[from..to].to_vec(), kinds: self.kinds[from..to].to_vec() };
            let mut outer = self;
            outer.nodes.drain(from..to);
            outer.kinds.drain(from..to);
            self = if outer.classify().0 <= worst { outer } else { inner };
        }
        self
    }

    fn loop_within(&self) -> Option<(usize, usize)> {
        let mut places = rustc_hash::FxHashMap::default();
        self.nodes.iter().enumerate().find_map(|(place, node)| Some((places.insert(*node, place)?, place)))
    }

    /// The same cycle, with its smallest node first.
    pub(super) fn rotated(mut self) -> Cycle {
        let smallest = self.nodes.iter().enumerate().min_by_key(|(_, node)| **node).map_or(0, |(i, _)| i);
        self.nodes.rotate_left(smallest);
        self.kinds.rotate_left(smallest);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{Class::*, EdgeKind::*, *};

    #[test]
    fn classes_are_read_off_the_edges_wherever_the_cycle_is_cut() {
        let cases: [(&[EdgeKind], Class, Level); 11] = [
            (&[Ww, Ww], G0, Level::Plain),
            (&[Ww, Wr], G1c, Level::Plain),
            (&[Wr, Realtime], G1c, Level::Realtime),
            (&[Rw, Ww], GSingle, Level::Plain),
            (&[Rw, Process], GSingle, Level::Process),
            (&[Rw, Realtime, Process], GSingle, Level::Realtime),
            (&[Rw, Rw], G2Item, Level::Plain),
            (&[Rw, Ww, Rw, Wr], GNonadjacent, Level::Plain),
            (&[Rw, Wr, Rw, Realtime], GNonadjacent, Level::Realtime),
            (&[Rw, Wr, Rw], G2Item, Level::Plain),
            (&[Rw, Rw, Process], G2Item, Level::Process),
        ];
        for (kinds, class, level) in cases {
            for turn in 0..kinds.len() {
                let mut kinds = kinds.to_vec();
                kinds.rotate_left(turn);
                let cycle = Cycle { nodes: (0..kinds.len() as u32).collect(), kinds };
                assert_eq!(cycle.classify(), (class, level), "{cycle:?}");
            }
        }
    }

    #[test]
    fn a_figure_of_eight_is_cut_into_its_harmless_and_its_telling_half() {
        // 0 -rw-> 1 -ww-> 0 -rw-> 2 -ww-> 0
        let eight = Cycle { nodes: vec![0, 1, 0, 2], kinds: vec![Rw, Ww, Rw, Ww] };
        assert_eq!(eight.classify(), (GNonadjacent, Level::Plain));
        assert!(!eight.is_simple());
        let half = eight.simplify(GNonadjacent);
        assert!(half.is_simple());
        assert_eq!(half.classify(), (GSingle, Level::Plain));
    }
}
