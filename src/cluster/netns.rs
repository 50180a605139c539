//! `--on netns`: nodes as processes in network namespaces, joined by a bridge of the run's own. Linux, root.
//!
//! ```text
//! tribunal-<run>-n1 ─ eth0 10.213.K.11 ─┐
//! tribunal-<run>-n2 ─ eth0 10.213.K.12 ─┼─ bridge ─ tribK 10.213.K.1 (the controller and its clients)
//!                                        tribunal-<run>-hub
//! ```
//! The bridge lives in a namespace too, so that the host's own firewall (Docker's, say) has nothing to do with what passes
//! it. The interface `tribK` claims the subnet: its name exists once. Everything goes with the namespaces.

use super::{
    Part, Surroundings,
    agents::Agent,
    assembly::{Assembly, Parts},
    children::{Children, Place},
    firewall::{Firewall, Spot, Wanted},
};
use crate::{agent::Request, machine, owner::Record};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use std::{ffi::OsString, net::Ipv4Addr, process::Command, sync::Arc};

/// The first two bytes of the subnets.
pub const SUBNETS: [u8; 2] = [10, 213];
/// What the names of namespaces begin with.
pub const PREFIX: &str = "tribunal-";
/// What the names of interfaces in the host's namespace begin with.
pub const INTERFACE: &str = "trib";

/// Makes the namespaces; starts nothing yet.
pub async fn prepare(around: Surroundings) -> Result<Assembly> {
    machine::namespaces().map_err(|why| anyhow::anyhow!("`--on netns` cannot be used here: {why}"))?;
    crate::clean::sweep().await;
    let local = around.local_agent().await?;
    let subnet = make(&around, &local).await?;
    let mut spots = Vec::new();
    for (i, name) in around.names.iter().enumerate() {
        let mut command = Command::new("nsenter");
        command.arg(entry(&namespace(&around.run, name))).arg("--").arg(&around.program);
        command.args(around.agent_arguments());
        let agent = Agent::open(&format!("the agent of {name}"), command).await?;
        spots.push(Spot { name: name.clone(), address: address(subnet, i), agent: Arc::new(agent) });
    }
    let network =
        Firewall::open(&around.run, spots.clone(), Wanted::by(&around)).await.map_err(anyhow::Error::msg)?;
    let disks = around.local_disks().await?;
    let clocks = around.local_clocks().await?;
    let addresses: Vec<Ipv4Addr> = spots.iter().map(|s| s.address).collect();
    let members = around.members(&addresses, |i| disks.folder(i))?;
    let place = |name: &nemesis::NodeName| Place {
        name: name.clone(),
        log: around.store.node_log(name),
        prefix: vec!["nsenter".into(), entry(&namespace(&around.run, name)), "--".into()],
    };
    Ok(Assembly::new(Parts {
        adapter: around.adapter.clone(),
        logs: around.names.iter().map(|n| around.store.node_log(n)).collect(),
        members,
        processes: Box::new(Children::new(&around.run, around.names.iter().map(place).collect())),
        network: Box::new(network),
        disks,
        clocks,
        ground: Box::new(Ground {
            agents: spots.into_iter().map(|s| s.agent).collect(),
            local,
            _record: around.record,
        }),
    }))
}

fn address(subnet: u8, i: usize) -> Ipv4Addr {
    Ipv4Addr::new(SUBNETS[0], SUBNETS[1], subnet, 11 + i as u8)
}

/// The name of a node's namespace.
pub fn namespace(run: &str, node: &str) -> String {
    format!("{PREFIX}{run}-{node}")
}

fn entry(namespace: &str) -> OsString {
    format!("--net=/run/netns/{namespace}").into()
}

