//! `tribunal image`: builds the image in which the bundled cluster's nodes run, without a registry.

use super::{Failure, OrArguments, runtime};
use crate::{cluster::docker::image, exit, machine};

/// Names the image.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its name; `docker/compose.yaml` expects the default
    #[arg(long, default_value = "tribunal-node:latest", value_name = "NAME:TAG")]
    tag: String,
}

pub(super) fn main(args: Args) -> Result<u8, Failure> {
    machine::docker().map_err(anyhow::Error::msg).or_arguments()?;
    let program = std::env::current_exe()?;
    runtime()?.block_on(image::build(&program, &args.tag))?;
    println!("{}", args.tag);
    Ok(exit::VALID)
}
