//! What the sessions have written and seen, as numbers.
//!
//! ```text
//! process 3    write 7 to x    read x -> 5        session 0:  [write 0]  [saw write 1]
//! process 4    write 5 to x                       session 1:  [write 1]
//! ```
//!
//! Values tell the write that is seen, if they were written once; what names no write, or several, says nothing and is
//! counted. Deliberately for registers (read, write, compare-and-set, delete) and for sets that grow (add, read of the
//! whole): keys on which anything else is done are left out.

use rustc_hash::FxHashMap;

use crate::{Key, Op, OpOutcome, Operation, Operations, Ret, Value};

/// No write.
pub(super) const NONE: u32 = u32::MAX;

/// What a read has seen of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// That nobody had written it.
    Nothing,
    /// The value of this write.
    Write(u32),
    /// The elements of these adds, in the order of session and place.
    Set(Vec<u32>),
}

/// An operation of a session: what it saw, and then what it wrote.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) operation: u32,
    pub(super) key: u32,
    pub(super) saw: Option<Seen>,
    pub(super) wrote: u32,
}

/// A write that took effect, or may have.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) operation: u32,
    pub(super) session: u32,
    /// How many writes of the session come before.
    pub(super) place: u32,
    pub(super) key: u32,
    pub(super) call: u64,
    /// `u64::MAX` if it never returned.
    pub(super) ret: u64,
    /// The same value was written by others, too: seeing it does not tell whose it was.
    pub(super) shared: bool,
    /// For a compare-and-set: the write that it replaced.
    pub(super) replaced: u32,
}

/// Everything that the sessions did, in the order of the calls.
#[derive(Default)]
pub(super) struct Accesses {
    pub(super) keys: Vec<Key>,
    forms: Vec<Form>,
    pub(super) writes: Vec<Write>,
    /// Of each session its steps.
    pub(super) sessions: Vec<Vec<Step>>,
    /// Of each session its process.
    pub(super) processes: Vec<u64>,
    /// Reads that say nothing: their value was written more than once, by nobody, or later.
    pub(super) vague: u64,
    /// Operations on keys that are neither registers nor sets.
    pub(super) foreign: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Only read so far.
    Open,
    Register,
    Set,
    Other,
}

#[derive(Clone, Copy)]
enum Writer {
    One(u32),
    Many,
}

#[derive(Default)]
struct Names {
    places: FxHashMap<Key, u32>,
    forms: Vec<Form>,
    /// By key and value.
    writers: FxHashMap<(u32, Value), Writer>,
    /// All adds of an element that was added more than once.
    many: FxHashMap<(u32, Value), Vec<u32>>,
}

/// What an operation writes, if anything.
fn written(operation: &Operation) -> Option<Value> {
    match (&operation.op, &operation.outcome) {
        (_, OpOutcome::Fail) => None,
        (Op::Cas { .. }, OpOutcome::Ok(Ret::Swapped { swapped: false, .. })) => None,
        (Op::Write { value, .. } | Op::Add { value, .. } | Op::Cas { new: value, .. }, _) => {
            Some(value.clone())
        }
        (Op::Delete { .. }, _) => Some(Value::Nil),
        _ => None,
    }
}

/// What an operation found, if it tells.
fn found(operation: &Operation) -> Option<&Value> {
    match (&operation.op, &operation.outcome) {
        (Op::Read { .. }, OpOutcome::Ok(Ret::Value(value))) => Some(value),
        (Op::Cas { expected, .. }, OpOutcome::Ok(Ret::Swapped { swapped: true, .. })) => Some(expected),
        (Op::Cas { .. }, OpOutcome::Ok(Ret::Swapped { found, .. })) => found.as_ref(),
        _ => None,
    }
}

impl Accesses {
    pub(super) fn new(operations: Operations<'_>) -> Accesses {
        let mut all = Accesses::default();
        let mut names = Names::default();
        let mut sessions: FxHashMap<u64, u32> = FxHashMap::default();
        let mut wrote: Vec<u32> = Vec::with_capacity(operations.len());
        let mut counts: Vec<u32> = Vec::new();
        for operation in operations.iter() {
            let session = *sessions.entry(operation.process).or_insert_with(|| {
                all.processes.push(operation.process);
                counts.push(0);
                counts.len() as u32 - 1
            });
            wrote.push(all.write(&operation, session, &mut counts[session as usize], &mut names));
        }
        all.sessions.resize_with(counts.len(), Vec::new);
        for operation in operations.iter() {
            let Some(place) = operation.op.key().and_then(|key| names.places.get(key)) else { continue };
            let (key, wrote) = (*place, wrote[operation.id]);
            if names.forms[key as usize] == Form::Other {
                all.foreign += 1;
                continue;
            }
            let saw = found(&operation).and_then(|value| all.seen(key, value, &operation, &names));
            if wrote != NONE {
                let expected = match (&operation.op, &saw) {
                    (Op::Cas { .. }, Some(Seen::Write(write))) => *write,
                    // Of unknown outcome: if it took effect, it replaced what it expected.
                    (Op::Cas { expected, .. }, None) => match names.writers.get(&(key, expected.clone())) {
                        Some(Writer::One(write)) if operation.outcome == OpOutcome::Info => *write,
                        _ => NONE,
                    },
                    _ => NONE,
                };
                all.writes[wrote as usize].replaced = if expected == wrote { NONE } else { expected };
            }
            if saw.is_some() || wrote != NONE {
                let session = sessions[&operation.process] as usize;
                all.sessions[session].push(Step { operation: operation.id as u32, key, saw, wrote });
            }
        }
        all.forms = names.forms;
        all
    }

