//! A test file: everything that a run can be told, each with its default beside it.
//!
//! ```yaml
//! name: register
//! workload: {name: register, keys: 5}
//! cluster: {on: process, nodes: 5, protocol: multi-paxos}
//! load: {clients: 10, rate: 400, time-limit: 30s}
//! nemesis: chaos
//! ```
//! Unknown fields are refused, with their place in the file; see [`diagnostic`].

pub mod diagnostic;
mod objectives;

use crate::logs::LogsSpec;
use checkers::ReadMode;
use diagnostic::Diagnostic;
use nemesis::{Plan, Range, Span};
pub use objectives::Objectives;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};
use workloads::{Pace, WorkloadSpec};

/// The tests that ship with the program: name and YAML text.
pub const TESTS: &[(&str, &str)] = &[
    ("register", include_str!("../workloads/register.yaml")),
    ("register-http", include_str!("../workloads/register-http.yaml")),
    ("register-basic", include_str!("../workloads/register-basic.yaml")),
    ("convergence", include_str!("../workloads/convergence.yaml")),
    ("convergence-wide", include_str!("../workloads/convergence-wide.yaml")),
    ("hunt", include_str!("../workloads/hunt.yaml")),
    ("hunt-retry", include_str!("../workloads/hunt-retry.yaml")),
    ("hunt-reads", include_str!("../workloads/hunt-reads.yaml")),
    ("hunt-index", include_str!("../workloads/hunt-index.yaml")),
    ("hunt-quorum", include_str!("../workloads/hunt-quorum.yaml")),
    ("hunt-three", include_str!("../workloads/hunt-three.yaml")),
    ("hunt-wide", include_str!("../workloads/hunt-wide.yaml")),
    ("hunt-snapshots", include_str!("../workloads/hunt-snapshots.yaml")),
    ("hunt-basic", include_str!("../workloads/hunt-basic.yaml")),
];

/// A test file. `tribunal run` without arguments runs the default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// Names the folder in the store.
    pub name: String,
    /// One line for `tribunal list`.
    pub doc: String,
    /// What the clients ask.
    pub workload: WorkloadSpec,
    /// Who is on trial.
    pub cluster: ClusterSpec,
    /// How hard and how long.
    pub load: Load,
    /// What is done to the cluster.
    pub nemesis: NemesisSpec,
    /// What must be achieved beside being correct.
    #[serde(skip_serializing_if = "Objectives::is_none")]
    pub objectives: Objectives,
    /// Ends the run at the first violation instead of at the time limit.
    pub fail_fast: bool,
    /// Judges linearizability while the run goes on: for soaks, whose history is more than memory holds.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub online: bool,
    /// What must not be in the nodes' logs.
    #[serde(skip_serializing_if = "LogsSpec::is_default")]
    pub logs: LogsSpec,
    /// Fixes the plan. Drawn at random, and printed, if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How long each phase may take.
    pub bounds: Bounds,
}

/// Who is on trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClusterSpec {
    /// Where the nodes live.
    pub on: On,
    /// How many nodes.
    pub nodes: u32,
    /// How the tester speaks to them: `paxos-kv-grpc` or `paxos-kv-http`.
    pub adapter: String,
    /// How the bundled cluster agrees.
    pub protocol: Protocol,
    /// When the bundled cluster's log reaches the disk.
    pub fsync: Fsync,
    /// A bug to plant in the bundled cluster; see `tribunal list`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bug: Option<String>,
    /// The first of the ports that the nodes listen on. Free ones are found if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_port: Option<u16>,
    /// Whether something else may stand in for a mechanism that this machine lacks (`sch_netem`). The report names it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stand_ins: bool,
    /// The image of the nodes (docker). Built from this program if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A compose file whose services are put on trial instead of nodes of our own (docker).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compose: Option<PathBuf>,
    /// Which services of the compose file are the nodes, in their order. A scaled service is as many nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// On which ports the nodes listen, by the adapter's names for them, where that is not ours to say (docker, compose).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// The hosts of the nodes (ssh): `user@host:port`, one for each node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The private key (ssh). Whatever OpenSSH finds by itself if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_key: Option<PathBuf>,
    /// More options of OpenSSH, as for `-o`: `UserKnownHostsFile=hosts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_options: Vec<String>,
    /// How often the bundled cluster's leader is heard.
    pub heartbeat: Span,
    /// For how long an acceptor promises itself to a leader.
    pub lease: Span,
    /// After how much silence a node wants to lead.
    pub election: Range,
    /// After how many applied entries a node of the bundled cluster takes a snapshot; 0 for never.
    pub snapshot_every: u64,
    /// How many slots at least stay in its log then, for nodes that are a little behind.
    pub keep: u64,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        ClusterSpec {
            on: On::Process,
            nodes: 5,
            adapter: "paxos-kv-grpc".to_owned(),
            protocol: Protocol::MultiPaxos,
            fsync: Fsync::Group,
            bug: None,
            base_port: None,
            stand_ins: false,
            image: None,
            compose: None,
            services: vec![],
            ports: BTreeMap::new(),
            hosts: vec![],
            ssh_key: None,
            ssh_options: vec![],
            heartbeat: Span::ms(50),
            lease: Span::ms(600),
            election: Range { min: Span::ms(150), max: Span::ms(400) },
            snapshot_every: 100_000,
            keep: 10_000,
        }
    }
}

