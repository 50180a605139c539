//! How one client asks each of the two systems. The messages of etcd are written by hand, only the fields that are used:
//! `etcdserverpb.KV` and `Maintenance` of etcd's `rpc.proto`, version 3.
//!
//! ```text
//! put(k, v)   paxos-kv: Kv/Execute{put}, with a session        etcd: KV/Put
//! get(k)      paxos-kv: Kv/Execute{get}, mode lease            etcd: KV/Range, linearizable (its default)
//! ```
//!
//! Both are tonic over HTTP/2 with the same settings. Deliberately no retries: what fails is counted.

use paxos_kv::proto::v1::{self, command::Op, kv_client::KvClient, reply::Result as Outcome};
use prost::bytes::Bytes;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

/// Which system is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum System {
    PaxosKv,
    Etcd,
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::PaxosKv => "paxos-kv",
            System::Etcd => "etcd",
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// A connection that several clients share.
pub(crate) async fn connect(node: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{node}"))
        .map_err(|error| format!("{node} is not an address: {error}"))?;
    let failed = |error| format!("cannot reach {node}: {error}; is the node running?");
    endpoint.tcp_nodelay(true).connect().await.map_err(failed)
}

/// Whether the node at the other end believes to lead.
pub(crate) async fn leads(system: System, channel: Channel) -> Result<bool, String> {
    let said = |status: tonic::Status| status.message().to_owned();
    match system {
        System::PaxosKv => {
            let status = KvClient::new(channel).status(v1::StatusRequest {}).await.map_err(said)?;
            Ok(status.into_inner().role == "leader")
        }
        System::Etcd => {
            let path = "/etcdserverpb.Maintenance/Status";
            let status: StatusResponse = unary(channel, path, StatusRequest {}).await.map_err(said)?;
            Ok(status.leader != 0 && status.header.is_some_and(|h| h.member_id == status.leader))
        }
    }
}

async fn unary<Q, A>(channel: Channel, path: &'static str, request: Q) -> Result<A, tonic::Status>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let (path, codec) = (PathAndQuery::from_static(path), tonic_prost::ProstCodec::default());
    Ok(grpc.unary(tonic::Request::new(request), path, codec).await?.into_inner())
}

/// One client.
pub(crate) struct Client {
    system: System,
    channel: Channel,
    ours: KvClient<Channel>,
    name: u64,
    seq: u64,
}

impl Client {
    /// `name` must not have been used in this cluster before: its sequence numbers begin at 1.
    pub(crate) fn new(system: System, channel: Channel, name: u64) -> Self {
        Client { system, ours: KvClient::new(channel.clone()), channel, name, seq: 0 }
    }

    /// Writes; false if it did not certainly succeed.
    pub(crate) async fn put(&mut self, key: &str, value: &Bytes) -> bool {
        match self.system {
            System::PaxosKv => {
                let op = Op::Put(v1::Put { key: key.to_owned(), value: value.clone() });
                matches!(self.execute(op).await, Some(Outcome::Done(_)))
            }
            System::Etcd => {
                let put = PutRequest { key: key.to_owned().into(), value: value.clone() };
                unary::<_, PutResponse>(self.channel.clone(), "/etcdserverpb.KV/Put", put).await.is_ok()
            }
        }
    }

    /// Reads, linearizably; the length of the value, `None` if it failed or there is none.
    pub(crate) async fn get(&mut self, key: &str) -> Option<usize> {
        match self.system {
            System::PaxosKv => {
                let op = Op::Get(v1::Get { key: key.to_owned(), mode: v1::ReadMode::Lease.into() });
                match self.execute(op).await {
                    Some(Outcome::Value(v1::Value { value })) => value.map(|value| value.len()),
                    _ => None,
                }
            }
            System::Etcd => {
                let range = RangeRequest { key: key.to_owned().into() };
                let found: Result<RangeResponse, _> =
                    unary(self.channel.clone(), "/etcdserverpb.KV/Range", range).await;
                found.ok()?.kvs.first().map(|kv| kv.value.len())
            }
        }
    }

    async fn execute(&mut self, op: Op) -> Option<Outcome> {
        self.seq += 1;
        let command =
            v1::Command { client_id: self.name, seq: self.seq, op: Some(op), ..v1::Command::default() };
        self.ours.execute(command).await.ok()?.into_inner().result
    }
}
