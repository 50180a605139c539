//! `tribunal agent`: the tester's hand where a node lives; see [`crate::agent`].

use super::Failure;
use crate::{agent, exit};

/// Given by the controller.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run that this agent belongs to
    #[arg(long)]
    run: String,
    /// Remove this folder at the end
    #[arg(long)]
    folder: Option<std::path::PathBuf>,
    /// Serve nobody: only keep the container, and so its network, alive
    #[arg(long)]
    hold: bool,
}

pub(super) fn main(args: Args) -> Result<u8, Failure> {
    if args.hold {
        loop {
            std::thread::park();
        }
    }
    agent::serve(&args.run, args.folder.as_deref())?;
    Ok(exit::VALID)
}
