//! Messages between nodes: one long-lived stream for each directed pair.
//!
//! ```text
//! node A ── Outbox(B): bounded queue ── stream A→B (tonic, HTTP/2) ──→ node B
//! node A ←───────────── stream B→A ──── Outbox(A): bounded queue ───── node B
//! ```
//!
//! Whatever is queued when the connection can take something goes out as one batch; nothing waits for company. A full queue
//! drops its oldest message, a broken stream loses what it carried: Paxos sends again what matters. A link that was held for
//! a while goes on where it stopped; one that broke is opened again, for ever. Deliberately no delivery guarantee, and no
//! second sending of anything: a message arrives once or not at all.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status, Streaming};

use crate::codec;
use crate::core::{Message, NodeId};
use crate::driver::{Event, Events};
use crate::proto::v1::peer_client::PeerClient;
use crate::proto::v1::peer_server::Peer;
use crate::proto::v1::{PeerAck, PeerBatch};

/// Messages that may wait for one peer.
const QUEUE_MAX: usize = 8_192;
/// Messages in one batch.
const BATCH_MAX: usize = 256;
/// Bytes in one batch, roughly.
const BATCH_BYTES: usize = 1 << 20;
/// HTTP/2 window of one stream, and of a connection.
pub(crate) const WINDOW: u32 = 8 << 20;
/// Largest batch that is read: a promise may carry a whole window of votes.
pub(crate) const DECODE_MAX: usize = 256 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// How often a silent connection is asked whether it is still there. Well above what a paused peer or a held link needs.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// A receiver acknowledges every this many batches.
const ACK_EVERY: u64 = 256;

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
    reader: Option<Waker>,
}

/// What waits to be sent to one peer.
pub struct Outbox {
    sender: Sender,
    epoch: AtomicU64,
    queue: Mutex<Queue>,
}

impl Outbox {
    /// An empty one.
    pub fn new(sender: Sender) -> Arc<Self> {
        let epoch = AtomicU64::new(sender.epoch);
        Arc::new(Outbox { sender, epoch, queue: Mutex::default() })
    }

    /// A node that had no incarnation has one now.
    pub fn speaks_as(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Queues a message; never blocks. If the queue is full its oldest message is lost.
    pub fn push(&self, message: Message) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.messages.len() >= QUEUE_MAX {
            queue.messages.pop_front();
            queue.dropped += 1;
        }
        queue.messages.push_back(message);
        if let Some(reader) = queue.reader.take() {
            reader.wake();
        }
    }

    fn next_batch(&self, context: &Context<'_>) -> Poll<PeerBatch> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.messages.is_empty() {
            queue.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut size = 0;
        let mut taken = Vec::new();
        while taken.len() < BATCH_MAX && size < BATCH_BYTES {
            let Some(message) = queue.messages.pop_front() else { break };
            size += weight(&message);
            taken.push(message);
        }
        drop(queue);
        Poll::Ready(PeerBatch {
            cluster_id: self.sender.cluster_id.clone(),
            from: self.sender.node,
            epoch: self.epoch.load(Ordering::Relaxed),
            messages: taken.into_iter().map(codec::message_to).collect(),
        })
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

/// The outbox as the body of a request. Polled only when the connection has room.
struct Batches(Arc<Outbox>);

impl Stream for Batches {
    type Item = PeerBatch;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<PeerBatch>> {
        self.0.next_batch(context).map(Some)
    }
}

/// Keeps a stream to `peer` at `address` open, for ever.
pub async fn keep_connected(peer: NodeId, address: String, outbox: Arc<Outbox>) {
    let mut wait = BACK_OFF.0;
    let mut said_why = String::new();
    loop {
        let started = tokio::time::Instant::now();
        let why = match stream(&address, outbox.clone()).await {
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

async fn stream(address: &str, outbox: Arc<Outbox>) -> Result<(), String> {
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
    let mut acks = PeerClient::new(channel)
        .deliver(Batches(outbox))
        .await
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    while let Some(ack) = acks.next().await {
        ack.map_err(|status| status.message().to_owned())?;
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

/// The receiving end: one for a node.
pub struct Inbound {
    cluster_id: Bytes,
    events: Events,
    epochs: Arc<Mutex<BTreeMap<NodeId, u64>>>,
}

impl Inbound {
    /// Accepts batches of this cluster and hands their messages on.
    pub fn new(cluster_id: Bytes, events: Events) -> Self {
        Inbound { cluster_id, events, epochs: Arc::default() }
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
    type DeliverStream = ReceiverStream<Result<PeerAck, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<PeerBatch>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let (acks, answered) = mpsc::channel(4);
        let mut batches = request.into_inner();
        let (cluster_id, events, epochs) =
            (self.cluster_id.clone(), self.events.clone(), self.epochs.clone());
        tokio::spawn(async move {
            let mut received = 0;
            while let Some(Ok(batch)) = batches.next().await {
                if batch.cluster_id != cluster_id {
                    let theirs = String::from_utf8_lossy(&batch.cluster_id).into_owned();
                    let why = format!("node {} is of cluster {theirs:?}, not of this one", batch.from);
                    tracing::warn!("{why}; check --cluster-id and --peer");
                    // If nobody listens any more there is nobody to tell.
                    drop(acks.send(Err(Status::failed_precondition(why))).await);
                    return;
                }
                if batch.epoch != 0 && !is_current(&epochs, batch.from, batch.epoch) {
                    continue;
                }
                let mut messages: Vec<Message> =
                    batch.messages.into_iter().filter_map(codec::message_from).collect();
                if batch.epoch == 0 {
                    // Without an incarnation a node can only ask for one, and answer others who do.
                    messages.retain(|m| matches!(m, Message::Hello { .. } | Message::Welcome { .. }));
                }
                if events.send(Event::Peer { from: batch.from, messages }).await.is_err() {
                    return;
                }
                received += 1;
                if received % ACK_EVERY == 0 {
                    // A lost acknowledgement is made good by the next.
                    drop(acks.try_send(Ok(PeerAck { received })));
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answered)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Arc<Outbox> {
        Outbox::new(Sender { cluster_id: "c".into(), node: 1, epoch: 1 })
    }

    #[test]
    fn a_full_queue_loses_its_oldest_message_and_batches_are_bounded() {
        let outbox = outbox();
        for slot in 0..QUEUE_MAX as u64 + 5 {
            outbox.push(Message::Fetch { from: slot });
        }
        let context = Context::from_waker(Waker::noop());
        let Poll::Ready(batch) = outbox.next_batch(&context) else { panic!("there is something to send") };
        assert_eq!(batch.messages.len(), BATCH_MAX);
        assert_eq!(codec::message_from(batch.messages[0].clone()), Some(Message::Fetch { from: 5 }));
        assert_eq!(outbox.queue.lock().unwrap().dropped, 5);
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
