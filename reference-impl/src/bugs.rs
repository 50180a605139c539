//! The catalogue of bugs that can be planted on purpose, and the one hook type through which the rest of the crate meets
//! them.
//!
//! ```text
//! $ TRIBUNAL_RUN=1 paxos-kv --bug accept-not-synced …
//! ```
//!
//! Each bug is a change of one or two lines at one place. A reader of the core can ignore all of them: every method of
//! [`Hooks`] states what a correct node does ("writes promises", "honours the lease") and answers `true` unless the bug of
//! that name was planted. This is deliberately not a fault injector: it breaks the node's own promises, never its environment.

mod consensus;
mod first;
mod hidden;
mod hooks;
mod service;
mod shortcuts;
mod storage;

use std::sync::LazyLock;

pub use hidden::{hidden, scripted};
pub use hooks::Hooks;
pub use shortcuts::{Shortcut, Shortcuts};

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // each is described in `catalogue`
pub enum Bug {
    PromiseNotWritten,
    AcceptNotSynced,
    AcceptBelowPromise,
    IgnoreAccepted,
    QuorumOffByOne,
    FollowerReads,
    LeaseNotWaitedOut,
    LeaseFromAck,
    RetryAppliedTwice,
    ApplySkipsHoles,
    AckBeforeQuorum,
    PromiseNotFsynced,
    LeaseOnWallClock,
    PromiseOmitsVotes,
    LowestVote,
    FirstVote,
    VoteIsNoPromise,
    OneBallotField,
    CountsReplies,
    BallotsByRound,
    BallotReused,
    LeadsUnprepared,
    ChosenByOne,
    VotesOfAnyBallot,
    PrefixOnly,
    InheritedIsChosen,
    GapsNotFilled,
    CommitIsNewest,
    LearnsAnyVote,
    DoubtIsFailure,
    RetryAnsweredAnew,
    RetryCheckedOnce,
    ReadsBeforeBarrier,
    ReadsWithoutLease,
    LeaseOfOne,
    GrantTooShort,
    RestartForgetsLease,
    HandOverKeepsLease,
    ReadIndexUnconfirmed,
    ReadIndexUnapplied,
    QuorumReadApplied,
    QuorumReadUnapplied,
    DirtyReads,
    CasAnsweredLocally,
    ApplyDependsOnNode,
    NeverBacksOff,
    PromiseHidesCommit,
    SnapshotWithoutSessions,
    SnapshotAhead,
    SnapshotBehind,
    OlderSnapshotInstalled,
    TruncatedTooEarly,
    OwnVoteNotSynced,
    DamageTakenForEnd,
    RenameNotSynced,
    DiskErrorIgnored,
    WipedNodeVotes,
    DecidedSlotsForgotten,
    SnapshotForgetsPromise,
}

/// What is known about a planted bug.
#[derive(Clone, Debug)]
pub struct BugInfo {
    /// Which one.
    pub bug: Bug,
    /// Name on the command line.
    pub name: &'static str,
    /// Kind of mistake: `durability`, `snapshot`, `acceptor`, `proposer`, `quorum`, `read`, `lease`, `session`, `learner`.
    pub family: &'static str,
    /// The promise or invariant that it breaks.
    pub breaks: &'static str,
    /// Where mistakes of this class were seen in the wild.
    pub seen_in: &'static str,
    /// The fault that reveals it.
    pub reveals: &'static str,
    /// Name of the workload that shows it best.
    pub workload: &'static str,
    /// Name of the fault plan that shows it best.
    pub plan: &'static str,
    /// Protocol it has to be planted in: `multi-paxos` or `basic-paxos`.
    pub protocol: &'static str,
}

const MULTI: &str = "multi-paxos";
const BASIC: &str = "basic-paxos";

static CATALOGUE: LazyLock<Vec<BugInfo>> = LazyLock::new(|| {
    [&first::FIRST[..], &consensus::CONSENSUS, &service::SERVICE, &storage::STORAGE].concat()
});

/// Those that every change to the tester is tried with, against real processes; the others are tried in virtual time.
pub fn first() -> &'static [BugInfo] {
    &first::FIRST
}

/// Every bug that can be planted, in the order in which they are best explained.
pub fn catalogue() -> &'static [BugInfo] {
    &CATALOGUE
}

/// `--bug` named something that is not in the catalogue.
#[derive(Debug, thiserror::Error)]
#[error("there is no bug {name:?}{}; the catalogue has: {}", did_you_mean(.name), names())]
pub struct UnknownBug {
    /// What was asked for.
    pub name: String,
}

/// The bug called `name`.
///
/// # Errors
/// [`UnknownBug`] with the nearest name and the list of all.
pub fn find(name: &str) -> Result<Bug, UnknownBug> {
    CATALOGUE
        .iter()
        .find(|info| info.name == name)
        .map(|info| info.bug)
        .ok_or_else(|| UnknownBug { name: name.to_owned() })
}

fn names() -> String {
    CATALOGUE.iter().map(|info| info.name).collect::<Vec<_>>().join(", ")
}

fn did_you_mean(name: &str) -> String {
    CATALOGUE
        .iter()
        .map(|info| (strsim::jaro_winkler(name, info.name), info.name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, nearest)| format!(" (did you mean {nearest:?}?)"))
}

impl Bug {
    /// Its entry in the catalogue.
    pub fn info(self) -> &'static BugInfo {
        &CATALOGUE[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_in_the_order_of_the_enum_and_names_are_found() {
        for (index, info) in catalogue().iter().enumerate() {
            assert_eq!(info.bug as usize, index);
            assert_eq!(find(info.name).unwrap(), info.bug);
            assert_eq!(Hooks::planted([info.bug]).names(), [info.name]);
        }
        assert!(Hooks::default().names().is_empty());
    }

    #[test]
    fn an_unknown_name_is_told_its_nearest() {
        let error = find("follower-read").unwrap_err().to_string();
        assert!(error.contains("did you mean \"follower-reads\""), "{error}");
        assert!(error.contains("quorum-off-by-one"), "{error}");
    }

    #[test]
    fn a_correct_quorum_is_a_majority_and_the_planted_one_is_not() {
        for voters in 1..10 {
            assert!(2 * Hooks::default().quorum(voters) > voters);
        }
        assert_eq!(Hooks::planted([Bug::QuorumOffByOne]).quorum(5), 2);
        assert_eq!(Hooks::planted([Bug::QuorumOffByOne]).quorum(3), 1);
    }
}
