//! `tribunal node`: one node of the bundled cluster, so that one binary is all that a trial needs.

use super::Failure;
use crate::exit;

/// The node's own flags.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    node: paxos_kv::node::NodeArgs,
}

pub(super) fn main(args: Args) -> Result<u8, Failure> {
    paxos_kv::node::run(args.node)?;
    Ok(exit::VALID)
}
