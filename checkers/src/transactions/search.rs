//! The shortest cycles of one component, one for each class of anomaly.
//!
//! ```text
//!            closing edge          the search walks from b until it is back at some a
//!       a ──────────────────> b ──> … ──> a'            ww / wr / rw for a class without time,
//!                                                       a step of a process, or a' returned before b was called
//! ```
//!
//! Breadth first over (node, [`State`](super::cycles::State)), from every node at which a closing edge ends, never deeper
//! than the best so far: so the cycle is a shortest one, unless the allowance of steps ran out, and then that is said.
//! Steps are counted, not timed: the same component has the same answer everywhere. Deliberately without edges in real
//! time on the way: one of them, to close the cycle, is enough (see `components`).

use super::{
    components::{Level, Part},
    cycles::{Class, Cycle, IN_A_ROW, MANY, ONE_RW, STATE_BITS, State, class, last_state, step},
    graph::{EdgeKind, unpack},
    scc,
    writers::NONE,
};

/// What was found of one class.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) cycle: Option<Cycle>,
    /// Whether there may be one, or a shorter one, that was not reached.
    pub(super) cut: bool,
}

/// One walk of a search.
struct Walk {
    start: u32,
    state: State,
    /// A node that must not be on the way.
    avoid: u32,
    closing: EdgeKind,
}

/// The search in one component. Keeps its memory from one walk to the next.
pub(super) struct Search<'a> {
    part: &'a Part,
    level: Level,
    /// Places of the same process, in its order.
    lanes: Vec<Vec<u32>>,
    lane_of: Vec<(u32, u32)>,
    round: u32,
    seen: Vec<u32>,
    from: Vec<u32>,
    via: Vec<EdgeKind>,
    queue: Vec<u32>,
    /// By lane and state: from here on everything was reached already in this round.
    reached: Vec<(u32, u32)>,
    goal: Vec<u32>,
    pub(super) steps: u64,
}

impl<'a> Search<'a> {
    pub(super) fn new(part: &'a Part, level: Level) -> Self {
        let n = part.nodes.len();
        let (mut lanes, mut lane_of) = (Vec::<Vec<u32>>::new(), vec![(0, 0); n]);
        if level != Level::Plain {
            let mut by_process: Vec<u32> = (0..n as u32).collect();
            by_process.sort_by_key(|&node| part.process[node as usize]);
            for lane in by_process.chunk_by(|a, b| part.process[*a as usize] == part.process[*b as usize]) {
                for (place, &node) in lane.iter().enumerate() {
                    lane_of[node as usize] = (lanes.len() as u32, place as u32);
                }
                lanes.push(lane.to_vec());
            }
        }
        Search {
            part,
            level,
            reached: vec![(0, 0); lanes.len() << STATE_BITS],
            lanes,
            lane_of,
            round: 0,
            seen: vec![0; n << STATE_BITS],
            from: vec![0; n << STATE_BITS],
            via: vec![EdgeKind::Ww; n << STATE_BITS],
            queue: Vec::new(),
            goal: vec![0; n],
            steps: 0,
        }
    }

    /// A shortest cycle of this class, in at most about so many steps; the first walk is always walked to its end.
    pub(super) fn shortest(&mut self, wanted: Class, allowance: u64, stop: &impl Fn() -> bool) -> Found {
        let mut found = Found::default();
        let mut crooked = None;
        let (start_steps, mut longest) = (self.steps, usize::MAX);
        let least = if wanted == Class::GNonadjacent && self.level == Level::Plain { 4 } else { 2 };
        for walk in self.walks(wanted) {
            if longest <= least {
                break;
            }
            if stop() || (self.steps > start_steps && self.steps - start_steps > allowance) {
                found.cut = true;
                break;
            }
            let left = (start_steps + allowance).saturating_sub(self.steps).max(self.one_walk());
            let (cycle, complete) = self.walk(&walk, wanted, longest, left, &mut crooked);
            found.cut |= !complete;
            if let Some(cycle) = cycle {
                longest = cycle.nodes.len();
                found.cycle = Some(cycle);
            }
        }
        if found.cycle.is_none() {
            found.cycle = crooked.map(|cycle: Cycle| cycle.simplify(wanted));
        }
        if let Some(cycle) = &mut found.cycle {
            cycle.nodes.iter_mut().for_each(|node| *node = self.part.nodes[*node as usize]);
        }
        found
    }

