//! What must come before what, until nothing new follows.
//!
//! ```text
//! r finds what w left, and another write v of the key    v before r  =>  v before w       (it was overwritten)
//!                                                        w before v  =>  r before v       (it was not there yet)
//! ```
//!
//! The rules of Gibbons and Korach's *Testing shared memories*, SIAM J. Comput. 26(4), 1997, for reads that name their write; as
//! "saturation" in Biswas and Enea, OOPSLA 2019. A circle is a proof of guilt. What is before an act is kept as how many acts of each
//! process: O(acts × processes) for each round, and of the acts that the rules lead to only those that were not known are added.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::FxHashMap;

use super::{
    Answer,
    acts::{Acts, NONE},
};
use crate::Budget;

/// What was found, beside the order of each process.
pub(super) struct Order {
    /// Of each act what must come before it.
    pub(super) before: Vec<Vec<Edge>>,
}

/// One act must come before another.
#[derive(Clone, Copy)]
pub(super) struct Edge {
    pub(super) from: u32,
    /// In which round it was found; 0 for a read and what it found.
    round: u32,
    /// The read that it follows from.
    witness: u32,
}

/// That what a read found comes before it, and no more.
pub(super) fn reads(acts: &Acts) -> Order {
    let edge = |act| acts.source(act).filter(|source| *source != NONE);
    let edges = |act| edge(act).map(|from| Edge { from, round: 0, witness: NONE }).into_iter().collect();
    Order { before: acts.all.iter().map(edges).collect() }
}

struct Saturation<'a> {
    acts: &'a Acts,
    width: usize,
    before: Vec<Vec<Edge>>,
    after: Vec<Vec<u32>>,
    /// Of each act, how many acts of each process come before it.
    clocks: Vec<u32>,
}

pub(super) fn saturate(
    acts: &Acts,
    max_steps: u64,
    budget: &Budget,
    steps: &mut u64,
) -> Result<Order, Answer> {
    let (n, width) = (acts.all.len(), acts.processes());
    let cells = n.saturating_mul(width);
    if cells as u64 > budget.bytes() / 4 || cells as u64 > max_steps.saturating_mul(4) {
        return Err(Answer::Unknown(format!(
            "{n} operations of {width} processes are more than the budget allows"
        )));
    }
    let mut saturation = Saturation {
        acts,
        width,
        before: vec![Vec::new(); n],
        after: vec![Vec::new(); n],
        clocks: vec![0; cells],
    };
    for (at, act) in acts.all.iter().enumerate() {
        if let Some(source) = acts.source(act).filter(|source| *source != NONE) {
            saturation.add(source, at as u32, 0, NONE);
        }
    }
    // Of each key and process the writes.
    let mut writes: Vec<FxHashMap<u32, Vec<u32>>> = vec![FxHashMap::default(); acts.keys as usize];
    for (at, act) in acts.all.iter().enumerate().filter(|(_, act)| act.leaves != NONE) {
        writes[act.key as usize].entry(act.process).or_default().push(at as u32);
    }
    let writes: Vec<Vec<Vec<u32>>> = writes
        .into_iter()
        .map(|by_process| {
            let mut lists: Vec<Vec<u32>> = by_process.into_values().collect();
            lists.sort_unstable();
            lists
        })
        .collect();
    for round in 1.. {
        if let Err(left) = saturation.settle() {
            let circle = saturation.circle(&left);
            return Err(Answer::Invalid(
                saturation.proof(circle),
                Some("what must come before what goes in a circle".into()),
            ));
        }
        *steps += cells as u64 + n as u64;
        if budget.is_cancelled() {
            return Err(Answer::Unknown("cancelled".into()));
        }
        // What is known by now helps the search all the same.
        if *steps > max_steps || !saturation.round(round, &writes) {
            break;
        }
    }
    Ok(Order { before: saturation.before })
}

