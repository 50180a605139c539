//! Nodes as child processes on loopback, with a proxy on every link between them. Needs neither root nor Docker.
//!
//! ```text
//! n1 ═ process group ─ data/n1, nodes/n1.log        n1→n2 ═ proxy ═ peer port of n2
//! ```
//! Linux and macOS. A node that ends although nobody ended it is noticed and reported.

use super::{Defendant, ports, ports::Claim, proxy::Net, spawner, tail};
use crate::{
    adapter::{Adapter, Node, Peer},
    store::Store,
};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use nemesis::{Capability, Cluster, ClusterError, Link, LinkShape, LinkStats, NodeName, NodeState};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// A cluster of child processes. Dropping it kills them.
pub struct ProcessCluster {
    adapter: Arc<dyn Adapter>,
    names: Vec<NodeName>,
    members: Vec<Node>,
    logs: Vec<PathBuf>,
    slots: Vec<Mutex<Slot>>,
    deaths: Mutex<Vec<String>>,
    net: Net,
    _claims: Vec<Claim>,
}

#[derive(Debug)]
enum Slot {
    Never,
    Running(Child),
    Paused(Child),
    Dead(String),
}

impl ProcessCluster {
    /// Claims ports and opens proxies; starts nothing yet. With `base_port`, the ports are that one and those after it.
    pub async fn prepare(
        adapter: Arc<dyn Adapter>,
        names: Vec<NodeName>,
        store: &Store,
        base_port: Option<u16>,
        seed: u64,
    ) -> Result<Self> {
        let kinds = adapter.ports();
        let Some(&peer_port) = kinds.first() else {
            bail!("the adapter `{}` names no ports, so no nodes can be started for it", adapter.name());
        };
        let mut claims = Vec::new();
        let mut ports = Vec::new();
        for i in 0..names.len() {
            let mut own = BTreeMap::new();
            for (j, &kind) in kinds.iter().enumerate() {
                let claim = match base_port {
                    Some(base) => {
                        let port = usize::from(base) + i * kinds.len() + j;
                        let port = u16::try_from(port).context("`base-port` leaves no room below 65536")?;
                        ports::claim(port)?
                    }
                    None => ports::claim_any()?,
                };
                own.insert(kind, SocketAddr::from((Ipv4Addr::LOCALHOST, claim.port)));
                claims.push(claim);
            }
            ports.push(own);
        }
        let mut targets = BTreeMap::new();
        for from in &names {
            for (to, own) in names.iter().zip(&ports).filter(|(to, _)| *to != from) {
                targets.insert(Link::new(from, to), own[peer_port]);
            }
        }
        let net = Net::open(&targets, seed).await?;
        let mut members = Vec::new();
        for ((id, name), own) in (1..).zip(&names).zip(ports) {
            let data = store.data(name);
            std::fs::create_dir_all(&data)
                .with_context(|| format!("cannot make the folder {}", data.display()))?;
            let peers = (1..).zip(&names).filter(|(_, to)| *to != name).map(|(id, to)| {
                let address = net.address(&Link::new(name, to)).context("a link without a proxy")?;
                Ok(Peer { name: to.clone(), id, address })
            });
            let peers = peers.collect::<Result<Vec<_>>>()?;
            members.push(Node { name: name.clone(), id, ports: own, peers, data });
        }
        Ok(ProcessCluster {
            adapter,
            logs: names.iter().map(|n| store.node_log(n)).collect(),
            slots: names.iter().map(|_| Mutex::new(Slot::Never)).collect(),
            deaths: Mutex::default(),
            names,
            members,
            net,
            _claims: claims,
        })
    }

    fn index(&self, node: &NodeName) -> Option<usize> {
        self.names.iter().position(|n| n == node)
    }

    fn slot(&self, i: usize) -> MutexGuard<'_, Slot> {
        let mut slot = self.slots[i].lock().unwrap_or_else(|e| e.into_inner());
        // Whoever looks at a node first learns whether it ended by itself.
        if let Slot::Running(child) | Slot::Paused(child) = &mut *slot
            && let Ok(Some(status)) = child.try_wait()
        {
            let how = ended(status);
            let log = self.logs[i].display();
            let death = format!("{} ended by itself ({how}); see {log}", self.names[i]);
            self.deaths.lock().unwrap_or_else(|e| e.into_inner()).push(death);
            *slot = Slot::Dead(how);
        }
        slot
    }

    fn signal(&self, node: &NodeName, what: &'static str, signal: Signal) -> Result<(), ClusterError> {
        let error = |why: String| ClusterError { what, node: node.to_string(), why };
        let i = self.index(node).ok_or_else(|| error("there is no such node".to_owned()))?;
        let mut slot = self.slot(i);
        let taken = std::mem::replace(&mut *slot, Slot::Never);
        let (next, result) = match taken {
            Slot::Running(child) | Slot::Paused(child) => {
                let result = send(&child, signal).map_err(|e| error(e.to_string()));
                (if signal == Signal::STOP { Slot::Paused(child) } else { Slot::Running(child) }, result)
            }
            other => (other, Err(error("it is not running".to_owned()))),
        };
        *slot = next;
        result
    }
}

fn send(child: &Child, signal: Signal) -> std::io::Result<()> {
    let pid = Pid::from_raw(child.id() as i32).ok_or_else(|| std::io::Error::other("no process id"))?;
    Ok(kill_process_group(pid, signal)?)
}

