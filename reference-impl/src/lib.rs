//! A replicated key-value store over Multi-Paxos, which can also run each command through Basic Paxos.
//!
//! ```text
//!  client ── gRPC / HTTP ──→ server, http
//!                               │ Event
//!                            driver ── step(now, Input) → Effects ──→ core      (pure: no sockets, clock, threads, randomness)
//!                               │ ├──→ wal         records, synced before anything that relies on them is said
//!                               │ └──→ transport   one stream for each pair of nodes
//! ```
//!
//! Three nodes on one machine, and a client:
//!
//! ```text
//! $ for i in 1 2 3; do
//!     peers=""; for j in 1 2 3; do [ $j = $i ] || peers="$peers --peer $j=127.0.0.1:700$j"; done
//!     paxos-kv --id $i --data /tmp/paxos-$i --peer-listen 127.0.0.1:700$i --client-listen 127.0.0.1:600$i \
//!              --http-listen 127.0.0.1:800$i $peers &
//!   done
//! $ curl -X PUT -d 1 localhost:8001/v1/kv/a
//! {"result":{"done":true},"served":{"path":"1-rtt",…}}
//! $ curl 'localhost:8002/v1/kv/a?mode=lease'
//! {"result":{"value":"1"},"served":{"path":"lease-read","forwarded":true,…}}
//! $ curl -H 'content-type: application/json' localhost:8003/v1/execute \
//!        -d '{"client_id":1,"seq":1,"op":{"cas":{"key":"a","expected":"1","new":"2"}}}'
//! {"result":{"found":"1","swapped":true},"served":{…}}
//! $ curl localhost:8001/status
//! ```
//!
//! Clients may talk to any node; see `proto/paxos_kv.proto` for what may be asked and what the answers mean. Reading order:
//! [`core`] (what is decided, and how), [`wal`], [`driver`], [`transport`], [`server`] and [`http`], [`node`]; then [`sim`], which
//! attacks the core, and [`bugs`], which are planted in it on purpose. Deliberately not here yet: TLS.

pub mod bugs;
pub mod clock;
pub mod codec;
pub mod core;
pub mod driver;
pub mod events;
pub mod http;
pub mod links;
pub mod metrics;
pub mod model;
pub mod node;
pub mod observe;
pub mod proto;
pub mod server;
pub mod sim;
pub mod transport;
pub mod wal;
