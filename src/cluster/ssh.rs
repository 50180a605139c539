//! `--on ssh`: nodes on hosts that are reached over OpenSSH.
//!
//! ```text
//! one multiplexed connection a host ── upload /tmp/tribunal-<run>-n1/tribunal ── tribunal agent
//!                                                         agent: starts and watches the node, iptables, tc, clock, disk
//! ```
//! The login must be root's, or one that may use `sudo` without a password. Everything is in one folder of the host and
//! goes when the agent ends, also if the connection breaks. Hosts are addressed by IPv4, one node each.

pub mod host;
pub mod processes;

use super::{
    Part, Surroundings,
    agents::Agent,
    assembly::{Assembly, Parts},
    clocks::Clocks,
    disks::{Disks, Folder},
    firewall::{Firewall, Spot, Wanted},
};
use crate::{
    agent::Request,
    machine,
    owner::{self, Record},
};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use host::{Host, Login};
use nemesis::{Capability, NodeName};
use processes::{Remote, RemoteProcesses};
use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

/// Logs in everywhere and starts an agent on each host; starts no node yet.
pub async fn prepare(mut around: Surroundings) -> Result<Assembly> {
    machine::ssh().map_err(|why| anyhow::anyhow!("`--on ssh` cannot be used here: {why}"))?;
    let logins = logins(&around)?;
    let sockets = owner::folder().join(format!("{}-ssh", around.run));
    std::fs::create_dir_all(&sockets)
        .with_context(|| format!("cannot make the folder {}", sockets.display()))?;
    let mut ground =
        Ground { hosts: vec![], agents: vec![], sockets: sockets.clone(), _record: around.record.take() };
    for (login, name) in logins.into_iter().zip(&around.names) {
        let mut host = Host::new(login, name, &around.run, &sockets, &around.spec);
        let entered = match host.settle().await {
            Ok(()) => host.enter(&around.program).await,
            Err(why) => Err(why),
        };
        let host = Arc::new(host);
        ground.hosts.push(host.clone());
        match entered {
            Ok(agent) => ground.agents.push(Arc::new(agent)),
            Err(why) => {
                host.forget().await;
                for trouble in ground.tear_down().await {
                    eprintln!("warning: {trouble}");
                }
                return Err(why);
            }
        }
    }
    let (hosts, agents) = (ground.hosts.clone(), ground.agents.clone());
    match build(&around, &hosts, &agents).await {
        Ok(parts) => Ok(Assembly::new(Parts { ground: Box::new(ground), ..parts })),
        Err(why) => {
            for trouble in ground.tear_down().await {
                eprintln!("warning: {trouble}");
            }
            Err(why)
        }
    }
}

fn logins(around: &Surroundings) -> Result<Vec<Login>> {
    let (hosts, names) = (&around.spec.hosts, &around.names);
    if hosts.len() != names.len() {
        bail!(
            "`hosts` names {} hosts for {} nodes; it must name one for each node",
            hosts.len(),
            names.len()
        );
    }
    let logins = hosts.iter().map(|h| h.parse()).collect::<Result<Vec<Login>>>()?;
    for (i, login) in logins.iter().enumerate() {
        if let Some(j) = logins[..i].iter().position(|other| other.address == login.address) {
            bail!(
                "{} and {} are on the same host, {}; each needs one of its own",
                names[j],
                names[i],
                login.address
            );
        }
    }
    Ok(logins)
}

async fn build(around: &Surroundings, hosts: &[Arc<Host>], agents: &[Arc<Agent>]) -> Result<Parts> {
    let spots: Vec<Spot> = (around.names.iter().zip(hosts).zip(agents))
        .map(|((name, host), agent)| Spot {
            name: name.clone(),
            address: host.login.address,
            agent: agent.clone(),
        })
        .collect();
    let firewall =
        Firewall::open(&around.run, spots, Wanted::by(around)).await.map_err(anyhow::Error::msg)?;
    let disks = disks(around, hosts, agents).await?;
    let clocks = match around.needs.contains(&Capability::Clock) {
        true => Ok(agents.to_vec()),
        false => Err("the clocks were not prepared for faults".to_owned()),
    };
    let addresses: Vec<Ipv4Addr> = hosts.iter().map(|h| h.login.address).collect();
    let members = around.members(&addresses, |i| disks.folder(i))?;
    let remote = |((name, host), agent): ((&NodeName, &Arc<Host>), &Arc<Agent>)| Remote {
        name: name.clone(),
        host: host.clone(),
        agent: agent.clone(),
        log: around.store.node_log(name),
    };
    Ok(Parts {
        adapter: around.adapter.clone(),
        members,
        logs: around.names.iter().map(|n| around.store.node_log(n)).collect(),
        processes: Box::new(RemoteProcesses::new(
            around.names.iter().zip(hosts).zip(agents).map(remote).collect(),
        )),
        network: Box::new(firewall),
        clocks: Clocks::new(around.names.len(), clocks),
        disks,
        ground: Box::new(super::NoPart),
    })
}

/// Data folders on the hosts, with a file system that can fail on top if the plan asks for one.
async fn disks(around: &Surroundings, hosts: &[Arc<Host>], agents: &[Arc<Agent>]) -> Result<Disks> {
    let faulty = [Capability::Disk, Capability::PowerFailure].iter().any(|c| around.needs.contains(c));
    let mut folders = Vec::new();
    for (host, agent) in hosts.iter().zip(agents) {
        let backing = host.folder.join("data");
        let mut folder = Folder { backing: backing.clone(), mount: None, agent: Some(agent.clone()) };
        let make = async |path: &PathBuf| {
            let made = agent.run(&["mkdir", "-p", &path.to_string_lossy()], None).await;
            made.map_err(anyhow::Error::msg)
        };
        make(&backing).await?;
        if faulty {
            let at = host.folder.join("disk");
            make(&at).await?;
            let mount = Request::Mount { folder: backing, at: at.clone() };
            agent.ask::<()>(mount).await.map_err(|why| anyhow::anyhow!("{}: {why}", host.name))?;
            folder.mount = Some(at);
        }
        folders.push(folder);
    }
    Ok(Disks::new(folders, None))
}

/// The agents and their connections.
struct Ground {
    hosts: Vec<Arc<Host>>,
    agents: Vec<Arc<Agent>>,
    sockets: PathBuf,
    _record: Option<Record>,
}

#[async_trait]
impl Part for Ground {
    async fn tear_down(&self) -> Vec<String> {
        let mut left = Vec::new();
        for agent in &self.agents {
            left.extend(agent.close().await);
        }
        for host in &self.hosts {
            left.extend(host.leave().await);
        }
        // Empty, unless a connection could not be ended.
        let _ = std::fs::remove_dir_all(&self.sockets);
        left
    }
}
