//! The acceptor: three promises, and nothing else.
//!
//! ```text
//! P1  Prepare(n), n < promised            refuse          (n == promised: the same proposer asks again, answer again)
//! P2  Accept(n, s, v), n < promised       refuse          otherwise promised := n *and* vote[s] := (n, v)
//! P3  Promise(n)                          carries the vote of every slot in its scope
//! ```
//!
//! (Lamport, "Paxos Made Simple", 2001, section 2.2. That accepting raises the promise is not said there plainly, and
//! leaving it out breaks safety with three ballots.) That an answer leaves only after its record is on disk is the
//! caller's part. Deliberately knows nothing of leaders, leases or time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ballot::{Ballot, Slot};
use super::command::Entry;
use super::config::Protocol;
use super::message::{Scope, Vote};
use super::record::{Durable, Record};
use crate::bugs::Hooks;

/// A refusal: this higher ballot was promised before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refused(pub Ballot);

/// One acceptor's memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor {
    protocol: Protocol,
    hooks: Hooks,
    promised: Ballot,
    promised_at: BTreeMap<Slot, Ballot>,
    votes: BTreeMap<Slot, Vote>,
}

impl Acceptor {
    /// What the disk remembers.
    pub fn recover(protocol: Protocol, hooks: Hooks, durable: &Durable) -> Self {
        let mut acceptor = Acceptor {
            protocol,
            hooks,
            promised: durable.promised,
            promised_at: durable.promised_at.clone(),
            votes: durable.votes.clone(),
        };
        if let Some(snapshot) = &durable.snapshot
            && hooks.keeps_promise_over_snapshot()
        {
            acceptor.promised = acceptor.promised.max(snapshot.promised);
        }
        // P2 after a restart: a vote is a promise as well.
        if hooks.writes_promises() && hooks.syncs_promises() {
            for vote in durable.votes.values() {
                acceptor.raise(acceptor.scope(vote.slot), vote.ballot);
            }
        }
        acceptor
    }

    /// The scope of a vote's promise: every slot under Multi-Paxos, the slot alone under Basic Paxos.
    fn scope(&self, slot: Slot) -> Scope {
        match self.protocol {
            Protocol::MultiPaxos => Scope::From(slot),
            Protocol::BasicPaxos => Scope::Only(slot),
        }
    }

    fn raise(&mut self, scope: Scope, ballot: Ballot) {
        let promised = match scope {
            Scope::From(_) => &mut self.promised,
            Scope::Only(slot) => self.promised_at.entry(slot).or_default(),
        };
        *promised = (*promised).max(ballot);
    }

    /// The highest ballot promised for `slot`.
    pub fn promised(&self, slot: Slot) -> Ballot {
        self.promised.max(self.promised_at.get(&slot).copied().unwrap_or_default())
    }

    /// The highest ballot promised for any slot.
    pub fn highest_promise(&self) -> Ballot {
        self.promised_at.values().copied().max().unwrap_or_default().max(self.promised)
    }

    /// P1. Returns the record to be written before the promise is answered; `None` if it was given before.
    ///
    /// # Errors
    /// [`Refused`] if a higher ballot was promised.
    pub fn prepare(&mut self, ballot: Ballot, scope: Scope) -> Result<Option<Record>, Refused> {
        let promised = self.promised(scope.slot());
        if self.hooks.is_below(ballot, promised) {
            return Err(Refused(promised));
        }
        if ballot == promised {
            return Ok(None);
        }
        self.raise(scope, ballot);
        if !self.hooks.keeps_two_ballots() {
            self.votes.range_mut(scope.slot()..).for_each(|(_, vote)| vote.ballot = ballot);
        }
        Ok(Some(Record::Promised { ballot, scope }))
    }

