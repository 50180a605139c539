//! The tester's hand where a node lives: `tribunal agent`, a process that is asked by lines of JSON on its standard input.
//!
//! ```text
//! controller ── {"id":7,"do":"run","argv":["iptables",…]} ──▶ agent      in a namespace, in a holder container,
//!            ◀─ {"id":7,"result":{"Ok":…}} ──                            on a host behind ssh, or beside the controller
//! ```
//! Requests are served at the same time, each by a thread. When the input ends, the agent undoes what it did: programs
//! that it was told to run at the end ([`Request::AtEnd`]), mounts, nodes that it started. So nothing is left on a host
//! whose controller has died. Synchronous, without a runtime: it must start fast and be small beside a node.

#[cfg(target_os = "linux")]
pub mod clock;
mod damage;
#[cfg(target_os = "linux")]
pub mod disk;
mod disks;
#[cfg(target_os = "linux")]
pub mod packets;
mod probe;
mod queue;
mod run;
mod supervise;

use crate::owner;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    io::{BufRead, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// A request with its number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    /// Comes back in the answer.
    pub id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub request: Request,
}

/// The answer to the request of that number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The request's number.
    pub id: u64,
    /// What was asked for, or what went wrong.
    pub result: Result<Value, String>,
}

/// What an agent can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// Who it is, and on which UDP port it receives probes.
    Hello,
    /// Runs a program to its end, with this on its standard input. Answers its standard output.
    Run {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Its standard input.
        input: Option<String>,
    },
    /// Runs a program when the input ends; the last one given runs first.
    AtEnd {
        /// The program and its arguments.
        argv: Vec<String>,
    },
    /// Reads a small file.
    Read {
        /// Which.
        path: PathBuf,
    },
    /// Expects a train of probes of this number.
    Expect {
        /// The train's number.
        train: u64,
    },
    /// Sends a train of probes.
    Probe {
        /// To whom: an agent's address and the port of its [`Request::Hello`].
        to: SocketAddr,
        /// The train's number.
        train: u64,
        /// How many packets.
        packets: u32,
        /// Time between two packets, in microseconds.
        gap_us: u64,
    },
    /// What arrived of a train.
    Arrived {
        /// The train's number.
        train: u64,
    },
    /// Opens the packet queue of this number in the agent's network.
    OpenQueue {
        /// As in `-j NFQUEUE --queue-num`.
        number: u16,
        /// Draws jitter and fates.
        seed: u64,
    },
    /// Sets what the packet queue does to the packets of a source.
    Treat {
        /// Whose packets.
        source: std::net::Ipv4Addr,
        /// What is done to them.
        shape: nemesis::LinkShape,
    },
    /// What the packet queue has done to the packets of a source.
    Treated {
        /// Whose packets.
        source: std::net::Ipv4Addr,
    },
    /// Sets the wall clock of a process off by so many nanoseconds.
    SetClock {
        /// The process.
        pid: i32,
        /// Nanoseconds; 0 sets it right.
        offset_ns: i64,
    },
    /// Sets the wall clocks of those of them that are off by something else.
    KeepClock {
        /// The process.
        pid: i32,
        /// Nanoseconds.
        offset_ns: i64,
    },
    /// By how many nanoseconds the wall clocks of these processes are off: the one that is farthest from the wanted offset.
    ReadClock {
        /// The process.
        pid: i32,
        /// Nanoseconds.
        wanted_ns: i64,
    },
    /// How many raw system calls these processes make in so many milliseconds to learn the time, which cannot be reached.
    RawClockCalls {
        /// The process.
        pid: i32,
        /// For how long it is watched.
        span_ms: u64,
    },
    /// Mounts a file system that can fail over a folder.
    Mount {
        /// Where the bytes are.
        folder: PathBuf,
        /// Where it is seen.
        at: PathBuf,
    },
    /// Unmounts it.
    Unmount {
        /// Where it is seen.
        at: PathBuf,
    },
    /// Sets what goes wrong with a mounted disk.
    TroubleDisk {
        /// Where it is seen.
        at: PathBuf,
        /// Each fsync takes so much longer.
        sync_delay_ms: u64,
        /// Writes and fsyncs fail with EIO.
        fail: bool,
        /// ENOSPC after so many more bytes.
        full_after_bytes: Option<u64>,
    },
    /// Counters of a mounted disk.
    DiskStats {
        /// Where it is seen.
        at: PathBuf,
    },
    /// From now on every write and sync of a mounted disk fails.
    CutPower {
        /// Where it is seen.
        at: PathBuf,
    },
    /// Takes back what was not synced.
    PowerFailure {
        /// Where it is seen.
        at: PathBuf,
        /// Only some of the sectors, which follow from this seed.
        torn: Option<u64>,
    },
    /// Damages bytes in a data folder. Answers what was done, and the request that undoes it.
    Damage {
        /// The folder.
        folder: PathBuf,
        /// Cut off the end of a file instead of flipping a bit.
        truncate: bool,
        /// Which file and which byte follow from this.
        seed: u64,
    },
    /// Removes everything below a data folder. Answers what was lost, in words.
    Wipe {
        /// The folder.
        folder: PathBuf,
    },
    /// Writes bytes (in hexadecimal) into a file.
    WriteBack {
        /// Which file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What, two digits a byte.
        hex: String,
    },
    /// Starts a process under a name, in a process group of its own. Answers its process id.
    Start {
        /// Its name.
        name: String,
        /// The program and its arguments.
        argv: Vec<String>,
        /// Additional environment.
        env: Vec<(String, String)>,
        /// Where its output is appended.
        log: PathBuf,
    },
    /// Sends a signal to the process group of that name: KILL, TERM, STOP or CONT.
    Signal {
        /// Its name.
        name: String,
        /// Which.
        signal: String,
    },
    /// The state of the process of that name: `["running", pid]`, `["paused", pid]` or `["dead", how]`.
    State {
        /// Its name.
        name: String,
    },
}

