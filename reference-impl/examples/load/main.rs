//! The same load for two systems: closed-loop clients against a running cluster, of paxos-kv or of etcd, over gRPC.
//!
//! ```text
//! load drive --system etcd --nodes 127.0.0.1:2379,127.0.0.1:2389 --clients 64 --seconds 5      one line of JSON
//! load drive --system paxos-kv --nodes 127.0.0.1:6001,127.0.0.1:6002 --clients 64 --read
//! load compare runs.jsonl                                                        medians, ratios, bounds: a table
//! ```
//!
//! `benches/against-etcd.sh` starts both, in turns. Deliberately not open loop: the figures are throughput at a fixed number
//! of clients, as etcd's own benchmark reports it. What happens under faults is measured by the tester, open loop.

mod compare;
mod drive;
mod target;

use clap::{Parser, Subcommand};

/// Drives a cluster, or compares what was driven.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run clients for a while; prints one line of JSON.
    Drive(drive::Drive),
    /// Compare the lines of many runs; fails if a bound is missed.
    Compare(compare::Compare),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<std::process::ExitCode, Box<dyn std::error::Error>> {
    match Cli::parse().what {
        What::Drive(drive) => println!("{}", drive.run().await?),
        What::Compare(compare) => return compare.run(),
    }
    Ok(std::process::ExitCode::SUCCESS)
}
