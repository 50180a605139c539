//! Changes of membership by a stop-sign (Stoppable Paxos, Lamport, Malkhi, Zhou 2008; as OmniPaxos has it, Ng, Haridi, Carbone 2023).
//!
//! ```text
//! slot        …  810   811   812 = stop-sign(0 → {1, 2, 3, 4, 5})   813   814  …
//! decided by     {1, 2, 3} ─────────────────────────────────────┤ {1, 2, 3, 4, 5}: a new phase 1 by a node that has applied 812
//! ballots of     rounds 0 …                                       rounds 2^40 …
//! ```
//!
//! **Who counts.** A ballot belongs to a configuration ([`Ballot::config`]), and all ballots of a later one are higher. A node is in the
//! configuration that the prefix it has *applied* says, and hears messages of that one only; whoever is behind learns of it by that
//! and fetches what it has missed. So promises, votes, leases and confirmations count among the nodes of one configuration, no quorum of one can
//! be had before a quorum has applied the stop-sign that begins it, and a vote of an earlier one never outranks one of a later.
//!
//! **Nothing behind a stop-sign.** A leader proposes nothing behind one that it has proposed. A leader that *finds* one in its phase 1, as
//! the vote of ballot `b` for slot `s`, has two cases.
//! - There is a vote behind `s` under a ballot above `b`. Whoever cast that ballot proposed behind `s`, so it had no stop-sign at `s`: its phase 1
//!   was told of none there, so that none was, or can be, chosen there below its ballot. And no other value is chosen there, or it
//!   would have been reported. So the slot is free, and gets a no-op. A value that is known to be chosen behind `s`, while that of `s` is not, counts
//!   as such a vote: it was decided in this configuration, for what others tell is learned without gaps only (see `catchup`).
//! - There is none. Then nothing is, or can be, chosen behind `s`: not under a ballot above `b`, or a vote would have been reported; not under
//!   `b`, which proposed nothing there; not below `b`, whose phase 1 found nothing there, or had the right to drop it for this same
//!   reason. So the stop-sign stays, and what is reported behind it is dropped.
//!
//! **No lease of the configuration before.** A leader reads nothing from its memory from the moment on at which it proposes a stop-sign
//! (as its own, or an inherited one: then it has not read before either). Nobody can learn that a stop-sign is chosen but from a leader that has
//! proposed it, and earlier leaders had lost their leases before that one was elected. So when anybody enters the next configuration no lease of the last is
//! in use. The grants are kept nevertheless, until the leader gives them back or they run out.
//!
//! **No change that could not be followed by another.** A change names disks. If one was lost before, or a node is down, it may be without a vote when the
//! configuration begins; and where a majority is, nobody leads who could help it. So a leader proposes a change only if whoever is added has greeted it lately, and
//! a majority of all that are named are added, or have lately acknowledged its heartbeats, which takes a vote. What happens to them afterwards is for the new configuration to bear,
//! like any other: less than a majority may lose its disks.
//!
//! Deliberately one change at a time, and only under Multi-Paxos.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ballot::{Ballot, Mono, NodeId, Slot};
use super::command::{Entry, Failure, Op};
use super::leader::Leader;
use super::members::{self, Members, Nodes};
use super::message::Message;
use super::{Core, Effect, Note, Role};

/// What a phase 1 has found, by slot: under which ballot, and what.
pub(super) type Found = BTreeMap<Slot, (Ballot, Arc<Entry>)>;

/// Clears the way behind a stop-sign of configuration `config`, or the stop-sign itself. Returns its slot, if one stays.
pub(super) fn settle_stop_sign(found: &mut Found, config: u64) -> Option<Slot> {
    let stops: Vec<Slot> =
        found.iter().filter(|(_, (_, entry))| entry.ends(config)).map(|(slot, _)| *slot).collect();
    for slot in stops {
        let under = found[&slot].0;
        if found.range(slot + 1..).any(|(_, (ballot, _))| *ballot > under) {
            found.remove(&slot);
        } else {
            found.split_off(&(slot + 1));
            return Some(slot);
        }
    }
    None
}

