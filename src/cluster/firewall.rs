//! Links between hosts of their own (namespaces, containers, machines): cut and made lossy by iptables at the receiver,
//! delayed and shaped by tc at the sender.
//!
//! ```text
//! n1→n2   in n2:  iptables -A TRIB-<run> -s n1 -j DROP                   held bytes: the rule's counter
//!                 iptables -A TRIB-<run> -s n1 -m statistic … -j DROP    lost packets
//!                 iptables -A TRIB-<run> -s n1                           delivered bytes
//!         in n1:  tc class 1:2 htb rate …  leaf netem delay …            for packets to n2 only
//! clients→n2      in n2:  iptables -A TRIB-<run> -s controller --dports … -j DROP
//! n2→clients      in n2:  iptables -A TRIB-<run>-C -d controller --sports … -j DROP
//! ```
//! Clients are cut off at the ports that they use, so that whoever else reaches a node from the same host (agents, ssh) is
//! not.
//!
//! Rules stand in a chain of the run's own, which is replaced at once (`iptables-restore --noflush`); nobody else's rule
//! is ever touched. A chain forgets its counters when it is replaced, so they are read before and added up here. IPv4.

pub mod rules;
pub mod shaping;

use super::{Part, agents::Agent, network::Network};
use crate::agent::Request;
use async_trait::async_trait;
use nemesis::{
    Capability, Cut, Link, LinkShape, LinkStats, NodeName, Probe, grudge::CLIENTS, inject::all,
    inject::all_links,
};
use rules::{ANSWERS, Clients, Rules};
use serde::Deserialize;
use shaping::Shaping;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Mutex;

/// Time between two packets of a probe.
const GAP: Duration = Duration::from_millis(2);
/// Packets of the trains that show over which links trains arrive at all.
const TRIED: u32 = 10;
/// How many of them are sent over a link until one arrives: a machine that stands still for a moment is no firewall.
const TRIES: u32 = 5;
/// How long the last packet of a probe may be on its way, apart from the delay that the link was given.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// A node as its links see it.
#[derive(Clone)]
pub struct Spot {
    /// Its name.
    pub name: NodeName,
    /// The address from which its packets come.
    pub address: Ipv4Addr,
    /// The agent in its network.
    pub agent: Arc<Agent>,
}

/// Where nodes come back in networks that are new: whoever can put an agent into one.
#[async_trait]
pub trait Doors: Send + Sync {
    /// An agent in the network of a node, if that network is a new one.
    async fn open(&self, i: usize) -> Result<Option<Arc<Agent>>, String>;
}

/// The links of a cluster.
pub struct Firewall {
    chain: String,
    spots: Vec<Spot>,
    agents: Vec<RwLock<Arc<Agent>>>,
    doors: Option<Box<dyn Doors>>,
    /// What each node's chain and qdiscs are at the moment.
    states: Vec<Mutex<State>>,
    train: AtomicU64,
    abilities: BTreeMap<Capability, Result<(), String>>,
    /// The packet queue that stands in for netem, if it has to.
    queue: Option<StandIn>,
    /// How each node can tell the clients, if they are to be cut off.
    clients: Vec<Option<Clients>>,
    /// Links over which no train arrived although nothing was done to them: a stranger's firewall lets none through.
    untrusted: BTreeSet<Link>,
}

/// What a plan wants of its links, and what it allows.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Delay, jitter, duplication, reordering or corruption.
    pub netem: bool,
    /// Something else may do that.
    pub stand_ins: bool,
    /// Draws what the stand-in draws.
    pub seed: u64,
    /// The ports at which clients are to be cut off; none if they are not.
    pub client_ports: Vec<u16>,
}

impl Wanted {
    /// Of a run.
    pub fn by(around: &super::Surroundings) -> Wanted {
        Wanted {
            netem: [Capability::Delay, Capability::Scramble].iter().any(|c| around.needs.contains(c)),
            stand_ins: around.spec.stand_ins,
            seed: around.seed,
            client_ports: around.client_ports(),
        }
    }
}

/// The packet queue, where it stands in for what a kernel lacks.
struct StandIn {
    number: u16,
    /// Duplicates only: netem does the rest.
    copies_only: bool,
    /// What is lacking.
    why: String,
}

impl StandIn {
    /// The part of a shape that the queue has to do.
    fn part(&self, shape: &LinkShape) -> LinkShape {
        match self.copies_only {
            true => LinkShape { duplicate: shape.duplicate, cut: shape.cut, ..LinkShape::default() },
            false => *shape,
        }
    }