impl ClusterSpec {
    /// What does not fit together, if anything.
    fn mistake(&self) -> Option<String> {
        let on = self.on;
        let belongs = [
            ("image", self.image.is_some(), On::Docker),
            ("compose", self.compose.is_some(), On::Docker),
            ("services", !self.services.is_empty(), On::Docker),
            ("hosts", !self.hosts.is_empty(), On::Ssh),
            ("ssh-key", self.ssh_key.is_some(), On::Ssh),
            ("ssh-options", !self.ssh_options.is_empty(), On::Ssh),
        ];
        if let Some((field, _, whose)) = belongs.into_iter().find(|(_, given, whose)| *given && *whose != on)
        {
            return Some(format!("`{field}` is for `on: {whose}`, and this is `on: {on}`"));
        }
        if on == On::Ssh && self.hosts.len() != self.nodes as usize {
            return Some(format!(
                "`hosts` names {} hosts for {} nodes; it must name one `user@host:port` for each",
                self.hosts.len(),
                self.nodes
            ));
        }
        crate::cluster::docker::compose::mistake(self.compose.as_deref(), &self.services)
    }
}

/// Where the nodes live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// Child processes on loopback.
    #[default]
    Process,
    /// Processes in network namespaces (Linux, root).
    Netns,
    /// Containers.
    Docker,
    /// Hosts reached over OpenSSH.
    Ssh,
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            On::Process => "process",
            On::Netns => "netns",
            On::Docker => "docker",
            On::Ssh => "ssh",
        })
    }
}

/// How the bundled cluster agrees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// A stable leader; one round trip a command.
    #[default]
    MultiPaxos,
    /// No leader; two round trips a command.
    BasicPaxos,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::MultiPaxos => "multi-paxos",
            Protocol::BasicPaxos => "basic-paxos",
        })
    }
}

/// When the bundled cluster's log reaches the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fsync {
    /// One fsync for each batch of records, before it is answered for.
    Always,
    /// Like `always`, with the records of many batches in one fsync.
    #[default]
    Group,
    /// Written, never synced: a power failure would lose it. For measuring only.
    None,
}

impl fmt::Display for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fsync::Always => "always",
            Fsync::Group => "group",
            Fsync::None => "none",
        })
    }
}

/// How hard and how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Load {
    /// Clients at work at the same time. Half of them stick to their node, half fail over.
    pub clients: u32,
    /// Operations that become due per second, over all clients. They do not wait for answers. 0: closed loop, each client
    /// asks again as soon as it has its answer.
    pub rate: f64,
    /// How arrivals are spread.
    pub pace: Pace,
    /// How long load and faults last.
    pub time_limit: Span,
    /// After this an operation is given up, its outcome unknown.
    pub op_timeout: Span,
    /// How long one attempt of an operation may take, if there are retries.
    pub attempt_timeout: Span,
    /// How often a client repeats an unanswered operation, under the same identity.
    pub retries: u32,
    /// Whether operations have an identity at all (of the bundled cluster: a client and a number), so that one that arrives twice is applied once.
    pub sessions: bool,
    /// An arrival that has waited this long for a free client is dropped, counted and reported.
    pub max_wait: Span,
}

impl Default for Load {
    fn default() -> Self {
        Load {
            clients: 10,
            rate: 400.0,
            pace: Pace::Poisson,
            time_limit: Span::ms(30_000),
            op_timeout: Span::ms(1_000),
            attempt_timeout: Span::ms(1_000),
            retries: 0,
            sessions: true,
            max_wait: Span::ms(5_000),
        }
    }
}

impl Load {
    /// What one attempt of an operation gets. The only one gets all the time of its operation: if its client left earlier, a node
    /// with more to do than it can would spend itself on requests for which nobody waits any more.
    pub fn attempt(&self) -> Duration {
        if self.retries == 0 { self.op_timeout.0 } else { self.attempt_timeout.0.min(self.op_timeout.0) }
    }
}

