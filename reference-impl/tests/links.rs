//! The one stream of a pair of nodes: a cut of one direction leaves the other alone, a new incarnation takes the link over,
//! strangers are told why they are turned away.
//!
//! ```text
//! node 2 ── dials ──→ [ proxy: holds what goes to node 1, or what goes to node 2 ] ──→ node 1
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use paxos_kv::core::{Message, NodeId};
use paxos_kv::driver::Event;
use paxos_kv::proto::v1::PeerBatch;
use paxos_kv::proto::v1::peer_client::PeerClient;
use paxos_kv::proto::v1::peer_server::PeerServer;
use paxos_kv::transport::{Inbound, Outbox, Outboxes, Sender, keep_connected};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// One end: what it says, and what it hears.
struct End {
    outbox: Arc<Outbox>,
    inbound: Inbound,
    events: mpsc::Receiver<Event>,
}

fn end(node: NodeId, peer: NodeId, epoch: u64) -> End {
    let outboxes = Outboxes::new(Sender { cluster_id: "c".into(), node, epoch });
    let outbox = outboxes.open(peer).unwrap();
    let (sender, events) = mpsc::channel(64);
    let inbound = Inbound::new("c".into(), sender, outboxes);
    End { outbox, inbound, events }
}

impl End {
    fn say(&self, slot: u64) {
        self.outbox.push([Message::Fetch { from: slot }].into_iter());
    }

    /// The slot of the next message, if one comes in time.
    async fn hears(&mut self, within: Duration) -> Option<u64> {
        match tokio::time::timeout(within, self.events.recv()).await.ok()?? {
            Event::Peer { messages, .. } => match messages[..] {
                [Message::Fetch { from }] => Some(from),
                _ => panic!("others than were sent: {messages:?}"),
            },
            event => panic!("not of a peer: {event:?}"),
        }
    }
}

async fn serve(inbound: Inbound) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(Server::builder().add_service(PeerServer::new(inbound)).serve_with_incoming(incoming));
    address
}

/// Holds the bytes of a direction while its switch is on.
async fn proxy(target: SocketAddr, forth: watch::Receiver<bool>, back: watch::Receiver<bool>) -> SocketAddr {
    async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if held.wait_for(|held| !held).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (near_from, near_to) = near.into_split();
            let (far_from, far_to) = TcpStream::connect(target).await.unwrap().into_split();
            tokio::spawn(carry(near_from, far_to, forth.clone()));
            tokio::spawn(carry(far_from, near_to, back.clone()));
        }
    });
    address
}

const SOON: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_direction_that_is_cut_leaves_the_other_alone() {
    let (mut one, mut two) = (end(1, 2, 1), end(2, 1, 1));
    let (to_one, forth) = watch::channel(false);
    let (to_two, back) = watch::channel(false);
    let address = proxy(serve(one.inbound.clone()).await, forth, back).await;
    tokio::spawn(keep_connected(1, address.to_string(), two.inbound.clone(), Arc::default()));
    two.say(1);
    assert_eq!(one.hears(SOON).await, Some(1));
    one.say(2);
    assert_eq!(two.hears(SOON).await, Some(2));
    for (cut, open) in [(&to_one, &to_two), (&to_two, &to_one)] {
        cut.send_replace(true);
        open.send_replace(false);
        let (silent, speaks) =
            if std::ptr::eq(cut, &to_one) { (&mut one, &mut two) } else { (&mut two, &mut one) };
        // `speaks` is heard no more …
        speaks.say(3);
        assert_eq!(silent.hears(A_WHILE).await, None, "it is cut");
        // … and hears.
        for slot in 4..50 {
            silent.say(slot);
            assert_eq!(speaks.hears(SOON).await, Some(slot));
        }
        cut.send_replace(false);
        assert_eq!(silent.hears(SOON).await, Some(3), "held, not lost");
    }
}

#[tokio::test]
async fn a_new_incarnation_takes_the_link_over() {
    let (mut one, old) = (end(1, 2, 1), end(2, 1, 1));
    let address = serve(one.inbound.clone()).await;
    // The old incarnation's stream stays open, as that of a machine that has lost its power does.
    tokio::spawn(keep_connected(1, address.to_string(), old.inbound.clone(), Arc::default()));
    old.say(1);
    assert_eq!(one.hears(SOON).await, Some(1));
    let mut new = end(2, 1, 2);
    tokio::spawn(keep_connected(1, address.to_string(), new.inbound.clone(), Arc::default()));
    new.say(2);
    assert_eq!(one.hears(SOON).await, Some(2));
    old.say(3);
    assert_eq!(one.hears(A_WHILE).await, None, "an older incarnation is not listened to");
    for slot in 4..50 {
        one.say(slot);
        assert_eq!(new.hears(SOON).await, Some(slot));
    }
}

#[tokio::test]
async fn strangers_are_turned_away_with_the_reason() {
    let one = end(1, 2, 1);
    let address = serve(one.inbound.clone()).await;
    for (cluster_id, from, why) in [("other", 2, "cluster"), ("c", 1, "this is node 1 as well")] {
        let hello = PeerBatch { cluster_id: cluster_id.into(), from, epoch: 1, messages: vec![] };
        let mut client = PeerClient::connect(format!("http://{address}")).await.unwrap();
        let refused = client.link(tokio_stream::once(hello)).await.unwrap_err();
        assert!(refused.message().contains(why), "{refused}");
    }
}
