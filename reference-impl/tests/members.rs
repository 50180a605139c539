//! Real processes: a loaded cluster grows from three nodes to five and shrinks to three others, one of them is killed on the way, and nothing
//! that was acknowledged is lost or applied twice.
//!
//! ```text
//! {1, 2, 3} ─→ {1, 2, 3, 4, 5} ─→ {3, 4, 5} ─ 1 and 2 are stopped, 4 is killed and comes back ─→ every append is there, once
//! ```

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, Workers};
use paxos_kv::proto::v1;
use paxos_kv::proto::v1::command::Op;
use paxos_kv::proto::v1::kv_client::KvClient;
use paxos_kv::proto::v1::reply::Result as Outcome;
use tonic::transport::Channel;

/// Three that begin, and others that join them.
fn flags(cluster: &Cluster, node: usize) -> Vec<String> {
    let mut flags = cluster.peers(node, 0..3);
    flags.extend(["--snapshot-every".to_owned(), "200".to_owned()]);
    flags.extend((node >= 3).then(|| "--join".to_owned()));
    flags
}

/// Asks for these members, by their numbers, at any node, until that is done.
async fn change(cluster: &Cluster, clients: &[KvClient<Channel>], config: u64, ids: &[u32]) {
    let address = |id: u32| cluster.address(id as usize - 1);
    let member = |id: &u32| v1::Member { node: *id, address: address(*id), born: 0 };
    let change = v1::Reconfigure { config, members: ids.iter().map(member).collect() };
    let command =
        v1::Command { op: Some(Op::Reconfigure(change)), deadline_ms: 2_000, ..v1::Command::default() };
    let until = Instant::now() + PATIENCE;
    let mut last = None;
    for client in clients.iter().cycle() {
        assert!(Instant::now() < until, "{ids:?} do not become the members: {last:?}\n{}", cluster.logs());
        match client.clone().execute(command.clone()).await.map(|reply| reply.into_inner().result) {
            Ok(Some(Outcome::Done(_))) => return,
            other => last = Some(format!("{other:?}")),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loaded_cluster_grows_and_shrinks_to_others_and_loses_nothing() {
    let mut cluster = Cluster::prepare(5, flags);
    (0..5).for_each(|node| cluster.launch(node));
    let clients = cluster.clients();
    let workers = Workers::start(1..=4, &clients);
    let acked = workers.acked.clone();
    // More than the members keep in their logs.
    cluster.progress(&acked, 400).await;

    change(&cluster, &clients, 0, &[1, 2, 3, 4, 5]).await;
    cluster.progress(&acked, 200).await;
    change(&cluster, &clients, 1, &[3, 4, 5]).await;
    cluster.progress(&acked, 200).await;
    // Who is no member any more is not needed, and says so.
    for node in [0, 1] {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = cluster.answers(node, &clients[node]).await;
            if (status.role.as_str(), status.config) == ("learner", 2) {
                break;
            }
            assert!(Instant::now() < until, "{status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cluster.kill(node);
    }
    cluster.progress(&acked, 100).await;
    // A new member that is killed knows by itself who the members are.
    cluster.kill(3);
    cluster.progress(&acked, 100).await;
    cluster.launch(3);
    let until = Instant::now() + PATIENCE;
    loop {
        let status = cluster.answers(3, &clients[3]).await;
        if status.config == 2
            && status.members.iter().map(|member| member.node).eq([3, 4, 5])
            && status.role != "learner"
        {
            break;
        }
        assert!(Instant::now() < until, "node 4 does not come back: {status:?}\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Now it is needed: another one is gone.
    cluster.kill(2);
    cluster.progress(&acked, 100).await;

    let modes = [v1::ReadMode::Log, v1::ReadMode::Lease, v1::ReadMode::Quorum];
    let total = workers.all_there(&clients[3..], &modes).await;
    println!("{total} appends acknowledged over two changes of the members, none lost or doubled");
}