/// How long each phase may take. A bound that is hit is reported, and is never a pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bounds {
    /// Until every node can serve clients.
    pub set_up: Span,
    /// Until every node can serve clients again after the faults.
    pub heal: Span,
    /// The final reads.
    pub final_reads: Span,
    /// How long replicas must have stood still, and differed, to have diverged for good. Within the final reads.
    pub stand_still: Span,
    /// Judging.
    pub check: Span,
    /// What the judges may keep in memory, in mebibytes.
    pub check_memory_mb: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            set_up: Span::ms(30_000),
            heal: Span::ms(30_000),
            final_reads: Span::ms(30_000),
            stand_still: Span::ms(10_000),
            check: Span::ms(120_000),
            check_memory_mb: 4096,
        }
    }
}

/// A fault plan by name, or in full.
#[derive(Clone, Debug, PartialEq)]
pub enum NemesisSpec {
    /// One of the plans that ship with the program, or a file's path.
    Named(String),
    /// Written out.
    Inline(Box<Plan>),
}

impl Default for NemesisSpec {
    fn default() -> Self {
        NemesisSpec::Named("chaos".to_owned())
    }
}

impl Serialize for NemesisSpec {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            NemesisSpec::Named(name) => s.serialize_str(name),
            NemesisSpec::Inline(plan) => plan.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for NemesisSpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = NemesisSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a fault plan, or a plan")
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<NemesisSpec, E> {
                Ok(NemesisSpec::Named(s.to_owned()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<NemesisSpec, A::Error> {
                let plan = Plan::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(NemesisSpec::Inline(Box::new(plan)))
            }
        }
        d.deserialize_any(Either)
    }
}

impl Scenario {
    /// Reads a test by the name of one that ships with the program, or from a file.
    pub fn load(name_or_file: &str) -> Result<Scenario, Diagnostic> {
        if let Some((name, text)) = TESTS.iter().find(|(name, _)| *name == name_or_file) {
            return Scenario::parse(&format!("workloads/{name}.yaml"), text);
        }
        let path = Path::new(name_or_file);
        let looks_like_a_file = name_or_file.contains(['/', '.']) || path.exists();
        if !looks_like_a_file {
            let names: Vec<&str> = TESTS.iter().map(|t| t.0).collect();
            let hint = diagnostic::did_you_mean(name_or_file, &names);
            return Err(Diagnostic::plain(format!(
                "there is no test `{name_or_file}`{hint} (there is {}, or give the path of a test file)",
                names.join(", ")
            )));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|e| Diagnostic::plain(format!("cannot read the test file {name_or_file}: {e}")))?;
        let mut scenario = Scenario::parse(name_or_file, &text)?;
        if scenario.name.is_empty() {
            scenario.name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        }
        Ok(scenario)
    }

    /// Reads a test from text. `file` is for messages.
    pub fn parse(file: &str, text: &str) -> Result<Scenario, Diagnostic> {
        let scenario: Scenario = if text.trim().is_empty() {
            Scenario::default()
        } else {
            serde_yaml::from_str(text).map_err(|e| Diagnostic::of_yaml(file, text, &e))?
        };
        match scenario.mistake().or_else(|| scenario.bundled_mistake()) {
            Some(mistake) => Err(Diagnostic::at_mention(file, text, mistake)),
            None => Ok(scenario),
        }
    }