    /// A shape without what netem does.
    fn ruled(&self, shape: LinkShape) -> LinkShape {
        let left = self.part(&shape);
        let LinkShape { delay, jitter, reorder, corrupt, .. } = left;
        LinkShape { delay, jitter, reorder, corrupt, ..shape }
    }

    /// What the report says.
    fn words(&self) -> String {
        let what = if self.copies_only {
            "duplication of packets"
        } else {
            "delay, jitter, duplication, reordering and corruption of packets"
        };
        // What the kernel said and what to do about it stands behind the reason.
        let why = self.why.split([';', '(']).next().unwrap_or(&self.why).trim();
        format!("{what}: by a packet queue in user space (NFQUEUE), because {why}")
    }
}

struct State {
    incoming: BTreeMap<NodeName, LinkShape>,
    counted: BTreeMap<NodeName, LinkStats>,
    shaping: Shaping,
}

impl Firewall {
    /// Makes a chain in each node's network and finds out what the kernels can do.
    pub async fn open(run: &str, spots: Vec<Spot>, wanted: Wanted) -> Result<Firewall, String> {
        let chain = format!("TRIB-{run}");
        let (mut states, mut clients) = (Vec::new(), Vec::new());
        for spot in &spots {
            make_chain(&spot.agent, &chain, "INPUT").await?;
            clients.push(match wanted.client_ports.is_empty() {
                true => None,
                false => {
                    make_chain(&spot.agent, &rules::answers(&chain), "OUTPUT").await?;
                    Some(Clients { addresses: controllers(spot)?, ports: wanted.client_ports.clone() })
                }
            });
            let shaping =
                Shaping::open(run, spot, spots.iter().find(|other| other.name != spot.name)).await?;
            states.push(Mutex::new(State { incoming: BTreeMap::new(), counted: BTreeMap::new(), shaping }));
        }
        let mut firewall = Firewall {
            chain,
            agents: spots.iter().map(|s| RwLock::new(s.agent.clone())).collect(),
            spots,
            doors: None,
            states,
            train: AtomicU64::new(1),
            abilities: BTreeMap::new(),
            queue: None,
            clients,
            untrusted: BTreeSet::new(),
        };
        for i in 0..firewall.spots.len() {
            firewall.refresh(i, &mut *firewall.states[i].lock().await).await?;
        }
        firewall.abilities = firewall.find_out().await;
        let lacks = |c| firewall.abilities.get(&c).is_some_and(Result::is_err);
        if wanted.netem && (lacks(Capability::Delay) || lacks(Capability::Scramble)) {
            match wanted.stand_ins {
                true => firewall.stand_in(run, wanted.seed).await?,
                false => firewall.hint(),
            }
        }
        let names: Vec<NodeName> = firewall.spots.iter().map(|s| s.name.clone()).collect();
        let links = all_links(&names);
        firewall.untrusted = firewall.silent(links).await;
        Ok(firewall)
    }

    /// The links over which no train arrives, though it was tried again and again.
    async fn silent(&self, mut links: BTreeSet<Link>) -> BTreeSet<Link> {
        for n in 0..TRIES {
            let tried = all(links.iter().map(|link| Box::pin(self.send(link, TRIED)) as _).collect()).await;
            let arrives = |p: &Option<Probe>| p.is_some_and(|p| p.arrived > 0);
            links = links.into_iter().zip(tried).filter(|(_, p)| !arrives(p)).map(|(l, _)| l).collect();
            if links.is_empty() || n + 1 == TRIES {
                break;
            }
            tokio::time::sleep(STRAGGLERS * n).await;
        }
        links
    }

    /// Lets packet queues do what netem would do.
    async fn stand_in(&mut self, run: &str, seed: u64) -> Result<(), String> {
        // Numbers are few and everybody's: on a host of somebody else's a fixed one could be taken.
        let number =
            run.bytes().fold(20_000u16, |n, b| n.wrapping_mul(31).wrapping_add(u16::from(b)) % 40_000)
                + 10_000;
        for (i, spot) in self.spots.iter().enumerate() {
            let seed = seed.wrapping_add(i as u64);
            spot.agent.ask::<()>(Request::OpenQueue { number, seed }).await?;
        }
        let reason = |c| self.abilities.get(&c).and_then(|r| r.as_ref().err().cloned());
        let (netem, copies) = (reason(Capability::Delay), reason(Capability::Scramble));
        for state in &self.states {
            let shaping = &mut state.lock().await.shaping;
            if netem.is_some() { shaping.without_netem() } else { shaping.without_copies() }
        }
        let copies_only = netem.is_none();
        self.queue = Some(StandIn { number, copies_only, why: netem.or(copies).unwrap_or_default() });
        self.abilities.insert(Capability::Delay, Ok(()));
        self.abilities.insert(Capability::Scramble, Ok(()));
        Ok(())
    }

