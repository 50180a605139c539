//! Which models there are, and what comes of going through them.

use stateright::{Checker, HasDiscoveries, Model};

use super::leases::Leases;
use super::{Cluster, WRONG};
use crate::bugs::{Bug, Hooks};
use crate::core::{NodeId, Protocol};

/// What the exploration of a model came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// States with repetitions.
    pub visited: usize,
    /// The longest way to a state for the first time, in steps.
    pub depth: usize,
    /// What is wrong in a state that can be come to, and the shortest way there.
    pub wrong: Option<(&'static str, String)>,
    /// What ought to happen in some state, and does in none: the model is stuck.
    pub never: Vec<&'static str>,
    /// Whether all states were seen. Not if something is wrong.
    pub whole: bool,
}

impl Cluster {
    fn new(protocol: Protocol, proposers: u32, crashes: u32) -> Self {
        Cluster {
            protocol,
            nodes: 3,
            proposers,
            stands: 1,
            rounds: u64::from(proposers),
            crashes,
            prompt: false,
            hooks: Hooks::default(),
            asked: proposers,
            led: false,
            snapshots: false,
        }
    }

    fn multi(leaders: u32, crashes: u32) -> Self {
        Self::new(Protocol::MultiPaxos, leaders, crashes)
    }

    fn basic(proposers: u32, crashes: u32) -> Self {
        Cluster { rounds: 1, ..Self::new(Protocol::BasicPaxos, proposers, crashes) }
    }

    fn prompt(self) -> Self {
        Cluster { prompt: true, ..self }
    }

    fn barriers_only(self) -> Self {
        Cluster { asked: 0, ..self }
    }

    /// Node 1 leads at first, and has a command; the other leader has only its barrier.
    fn led(self) -> Self {
        Cluster { led: true, asked: 1, ..self }
    }

    fn with_snapshots(self) -> Self {
        Cluster { snapshots: true, ..self }
    }
}

/// A model that is small enough.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Small {
    Cluster(Cluster),
    Leases(Leases),
}

impl Small {
    /// The same with a bug in every node.
    #[must_use]
    pub fn planted(self, bug: Bug) -> Self {
        let hooks = Hooks::planted([bug]);
        match self {
            Small::Cluster(cluster) => Small::Cluster(Cluster { hooks, ..cluster }),
            Small::Leases(leases) => Small::Leases(Leases { hooks, ..leases }),
        }
    }

    /// Goes through all states, breadth first on two threads, or until something is wrong.
    pub fn explore(self) -> Explored {
        match self {
            Small::Cluster(cluster) => explore(cluster, |state| state.wrong),
            Small::Leases(leases) => explore(leases, |state| state.wrong),
        }
    }
}

