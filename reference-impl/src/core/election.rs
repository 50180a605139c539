//! Phase 1, once for all slots: who leads, and what the new leader must finish before its own work.
//!
//! ```text
//! silence ─→ candidate: Prepare(b, from = applied + 1) ─→ quorum of promises, own one included and on disk
//!              │ someone in the quorum knows more chosen slots?  fetch them first
//!              └─→ leader: every open slot gets the reported value of the highest ballot, gaps get a no-op,
//!                  and then a barrier no-op: no local read before that is applied
//! ```
//!
//! A promise does not repeat what its sender knows to be chosen: it says up to where, and the candidate fetches that. All
//! votes above the highest such point are in the promises, so P3 holds for every open slot.
//!
//! `Prepare` leaves in parallel with the own disk write. That is safe: what a restarted candidate could repeat is only the
//! question, whose old answers stay true; it proposes a value only after its own promise is durable, and then never uses
//! the ballot again. There is no pre-vote: a node that comes back from a partition costs the leader one re-election.

use std::collections::BTreeMap;

use rand::RngExt;

use super::ballot::{Ballot, Mono, NodeId, Slot};
use super::leader::Leader;
use super::message::{Message, Scope, Vote};
use super::reconfigure::{Found, settle_stop_sign};
use super::{Core, Effect, Note, Role};
use crate::bugs::Hooks;

/// A node that stands for election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    ballot: Ballot,
    from: Slot,
    promises: BTreeMap<NodeId, (Slot, Vec<Vote>)>,
    give_up_at: Mono,
    ask_again_at: Mono,
}

impl Core {
    /// Draws a new moment for the next candidacy: after a random silence, and not before the own grant has run out.
    pub(super) fn reset_election(&mut self, now: Mono) {
        let (min, max) = self.config.timing.election;
        let wait = self.rng.random_range(min..=max.max(min));
        self.election_at = now + wait;
        if self.config.hooks.honours_lease() {
            let bound = self.grant.refuses(self.config.id, now);
            // The spread keeps the followers, whose grants end together, from standing together.
            self.election_at = self.election_at.max(now + bound + (wait - min));
        }
    }

    pub(super) fn election_tick(&mut self, now: Mono) {
        match &mut self.role {
            Role::Leader(_) => {}
            Role::Follower => {
                if now < self.election_at {
                    return;
                }
                if self.may_stand() {
                    self.stand(now);
                } else {
                    self.reset_election(now);
                }
            }
            Role::Candidate(candidate)
                if now >= candidate.give_up_at
                    && candidate.is_stuck(self.config.quorum(), self.config.id) =>
            {
                self.stand(now);
            }
            Role::Candidate(candidate) if now >= candidate.give_up_at => {
                let timing = &self.config.timing;
                candidate.ask_again_at = now + timing.election.1 + timing.heartbeat;
                candidate.give_up_at = candidate.ask_again_at + timing.election.1 * 2;
            }
            Role::Candidate(candidate) if now >= candidate.ask_again_at => {
                candidate.ask_again_at = now + self.config.timing.heartbeat;
                let (ballot, scope) = (candidate.ballot, Scope::From(candidate.from));
                // Itself included: its own grant may have refused it when it stood.
                let nodes = self.config.nodes.iter().copied();
                let silent: Vec<NodeId> =
                    nodes.filter(|node| !candidate.promises.contains_key(node)).collect();
                for node in silent {
                    self.send(node, Message::Prepare { ballot, scope }, None);
                }
            }
            Role::Candidate(_) => {}
        }
    }

    /// Whoever sends a snapshot can lead; this node could not before it has all of it.
    pub(super) fn may_stand(&self) -> bool {
        let caught_up = !self.snapshots.is_catching_up(self.learner.applied());
        let round = Ballot { round: self.next_round(), node: self.config.id };
        // Whoever has promised a ballot of a later configuration has yet to apply what begins it.
        self.votes() && caught_up && round.config() == self.config.number
    }

