//! Session guarantees: what one client may rely on, wherever its requests are served.
//!
//! ```text
//! read-your-writes      p1: write 1   read -> nil              its own write is not there
//! monotonic-reads       p1: read -> 1   read -> 2   read -> 1  it goes back, whichever of the two is newer
//! monotonic-writes      p1: add 1   add 2   p2: read -> [2]    the second is there without the first
//! writes-follow-reads   p1: read -> [1]   add 2   p2: read -> [2]   the answer is there without the question
//! causal                all four, together
//! ```
//!
//! Terry, Demers, Petersen, Spreitzer, Theimer and Welch, *Session guarantees for weakly consistent replicated data*, PDIS
//! 1994. A session is a process. Each guarantee says which writes must be **visible** to an operation, and which must be
//! **ordered** before which; a read of a register tells the last visible write of its key in that order, a read of a set
//! tells all visible adds. The history breaks a guarantee if no such order and visibility exist: then and only then. All four
//! together are causal convergence (Brzezinski, Sobaniec and Wawrzyniak, PDP 2004; Bouajjani, Enea, Guerraoui and Hamza,
//! *On verifying causal consistency*, POPL 2017, whose polynomial test for distinct values this is).
//!
//! Reads of every mode are judged, stale ones above all. What is not known is not assumed: writes may be ordered against
//! real time, as with clocks that differ. [`SessionOptions::linearizable_writes`] says that they are not, and then far more
//! can be seen. Deliberately blind to values that were written more than once.

mod accesses;
mod causal;
#[cfg(test)]
mod oracle;
mod order;
mod single;

use serde_json::{Value as Json, json};

use self::{
    accesses::{Accesses, NONE},
    order::{Circle, Order, Why},
};
use super::{MAX_TOLD, checker};
use crate::{Checker, Operations, Validity, timeline};

/// What a session may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guarantee {
    /// A read sees what its session wrote before.
    ReadYourWrites,
    /// A read sees what its session saw before.
    MonotonicReads,
    /// Who sees a write of a session sees those that it wrote before, and in this order.
    MonotonicWrites,
    /// Who sees a write of a session sees what it had seen before, and in this order.
    WritesFollowReads,
    /// All four.
    Causal,
}

impl Guarantee {
    /// All of them.
    pub const ALL: [Guarantee; 5] = [
        Guarantee::ReadYourWrites,
        Guarantee::MonotonicReads,
        Guarantee::MonotonicWrites,
        Guarantee::WritesFollowReads,
        Guarantee::Causal,
    ];

    /// The name of its checker.
    pub const fn name(self) -> &'static str {
        match self {
            Guarantee::ReadYourWrites => "read-your-writes",
            Guarantee::MonotonicReads => "monotonic-reads",
            Guarantee::MonotonicWrites => "monotonic-writes",
            Guarantee::WritesFollowReads => "writes-follow-reads",
            Guarantee::Causal => "causal",
        }
    }
}

/// What may be assumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Writes of a key take effect between their call and their return, as with a single leader, though reads may be stale: of
    /// two writes that do not overlap the earlier one is the older version.
    pub linearizable_writes: bool,
}

/// Steps that the comparison of sets, or of many sessions, may take.
const STEPS: u64 = 400_000_000;

/// Judges one guarantee. Unknown if no session could have shown that it is broken, or if it is broken should writes take
/// effect in the order of real time, which is not assumed.
pub fn session(guarantee: Guarantee, options: SessionOptions) -> impl Checker {
    checker(guarantee.name(), move |operations, findings| {
        let accesses = Accesses::new(operations);
        let mut judge = Judge::new(&accesses, operations, options.linearizable_writes);
        judge.judge(guarantee);
        let Judge { steps_left, chances, faults, untold, .. } = judge;
        let broken = !faults.is_empty();
        for Fault { message, operations, details } in faults {
            findings.guilty(guarantee.name(), operations, message, details);
        }
        findings.untold(guarantee.name(), untold);
        findings.stat("sessions", accesses.sessions.len());
        findings.stat("reads_that_could_show_it", chances);
        findings.stat("reads_that_say_nothing", accesses.vague);
        findings.stat("operations_left_out", accesses.foreign);
        if steps_left == 0 {
            findings.doubt("there are too many sessions and elements to compare all of them");
        }
        if chances == 0 {
            findings.doubt(nothing_to_see(guarantee));
        }
        if !broken && chances == 0 && guarantee != Guarantee::Causal {
            let mut judge = Judge::new(&accesses, operations, options.linearizable_writes);
            judge.judge(Guarantee::Causal);
            if let Some(fault) = judge.faults.first() {
                findings.doubt(format!("all session guarantees together are broken: {}", fault.message));
            }
        }
        if !broken && !options.linearizable_writes {
            let mut judge = Judge::new(&accesses, operations, true);
            judge.judge(guarantee);
            if let Some(fault) = judge.faults.first() {
                findings.doubt(format!(
                    "it is broken if writes take effect in the order of real time, which was not said: {}",
                    fault.message
                ));
            }
        }
    })
}

