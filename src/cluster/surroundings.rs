//! What every kind of cluster is prepared from: the system's adapter, the nodes' names, the run's folder, and what the
//! plan will ask for.

use super::{
    agents::Agent,
    clocks::Clocks,
    disks::{Disks, Folder},
};
use crate::{
    adapter::{Adapter, Node, Peer},
    agent::Request,
    machine,
    owner::Record,
    scenario::ClusterSpec,
    store::Store,
};
use anyhow::{Context, Result, bail};
use nemesis::{Capability, NodeName};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    sync::Arc,
};
use tokio::sync::OnceCell;

/// The port of the first of the adapter's addresses; the others follow.
const FIRST_PORT: u16 = 7000;

/// What a cluster is prepared from.
pub struct Surroundings {
    /// How nodes are started and spoken to.
    pub adapter: Arc<dyn Adapter>,
    /// The nodes' names.
    pub names: Vec<NodeName>,
    /// The run's folder.
    pub store: Store,
    /// The run's seed.
    pub seed: u64,
    /// The run's name, which everything carries that it makes.
    pub run: String,
    /// What the test file says of the cluster.
    pub spec: ClusterSpec,
    /// What the plan asks of the cluster.
    pub needs: BTreeSet<Capability>,
    /// The program that can be an agent.
    pub program: PathBuf,
    /// Says that the run exists.
    pub record: Option<Record>,
    local: OnceCell<Arc<Agent>>,
}

impl Surroundings {
    /// Nothing is made yet.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        adapter: Arc<dyn Adapter>,
        names: Vec<NodeName>,
        store: Store,
        seed: u64,
        run: String,
        spec: ClusterSpec,
        needs: BTreeSet<Capability>,
        program: PathBuf,
    ) -> Result<Self> {
        let record = Some(Record::write(&run)?);
        let local = OnceCell::new();
        Ok(Surroundings { adapter, names, store, seed, run, spec, needs, program, record, local })
    }

    /// The nodes, on hosts with addresses of their own, so that their ports need not differ.
    ///
    /// # Errors
    /// If the adapter names no ports.
    pub fn members(&self, addresses: &[Ipv4Addr], data: impl Fn(usize) -> PathBuf) -> Result<Vec<Node>> {
        let kinds = self.adapter.ports();
        let Some(&peer_port) = kinds.first() else {
            bail!(
                "the adapter `{}` names no ports, so nobody can say where its nodes are",
                self.adapter.name()
            );
        };
        let ports = |i: usize| -> BTreeMap<&'static str, SocketAddr> {
            self.port_numbers().into_iter().map(|(kind, port)| (kind, (addresses[i], port).into())).collect()
        };
        let member = |(i, name): (usize, &NodeName)| Node {
            name: name.clone(),
            id: i as u32 + 1,
            ports: ports(i),
            peers: (self.names.iter().enumerate())
                .filter(|(j, _)| *j != i)
                .map(|(j, peer)| Peer { name: peer.clone(), id: j as u32 + 1, address: ports(j)[peer_port] })
                .collect(),
            data: data(i),
        };
        Ok(self.names.iter().enumerate().map(member).collect())
    }

    /// The ports of every node that has an address of its own.
    fn port_numbers(&self) -> Vec<(&'static str, u16)> {
        let numbers = self.spec.base_port.unwrap_or(FIRST_PORT)..;
        let given = |kind: &str, port| self.spec.ports.get(kind).copied().unwrap_or(port);
        numbers.zip(self.adapter.ports()).map(|(port, kind)| (*kind, given(kind, port))).collect()
    }

    /// The ports at which clients reach such a node, if the plan wants to cut them off: all but the peers', unless there
    /// is only one.
    pub fn client_ports(&self) -> Vec<u16> {
        if !self.needs.contains(&Capability::Clients) {
            return vec![];
        }
        let all: Vec<u16> = self.port_numbers().into_iter().map(|(_, port)| port).collect();
        if all.len() > 1 { all[1..].to_vec() } else { all }
    }

    /// The arguments of an agent of this run.
    pub fn agent_arguments(&self) -> [&str; 3] {
        ["agent", "--run", &self.run]
    }

    /// The agent beside the controller, started when it is first needed.
    pub async fn local_agent(&self) -> Result<Arc<Agent>> {
        let open = async || {
            let mut command = Command::new(&self.program);
            command.args(self.agent_arguments());
            Ok(Arc::new(Agent::open("the local agent", command).await?))
        };
        self.local.get_or_try_init(open).await.cloned()
    }

    /// The agent beside the controller, if anybody has needed it.
    pub fn local_agent_if_any(&self) -> Option<Arc<Agent>> {
        self.local.get().cloned()
    }

    /// Data folders on this machine, with a file system that can fail on top if the plan asks for one.
    pub async fn local_disks(&self) -> Result<Disks> {
        let faulty = [Capability::Disk, Capability::PowerFailure].iter().any(|c| self.needs.contains(c));
        // Tried only if it is needed: that mounts something.
        let why_not = if faulty { machine::fuse().err() } else { None };
        let agent = match (faulty && why_not.is_none()) || self.needs.contains(&Capability::Damage) {
            true => Some(self.local_agent().await?),
            false => None,
        };
        let mut folders = Vec::new();
        for name in &self.names {
            let backing = self.store.data(name);
            std::fs::create_dir_all(&backing)
                .with_context(|| format!("cannot make the folder {}", backing.display()))?;
            let mut folder = Folder { backing, mount: None, agent: agent.clone() };
            if let (true, None, Some(agent)) = (faulty, &why_not, &agent) {
                let at = self.store.file("disks").join(&**name);
                std::fs::create_dir_all(&at)
                    .with_context(|| format!("cannot make the folder {}", at.display()))?;
                let mount = Request::Mount { folder: folder.backing.clone(), at: at.clone() };
                agent.ask::<()>(mount).await.map_err(anyhow::Error::msg)?;
                folder.mount = Some(at);
            }
            folders.push(folder);
        }
        Ok(Disks::new(folders, why_not))
    }

    /// Clocks of processes on this machine.
    pub async fn local_clocks(&self) -> Result<Clocks> {
        let nodes = self.names.len();
        let needed = self.needs.contains(&Capability::Clock);
        let agents = match if needed { machine::clocks() } else { Ok(()) } {
            Err(why) => Err(why),
            Ok(()) if needed => {
                let agent = self.local_agent().await?;
                Ok((0..nodes).map(|_| agent.clone()).collect())
            }
            Ok(()) => Err("the clocks were not prepared for faults".to_owned()),
        };
        Ok(Clocks::new(nodes, agents))
    }
}
