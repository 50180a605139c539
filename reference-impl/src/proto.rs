//! The generated types of `proto/*.proto`, in the nesting that their packages ask for. Nothing is written by hand here; the
//! translation to and from the core's own types is `codec`.

#![allow(missing_docs, unreachable_pub, clippy::all)]

/// `paxos_kv.proto`: what clients and nodes say.
pub mod v1 {
    tonic::include_proto!("paxoskv.v1");
}

/// `wal.proto`: what a node keeps.
pub mod wal {
    /// Version 1 of the format.
    pub mod v1 {
        tonic::include_proto!("paxoskv.wal.v1");
    }
}