    /// Says what would help.
    fn hint(&mut self) {
        for capability in [Capability::Delay, Capability::Scramble] {
            if let Some(Err(why)) = self.abilities.get_mut(&capability) {
                why.push_str(
                    "; or allow a stand-in, a packet queue in user space: `--stand-ins`, or `stand-ins: true` below \
                     `cluster` in the test file",
                );
            }
        }
    }

    /// For nodes that come back in new networks.
    pub fn with_doors(self, doors: Box<dyn Doors>) -> Firewall {
        Firewall { doors: Some(doors), ..self }
    }

    /// A node as it is at the moment.
    fn spot(&self, i: usize) -> Spot {
        let agent = self.agents[i].read().unwrap_or_else(|e| e.into_inner()).clone();
        Spot { agent, ..self.spots[i].clone() }
    }

    /// Tries, at every node, what not every kernel has.
    async fn find_out(&self) -> BTreeMap<Capability, Result<(), String>> {
        let mut all: BTreeMap<Capability, Result<(), String>> = BTreeMap::new();
        for (spot, state) in self.spots.iter().zip(&self.states) {
            let tried = state.lock().await.shaping.abilities(spot).await;
            for (capability, result) in tried {
                let so_far = all.entry(capability).or_insert(Ok(()));
                if so_far.is_ok() {
                    *so_far = result;
                }
            }
        }
        all
    }

    fn index(&self, name: &NodeName) -> Result<usize, String> {
        self.spots.iter().position(|s| s.name == *name).ok_or_else(|| format!("there is no node {name}"))
    }

    /// Writes a receiver's chain anew.
    async fn refresh(&self, to: usize, state: &mut State) -> Result<(), String> {
        self.count(to, state).await?;
        let peers = self.spots.iter().filter(|s| s.name != self.spots[to].name);
        let shaped = peers.map(|peer| {
            let shape = state.incoming.get(&peer.name).copied().unwrap_or_default();
            (peer.name.clone(), peer.address, shape)
        });
        let shaped: Vec<_> = shaped.collect();
        if let Some(queue) = &self.queue {
            for (_, source, shape) in &shaped {
                let shape = if shape.cut == Cut::Open { queue.part(shape) } else { LinkShape::default() };
                self.spot(to).agent.ask::<()>(Request::Treat { source: *source, shape }).await?;
            }
        }
        let mut rules = match &self.queue {
            None => Rules::new(&self.chain, shaped, None),
            Some(queue) => {
                let ruled = shaped.into_iter().map(|(name, address, s)| (name, address, queue.ruled(s)));
                Rules::new(&self.chain, ruled.collect(), Some(queue.number))
            }
        };
        if let Some(clients) = &self.clients[to] {
            let of = |name: &str| state.incoming.get(name).copied().unwrap_or_default();
            rules = rules.with_clients(clients.clone(), of(CLIENTS), of(ANSWERS));
        }
        self.spot(to).agent.run(&["iptables-restore", "-w", "10", "--noflush"], Some(rules.text())).await?;
        Ok(())
    }

    /// Adds what the chain has counted to what was counted before.
    async fn count(&self, to: usize, state: &mut State) -> Result<(), String> {
        let now = self.read(to).await?;
        for (from, stats) in now {
            rules::add(state.counted.entry(from).or_default(), &stats);
        }
        Ok(())
    }

    /// What a receiver's chain has counted since it was last written.
    async fn read(&self, to: usize) -> Result<BTreeMap<NodeName, LinkStats>, String> {
        let list = async |chain: &str| {
            self.spot(to).agent.run(&["iptables", "-w", "10", "-n", "-v", "-x", "-L", chain], None).await
        };
        let mut text = list(&self.chain).await?;
        if self.clients[to].is_some() {
            text.push_str(&list(&rules::answers(&self.chain)).await?);
        }
        Ok(rules::counters(&text))
    }

    /// The node whose rules treat a link, and what they call its sender: those for clients all stand at the node.
    fn place(&self, link: &Link) -> Result<(usize, NodeName), String> {
        match &*link.to {
            CLIENTS => Ok((self.index(&link.from)?, ANSWERS.into())),
            _ => Ok((self.index(&link.to)?, link.from.clone())),
        }
    }

