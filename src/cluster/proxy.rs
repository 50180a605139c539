//! The links between nodes on loopback: one TCP proxy for each directed link.
//!
//! ```text
//! n1 ──connects──▶ proxy n1→n2 ──connects──▶ n2        bytes n1→n2 obey the shape of link n1→n2,
//!                                                      bytes n2→n1 on the same connection that of n2→n1
//! ```
//! So a link can be cut one way, on established connections too. Held bytes wait and go on when the link opens, as TCP
//! does over a network that drops packets; the end of a connection waits in the same line. Delay, jitter, bandwidth and
//! loss of connections apply to each chunk of bytes; order within a connection is kept.
//!
//! Clients get such a proxy to each port of a node if the plan cuts them off ([`Net::open_for_clients`]), and only then.
//!
//! Not a packet network: there is no reordering or loss within a connection, because TCP would repair it.

use super::timer;
use anyhow::{Context, Result};
use nemesis::{Cut, Link, LinkShape, LinkStats, NodeName, grudge::CLIENTS};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

/// Bytes that may be on their way on one connection before its sender has to wait.
const IN_FLIGHT: usize = 4 << 20;
const CHUNK: usize = 64 << 10;

/// What one directed link does, and what passed it.
#[derive(Debug)]
pub struct LinkState {
    shape: watch::Sender<LinkShape>,
    delivered: AtomicU64,
    held: AtomicU64,
    resets: AtomicU64,
    delayed_chunks: AtomicU64,
    delayed_ns: AtomicU64,
}

impl LinkState {
    fn new() -> Self {
        LinkState {
            shape: watch::Sender::new(LinkShape::default()),
            delivered: AtomicU64::new(0),
            held: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            delayed_chunks: AtomicU64::new(0),
            delayed_ns: AtomicU64::new(0),
        }
    }

    fn stats(&self) -> LinkStats {
        LinkStats {
            delivered_bytes: self.delivered.load(Relaxed),
            held_bytes: self.held.load(Relaxed),
            resets: self.resets.load(Relaxed),
            delayed_chunks: self.delayed_chunks.load(Relaxed),
            delayed_ns: self.delayed_ns.load(Relaxed),
            ..LinkStats::default()
        }
    }
}

/// All proxies of a cluster. Dropping it closes every connection.
#[derive(Debug)]
pub struct Net {
    links: BTreeMap<Link, Arc<LinkState>>,
    addresses: BTreeMap<Link, SocketAddr>,
    tasks: JoinSet<()>,
}

impl Net {
    /// Opens a proxy for each link, in front of the receiver's address. `seed` draws jitter and losses.
    pub async fn open(targets: &BTreeMap<Link, SocketAddr>, seed: u64) -> Result<Net> {
        let links: BTreeMap<Link, Arc<LinkState>> =
            targets.keys().map(|l| (l.clone(), Arc::new(LinkState::new()))).collect();
        let mut net = Net { links, addresses: BTreeMap::new(), tasks: JoinSet::new() };
        for (i, (link, &target)) in targets.iter().enumerate() {
            let address = net.door(link, target, seed.wrapping_add(i as u64)).await?;
            net.addresses.insert(link.clone(), address);
        }
        Ok(net)
    }

    /// Opens a proxy between the clients and one port of a node, and returns where the clients must connect.
    pub async fn open_for_clients(&mut self, node: &NodeName, port: SocketAddr) -> Result<SocketAddr> {
        let clients = NodeName::from(CLIENTS);
        let there = Link::new(&clients, node);
        for link in [there.clone(), Link::new(node, &clients)] {
            self.links.entry(link).or_insert_with(|| Arc::new(LinkState::new()));
        }
        // Nothing is drawn: these links are cut or open.
        self.door(&there, port, 0).await
    }

    /// Whether clients have links that can be cut.
    pub fn has_clients(&self) -> bool {
        self.links.keys().any(|link| &*link.from == CLIENTS)
    }

    async fn door(&mut self, link: &Link, target: SocketAddr, seed: u64) -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .with_context(|| format!("cannot open a proxy for the link {link}"))?;
        let address = listener.local_addr()?;
        let back = Link::new(&link.to, &link.from);
        let door = Door {
            forth: self.links[link].clone(),
            // A link whose way back is no link of its own (a probe's) is never cut there.
            back: self.links.get(&back).cloned().unwrap_or_else(|| Arc::new(LinkState::new())),
            target,
            seed,
        };
        self.tasks.spawn(door.accept(listener));
        Ok(address)
    }

    /// Where the sender of a link must connect to reach its receiver.
    pub fn address(&self, link: &Link) -> Option<SocketAddr> {
        self.addresses.get(link).copied()
    }

    /// Changes what a link does. False if there is no such link.
    pub fn set(&self, link: &Link, shape: LinkShape) -> bool {
        self.links.get(link).is_some_and(|state| {
            state.shape.send_replace(shape);
            true
        })
    }

    /// What passed a link so far.
    pub fn read(&self, link: &Link) -> LinkStats {
        self.links.get(link).map(|state| state.stats()).unwrap_or_default()
    }
}

