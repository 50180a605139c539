//! Compiles `proto/*.proto` into Rust with protox, so that no `protoc` has to be installed. Not a place for options that
//! change the protocol: the `.proto` files are the protocol.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/paxos_kv.proto", "proto/wal.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
