//! The command line: one file a command.
//!
//! Data goes to stdout, progress and errors to stderr; exit codes are those of [`exit`].

mod agent;
pub mod bugs;
mod check;
mod clean;
mod convert;
mod doctor;
mod image;
mod list;
mod matrix;
mod node;
mod paths;
mod run;
mod sim;

use crate::{exit, trial::Refused};
use clap::{Parser, Subcommand, error::ErrorKind};
use std::process::ExitCode;
use tokio::sync::watch;

/// Puts replicated systems on trial: concurrent clients, faults, a recorded history, a verdict.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 valid, 1 invalid, 2 unknown (or a pass that would mean nothing), \
254 bad arguments or test file, 255 the tester itself failed.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a test and judges it. Without arguments: five nodes, ten clients, thirty seconds of faults
    Run(run::Args),
    /// Runs a test against the simulated cluster, in virtual time, over many seeds; shrinks what fails
    Sim(sim::Args),
    /// Judges a stored history
    Check(check::Args),
    /// Writes a stored history in another format: jsonl, edn (Jepsen's) or json
    Convert(convert::Args),
    /// Compares commits in one round trip (Multi-Paxos) with commits in two (Basic Paxos)
    Paths(paths::Args),
    /// Tries the tester on every planted bug, over many seeds
    Bugs(bugs::Args),
    /// Lists tests, workloads, faults, plans, checkers, models and bugs
    List,
    /// Says what this machine can do for each kind of cluster, and how to get the rest
    Doctor,
    /// Removes what dead runs have left: containers, networks, namespaces, mounts, processes
    Clean(clean::Args),
    /// Builds the image in which the bundled cluster's nodes run, from this program and without a registry
    Image(image::Args),
    /// Runs one node of the bundled cluster
    Node(node::Args),
    /// Does the tester's work where a node lives: asked on its standard input by the controller
    #[command(hide = true)]
    Agent(agent::Args),
}

/// How a command failed.
enum Failure {
    /// The arguments or a test file are wrong, or ask for what cannot be done here; nothing was started.
    Arguments(anyhow::Error),
    /// The tester could not do its work.
    Tester(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        if error.is::<Refused>() { Failure::Arguments(error) } else { Failure::Tester(error) }
    }
}

/// Marks errors as mistakes in the arguments.
trait OrArguments<T> {
    fn or_arguments(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrArguments<T> for Result<T, E> {
    fn or_arguments(self) -> Result<T, Failure> {
        self.map_err(|e| Failure::Arguments(e.into()))
    }
}

/// What the binary does.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return match e.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::from(exit::VALID),
                _ => ExitCode::from(exit::BAD_ARGUMENTS),
            };
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::main(args),
        Command::Sim(args) => sim::main(args),
        Command::Check(args) => check::main(args),
        Command::Convert(args) => convert::main(args),
        Command::Paths(args) => paths::main(args),
        Command::Bugs(args) => bugs::main(args),
        Command::List => list::main(),
        Command::Clean(args) => clean::main(args),
        Command::Doctor => doctor::main(),
        Command::Image(args) => image::main(args),
        Command::Node(args) => node::main(args),
        Command::Agent(args) => agent::main(args),
    };
    ExitCode::from(match result {
        Ok(code) => code,
        Err(Failure::Arguments(e)) => {
            eprintln!("error: {e:#}");
            exit::BAD_ARGUMENTS
        }
        Err(Failure::Tester(e)) => {
            eprintln!("error: {e:#}");
            exit::FAILED
        }
    })
}

/// A runtime for commands that run tests.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Becomes true at the first Ctrl-C or SIGTERM. The second ends the process at once; the nodes end with it.
fn interrupts() -> watch::Receiver<bool> {
    let (pressed, interrupt) = watch::channel(false);
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        for press in 1.. {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            if press > 1 {
                std::process::exit(i32::from(exit::FAILED));
            }
            eprintln!(
                "\ninterrupted: healing, tearing down and judging what there is (again to quit at once)"
            );
            let _ = pressed.send(true);
        }
    });
    interrupt
}