    /// What does not fit together, if anything, apart from what needs the machine to be looked at. The thing that is
    /// wrong stands in backticks first.
    pub fn mistake(&self) -> Option<String> {
        if let Some(mistake) = self.workload.mistake() {
            return Some(mistake);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name == "latest" || self.name.starts_with('.') || !self.name.chars().all(plain) {
            return Some(format!(
                "the name `{}` cannot be a folder in the store; use letters, digits and dashes, and not `latest`",
                self.name
            ));
        }
        if self.cluster.nodes == 0 || self.cluster.nodes > 15 {
            return Some(format!("`nodes` is {}; it must be 1 to 15", self.cluster.nodes));
        }
        if self.load.clients == 0 || self.load.clients > 10_000 {
            return Some(format!("`clients` is {}; it must be 1 to 10000", self.load.clients));
        }
        if !(self.load.rate.is_finite() && self.load.rate >= 0.0) {
            return Some(format!("`rate` is {}; it must be 0 (closed loop) or more", self.load.rate));
        }
        for (name, span) in [
            ("time-limit", self.load.time_limit),
            ("op-timeout", self.load.op_timeout),
            ("attempt-timeout", self.load.attempt_timeout),
            ("max-wait", self.load.max_wait),
        ] {
            if span.ns() == 0 {
                return Some(format!("`{name}` is zero; nothing would happen"));
            }
        }
        if self.load.retries > 0 && !self.load.sessions {
            return Some(
                "`retries` without `sessions` may apply an operation twice: nothing tells the second from another one".to_owned(),
            );
        }
        if self.workload.info().checkers.contains(&"convergence") {
            let (stand_still, bound) = (self.bounds.stand_still, self.bounds.final_reads);
            if stand_still >= bound || stand_still.is_zero() {
                return Some(format!(
                    "`stand-still` is {stand_still}; it must be more than nothing, and less than `final-reads`, {bound}"
                ));
            }
            if self.load.retries > 0 {
                return Some(
                    "`retries` would let another node answer than the one that is looked at".to_owned(),
                );
            }
        }
        if let Some(mistake) = self.objectives.mistake(&self.workload) {
            return Some(mistake);
        }
        if let Some(mistake) = self.cluster.mistake().or_else(|| self.logs.mistake()) {
            return Some(mistake);
        }
        if let Err(mistake) = self.plan() {
            return Some(mistake);
        }
        None
    }

    /// What the bundled cluster cannot do, if anything. Not asked of other systems.
    pub fn bundled_mistake(&self) -> Option<String> {
        if !matches!(self.cluster.adapter.as_str(), "paxos-kv-grpc" | "paxos-kv-http") {
            let names = ["paxos-kv-grpc", "paxos-kv-http"];
            let hint = diagnostic::did_you_mean(&self.cluster.adapter, &names);
            return Some(format!(
                "there is no adapter `{}`{hint} (there is {})",
                self.cluster.adapter,
                names.join(", ")
            ));
        }
        if let Some(bug) = &self.cluster.bug {
            let names: Vec<&str> = crate::bugs::known().iter().map(|b| b.name).collect();
            if !names.contains(&bug.as_str()) {
                let hint = diagnostic::did_you_mean(bug, &names);
                return Some(format!("there is no bug `{bug}`{hint} (there is {})", names.join(", ")));
            }
        }
        let c = &self.cluster;
        let fractions = |s: Span| s.ns() == 0 || !s.ns().is_multiple_of(1_000_000);
        for (name, span) in [("heartbeat", c.heartbeat), ("lease", c.lease), ("election", c.election.min)] {
            if fractions(span) {
                return Some(format!("`{name}` is {span}; it must be whole milliseconds, and at least one"));
            }
        }
        if c.lease.0 < c.heartbeat.0 * 2 {
            return Some(format!(
                "the `lease` of {} must last for at least two heartbeats of {}",
                c.lease, c.heartbeat
            ));
        }
        let mode = self.workload.read_mode;
        if mode == ReadMode::UnsafeLeader {
            return Some(format!(
                "the bundled cluster serves no reads in the mode `{mode}`; it has lease, log, read-index, quorum and stale"
            ));
        }
        if self.load.retries > 0 && c.adapter == "paxos-kv-http" {
            return Some(
                "`retries` need the adapter paxos-kv-grpc: the one for HTTP makes one attempt".to_owned(),
            );
        }
        None
    }

    /// The fault plan, wherever it is written.
    pub fn plan(&self) -> Result<Plan, String> {
        let plan = match &self.nemesis {
            NemesisSpec::Inline(plan) => (**plan).clone(),
            NemesisSpec::Named(name) => named_plan(name)?,
        };
        plan.validate(&self.node_names()).map_err(|e| e.to_string())?;
        Ok(plan)
    }

    /// `n1`, `n2`, …
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.cluster.nodes).map(|i| format!("n{i}")).collect()
    }
}

fn named_plan(name: &str) -> Result<Plan, String> {
    let shipped = nemesis::PLANS.iter().find(|(n, _)| *n == name).map(|(_, text)| (*text).to_owned());
    let names: Vec<&str> = nemesis::PLANS.iter().map(|p| p.0).collect();
    let text = match shipped {
        Some(text) => text,
        None if name.contains(['/', '.']) => {
            std::fs::read_to_string(name).map_err(|e| format!("cannot read the fault plan `{name}`: {e}"))?
        }
        None => {
            let hint = diagnostic::did_you_mean(name, &names);
            return Err(format!(
                "there is no fault plan `{name}`{hint} (there is {}, or give the path of a file)",
                names.join(", ")
            ));
        }
    };
    serde_yaml::from_str(&text).map_err(|e| Diagnostic::of_yaml(name, &text, &e).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_that_ship_are_right() {
        for (name, text) in TESTS {
            let scenario = Scenario::parse(name, text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(&scenario.name, name);
            assert!(!scenario.doc.is_empty());
        }
    }

    #[test]
    fn what_is_written_out_reads_back_the_same() {
        let mut scenario = Scenario::load("register").unwrap();
        scenario.nemesis = NemesisSpec::Inline(Box::new(scenario.plan().unwrap()));
        scenario.seed = Some(7);
        let text = serde_yaml::to_string(&scenario).unwrap();
        assert_eq!(Scenario::parse("test.yaml", &text).unwrap(), scenario);
    }
}
