//! Whether a node may vote. One that has forgotten its votes and promises (its disk was lost or replaced) must not: what it
//! has forgotten may be what a chosen value, or a leader, rests on.
//!
//! ```text
//! empty directory ─ Hello(0) to all others, each answers once: which incarnation of yours do I know? what have I promised?
//!    ├─ nobody knows one  → first start ever: votes at once
//!    └─ somebody does     → incarnation known + 1; learns without a vote …
//!         … until it has applied everything that a leader had proposed when it answered this incarnation → votes
//! ```
//!
//! **Nobody is overlooked.** A node counts what another one says only after it has written down, and synced, that it knows it
//! ([`Record::Known`]). So if a lost vote ever counted anywhere, somebody among *all* others knows its giver. That is why an
//! empty directory waits for all of them, and why the first start of a cluster ends when its last node has started.
//!
//! **Why the wait is long enough.** Let `b*` be the highest ballot that any other node has promised (or leads, or stands
//! under) when it answers. (1) The lost promises were for ballots up to `b*`: their candidates are among those asked. (2) The lost votes are under ballots up
//! to `b*`, too: whoever asked for one was promised its ballot by a majority, of which one is among those asked. (3) A leader of a
//! ballot `b ≥ b*` says which slot it will propose next; its phase 1 was told the truth, by the lost node as well if it came first. So
//! from that slot on nothing was, or can be, chosen with a lost vote: none was given under `b` (nothing was proposed there yet),
//! and for lower ballots phase 1 has found nothing. (4) Below that slot all is chosen and applied here before this node votes. It
//! then promises `b`, and all its statements are true again. Under Basic Paxos the slot is the highest that any other node knows of.
//!
//! **With members that change.** A node that is started to be added (`--join`) is treated as one that has lost its disk: it learns, and has
//! no vote. A change names, for each node that it adds, the incarnation by which it has greeted the leader lately; and the first incarnation of a disk that joins is drawn at
//! random (and grows with the time, so that one who is asked and has never heard of the disk before does no harm). So a disk that has had the named incarnation is the one that was added, and has forgotten nothing: it votes as soon as it has applied
//! the stop-sign. Any other disk under that number gets its vote by the rule above, with "all others" those of the configuration that it is in, asked again in
//! each: what was lost about an earlier configuration does not matter, because the node votes there no more.
//!
//! Deliberately no help if a majority has lost its disks: then nobody leads, and nothing is made up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ballot::{Ballot, Mono, NodeId, Slot};
use super::lease::Grant;
use super::message::{Message, Scope};
use super::record::{Durable, Record};
use super::{Core, Effect, Note, Protocol, Role, Token};

/// How a node stands to its own past.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Standing {
    /// The directory was empty: asks whether there is a past. What each node answered: known incarnation, promise, slot.
    Asking(BTreeMap<NodeId, (u64, Ballot, Slot)>),
    /// There is one, and it is lost. `until`: a leader's ballot, and what must be applied before this node votes.
    Learning {
        forgotten: Forgotten,
        until: Option<(Ballot, Slot)>,
    },
    Voter,
}

/// Bounds for what a node has forgotten: no ballot, and (under Basic Paxos) no slot, above these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Forgotten {
    /// The highest ballot that any other node had promised.
    pub ballot: Ballot,
    /// The highest slot that any other node knew of.
    pub slot: Slot,
}

/// Who is known, and how this node stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Joining {
    standing: Standing,
    /// Takes effect when this token is on the disk.
    next: Option<(Token, u64, Standing)>,
    /// Incarnations of the others, on the disk.
    known: BTreeMap<NodeId, u64>,
    /// The same, and those on their way there.
    noted: BTreeMap<NodeId, u64>,
    noting: BTreeMap<Token, NodeId>,
    /// Who has written this incarnation down.
    greeted: BTreeSet<NodeId>,
    hello_at: Mono,
    /// The first incarnation of this disk.
    first: u64,
    /// What the others of this configuration had promised when they first answered a node without a vote.
    heard: BTreeMap<NodeId, Ballot>,
    /// Whom a node that is no member has asked last for news.
    asked: NodeId,
    /// Nodes that are no members: by which incarnation, and when, each greeted last.
    guests: BTreeMap<NodeId, (u64, Mono)>,
}

