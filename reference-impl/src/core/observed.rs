//! What a node can be asked about itself from outside: how far its disk is, what it knows of each slot, and what the prefix
//! had come to at some slots before.
//!
//! ```text
//! issued   tokens  … 41  42  43          writes: slot 97 with 42, slot 98 with 43
//! persisted             ↑                a vote for 97 is there, and not yet durable: nobody was told of it
//!
//! checkpoint        16    32    48       (slot, hash of the prefix, digest of keys, digest of sessions)
//! ```
//!
//! Replicas are rarely at the same slot when they are asked; checkpoints at the same slots make them comparable all the same.
//! A promise is reported once everything that was to be written with it is on the disk, since only then may anybody have been
//! told of it: a crash before that takes nothing back. Deliberately without any influence on what the core does, and no part
//! of when two cores are the same.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ballot::{Ballot, Slot};
use super::command::Entry;
use super::record::Record;
use super::{Core, Token};

/// Slots between two checkpoints.
pub const CHECKPOINT_EVERY: Slot = 16;
/// Checkpoints that are kept.
const CHECKPOINTS_MAX: usize = 256;

/// What the prefix of the log up to a slot came to. Equal on all replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// The last slot of the prefix.
    pub slot: Slot,
    /// Hash of its entries.
    pub hash: u64,
    /// Digest of keys and values.
    pub state: u64,
    /// Digest of the session table.
    pub sessions: u64,
}

/// What a node knows of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Which.
    pub slot: Slot,
    /// The chosen value if it is known, else the one voted for.
    pub entry: Arc<Entry>,
    /// The ballot of the node's own vote for this value, if it has given one.
    pub ballot: Option<Ballot>,
    /// It is known to be chosen.
    pub chosen: bool,
    /// What was learned last about this slot is on the disk.
    pub durable: bool,
}

/// What is on its way to the disk, and what was.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// The promise for all slots, as far as it may have been told.
    promised: Ballot,
    /// The promise that the disk remembered when this incarnation began.
    recovered: Ballot,
    /// Higher ones, each with the write that it waits for.
    promises: VecDeque<(Token, Ballot)>,
    /// Slots whose votes and values are on their way to the disk.
    writes: VecDeque<(Token, Slot)>,
    checkpoints: VecDeque<Checkpoint>,
}

impl Observed {
    /// These records go to the disk with this token.
    pub(super) fn wrote(&mut self, token: Token, records: &[Record]) {
        for record in records {
            match record {
                Record::Accepted(vote) => self.writes.push_back((token, vote.slot)),
                Record::Chosen { slot, .. } => self.writes.push_back((token, *slot)),
                _ => {}
            }
        }
    }

    /// What the disk remembers of promises.
    pub(super) fn recovered(promised: Ballot) -> Self {
        Observed { promised, recovered: promised, ..Observed::default() }
    }

    /// After a step: everything up to `persisted` is on the disk, `issued` was the last write, and `promised` is what the
    /// acceptor holds itself to.
    pub(super) fn notice(&mut self, issued: Token, persisted: Token, promised: Ballot) {
        if promised > self.promises.back().map_or(self.promised, |(_, ballot)| *ballot) {
            self.promises.push_back((issued, promised));
        }
        while let Some((_, ballot)) = self.promises.front().filter(|(token, _)| *token <= persisted) {
            self.promised = *ballot;
            self.promises.pop_front();
        }
        while self.writes.front().is_some_and(|(token, _)| *token <= persisted) {
            self.writes.pop_front();
        }
    }

    /// The prefix up to a checkpoint's slot has just been applied.
    pub(super) fn checkpoint(&mut self, checkpoint: Checkpoint) {
        if self.checkpoints.len() == CHECKPOINTS_MAX {
            self.checkpoints.pop_front();
        }
        self.checkpoints.push_back(checkpoint);
    }

    /// The highest promise for all slots that anybody may have been told of, and the one that this incarnation began with.
    pub(super) fn promises(&self) -> (Ballot, Ballot) {
        (self.promised, self.recovered)
    }
}

impl Core {
    /// What the applied prefix has come to by now.
    pub fn here(&self) -> Checkpoint {
        let machine = self.learner.machine();
        let (state, sessions) = (machine.state_digest(), machine.session_digest());
        Checkpoint { slot: self.learner.applied(), hash: self.learner.hash(), state, sessions }
    }