/// The same, in one word, for other judges.
pub(crate) fn holds(guarantee: Guarantee, operations: Operations<'_>, options: SessionOptions) -> Validity {
    let accesses = Accesses::new(operations);
    let mut judge = Judge::new(&accesses, operations, options.linearizable_writes);
    judge.judge(guarantee);
    match (judge.faults.is_empty(), judge.chances > 0 && judge.steps_left > 0) {
        (false, _) => Validity::Invalid,
        (true, true) => Validity::Valid,
        (true, false) => Validity::Unknown,
    }
}

fn nothing_to_see(guarantee: Guarantee) -> &'static str {
    match guarantee {
        Guarantee::ReadYourWrites => "no session read what it had written before",
        Guarantee::MonotonicReads => "no session read a key again after it had seen a write of it",
        Guarantee::MonotonicWrites => {
            "by itself it shows only in sets, and no read of a set saw the later one of two adds of a session"
        }
        Guarantee::WritesFollowReads => {
            "by itself it shows only in sets, and no read of a set saw what a session added after it had read the set"
        }
        Guarantee::Causal => "no read had to choose between several writes",
    }
}

/// Something that is not as guaranteed.
struct Fault {
    message: String,
    operations: Vec<usize>,
    details: Json,
}

struct Judge<'a> {
    accesses: &'a Accesses,
    operations: Operations<'a>,
    linearizable_writes: bool,
    order: Order,
    /// Reads that would look otherwise if the guarantee did not hold.
    chances: u64,
    steps_left: u64,
    faults: Vec<Fault>,
    /// How many more there are.
    untold: u64,
}

impl<'a> Judge<'a> {
    fn new(accesses: &'a Accesses, operations: Operations<'a>, linearizable_writes: bool) -> Self {
        Judge {
            accesses,
            operations,
            linearizable_writes,
            order: Order::new(accesses.writes.len()),
            chances: 0,
            steps_left: STEPS,
            faults: Vec::new(),
            untold: 0,
        }
    }

    fn judge(&mut self, guarantee: Guarantee) {
        match guarantee {
            Guarantee::ReadYourWrites => self.read_your_writes(),
            Guarantee::MonotonicReads => self.monotonic_reads(),
            Guarantee::MonotonicWrites => {
                self.session_order();
                self.monotonic_writes();
            }
            Guarantee::WritesFollowReads => {
                self.reads_before_writes();
                self.writes_follow_reads();
            }
            Guarantee::Causal => {
                self.session_order();
                self.reads_before_writes();
                self.causal();
            }
        }
        self.replacements();
        if self.linearizable_writes {
            self.real_time();
        }
        for circle in std::mem::replace(&mut self.order, Order::new(0)).circles() {
            self.circle(guarantee, &circle);
        }
    }

    /// A session's writes come in its order.
    fn session_order(&mut self) {
        for steps in &self.accesses.sessions {
            let writes = steps.iter().map(|step| step.wrote).filter(|wrote| *wrote != NONE);
            let mut last = NONE;
            for write in writes {
                if last != NONE {
                    self.order.before(last, write, Why::Session);
                }
                last = write;
            }
        }
    }

    /// What a session has seen comes before what it writes afterwards.
    fn reads_before_writes(&mut self) {
        let mut known: rustc_hash::FxHashSet<u32> = Default::default();
        for steps in &self.accesses.sessions {
            known.clear();
            let (mut pending, mut helper) = (Vec::new(), NONE);
            for step in steps {
                let telling = self.accesses.sources(step).filter(|write| known.insert(*write));
                pending.extend(telling.map(|write| (write, step.operation)));
                if step.wrote == NONE {
                    continue;
                }
                if !pending.is_empty() {
                    let next = self.order.helper();
                    if helper != NONE {
                        self.order.before(helper, next, Why::Helper);
                    }
                    helper = next;
                    for (write, read) in pending.drain(..) {
                        self.order.before(write, helper, Why::Followed(read));
                    }
                }
                if helper != NONE {
                    self.order.before(helper, step.wrote, Why::Helper);
                }
            }
        }
    }

    fn replacements(&mut self) {
        for (number, write) in self.accesses.writes.iter().enumerate() {
            if write.replaced != NONE {
                self.order.before(write.replaced, number as u32, Why::Replaced);
            }
        }
    }