impl Joining {
    pub(super) fn recover(durable: &Durable, now: Mono) -> Self {
        let standing = match durable.forgotten {
            _ if durable.epoch == 0 => Standing::Asking(BTreeMap::new()),
            Some(forgotten) => Standing::Learning { forgotten, until: None },
            None => Standing::Voter,
        };
        let known = durable.known.clone();
        Joining {
            standing,
            next: None,
            noted: known.clone(),
            known,
            noting: BTreeMap::new(),
            greeted: BTreeSet::new(),
            hello_at: now,
            first: if durable.first == 0 { durable.epoch } else { durable.first },
            heard: BTreeMap::new(),
            asked: 0,
            guests: BTreeMap::new(),
        }
    }

    /// The incarnation of a node that is no member and has greeted lately, if it is written down here.
    pub(super) fn guest(&self, node: NodeId, now: Mono, presence: Duration) -> Option<u64> {
        let (epoch, at) = self.guests.get(&node)?;
        (self.known.get(&node) == Some(epoch) && now.since(*at) < presence).then_some(*epoch)
    }

    /// The incarnation of another node that is written down here.
    pub(super) fn knows(&self, node: NodeId) -> Option<u64> {
        self.known.get(&node).copied()
    }

    /// The record of the first incarnation, if that is not the newest.
    pub(super) fn first_start(&self, epoch: u64, lease: Duration) -> Option<Record> {
        (0 < self.first && self.first < epoch).then_some(Record::Start { epoch: self.first, lease })
    }

    /// Another configuration begins: what was heard in the one before says nothing about it.
    pub(super) fn enter(&mut self, now: Mono) {
        self.heard.clear();
        self.guests.clear();
        if let Standing::Learning { until, .. } = &mut self.standing {
            *until = None;
        }
        self.hello_at = now;
    }

    /// What a truncated log must still say.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let known = self.noted.iter().map(|(node, epoch)| Record::Known { node: *node, epoch: *epoch });
        // What is about to take effect is written already: the log that is replaced may not have been the last to say it.
        let standing = self.next.as_ref().map_or(&self.standing, |(_, _, standing)| standing);
        let forgotten = match standing {
            Standing::Learning { forgotten, .. } => Some(*forgotten),
            _ => None,
        };
        known.chain(forgotten.map(|forgotten| Record::Forgotten(Some(forgotten))))
    }

    /// Name of the role of a node that has no vote.
    pub(super) fn role(&self) -> Option<&'static str> {
        match self.standing {
            Standing::Asking(_) => Some("joining"),
            Standing::Learning { .. } => Some("learner"),
            Standing::Voter => None,
        }
    }
}

impl Core {
    /// Whether this node may promise and accept.
    pub fn votes(&self) -> bool {
        matches!(self.joining.standing, Standing::Voter) && self.is_member()
    }

    pub(super) fn is_asking(&self) -> bool {
        matches!(self.joining.standing, Standing::Asking(_))
    }

    /// Whether a message may be listened to: everyone may greet, ask, and tell what was chosen; what others say of *themselves* counts once
    /// they are known.
    pub(super) fn may_say(&self, from: NodeId, message: &Message) -> bool {
        match message {
            Message::Hello { .. } | Message::Welcome { .. } => true,
            _ if self.is_asking() => false,
            // What was chosen is true whoever says it.
            Message::Fetch { .. } | Message::FetchSnapshot { .. } => true,
            Message::Chosen { .. } | Message::Snapshot { .. } => true,
            // From a later configuration it says only that there is something to fetch.
            _ if message.config().is_some_and(|config| config > self.config.number) => true,
            _ => self.joining.known.contains_key(&from),
        }
    }

    /// When it says again who it is. Never, once all others have written that down, for one that decides; one that does not must
    /// show that it could.
    pub(super) fn joining_wakeup(&self) -> Mono {
        let done = self.votes() && self.config.others().all(|node| self.joining.greeted.contains(&node));
        if done { Mono::NEVER } else { self.joining.hello_at }
    }

