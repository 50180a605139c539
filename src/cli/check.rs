//! `tribunal check FILE`: judges a stored history.

use super::{Failure, OrArguments};
use crate::{exit, judge, report, scenario::Bounds, scenario::diagnostic::did_you_mean};
use anyhow::{anyhow, bail};
use checkers::{
    ModelName, Op, OpOutcome, Operation, Validity, Value,
    formats::{Format, NilReads, Options},
    linearizable_from,
};
use nemesis::Span;
use std::path::PathBuf;

/// A stored history and how to judge it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A history (jsonl, Jepsen's edn, or json), or a run's folder
    file: PathBuf,
    /// The checker
    #[arg(long, default_value = "linearizable")]
    checker: String,
    /// The model
    #[arg(long, default_value = "cas-register")]
    model: String,
    /// What is there at first, as JSON: what each key holds, a counter's number, a list of elements, a semaphore's permits.
    /// In edn and json histories reads of null say nothing then
    #[arg(long, default_value = "null")]
    initial: String,
    /// Whether the values of an edn or json history are pairs of key and value [default: found out]
    #[arg(long)]
    keyed: Option<bool>,
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
    let initial = initial(&args.initial).or_arguments()?;
    let path = judge::history_file(&args.file);
    // As for Knossos: a register that is never absent was not read.
    let nil_reads = if initial == Value::Nil { NilReads::Absent } else { NilReads::Unknown };
    // A file that is missing or broken is a wrong argument: there is nothing to judge.
    let (history, format) =
        judge::read_any(&path, &Options { keyed: args.keyed, nil_reads }).or_arguments()?;
    judge::note_cut(&path, &history);
    let operations = history.paired().map_err(|e| anyhow!("{}: {e}", path.display())).or_arguments()?;
    let bounds = Bounds { check: args.time_limit, check_memory_mb: args.memory, ..Bounds::default() };
    let checker = linearizable_from(model, initial).map_err(anyhow::Error::msg).or_arguments()?;
    let mut verdict = judge::bounded(&checker, &history, &bounds);
    // Ours may be what is left of a run that died, and that is no pass.
    if format != Format::Jsonl
        && verdict.validity == Validity::Unknown
        && operations.iter().all(|operation| is_moot(&operation))
    {
        verdict.validity = Validity::Valid;
        verdict.reason = Some("no operation took effect, so that there was nothing to judge".into());
    }
    if args.json {
        println!("{}", serde_json::to_string(&verdict)?);
    } else {
        print!("{}", report::text::verdict(&verdict));
    }
    Ok(exit::of(verdict.validity))
}

fn initial(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text)
        .map_err(|error| anyhow!("--initial {text}: {error}; write it as JSON: 0, \"text\", [1,2]"))
}

/// Whether it took no effect that anybody could have seen.
fn is_moot(operation: &Operation) -> bool {
    match operation.outcome {
        OpOutcome::Ok(_) => false,
        OpOutcome::Fail => true,
        OpOutcome::Info => matches!(operation.op, Op::Read { .. }),
    }
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