    /// Some cycle of a component without time, whatever its class, for when the allowance was too small for all of them.
    pub(super) fn any(&mut self) -> Option<Cycle> {
        let (_, closing) =
            unpack(*self.part.reverse.out(0).iter().find(|packed| unpack(**packed).1 != EdgeKind::Process)?);
        let walk = Walk { start: 0, state: IN_A_ROW, avoid: NONE, closing };
        let mut cycle = self.walk(&walk, Class::G2Item, usize::MAX, u64::MAX, &mut None).0?;
        cycle.nodes.iter_mut().for_each(|node| *node = self.part.nodes[*node as usize]);
        Some(cycle)
    }

    /// What one walk costs at most.
    fn one_walk(&self) -> u64 {
        ((self.part.graph.edges() + 2 * self.part.nodes.len()) as u64) << STATE_BITS
    }

    /// Where cycles of this class can begin.
    fn walks(&self, wanted: Class) -> Vec<Walk> {
        let nodes = 0..self.part.nodes.len() as u32;
        match self.level {
            Level::Plain => self.plain_walks(wanted),
            Level::Process => {
                let later = nodes.filter(|&b| self.lane_of[b as usize].1 > 0);
                later.map(|start| Walk { start, state: 0, avoid: NONE, closing: EdgeKind::Process }).collect()
            }
            Level::Realtime => {
                let late = nodes.filter(|&b| self.part.late[b as usize]);
                late.map(|start| Walk { start, state: 0, avoid: NONE, closing: EdgeKind::Realtime }).collect()
            }
        }
    }

    fn plain_walks(&self, wanted: Class) -> Vec<Walk> {
        let n = self.part.nodes.len();
        let (closing, state) = match wanted {
            Class::G0 => (EdgeKind::Ww, 0),
            Class::G1c => (EdgeKind::Wr, 1),
            Class::GSingle | Class::GNonadjacent => (EdgeKind::Rw, ONE_RW),
            Class::G2Item => (EdgeKind::Rw, IN_A_ROW),
        };
        let entered = |b: &u32| self.part.reverse.out(*b).iter().any(|&packed| unpack(packed).1 == closing);
        let mut walks = Vec::new();
        if wanted == Class::G2Item {
            for b in (0..n as u32).filter(entered) {
                let mut next: Vec<u32> =
                    self.part.graph.out(b).iter().copied().filter(|&p| unpack(p).1 == EdgeKind::Rw).collect();
                next.sort_unstable();
                next.dedup();
                walks.extend(next.iter().map(|p| Walk { start: p >> 2, state, avoid: b, closing }));
            }
            return walks;
        }
        let possible = self.possible(wanted);
        for start in (0..n as u32).filter(entered).filter(|&b| possible[b as usize]) {
            walks.push(Walk { start, state, avoid: NONE, closing });
        }
        walks
    }

    /// Whether a closed walk of the class, or a worse one, comes through the node: necessary, and found in linear time.
    fn possible(&self, wanted: Class) -> Vec<bool> {
        let n = self.part.nodes.len() as u32;
        let mut possible = vec![wanted == Class::GSingle; n as usize];
        if wanted == Class::GSingle {
            return possible;
        }
        // Nodes, and a second time those just entered by rw, from which no other rw may leave.
        let components = scc::cyclic(2 * n as usize, |node, i| {
            let (at, entered) = if node < n { (node, false) } else { (node - n, true) };
            let packed = *self.part.graph.out(at).get(i as usize)?;
            let (to, kind) = unpack(packed);
            let allowed = match (wanted, kind) {
                (_, EdgeKind::Process | EdgeKind::Realtime) => false,
                (Class::G0, kind) => kind == EdgeKind::Ww,
                (Class::G1c, kind) => kind != EdgeKind::Rw,
                (_, EdgeKind::Rw) => !entered,
                _ => true,
            };
            // A loop stands for an edge that may not be walked: it makes no component of more than one node.
            Some(if !allowed {
                node
            } else if kind == EdgeKind::Rw {
                n + to
            } else {
                to
            })
        });
        let second = wanted == Class::GNonadjacent;
        for node in components.into_iter().flatten() {
            match (node.checked_sub(n), second) {
                (Some(node), true) => possible[node as usize] = true,
                (None, false) => possible[node as usize] = true,
                _ => {}
            }
        }
        possible
    }