    pub(super) fn joining_tick(&mut self, now: Mono) {
        if now < self.joining_wakeup() {
            return;
        }
        self.joining.hello_at = now + self.config.timing.heartbeat * 2;
        let silent = |node: &NodeId| match &self.joining.standing {
            Standing::Asking(answers) => !answers.contains_key(node),
            Standing::Learning { .. } => true,
            Standing::Voter => !self.is_member() || !self.joining.greeted.contains(node),
        };
        let silent: Vec<NodeId> = self.config.others().filter(silent).collect();
        let hello = Message::Hello { epoch: self.epoch, nonce: self.config.nonce };
        silent.into_iter().for_each(|node| self.send(node, hello.clone(), None));
        self.try_to_vote(now);
        if !self.is_asking() && !self.is_member() && self.is_idle() {
            // Nobody sends it anything of their own accord.
            let after = self.joining.asked;
            let next = self.config.others().find(|node| *node > after).or(self.config.others().next());
            if let Some(node) = next {
                self.joining.asked = node;
                self.send(node, Message::Fetch { from: self.learner.applied() + 1 }, None);
            }
        }
    }

    /// `from` has started. Write that down, and say what is known of it and of the cluster.
    pub(super) fn on_hello(&mut self, from: NodeId, epoch: u64, nonce: u64, now: Mono) {
        let known = self.joining.noted.get(&from).copied().unwrap_or(0);
        if epoch == 0 || epoch > known {
            // If it has lost its disk it has also forgotten this node.
            self.joining.greeted.remove(&from);
        }
        if epoch > known {
            self.persist(vec![Record::Known { node: from, epoch }], now);
            self.joining.noted.insert(from, epoch);
            self.joining.noting.insert(self.issued, from);
        }
        if self.config.nodes.contains(&from) || epoch == 0 {
            // An empty disk: whatever it was, it is not that any more.
            self.joining.guests.remove(&from);
        } else if epoch >= known {
            self.joining.guests.insert(from, (epoch, now));
        }
        let (claims, leading) = match &self.role {
            Role::Follower => (Ballot::ZERO, None),
            Role::Candidate(candidate) => (candidate.ballot(), None),
            Role::Leader(leader) => (leader.ballot, Some((leader.ballot, leader.next))),
        };
        let promised = self.acceptor.highest_promise().max(claims);
        let slot = self.acceptor.highest_slot().max(self.learner.last_chosen());
        let config = self.config.number;
        self.send_when_durable(
            from,
            Message::Welcome { epoch, nonce, known, promised, slot, leading, config },
        );
    }

    pub(super) fn on_welcome(&mut self, from: NodeId, welcome: Message, now: Mono) {
        let Message::Welcome { epoch, nonce, known, promised, slot, leading, config } = welcome else {
            return;
        };
        // The nonce: an answer to an earlier incarnation, which may have been another node's word on an empty cluster.
        if nonce != self.config.nonce || epoch != self.epoch || !self.config.nodes.contains(&from) {
            return;
        }
        if config > self.config.number && !self.is_asking() {
            // Whoever has missed a change may be greeted by none of the new members.
            self.want(self.learner.applied() + 1, from, now);
        }
        match &mut self.joining.standing {
            Standing::Asking(answers) => {
                answers.entry(from).or_insert((known, promised, slot));
                self.decide(now);
            }
            Standing::Learning { forgotten, until } => {
                self.joining.greeted.insert(from);
                let here = config == self.config.number;
                if here {
                    self.joining.heard.entry(from).or_insert(promised);
                }
                // In configuration 0 all others were asked before this incarnation began.
                let heard = &self.joining.heard;
                let all = config == 0 || self.config.others().all(|node| heard.contains_key(&node));
                let bound = heard.values().copied().max().unwrap_or_default().max(forgotten.ballot);
                let bound = if config == 0 { forgotten.ballot } else { bound };
                // Any such leader will do; the one with the least to wait for is best.
                if let Some((ballot, next)) = leading
                    && here
                    && all
                    && ballot >= bound
                    && until.is_none_or(|(_, known)| next < known)
                {
                    *until = Some((ballot, next));
                }
                self.try_to_vote(now);
            }
            Standing::Voter => drop(self.joining.greeted.insert(from)),
        }
    }

