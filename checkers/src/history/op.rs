//! `Op` and `Ret`: what a client asks for, and what it was told.
//!
//! ```text
//! Op::Cas { key: 3, expected: 1, new: 2 }   ->   Ret::Swapped { swapped: false, found: Some(7) }
//! Op::Read { key: 3, mode: Lease }          ->   Ret::Value(7)
//! Op::Write { key: 3, value: 7 }            ->   Ret::Done
//! ```
//!
//! One closed list for every workload, so that an adapter is written once. Deliberately without meaning: what an
//! operation does to a state is said by a [`Model`](crate::Model), and how one is sent by an adapter.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{Key, Value};

/// How a read asks to be served. Systems offer several ways, and not all of them promise linearizability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadMode {
    /// Whatever the system does when nothing is asked for.
    #[default]
    Default,
    /// From the leader's memory, under a time lease (`lease`).
    Lease,
    /// Through the log, as a command of its own (`log`).
    Log,
    /// The leader confirms by a round of messages that it still leads, then answers (`read-index`).
    ReadIndex,
    /// A majority is asked, the newest answer wins (`quorum`).
    Quorum,
    /// Any replica's memory; may be old and says so (`stale`).
    Stale,
    /// From a node that believes it leads, unconfirmed (`unsafe-leader`).
    UnsafeLeader,
}

impl ReadMode {
    /// Every mode, in the order of the declaration.
    pub const ALL: [ReadMode; 7] = [
        ReadMode::Default,
        ReadMode::Lease,
        ReadMode::Log,
        ReadMode::ReadIndex,
        ReadMode::Quorum,
        ReadMode::Stale,
        ReadMode::UnsafeLeader,
    ];

    /// Whether a read of this mode promises to see the latest completed write. Others are not judged for it.
    pub fn claims_linearizability(self) -> bool {
        !matches!(self, ReadMode::Stale | ReadMode::UnsafeLeader)
    }

    /// The name in files and on the command line, in kebab case.
    pub fn name(self) -> &'static str {
        match self {
            ReadMode::Default => "default",
            ReadMode::Lease => "lease",
            ReadMode::Log => "log",
            ReadMode::ReadIndex => "read-index",
            ReadMode::Quorum => "quorum",
            ReadMode::Stale => "stale",
            ReadMode::UnsafeLeader => "unsafe-leader",
        }
    }
}

impl fmt::Display for ReadMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ReadMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        ReadMode::ALL.into_iter().find(|mode| mode.name() == name).ok_or_else(|| {
            let names: Vec<_> = ReadMode::ALL.iter().map(|mode| mode.name()).collect();
            format!("unknown read mode \"{name}\": use one of {}", names.join(", "))
        })
    }
}

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// What does the key hold? Completes with [`Ret::Value`]; [`Value::Nil`] when it is absent.
    Read {
        /// Of which key.
        key: Key,
        /// How it asks to be served.
        mode: ReadMode,
    },
    /// Set the key, whatever it held.
    Write {
        /// Which key.
        key: Key,
        /// To what.
        value: Value,
    },
    /// Set the key to `new` if it holds `expected`. Completes with [`Ret::Swapped`], also when it found another value.
    Cas {
        /// Which key.
        key: Key,
        /// What it must hold; [`Value::Nil`] means that the key must be absent.
        expected: Value,
        /// What it will hold.
        new: Value,
    },
    /// Add to the end of what the key holds.
    Append {
        /// Which key.
        key: Key,
        /// What to add.
        value: Value,
    },
    /// Remove the key.
    Delete {
        /// Which key.
        key: Key,
    },
    /// Add to a counter or to a set.
    Add {
        /// Which counter or set.
        key: Key,
        /// How much, or which element.
        value: Value,
    },
    /// Put an element into a queue.
    Enqueue {
        /// Which queue.
        key: Key,
        /// The element.
        value: Value,
    },
    /// Take an element from a queue. Completes with [`Ret::Value`]; [`Value::Nil`] when it was empty.
    Dequeue {
        /// Which queue.
        key: Key,
    },
    /// Take an element out of a set.
    Remove {
        /// Which set.
        key: Key,
        /// The element.
        value: Value,
    },
    /// Is the element in the set? Completes with [`Ret::Value`] of a [`Value::Bool`].
    Contains {
        /// Which set.
        key: Key,
        /// The element.
        value: Value,
    },
    /// Take all elements from a queue. Completes with [`Ret::Value`] of a [`Value::List`], in the order in which they came.
    Drain {
        /// Which queue.
        key: Key,
    },
    /// Put an element on a stack.
    Push {
        /// Which stack.
        key: Key,
        /// The element.
        value: Value,
    },
    /// Take the newest element from a stack. Completes with [`Ret::Value`]; [`Value::Nil`] when it was empty.
    Pop {
        /// Which stack.
        key: Key,
    },
    /// Take a lock, or a permit of a semaphore. May complete with [`Ret::Value`] of a fencing token.
    Acquire {
        /// Which lock.
        key: Key,
        /// For whom; [`Value::Nil`] for the process itself.
        owner: Value,
    },
    /// Give a lock back, or a permit.
    Release {
        /// Which lock.
        key: Key,
        /// Whose; [`Value::Nil`] for that of the process itself.
        owner: Value,
    },
    /// Make an id that nobody else gets. Completes with [`Ret::Value`].
    Generate {
        /// Of which sequence.
        key: Key,
    },
    /// Move money from one account of a bank to another. Completes with [`Ret::Done`].
    Transfer {
        /// The account that pays.
        from: Key,
        /// The account that is paid.
        to: Key,
        /// How much.
        amount: i64,
    },
    /// Several operations as one transaction. Completes with [`Ret::Txn`].
    Txn {
        /// What it does, in this order.
        mops: Arc<[Mop]>,
    },
    /// A stranger's own operation, and whatever the nemesis and the observer have to tell.
    Custom {
        /// Its name. Must not be one of the names above.
        f: Arc<str>,
        /// The key, where there is one.
        key: Option<Key>,
        /// Its argument.
        value: serde_json::Value,
    },
}