impl Core {
    /// Whether this node is one of those that decide.
    pub fn is_member(&self) -> bool {
        self.config.nodes.contains(&self.config.id)
    }

    /// Number of the configuration that this node is in.
    pub fn configuration(&self) -> u64 {
        self.config.number
    }

    /// Its nodes and their addresses.
    pub fn members(&self) -> &Arc<Nodes> {
        &self.config.members
    }

    /// `from` is in another configuration than this node. Whoever is behind has something to fetch.
    pub(super) fn other_configuration(&mut self, from: NodeId, message: &Message, config: u64, now: Mono) {
        if from == self.config.id {
            // The node has gone on since it told itself.
        } else if config > self.config.number {
            self.want(self.learner.applied() + 1, from, now);
        } else if message.is_question() {
            let commit = self.learner.applied();
            self.send(from, Message::Chosen { entries: Vec::new(), commit }, None);
        }
    }

    /// A leader is asked for a change: fills in which disks are meant.
    ///
    /// # Errors
    /// Why it must not be proposed. `Ok(false)`: it was made already.
    pub(super) fn admit_change(&self, from: u64, nodes: &mut Nodes, now: Mono) -> Result<bool, Failure> {
        let Role::Leader(leader) = &self.role else { return Err(Failure::NotLeader) };
        let current = self.config.members.clone();
        if from != self.config.number {
            let number = self.config.number;
            if from + 1 == number && members::are_same(nodes, &current) {
                return Ok(false);
            }
            let why = format!(
                "it is to replace configuration {from}, but this is configuration {number}; look at the members again"
            );
            return Err(Failure::Invalid(why));
        }
        if members::are_same(nodes, &current) {
            return Err(Failure::Invalid("these are the members already".to_owned()));
        }
        let waits = |request: &super::clients::Request| matches!(request.command.op, Op::Reconfigure { .. });
        if leader.stop.is_some() || leader.queue.iter().any(waits) {
            return Err(Failure::Overloaded("another change of the members is under way"));
        }
        self.name_disks(leader, nodes, now).map(|()| true).map_err(|why| {
            if now.since(leader.since) < self.config.timing.presence() {
                // They may be about to be heard of for the first time.
                return Failure::Overloaded(
                    "the leader was just elected and has not heard of enough members; ask again in a second",
                );
            }
            Failure::Invalid(why)
        })
    }

    /// Says of each node that is added which disk is meant.
    ///
    /// # Errors
    /// Why nobody might lead behind the change.
    fn name_disks(&self, leader: &Leader, nodes: &mut Nodes, now: Mono) -> Result<(), String> {
        let (current, presence) = (&self.config.members, self.config.timing.presence());
        for (node, member) in nodes.iter_mut() {
            member.born = match (current.get(node), self.joining.guest(*node, now, presence)) {
                (Some(known), _) => known.born,
                (None, Some(epoch)) => epoch,
                (None, None) => return Err(self.why_no_guest(*node)),
            };
        }
        let votes = |node: &NodeId| *node == self.config.id || leader.lease.hears(*node, now, presence);
        let silent: Vec<NodeId> =
            nodes.keys().copied().filter(|node| current.contains_key(node) && !votes(node)).collect();
        if (nodes.len() - silent.len()) * 2 <= nodes.len() {
            let (all, need) = (nodes.len(), nodes.len() / 2 + 1);
            return Err(format!(
                "of the {all} members that there would be, {need} must be up and have a vote, and {silent:?} do not answer as one; start them, or name others"
            ));
        }
        Ok(())
    }

    fn why_no_guest(&self, node: NodeId) -> String {
        match self.joining.knows(node) {
            None => format!(
                "node {node} has never been heard of; start it with --join first, and give it a --peer for each member"
            ),
            Some(_) => format!(
                "node {node} has not greeted this leader within the last {:?}; start it, with a --peer for each member if its directory is empty, or wait for it, and ask again",
                self.config.timing.presence()
            ),
        }
    }