    /// All have answered: begins the first incarnation, or the next one after those that are forgotten.
    fn decide(&mut self, now: Mono) {
        let Standing::Asking(answers) = &self.joining.standing else { return };
        let joins = self.config.joins;
        // Whoever joins has no vote anyway: one that answers is enough.
        let enough = if joins { 1 } else { self.config.others().count() };
        if answers.len() < enough || self.joining.next.is_some() {
            return;
        }
        let known = answers.values().map(|(known, ..)| *known).max().unwrap_or(0);
        let forgotten = Forgotten {
            ballot: answers.values().map(|(_, ballot, _)| *ballot).max().unwrap_or_default(),
            slot: answers.values().map(|(.., slot)| *slot).max().unwrap_or(0),
        };
        // What fits into the numbers of JSON.
        let drawn = if joins { self.config.nonce >> 12 } else { 0 };
        let epoch = known + 1 + drawn;
        let mut records = vec![Record::Start { epoch, lease: self.config.timing.lease }];
        let standing = if !joins && (known == 0 || !self.config.hooks.waits_after_wipe()) {
            Standing::Voter
        } else {
            records.push(Record::Forgotten(Some(forgotten)));
            Standing::Learning { forgotten, until: None }
        };
        self.persist(records, now);
        self.joining.next = Some((self.issued, epoch, standing));
    }

    /// Whether this disk is the one that the configuration means.
    fn was_added(&self) -> bool {
        let born = self.config.members.get(&self.config.id).map_or(0, |me| me.born);
        let any = !self.config.shortcuts.knows_disks() || !self.config.shortcuts.waits_until_applied();
        self.config.number > 0
            && (0 < born && self.joining.first <= born && born <= self.epoch || any && self.is_member())
    }

    /// Votes again, if everything is known that the forgotten votes can have been about.
    pub(super) fn try_to_vote(&mut self, now: Mono) {
        let Standing::Learning { forgotten, until } = self.joining.standing else { return };
        if !self.is_member() {
            return;
        }
        let applied = self.learner.applied();
        let promise = match (self.config.protocol, until) {
            _ if self.was_added() => Ballot::ZERO,
            (Protocol::MultiPaxos, Some((ballot, next))) if applied + 1 >= next => ballot,
            (Protocol::BasicPaxos, _) if applied >= forgotten.slot => Ballot::ZERO,
            _ => return,
        };
        if self.joining.next.is_some() {
            return;
        }
        // The entries that it has learned are among these records, or on the disk already.
        let mut records = vec![Record::Forgotten(None)];
        if let Ok(Some(record)) = self.acceptor.prepare(promise, Scope::From(0)) {
            records.push(record);
        }
        self.persist(records, now);
        self.joining.next = Some((self.issued, self.epoch, Standing::Voter));
    }

