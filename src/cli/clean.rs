//! `tribunal clean`: removes what dead runs have left.

use super::{Failure, runtime};
use crate::{clean, exit};

/// Says what to remove.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Remove this run, even if its tester cannot be looked for from here, or lives
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Remove the images of nodes as well, which runs keep for the next
    #[arg(long)]
    images: bool,
    /// List what is there and remove nothing
    #[arg(long, conflicts_with = "images")]
    dry_run: bool,
}

pub(super) fn main(args: Args) -> Result<u8, Failure> {
    runtime()?.block_on(async {
        let mut done = clean::clean(args.run.as_deref(), args.dry_run).await;
        if args.images {
            let images = clean::images().await;
            done.removed.extend(images.removed);
            done.failed.extend(images.failed);
        }
        for thing in &done.removed {
            println!("removed {thing}");
        }
        for thing in &done.left {
            println!("left {thing}");
        }
        for thing in &done.failed {
            eprintln!("error: {thing}");
        }
        for place in &done.unseen {
            eprintln!("warning: {place}");
        }
        if done.removed.is_empty() && done.left.is_empty() && done.failed.is_empty() {
            let where_seen = if done.unseen.is_empty() { "" } else { " where this could look" };
            println!("nothing was left{where_seen}");
        }
        Ok(if done.failed.is_empty() { exit::VALID } else { exit::FAILED })
    })
}
