//! `tribunal check FILE`: judges a stored history.

use super::{Failure, OrArguments};
use crate::{exit, judge, progress, report, scenario::Bounds, scenario::diagnostic::did_you_mean};
use anyhow::{Context, anyhow, bail};
use checkers::{
    Budget, Checker, ModelName, OpOutcome, Operation, SequentialOptions, Validity, Value, Verdict, bench,
    convergence::{self, convergence},
    formats::{Format, NilReads, Options},
    jsonl::Reader,
    linearizable_from, sequential,
    transactions::{self, ConsistencyModel, KeyAssumptions, list_append, rw_register},
};
use nemesis::Span;
use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// A stored history and how to judge it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A history (jsonl, Jepsen's edn, or json), or a run's folder
    file: PathBuf,
    /// The checker
    #[arg(long, default_value = "linearizable")]
    checker: String,
    /// For linearizable: the model [default: cas-register]
    #[arg(long)]
    model: Option<String>,
    /// For list-append and rw-register: what the system claims, as Elle calls it [default: strict-serializable]
    #[arg(long)]
    consistency_model: Option<String>,
    /// For rw-register: what may be assumed of each key; linearizable, sequential or wfr (writes follow reads). For session
    /// guarantees: linearizable, if writes take effect in the order of real time
    #[arg(long)]
    keys: Option<String>,
    /// For convergence: how long replicas must have stood still, and differed, to have diverged for good [default: 10s]
    #[arg(long)]
    stand_still: Option<Span>,
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
    /// Write the verdict as a page, with the evidence drawn, to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// For linearizable: judge event by event, in memory that does not grow with the file; without minimal evidence
    #[arg(long)]
    online: bool,
}

pub(super) fn main(args: Args) -> Result<u8, Failure> {
    let initial = initial(&args.initial).or_arguments()?;
    let checker = choose(&args, &initial).or_arguments()?;
    let path = judge::history_file(&args.file);
    if args.online {
        return online(&args, &initial, &path);
    }
    // As for Knossos: a register that is never absent was not read.
    let nil_reads = if initial == Value::Nil { NilReads::Absent } else { NilReads::Unknown };
    // A file that is missing or broken is a wrong argument: there is nothing to judge.
    let (history, format) =
        judge::read_any(&path, &Options { keyed: args.keyed, nil_reads }).or_arguments()?;
    judge::note_cut(&path, &history);
    let operations = history.paired().map_err(|e| anyhow!("{}: {e}", path.display())).or_arguments()?;
    let bounds = Bounds { check: args.time_limit, check_memory_mb: args.memory, ..Bounds::default() };
    let judging = progress::of_work(&format!("judging {} operations", operations.len()), None);
    let mut verdict = judge::bounded(&*checker, &history, &bounds);
    judging.finish_and_clear();
    // As for Knossos, of whose checker alone this is true. Ours may be what is left of a run that died, and that is no pass;
    // nor is a file without any event.
    if args.checker == "linearizable"
        && format != Format::Jsonl
        && verdict.validity == Validity::Unknown
        && !history.events.is_empty()
        && operations.iter().all(|operation| is_moot(&operation))
    {
        verdict.validity = Validity::Valid;
        verdict.reason = Some("no operation took effect, so that there was nothing to judge".into());
    }
    if args.checker == "linearizable" && verdict.validity == Validity::Invalid {
        judge::note_what_still_holds(&mut verdict, &history, initial);
    }
    if let Some(page) = &args.html {
        let name = path.display().to_string();
        std::fs::write(page, report::html::check(&verdict, &name))
            .map_err(|e| anyhow!("cannot write {}: {e}", page.display()))
            .or_arguments()?;
    }
    tell(&args, &verdict)
}