/// The names that [`Op::Custom`] may not take.
pub(crate) const BUILT_IN: [&str; 18] = [
    "read", "write", "cas", "append", "delete", "add", "remove", "contains", "enqueue", "dequeue", "drain",
    "push", "pop", "acquire", "release", "generate", "transfer", "txn",
];

/// A micro-operation: a part of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mop {
    /// What does the key hold? `["r", key, null]`
    Read {
        /// Of which key.
        key: Key,
    },
    /// Set the key. `["w", key, value]`
    Write {
        /// Which key.
        key: Key,
        /// To what.
        value: Value,
    },
    /// Add to the end of the list that the key holds. `["append", key, value]`
    Append {
        /// Which key.
        key: Key,
        /// What to add.
        value: Value,
    },
}

impl Mop {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Mop::Read { key } | Mop::Write { key, .. } | Mop::Append { key, .. } => key,
        }
    }

    /// The name in a history: `r`, `w` or `append`.
    pub fn f(&self) -> &'static str {
        match self {
            Mop::Read { .. } => "r",
            Mop::Write { .. } => "w",
            Mop::Append { .. } => "append",
        }
    }
}

impl Op {
    /// The name of the function, as in the field `f` of a history.
    pub fn f(&self) -> &str {
        match self {
            Op::Read { .. } => "read",
            Op::Write { .. } => "write",
            Op::Cas { .. } => "cas",
            Op::Append { .. } => "append",
            Op::Delete { .. } => "delete",
            Op::Add { .. } => "add",
            Op::Enqueue { .. } => "enqueue",
            Op::Dequeue { .. } => "dequeue",
            Op::Remove { .. } => "remove",
            Op::Contains { .. } => "contains",
            Op::Drain { .. } => "drain",
            Op::Push { .. } => "push",
            Op::Pop { .. } => "pop",
            Op::Acquire { .. } => "acquire",
            Op::Release { .. } => "release",
            Op::Generate { .. } => "generate",
            Op::Transfer { .. } => "transfer",
            Op::Txn { .. } => "txn",
            Op::Custom { f, .. } => f,
        }
    }