    /// P2. Returns the record to be written before the acceptance is answered; `None` if it was given before.
    ///
    /// # Errors
    /// [`Refused`] if a higher ballot was promised.
    pub fn accept(
        &mut self,
        ballot: Ballot,
        slot: Slot,
        entry: Arc<Entry>,
    ) -> Result<Option<Record>, Refused> {
        let promised = self.promised(slot);
        if self.hooks.is_below(ballot, promised) && self.hooks.heeds_promise() {
            return Err(Refused(promised));
        }
        if self.hooks.votes_promise() {
            self.raise(self.scope(slot), ballot);
        }
        if self.votes.get(&slot).is_some_and(|vote| vote.ballot == ballot && vote.entry == entry) {
            return Ok(None);
        }
        let vote = Vote { slot, ballot, entry };
        self.votes.insert(slot, vote.clone());
        Ok(Some(Record::Accepted(vote)))
    }

    /// The vote for `slot`, if any.
    pub fn vote(&self, slot: Slot) -> Option<&Vote> {
        self.votes.get(&slot)
    }

    /// The votes from `slot` on.
    pub fn votes_from(&self, slot: Slot) -> impl Iterator<Item = &Vote> {
        self.votes.range(slot..).map(|(_, vote)| vote)
    }

    /// P3: all votes of the scope above `commit`.
    pub fn votes(&self, scope: Scope, commit: Slot) -> Vec<Vote> {
        match scope {
            _ if !self.hooks.reports_votes() => Vec::new(),
            Scope::From(slot) => {
                self.votes.range(slot.max(commit + 1)..).map(|(_, vote)| vote.clone()).collect()
            }
            Scope::Only(slot) => self.vote(slot).cloned().into_iter().collect(),
        }
    }

    /// Forgets the votes, and the promises for single slots, up to `floor`: all these slots are applied, and whoever asks
    /// about them is given a snapshot instead.
    pub fn forget(&mut self, floor: Slot) {
        self.votes = self.votes.split_off(&(floor + 1));
        self.promised_at = self.promised_at.split_off(&(floor + 1));
    }

    /// The promise for all slots, if it may be written down at all.
    pub fn promise_to_write(&self) -> Ballot {
        let written = self.hooks.writes_promises() && self.hooks.syncs_promises();
        if written { self.promised } else { Ballot::ZERO }
    }