/// Claims a subnet and makes the namespaces, the bridge and the links. The local agent removes them when it ends.
async fn make(around: &Surroundings, local: &Agent) -> Result<u8> {
    let hub = namespace(&around.run, "hub");
    let ip = async |arguments: &[&str]| {
        let argv: Vec<&str> = std::iter::once("ip").chain(arguments.iter().copied()).collect();
        local.run(&argv, None).await
    };
    let add = async |name: &str| -> Result<(), String> {
        ip(&["netns", "add", name]).await?;
        let argv = ["ip", "netns", "del", name].map(str::to_owned).to_vec();
        local.ask(Request::AtEnd { argv }).await
    };
    add(&hub).await.map_err(anyhow::Error::msg)?;
    let subnet = claim(&hub, local).await?;
    let [a, b] = SUBNETS;
    let host = format!("{INTERFACE}{subnet}");
    // The host's end goes with its peer, but only when the kernel comes to it: a next run must find the subnet free.
    let argv = ["ip", "link", "del", &host].map(str::to_owned).to_vec();
    local.ask::<()>(Request::AtEnd { argv }).await.map_err(anyhow::Error::msg)?;
    let outside = vec![
        format!("addr add {a}.{b}.{subnet}.1/24 dev {host}"),
        // Its name has no room for the run's.
        format!("link set {host} alias {PREFIX}{}", around.run),
        format!("link set {host} up"),
    ];
    let mut inside = vec![
        "link add bridge type bridge".to_owned(),
        "link set lo up".to_owned(),
        "link set bridge up".to_owned(),
        "link set host master bridge up".to_owned(),
    ];
    for name in &around.names {
        let space = namespace(&around.run, name);
        add(&space).await.map_err(anyhow::Error::msg)?;
        inside.push(format!("link add {name} type veth peer name eth0 netns {space}"));
        inside.push(format!("link set {name} master bridge up"));
    }
    let batch = async |arguments: &[&str], lines: Vec<String>| {
        let argv: Vec<&str> = std::iter::once("ip").chain(arguments.iter().copied()).collect();
        local.run(&argv, Some(lines.join("\n") + "\n")).await.map_err(anyhow::Error::msg)
    };
    batch(&["-n", &hub, "-batch", "-"], inside).await?;
    batch(&["-batch", "-"], outside).await?;
    for (i, name) in around.names.iter().enumerate() {
        let lines = vec![
            "link set lo up".to_owned(),
            format!("addr add {}/24 dev eth0", address(subnet, i)),
            "link set eth0 up".to_owned(),
        ];
        batch(&["-n", &namespace(&around.run, name), "-batch", "-"], lines).await?;
    }
    Ok(subnet)
}

/// Takes the first subnet that nobody has: the interface's name is the claim, the routes show who else is there.
async fn claim(hub: &str, local: &Agent) -> Result<u8> {
    let routes = local.run(&["ip", "-4", "-o", "route", "show"], None).await.map_err(anyhow::Error::msg)?;
    let [a, b] = SUBNETS;
    let mut last = String::new();
    for subnet in 0..=255u8 {
        if routes.contains(&format!("{a}.{b}.{subnet}.")) {
            continue;
        }
        let host = format!("{INTERFACE}{subnet}");
        let add = ["ip", "link", "add", &host, "type", "veth", "peer", "name", "host", "netns", hub];
        match local.run(&add, None).await {
            Ok(_) => return Ok(subnet),
            Err(why) if why.contains("File exists") => last = why,
            Err(why) => bail!("cannot join the namespaces to the host: {why}"),
        }
    }
    Err(anyhow::anyhow!(last))
        .with_context(|| format!("no subnet {a}.{b}.x.0/24 is free; see `tribunal clean`"))
}

/// The namespaces: they go when the local agent ends.
struct Ground {
    agents: Vec<Arc<Agent>>,
    local: Arc<Agent>,
    _record: Option<Record>,
}

#[async_trait]
impl Part for Ground {
    async fn tear_down(&self) -> Vec<String> {
        let mut left = Vec::new();
        for agent in self.agents.iter().chain([&self.local]) {
            left.extend(agent.close().await);
        }
        left
    }
}
