//! What a node does right, question by question; each is answered `true` unless the bug of that name was planted.
//!
//! ```text
//! if self.config.hooks.honours_lease() { … }        a correct node always does
//! ```
//!
//! The only type of this module that the rest of the crate meets.

use super::Bug;
use crate::core::{Ballot, NodeId};

/// What a node does right. Empty (the default) is a correct node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hooks(u128);

impl Hooks {
    /// Hooks of a node with these bugs planted.
    pub fn planted(bugs: impl IntoIterator<Item = Bug>) -> Self {
        Hooks(bugs.into_iter().fold(0, |bits, bug| bits | (1 << bug as u128)))
    }

    /// Names of the planted bugs.
    pub fn names(self) -> Vec<&'static str> {
        super::catalogue().iter().filter(|info| !self.lacks(info.bug)).map(|info| info.name).collect()
    }

    fn lacks(self, bug: Bug) -> bool {
        self.0 & (1 << bug as u128) == 0
    }

    /// A promise is written before it is answered, and what a vote promised is known again after a restart.
    pub fn writes_promises(self) -> bool {
        self.lacks(Bug::PromiseNotWritten)
    }

    /// A promise is synced before it is answered, and what a vote promised is known again after a power failure.
    pub fn syncs_promises(self) -> bool {
        self.lacks(Bug::PromiseNotFsynced)
    }

    /// Time is measured on a clock that only ever grows, whatever the time of day.
    pub fn measures_monotonic_time(self) -> bool {
        self.lacks(Bug::LeaseOnWallClock)
    }

    /// An acceptance is synced before it is answered.
    pub fn syncs_acceptances(self) -> bool {
        self.lacks(Bug::AcceptNotSynced)
    }

    /// An acceptor refuses to accept below its promise.
    pub fn heeds_promise(self) -> bool {
        self.lacks(Bug::AcceptBelowPromise)
    }

    /// A new leader proposes the values that its quorum reported.
    pub fn heeds_reported_votes(self) -> bool {
        self.lacks(Bug::IgnoreAccepted)
    }

    /// How many of `voters` nodes are a quorum.
    pub fn quorum(self, voters: usize) -> usize {
        if self.lacks(Bug::QuorumOffByOne) { voters / 2 + 1 } else { (voters / 2).max(1) }
    }

    /// A follower sends linearizable reads to the leader.
    pub fn forwards_reads(self) -> bool {
        self.lacks(Bug::FollowerReads)
    }

    /// A granted lease keeps an acceptor, and a would-be candidate, from helping anyone else.
    pub fn honours_lease(self) -> bool {
        self.lacks(Bug::LeaseNotWaitedOut)
    }

    /// A lease is counted from the send time of its heartbeat, less the drift of the clocks.
    pub fn counts_lease_from_send(self) -> bool {
        self.lacks(Bug::LeaseFromAck)
    }

    /// Duplicates are answered from the session table.
    pub fn consults_sessions(self) -> bool {
        self.lacks(Bug::RetryAppliedTwice)
    }

    /// A replica waits for the slots that it does not have.
    pub fn waits_for_holes(self) -> bool {
        self.lacks(Bug::ApplySkipsHoles)
    }

    /// The leader answers when the command is chosen and applied.
    pub fn answers_after_quorum(self) -> bool {
        self.lacks(Bug::AckBeforeQuorum)
    }

    /// A promise carries the votes of its sender.
    pub fn reports_votes(self) -> bool {
        self.lacks(Bug::PromiseOmitsVotes)
    }

    /// Of the reported votes the one with the highest ballot counts.
    pub fn picks_highest_vote(self) -> bool {
        self.lacks(Bug::LowestVote)
    }

    /// The ballots of reported votes are compared at all.
    pub fn compares_votes(self) -> bool {
        self.lacks(Bug::FirstVote)
    }

    /// A vote raises the promise.
    pub fn votes_promise(self) -> bool {
        self.lacks(Bug::VoteIsNoPromise)
    }

    /// The ballot of a vote stays what it was voted under when a higher one is promised.
    pub fn keeps_two_ballots(self) -> bool {
        self.lacks(Bug::OneBallotField)
    }

    /// Voters are counted, not their messages.
    pub fn counts_voters(self) -> bool {
        self.lacks(Bug::CountsReplies)
    }

    /// Whether a ballot is below another: by round, and in one round by node.
    pub fn is_below(self, ballot: Ballot, other: Ballot) -> bool {
        if self.lacks(Bug::BallotsByRound) { ballot < other } else { ballot.round < other.round }
    }

    /// A node never leads twice under one ballot.
    pub fn takes_new_ballot(self) -> bool {
        self.lacks(Bug::BallotReused)
    }

    /// A candidate leads when a quorum has promised.
    pub fn waits_for_promises(self) -> bool {
        self.lacks(Bug::LeadsUnprepared)
    }

    /// A value is chosen when a quorum has voted for it.
    pub fn waits_for_quorum(self) -> bool {
        self.lacks(Bug::ChosenByOne)
    }

    /// A vote counts for the ballot that it was given under.
    pub fn matches_ballots(self) -> bool {
        self.lacks(Bug::VotesOfAnyBallot)
    }

    /// A new leader proposes the reported values beyond a gap, too.
    pub fn heeds_votes_beyond_gaps(self) -> bool {
        self.lacks(Bug::PrefixOnly)
    }

    /// A reported value has to be chosen under the new ballot first.
    pub fn proposes_inherited(self) -> bool {
        self.lacks(Bug::InheritedIsChosen)
    }

    /// A new leader proposes a no-op where nothing was reported.
    pub fn fills_gaps(self) -> bool {
        self.lacks(Bug::GapsNotFilled)
    }

    /// The commit index is the end of the prefix without gaps.
    pub fn commits_in_order(self) -> bool {
        self.lacks(Bug::CommitIsNewest)
    }

    /// A follower takes its own vote for chosen only if it is one under the leader's ballot.
    pub fn matches_ballot_when_learning(self) -> bool {
        self.lacks(Bug::LearnsAnyVote)
    }

    /// What may still happen is not called a failure.
    pub fn admits_doubt(self) -> bool {
        self.lacks(Bug::DoubtIsFailure)
    }

    /// A duplicate gets the answer that was given first.
    pub fn repeats_the_answer(self) -> bool {
        self.lacks(Bug::RetryAnsweredAnew)
    }

    /// Duplicates are also recognised when they are applied.
    pub fn consults_sessions_when_applying(self) -> bool {
        self.lacks(Bug::RetryCheckedOnce)
    }

    /// A new leader reads when the first entry of its own is applied.
    pub fn waits_for_barrier(self) -> bool {
        self.lacks(Bug::ReadsBeforeBarrier)
    }

    /// A leader reads from its memory only under its lease.
    pub fn checks_lease(self) -> bool {
        self.lacks(Bug::ReadsWithoutLease)
    }

    /// A lease is granted by a quorum.
    pub fn leases_by_quorum(self) -> bool {
        self.lacks(Bug::LeaseOfOne)
    }

    /// An acceptor is bound for the whole lease.
    pub fn grants_whole_lease(self) -> bool {
        self.lacks(Bug::GrantTooShort)
    }

    /// A restarted acceptor refuses everyone for one lease.
    pub fn waits_after_restart(self) -> bool {
        self.lacks(Bug::RestartForgetsLease)
    }

    /// Who hands over leads no more.
    pub fn leaves_when_handing_over(self) -> bool {
        self.lacks(Bug::HandOverKeepsLease)
    }

    /// A read-index read is confirmed by a round that was sent after it had arrived.
    pub fn confirms_after_arrival(self) -> bool {
        self.lacks(Bug::ReadIndexUnconfirmed)
    }

    /// A read-index read waits until its index is applied.
    pub fn waits_for_index(self) -> bool {
        self.lacks(Bug::ReadIndexUnapplied)
    }

    /// A quorum read asks for the newest slot voted for.
    pub fn asks_for_votes(self) -> bool {
        self.lacks(Bug::QuorumReadApplied)
    }

    /// A quorum read waits until what it was told is applied.
    pub fn waits_for_votes(self) -> bool {
        self.lacks(Bug::QuorumReadUnapplied)
    }

    /// A read shows what is chosen.
    pub fn reads_what_is_chosen(self) -> bool {
        self.lacks(Bug::DirtyReads)
    }

    /// A compare-and-set that fails has gone through the log.
    pub fn decides_every_cas(self) -> bool {
        self.lacks(Bug::CasAnsweredLocally)
    }

    /// The same as node `node` has them: some bugs are those of a few nodes only.
    #[must_use]
    pub fn on(self, node: NodeId) -> Self {
        let everywhere = node.is_multiple_of(2) || self.applies_the_same();
        if everywhere { self } else { Hooks(self.0 & !(1 << Bug::ApplyDependsOnNode as u128)) }
    }

    /// Every replica does the same with an entry.
    pub fn applies_the_same(self) -> bool {
        self.lacks(Bug::ApplyDependsOnNode)
    }

    /// A proposer that was outbid waits before it tries again.
    pub fn backs_off(self) -> bool {
        self.lacks(Bug::NeverBacksOff)
    }

    /// A promise says up to where everything is chosen, for it carries no votes about that.
    pub fn tells_commit(self) -> bool {
        self.lacks(Bug::PromiseHidesCommit)
    }

    /// A snapshot holds the sessions as well.
    pub fn snapshots_sessions(self) -> bool {
        self.lacks(Bug::SnapshotWithoutSessions)
    }

    /// A snapshot says of no slot that it is in it before it is.
    pub fn snapshots_what_is_applied(self) -> bool {
        self.lacks(Bug::SnapshotAhead)
    }

    /// A snapshot holds no slot but those of which it says so.
    pub fn numbers_snapshots_with_their_state(self) -> bool {
        self.lacks(Bug::SnapshotBehind)
    }

    /// A snapshot of another node is of use only while it is ahead.
    pub fn drops_older_snapshots(self) -> bool {
        self.lacks(Bug::OlderSnapshotInstalled)
    }

    /// The log is truncated when the snapshot that covers it is on the disk.
    pub fn truncates_after_snapshot(self) -> bool {
        self.lacks(Bug::TruncatedTooEarly)
    }

    /// A proposer waits for its own disk as for those of others.
    pub fn syncs_own_votes(self) -> bool {
        self.lacks(Bug::OwnVoteNotSynced)
    }

    /// An unreadable record with readable ones behind it is damage, and not the end of the log.
    pub fn tells_damage_from_end(self) -> bool {
        self.lacks(Bug::DamageTakenForEnd)
    }

    /// A file that takes the place of another one has its name on the disk before it is relied on.
    pub fn syncs_names(self) -> bool {
        self.lacks(Bug::RenameNotSynced)
    }

    /// A node whose disk fails ends.
    pub fn heeds_disk_errors(self) -> bool {
        self.lacks(Bug::DiskErrorIgnored)
    }

    /// A node that has lost its disk has no vote at first.
    pub fn waits_after_wipe(self) -> bool {
        self.lacks(Bug::WipedNodeVotes)
    }

    /// An acceptor remembers its promise and vote for a slot after it is decided.
    pub fn remembers_decided_slots(self) -> bool {
        self.lacks(Bug::DecidedSlotsForgotten)
    }

    /// A log that is truncated begins with the promise.
    pub fn keeps_promise_over_snapshot(self) -> bool {
        self.lacks(Bug::SnapshotForgetsPromise)
    }
}