    /// The writes that a step is known to have seen.
    pub(super) fn sources<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = u32> + 'a {
        let all: &[u32] = match &step.saw {
            Some(Seen::Write(write)) => std::slice::from_ref(write),
            Some(Seen::Set(all)) => all,
            _ => &[],
        };
        all.iter().copied().filter(|write| !self.writes[*write as usize].shared)
    }

    /// Whether elements are added to this key.
    pub(super) fn is_set(&self, key: u32) -> bool {
        self.forms[key as usize] == Form::Set
    }

    /// Takes note of what an operation writes, and of what its key is.
    fn write(&mut self, operation: &Operation, session: u32, count: &mut u32, names: &mut Names) -> u32 {
        let Some(key) = operation.op.key() else {
            self.foreign += 1;
            return NONE;
        };
        if operation.outcome == OpOutcome::Fail {
            return NONE;
        }
        let at = *names.places.entry(key.clone()).or_insert_with(|| {
            self.keys.push(key.clone());
            names.forms.push(Form::Open);
            self.keys.len() as u32 - 1
        });
        let form = match operation.op {
            Op::Read { .. } => Form::Open,
            Op::Write { .. } | Op::Cas { .. } | Op::Delete { .. } => Form::Register,
            Op::Add { .. } => Form::Set,
            _ => Form::Other,
        };
        let known = &mut names.forms[at as usize];
        *known = match (*known, form) {
            (known, Form::Open) => known,
            (Form::Open, form) => form,
            (known, form) if known == form => known,
            _ => Form::Other,
        };
        // A counter is read as a number.
        if let (Op::Read { .. }, OpOutcome::Ok(Ret::Value(value))) = (&operation.op, &operation.outcome)
            && *known == Form::Set
            && !matches!(value, Value::List(_) | Value::Nil)
        {
            *known = Form::Other;
        }
        let Some(value) = written(operation) else { return NONE };
        let number = self.writes.len() as u32;
        let mut shared = false;
        let name = (at, value);
        match names.writers.get(&name).copied() {
            None => {
                names.writers.insert(name, Writer::One(number));
            }
            Some(before) => {
                shared = true;
                let all = names.many.entry(name.clone()).or_default();
                if let Writer::One(first) = before {
                    self.writes[first as usize].shared = true;
                    all.push(first);
                }
                all.push(number);
                names.writers.insert(name, Writer::Many);
            }
        }
        self.writes.push(Write {
            operation: operation.id as u32,
            session,
            place: *count,
            key: at,
            call: operation.call,
            ret: operation.ret.unwrap_or(u64::MAX),
            shared,
            replaced: NONE,
        });
        *count += 1;
        number
    }

    fn seen(&mut self, key: u32, value: &Value, operation: &Operation, names: &Names) -> Option<Seen> {
        let returned = operation.ret.unwrap_or(u64::MAX);
        let form = names.forms[key as usize];
        if let (Form::Set, Value::List(elements)) = (form, value) {
            let mut all = Vec::with_capacity(elements.len());
            for element in elements.iter() {
                let name = (key, element.clone());
                match names.writers.get(&name) {
                    Some(Writer::One(write)) if self.writes[*write as usize].call <= returned => {
                        all.push(*write);
                    }
                    Some(Writer::Many) => all.extend(names.many.get(&name).into_iter().flatten()),
                    _ => self.vague += 1,
                }
            }
            all.sort_unstable_by_key(|write| {
                let write = &self.writes[*write as usize];
                (write.session, write.place)
            });
            all.dedup();
            return Some(Seen::Set(all));
        }
        match (form, value) {
            (Form::Set, Value::Nil) => return Some(Seen::Set(vec![])),
            // Whether it was a counter or a list, it is no set and no register.
            (Form::Set, _) => return None,
            _ => {}
        }
        match names.writers.get(&(key, value.clone())) {
            // What was written as nil looks like what was never written.
            Some(Writer::One(write))
                if *value != Value::Nil && self.writes[*write as usize].call <= returned =>
            {
                Some(Seen::Write(*write))
            }
            None if *value == Value::Nil => Some(Seen::Nothing),
            _ => {
                self.vague += 1;
                None
            }
        }
    }
}