impl Saturation<'_> {
    fn add(&mut self, from: u32, to: u32, round: u32, witness: u32) {
        self.before[to as usize].push(Edge { from, round, witness });
        self.after[from as usize].push(to);
    }

    /// Whether one comes before the other, as far as the clocks know.
    fn is_before(&self, a: u32, b: u32) -> bool {
        let act = &self.acts.all[a as usize];
        self.clocks[b as usize * self.width + act.process as usize] > act.place
    }

    /// The next act of the same process.
    fn next(&self, at: u32) -> Option<u32> {
        let process = self.acts.all[at as usize].process as usize;
        (at + 1 < self.acts.first[process + 1]).then_some(at + 1)
    }

    /// Sets the clocks; the acts that could not be reached if there is a circle.
    fn settle(&mut self) -> Result<(), Vec<bool>> {
        let n = self.acts.all.len();
        let mut missing: Vec<u32> =
            (0..n).map(|at| self.before[at].len() as u32 + u32::from(self.acts.all[at].place > 0)).collect();
        let mut ready: Vec<u32> = (0..n as u32).filter(|at| missing[*at as usize] == 0).collect();
        self.clocks.fill(0);
        let mut done = vec![false; n];
        let mut count = 0;
        while let Some(at) = ready.pop() {
            count += 1;
            done[at as usize] = true;
            let next = self.next(at);
            let followers = self.after[at as usize].len();
            for i in 0..=followers {
                let to = if i < followers { Some(self.after[at as usize][i]) } else { next };
                let Some(to) = to else { continue };
                self.carry(at, to);
                missing[to as usize] -= 1;
                if missing[to as usize] == 0 {
                    ready.push(to);
                }
            }
        }
        if count == n { Ok(()) } else { Err(done) }
    }

    fn carry(&mut self, from: u32, to: u32) {
        let (width, act) = (self.width, self.acts.all[from as usize]);
        let (from, to) = (from as usize * width, to as usize * width);
        for process in 0..width {
            self.clocks[to + process] = self.clocks[to + process].max(self.clocks[from + process]);
        }
        let own = &mut self.clocks[to + act.process as usize];
        *own = (*own).max(act.place + 1);
    }

    /// Applies the rules once; whether something new followed.
    fn round(&mut self, round: u32, writes: &[Vec<Vec<u32>>]) -> bool {
        let mut found: Vec<(u32, u32, u32)> = Vec::new();
        // What need not have happened demands nothing.
        for (at, act) in self.acts.all.iter().enumerate().filter(|(_, act)| act.required) {
            let (at, Some(source)) = (at as u32, self.acts.source(act)) else { continue };
            for list in &writes[act.key as usize] {
                // Which of this process come before the read are the first of the list.
                let until = list.partition_point(|write| self.is_before(*write, at));
                let last = list[..until].iter().rev().find(|write| **write != source && **write != at);
                if let (Some(last), true) = (last, source != NONE)
                    && !self.is_before(*last, source)
                {
                    found.push((*last, source, at));
                }
                let from = match source {
                    NONE => 0,
                    source => list.partition_point(|write| !self.is_before(source, *write)),
                };
                let first = list[from..].iter().find(|write| **write != at && **write != source);
                if let Some(first) = first.filter(|first| !self.is_before(at, **first)) {
                    found.push((at, *first, at));
                }
            }
        }
        found.sort_unstable();
        found.dedup_by_key(|(from, to, _)| (*from, *to));
        found.iter().for_each(|(from, to, witness)| self.add(*from, *to, round, *witness));
        !found.is_empty()
    }

    /// A short circle among the acts that are not done.
    fn circle(&self, done: &[bool]) -> Vec<u32> {
        const STARTS: usize = 32;
        let n = done.len();
        let open = |at: &u32| !done[*at as usize];
        // Backwards from anywhere one comes into a circle.
        let Some(mut at) = (0..n as u32).find(open) else { return vec![] };
        let mut met = vec![false; n];
        while !met[at as usize] {
            met[at as usize] = true;
            let mut earlier = self.earlier(at);
            match earlier.find(open) {
                Some(earlier) => at = earlier,
                None => return vec![],
            }
        }
        let mut ring = vec![at];
        loop {
            let last = ring[ring.len() - 1];
            let mut earlier = self.earlier(last);
            match earlier.find(open) {
                Some(earlier) if earlier != at => ring.push(earlier),
                _ => break,
            }
        }
        let mut best = ring.clone();
        for &start in ring.iter().take(STARTS) {
            let mut from = vec![NONE; n];
            let mut queue = VecDeque::from([start]);
            'search: while let Some(node) = queue.pop_front() {
                for to in self.after[node as usize].iter().copied().chain(self.next(node)).filter(open) {
                    if from[to as usize] != NONE {
                        continue;
                    }
                    from[to as usize] = node;
                    if to == start {
                        break 'search;
                    }
                    queue.push_back(to);
                }
            }
            let (mut circle, mut at) = (vec![start], from[start as usize]);
            while at != start && at != NONE {
                circle.push(at);
                at = from[at as usize];
            }
            if at == start && circle.len() < best.len() {
                best = circle;
            }
        }
        best
    }

    /// All that comes right before an act.
    fn earlier(&self, at: u32) -> impl Iterator<Item = u32> + '_ {
        let previous = (self.acts.all[at as usize].place > 0).then(|| at - 1);
        self.before[at as usize].iter().map(|edge| edge.from).chain(previous)
    }

    /// A circle, and everything that its edges follow from.
    fn proof(&self, circle: Vec<u32>) -> Vec<u32> {
        let mut needed: BTreeSet<u32> = circle.iter().copied().collect();
        let mut asked: BTreeSet<(u32, u32)> = BTreeSet::new();
        let mut edges: Vec<(u32, Edge)> = Vec::new();
        // Between any two of the circle, in whichever direction it was found.
        for &to in &circle {
            let among = self.before[to as usize].iter().filter(|edge| circle.contains(&edge.from));
            edges.extend(among.map(|edge| (to, *edge)));
        }
        while let Some((to, edge)) = edges.pop() {
            if edge.witness == NONE || !asked.insert((edge.from, to)) {
                continue;
            }
            let Some(source) = self.acts.source(&self.acts.all[edge.witness as usize]) else { continue };
            needed.insert(edge.witness);
            let (from, until) =
                if edge.from == edge.witness { (source, to) } else { (edge.from, edge.witness) };
            needed.extend([source, from, until].into_iter().filter(|act| *act != NONE));
            if from != NONE {
                self.way(from, until, edge.round, &mut needed, &mut edges);
            }
        }
        needed.into_iter().collect()
    }

    /// How one act was known to come before another in an earlier round.
    fn way(&self, from: u32, to: u32, round: u32, needed: &mut BTreeSet<u32>, edges: &mut Vec<(u32, Edge)>) {
        let mut via: FxHashMap<u32, (u32, Edge)> = FxHashMap::default();
        let mut queue = VecDeque::from([to]);
        while let Some(at) = queue.pop_front() {
            if at == from {
                break;
            }
            let own = self.acts.all[at as usize].place.checked_sub(1).map(|_| at - 1);
            let own = own.map(|from| Edge { from, round: 0, witness: NONE });
            let earlier = self.before[at as usize].iter().copied().filter(|edge| edge.round < round);
            for edge in earlier.chain(own) {
                if edge.from != to && !via.contains_key(&edge.from) {
                    via.insert(edge.from, (at, edge));
                    queue.push_back(edge.from);
                }
            }
        }
        let mut at = from;
        while let Some((next, edge)) = via.get(&at).filter(|_| at != to) {
            needed.insert(at);
            edges.push((*next, *edge));
            at = *next;
        }
    }
}
