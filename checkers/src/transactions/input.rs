//! `Transactions`: a history's transactions in flat arrays, as the search wants them.
//!
//! ```text
//! T0  process 3  [r 5 -> [1 2]; append 5 3]  ok     T1 …
//!
//! first     0       2 …            where the micro-operations of T0, T1, … begin
//! mops      r 5     append 5 …     key and value are dense numbers, a list is a range of `elements`
//! elements  1 2 …
//! ```
//!
//! This is the only file that knows how a [`History`] is made: another source of transactions fills a [`Builder`]. Values
//! themselves are kept for explanations only. Deliberately without judgement: what cannot be read as a transaction of the
//! asked kind is set aside under its key, and the judge says so.

use rustc_hash::FxHashMap;

use crate::{History, Key, Mop as OpMop, Op, OpOutcome, Operation, Ret, Value};

/// The end of a transaction that has none: nobody knows whether, or when, it took effect.
pub(super) const NEVER: u64 = u64::MAX;
/// The number of [`Value::Nil`].
pub(super) const NIL: u32 = 0;
/// More transactions or micro-operations than this are refused: an edge packs its target with its kind.
const MOST: usize = (1 << 30) - 1;

/// What the keys of a history hold, and so what can be inferred from a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datatype {
    /// Lists that are appended to: a read shows all earlier appends, in their order.
    ListAppend,
    /// Registers that are overwritten: a read shows the last write only.
    RwRegister,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// It committed.
    Ok,
    /// Nobody knows.
    Info,
    /// It did not commit, and never will.
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MopKind {
    /// `at` is the number of the value; an append or an overwrite, by the datatype.
    Write,
    /// Of a list: `at .. at + len` of the elements. Of a register: `at` is the number of the value.
    Read,
    /// A read whose answer is not known.
    Blind,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Mop {
    pub(super) key: u32,
    pub(super) kind: MopKind,
    pub(super) at: u32,
    pub(super) len: u32,
}

/// Transactions in the order of their invocations. Filled by a [`Builder`].
#[derive(Debug)]
pub struct Transactions {
    pub(super) datatype: Datatype,
    pub(super) process: Vec<u32>,
    pub(super) begin: Vec<u64>,
    pub(super) end: Vec<u64>,
    pub(super) outcome: Vec<TxnOutcome>,
    pub(super) operation: Vec<usize>,
    pub(super) first: Vec<u32>,
    pub(super) mops: Vec<Mop>,
    pub(super) elements: Vec<u32>,
    pub(super) processes: Vec<u64>,
    pub(super) keys: Vec<Key>,
    pub(super) values: Vec<Value>,
    /// Keys that hold something else than the datatype says: nothing can be inferred of them.
    pub(super) mixed: Vec<bool>,
    /// Why the first of them is set aside.
    pub(super) mixed_reason: Option<String>,
}

impl Transactions {
    /// Reads a history. Single reads, writes and appends count as transactions of one micro-operation.
    ///
    /// # Errors
    /// In words: the history is malformed, has an operation that may touch any key, or is too large.
    pub fn of_history(history: &History, datatype: Datatype) -> Result<Transactions, String> {
        let operations = history.paired().map_err(|error| format!("the history is malformed: {error}"))?;
        let mut builder = Builder::new(datatype);
        for operation in operations.iter() {
            builder.operation(&operation)?;
        }
        builder.finish()
    }

    /// The same for operations that are joined already.
    ///
    /// # Errors
    /// As [`Transactions::of_history`].
    pub fn of_operations(operations: &[Operation], datatype: Datatype) -> Result<Transactions, String> {
        let mut builder = Builder::new(datatype);
        for operation in operations {
            builder.operation(operation)?;
        }
        builder.finish()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.process.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.process.is_empty()
    }

    pub(super) fn mops_of(&self, txn: u32) -> &[Mop] {
        &self.mops[self.first[txn as usize] as usize..self.first[txn as usize + 1] as usize]
    }

    pub(super) fn list(&self, mop: &Mop) -> &[u32] {
        &self.elements[mop.at as usize..mop.at as usize + mop.len as usize]
    }

    pub(super) fn is_ok(&self, txn: u32) -> bool {
        self.outcome[txn as usize] == TxnOutcome::Ok
    }
}

/// Numbers values in the order in which they come. Small whole numbers, the usual ones, need no hashing.
#[derive(Debug, Default)]
struct Numbers {
    small: Vec<u32>,
    other: FxHashMap<Value, u32>,
    values: Vec<Value>,
}

/// Below this, a whole number is its own place in a table.
const SMALL: i64 = 1 << 22;

impl Numbers {
    fn of(&mut self, value: &Value) -> u32 {
        let next = self.values.len() as u32;
        if let Value::Int(small @ 0..SMALL) = *value {
            let small = small as usize;
            if self.small.len() <= small {
                self.small.resize(small + 1, u32::MAX);
            }
            if self.small[small] == u32::MAX {
                self.small[small] = next;
                self.values.push(value.clone());
            }
            return self.small[small];
        }
        if let Some(number) = self.other.get(value) {
            return *number;
        }
        self.other.insert(value.clone(), next);
        self.values.push(value.clone());
        next
    }
}

/// Puts transactions together: [`begin`](Builder::begin), its micro-operations, the next, and at last
/// [`finish`](Builder::finish).
#[derive(Debug)]
pub struct Builder {
    made: Transactions,
    keys: Numbers,
    values: Numbers,
    processes: FxHashMap<u64, u32>,
}

impl Builder {
    /// Nothing yet.
    pub fn new(datatype: Datatype) -> Self {
        let mut values = Numbers::default();
        values.of(&Value::Nil);
        Builder {
            made: Transactions {
                datatype,
                process: Vec::new(),
                begin: Vec::new(),
                end: Vec::new(),
                outcome: Vec::new(),
                operation: Vec::new(),
                first: vec![0],
                mops: Vec::new(),
                elements: Vec::new(),
                processes: Vec::new(),
                keys: Vec::new(),
                values: Vec::new(),
                mixed: Vec::new(),
                mixed_reason: None,
            },
            keys: Numbers::default(),
            values,
            processes: FxHashMap::default(),
        }
    }

    /// A transaction: the id of its operation, who, when it was called, when and how it returned. They come in the order of
    /// their calls. A process does one at a time; what has no end nobody knows the outcome of.
    pub fn begin(
        &mut self,
        operation: usize,
        process: u64,
        call: u64,
        ret: Option<u64>,
        outcome: TxnOutcome,
    ) {
        let made = &mut self.made;
        let next = self.processes.len() as u32;
        let number = *self.processes.entry(process).or_insert(next);
        if number == next {
            made.processes.push(process);
        }
        made.process.push(number);
        made.operation.push(operation);
        made.begin.push(call);
        made.end.push(match outcome {
            TxnOutcome::Info => NEVER,
            _ => ret.map_or(NEVER, |ret| ret.max(call)),
        });
        made.outcome.push(outcome);
        made.first.push(made.mops.len() as u32);
    }

    /// An append or an overwrite, by the datatype.
    pub fn write(&mut self, key: &Key, value: &Value) {
        let at = self.values.of(value);
        self.push(key, MopKind::Write, at, 0);
    }

    /// A read. An answer of the wrong type sets its key aside.
    pub fn read(&mut self, key: &Key, found: Option<&Value>) {
        match (self.made.datatype, found) {
            (_, None) => self.push(key, MopKind::Blind, 0, 0),
            (Datatype::RwRegister, Some(value)) => {
                let at = self.values.of(value);
                self.push(key, MopKind::Read, at, 0);
            }
            (Datatype::ListAppend, Some(Value::Nil)) => self.push(key, MopKind::Read, 0, 0),
            (Datatype::ListAppend, Some(Value::List(list))) => {
                let at = self.made.elements.len();
                self.made.elements.extend(list.iter().map(|value| self.values.of(value)));
                self.push(key, MopKind::Read, at as u32, list.len() as u32);
            }
            (Datatype::ListAppend, Some(other)) => {
                self.push(key, MopKind::Blind, 0, 0);
                self.set_aside(key, || format!("a read of key {key} found {other}, which is no list"));
            }
        }
    }

    /// All that there is.
    ///
    /// # Errors
    /// When it is more than the numbers of the arrays reach.
    pub fn finish(mut self) -> Result<Transactions, String> {
        let made = &mut self.made;
        if made.len() > MOST || made.mops.len() > MOST || made.elements.len() > u32::MAX as usize {
            return Err(format!(
                "{} transactions with {} micro-operations that read {} elements are more than this checker counts to",
                made.len(),
                made.mops.len(),
                made.elements.len()
            ));
        }
        made.keys = self.keys.values;
        made.values = self.values.values;
        made.mixed.resize(made.keys.len(), false);
        Ok(self.made)
    }

    fn push(&mut self, key: &Key, kind: MopKind, at: u32, len: u32) {
        let key = self.keys.of(key);
        self.made.mops.push(Mop { key, kind, at, len });
        *self.made.first.last_mut().expect("there is always one") = self.made.mops.len() as u32;
    }

    fn set_aside(&mut self, key: &Key, why: impl FnOnce() -> String) {
        let key = self.keys.of(key) as usize;
        if self.made.mixed.len() <= key {
            self.made.mixed.resize(key + 1, false);
        }
        self.made.mixed[key] = true;
        self.made.mixed_reason.get_or_insert_with(why);
    }

    fn operation(&mut self, operation: &Operation) -> Result<(), String> {
        let (outcome, ret) = match &operation.outcome {
            OpOutcome::Ok(ret) => (TxnOutcome::Ok, Some(ret)),
            OpOutcome::Info => (TxnOutcome::Info, None),
            OpOutcome::Fail => (TxnOutcome::Fail, None),
        };
        if let Op::Read { mode, .. } = &operation.op
            && !mode.claims_linearizability()
        {
            return Ok(());
        }
        self.begin(operation.id, operation.process, operation.call, operation.ret, outcome);
        match &operation.op {
            Op::Txn { mops } => {
                let found = match ret {
                    Some(Ret::Txn(found)) => &found[..],
                    _ => &[],
                };
                let mut found = found.iter();
                for mop in mops.iter() {
                    match mop {
                        OpMop::Read { key } => self.read(key, found.next()),
                        OpMop::Write { key, value } => self.change(key, value, Datatype::RwRegister),
                        OpMop::Append { key, value } => self.change(key, value, Datatype::ListAppend),
                    }
                }
            }
            Op::Read { key, .. } => match ret {
                Some(Ret::Value(value)) => self.read(key, Some(value)),
                _ => self.read(key, None),
            },
            Op::Write { key, value } => self.change(key, value, Datatype::RwRegister),
            Op::Append { key, value } => self.change(key, value, Datatype::ListAppend),
            _ if outcome == TxnOutcome::Fail => {}
            other => match other.key() {
                Some(key) => {
                    self.set_aside(key, || format!("operation {} is no transaction: {other}", operation.id));
                }
                None => {
                    return Err(format!(
                        "operation {} of process {}, {other}, may touch any key, so none can be judged",
                        operation.id, operation.process
                    ));
                }
            },
        }
        Ok(())
    }

    /// A change of one datatype's kind. In a history of the other it makes its key unfit, unless it did not happen.
    fn change(&mut self, key: &Key, value: &Value, datatype: Datatype) {
        if self.made.datatype == datatype {
            self.write(key, value);
        } else if self.made.outcome.last() != Some(&TxnOutcome::Fail) {
            let what = if datatype == Datatype::RwRegister { "overwritten" } else { "appended to" };
            self.set_aside(key, || format!("key {key} is {what}, which this checker does not judge"));
        }
    }
}
