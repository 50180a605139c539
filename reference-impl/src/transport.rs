//! Messages between nodes: one long-lived stream for each pair, both ways.
//!
//! ```text
//! node A ── Outbox(B): bounded queue ──┐  one gRPC stream    ┌── Outbox(A): bounded queue ── node B
//!   events ←───────────────────────────┴─ (the larger dials) ─┴───────────────────────────→ events
//! ```
//!
//! Whatever is queued when the connection can take something goes out as one batch; nothing waits for company. A full queue
//! drops its oldest message, a broken stream loses what it carried: Paxos sends again what matters. The two directions are
//! independent: while one is held the other goes on. A link that was held for a while goes on where it stopped; one that
//! broke is opened again, for ever. Deliberately no delivery guarantee, and no second sending of anything: a message
//! arrives once or not at all.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use prost::bytes::Bytes;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status, Streaming};

use crate::codec;
use crate::core::{Message, NodeId};
use crate::driver::{Event, Events};
use crate::proto::v1::PeerBatch;
use crate::proto::v1::peer_client::PeerClient;
use crate::proto::v1::peer_server::Peer;

/// Messages that may wait for one peer.
const QUEUE_MAX: usize = 8_192;
/// Messages in one batch.
const BATCH_MAX: usize = 256;
/// Other nodes that a node may hear of.
const OUTBOXES_MAX: usize = 256;
/// Bytes in one batch, roughly.
const BATCH_BYTES: usize = 1 << 20;
/// HTTP/2 window of one stream, and of a connection.
pub(crate) const WINDOW: u32 = 8 << 20;
/// Largest batch that is read: a promise may carry a whole window of votes.
pub(crate) const DECODE_MAX: usize = 256 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));
/// How often a silent connection is asked whether it is still there. Well above what a paused peer or a held link needs.
pub(crate) const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));

/// Who speaks, on every batch.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Name of the cluster.
    pub cluster_id: Bytes,
    /// This node.
    pub node: NodeId,
    /// Its incarnation; 0 if it does not know that yet.
    pub epoch: u64,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    dropped: u64,
    /// By kind, what went out.
    sent: BTreeMap<&'static str, u64>,
    /// The stream that takes messages out, by a number that grows.
    stream: u64,
    hello: bool,
    reader: Option<Waker>,
}

/// What waits to be sent to one peer.
pub struct Outbox {
    sender: Sender,
    epoch: Arc<AtomicU64>,
    queue: Mutex<Queue>,
}

impl Outbox {
    /// An empty one. `epoch` is shared by all outboxes of a node.
    fn new(sender: Sender, epoch: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Outbox { sender, epoch, queue: Mutex::default() })
    }

    /// Queues messages; never blocks. If the queue is full its oldest ones are lost.
    pub fn push(&self, messages: impl ExactSizeIterator<Item = Message>) {
        if messages.len() == 0 {
            return;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            if queue.messages.len() >= QUEUE_MAX {
                queue.messages.pop_front();
                queue.dropped += 1;
            }
            queue.messages.push_back(message);
        }
        if let Some(reader) = queue.reader.take() {
            reader.wake();
        }
    }

    /// A stream of what is queued from now on; it replaces the one before, which ends. `hello` puts an empty batch first.
    fn attach(self: &Arc<Self>, hello: bool) -> Batches {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.stream += 1;
        queue.hello = hello;
        if let Some(before) = queue.reader.take() {
            before.wake();
        }
        Batches { outbox: self.clone(), stream: queue.stream }
    }

    /// Ends this stream, unless another one has replaced it.
    fn detach(&self, stream: u64) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.stream == stream {
            queue.stream += 1;
            if let Some(reader) = queue.reader.take() {
                reader.wake();
            }
        }
    }

    /// Adds up, by kind, what went out.
    pub(crate) fn count_sent(&self, counts: &mut BTreeMap<&'static str, u64>) {
        for (kind, count) in &self.queue.lock().unwrap_or_else(PoisonError::into_inner).sent {
            *counts.entry(kind).or_default() += count;
        }
    }

    /// Messages that wait, and messages that were dropped.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        (queue.messages.len() as u64, queue.dropped)
    }

    fn next_batch(&self, stream: u64, context: &Context<'_>) -> Poll<Option<PeerBatch>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.stream != stream {
            return Poll::Ready(None);
        }
        if queue.messages.is_empty() && !queue.hello {
            queue.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut size = 0;
        let mut taken = Vec::new();
        while !queue.hello && taken.len() < BATCH_MAX && size < BATCH_BYTES {
            let Some(message) = queue.messages.pop_front() else { break };
            size += weight(&message);
            *queue.sent.entry(message.kind()).or_default() += 1;
            taken.push(message);
        }
        queue.hello = false;
        drop(queue);
        Poll::Ready(Some(PeerBatch {
            cluster_id: self.sender.cluster_id.clone(),
            from: self.sender.node,
            epoch: self.epoch.load(Ordering::Relaxed),
            messages: taken.into_iter().map(codec::message_to).collect(),
        }))
    }
}