    /// Above everything seen, and within the configuration.
    fn next_round(&self) -> u64 {
        let seen = self.top_round.max(self.acceptor.highest_promise().round);
        1 + seen.max(Ballot::first_round(self.config.number))
    }

    /// Stands for election under a ballot above everything seen.
    pub(super) fn stand(&mut self, now: Mono) {
        let mut ballot = Ballot { round: self.next_round(), node: self.config.id };
        let promised = self.acceptor.highest_promise();
        if promised.node == self.config.id && !self.config.hooks.takes_new_ballot() {
            ballot = promised;
        }
        let from = self.learner.applied() + 1;
        self.follows = None;
        self.role = Role::Candidate(Candidate {
            ballot,
            from,
            promises: BTreeMap::new(),
            give_up_at: now + self.config.timing.election.1 * 2,
            ask_again_at: now + self.config.timing.heartbeat,
        });
        self.effects.push(Effect::Note(Note::Candidate { ballot, after: from - 1 }));
        let prepare = Message::Prepare { ballot, scope: Scope::From(from) };
        self.broadcast(&prepare);
        self.send(self.config.id, prepare, None);
        if !self.config.hooks.waits_for_promises() {
            self.try_to_lead(now);
        }
    }

    pub(super) fn on_promise(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        scope: Scope,
        commit: Slot,
        votes: Vec<Vote>,
        now: Mono,
    ) {
        if let Scope::Only(slot) = scope {
            return self.basic_promise(from, ballot, slot, votes, now);
        }
        let Role::Candidate(candidate) = &mut self.role else { return };
        if ballot == candidate.ballot && scope.slot() <= candidate.from {
            candidate.promises.insert(from, (commit, votes));
            self.try_to_lead(now);
        }
    }

    /// Leads, if a quorum has promised and everything is known that one of it knows to be chosen.
    pub(super) fn try_to_lead(&mut self, now: Mono) {
        let Role::Candidate(candidate) = &self.role else { return };
        let prepared = candidate.promises.len() >= self.config.quorum()
            && candidate.promises.contains_key(&self.config.id);
        if !prepared && self.config.hooks.waits_for_promises() {
            return;
        }
        let ahead = candidate.promises.iter().map(|(node, (commit, _))| (*commit, *node)).max();
        if let Some((commit, node)) = ahead
            && commit > self.learner.applied()
        {
            return self.want(commit, node, now);
        }
        let (ballot, hooks) = (candidate.ballot, self.config.hooks);
        let mut values = if hooks.heeds_reported_votes() { candidate.reported(hooks) } else { Found::new() };
        let applied = self.learner.applied();
        values.retain(|slot, _| *slot > applied);
        if !hooks.heeds_votes_beyond_gaps() {
            let without_gap = |slot: &Slot| (applied + 1..*slot).all(|before| values.contains_key(&before));
            let end = values.keys().copied().take_while(without_gap).last().unwrap_or(applied);
            values.retain(|slot, _| *slot <= end);
        }
        for (slot, entry) in self.learner.chosen_from(applied + 1) {
            values.insert(slot, (Ballot { round: u64::MAX, node: NodeId::MAX }, entry.clone()));
        }
        let stop = if self.config.shortcuts.heeds_stop_signs() {
            settle_stop_sign(&mut values, self.config.number)
        } else {
            None
        };
        let last = values.last_key_value().map_or(applied, |(slot, _)| *slot);

        self.elections_won += 1;
        // Nothing may be proposed behind a stop-sign: it is the barrier itself.
        let barrier = stop.unwrap_or(last + 1);
        self.role = Role::Leader(Box::new(Leader::new(ballot, barrier, stop, now)));
        let reproposed = (last - applied) as usize;
        self.effects.push(Effect::Note(Note::Elected { ballot, reproposed, barrier }));
        for slot in applied + 1..=last {
            let entry = match values.remove(&slot) {
                Some((_, entry)) => entry,
                None if hooks.fills_gaps() => self.no_op(),
                None => continue,
            };
            if !hooks.proposes_inherited() {
                self.learn(slot, &entry, now);
            }
            self.propose(slot, entry, now);
        }
        if stop.is_none() {
            let no_op = self.no_op();
            self.propose(barrier, no_op, now);
        }
        self.hear_leader(ballot, now);
        self.send_heartbeats(now);
    }