/// The listening side of one link.
struct Door {
    forth: Arc<LinkState>,
    back: Arc<LinkState>,
    target: SocketAddr,
    seed: u64,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let mut count = 0u64;
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((near, _)) => {
                        count += 1;
                        let seed = self.seed ^ (count << 20);
                        let (forth, back, target) = (self.forth.clone(), self.back.clone(), self.target);
                        connections.spawn(connection(near, target, forth, back, seed));
                    }
                    // Out of file descriptors: let some be closed.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn connection(
    near: TcpStream,
    target: SocketAddr,
    forth: Arc<LinkState>,
    back: Arc<LinkState>,
    seed: u64,
) {
    // A new connection needs both directions, as TCP's handshake does.
    for link in [&forth, &back] {
        let mut shape = link.shape.subscribe();
        if shape.borrow().cut != Cut::Open {
            link.held.fetch_add(1, Relaxed);
        }
        // The sender may give up while it waits: then there is nobody left to connect.
        let open = tokio::select! {
            open = shape.wait_for(|s| s.cut != Cut::Hold) => open.map(|s| s.cut == Cut::Open).unwrap_or(false),
            () = hung_up(&near) => return,
        };
        if !open {
            link.resets.fetch_add(1, Relaxed);
            reset(&near);
            return;
        }
    }
    let Ok(far) = TcpStream::connect(target).await else {
        // Nobody listens: the sender sees what it would have seen without us.
        reset(&near);
        return;
    };
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let (over, _) = watch::channel(false);
    let over = Arc::new(over);
    tokio::join!(
        pump(near_read, far_write, forth, over.clone(), ChaCha8Rng::seed_from_u64(seed)),
        pump(far_read, near_write, back, over, ChaCha8Rng::seed_from_u64(seed ^ 1)),
    );
}

