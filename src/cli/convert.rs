//! `tribunal convert IN OUT`: a stored history in another format.
//!
//! ```console
//! $ tribunal convert history.edn history.jsonl      Jepsen's, to our own
//! $ tribunal convert store/latest history.edn       a run of ours, to Jepsen's
//! ```
//!
//! Deliberately judges nothing: a history that is malformed as a whole is converted too.

use super::{Failure, OrArguments};
use crate::{exit, judge};
use anyhow::{Context, anyhow, bail};
use checkers::{
    History,
    formats::{self, Format, Options},
};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// What to convert, and into what.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A history (jsonl, edn or json, whatever its name), or a run's folder
    input: PathBuf,
    /// The file to write, or `-` for standard output
    output: PathBuf,
    /// The format to write: jsonl, edn or json [default: the extension of OUTPUT]
    #[arg(long)]
    to: Option<String>,
    /// Whether the values of an edn or json history are pairs of key and value [default: found out]
    #[arg(long)]
    keyed: Option<bool>,
}

pub(super) fn main(args: Args) -> Result<u8, Failure> {
    let format = target(&args).or_arguments()?;
    let path = judge::history_file(&args.input);
    let options = Options { keyed: args.keyed, ..Options::default() };
    let (history, from) = judge::read_any(&path, &options).or_arguments()?;
    judge::note_cut(&path, &history);
    write(&args.output, &history, format)?;
    eprintln!("{} events converted from {from} to {format}", history.events.len());
    Ok(exit::VALID)
}

/// The format to write.
fn target(args: &Args) -> anyhow::Result<Format> {
    if let Some(name) = &args.to {
        return name.parse().map_err(|error| anyhow!("--to: {error}"));
    }
    let extension = args.output.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.parse() {
        Ok(format) => Ok(format),
        Err(_) => bail!(
            "{}: its name does not say in which format to write; end it in .jsonl, .edn or .json, or use --to",
            args.output.display()
        ),
    }
}

/// Writes a file as a whole or not at all; pipes and devices as they come.
fn write(path: &Path, history: &History, format: Format) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    if path.as_os_str() == "-" {
        return fill(std::io::stdout().lock(), history, format).with_context(context);
    }
    if path.exists() && !path.is_file() {
        return fill(File::create(path).with_context(context)?, history, format).with_context(context);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let written = File::create(&part)
        .map_err(anyhow::Error::from)
        .and_then(|file| fill(file, history, format))
        .and_then(|()| Ok(std::fs::rename(&part, path)?));
    if written.is_err() {
        // What was written so far is of no use; that it cannot be removed is the smaller trouble.
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(context)
}

fn fill<W: Write>(w: W, history: &History, format: Format) -> anyhow::Result<()> {
    let mut w = BufWriter::with_capacity(1 << 18, w);
    formats::write(&mut w, history, format)?;
    Ok(w.flush()?)
}