    /// Goes on to the configuration that the applied prefix says, if this node is not in it already.
    pub(super) fn follow_configuration(&mut self, now: Mono) {
        let Some(members) = self.learner.machine().members().cloned() else { return };
        if members.config == self.config.number {
            return;
        }
        self.enter(&members, now);
    }

    /// Only a node that takes [`crate::bugs::Shortcut::VotesBeforeCaughtUp`] does this.
    pub(super) fn enter_at_once(&mut self, slot: Slot, entry: &Entry, now: Mono) {
        if let Some(super::Command { op: Op::Reconfigure { from, nodes }, .. }) = &entry.command {
            let members = Members { config: from + 1, since: slot, nodes: nodes.clone() };
            self.enter(&members, now);
        }
    }

    /// Enters a configuration.
    pub(super) fn enter(&mut self, members: &Members, now: Mono) {
        let mut all = self.config.nodes.clone();
        let leading = match &self.role {
            Role::Leader(leader) => Some((leader.ballot, leader.lease.newest_first())),
            _ => None,
        };
        self.config.enter(members);
        all.extend(&self.config.nodes);
        all.remove(&self.config.id);
        self.effects.push(Effect::Members(self.config.members.clone()));
        let (config, member) = (members.config, self.is_member());
        self.effects.push(Note::Configuration { config, since: members.since, member }.into());
        // Whatever is still open lies behind the stop-sign, and was proposed in the configuration that it has ended.
        for proposal in std::mem::take(&mut self.proposals).into_values() {
            self.answer_unknown(proposal.entry.id, "it was not chosen before the members changed");
        }
        (self.open_bytes, self.resend_due) = (0, Mono::NEVER);
        self.follows = None;
        if !self.stays_on(leading.as_ref().map(|(ballot, _)| *ballot)) && !matches!(self.role, Role::Follower)
        {
            self.step_down("the members have changed", now);
        }
        self.restart_quorum_reads(now);
        self.joining.enter(now);
        // What was applied is on the disk before anything is promised in the new configuration.
        self.persist(Vec::new(), now);
        self.reset_election(now);
        self.try_to_vote(now);
        if let Some((ballot, newest)) = leading {
            self.last_words(members.since, ballot, &newest, &all, now);
        }
    }

    /// What the leader of the configuration before does at its end: tells everyone, and sees to it that somebody stands at once.
    fn last_words(
        &mut self,
        stop: Slot,
        ballot: Ballot,
        newest: &[NodeId],
        all: &BTreeSet<NodeId>,
        now: Mono,
    ) {
        let entries = self.learner.chosen(stop).map(|entry| vec![(stop, entry.clone())]).unwrap_or_default();
        for node in all {
            self.send(*node, Message::Chosen { entries: entries.clone(), commit: stop }, None);
        }
        if self.may_stand() && matches!(self.role, Role::Follower) {
            return self.stand(now);
        }
        if matches!(self.role, Role::Leader(_)) {
            return;
        }
        let stays = newest.iter().find(|node| self.config.nodes.contains(node)).copied();
        let Some(to) = stays.or(self.config.nodes.first().copied()) else { return };
        self.grant.release(ballot);
        for node in all {
            self.send(*node, Message::Release { ballot, to }, None);
        }
    }

    /// No correct leader stays one when its configuration ends: see [`crate::bugs::Shortcuts`].
    fn stays_on(&mut self, leading: Option<Ballot>) -> bool {
        let shortcuts = self.config.shortcuts;
        let (Some(before), member) = (leading, self.is_member()) else { return false };
        let Role::Leader(leader) = &mut self.role else { return false };
        if member && !shortcuts.prepares_anew() {
            let round = before.round - Ballot::first_round(before.config());
            leader.ballot.round = Ballot::first_round(self.config.number) + round;
            leader.stop = None;
            self.follows = Some(leader.ballot);
            return true;
        }
        !member && !shortcuts.stops_reading()
    }
}

#[cfg(test)]
mod tests;
