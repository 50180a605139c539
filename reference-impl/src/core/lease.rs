//! The master lease (Chubby): both ends of it.
//!
//! ```text
//! leader    send round r ●────── lease: usable_lease from SEND ──────┤            reads locally until here
//!                         \                                              (shorter by the clocks' drift)
//! acceptor                 ● receives ───── grant: lease from RECEIPT ─────┤      refuses other candidates until here
//! ```
//!
//! Receipt comes after sending, so the grant of every acceptor outlives the lease of the leader as long as clocks *run* at
//! nearly the same rate; what they show never matters. An acceptor that restarts has forgotten its grants, so it refuses
//! everyone for one whole lease ([`Grant::after_restart`]). Deliberately no protection for writes: ballots do that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ballot::{Ballot, Mono, NodeId};

/// An acceptor's end: to whom it is bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grant {
    ballot: Ballot,
    until: Mono,
    hold: Mono,
}

impl Grant {
    /// Bound to somebody unknown until `hold`.
    pub fn after_restart(hold: Mono) -> Self {
        Grant { hold, ..Grant::default() }
    }

    /// Binds to the leader of `ballot`; false (and nothing changes) if it was bound to a higher ballot: forgetting that one
    /// could let a candidate in too early.
    pub fn extend(&mut self, ballot: Ballot, until: Mono) -> bool {
        if ballot < self.ballot {
            return false;
        }
        self.until = if ballot == self.ballot { self.until.max(until) } else { until };
        self.ballot = ballot;
        true
    }

    /// The leader of `ballot` does not count on it any more.
    pub fn release(&mut self, ballot: Ballot) {
        if self.ballot == ballot {
            self.until = Mono::default();
        }
    }

    /// For how much longer `candidate` must be refused; zero if it may be helped.
    pub fn refuses(&self, candidate: NodeId, now: Mono) -> Duration {
        let held = self.hold.since(now);
        if candidate == self.ballot.node { held } else { held.max(self.until.since(now)) }
    }
}

/// The leader's end: until when its state is certainly the newest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    rounds: BTreeMap<u64, (Mono, BTreeSet<NodeId>)>,
    next_round: u64,
    start: Option<Mono>,
    granted_at: Mono,
    confirmed: u64,
    /// The newest round that each node has acknowledged.
    heard: BTreeMap<NodeId, u64>,
    /// When the present period began; who has acknowledged a round in it, and in the one before. (Times for each node would be more
    /// than is needed, and many more states for a model checker.)
    period: Mono,
    present: [BTreeSet<NodeId>; 2],
}

/// Rounds that may be unanswered before the oldest is given up.
const OPEN_ROUNDS: usize = 64;

impl Lease {
    /// No lease yet, at `now`.
    pub fn new(now: Mono) -> Self {
        Lease {
            rounds: BTreeMap::new(),
            next_round: 1,
            start: None,
            granted_at: now,
            confirmed: 0,
            heard: BTreeMap::new(),
            period: now,
            present: Default::default(),
        }
    }

    /// A new round of heartbeats is about to be sent; returns its number. Whoever acknowledges one is taken to be up for at least
    /// `presence`, and for less than twice as long.
    pub fn send_round(&mut self, now: Mono, presence: Duration) -> u64 {
        if now.since(self.period) >= presence {
            self.present = [BTreeSet::new(), std::mem::take(&mut self.present[0])];
            self.period = now;
        }
        let round = self.next_round;
        self.next_round += 1;
        self.rounds.insert(round, (now, BTreeSet::new()));
        if self.rounds.len() > OPEN_ROUNDS {
            self.rounds.pop_first();
        }
        round
    }

    /// `from` has acknowledged `round`. `counted_from` decides what the lease is counted from, given when the round was sent.
    pub fn acknowledged(
        &mut self,
        round: u64,
        from: NodeId,
        quorum: usize,
        counted_from: impl Fn(Mono) -> Mono,
    ) {
        let newest = self.heard.entry(from).or_default();
        *newest = round.max(*newest);
        self.present[0].insert(from);
        let Some((sent, voters)) = self.rounds.get_mut(&round) else { return };
        voters.insert(from);
        if voters.len() >= quorum {
            let start = counted_from(*sent);
            self.start = self.start.max(Some(start));
            self.granted_at = self.granted_at.max(start);
            self.confirmed = self.confirmed.max(round);
            self.rounds = self.rounds.split_off(&(round + 1));
        }
    }

