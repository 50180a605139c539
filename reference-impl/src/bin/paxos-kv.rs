//! Runs one node: `paxos-kv --id 1 --data DIR …`. Everything is in the library (`paxos_kv::node`); this only parses and prints.

use std::process::ExitCode;

use clap::Parser;
use paxos_kv::node::{NodeArgs, run};

/// A replicated key-value store over Multi-Paxos.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(flatten)]
    node: NodeArgs,
}

fn main() -> ExitCode {
    match run(Cli::parse().node) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("paxos-kv: {error}");
            ExitCode::FAILURE
        }
    }
}