fn weight(message: &Message) -> usize {
    match message {
        Message::Accept { entry, .. } => entry.size(),
        Message::Promise { votes, .. } => votes.iter().map(|vote| vote.entry.size()).sum(),
        Message::Chosen { entries, .. } => entries.iter().map(|(_, entry)| entry.size()).sum(),
        Message::Snapshot { piece, .. } => piece.size(),
        Message::Forward { command, .. } => command.op.size(),
        _ => 64,
    }
}

/// The outbox as one direction of a stream. Polled only when the connection has room.
struct Batches {
    outbox: Arc<Outbox>,
    stream: u64,
}

impl Stream for Batches {
    type Item = PeerBatch;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<PeerBatch>> {
        self.outbox.next_batch(self.stream, context)
    }
}

/// The outboxes of a node. Cheap to clone.
#[derive(Clone)]
pub struct Outboxes {
    sender: Sender,
    epoch: Arc<AtomicU64>,
    all: Arc<Mutex<BTreeMap<NodeId, Arc<Outbox>>>>,
}

impl Outboxes {
    /// None yet, of a node that speaks as `sender`.
    pub fn new(sender: Sender) -> Self {
        let epoch = Arc::new(AtomicU64::new(sender.epoch));
        Outboxes { sender, epoch, all: Arc::default() }
    }

    /// A node that had no incarnation has one now.
    pub fn speaks_as(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// The one for `peer`, if there is one.
    pub fn get(&self, peer: NodeId) -> Option<Arc<Outbox>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned()
    }

    /// The one for `peer`, made if there is none. `None` if that would be one too many.
    pub fn open(&self, peer: NodeId) -> Option<Arc<Outbox>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(&peer) && all.len() >= OUTBOXES_MAX {
            return None;
        }
        let new = || Outbox::new(self.sender.clone(), self.epoch.clone());
        Some(all.entry(peer).or_insert_with(new).clone())
    }

    /// For each peer how much waits, and how much was dropped.
    pub(crate) fn waiting(&self) -> Vec<(NodeId, u64, u64)> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |(peer, outbox): (&NodeId, &Arc<Outbox>)| {
            let (waiting, dropped) = outbox.waiting();
            (*peer, waiting, dropped)
        };
        all.iter().map(waits).collect()
    }

    /// Adds up, by kind, what went out.
    pub(crate) fn count_sent(&self, counts: &mut BTreeMap<&'static str, u64>) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().for_each(|outbox| outbox.count_sent(counts));
    }
}

