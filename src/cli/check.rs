//! `tribunal check FILE`: judges a stored history.

use super::{Failure, OrArguments};
use crate::{exit, judge, report, scenario::Bounds, scenario::diagnostic::did_you_mean};
use anyhow::{anyhow, bail};
use checkers::{ModelName, linearizable};
use nemesis::Span;
use std::path::PathBuf;

/// A stored history and how to judge it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A history (history.jsonl), or a run's folder
    file: PathBuf,
    /// The checker
    #[arg(long, default_value = "linearizable")]
    checker: String,
    /// The model
    #[arg(long, default_value = "cas-register")]
    model: String,
    /// How long it may take
    #[arg(long, default_value = "2m")]
    time_limit: Span,
    /// How much memory it may take, in mebibytes
    #[arg(long, default_value_t = 4096)]
    memory: u64,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: Args) -> Result<u8, Failure> {
    let model = choose(&args).or_arguments()?;
    let path = if args.file.is_dir() { args.file.join("history.jsonl") } else { args.file };
    // A file that is missing or broken is a wrong argument: there is nothing to judge.
    let history = judge::read_history(&path).or_arguments()?;
    if let Some(cut) = &history.cut {
        eprintln!(
            "note: {} is cut off at line {}: {}; judging up to there",
            path.display(),
            cut.line,
            cut.reason
        );
    }
    history.operations().map_err(|e| anyhow!("{}: {e}", path.display())).or_arguments()?;
    let bounds = Bounds { check: args.time_limit, check_memory_mb: args.memory, ..Bounds::default() };
    let verdict = judge::bounded(&linearizable(model), &history, &bounds);
    if args.json {
        println!("{}", serde_json::to_string(&verdict)?);
    } else {
        print!("{}", report::text::verdict(&verdict));
    }
    Ok(exit::of(verdict.validity))
}

fn choose(args: &Args) -> anyhow::Result<ModelName> {
    let names: Vec<&str> = checkers::checkers().iter().map(|c| c.0).collect();
    if !names.contains(&args.checker.as_str()) {
        let hint = did_you_mean(&args.checker, &names);
        bail!("there is no checker `{}`{hint} (there is {})", args.checker, names.join(", "));
    }
    let models: Vec<&str> = checkers::models().iter().map(|m| m.0).collect();
    args.model.parse().map_err(|_| {
        let hint = did_you_mean(&args.model, &models);
        anyhow!("there is no model `{}`{hint} (there is {})", args.model, models.join(", "))
    })
}