/// Judges while it reads.
fn online(args: &Args, initial: &Value, path: &Path) -> Result<u8, Failure> {
    let refuse = |why: &str| Err(Failure::Arguments(anyhow!("--online {why}")));
    if args.checker != "linearizable" {
        return refuse("means nothing to the other checkers than linearizable");
    }
    if *initial != Value::Nil || args.html.is_some() || args.keyed.is_some() {
        return refuse("does not go with --initial, --keyed and --html");
    }
    let model = model(args).or_arguments()?;
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display())).or_arguments()?;
    let (cancel, bytes) = (Arc::new(AtomicBool::new(false)), args.memory << 20);
    let (limit, alarm) = (args.time_limit.0, cancel.clone());
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        alarm.store(true, Relaxed);
    });
    let mut judge = checkers::online(model, Budget::new(cancel.clone(), bytes));
    let whose = || format!("in {} (--online reads jsonl only)", path.display());
    let (bar, file) = judge::reading(path, file);
    let mut reader =
        Reader::new(BufReader::with_capacity(1 << 18, file)).with_context(whose).or_arguments()?;
    while let Some(event) = reader.next().with_context(whose).or_arguments()? {
        judge.see(&event);
        if cancel.load(Relaxed) {
            bar.finish_and_clear();
            // What was found is certain, however little of the rest was seen.
            if judge.violation().is_some() {
                return tell(args, &judge.finish());
            }
            let why = format!("not decided within {}: event {} was reached", args.time_limit, event.index);
            return tell(args, &Verdict::unknown("linearizable", why));
        }
    }
    bar.finish_and_clear();
    judge::note_torn(path, reader.cut.as_ref());
    tell(args, &judge.finish())
}

fn tell(args: &Args, verdict: &Verdict) -> Result<u8, Failure> {
    if args.json {
        println!("{}", serde_json::to_string(verdict)?);
    } else {
        let more = if args.online {
            "judge without --online for evidence"
        } else {
            "--html FILE draws them, --json has them all"
        };
        print!("{}", report::text::verdict(verdict, more));
    }
    Ok(exit::of(verdict.validity))
}

fn initial(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text)
        .map_err(|error| anyhow!("--initial {text}: {error}; write it as JSON: 0, \"text\", [1,2]"))
}

/// Whether it need not have happened.
fn is_moot(operation: &Operation) -> bool {
    !matches!(operation.outcome, OpOutcome::Ok(_))
}

fn choose(args: &Args, initial: &Value) -> anyhow::Result<Box<dyn Checker>> {
    let names: Vec<&str> = checkers::checkers().iter().map(|c| c.0).collect();
    let needless = |flag: &str, given: bool| match given {
        true => bail!("--{flag} means nothing to the checker {}", args.checker),
        false => Ok(()),
    };
    if args.checker != "convergence" {
        needless("stand-still", args.stand_still.is_some())?;
    }
    match args.checker.as_str() {
        "convergence" => {
            needless("model", args.model.is_some())?;
            needless("initial", *initial != Value::Nil)?;
            needless("consistency-model", args.consistency_model.is_some())?;
            needless("keys", args.keys.is_some())?;
            let mut options = convergence::Options::default();
            if let Some(span) = args.stand_still {
                options.stand_still_ns = span.ns();
            }
            Ok(Box::new(convergence(options)))
        }
        "linearizable" => {
            needless("consistency-model", args.consistency_model.is_some())?;
            needless("keys", args.keys.is_some())?;
            let checker = linearizable_from(model(args)?, initial.clone()).map_err(anyhow::Error::msg)?;
            Ok(Box::new(checker))
        }
        "sequential" => {
            needless("model", args.model.is_some())?;
            needless("consistency-model", args.consistency_model.is_some())?;
            needless("keys", args.keys.is_some())?;
            let options = SequentialOptions { initial: initial.clone(), ..SequentialOptions::default() };
            Ok(Box::new(sequential(options)))
        }
        name @ ("list-append" | "rw-register") => {
            needless("model", args.model.is_some())?;
            needless("initial", *initial != Value::Nil)?;
            let mut options = transactions::Options { keys: assumptions(args)?, ..Default::default() };
            if let Some(name) = &args.consistency_model {
                options.consistency_model = name.parse::<ConsistencyModel>().map_err(anyhow::Error::msg)?;
            }
            if name == "list-append" {
                needless("keys", args.keys.is_some())?;
                return Ok(Box::new(list_append(options)));
            }
            Ok(Box::new(rw_register(options)))
        }
        other => {
            // Sessions understand one of the assumptions.
            let linearizable = args.keys.as_deref() == Some("linearizable");
            if let Some(checker) = of_the_bench(other, linearizable) {
                needless("model", args.model.is_some())?;
                needless("initial", *initial != Value::Nil)?;
                needless("consistency-model", args.consistency_model.is_some())?;
                let of_sessions = of_sessions(other, linearizable).is_some();
                needless("keys", args.keys.is_some() && !(of_sessions && linearizable))?;
                return Ok(checker);
            }
            let hint = did_you_mean(other, &names);
            bail!("there is no checker `{other}`{hint} (there is {})", names.join(", "))
        }
    }
}