/// Keeps a stream to `peer` at `address` open, until it ends after `leaves` was set. Only one of two nodes may do so: see `links`.
pub async fn keep_connected(peer: NodeId, address: String, inbound: Inbound, leaves: Arc<AtomicBool>) {
    let mut wait = BACK_OFF.0;
    let mut said_why = String::new();
    loop {
        if leaves.load(Ordering::Relaxed) {
            return;
        }
        let started = tokio::time::Instant::now();
        let why = match dial(peer, &address, &inbound).await {
            Ok(()) => "the peer closed the stream".to_owned(),
            Err(why) => why,
        };
        if started.elapsed() > Duration::from_secs(1) {
            wait = BACK_OFF.0;
        }
        if why != said_why {
            tracing::info!("link to node {peer} at {address} is down: {why}");
            said_why = why;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(BACK_OFF.1);
    }
}

async fn dial(peer: NodeId, address: &str, inbound: &Inbound) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address:?} is not an address: {error}"))?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 2)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect().await.map_err(|error| root_cause(&error))?;
    let outbox = inbound.outboxes.open(peer).ok_or("there are too many peers")?;
    let mut batches = PeerClient::new(channel)
        .max_decoding_message_size(DECODE_MAX)
        .link(outbox.attach(true))
        .await
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    while let Some(batch) = batches.next().await {
        inbound.take(batch.map_err(|status| status.message().to_owned())?).await?;
    }
    Ok(())
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The receiving end: one for a node, shared by all its streams. Cheap to clone.
#[derive(Clone)]
pub struct Inbound {
    cluster_id: Bytes,
    events: Events,
    outboxes: Outboxes,
    epochs: Arc<Mutex<BTreeMap<NodeId, u64>>>,
}

impl Inbound {
    /// Takes batches of this cluster and hands their messages on; whoever opens a stream is answered from its outbox.
    pub fn new(cluster_id: Bytes, events: Events, outboxes: Outboxes) -> Self {
        Inbound { cluster_id, events, outboxes, epochs: Arc::default() }
    }

    /// Whether a batch comes from the newest incarnation of a node of this cluster, or from one that has none yet.
    ///
    /// # Errors
    /// If it comes from another cluster: that must be told to whoever made a mistake.
    fn check(&self, batch: &PeerBatch) -> Result<bool, String> {
        if batch.cluster_id != self.cluster_id {
            let theirs = String::from_utf8_lossy(&batch.cluster_id);
            let why = format!("node {} is of cluster {theirs:?}, not of this one", batch.from);
            tracing::warn!("{why}; check --cluster-id, --protocol and --peer");
            return Err(why);
        }
        Ok(batch.epoch == 0 || is_current(&self.epochs, batch.from, batch.epoch))
    }

    /// Hands a batch on, waiting while the node has too much to do.
    async fn take(&self, batch: PeerBatch) -> Result<(), String> {
        if self.check(&batch)? && !batch.messages.is_empty() {
            let mut messages: Vec<Message> =
                batch.messages.into_iter().filter_map(codec::message_from).collect();
            if batch.epoch == 0 {
                // Without an incarnation a node can only ask for one, and answer others who do.
                messages.retain(|m| matches!(m, Message::Hello { .. } | Message::Welcome { .. }));
            }
            let event = Event::Peer { from: batch.from, messages };
            self.events.send(event).await.map_err(|_| "the node is stopping".to_owned())?;
        }
        Ok(())
    }
}

/// Whether a sender's incarnation is its newest.
fn is_current(epochs: &Mutex<BTreeMap<NodeId, u64>>, from: NodeId, epoch: u64) -> bool {
    let mut epochs = epochs.lock().unwrap_or_else(PoisonError::into_inner);
    let newest = epochs.entry(from).or_default();
    *newest = epoch.max(*newest);
    epoch == *newest
}