    /// The key it is about. Transfers and transactions have none, since they are about several, and custom operations may
    /// have none.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Op::Read { key, .. }
            | Op::Write { key, .. }
            | Op::Cas { key, .. }
            | Op::Append { key, .. }
            | Op::Delete { key }
            | Op::Add { key, .. }
            | Op::Enqueue { key, .. }
            | Op::Dequeue { key }
            | Op::Remove { key, .. }
            | Op::Contains { key, .. }
            | Op::Drain { key }
            | Op::Push { key, .. }
            | Op::Pop { key }
            | Op::Acquire { key, .. }
            | Op::Release { key, .. }
            | Op::Generate { key } => Some(key),
            Op::Transfer { .. } | Op::Txn { .. } => None,
            Op::Custom { key, .. } => key.as_ref(),
        }
    }

    /// Whether its success is worth nothing without an answer: a read that succeeded must say what it read.
    pub(crate) fn must_answer(&self) -> bool {
        self.asks() || matches!(self, Op::Cas { .. } | Op::Contains { .. } | Op::Txn { .. })
    }

    /// Whether it has no argument, so that its answer stands in the field `value`.
    pub(crate) fn asks(&self) -> bool {
        matches!(
            self,
            Op::Read { .. } | Op::Dequeue { .. } | Op::Drain { .. } | Op::Pop { .. } | Op::Generate { .. }
        )
    }

    /// Whether `ret` is an answer that this operation can get.
    pub(crate) fn accepts(&self, ret: &Ret) -> bool {
        match self {
            Op::Drain { .. } => matches!(ret, Ret::Value(Value::List(_))),
            Op::Contains { .. } => matches!(ret, Ret::Value(Value::Bool(_))),
            op if op.asks() => matches!(ret, Ret::Value(_)),
            Op::Cas { .. } => matches!(ret, Ret::Swapped { .. }),
            Op::Txn { mops } => {
                let reads = mops.iter().filter(|mop| matches!(mop, Mop::Read { .. })).count();
                matches!(ret, Ret::Txn(found) if found.len() == reads)
            }
            Op::Custom { .. } => matches!(ret, Ret::Done | Ret::Custom(_)),
            _ => matches!(ret, Ret::Done | Ret::Value(_)),
        }
    }
}

/// In words, for messages: `write 5 to key 3`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Read { key, mode: ReadMode::Default } => write!(f, "read of key {key}"),
            Op::Read { key, mode } => write!(f, "{mode} read of key {key}"),
            Op::Write { key, value } => write!(f, "write of {value} to key {key}"),
            Op::Cas { key, expected, new } => {
                write!(f, "compare-and-set of key {key} from {expected} to {new}")
            }
            Op::Append { key, value } => write!(f, "append of {value} to key {key}"),
            Op::Delete { key } => write!(f, "delete of key {key}"),
            Op::Add { key, value } => write!(f, "add of {value} to key {key}"),
            Op::Enqueue { key, value } => write!(f, "enqueue of {value} to key {key}"),
            Op::Dequeue { key } => write!(f, "dequeue of key {key}"),
            Op::Remove { key, value } => write!(f, "remove of {value} from key {key}"),
            Op::Contains { key, value } => write!(f, "look for {value} in key {key}"),
            Op::Drain { key } => write!(f, "drain of key {key}"),
            Op::Push { key, value } => write!(f, "push of {value} to key {key}"),
            Op::Pop { key } => write!(f, "pop of key {key}"),
            Op::Acquire { key, owner: Value::Nil } => write!(f, "acquire of key {key}"),
            Op::Acquire { key, owner } => write!(f, "acquire of key {key} for {owner}"),
            Op::Release { key, owner: Value::Nil } => write!(f, "release of key {key}"),
            Op::Release { key, owner } => write!(f, "release of key {key} for {owner}"),
            Op::Generate { key } => write!(f, "generate of key {key}"),
            Op::Transfer { from, to, amount } => write!(f, "transfer of {amount} from {from} to {to}"),
            Op::Txn { mops } => write!(f, "txn {}", Mops(mops, None)),
            Op::Custom { f: name, key: Some(key), value } => write!(f, "{name} of key {key} ({value})"),
            Op::Custom { f: name, key: None, value } => write!(f, "{name} ({value})"),
        }
    }
}

/// Micro-operations as people write them, with what the reads found: `[r 1 -> [5 6]; append 2 7]`.
pub(crate) struct Mops<'a>(pub(crate) &'a [Mop], pub(crate) Option<&'a [Value]>);

impl fmt::Display for Mops<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut found = self.1.unwrap_or_default().iter();
        f.write_str("[")?;
        for (i, mop) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            match mop {
                Mop::Read { key } => match found.next() {
                    Some(value) => write!(f, "r {key} -> {value}")?,
                    None => write!(f, "r {key}")?,
                },
                Mop::Write { key, value } => write!(f, "w {key} {value}")?,
                Mop::Append { key, value } => write!(f, "append {key} {value}")?,
            }
        }
        f.write_str("]")
    }
}

/// What a client was told when its request succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ret {
    /// It happened; there is nothing more to say.
    Done,
    /// The value that was read or taken; for other operations whatever they return.
    Value(Value),
    /// The outcome of a compare-and-set.
    Swapped {
        /// Whether the key held what was expected, and was set.
        swapped: bool,
        /// What the key held just before, where the system tells. It makes judging far sharper.
        found: Option<Value>,
    },
    /// What the reads of a transaction found, in their order; [`Value::Nil`] where there was nothing.
    Txn(Arc<[Value]>),
    /// The answer of a custom operation.
    Custom(serde_json::Value),
}
