//! How a key ended: what each replica came to hold, since when, and whether that is the end of it.
//!
//! ```text
//!        quiet
//! n1  ─────┼──7──8──8──8──8──8──8      stands at 8 from the return of its first 8 to the call of its last
//! n2  ─────┼──7──7──7──7──7──7──7      stands at 7
//!                |<---------->|        both stood still at the same time, and differ: long enough, and they differ for good
//! ```

use super::{
    evidence::{Read, Register, Write},
    versions::Versions,
};
use crate::Value;

/// The value that a replica came to hold, and for how long it was seen to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) node: usize,
    pub(super) value: Value,
    /// The reads that began and ended it, by their ids; often the same.
    pub(super) first: usize,
    pub(super) last: usize,
    /// From then on every read found it: the earliest return of those that were called after all that found another, and not before
    /// any of these had returned.
    pub(super) from: u64,
    /// The call of the last.
    pub(super) to: u64,
    /// The call of the last read that found another value, if one did: it did not stand there before.
    pub(super) changed: Option<u64>,
}

impl Stand {
    /// For how long it was seen to stand still, in ns.
    pub(super) fn lasted(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// What each replica came to hold, by the reads that were called after `since`; `None` for those that did not answer.
pub(super) fn stands(reads: &[Read], nodes: usize, since: u64) -> Vec<Option<Stand>> {
    let mut of: Vec<Vec<&Read>> = vec![vec![]; nodes];
    for read in reads.iter().filter(|read| read.call > since) {
        of[read.node].push(read);
    }
    of.into_iter().map(|reads| stand(&reads)).collect()
}

/// Reads in the order of their calls.
fn stand(reads: &[&Read]) -> Option<Stand> {
    let last = reads.last()?;
    let run = reads.iter().rev().take_while(|read| read.value == last.value);
    let first = run.min_by_key(|read| (read.ret, read.id))?;
    let others = || reads.iter().filter(|read| read.value != last.value);
    Some(Stand {
        node: last.node,
        value: last.value.clone(),
        first: first.id,
        last: last.id,
        from: others().map(|read| read.ret).max().unwrap_or(0).max(first.ret),
        to: last.call,
        changed: others().map(|read| read.call).max(),
    })
}

/// How a key ended.
#[derive(Debug)]
pub(super) enum End<'a> {
    /// All replicas that answered hold the same, and it lacks nothing.
    Agreed,
    /// Two replicas stood still and differ.
    Diverged(&'a Stand, &'a Stand, u64),
    /// A replica stood still without an acknowledged write.
    Lost(&'a Stand, &'a Write),
    /// They differ or lack something, but not for long enough.
    Open,
}

/// Decides about a key. `enough`: how long replicas must have stood still for it to be for good, in ns; `None` if it is not known
/// that nothing disturbed them.
pub(super) fn end<'a>(versions: &'a Versions, stands: &'a [Option<Stand>], enough: Option<u64>) -> End<'a> {
    let stands: Vec<&Stand> = stands.iter().flatten().collect();
    let differ = stands.windows(2).any(|pair| pair[0].value != pair[1].value);
    let lacking: Vec<(&Stand, &Write)> =
        stands.iter().filter_map(|stand| Some((*stand, versions.lacks(&stand.value)?))).collect();
    if !differ && lacking.is_empty() {
        return End::Agreed;
    }
    let Some(enough) = enough else { return End::Open };
    let mut worst: Option<(&Stand, &Stand, u64)> = None;
    for (i, a) in stands.iter().enumerate() {
        for b in stands[i + 1..].iter().filter(|b| b.value != a.value) {
            let Some(lasted) = a.to.min(b.to).checked_sub(a.from.max(b.from)) else { continue };
            if lasted >= enough && worst.is_none_or(|(_, _, longest)| lasted > longest) {
                worst = Some((a, b, lasted));
            }
        }
    }
    if let Some((a, b, lasted)) = worst {
        return End::Diverged(a, b, lasted);
    }
    let stood = lacking.into_iter().filter(|(stand, _)| stand.from <= stand.to && stand.lasted() >= enough);
    match stood.max_by_key(|(stand, _)| stand.lasted()) {
        Some((stand, write)) => End::Lost(stand, write),
        None => End::Open,
    }
}

/// When a replica, or all of them, had come to what they hold at the end: between these two, in ns since everything was quiet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) at_least: u64,
    pub(super) at_most: u64,
}

impl Arrival {
    pub(super) fn later(self, other: Arrival) -> Arrival {
        Arrival { at_least: self.at_least.max(other.at_least), at_most: self.at_most.max(other.at_most) }
    }

    pub(super) fn of(stand: &Stand, since: u64) -> Arrival {
        Arrival {
            at_least: stand.changed.map_or(0, |call| call.saturating_sub(since)),
            at_most: stand.from.saturating_sub(since),
        }
    }
}

/// The arrival of each replica over all keys; `None` for one that did not answer for some key.
pub(super) fn arrivals(
    all: &[(&Register, Vec<Option<Stand>>)],
    nodes: usize,
    since: u64,
) -> Vec<Option<Arrival>> {
    let mut arrivals = vec![Some(Arrival::default()); nodes];
    for (_, stands) in all {
        for (arrival, stand) in arrivals.iter_mut().zip(stands) {
            *arrival =
                arrival.zip(stand.as_ref()).map(|(before, stand)| before.later(Arrival::of(stand, since)));
        }
    }
    arrivals
}