    async fn shape_receiver(&self, to: usize, shapes: Vec<(NodeName, LinkShape)>) -> Result<(), String> {
        let mut state = self.states[to].lock().await;
        let before = state.incoming.clone();
        state.incoming.extend(shapes);
        // How long a queue keeps packets is not in the rules.
        if self.queue.is_none() && rules::of(&before) == rules::of(&state.incoming) {
            return Ok(());
        }
        let refreshed = self.refresh(to, &mut state).await;
        if refreshed.is_err() {
            // What is not in force must be tried again.
            state.incoming = before;
        }
        refreshed
    }
}

#[async_trait]
impl Part for Firewall {
    fn supports(&self, capability: Capability) -> Option<Result<(), String>> {
        match capability {
            Capability::Cut => Some(Ok(())),
            Capability::Clients if self.clients.iter().all(Option::is_some) => Some(Ok(())),
            Capability::Clients => Some(Err("the clients' links were not prepared for faults".to_owned())),
            Capability::Loss
            | Capability::Reset
            | Capability::Delay
            | Capability::Rate
            | Capability::Scramble => Some(self.abilities.get(&capability).cloned().unwrap_or(Ok(()))),
            _ => None,
        }
    }

    fn stand_ins(&self) -> Vec<String> {
        self.queue.iter().map(StandIn::words).collect()
    }
}

#[async_trait]
impl Network for Firewall {
    async fn shape(&self, links: &BTreeMap<Link, LinkShape>) -> Result<(), String> {
        let mut receivers: BTreeMap<usize, Vec<(NodeName, LinkShape)>> = BTreeMap::new();
        let mut senders: BTreeMap<usize, Vec<(usize, LinkShape)>> = BTreeMap::new();
        for (link, shape) in links {
            let (at, sender) = self.place(link)?;
            receivers.entry(at).or_default().push((sender, *shape));
            let (Ok(from), Ok(to)) = (self.index(&link.from), self.index(&link.to)) else { continue };
            senders.entry(from).or_default().push((to, *shape));
        }
        let cuts = receivers.into_iter().map(|(to, shapes)| Box::pin(self.shape_receiver(to, shapes)) as _);
        let mut results = all(cuts.collect()).await;
        for (from, shapes) in senders {
            let mut state = self.states[from].lock().await;
            for (to, shape) in shapes {
                let (spot, address) = (self.spot(from), self.spots[to].address);
                // One that fails must not leave the others as they were.
                results.push(state.shaping.set(&spot, &self.chain, to, address, shape).await);
            }
        }
        results.into_iter().collect()
    }

    async fn started(&self, i: usize) -> Result<(), String> {
        let Some(doors) = &self.doors else { return Ok(()) };
        let mut state = self.states[i].lock().await;
        let Some(agent) = doors.open(i).await? else { return Ok(()) };
        make_chain(&agent, &self.chain, "INPUT").await?;
        if self.clients[i].is_some() {
            make_chain(&agent, &rules::answers(&self.chain), "OUTPUT").await?;
        }
        if let Some(StandIn { number, .. }) = self.queue {
            agent.ask::<()>(Request::OpenQueue { number, seed: i as u64 }).await?;
        }
        *self.agents[i].write().unwrap_or_else(|e| e.into_inner()) = agent;
        self.refresh(i, &mut state).await?;
        let shaped = state.shaping.begin_anew();
        for (to, shape) in shaped {
            state.shaping.set(&self.spot(i), &self.chain, to, self.spots[to].address, shape).await?;
        }
        Ok(())
    }

    async fn stats(&self, link: &Link) -> LinkStats {
        let Ok((at, sender)) = self.place(link) else { return LinkStats::default() };
        let state = self.states[at].lock().await;
        let mut stats = state.counted.get(&sender).copied().unwrap_or_default();
        if let Ok(now) = self.read(at).await
            && let Some(more) = now.get(&sender)
        {
            rules::add(&mut stats, more);
        }
        drop(state);
        let (Ok(from), Ok(to)) = (self.index(&link.from), self.index(&link.to)) else { return stats };
        if self.queue.is_some() {
            let source = self.spots[from].address;
            if let Ok(treated) = self.spot(to).agent.ask::<Treated>(Request::Treated { source }).await {
                stats.delayed_chunks += treated.delayed;
                stats.delayed_ns += treated.delayed_ns;
            }
        }
        stats.limited = self.states[from].lock().await.shaping.limited(&self.spot(from), to).await;
        stats
    }

    async fn probe(&self, link: &Link, packets: u32) -> Option<Probe> {
        if self.untrusted.contains(link) { None } else { self.send(link, packets).await }
    }
}