/// An agent at work.
struct Agent {
    run: String,
    probes: probe::Receiver,
    at_end: Mutex<Vec<Vec<String>>>,
    disks: disks::Disks,
    queue: queue::Queue,
    nodes: supervise::Nodes,
    #[cfg(target_os = "linux")]
    clock: Mutex<()>,
}

/// Serves requests until the standard input ends, then undoes everything. `run` marks what is left behind if even the
/// agent is killed; `folder` is removed in the end.
///
/// # Errors
/// If the agent cannot begin.
pub fn serve(run: &str, folder: Option<&std::path::Path>) -> std::io::Result<()> {
    let agent = Arc::new(Agent {
        run: run.to_owned(),
        probes: probe::Receiver::open()?,
        at_end: Mutex::default(),
        disks: disks::Disks::default(),
        queue: queue::Queue::default(),
        nodes: supervise::Nodes::default(),
        #[cfg(target_os = "linux")]
        clock: Mutex::default(),
    });
    // On a host of its own nobody else says whose it is what is made here.
    let record = folder.and_then(|_| owner::Record::write_if_there_is_none(run));
    let (answers, queue) = std::sync::mpsc::channel::<Answer>();
    let writer = std::thread::spawn(move || {
        let mut out = std::io::stdout().lock();
        for answer in queue {
            // Nobody to tell: the input will end as well.
            let Ok(line) = serde_json::to_string(&answer) else { continue };
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                break;
            }
        }
    });
    let mut at_work: Vec<std::thread::JoinHandle<()>> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        at_work.retain(|thread| !thread.is_finished());
        match serde_json::from_str::<Call>(&line) {
            Ok(Call { id, request }) => {
                let (agent, answers) = (agent.clone(), answers.clone());
                at_work.push(std::thread::spawn(move || {
                    let result = agent.carry_out(request);
                    let _ = answers.send(Answer { id, result });
                }));
            }
            Err(e) => eprintln!("tribunal agent: cannot read a request: {e}"),
        }
    }
    // What is done after it was undone would stay.
    for thread in at_work {
        let _ = thread.join();
    }
    agent.undo();
    if let Some(folder) = folder {
        // Nobody is left to be told.
        let _ = std::fs::remove_dir_all(folder);
    }
    drop(record);
    drop(answers);
    let _ = writer.join();
    Ok(())
}

