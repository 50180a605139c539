//! Why clients of real processes see nothing, or hardly anything, of some bugs.
//!
//! Each was looked for; where one is found all the same, the better. No excuse for a judge that looks inside: only [`scripted`] bugs may escape all of them.

use super::Bug;

/// Whether nothing finds a bug but a script that says message by message what happens (`tests/scripted.rs`).
pub fn scripted(bug: Bug) -> bool {
    bug == Bug::VotesOfAnyBallot
}

/// What keeps a bug from being seen from outside, if it is known to hide.
pub fn hidden(bug: Bug) -> Option<&'static str> {
    Some(match bug {
        Bug::VotesOfAnyBallot => {
            "needs five nodes, several elections, and acceptances that are late by all of them"
        }
        Bug::CountsReplies => "a stream between two nodes repeats no message; and three nodes are not enough",
        Bug::LowestVote | Bug::FirstVote | Bug::OneBallotField | Bug::VoteIsNoPromise => {
            "needs votes under three ballots for one slot"
        }
        Bug::BallotReused => {
            "needs a leader that is back before anybody else stands, with votes under its old ballot on their way"
        }
        Bug::InheritedIsChosen => {
            "needs a value that one acceptor alone has, and a leader that fails before it is accepted again"
        }
        Bug::PrefixOnly | Bug::GapsNotFilled | Bug::CommitIsNewest => {
            "needs a gap in what was reported or learned, which links that lose nothing hardly leave"
        }
        Bug::LearnsAnyVote => {
            "needs a follower that still has a vote of an old leader where a new one commits something else"
        }
        Bug::RestartForgetsLease => {
            "needs acceptors that restart within a lease while their leader is cut off from them and not from its clients"
        }
        Bug::DecidedSlotsForgotten => {
            "needs a proposer that has missed what a majority has decided and forgotten; others tell it first"
        }
        Bug::NeverBacksOff => {
            "links and disks of real processes never take equally long, so that somebody gets through"
        }
        Bug::HandOverKeepsLease => "a real node that still leads after it has handed over ends at once",
        Bug::PromiseHidesCommit => {
            "needs a candidate that is elected by nodes that have all truncated what it has missed"
        }
        Bug::SnapshotWithoutSessions => "needs a restart from a snapshot between a command and its retry",
        Bug::SnapshotBehind => "what is applied again hardly ever meets a client that could tell",
        Bug::OlderSnapshotInstalled => {
            "what is applied again is the same again, unless a client reads meanwhile"
        }
        Bug::RenameNotSynced => "the file system of power failures keeps names",
        Bug::SnapshotForgetsPromise => {
            "needs a node that restarts from a snapshot between a promise and the votes of the leader before"
        }
        Bug::TruncatedTooEarly => {
            "a node that cannot start says so itself and is missed, but a majority goes on"
        }
        Bug::OwnVoteNotSynced => {
            "needs a leader that loses its vote while exactly the other half of a majority has it"
        }
        Bug::DamageTakenForEnd => {
            "one disk is damaged at a time, and what it has forgotten a majority still knows"
        }
        Bug::DiskErrorIgnored => "needs two disks of three that forget the same vote",
        Bug::WipedNodeVotes => {
            "needs a wipe between a vote and an election in which the forgetful node decides"
        }
        _ => return None,
    })
}