    /// Until when local reads are linearizable, if the lease is usable for `usable`.
    pub fn until(&self, usable: Duration) -> Option<Mono> {
        self.start.map(|start| start + usable)
    }

    /// The newest round that a quorum has acknowledged, 0 if none.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Whether `node` has acknowledged a round lately.
    pub fn hears(&self, node: NodeId, now: Mono, presence: Duration) -> bool {
        now.since(self.period) < presence * 2 && self.present.iter().any(|nodes| nodes.contains(&node))
    }

    /// Who, other than `me`, has acknowledged the newest round: likely to be up to date.
    pub fn newest_of_others(&self, me: NodeId) -> Option<NodeId> {
        let others = self.heard.iter().filter(|(node, _)| **node != me);
        others.max_by_key(|(node, round)| (**round, std::cmp::Reverse(**node))).map(|(node, _)| *node)
    }

    /// All that have ever acknowledged a round, those with the newest first.
    pub fn newest_first(&self) -> Vec<NodeId> {
        let mut nodes: Vec<_> =
            self.heard.iter().map(|(node, round)| (std::cmp::Reverse(*round), *node)).collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|(_, node)| node).collect()
    }

    /// When a quorum was last heard of (or when leading began).
    pub fn last_quorum(&self) -> Mono {
        self.granted_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Mono {
        Mono(0) + MS * ms
    }

    #[test]
    fn a_grant_refuses_others_until_it_runs_out_but_not_its_holder() {
        let mut grant = Grant::default();
        assert!(grant.extend(Ballot { round: 1, node: 1 }, at(600)));
        assert_eq!(grant.refuses(2, at(100)), MS * 500);
        assert_eq!(grant.refuses(1, at(100)), Duration::ZERO);
        assert_eq!(grant.refuses(2, at(600)), Duration::ZERO);
    }

    #[test]
    fn a_late_heartbeat_of_an_older_leader_does_not_replace_a_grant() {
        let mut grant = Grant::default();
        grant.extend(Ballot { round: 2, node: 2 }, at(600));
        assert!(!grant.extend(Ballot { round: 1, node: 1 }, at(700)));
        assert!(grant.refuses(1, at(100)) > Duration::ZERO);
    }

    #[test]
    fn after_a_restart_everyone_is_refused_even_a_new_holder() {
        let mut grant = Grant::after_restart(at(600));
        grant.extend(Ballot { round: 1, node: 1 }, at(650));
        assert_eq!(grant.refuses(1, at(100)), MS * 500);
    }

    #[test]
    fn who_acknowledges_nothing_any_more_is_not_taken_to_be_up_for_long() {
        let mut lease = Lease::new(at(0));
        let hears = |lease: &Lease, node, ms| lease.hears(node, at(ms), MS * 1_000);
        let send = |lease: &mut Lease, ms| lease.send_round(at(ms), MS * 1_000);
        let round = send(&mut lease, 900);
        [2, 3].into_iter().for_each(|node| lease.acknowledged(round, node, 3, |sent| sent));
        let round = send(&mut lease, 1_000);
        lease.acknowledged(round, 2, 3, |sent| sent);
        assert!(hears(&lease, 3, 1_900) && !hears(&lease, 4, 1_900));
        send(&mut lease, 2_000);
        assert!(hears(&lease, 2, 2_000) && !hears(&lease, 3, 2_000));
        assert!(!hears(&lease, 2, 4_000), "nothing was sent, so that nothing was acknowledged");
    }

    #[test]
    fn a_lease_counts_from_the_send_time_of_the_newest_round_with_a_quorum_of_distinct_nodes() {
        let mut lease = Lease::new(at(0));
        let first = lease.send_round(at(10), MS * 1_000);
        let second = lease.send_round(at(60), MS * 1_000);
        lease.acknowledged(second, 1, 2, |sent| sent);
        lease.acknowledged(second, 1, 2, |sent| sent);
        assert_eq!(lease.until(MS * 100), None);
        lease.acknowledged(first, 1, 2, |sent| sent);
        lease.acknowledged(first, 2, 2, |sent| sent);
        assert_eq!(lease.until(MS * 100), Some(at(110)));
        lease.acknowledged(second, 3, 2, |sent| sent);
        assert_eq!(lease.until(MS * 100), Some(at(160)));
    }
}