    /// A promise to, or a vote for, `ballot` was given: nobody below it can lead through this node any more.
    pub(super) fn yield_to(&mut self, ballot: Ballot, now: Mono) {
        if ballot.node == self.config.id {
            return;
        }
        if self.follows.is_some_and(|followed| followed < ballot) {
            self.follows = None;
        }
        self.outbid_by(ballot, now);
        if matches!(self.role, Role::Follower) {
            self.reset_election(now);
        }
    }

    /// A sign of life of the leader of `ballot`.
    pub(super) fn hear_leader(&mut self, ballot: Ballot, now: Mono) {
        if self.follows.is_some_and(|followed| ballot < followed) {
            return;
        }
        self.outbid_by(ballot, now);
        let news = self.follows != Some(ballot);
        self.follows = Some(ballot);
        self.reset_election(now);
        if news {
            if ballot.node != self.config.id {
                self.effects.push(Effect::Note(Note::Follows { ballot }));
            }
            self.leader_known(now);
        }
    }

    /// Stops leading or standing under a ballot below `ballot`.
    fn outbid_by(&mut self, ballot: Ballot, now: Mono) {
        match &self.role {
            Role::Leader(leader) if leader.ballot < ballot => self.step_down("a higher ballot was seen", now),
            Role::Candidate(candidate) if candidate.ballot < ballot => {
                self.step_down("outbid as a candidate", now)
            }
            _ => {}
        }
    }

    /// `ballot` was refused because of a higher one.
    pub(super) fn outbid(&mut self, ballot: Ballot, now: Mono) {
        match &self.role {
            Role::Leader(leader) if leader.ballot == ballot => {
                self.step_down("refused: a higher ballot exists", now)
            }
            Role::Candidate(candidate) if candidate.ballot == ballot => {
                self.step_down("outbid as a candidate", now);
            }
            _ => {}
        }
    }

    /// Hands leadership over to whoever is likely to be up to date, who need not wait for the end of this leader's lease. (Ongaro's thesis,
    /// §3.10, with a lease to be given back.) From here on nothing is read by the lease; what was proposed may still be chosen.
    pub(super) fn hand_over(&mut self, now: Mono) {
        let Role::Leader(leader) = &self.role else { return };
        let ballot = leader.ballot;
        let Some(to) = leader.lease.newest_of_others(self.config.id) else { return };
        if self.config.hooks.leaves_when_handing_over() {
            self.step_down("it hands over", now);
        }
        self.grant.release(ballot);
        self.broadcast(&Message::Release { ballot, to });
    }

    pub(super) fn on_release(&mut self, ballot: Ballot, to: NodeId, now: Mono) {
        self.grant.release(ballot);
        // An old message must not unseat anyone.
        let before = self.follows.is_none() && ballot.config() + 1 == self.config.number;
        let follows = self.follows == Some(ballot) || before;
        if to == self.config.id && follows && matches!(self.role, Role::Follower) && self.may_stand() {
            self.stand(now);
        }
    }

    /// Becomes a follower. What was proposed may still be chosen: its clients keep waiting for that, or for their deadline.
    pub(super) fn step_down(&mut self, why: &'static str, now: Mono) {
        let was = std::mem::replace(&mut self.role, Role::Follower);
        if let Role::Leader(leader) = was {
            self.effects.push(Effect::Note(Note::SteppedDown { ballot: leader.ballot, why }));
            if self.follows == Some(leader.ballot) {
                self.follows = None;
            }
            let reads: Vec<_> = self.reads.take_index().collect();
            for request in leader.queue.into_iter().chain(reads) {
                self.route(request, now);
            }
        }
        self.reset_election(now);
    }
}