    /// Everything it remembers, as records.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let kept = self.hooks.keeps_promise_over_snapshot();
        let whole = (Scope::From(0), if kept { self.promised } else { Ballot::ZERO });
        let single = self.promised_at.iter().map(|(slot, ballot)| (Scope::Only(*slot), *ballot));
        std::iter::once(whole)
            .chain(single)
            .filter(|(_, ballot)| self.hooks.writes_promises() && *ballot > Ballot::ZERO)
            .map(|(scope, ballot)| Record::Promised { ballot, scope })
            .chain(self.votes.values().cloned().map(Record::Accepted))
    }

    /// The highest slot it has promised something for by itself, or voted for, 0 if none.
    pub fn highest_slot(&self) -> Slot {
        self.promised_at.last_key_value().map_or(0, |(slot, _)| *slot).max(self.last_slot())
    }

    /// The highest slot it has voted for, 0 if none.
    pub fn last_slot(&self) -> Slot {
        self.votes.last_key_value().map_or(0, |(slot, _)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::EntryId;

    fn ballot(round: u64, node: u32) -> Ballot {
        Ballot { round, node }
    }

    fn entry(n: u64) -> Arc<Entry> {
        Arc::new(Entry { id: EntryId { node: 1, epoch: 1, n }, command: None })
    }

    fn multi() -> Acceptor {
        Acceptor::recover(Protocol::MultiPaxos, Hooks::default(), &Durable::default())
    }

    #[test]
    fn p1_a_promise_is_never_taken_back() {
        let mut acceptor = multi();
        assert!(acceptor.prepare(ballot(2, 1), Scope::From(1)).unwrap().is_some());
        assert_eq!(acceptor.prepare(ballot(1, 3), Scope::From(1)), Err(Refused(ballot(2, 1))));
        assert_eq!(
            acceptor.prepare(ballot(2, 1), Scope::From(1)),
            Ok(None),
            "the same proposer is answered again"
        );
        assert!(acceptor.prepare(ballot(2, 2), Scope::From(9)).unwrap().is_some(), "the node breaks ties");
        assert_eq!(acceptor.highest_promise(), ballot(2, 2));
    }

    #[test]
    fn p2_accepting_below_the_promise_is_refused_and_accepting_raises_it() {
        let mut acceptor = multi();
        acceptor.prepare(ballot(3, 1), Scope::From(1)).unwrap();
        assert_eq!(acceptor.accept(ballot(2, 2), 1, entry(1)), Err(Refused(ballot(3, 1))));
        assert!(acceptor.vote(1).is_none());
        assert!(acceptor.accept(ballot(5, 2), 1, entry(1)).unwrap().is_some());
        assert_eq!(
            acceptor.accept(ballot(5, 2), 1, entry(1)),
            Ok(None),
            "a duplicate needs no second record"
        );
        assert_eq!(acceptor.prepare(ballot(4, 9), Scope::From(1)), Err(Refused(ballot(5, 2))));
    }

    #[test]
    fn p3_a_promise_carries_every_vote_of_its_scope() {
        let mut acceptor = multi();
        for slot in [1, 2, 4] {
            acceptor.accept(ballot(1, 1), slot, entry(slot)).unwrap();
        }
        let slots = |scope, commit| acceptor.votes(scope, commit).iter().map(|v| v.slot).collect::<Vec<_>>();
        assert_eq!(slots(Scope::From(2), 0), [2, 4]);
        assert_eq!(slots(Scope::From(1), 2), [4], "what is chosen is fetched instead");
        assert_eq!(slots(Scope::Only(2), 0), [2]);
        assert_eq!(acceptor.last_slot(), 4);
    }

    #[test]
    fn forgetting_votes_keeps_the_promise_even_that_of_a_forgotten_vote() {
        let mut acceptor = multi();
        for (slot, round) in [(1, 1), (2, 7), (3, 7)] {
            acceptor.accept(ballot(round, 1), slot, entry(slot)).unwrap();
        }
        acceptor.forget(2);
        let durable: Durable = acceptor.records().collect();
        acceptor.forget(3);
        let empty: Durable = acceptor.records().collect();
        assert_eq!((durable.votes.len(), empty.votes.len()), (1, 0));
        for durable in [durable, empty] {
            let mut again = Acceptor::recover(Protocol::MultiPaxos, Hooks::default(), &durable);
            assert_eq!(again.accept(ballot(6, 9), 4, entry(4)), Err(Refused(ballot(7, 1))));
        }
    }

    #[test]
    fn under_basic_paxos_each_slot_has_its_own_promise() {
        let mut acceptor = Acceptor::recover(Protocol::BasicPaxos, Hooks::default(), &Durable::default());
        acceptor.prepare(ballot(7, 1), Scope::Only(1)).unwrap();
        assert!(acceptor.accept(ballot(1, 2), 2, entry(2)).is_ok());
        assert!(acceptor.accept(ballot(1, 2), 1, entry(2)).is_err());
    }

    #[test]
    fn a_restart_remembers_promises_and_that_votes_are_promises() {
        let mut acceptor = multi();
        let records = [
            acceptor.prepare(ballot(2, 1), Scope::From(1)).unwrap().unwrap(),
            acceptor.accept(ballot(4, 2), 3, entry(3)).unwrap().unwrap(),
        ];
        let durable: Durable = records.into_iter().collect();
        let mut again = Acceptor::recover(Protocol::MultiPaxos, Hooks::default(), &durable);
        assert_eq!(again.highest_promise(), ballot(4, 2));
        assert!(again.accept(ballot(3, 9), 1, entry(1)).is_err());
        assert_eq!(again.vote(3).unwrap().entry, entry(3));
    }
}