    /// A line of stations for each key, one at each return.
    fn real_time(&mut self) {
        let writes = &self.accesses.writes;
        let mut numbers: Vec<u32> = (0..writes.len() as u32).collect();
        numbers.sort_unstable_by_key(|number| writes[*number as usize].key);
        for of_key in numbers.chunk_by(|a, b| writes[*a as usize].key == writes[*b as usize].key) {
            let mut by_return = of_key.to_vec();
            by_return.sort_unstable_by_key(|number| writes[*number as usize].ret);
            if of_key.first().is_some_and(|number| self.accesses.is_set(writes[*number as usize].key)) {
                // Their order cannot be seen.
                continue;
            }
            let mut stations: Vec<(u64, u32)> = Vec::new();
            for &number in &by_return {
                let station = self.order.helper();
                if let Some((_, last)) = stations.last() {
                    self.order.before(*last, station, Why::Helper);
                }
                self.order.before(number, station, Why::RealTime);
                stations.push((writes[number as usize].ret, station));
            }
            for &number in of_key {
                let call = writes[number as usize].call;
                let before = stations.partition_point(|(ret, _)| *ret < call);
                if let Some((_, station)) = before.checked_sub(1).map(|at| stations[at]) {
                    self.order.before(station, number, Why::Helper);
                }
            }
        }
    }

    /// Counts work; false when there was too much.
    fn spend(&mut self, steps: usize) -> bool {
        self.steps_left = self.steps_left.saturating_sub(steps as u64 + 1);
        self.steps_left > 0
    }

    fn written(&self, write: u32) -> usize {
        self.accesses.writes[write as usize].operation as usize
    }

    /// The operation in words.
    fn says(&self, operation: usize) -> String {
        let operation = self.operations.get(operation);
        let label = timeline::label(&operation);
        format!("operation {} of process {} ({label})", operation.id, operation.process)
    }

    /// Whether more faults would only be counted.
    fn is_full(&self) -> bool {
        self.faults.len() >= MAX_TOLD
    }

    fn fault(&mut self, mut operations: Vec<usize>, message: String, key: u32) {
        operations.sort_unstable();
        operations.dedup();
        if self.is_full() {
            self.untold += 1;
            return;
        }
        let details = json!({"key": self.accesses.keys[key as usize]});
        self.faults.push(Fault { message, operations, details });
    }

    /// A read that lacks a write that had to be visible, through these operations if it is not its session's own.
    fn missing(&mut self, key: u32, write: u32, through: &[u32], read: u32) {
        if self.is_full() {
            self.untold += 1;
            return;
        }
        let (write, read) = (self.written(write), read as usize);
        let told: Vec<String> = through.iter().map(|through| self.says(*through as usize)).collect();
        let why = match &told[..] {
            [] => String::new(),
            told => format!(", which had to be visible after {}", told.join(" and ")),
        };
        let message = format!(
            "key {}: {} does not show {}{why}",
            self.accesses.keys[key as usize],
            self.says(read),
            self.says(write)
        );
        let operations =
            [write, read].into_iter().chain(through.iter().map(|through| *through as usize)).collect();
        self.fault(operations, message, key);
    }

    fn circle(&mut self, guarantee: Guarantee, circle: &Circle) {
        if self.is_full() {
            self.untold += 1;
            return;
        }
        let mut operations = Vec::new();
        let mut steps = Vec::new();
        for (at, (write, why)) in circle.iter().enumerate() {
            let next = circle[(at + 1) % circle.len()].0;
            let (from, to) = (self.written(*write), self.written(next));
            operations.push(from);
            let process = self.operations.get(from).process;
            let because = match why {
                Why::Saw(read, through) => {
                    operations.push(*read as usize);
                    let mut through: Vec<u32> =
                        Some(*through).filter(|through| *through != NONE).into_iter().collect();
                    if guarantee == Guarantee::Causal {
                        through = self.chain(*read, *write);
                    }
                    operations.extend(through.iter().map(|operation| *operation as usize));
                    let told: Vec<String> =
                        through.iter().map(|operation| self.says(*operation as usize)).collect();
                    let after = if told.is_empty() {
                        String::new()
                    } else {
                        format!(" after {}", told.join(" and "))
                    };
                    format!(
                        "the first had to be visible to {}{after}, which shows the second",
                        self.says(*read as usize)
                    )
                }
                Why::Followed(read) => {
                    operations.push(*read as usize);
                    format!("{} saw the first before its session did the second", self.says(*read as usize))
                }
                Why::Session => format!("process {process} did them in this order"),
                Why::Replaced => "the second replaced the first".to_owned(),
                Why::RealTime | Why::Helper => "the first returned before the second was called".to_owned(),
            };
            steps.push(format!("{} comes before {}: {because}", self.says(from), self.says(to)));
        }
        let key = self.accesses.writes[circle[0].0 as usize].key;
        let message = format!("writes would have to come in a circle. {}", steps.join("; "));
        self.fault(operations, message, key);
    }
}