    /// Something is on the disk.
    pub(super) fn joining_persisted(&mut self, now: Mono) {
        let later = self.joining.noting.split_off(&(self.persisted + 1));
        for node in std::mem::replace(&mut self.joining.noting, later).into_values() {
            let epoch = self.joining.noted.get(&node).copied().unwrap_or(0);
            self.joining.known.insert(node, epoch);
        }
        let persisted = self.persisted;
        let Some((_, epoch, standing)) = self.joining.next.take_if(|(token, ..)| *token <= persisted) else {
            return;
        };
        if epoch > self.epoch {
            self.epoch = epoch;
            if self.joining.first == 0 {
                self.joining.first = epoch;
            }
            self.effects.push(Effect::Incarnation(epoch));
        }
        if let Standing::Learning { forgotten, .. } = standing {
            self.top_round = self.top_round.max(forgotten.ballot.round);
            // A grant may be forgotten as well.
            self.grant = Grant::after_restart(now + self.config.timing.lease);
            let note = if self.config.joins { Note::Joins { epoch } } else { Note::LostItsDisk { epoch } };
            self.effects.push(note.into());
        } else if matches!(self.joining.standing, Standing::Learning { .. }) {
            self.effects.push(Effect::Note(Note::VotesAgain { applied: self.learner.applied() }));
        }
        self.joining.standing = standing;
        self.joining.hello_at = now;
        self.reset_election(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Config, Entry, EntryId, Input, testing};
    use std::sync::Arc;

    fn ballot(round: u64, node: NodeId) -> Ballot {
        Ballot { round, node }
    }

    fn fresh() -> Core {
        Core::new(Config::new(1, 1..=3, Protocol::MultiPaxos), Durable::default(), Mono(0))
    }

    /// Feeds a message, with a disk that is immediate; returns the answers.
    fn tell(core: &mut Core, from: NodeId, message: Message) -> Vec<Message> {
        let effects = testing::step(core, Mono(0), Input::Message { from, message });
        testing::sent(effects).into_iter().map(|(_, message)| message).collect()
    }

    /// One that has lost its disk: incarnation 5, since node 2 knows of 4.
    fn forgetful() -> Core {
        let mut core = fresh();
        tell(&mut core, 2, Message::Hello { epoch: 1, nonce: 5 });
        tell(&mut core, 2, welcome(0, 4, ballot(3, 2), None));
        tell(&mut core, 3, welcome(0, 0, ballot(7, 3), None));
        core
    }

    fn welcome(epoch: u64, known: u64, promised: Ballot, leading: Option<(Ballot, Slot)>) -> Message {
        Message::Welcome { epoch, nonce: 0, known, promised, slot: 0, leading, config: 0 }
    }

    #[test]
    fn a_first_start_needs_the_word_of_all_others_and_of_this_start() {
        let mut core = fresh();
        tell(&mut core, 2, welcome(0, 0, Ballot::ZERO, None));
        let of_before = Message::Welcome {
            epoch: 0,
            nonce: 9,
            known: 0,
            promised: Ballot::ZERO,
            slot: 0,
            leading: None,
            config: 0,
        };
        tell(&mut core, 3, of_before);
        assert!(!core.votes() && core.is_asking());
        tell(&mut core, 3, welcome(0, 0, Ballot::ZERO, None));
        assert!(core.votes());
    }

    #[test]
    fn a_lost_disk_means_no_vote_before_all_is_applied_that_a_new_enough_leader_had_proposed() {
        let mut core = forgetful();
        assert_eq!((core.votes(), core.epoch), (false, 5), "node 2 knows incarnation 4");
        let prepare = Message::Prepare { ballot: ballot(9, 2), scope: Scope::From(1) };
        assert!(tell(&mut core, 2, prepare.clone()).is_empty(), "no promise");
        tell(&mut core, 2, welcome(5, 4, ballot(3, 2), Some((ballot(6, 2), 1))));
        assert!(!core.votes(), "a leader below what node 3 has promised proves nothing");
        tell(&mut core, 2, welcome(5, 4, ballot(8, 2), Some((ballot(8, 2), 3))));
        assert!(!core.votes(), "slots 1 and 2 are still unknown");
        let entry = |n| Arc::new(Entry { id: EntryId { node: 2, epoch: 1, n }, command: None });
        tell(&mut core, 2, Message::Chosen { entries: vec![(1, entry(1))], commit: 1 });
        tell(&mut core, 2, welcome(5, 4, ballot(8, 2), Some((ballot(8, 2), 4))));
        assert!(!core.votes());
        tell(&mut core, 2, Message::Chosen { entries: vec![(2, entry(2))], commit: 2 });
        tell(&mut core, 2, welcome(5, 4, ballot(8, 2), Some((ballot(8, 2), 4))));
        assert!(core.votes(), "the least that one of them had proposed is applied");
        assert_eq!(core.acceptor().promised(3), ballot(8, 2));
    }

    /// Otherwise a log that is truncated between the decision and its record takes the vote away again at the next start.
    #[test]
    fn a_log_truncated_while_a_node_regains_its_vote_does_not_say_that_it_has_none() {
        let mut core = forgetful();
        let forgets = |core: &Core| core.joining.records().any(|r| matches!(r, Record::Forgotten(_)));
        assert!(!core.votes() && forgets(&core));
        let message = welcome(5, 4, ballot(8, 2), Some((ballot(8, 2), 1)));
        core.step(Mono(0), Input::Message { from: 2, message });
        assert!(!core.votes() && core.joining.next.is_some(), "the record is on its way");
        assert!(!forgets(&core));
    }
}