    /// One walk: the cycle, and whether the walk came to its end.
    fn walk(
        &mut self,
        walk: &Walk,
        wanted: Class,
        shorter_than: usize,
        allowance: u64,
        crooked: &mut Option<Cycle>,
    ) -> (Option<Cycle>, bool) {
        self.round += 1;
        let target = if walk.avoid != NONE { walk.avoid } else { walk.start };
        if self.level == Level::Plain {
            for &packed in self.part.reverse.out(target) {
                if unpack(packed).1 == walk.closing {
                    self.goal[(packed >> 2) as usize] = self.round;
                }
            }
        }
        let extra = if walk.avoid == NONE { 1 } else { 2 };
        let first = walk.start << STATE_BITS | u32::from(walk.state);
        self.seen[first as usize] = self.round;
        self.queue.clear();
        self.queue.push(first);
        let (mut head, mut layer_end, mut length) = (0, 1, 0);
        let limit = self.steps.saturating_add(allowance);
        while head < self.queue.len() {
            if head == layer_end {
                layer_end = self.queue.len();
                length += 1;
            }
            if length + extra >= shorter_than {
                return (None, true);
            }
            if self.steps > limit {
                return (None, false);
            }
            let at = self.queue[head];
            head += 1;
            if self.is_goal(walk, at, wanted) {
                let cycle = self.cycle(walk, at);
                if cycle.is_simple() {
                    return (Some(cycle), true);
                }
                crooked.get_or_insert(cycle);
            }
            self.expand(walk, at, wanted);
        }
        (None, true)
    }

    fn is_goal(&self, walk: &Walk, at: u32, wanted: Class) -> bool {
        let (node, state) = ((at >> STATE_BITS) as usize, (at & ((1 << STATE_BITS) - 1)) as State);
        match self.level {
            Level::Plain => {
                let right = match wanted {
                    Class::GNonadjacent => state == MANY,
                    _ => true,
                };
                right && self.goal[node] == self.round
            }
            Level::Process => {
                let (here, there) = (self.lane_of[node], self.lane_of[walk.start as usize]);
                class(state) == wanted && here.0 == there.0 && here.1 < there.1
            }
            Level::Realtime => {
                class(state) == wanted && self.part.end[node] < self.part.begin[walk.start as usize]
            }
        }
    }

    fn expand(&mut self, walk: &Walk, at: u32, wanted: Class) {
        let (node, state) = (at >> STATE_BITS, (at & ((1 << STATE_BITS) - 1)) as State);
        let part = self.part;
        for &packed in part.graph.out(node) {
            self.steps += 1;
            let (to, kind) = unpack(packed);
            if kind == EdgeKind::Process
                || to == walk.avoid
                || (wanted == Class::GSingle && self.level == Level::Plain && kind == EdgeKind::Rw)
            {
                continue;
            }
            self.reach(at, to, step(state, kind), kind, wanted);
        }
        if self.level == Level::Plain {
            return;
        }
        let (lane, place) = self.lane_of[node as usize];
        let next = step(state, EdgeKind::Process);
        let slot = ((lane << STATE_BITS) | u32::from(next)) as usize;
        let lane_len = self.lanes[lane as usize].len() as u32;
        let end = if self.reached[slot].0 == self.round { self.reached[slot].1 } else { lane_len };
        for place in place + 1..end {
            self.steps += 1;
            let to = self.lanes[lane as usize][place as usize];
            self.reach(at, to, next, EdgeKind::Process, wanted);
        }
        self.reached[slot] = (self.round, end.min(place + 1));
    }

    fn reach(&mut self, from: u32, to: u32, state: State, kind: EdgeKind, wanted: Class) {
        let at = to << STATE_BITS | u32::from(state);
        if state <= last_state(wanted) && self.seen[at as usize] != self.round {
            self.seen[at as usize] = self.round;
            self.from[at as usize] = from;
            self.via[at as usize] = kind;
            self.queue.push(at);
        }
    }

    /// The cycle that is closed where the walk is now. Its nodes are places in the part.
    fn cycle(&self, walk: &Walk, mut at: u32) -> Cycle {
        let first = walk.start << STATE_BITS | u32::from(walk.state);
        let (mut nodes, mut kinds) = (vec![at >> STATE_BITS], vec![walk.closing]);
        while at != first {
            kinds.push(self.via[at as usize]);
            at = self.from[at as usize];
            nodes.push(at >> STATE_BITS);
        }
        if walk.avoid != NONE {
            nodes.push(walk.avoid);
            kinds.push(EdgeKind::Rw);
        }
        nodes.reverse();
        kinds.reverse();
        Cycle { nodes, kinds }
    }
}
