//! `--on docker`: nodes as containers on a network of the run's own.
//!
//! ```text
//! network tribunal-<run> 10.214.K.0/24
//!   container tribunal-<run>-n1-net   holder: address 10.214.K.11, NET_ADMIN, iptables, tc, an agent
//!   container tribunal-<run>-n1       the node, in the holder's network (--network container:…)
//! ```
//! The holder outlives the node: its address and the rules in its network stay while the node is killed and started, and
//! the node's image needs nothing in it. Everything carries the labels `tribunal.run` and `tribunal.owner`. The engine
//! must be this machine's: clients reach the containers by their addresses, and data folders are mounted from here.

pub mod compose;
pub mod containers;
pub mod engine;
pub mod image;

use super::{
    Part, Surroundings,
    agents::Agent,
    assembly::{Assembly, Parts},
    clocks::Clocks,
    firewall::{Firewall, Spot, Wanted},
};
use crate::{
    machine,
    owner::{Owner, Record},
};
use anyhow::{Result, bail};
use async_trait::async_trait;
use containers::{Container, Containers, GROUPS};
use engine::docker;
use nemesis::{Capability, NodeName};
use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

/// The first two bytes of the subnets.
const SUBNETS: [u8; 2] = [10, 214];
/// Where a node finds its data.
const DATA: &str = "/data";
/// Where the program is in the image.
pub const PROGRAM: &str = "/usr/bin/tribunal";
/// The label of everything that a run has made: the run's name.
pub const RUN: &str = "tribunal.run";
/// The label that says whose it is; see [`Owner`].
pub const OWNER: &str = "tribunal.owner";

/// Makes the network and the holders; starts no node yet.
pub async fn prepare(mut around: Surroundings) -> Result<Assembly> {
    engine::answers().await.map_err(|why| anyhow::anyhow!("`--on docker` cannot be used here: {why}"))?;
    crate::clean::sweep().await;
    let holders = image::of_program(&around.program).await?;
    let image = around.spec.image.clone().unwrap_or_else(|| holders.clone());
    let ground = Arc::new(Ground::new(&around.run, around.record.take()));
    let around = Arc::new(around);
    let built = match around.spec.compose {
        Some(_) => compose::build(&around, &ground, &holders).await,
        None => build(&around, &ground, &holders, &image).await,
    };
    match built {
        Ok(assembly) => Ok(assembly),
        Err(why) => {
            for trouble in ground.tear_down().await {
                eprintln!("warning: {trouble}");
            }
            Err(why)
        }
    }
}

fn words(text: anyhow::Result<String, String>) -> Result<String> {
    text.map_err(anyhow::Error::msg)
}

/// The options that label what a run makes.
pub(super) fn labels(run: &str) -> [String; 4] {
    ["--label".to_owned(), format!("{RUN}={run}"), "--label".to_owned(), format!("{OWNER}={}", Owner::this())]
}

async fn build(around: &Surroundings, ground: &Arc<Ground>, holders: &str, image: &str) -> Result<Assembly> {
    let network = format!("tribunal-{}", around.run);
    let subnet = claim(&network, &around.run).await?;
    let mut spots = Vec::new();
    for (i, name) in around.names.iter().enumerate() {
        let holder = format!("{network}-{name}-net");
        let address = address(subnet, i);
        hold(around, holders, &holder, &["--network", &network, "--ip", &address.to_string()]).await?;
        let agent = ground.keep(enter(around, name, &holder).await?);
        spots.push(Spot { name: name.clone(), address, agent });
    }
    let firewall =
        Firewall::open(&around.run, spots.clone(), Wanted::by(around)).await.map_err(anyhow::Error::msg)?;
    let disks = around.local_disks().await?;
    if let Some(agent) = around.local_agent_if_any() {
        ground.keep(agent);
    }
    let clocks = clocks(around, ground, holders).await?;
    let addresses: Vec<Ipv4Addr> = spots.iter().map(|s| s.address).collect();
    let members = around.members(&addresses, |_| DATA.into())?;
    let container = |(i, name): (usize, &NodeName)| Container {
        name: name.clone(),
        container: format!("{network}-{name}"),
        create: Some(create(
            around,
            &format!("{network}-{name}-net"),
            &disks.folder(i),
            image,
            image == holders,
        )),
        log: around.store.node_log(name),
        agent: spots[i].agent.clone(),
    };
    let containers = around.names.iter().enumerate().map(container).collect();
    Ok(Assembly::new(Parts {
        adapter: around.adapter.clone(),
        members,
        logs: around.names.iter().map(|n| around.store.node_log(n)).collect(),
        processes: Box::new(Containers::new(containers)),
        network: Box::new(firewall),
        disks,
        clocks,
        ground: Box::new(ground.clone()),
    }))
}

/// The options of a node's container, and its image.
fn create(around: &Surroundings, holder: &str, data: &Path, image: &str, ours: bool) -> Vec<String> {
    let mut out = labels(&around.run).to_vec();
    out.extend(["--network".to_owned(), format!("container:{holder}")]);
    out.extend(["--volume".to_owned(), format!("{}:{DATA}", data.display())]);
    // Our own node watches its standard input, which must stay open.
    out.push("--interactive".to_owned());
    if ours {
        // What it writes belongs to whoever runs the tester. A stranger's image knows its own user.
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        out.extend(["--user".to_owned(), format!("{}:{}", user.as_raw(), group.as_raw())]);
    }
    out.push(image.to_owned());
    out
}