impl Candidate {
    pub(super) fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// When it asks again, is silent for a while, or stands under another ballot.
    pub(super) fn wakeup(&self) -> Mono {
        self.ask_again_at.min(self.give_up_at)
    }

    /// Either others have promised but what they know cannot be fetched, or nobody answers a quorum's worth. Only the first
    /// is helped by a new ballot; in the second the same question is asked again, with pauses: whoever hears it waits for an outcome, and if
    /// it is this node that cannot hear, one of those must get its turn. Where only the own promise is missing the disk is slow, and would
    /// have to write the next one as well.
    fn is_stuck(&self, quorum: usize, own: NodeId) -> bool {
        self.promises.len() >= quorum && self.promises.contains_key(&own)
    }

    /// P3 read backwards: for each slot the value of the highest ballot that was reported.
    fn reported(&self, hooks: Hooks) -> Found {
        let mut best: BTreeMap<Slot, &Vote> = BTreeMap::new();
        for vote in self.promises.values().flat_map(|(_, votes)| votes) {
            let known = best.entry(vote.slot).or_insert(vote);
            let order = vote.ballot.cmp(&known.ballot);
            let order = if hooks.picks_highest_vote() { order } else { order.reverse() };
            if order.is_gt() && hooks.compares_votes() {
                *known = vote;
            }
        }
        best.into_iter().map(|(slot, vote)| (slot, (vote.ballot, vote.entry.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Config, Durable, Input, Protocol, testing};
    use std::time::Duration;

    /// Otherwise it would begin anew for ever, and where all disks are that slow nobody would lead.
    #[test]
    fn a_candidate_whose_disk_is_slow_waits_for_it() {
        let mut durable = Durable::default();
        durable.begin_incarnation(Duration::ZERO);
        durable.known = [(2, 1), (3, 1)].into();
        let mut core = Core::new(Config::new(1, 1..=3, Protocol::MultiPaxos), durable, Mono(0));
        let (mut asked, mut written) = (Vec::new(), Vec::new());
        let mut now = Mono(0);
        while now < Mono(0) + Duration::from_secs(4) {
            now = now + Duration::from_millis(10);
            let mut inputs = vec![Input::Tick];
            while let Some(input) = inputs.pop() {
                for effect in core.step(now, input) {
                    match effect {
                        Effect::Persist { token, .. } => {
                            written.push((now + Duration::from_millis(1_500), token))
                        }
                        Effect::Send {
                            to: to @ (2 | 3),
                            message: Message::Prepare { ballot, scope },
                            ..
                        } => {
                            asked.push(ballot);
                            let message = Message::Promise { ballot, scope, commit: 0, votes: vec![] };
                            inputs.push(Input::Message { from: to, message });
                        }
                        _ => {}
                    }
                }
                if let Some(done) = written.iter().position(|(at, _)| *at <= now) {
                    inputs.push(Input::Persisted(written.remove(done).1));
                }
            }
        }
        asked.dedup();
        assert_eq!((asked.len(), core.status().leading), (1, asked.first().copied()), "{asked:?}");
    }

    /// As when it is told to stand at once by the last words of a leader, right after a start: it may not help anyone yet, itself included.
    #[test]
    fn a_candidate_that_its_own_grant_has_refused_asks_itself_again() {
        let mut durable = Durable::default();
        durable.begin_incarnation(Duration::from_millis(600));
        durable.begin_incarnation(Duration::from_millis(600));
        let mut core = Core::new(Config::new(1, [1], Protocol::MultiPaxos), durable, Mono(0));
        core.stand(Mono(0));
        for ms in (0..1_000).step_by(10) {
            testing::step(&mut core, Mono(0) + Duration::from_millis(ms), Input::Tick);
        }
        assert!(matches!(core.role, Role::Leader(_)), "{:?}", core.status());
    }
}