async fn hung_up(stream: &TcpStream) {
    let mut byte = [0u8; 1];
    loop {
        match stream.peek(&mut byte).await {
            Ok(0) | Err(_) => return,
            // There are bytes to be held: look again later whether their sender is still there.
            Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

enum Item {
    Bytes { data: Vec<u8>, read_at: Instant, due: Instant },
    End { due: Instant },
}

/// Carries one direction of one connection.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    link: Arc<LinkState>,
    over: Arc<watch::Sender<bool>>,
    mut rng: ChaCha8Rng,
) {
    let (queue, mut queued) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let reading = {
        let (link, room, over) = (link.clone(), room.clone(), over.clone());
        async move {
            let mut buffer = vec![0u8; CHUNK];
            let mut last = Instant::now();
            let mut ended = over.subscribe();
            loop {
                let n = tokio::select! {
                    n = from.read(&mut buffer) => n.unwrap_or(0),
                    _ = ended.wait_for(|e| *e) => return,
                };
                let now = Instant::now();
                let shape = *link.shape.borrow();
                let mut due = now + shape.delay.0;
                if shape.jitter.0 > Duration::ZERO {
                    due += shape.jitter.0.mul_f64(rng.random());
                }
                due = due.max(last);
                if let Some(ns) = (n as u64 * 1_000_000_000).checked_div(shape.bytes_per_second) {
                    due += Duration::from_nanos(ns);
                }
                last = due;
                if n == 0 {
                    let _ = queue.send(Item::End { due });
                    return;
                }
                if shape.cut != Cut::Open {
                    link.held.fetch_add(n as u64, Relaxed);
                }
                if shape.reset_probability > 0.0 && rng.random::<f64>() < shape.reset_probability {
                    link.resets.fetch_add(1, Relaxed);
                    over.send_replace(true);
                    return;
                }
                match room.acquire_many(n as u32).await {
                    Ok(permit) => permit.forget(),
                    Err(_) => return,
                }
                if queue.send(Item::Bytes { data: buffer[..n].to_vec(), read_at: now, due }).is_err() {
                    return;
                }
            }
        }
    };
    let writing = async {
        let mut shape = link.shape.subscribe();
        let mut ended = over.subscribe();
        let work = async {
            while let Some(item) = queued.recv().await {
                let due = match &item {
                    Item::Bytes { due, .. } | Item::End { due } => *due,
                };
                timer::sleep_until(due).await;
                match shape.wait_for(|s| s.cut != Cut::Hold).await {
                    Ok(s) if s.cut == Cut::Open => {}
                    _ => return true,
                }
                match item {
                    Item::Bytes { data, read_at, due } => {
                        if to.write_all(&data).await.is_err() {
                            return true;
                        }
                        link.delivered.fetch_add(data.len() as u64, Relaxed);
                        if due > read_at {
                            link.delayed_chunks.fetch_add(1, Relaxed);
                            link.delayed_ns.fetch_add(read_at.elapsed().as_nanos() as u64, Relaxed);
                        }
                        room.add_permits(data.len());
                    }
                    Item::End { .. } => {
                        let _ = to.shutdown().await;
                        return false;
                    }
                }
            }
            false
        };
        // A cut that resets ends connections at once, also those that carry nothing at the moment.
        let cut = async {
            let mut shape = link.shape.subscribe();
            if shape.wait_for(|s| s.cut == Cut::Reset).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let broken = tokio::select! {
            broken = work => broken,
            _ = ended.wait_for(|e| *e) => true,
            () = cut => { link.resets.fetch_add(1, Relaxed); true }
        };
        if broken {
            let _ = to.as_ref().set_zero_linger();
            over.send_replace(true);
        }
        room.close();
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nemesis::{NodeName, Span};

    struct Rig {
        net: Net,
        near: TcpStream,
        far: TcpStream,
        forth: Link,
        back: Link,
    }

    async fn rig() -> Rig {
        let (a, b) = (NodeName::from("n1"), NodeName::from("n2"));
        let (forth, back) = (Link::new(&a, &b), Link::new(&b, &a));
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = node.local_addr().unwrap();
        let net = Net::open(&[(forth.clone(), address), (back.clone(), address)].into(), 1).await.unwrap();
        let near = TcpStream::connect(net.address(&forth).unwrap()).await.unwrap();
        let (far, _) = node.accept().await.unwrap();
        Rig { net, near, far, forth, back }
    }

    async fn hears(stream: &mut TcpStream, within_ms: u64) -> Option<u8> {
        let read = tokio::time::timeout(Duration::from_millis(within_ms), stream.read_u8()).await;
        read.ok().and_then(Result::ok)
    }

    fn cut(cut: Cut) -> LinkShape {
        LinkShape { cut, ..LinkShape::default() }
    }

    #[tokio::test]
    async fn a_cut_holds_one_direction_of_an_established_connection_and_then_lets_go() {
        let mut r = rig().await;
        r.near.write_u8(1).await.unwrap();
        assert_eq!(hears(&mut r.far, 5000).await, Some(1));
        r.net.set(&r.forth, cut(Cut::Hold));
        r.near.write_u8(2).await.unwrap();
        r.far.write_u8(3).await.unwrap();
        assert_eq!(hears(&mut r.near, 5000).await, Some(3), "the way back is open");
        assert_eq!(hears(&mut r.far, 200).await, None, "the way forth is cut");
        assert_eq!(r.net.read(&r.forth).held_bytes, 1);
        assert_eq!(r.net.read(&r.forth).delivered_bytes, 1);
        r.net.set(&r.forth, LinkShape::default());
        assert_eq!(hears(&mut r.far, 5000).await, Some(2), "held, not lost");
    }

    #[tokio::test]
    async fn a_reset_ends_established_connections_and_refuses_new_ones() {
        let mut r = rig().await;
        r.net.set(&r.forth, cut(Cut::Reset));
        assert!(r.near.read_u8().await.is_err());
        let mut new = TcpStream::connect(r.net.address(&r.forth).unwrap()).await.unwrap();
        assert!(new.read_u8().await.is_err());
        assert!(r.net.read(&r.forth).resets > 0);
    }

    #[tokio::test]
    async fn delay_is_kept_and_counted() {
        let mut r = rig().await;
        let shape = LinkShape { delay: Span::ms(30), ..LinkShape::default() };
        r.net.set(&r.forth, shape);
        r.net.set(&r.back, shape);
        let start = Instant::now();
        r.near.write_u8(1).await.unwrap();
        assert_eq!(r.far.read_u8().await.unwrap(), 1);
        r.far.write_u8(2).await.unwrap();
        assert_eq!(r.near.read_u8().await.unwrap(), 2);
        assert!(start.elapsed() >= Duration::from_millis(60));
        let stats = r.net.read(&r.forth);
        assert_eq!(stats.delayed_chunks, 1);
        assert!(stats.delayed_ns >= 30_000_000);
    }

    #[tokio::test]
    async fn the_end_of_a_connection_waits_behind_the_cut_like_its_bytes() {
        let mut r = rig().await;
        r.net.set(&r.forth, cut(Cut::Hold));
        r.near.write_u8(9).await.unwrap();
        drop(r.near);
        assert_eq!(hears(&mut r.far, 200).await, None);
        r.net.set(&r.forth, LinkShape::default());
        assert_eq!(hears(&mut r.far, 5000).await, Some(9));
        assert!(r.far.read_u8().await.is_err(), "and then its end");
    }
}
