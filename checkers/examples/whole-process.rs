//! What judging costs a whole process: time and memory, on histories of the sizes and kinds that hurt.
//!
//! ```text
//! whole-process list                 the cases
//! whole-process write CASE FILE      writes the history of a case, by a simulation
//! whole-process judge CASE FILE      reads it, judges it, prints the seconds of both and the most memory in use
//! ```
//!
//! `checkers/benches/whole-process.sh` runs all of them, each in a process of its own, and prints a table. Deliberately an
//! example and not a test: what it prints depends on the machine.

// The crate's rules are for judges. This is a program around one: it reads files, a clock and its own memory, and prints.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

#[path = "../tests/simulate/mod.rs"]
mod simulate;
#[path = "../tests/simulator/mod.rs"]
mod simulator;

use std::{
    fs::File,
    io::{BufReader, BufWriter, Write},
    time::Instant,
};

use checkers::{
    Budget, Checker, History, ModelName, Validity, jsonl, linearizable,
    transactions::{Datatype, KeyAssumptions, Options, list_append, rw_register},
};
use simulate::{
    LOAD, Load,
    collections::{Collection, collection, falsify},
    make_stale, simulate,
};
use simulator::{Isolation, Simulator};

/// What a case is made of.
enum Made {
    /// A register that is simulated, and whether one late read is made stale.
    Register(Load, bool),
    /// A collection, how many operations, and whether one late answer is falsified.
    Collection(Collection, usize, bool),
    /// A database.
    Transactions(Simulator),
}

struct Case {
    name: &'static str,
    checker: Box<dyn Checker>,
    made: Made,
    expected: Validity,
}

fn cases() -> Vec<Case> {
    use ModelName::{CasRegister, FifoQueue, Register, Set, Stack, UnorderedQueue};
    const MILLION: usize = 1_000_000;
    let distinct = Load { operations: MILLION, clients: 20, ..LOAD };
    let swaps = Load { cas: 0.33, ..distinct };
    let many_keys = Load { operations: 10 * MILLION, keys: 5000, ..distinct };
    let repeated = Load { operations: MILLION, keys: 5000, clients: 10, domain: Some(5), cas: 0.33, ..LOAD };
    let crash_heavy = |operations, clients, crashed| Load { operations, clients, crashed, ..LOAD };
    let alibi = Load { operations: 5000, crashed: 0.01, domain: Some(5), cas: 0.33, ..LOAD };
    let registers = [
        ("register-1m", Register, distinct, false),
        ("register-1m-stale", Register, distinct, true),
        ("cas-1m", CasRegister, swaps, false),
        ("cas-1m-stale", CasRegister, swaps, true),
        ("register-10m-5000-keys", Register, many_keys, false),
        ("register-10m-5000-keys-stale", Register, many_keys, true),
        ("cas-1m-5000-keys-repeated", CasRegister, repeated, false),
        ("cas-1m-5000-keys-repeated-stale", CasRegister, repeated, true),
        ("crashed-500-stale", Register, crash_heavy(500, 5, 0.05), true),
        ("crashed-1000-stale", Register, crash_heavy(1000, 5, 0.03), true),
        ("crashed-2000-stale", Register, crash_heavy(2000, 10, 0.01), true),
        ("crashed-5000-stale", Register, crash_heavy(5000, 5, 0.01), true),
        ("crashed-5000-repeated", CasRegister, alibi, false),
    ];
    let collections = [
        ("queue-1m", FifoQueue, Collection::Fifo, false),
        ("queue-1m-wrong", FifoQueue, Collection::Fifo, true),
        ("unordered-queue-1m", UnorderedQueue, Collection::Bag, false),
        ("unordered-queue-1m-wrong", UnorderedQueue, Collection::Bag, true),
        ("stack-1m", Stack, Collection::Stack, false),
        ("stack-1m-wrong", Stack, Collection::Stack, true),
        ("set-1m-elements", Set, Collection::Elements, false),
        ("set-1m-elements-wrong", Set, Collection::Elements, true),
        ("set-1m-read-whole", Set, Collection::Growing, false),
        ("set-1m-read-whole-wrong", Set, Collection::Growing, true),
    ];
    let base = Simulator { transactions: MILLION, processes: 20, ..Simulator::default() };
    let late = Some(MILLION / 1000 * 995);
    let snapshot = Simulator { isolation: Isolation::Snapshot, ..base.clone() };
    let rw = Simulator { datatype: Datatype::RwRegister, ..base.clone() };
    let transactions = [
        ("list-append-1m", base.clone(), Validity::Valid),
        ("list-append-1m-stale", Simulator { stale_at: late, ..base }, Validity::Invalid),
        ("list-append-1m-snapshots", snapshot, Validity::Invalid),
        ("rw-register-1m", rw.clone(), Validity::Valid),
        ("rw-register-1m-stale", Simulator { stale_at: late, ..rw }, Validity::Invalid),
    ];
    let expected = |wrong| if wrong { Validity::Invalid } else { Validity::Valid };
    let registers = registers.map(|(name, model, load, stale)| Case {
        name,
        checker: Box::new(linearizable(model)),
        made: Made::Register(load, stale),
        expected: expected(stale),
    });
    let collections = collections.map(|(name, model, kind, wrong)| Case {
        name,
        checker: Box::new(linearizable(model)),
        made: Made::Collection(kind, MILLION, wrong),
        expected: expected(wrong),
    });
    let transactions = transactions.map(|(name, simulator, expected)| {
        let keys = KeyAssumptions { wfr: true, sequential: true, linearizable: true };
        let checker: Box<dyn Checker> = match simulator.datatype {
            Datatype::ListAppend => Box::new(list_append(Options::default())),
            Datatype::RwRegister => Box::new(rw_register(Options { keys, ..Options::default() })),
        };
        Case { name, checker, made: Made::Transactions(simulator), expected }
    });
    registers.into_iter().chain(collections).chain(transactions).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => cases().iter().for_each(|case| println!("{}", case.name)),
        ["write", case, file] => write(&find(case), file),
        ["judge", case, file] => judge(&find(case), file),
        _ => panic!("usage: whole-process list | write CASE FILE | judge CASE FILE"),
    }
}