#[async_trait::async_trait]
impl Peer for Inbound {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<PeerBatch, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<PeerBatch>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let mut batches = request.into_inner();
        let hello = batches.message().await?.ok_or_else(|| Status::cancelled("it ended at once"))?;
        if !self.check(&hello).map_err(Status::failed_precondition)? {
            return Err(Status::failed_precondition("a newer incarnation of this node was heard"));
        }
        if hello.from == self.outboxes.sender.node {
            return Err(Status::failed_precondition(format!("this is node {} as well", hello.from)));
        }
        // A node that is to be added is known to nobody before it says who it is.
        let outbox = self.outboxes.open(hello.from).ok_or_else(|| {
            Status::failed_precondition(format!("{OUTBOXES_MAX} other nodes are known already"))
        })?;
        let answers = outbox.attach(false);
        let (inbound, outbox, stream) = (self.clone(), outbox.clone(), answers.stream);
        tokio::spawn(async move {
            while let Some(Ok(batch)) = batches.next().await {
                if inbound.take(batch).await.is_err() {
                    break;
                }
            }
            // However it ended, the other end dials again if it is still there; it must not believe to be connected because
            // nobody has ended this direction.
            outbox.detach(stream);
        });
        Ok(Response::new(Box::pin(answers.map(Ok))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Arc<Outbox> {
        Outboxes::new(Sender { cluster_id: "c".into(), node: 1, epoch: 1 }).open(2).unwrap()
    }

    #[test]
    fn a_full_queue_loses_its_oldest_message_and_batches_are_bounded() {
        let outbox = outbox();
        outbox.push((0..QUEUE_MAX + 5).map(|slot| Message::Fetch { from: slot as u64 }));
        let mut context = Context::from_waker(Waker::noop());
        let mut stream = outbox.attach(false);
        let Poll::Ready(Some(batch)) = Pin::new(&mut stream).poll_next(&mut context) else {
            panic!("there is something to send")
        };
        assert_eq!(batch.messages.len(), BATCH_MAX);
        assert_eq!(codec::message_from(batch.messages[0].clone()), Some(Message::Fetch { from: 5 }));
        assert_eq!(outbox.queue.lock().unwrap().dropped, 5);
    }

    #[test]
    fn a_new_stream_says_who_it_is_and_ends_the_one_before() {
        let outbox = outbox();
        let mut context = Context::from_waker(Waker::noop());
        let mut next = |stream: &mut Batches| Pin::new(stream).poll_next(&mut context);
        let mut old = outbox.attach(true);
        let Poll::Ready(Some(hello)) = next(&mut old) else { panic!("no hello") };
        assert_eq!((hello.from, hello.epoch, hello.messages.len()), (1, 1, 0));
        assert!(next(&mut old).is_pending());
        let mut new = outbox.attach(false);
        outbox.push([Message::Fetch { from: 1 }, Message::Fetch { from: 2 }].into_iter());
        assert_eq!(next(&mut old), Poll::Ready(None), "two streams would share the messages at random");
        assert!(matches!(next(&mut new), Poll::Ready(Some(batch)) if batch.messages.len() == 2));
        outbox.detach(old.stream);
        assert!(next(&mut new).is_pending(), "that one was over");
        outbox.detach(new.stream);
        assert_eq!(next(&mut new), Poll::Ready(None));
        let mut counts = BTreeMap::new();
        outbox.count_sent(&mut counts);
        assert_eq!(counts, [("fetch", 2)].into());
    }

    #[test]
    fn who_is_of_another_party_is_turned_away() {
        let outboxes = || Outboxes::new(Sender { cluster_id: "c".into(), node: 1, epoch: 1 });
        let (events, _received) = tokio::sync::mpsc::channel(1);
        let inbound = Inbound::new("c".into(), events, outboxes());
        let batch = |cluster_id: &'static str| PeerBatch {
            cluster_id: cluster_id.into(),
            from: 2,
            epoch: 1,
            ..PeerBatch::default()
        };
        assert_eq!(inbound.check(&batch("c")), Ok(true));
        assert!(inbound.check(&batch("d")).unwrap_err().contains("\"d\""));
        assert!(inbound.check(&batch("c (basic-paxos)")).is_err());
    }

    #[test]
    fn what_an_older_incarnation_said_is_recognised() {
        let epochs = Mutex::default();
        assert!(is_current(&epochs, 1, 3));
        assert!(is_current(&epochs, 1, 4));
        assert!(!is_current(&epochs, 1, 3));
        assert!(is_current(&epochs, 2, 1));
    }
}