impl Firewall {
    /// Sends a train over a link.
    async fn send(&self, link: &Link, packets: u32) -> Option<Probe> {
        let (from, to) = (self.index(&link.from).ok()?, self.index(&link.to).ok()?);
        let (sender, receiver) = (self.spot(from), self.spot(to));
        let port = receiver.agent.hello.get("udp-port")?.as_u64()?;
        let train = self.train.fetch_add(1, Relaxed);
        receiver.agent.ask::<()>(Request::Expect { train }).await.ok()?;
        let to_address = SocketAddr::from((receiver.address, u16::try_from(port).ok()?));
        let gap_us = GAP.as_micros() as u64;
        let sent: u32 =
            sender.agent.ask(Request::Probe { to: to_address, train, packets, gap_us }).await.ok()?;
        let shape = self.states[to].lock().await.incoming.get(&link.from).copied().unwrap_or_default();
        if shape.cut == Cut::Open {
            tokio::time::sleep(STRAGGLERS + shape.delay.0 + shape.jitter.0).await;
        } else {
            tokio::time::sleep(STRAGGLERS).await;
        }
        let seen: Arrived = receiver.agent.ask(Request::Arrived { train }).await.ok()?;
        Some(Probe {
            sent,
            arrived: seen.arrived,
            duplicates: seen.duplicates,
            overtaken: seen.overtaken,
            corrupted: seen.corrupted,
            mean_ns: seen.mean_ns,
            least_ns: seen.least_ns,
        })
    }
}

#[derive(Deserialize)]
struct Treated {
    delayed: u64,
    delayed_ns: u64,
}

#[derive(Deserialize)]
struct Arrived {
    arrived: u32,
    duplicates: u32,
    overtaken: u32,
    corrupted: u32,
    mean_ns: i64,
    least_ns: i64,
}

/// The addresses from which our own clients may reach a node: the one that this machine uses on the way there, and the one
/// from which the host behind ssh was logged in to.
fn controllers(spot: &Spot) -> Result<Vec<Ipv4Addr>, String> {
    let ours = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // Nothing is sent: the kernel only looks up the way.
        socket.connect((spot.address, 9))?;
        socket.local_addr()
    };
    let ours =
        ours().map_err(|e| format!("this machine has no way to {} ({}): {e}", spot.name, spot.address))?;
    let login = spot.agent.hello.get("peer").and_then(|p| p.as_str()?.parse().ok());
    let mut all: Vec<Ipv4Addr> = [Some(ours.ip()), login]
        .into_iter()
        .filter_map(|ip| match ip? {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(ip) => ip.to_ipv4_mapped(),
        })
        .collect();
    all.dedup();
    Ok(all)
}

/// Makes a chain of the run's in a network, has one of the kernel's own lead to it, and has it removed in the end.
async fn make_chain(agent: &Agent, chain: &str, from: &str) -> Result<(), String> {
    let run = async |arguments: &[&str]| {
        let argv: Vec<&str> = ["iptables", "-w", "10"].iter().chain(arguments).copied().collect();
        agent.run(&argv, None).await
    };
    let at_end = async |arguments: &[&str]| {
        let argv = ["iptables", "-w", "10"].iter().chain(arguments).map(|a| (*a).to_owned()).collect();
        agent.ask::<()>(Request::AtEnd { argv }).await
    };
    run(&["-N", chain]).await?;
    at_end(&["-X", chain]).await?;
    at_end(&["-F", chain]).await?;
    run(&["-I", from, "1", "-j", chain]).await?;
    at_end(&["-D", from, "-j", chain]).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use nemesis::Span;

    #[test]
    fn the_queue_stands_in_for_what_is_lacking_and_says_so() {
        let shape = LinkShape { duplicate: 0.2, delay: Span::ms(5), ..LinkShape::default() };
        let why = "n1 has no `sch_netem` in its kernel (No such file); load the module".to_owned();
        let all = StandIn { number: 7, copies_only: false, why };
        assert_eq!((all.part(&shape), all.ruled(shape)), (shape, shape));
        assert!(all.words().starts_with("delay, jitter"), "{}", all.words());
        assert!(all.words().ends_with("because n1 has no `sch_netem` in its kernel"), "{}", all.words());
        let why =
            "n1 has no `xt_TEE` in its kernel, which duplicates packets (x); load the module".to_owned();
        let copies = StandIn { number: 7, copies_only: true, why };
        assert_eq!(copies.part(&shape), LinkShape { duplicate: 0.2, ..LinkShape::default() });
        let lossy = LinkShape { loss: 0.5, ..shape };
        assert_eq!(copies.ruled(lossy), LinkShape { loss: 0.5, duplicate: 0.2, ..LinkShape::default() });
        assert!(copies.words().starts_with("duplication of packets: "), "{}", copies.words());
        assert!(copies.words().contains("no `xt_TEE`"), "{}", copies.words());
    }
}