fn find(name: &str) -> Case {
    let found = cases().into_iter().find(|case| case.name == name);
    found.unwrap_or_else(|| panic!("there is no case {name}; `list` lists them"))
}

fn write(case: &Case, file: &str) {
    let history = match &case.made {
        Made::Register(load, stale) => {
            let mut history = simulate(*load, 7);
            if *stale {
                make_stale(&mut history);
            }
            history
        }
        Made::Collection(kind, operations, wrong) => {
            let mut history = collection(*kind, *operations, 20, 7);
            if *wrong {
                falsify(*kind, &mut history);
            }
            history
        }
        Made::Transactions(simulator) => simulator::history(simulator.datatype, &simulator.run()),
    };
    let mut out = BufWriter::new(File::create(file).expect("a file that can be written"));
    jsonl::write_header(&mut out, &history.header).expect("writing");
    for event in history.events.iter() {
        jsonl::write_event(&mut out, &event).expect("writing");
    }
    out.flush().expect("writing");
}

fn judge(case: &Case, file: &str) {
    let start = Instant::now();
    let file = File::open(file).expect("a file that was written before");
    let history: History = jsonl::read(BufReader::with_capacity(1 << 18, file)).expect("a history");
    let loaded = start.elapsed();
    let resident = memory_mb("VmRSS");
    let start = Instant::now();
    let verdict = case.checker.check(&history, &Budget::unlimited());
    let judged = start.elapsed();
    assert_eq!(verdict.validity, case.expected, "{}: {:?}", case.name, verdict.reason);
    println!(
        "| {} | {} | {:.2} | {resident} | {:.1} | {} | {} |",
        case.name,
        history.paired().map_or(0, |operations| operations.len()),
        loaded.as_secs_f64(),
        judged.as_secs_f64() * 1e3,
        memory_mb("VmHWM"),
        verdict.validity
    );
}

/// A figure of this process's memory, in megabytes; 0 where there is no `/proc`.
fn memory_mb(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kb: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kb.unwrap_or(0) / 1024
}
