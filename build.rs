//! Compiles the bundled cluster's published protocol, as any outside client would: the client side only.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=reference-impl/proto/paxos_kv.proto");
    let files = protox::compile(["paxos_kv.proto"], ["reference-impl/proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