fn explore<M>(model: M, wrong: impl Fn(&M::State) -> Option<&'static str>) -> Explored
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + std::hash::Hash + PartialEq + Send + Sync,
    M::Action: std::fmt::Debug + Clone + PartialEq,
{
    let properties = model.properties();
    let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let wrong = checker.discovery(WRONG).map(|path| {
        let what = wrong(path.last_state()).unwrap_or_default();
        (what, format!("{:#?}", path.into_actions()))
    });
    let sometimes = properties.into_iter().map(|property| property.name).filter(|name| *name != WRONG);
    Explored {
        states: checker.unique_state_count(),
        visited: checker.state_count(),
        depth: checker.max_depth(),
        never: sometimes.filter(|name| checker.discovery(name).is_none()).collect(),
        whole: wrong.is_none() && checker.is_done(),
        wrong,
    }
}

/// The models whose states can all be seen within a minute, with their names.
pub fn bounded() -> Vec<(&'static str, Small)> {
    let clusters = [
        ("multi-paxos, one leader", Cluster::multi(1, 0)),
        ("multi-paxos, one leader, one crash", Cluster::multi(1, 1)),
        ("basic paxos, one proposer, one crash", Cluster::basic(1, 1)),
        ("basic paxos, two proposers", Cluster::basic(2, 0)),
        ("basic paxos, two proposers, one crash, prompt disks", Cluster::basic(2, 1).prompt()),
        ("basic paxos, three proposers", Cluster::basic(3, 0)),
        ("multi-paxos, two leaders with their barriers", Cluster::multi(2, 0).barriers_only()),
        (SUCCESSOR, Cluster::multi(2, 0).led()),
        (SNAPSHOTS, Cluster::multi(1, 0).with_snapshots()),
    ];
    let clusters = clusters.map(|(name, cluster)| (name, Small::Cluster(cluster)));
    let leases = [
        (LEASES, leases(3, 4, 0, 0)),
        (LEASES_WITH_CRASH, leases(3, 4, 1, 0)),
        (LEASES_WITH_HAND_OVER, leases(3, 3, 0, 1)),
        ("a lease that the successor has granted", leases(2, 3, 0, 0)),
        ("a lease that the successor has granted, one crash", leases(2, 3, 1, 0)),
        ("a lease that the successor has granted, one hand-over", leases(2, 3, 0, 1)),
    ];
    clusters.into_iter().chain(leases).collect()
}

const SUCCESSOR: &str = "multi-paxos, a leader with a command and a successor";
const SNAPSHOTS: &str = "multi-paxos, one leader, snapshots";
const LEASES: &str = "a lease";
const LEASES_WITH_HAND_OVER: &str = "a lease, one hand-over";
const LEASES_WITH_CRASH: &str = "a lease, one crash";

/// Long enough for a lease to run out while an answer is late, and for somebody to succeed.
fn leases(grants: NodeId, ticks: u32, crashes: u32, hand_overs: u32) -> Small {
    Small::Leases(Leases { ticks, grants, crashes, hand_overs, hooks: Hooks::default() })
}

/// The model in which a bug can be found by looking at every state, if there is one that is small enough: of two or three proposers and at most one
/// crash; of one leader with snapshots; or of a lease.
pub fn of_bug(bug: Bug) -> Option<(&'static str, Small)> {
    let (name, cluster) = match bug {
        Bug::LeaseNotWaitedOut
        | Bug::LeaseFromAck
        | Bug::ReadsWithoutLease
        | Bug::LeaseOfOne
        | Bug::GrantTooShort => return Some((LEASES, leases(3, 4, 0, 0).planted(bug))),
        Bug::HandOverKeepsLease => return Some((LEASES_WITH_HAND_OVER, leases(3, 3, 0, 1).planted(bug))),
        Bug::RestartForgetsLease => return Some((LEASES_WITH_CRASH, leases(3, 4, 1, 0).planted(bug))),
        Bug::ApplySkipsHoles => (SUCCESSOR, Cluster::multi(2, 0).led()),
        Bug::SnapshotWithoutSessions | Bug::SnapshotAhead => {
            (SNAPSHOTS, Cluster::multi(1, 0).with_snapshots())
        }
        Bug::AcceptBelowPromise
        | Bug::QuorumOffByOne
        | Bug::BallotsByRound
        | Bug::ChosenByOne
        | Bug::PromiseOmitsVotes => ("basic paxos, two proposers", Cluster::basic(2, 0)),
        Bug::IgnoreAccepted | Bug::LeadsUnprepared | Bug::InheritedIsChosen => {
            ("multi-paxos, two leaders with their barriers", Cluster::multi(2, 0).barriers_only())
        }
        Bug::AckBeforeQuorum => ("multi-paxos, two leaders", Cluster::multi(2, 0)),
        Bug::PromiseNotWritten | Bug::AcceptNotSynced => {
            ("multi-paxos, one leader, one crash, prompt disks", Cluster::multi(1, 1).prompt())
        }
        Bug::VoteIsNoPromise | Bug::OneBallotField => {
            ("basic paxos, three proposers", Cluster::basic(3, 0).barriers_only())
        }
        Bug::LowestVote | Bug::FirstVote => {
            ("multi-paxos, three leaders with their barriers", Cluster::multi(3, 0).barriers_only())
        }
        _ => return None,
    };
    Some((name, Small::Cluster(cluster).planted(bug)))
}