    /// The checkpoints after `slot` that are still kept, in order.
    pub fn checkpoints_after(&self, slot: Slot) -> impl Iterator<Item = Checkpoint> + '_ {
        let before = self.observed.checkpoints.partition_point(|checkpoint| checkpoint.slot <= slot);
        self.observed.checkpoints.range(before..).copied()
    }

    /// Everything that was chosen up to this slot is on this node's disk: in the snapshot or in the log.
    pub fn durable_to(&self) -> Slot {
        let writing = self.observed.writes.iter().map(|(_, slot)| *slot).min();
        writing.map_or(self.learner.applied(), |slot| self.learner.applied().min(slot - 1))
    }

    /// What this node knows of the slots from `from` on, at most `limit` of them. What is below the floor of its log is not
    /// known slot by slot any more.
    pub fn slots_from(&self, from: Slot, limit: usize) -> Vec<SlotView> {
        let mut votes = self.acceptor.votes_from(from).peekable();
        let mut chosen = self.learner.chosen_from(from).peekable();
        let mut views = Vec::new();
        while views.len() < limit {
            let next = [votes.peek().map(|vote| vote.slot), chosen.peek().map(|(slot, _)| *slot)];
            let Some(slot) = next.into_iter().flatten().min() else { break };
            let vote = votes.next_if(|vote| vote.slot == slot);
            let known = chosen.next_if(|(at, _)| *at == slot).map(|(_, entry)| entry);
            let Some(entry) = known.or(vote.map(|vote| &vote.entry)) else { break };
            views.push(SlotView {
                slot,
                entry: entry.clone(),
                ballot: vote.filter(|vote| vote.entry == *entry).map(|vote| vote.ballot),
                chosen: known.is_some(),
                durable: self.observed.writes.iter().all(|(_, writing)| *writing != slot),
            });
        }
        views
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Command, Config, Durable, Effect, EntryId, Input, Message, Mono, Op, Protocol, Scope};

    const HERS: Ballot = Ballot { round: 5, node: 2 };

    fn follower() -> Core {
        let mut durable = Durable::default();
        durable.begin_incarnation(std::time::Duration::ZERO);
        durable.known = [(2, 1), (3, 1)].into();
        Core::new(Config::new(1, [2, 3], Protocol::MultiPaxos), durable, Mono::default())
    }

    fn entry(n: u64) -> Arc<Entry> {
        let op = Op::Put { key: "a".to_owned(), value: n.to_string().into() };
        Arc::new(Entry {
            id: EntryId { node: 2, epoch: 1, n },
            command: Some(Command { client: 7, seq: n, op }),
        })
    }

    fn says(core: &mut Core, message: Message) -> Vec<Effect> {
        core.step(Mono::default(), Input::Message { from: 2, message })
    }

    fn accept(core: &mut Core, slot: Slot, commit: Slot) -> Vec<Effect> {
        says(core, Message::Accept { ballot: HERS, slot, entry: entry(slot), commit })
    }

    fn token(effects: &[Effect]) -> Token {
        let tokens = effects.iter().filter_map(|effect| match effect {
            Effect::Persist { token, .. } => Some(*token),
            _ => None,
        });
        tokens.max().expect("something is written")
    }

    #[test]
    fn a_promise_is_told_only_once_it_is_on_the_disk() {
        let mut core = follower();
        let effects = says(&mut core, Message::Prepare { ballot: HERS, scope: Scope::From(1) });
        assert_eq!((core.status().promised, core.status().told), (HERS, Ballot::ZERO));
        core.step(Mono::default(), Input::Persisted(token(&effects)));
        assert_eq!((core.status().told, core.status().recovered), (HERS, Ballot::ZERO));
        // After a restart it was told before.
        let durable: Durable =
            [Record::Promised { ballot: HERS, scope: Scope::From(1) }].into_iter().collect();
        let config = Config::new(1, [2, 3], Protocol::MultiPaxos);
        let status = Core::new(config, durable, Mono::default()).status();
        assert_eq!((status.told, status.recovered), (HERS, HERS));
    }

    #[test]
    fn a_slot_is_durable_once_its_vote_is_and_chosen_once_that_is_known() {
        let mut core = follower();
        let written = token(&accept(&mut core, 1, 0));
        let later = token(&accept(&mut core, 2, 1));
        let seen = |core: &Core| -> Vec<(Slot, bool, bool)> {
            core.slots_from(0, 9).into_iter().map(|view| (view.slot, view.chosen, view.durable)).collect()
        };
        assert_eq!(seen(&core), [(1, true, false), (2, false, false)]);
        assert_eq!((core.status().applied, core.durable_to()), (1, 0));
        core.step(Mono::default(), Input::Persisted(written));
        assert_eq!(seen(&core), [(1, true, true), (2, false, false)]);
        core.step(Mono::default(), Input::Persisted(later));
        assert_eq!(seen(&core), [(1, true, true), (2, false, true)]);
        assert_eq!(core.durable_to(), 1);
        assert_eq!(core.slots_from(2, 9)[0].ballot, Some(HERS));
        assert_eq!(core.slots_from(0, 1).len(), 1);
        assert_eq!(core.slots_from(3, 9), []);
    }

    #[test]
    fn a_value_that_was_learned_against_the_own_vote_is_shown_without_a_ballot() {
        let mut core = follower();
        accept(&mut core, 1, 0);
        let other = entry(99);
        let effects = says(&mut core, Message::Chosen { entries: vec![(1, other.clone())], commit: 1 });
        let view = &core.slots_from(1, 1)[0];
        assert_eq!((&view.entry, view.ballot, view.chosen, view.durable), (&other, None, true, false));
        core.step(Mono::default(), Input::Persisted(token(&effects)));
        assert!(core.slots_from(1, 1)[0].durable);
    }

    #[test]
    fn replicas_at_different_slots_can_be_compared_at_their_checkpoints() {
        let (mut one, mut other) = (follower(), follower());
        for slot in 1..=100 {
            accept(&mut one, slot, slot);
            if slot <= 40 {
                accept(&mut other, slot, slot);
            }
        }
        let of = |core: &Core, after| core.checkpoints_after(after).collect::<Vec<_>>();
        assert_eq!(of(&one, 16).iter().map(|c| c.slot).collect::<Vec<_>>(), [32, 48, 64, 80, 96]);
        assert_eq!(of(&one, 0)[..2], of(&other, 0));
        assert_ne!(of(&one, 0)[0].state, of(&one, 0)[1].state);
        assert_ne!(of(&one, 0)[0].sessions, of(&one, 0)[1].sessions);
        assert_eq!(one.here().slot, 100);
        for slot in 101..=CHECKPOINT_EVERY * (CHECKPOINTS_MAX as Slot + 3) {
            accept(&mut one, slot, slot);
        }
        assert_eq!(of(&one, 0).len(), CHECKPOINTS_MAX);
        assert_eq!(of(&one, 0)[0].slot, 4 * CHECKPOINT_EVERY);
    }
}