fn value<T: Serialize>(result: Result<T, String>) -> Result<Value, String> {
    result.and_then(|v| serde_json::to_value(v).map_err(|e| e.to_string()))
}

impl Agent {
    fn carry_out(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::Hello => value(Ok(serde_json::json!({
                "udp-port": self.probes.port(),
                "version": env!("CARGO_PKG_VERSION"),
                // From where it was logged in, as its host sees that.
                "peer": std::env::var("SSH_CONNECTION").ok().as_deref().and_then(|c| c.split(' ').next()),
                "uid": rustix::process::geteuid().as_raw(),
            }))),
            Request::Run { argv, input } => value(run::run(&argv, input.as_deref())),
            Request::AtEnd { argv } => {
                self.at_end.lock().unwrap_or_else(|e| e.into_inner()).push(argv);
                Ok(Value::Null)
            }
            Request::Read { path } => {
                value(std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display())))
            }
            Request::Expect { train } => {
                self.probes.expect(train);
                Ok(Value::Null)
            }
            Request::Probe { to, train, packets, gap_us } => value(probe::send(to, train, packets, gap_us)),
            Request::Arrived { train } => value(self.probes.arrived(train)),
            Request::Mount { folder, at } => value(self.disks.mount(&self.run, &folder, &at)),
            Request::Unmount { at } => value(self.disks.unmount(&at)),
            Request::TroubleDisk { at, sync_delay_ms, fail, full_after_bytes } => {
                value(self.disks.trouble(&at, sync_delay_ms, fail, full_after_bytes))
            }
            Request::DiskStats { at } => self.disks.stats(&at),
            Request::CutPower { at } => value(self.disks.cut_power(&at)),
            Request::PowerFailure { at, torn } => self.disks.power_failure(&at, torn),
            Request::OpenQueue { number, seed } => value(self.queue.open(number, seed)),
            Request::Treat { source, shape } => value(self.queue.treat(source, &shape)),
            Request::Treated { source } => self.queue.treated(source),
            Request::Damage { folder, truncate, seed } => value(damage::damage(&folder, truncate, seed)),
            Request::Wipe { folder } => value(damage::wipe(&folder)),
            Request::WriteBack { file, offset, hex } => value(damage::write_back(&file, offset, &hex)),
            Request::Start { name, argv, env, log } => {
                value(self.nodes.start(&self.run, &name, &argv, env, &log))
            }
            Request::Signal { name, signal } => value(self.nodes.signal(&name, &signal)),
            Request::State { name } => value(Ok(self.nodes.state(&name))),
            clock => self.clocks(&clock),
        }
    }

    #[cfg(target_os = "linux")]
    fn clocks(&self, request: &Request) -> Result<Value, String> {
        // One tracer at a time.
        let _guard = self.clock.lock().unwrap_or_else(|e| e.into_inner());
        match request {
            Request::SetClock { pid, offset_ns } => {
                value(clock::set_tree(*pid, *offset_ns).map_err(|e| e.to_string()))
            }
            Request::KeepClock { pid, offset_ns } => {
                value(clock::keep_tree(*pid, *offset_ns).map_err(|e| e.to_string()))
            }
            Request::ReadClock { pid, wanted_ns } => {
                value(clock::measure_tree(*pid, *wanted_ns).map_err(|e| e.to_string()))
            }
            Request::RawClockCalls { pid, span_ms } => {
                let span = std::time::Duration::from_millis(*span_ms);
                value(clock::raw_calls_of_tree(*pid, span).map_err(|e| e.to_string()))
            }
            other => Err(format!("nobody serves {other:?}")),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn clocks(&self, _request: &Request) -> Result<Value, String> {
        Err("the clock of a process can be set wrong on Linux only".to_owned())
    }

    /// In the order in which a controller would have done it: nodes end before the ground goes away below them.
    fn undo(&self) {
        self.nodes.kill_all();
        self.queue.close();
        self.disks.unmount_all();
        let programs = std::mem::take(&mut *self.at_end.lock().unwrap_or_else(|e| e.into_inner()));
        for argv in programs.iter().rev() {
            // It may be gone already, with the namespace that it was in.
            let _ = run::run(argv, None);
        }
    }
}