/// Makes the network with the first subnet that is free.
async fn claim(network: &str, run: &str) -> Result<u8> {
    let [a, b] = SUBNETS;
    let labels = labels(run);
    for subnet in 0..=255u8 {
        let range = format!("{a}.{b}.{subnet}.0/24");
        let mut arguments = vec!["network", "create", "--subnet", &range];
        arguments.extend(labels.iter().map(String::as_str));
        arguments.push(network);
        match docker(&arguments).await {
            Ok(_) => return Ok(subnet),
            Err(why) if why.contains("overlap") => {}
            Err(why) => bail!("{why}"),
        }
    }
    bail!("no subnet {a}.{b}.x.0/24 is free; see `tribunal clean`")
}

fn address(subnet: u8, i: usize) -> Ipv4Addr {
    Ipv4Addr::new(SUBNETS[0], SUBNETS[1], subnet, 11 + i as u8)
}

/// Starts a holder.
pub(super) async fn hold(around: &Surroundings, image: &str, name: &str, network: &[&str]) -> Result<()> {
    let labels = labels(&around.run);
    let groups = format!("/sys/fs/cgroup:{GROUPS}:ro");
    let mut arguments =
        vec!["run", "--detach", "--name", name, "--cap-add", "NET_ADMIN", "--volume", &groups];
    arguments.extend(labels.iter().map(String::as_str));
    arguments.extend(network);
    arguments.push(image);
    arguments.extend(around.agent_arguments());
    arguments.push("--hold");
    words(docker(&arguments).await)?;
    Ok(())
}

/// Starts an agent in a holder.
pub(super) async fn enter(around: &Surroundings, name: &NodeName, holder: &str) -> Result<Arc<Agent>> {
    let mut command = Command::new("docker");
    command.args(["exec", "--interactive", holder, PROGRAM]).args(around.agent_arguments());
    Ok(Arc::new(Agent::open(&format!("the agent of {name}"), command).await?))
}

/// Clocks that are set by an agent in a container that sees all processes of the machine.
pub(super) async fn clocks(around: &Surroundings, ground: &Ground, image: &str) -> Result<Clocks> {
    let nodes = around.names.len();
    if let Err(why) = machine::clocks_are_known() {
        return Ok(Clocks::new(nodes, Err(why)));
    }
    if !around.needs.contains(&Capability::Clock) {
        return Ok(Clocks::new(nodes, Err("the clocks were not prepared for faults".to_owned())));
    }
    let name = format!("tribunal-{}-clocks", around.run);
    let mut command = Command::new("docker");
    command.args(["run", "--interactive", "--rm", "--name", &name, "--pid", "host", "--network", "none"]);
    command.args(["--cap-add", "SYS_PTRACE", "--security-opt", "apparmor=unconfined"]);
    command.args(["--security-opt", "seccomp=unconfined"]).args(labels(&around.run));
    command.arg(image).args(around.agent_arguments());
    let agent = ground.keep(Arc::new(Agent::open("the agent for clocks", command).await?));
    Ok(Clocks::new(nodes, Ok((0..nodes).map(|_| agent.clone()).collect())))
}

/// What a run has made, removed by its label.
pub(super) struct Ground {
    run: String,
    agents: Mutex<Vec<Arc<Agent>>>,
    _record: Option<Record>,
}

impl Ground {
    pub(super) fn new(run: &str, record: Option<Record>) -> Self {
        Ground { run: run.to_owned(), agents: Mutex::default(), _record: record }
    }

    /// Keeps an agent until the end.
    pub(super) fn keep(&self, agent: Arc<Agent>) -> Arc<Agent> {
        self.agents.lock().unwrap_or_else(|e| e.into_inner()).push(agent.clone());
        agent
    }
}

#[async_trait]
impl Part for Arc<Ground> {
    async fn tear_down(&self) -> Vec<String> {
        let agents = std::mem::take(&mut *self.agents.lock().unwrap_or_else(|e| e.into_inner()));
        let mut left = Vec::new();
        // The last first: agents in containers end with them anyhow.
        for agent in agents.iter().rev() {
            left.extend(agent.close().await);
        }
        left.extend(remove(&self.run).await);
        left
    }
}

/// Removes all containers, networks, volumes and images of a run (those that a compose file has built). Returns what went wrong.
pub async fn remove(run: &str) -> Vec<String> {
    let filter = format!("label={RUN}={run}");
    let mut errors = Vec::new();
    let of = |kind: &'static str, id: &'static str| {
        let filter = filter.clone();
        async move {
            let list = match kind {
                "image" => docker(&["image", "ls", "--quiet", "--no-trunc", "--filter", &filter]).await,
                "container" => docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]).await,
                _ => docker(&[kind, "ls", "--format", id, "--filter", &filter]).await,
            };
            // An image with several names is listed under each.
            list.map(|text| text.lines().map(str::to_owned).collect::<BTreeSet<_>>())
        }
    };
    match of("container", "").await {
        Ok(all) if !all.is_empty() => {
            let arguments = ["rm", "--force", "--volumes"].iter().map(|a| (*a).to_owned()).chain(all);
            errors.extend(docker(&arguments.collect::<Vec<_>>()).await.err());
        }
        Ok(_) => {}
        Err(why) => errors.push(why),
    }
    for (kind, id) in [("network", "{{.ID}}"), ("volume", "{{.Name}}"), ("image", "")] {
        match of(kind, id).await {
            Ok(all) => {
                for thing in all {
                    let by_force: &[&str] = if kind == "image" { &["--force"] } else { &[] };
                    errors.extend(docker(&[&[kind, "rm"], by_force, &[&thing]].concat()).await.err());
                }
            }
            Err(why) => errors.push(why),
        }
    }
    errors
}
