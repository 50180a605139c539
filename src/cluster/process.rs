//! `--on process`: nodes as child processes on loopback, with a proxy on every link between them. Needs neither root nor
//! Docker.
//!
//! ```text
//! n1 ═ process group ─ data/n1, nodes/n1.log        n1→n2 ═ proxy ═ peer port of n2
//!                                                   clients→n1 ═ proxy ═ other ports of n1, if the plan cuts off clients
//! ```
//! Linux and macOS.

use super::{
    Part, Surroundings,
    agents::Agent,
    assembly::{Assembly, Parts},
    children::{Children, Place},
    ports::{self, Claim},
    proxy::Net,
};
use crate::{
    adapter::{Node, Peer},
    owner::Record,
};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use nemesis::{Capability, Link};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// Claims ports and opens proxies; starts nothing yet. With `base_port`, the ports are that one and those after it.
pub async fn prepare(around: Surroundings) -> Result<Assembly> {
    let Surroundings { adapter, names, store, seed, .. } = &around;
    let base_port = around.spec.base_port;
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
    for from in names {
        for (to, own) in names.iter().zip(&ports).filter(|(to, _)| *to != from) {
            targets.insert(Link::new(from, to), own[peer_port]);
        }
    }
    let mut net = Net::open(&targets, *seed).await?;
    let mut doors = Vec::new();
    if around.needs.contains(&Capability::Clients) {
        for (name, own) in names.iter().zip(&ports) {
            let mut faces = own.clone();
            for (kind, port) in faces.iter_mut().filter(|(kind, _)| **kind != peer_port || kinds.len() == 1) {
                *port = net.open_for_clients(name, *port).await.with_context(|| format!("port `{kind}`"))?;
            }
            doors.push(faces);
        }
    }
    let disks = around.local_disks().await?;
    let clocks = around.local_clocks().await?;
    let mut members = Vec::new();
    for ((id, name), own) in (1..).zip(names).zip(ports) {
        let peers = (1..).zip(names).filter(|(_, to)| *to != name).map(|(id, to)| {
            let address = net.address(&Link::new(name, to)).context("a link without a proxy")?;
            Ok(Peer { name: to.clone(), id, address })
        });
        let peers = peers.collect::<Result<Vec<_>>>()?;
        let data = disks.folder(id as usize - 1);
        members.push(Node { name: name.clone(), id, ports: own, peers, data });
    }
    let place =
        |name: &nemesis::NodeName| Place { name: name.clone(), log: store.node_log(name), prefix: vec![] };
    let faces = members.iter().zip(doors).map(|(m, ports)| Node { ports, ..m.clone() }).collect::<Vec<_>>();
    let assembly = Assembly::new(Parts {
        adapter: adapter.clone(),
        members,
        logs: names.iter().map(|n| store.node_log(n)).collect(),
        processes: Box::new(Children::new(&around.run, names.iter().map(place).collect())),
        network: Box::new(net),
        disks,
        clocks,
        ground: Box::new(Ground {
            local: around.local_agent_if_any(),
            _claims: claims,
            _record: around.record,
        }),
    });
    Ok(if faces.is_empty() { assembly } else { assembly.with_faces(faces) })
}

/// What goes last: the ports, and the agent, if the plan needed one.
struct Ground {
    local: Option<Arc<Agent>>,
    _claims: Vec<Claim>,
    _record: Option<Record>,
}

#[async_trait]
impl Part for Ground {
    async fn tear_down(&self) -> Vec<String> {
        match &self.local {
            Some(agent) => agent.close().await.into_iter().collect(),
            None => vec![],
        }
    }
}
