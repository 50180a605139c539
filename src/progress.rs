//! What a person sees while a run goes on: one live line on a terminal, a plain line now and then elsewhere. Always on
//! stderr.
//!
//! ```text
//! ⠹ 12s/30s  398 ops/s  ok 4731  fail 12  info 9  ┃ pause leader (n3)
//! ```

use crate::{clock::Clock, journal::Journal, run::tally};
use indicatif::{ProgressBar, ProgressStyle};
use nemesis::Notice;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{IsTerminal, Write},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::JoinHandle;

/// Draws work that may take long, on a terminal's stderr: of how many bytes, if that is known, else how long it has taken.
pub fn of_work(what: &str, bytes: Option<u64>) -> ProgressBar {
    // Whoever asks for JSON or writes to a file is not disturbed: nothing is drawn where there is no terminal.
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{msg}: {bytes} of {total_bytes}, {elapsed}"),
        None => (ProgressBar::new_spinner(), "{msg}: {elapsed} {spinner}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Draws the progress of one run.
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    faults: Faults,
    ticker: Mutex<Option<JoinHandle<()>>>,
    log: Log,
}

/// `tribunal.log`: phases and faults, with the time since the log began. That it cannot be written ends no run.
#[derive(Clone)]
struct Log(Arc<Mutex<(Option<File>, Clock)>>);

impl Log {
    fn line(&self, text: &str) {
        let mut log = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let seconds = log.1.now() as f64 / 1e9;
        if let Some(file) = &mut log.0 {
            let _ = writeln!(file, "{seconds:9.3} {text}");
        }
    }
}

/// The faults in force at the moment.
#[derive(Clone)]
pub struct Faults {
    in_force: Arc<Mutex<BTreeMap<usize, String>>>,
    log: Log,
}

impl Faults {
    /// Keeps up with the nemesis.
    pub fn notice(&self, notice: &Notice) {
        let mut map = self.in_force.lock().unwrap_or_else(|e| e.into_inner());
        let observed = notice.observed.as_deref().unwrap_or_default();
        self.log.line(&format!("{} {} ({}) {observed}", notice.phase, notice.fault, notice.on));
        match notice.phase {
            "started" => drop(map.insert(notice.step, format!("{} ({})", notice.fault, notice.on))),
            "stop" => drop(map.remove(&notice.step)),
            _ => {}
        }
    }

    fn describe(&self) -> String {
        let map = self.in_force.lock().unwrap_or_else(|e| e.into_inner());
        map.values().cloned().collect::<Vec<_>>().join(", ")
    }
}

impl Progress {
    /// Progress on stderr, none at all if `quiet`, and in a log file.
    pub fn new(quiet: bool, log: &Path) -> Self {
        let log = Log(Arc::new(Mutex::new((File::create(log).ok(), Clock::start()))));
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let faults = Faults { in_force: Arc::default(), log: log.clone() };
        Progress { bar, quiet, faults, ticker: Mutex::default(), log }
    }

    /// What is told of the faults.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// A new phase begins.
    pub fn phase(&self, name: &str) {
        self.stop_ticker();
        self.log.line(name);
        match &self.bar {
            Some(bar) => bar.set_message(name.to_owned()),
            None if !self.quiet => eprintln!("{name}"),
            None => {}
        }
    }

    /// The load begins.
    pub fn load(&self, journal: &Journal, clock: Clock, start: u64, end: u64) {
        if self.quiet {
            return;
        }
        let (journal, faults, bar) = (journal.clone(), self.faults.clone(), self.bar.clone());
        let every = Duration::from_millis(if bar.is_some() { 200 } else { 5000 });
        let task = tokio::spawn(async move {
            let mut last = (clock.now(), 0);
            loop {
                tokio::time::sleep(every).await;
                let [asked, ok, fail, info] = tally(journal.counts());
                let now = clock.now();
                let rate = (asked - last.1) as f64 / ((now - last.0) as f64 / 1e9);
                last = (now, asked);
                let seconds = |ns: u64| ns / 1_000_000_000;
                let faults = faults.describe();
                let faults = if faults.is_empty() { faults } else { format!("  | {faults}") };
                let text = format!(
                    "{}s/{}s  {rate:.0} ops/s  ok {ok}  fail {fail}  info {info}{faults}",
                    seconds(now - start),
                    seconds(end - start)
                );
                match &bar {
                    Some(bar) => bar.set_message(text),
                    None => eprintln!("{text}"),
                }
            }
        });
        *self.ticker.lock().unwrap_or_else(|e| e.into_inner()) = Some(task);
    }

    /// Nothing more to draw.
    pub fn done(&self) {
        self.stop_ticker();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn stop_ticker(&self) {
        if let Some(task) = self.ticker.lock().unwrap_or_else(|e| e.into_inner()).take() {
            task.abort();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}