fn ended(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The state letter of a process: `T` for stopped.
fn state_letter(pid: u32) -> Option<char> {
    if cfg!(target_os = "linux") {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        return stat.rsplit_once(')')?.1.trim_start().chars().next();
    }
    let out =
        std::process::Command::new("ps").args(["-o", "state=", "-p", &pid.to_string()]).output().ok()?;
    String::from_utf8_lossy(&out.stdout).trim().chars().next()
}

#[async_trait]
impl Cluster for ProcessCluster {
    fn nodes(&self) -> &[NodeName] {
        &self.names
    }

    fn supports(&self, _capability: Capability) -> Result<(), String> {
        Ok(())
    }

    async fn start(&self, node: &NodeName) -> Result<(), ClusterError> {
        let error = |why: String| ClusterError { what: "start", node: node.to_string(), why };
        let i = self.index(node).ok_or_else(|| error("there is no such node".to_owned()))?;
        if matches!(*self.slot(i), Slot::Running(_) | Slot::Paused(_)) {
            return Ok(());
        }
        let mut command = self
            .adapter
            .command(&self.members[i])
            .ok_or_else(|| error("the adapter has no command".to_owned()))?;
        let log = OpenOptions::new().create(true).append(true).open(&self.logs[i]);
        let log = log.map_err(|e| error(format!("cannot write {}: {e}", self.logs[i].display())))?;
        let copy = log.try_clone().map_err(|e| error(e.to_string()))?;
        // The pipe stays with us: when we end, however that happens, it ends too.
        command.stdin(Stdio::piped()).stdout(log).stderr(copy);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = spawner::spawn(command).await;
        let child = child.map_err(|e| error(format!("cannot run `{program}`: {e}")))?;
        *self.slot(i) = Slot::Running(child);
        Ok(())
    }

    async fn kill(&self, node: &NodeName) -> Result<(), ClusterError> {
        let error = |why: String| ClusterError { what: "kill", node: node.to_string(), why };
        let i = self.index(node).ok_or_else(|| error("there is no such node".to_owned()))?;
        let mut slot = self.slot(i);
        if let Slot::Running(child) | Slot::Paused(child) = &mut *slot {
            send(child, Signal::KILL).map_err(|e| error(e.to_string()))?;
            // SIGKILL cannot be refused, so this takes as long as the kernel needs to tear a process down.
            let status = child.wait().map_err(|e| error(e.to_string()))?;
            *slot = Slot::Dead(ended(status));
        }
        Ok(())
    }

    async fn pause(&self, node: &NodeName) -> Result<(), ClusterError> {
        self.signal(node, "pause", Signal::STOP)?;
        // The signal is delivered to each thread in turn.
        for _ in 0..200 {
            if self.state(node).await == NodeState::Paused {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn resume(&self, node: &NodeName) -> Result<(), ClusterError> {
        self.signal(node, "resume", Signal::CONT)
    }

    async fn shape(&self, link: &Link, shape: LinkShape) -> Result<(), ClusterError> {
        let missing =
            || ClusterError { what: "shape", node: link.to_string(), why: "no such link".to_owned() };
        self.net.shape(link, shape).then_some(()).ok_or_else(missing)
    }

    async fn state(&self, node: &NodeName) -> NodeState {
        let Some(i) = self.index(node) else { return NodeState::Dead("there is no such node".to_owned()) };
        match &*self.slot(i) {
            Slot::Never => NodeState::Dead("never started".to_owned()),
            Slot::Dead(how) => NodeState::Dead(how.clone()),
            // What the kernel says, not what we asked for.
            Slot::Running(child) | Slot::Paused(child) => match state_letter(child.id()) {
                Some('T') => NodeState::Paused,
                _ => NodeState::Running,
            },
        }
    }

    async fn link_stats(&self, link: &Link) -> LinkStats {
        self.net.stats(link)
    }

    async fn answers(&self, node: &NodeName) -> bool {
        let Some(i) = self.index(node) else { return false };
        let ready = self.adapter.ready(&self.members[i]);
        tokio::time::timeout(Duration::from_millis(400), ready).await.is_ok_and(|r| r.is_ok())
    }

    async fn leader(&self) -> Option<NodeName> {
        let asked = self.members.iter().map(|node| {
            let (adapter, node) = (self.adapter.clone(), node.clone());
            tokio::spawn(async move {
                let claim = adapter.leader_claim(&node);
                tokio::time::timeout(Duration::from_millis(250), claim).await.ok().flatten()
            })
        });
        let asked: Vec<_> = asked.collect();
        let mut best = None;
        for claim in asked {
            best = best.max(claim.await.ok().flatten());
        }
        best.map(|claim| claim.node)
    }
}

#[async_trait]
impl Defendant for ProcessCluster {
    fn members(&self) -> &[Node] {
        &self.members
    }

    async fn set_up(&self) -> Result<()> {
        for name in &self.names {
            self.start(name).await?;
        }
        Ok(())
    }

    async fn tear_down(&self) -> Vec<String> {
        // A death that nobody has looked at yet is noticed here, before everyone is ended.
        for i in 0..self.names.len() {
            drop(self.slot(i));
        }
        let mut errors = Vec::new();
        for name in &self.names {
            errors.extend(self.kill(name).await.err().map(|e| e.to_string()));
        }
        errors
    }

    fn deaths(&self) -> Vec<String> {
        for i in 0..self.names.len() {
            drop(self.slot(i));
        }
        self.deaths.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn log_tail(&self, node: &Node) -> String {
        self.index(&node.name).map(|i| tail(&self.logs[i], 5)).unwrap_or_default()
    }

    fn as_cluster(self: Arc<Self>) -> Arc<dyn Cluster> {
        self
    }
}

impl Drop for ProcessCluster {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            let slot = slot.get_mut().unwrap_or_else(|e| e.into_inner());
            if let Slot::Running(child) | Slot::Paused(child) = slot {
                let _ = send(child, Signal::KILL);
                let _ = child.wait();
            }
        }
    }
}