fn of_the_bench(name: &str, linearizable_writes: bool) -> Option<Box<dyn Checker>> {
    Some(match name {
        "set" => Box::new(bench::set()),
        "set-full" => Box::new(bench::set_full(false)),
        "queue" => Box::new(bench::queue()),
        "total-queue" => Box::new(bench::total_queue()),
        "unique-ids" => Box::new(bench::unique_ids()),
        "counter" => Box::new(bench::counter()),
        "bank" => Box::new(bench::bank(bench::BankOptions::default())),
        "stats" => Box::new(bench::stats()),
        "unhandled-errors" => Box::new(bench::unhandled_errors()),
        "log-patterns" => Box::new(bench::log_patterns()),
        "node-invariants" => Box::new(bench::node_invariants()),
        "long-fork" => Box::new(bench::long_fork()),
        "causal-reverse" => Box::new(bench::causal_reverse()),
        "monotonic" => Box::new(bench::monotonic()),
        "lock" => Box::new(bench::lock(bench::LockOptions::default())),
        "availability" => Box::new(bench::availability(bench::AvailabilityOptions::default())),
        "latency" => Box::new(bench::latency(bench::LatencyObjectives::default())),
        _ => return of_sessions(name, linearizable_writes),
    })
}

fn of_sessions(name: &str, linearizable_writes: bool) -> Option<Box<dyn Checker>> {
    let guarantee = bench::Guarantee::ALL.into_iter().find(|guarantee| guarantee.name() == name)?;
    Some(Box::new(bench::session(guarantee, bench::SessionOptions { linearizable_writes })))
}

fn model(args: &Args) -> anyhow::Result<ModelName> {
    let name = args.model.as_deref().unwrap_or("cas-register");
    let models: Vec<&str> = checkers::models().iter().map(|m| m.0).collect();
    name.parse().map_err(|_| {
        let hint = did_you_mean(name, &models);
        anyhow!("there is no model `{name}`{hint} (there is {})", models.join(", "))
    })
}

fn assumptions(args: &Args) -> anyhow::Result<KeyAssumptions> {
    let none = KeyAssumptions::default();
    Ok(match args.keys.as_deref() {
        None => none,
        Some("linearizable") => KeyAssumptions { linearizable: true, ..none },
        Some("sequential") => KeyAssumptions { sequential: true, ..none },
        Some("wfr") => KeyAssumptions { wfr: true, ..none },
        Some(other) => {
            let known = ["linearizable", "sequential", "wfr"];
            let hint = did_you_mean(other, &known);
            bail!("nothing is known as keys that are `{other}`{hint} (there is {})", known.join(", "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checker that is listed and cannot be chosen would be judged by nobody.
    #[test]
    fn every_checker_can_be_chosen() {
        use clap::Parser;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        for (name, _) in checkers::checkers() {
            let line = Line::parse_from(["check", "history.jsonl", "--checker", name]);
            assert_eq!(choose(&line.args, &Value::Nil).unwrap().name(), *name);
        }
    }
}
