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

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
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
}

/// What is known about a planted bug.
#[derive(Clone, Debug)]
pub struct BugInfo {
    /// Which one.
    pub bug: Bug,
    /// Name on the command line.
    pub name: &'static str,
    /// Kind of mistake: `durability`, `acceptor`, `proposer`, `quorum`, `read`, `lease`, `session`, `learner`.
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

static CATALOGUE: [BugInfo; 13] = [
    BugInfo {
        bug: Bug::PromiseNotWritten,
        name: "promise-not-written",
        family: "durability",
        breaks: "a promise is kept across a restart (P1): it is answered, but its record never enters the log, and \
                 votes do not bring it back",
        seen_in: "omnipaxos_storage (promise kept in memory only), etcd-io/etcd#14143 (class)",
        reveals: "acceptors killed with SIGKILL and restarted between a promise and the accept it excludes",
        workload: "hunt-three",
        plan: "promise-churn",
        protocol: MULTI,
    },
    BugInfo {
        bug: Bug::AcceptNotSynced,
        name: "accept-not-synced",
        family: "durability",
        breaks: "a chosen value is on the disks of a majority: an acceptance is answered before its record is synced",
        seen_in: "nodes run with fsync off or with a delayed sync; cockroachdb/cockroach#37102 (class)",
        reveals: "a majority of the nodes killed at once",
        workload: "hunt",
        plan: "kill-all",
        protocol: MULTI,
    },
    BugInfo {
        bug: Bug::AcceptBelowPromise,
        name: "accept-below-promise",
        family: "acceptor",
        breaks: "no acceptance below the promise (P2)",
        seen_in: "readings of \"Paxos Made Simple\" (brooker.co.za, 2021-11-16); cassandra PR 1327 (class)",
        reveals: "messages of a deposed leader that arrive after the partition has healed",
        workload: "hunt-basic",
        plan: "duel",
        protocol: BASIC,
    },
    BugInfo {
        bug: Bug::IgnoreAccepted,
        name: "ignore-accepted",
        family: "proposer",
        breaks: "a new leader proposes the reported value of the highest ballot (P3)",
        seen_in: "paxi (HandleP1a skips slots), epaxos-repo paxos.go (prepares one instance)",
        reveals: "a majority, or a leader, killed right after it has answered, so that only votes remember the value",
        workload: "hunt",
        plan: "kill-all",
        protocol: MULTI,
    },
    BugInfo {
        bug: Bug::QuorumOffByOne,
        name: "quorum-off-by-one",
        family: "quorum",
        breaks: "any two quorums intersect: N/2 nodes count as a majority",
        seen_in: "openraft d60f1e85 (read quorum of majority - 1), raft-java#21",
        reveals: "a partition with the leader and one more node on the minority's side",
        workload: "hunt",
        plan: "split-leader",
        protocol: MULTI,
    },
    BugInfo {
        bug: Bug::FollowerReads,
        name: "follower-reads",
        family: "read",
        breaks: "a linearizable read is answered by the leader or through the log",
        seen_in: "default local reads in several replicated stores, labelled as consistent",
        reveals: "any lag of a follower",
        workload: "hunt",
        plan: "chaos",
        protocol: MULTI,
    },
    BugInfo {
        bug: Bug::LeaseNotWaitedOut,
        name: "lease-not-waited-out",
        family: "lease",
        breaks: "no acceptor helps a new leader before the lease it has granted is over",
        seen_in: "hashicorp/consul#54, Xline#870 (class)",
        reveals: "the leader cut off from the majority, with clients on both sides",
        workload: "hunt-reads",
        plan: "split-long",
        protocol: MULTI,
    },
    BugInfo {
        bug: Bug::LeaseFromAck,
        name: "lease-from-ack",
        family: "lease",
        breaks: "a lease runs from the moment its heartbeat was sent, shortened by the clocks' drift: here it runs from \
                 the acknowledgement, twice as long",
        seen_in: "vesoft-inc/nebula#2723, d-engine#158 (lease arithmetic)",
        reveals: "the leader cut off from the majority, with clients on both sides",
        workload: "hunt-reads",
        plan: "split-long",
        protocol: MULTI,
    },
    BugInfo {
        bug: Bug::RetryAppliedTwice,
        name: "retry-applied-twice",
        family: "session",
        breaks: "a command (client, seq) is applied once: the session table is not consulted",
        seen_in: "etcd-io/etcd#18424 (class)",
        reveals: "a paused leader: forwarded commands are sent again and meet their first copy",
        workload: "hunt-retry",
        plan: "leader-pause",
        protocol: MULTI,
    },
    BugInfo {
        bug: Bug::ApplySkipsHoles,
        name: "apply-skips-holes",
        family: "learner",
        breaks: "entries are applied in the order of their slots, without gaps",
        seen_in: "out-of-order execution in early state machine layers; summerset PR 19 (class)",
        reveals: "a leader change: replicas have gaps, and later lead with them",
        workload: "hunt-wide",
        plan: "flaky",
        protocol: MULTI,
    },
    BugInfo {
        bug: Bug::AckBeforeQuorum,
        name: "ack-before-quorum",
        family: "proposer",
        breaks: "OK means chosen: here the leader answers as soon as it has proposed",
        seen_in: "asynchronous replication sold as synchronous",
        reveals: "a leader killed or cut off right after it has answered",
        workload: "hunt",
        plan: "leader-churn",
        protocol: MULTI,
    },
    BugInfo {
        bug: Bug::PromiseNotFsynced,
        name: "promise-not-fsynced",
        family: "durability",
        breaks: "a promise is kept across a power failure (P1): it is written to a file of its own that is never synced, \
                 and votes do not bring it back",
        seen_in: "robustmq/robustmq#2039, deven96/ahnlich#387 (a vote left in the page cache)",
        reveals: "power failures of acceptors between a promise and the accept it excludes; kill -9 does not",
        workload: "hunt-three",
        plan: "promise-power",
        protocol: MULTI,
    },
    BugInfo {
        bug: Bug::LeaseOnWallClock,
        name: "lease-on-wall-clock",
        family: "lease",
        breaks: "a lease is measured on a clock that only ever grows: here it is measured by the time of day",
        seen_in: "hashicorp/raft#108, deventlab/d-engine#158 (a lease compared with the time of day)",
        reveals: "a leader that is cut off from the majority and whose wall clock is set back",
        workload: "hunt-reads",
        plan: "skewed-split",
        protocol: MULTI,
    },
];

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

/// What a node does right. Empty (the default) is a correct node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hooks(u32);

impl Hooks {
    /// Hooks of a node with these bugs planted.
    pub fn planted(bugs: impl IntoIterator<Item = Bug>) -> Self {
        Hooks(bugs.into_iter().fold(0, |bits, bug| bits | (1 << bug as u32)))
    }

    /// Names of the planted bugs.
    pub fn names(self) -> Vec<&'static str> {
        CATALOGUE.iter().filter(|info| !self.lacks(info.bug)).map(|info| info.name).collect()
    }

    fn lacks(self, bug: Bug) -> bool {
        self.0 & (1 << bug as u32) == 0
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
