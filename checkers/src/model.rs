//! `Model`: what the system would do if it were one thread.
//!
//! ```text
//! step(5, write 7, done)           = 7
//! step(7, read,    answered 7)     = 7
//! step(7, read,    answered 5)     = none: not in this state
//! step(7, cas 7->8, nobody knows)  = 8      an unknown outcome is whatever would have happened
//! ```
//!
//! A model judges one key. Deliberately deterministic: one operation in one state has one result; what is
//! undetermined is the order, and that is the checker's work.

mod cas_register;
mod collections;
mod counter;
mod kv;
mod locks;
mod multi_register;
mod nondeterministic;
pub(crate) mod register;
mod spec;
mod unpartitioned;

use std::{fmt, hash::Hash, str::FromStr};

pub use self::{
    cas_register::CasRegister,
    collections::{FifoQueue, Set, Stack},
    counter::Counter,
    kv::Kv,
    locks::{Mutex, OwnedMutex, Semaphore},
    multi_register::MultiRegister,
    nondeterministic::{Nondeterministic, NondeterministicModel, UnorderedQueue},
    register::Register,
    spec::{Spec, SpecState},
    unpartitioned::Unpartitioned,
};
use crate::{Op, Ret, Value};

/// The models by themselves, for `use checkers::models::Kv`.
pub mod models {
    pub use super::{
        CasRegister, Counter, FifoQueue, Kv, MultiRegister, Mutex, Nondeterministic, NondeterministicModel,
        OwnedMutex, Register, Semaphore, Set, Spec, SpecState, Stack, UnorderedQueue, Unpartitioned,
    };
}

/// A sequential specification over [`Op`] and [`Ret`].
pub trait Model: Clone + Send + Sync {
    /// Everything the future depends on. Equal states must behave equally.
    type State: Clone + Eq + Hash + fmt::Debug + Send + Sync;

    /// Its name, for messages.
    fn name(&self) -> &str;

    /// The state of a key that nobody has touched.
    fn init(&self) -> Self::State;

    /// What `op` makes of `state`, or `None` if in this state it would not have answered `ret`.
    ///
    /// `ret` is `None` when the outcome is unknown: then any answer goes, and the result is that of the operation
    /// taking effect.
    fn step(&self, state: &Self::State, op: &Op, ret: Option<&Ret>) -> Option<Self::State>;

    /// Looks at all operations of one key before they are judged; `None` stands for an unknown outcome. Returns the
    /// model to judge them by, which may be tuned to them.
    ///
    /// # Errors
    /// Why they are outside of what this model knows. The verdict is then unknown: never guess, and never cry wolf.
    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        let _ = calls;
        Ok(self.clone())
    }

    /// What is known of an operation without looking at a state. Lets the search drop and reorder operations;
    /// [`Effect::Opaque`] is always right, and slow.
    fn effect<'a>(&self, op: &'a Op, ret: Option<&'a Ret>) -> Effect<&'a Value> {
        let _ = (op, ret);
        Effect::Opaque
    }

    /// What the model is as long as certain operations only are asked for. With it, histories in which every value is
    /// written once are judged in the time that sorting takes.
    fn special(&self) -> Option<Special<'_>> {
        None
    }

    /// Whether each key can be judged by itself (Herlihy and Wing, 1990, theorem 1). Otherwise the whole history is, and
    /// operations may be about several keys.
    fn is_local(&self) -> bool {
        true
    }

    /// Whether it matters who asks: then an operation on a lock that names no owner is that of its process.
    fn has_owners(&self) -> bool {
        false
    }

    /// The state in words, for people.
    fn describe(&self, state: &Self::State) -> String {
        format!("{state:?}")
    }

    /// The state as the end of a sentence: `the key holds 5`.
    fn situation(&self, state: &Self::State) -> String {
        format!("the state is {}", self.describe(state))
    }

    /// The state as data, for reports.
    fn to_json(&self, state: &Self::State) -> serde_json::Value {
        serde_json::Value::String(self.describe(state))
    }

    /// About how many bytes a state takes, for the budget.
    fn weight(&self, state: &Self::State) -> usize {
        size_of_val(state)
    }
}

/// An object that a specialist knows, as long as all values are different.
#[derive(Clone, Copy, Debug)]
pub enum Special<'a> {
    /// Reads, writes and compare-and-sets.
    Register(RegisterLike<'a>),
    /// A queue that is empty at first: enqueues and dequeues; nil means that it was empty.
    Queue {
        /// Whether the first element in is the first out.
        fifo: bool,
    },
    /// A stack that is empty at first: pushes and pops; nil means that it was empty.
    Stack,
    /// A set that is empty at first: adds, and reads of the whole.
    Set,
}

/// A register, perhaps with compare-and-set.
#[derive(Clone, Copy, Debug)]
pub struct RegisterLike<'a> {
    /// What it holds before the first write.
    pub initial: &'a Value,
    /// Whether it knows compare-and-set.
    pub cas: bool,
}

/// What an operation may do to a state that is one [`Value`], whatever the state; `V` is how values are told.
///
/// The first three promise something, and the search relies on it; see `linearizability::prune` for the proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<V> {
    /// Never changes the state. With `Some(v)` it is possible in the state `v` and in no other; with `None` in some.
    Observe(Option<V>),
    /// Possible in every state, and leaves `to`.
    Set {
        /// The value it leaves.
        to: V,
    },
    /// Turns `from` into `to`. In any other state it is impossible if its outcome is known, and without effect if not.
    Swap {
        /// The value that it needs.
        from: V,
        /// The value that it leaves.
        to: V,
    },
    /// Anything else.
    Opaque,
}

impl<V> Effect<V> {
    /// The same with other names for the values.
    pub(crate) fn map<W>(self, mut name: impl FnMut(V) -> W) -> Effect<W> {
        match self {
            Effect::Observe(value) => Effect::Observe(value.map(name)),
            Effect::Set { to } => Effect::Set { to: name(to) },
            Effect::Swap { from, to } => Effect::Swap { from: name(from), to: name(to) },
            Effect::Opaque => Effect::Opaque,
        }
    }
}

/// The built-in models by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelName {
    /// [`Register`].
    Register,
    /// [`CasRegister`].
    CasRegister,
    /// [`MultiRegister`].
    MultiRegister,
    /// [`Kv`].
    Kv,
    /// [`Counter`].
    Counter,
    /// [`Set`].
    Set,
    /// [`FifoQueue`].
    FifoQueue,
    /// [`UnorderedQueue`].
    UnorderedQueue,
    /// [`Stack`].
    Stack,
    /// [`Mutex`].
    Mutex,
    /// [`OwnedMutex::plain`].
    OwnedMutex,
    /// [`OwnedMutex::reentrant`].
    ReentrantMutex,
    /// [`OwnedMutex::fenced`].
    FencedMutex,
    /// [`Semaphore`].
    Semaphore,
}

impl ModelName {
    /// Every built-in model, in the order of the declaration.
    pub const ALL: [ModelName; 14] = [
        ModelName::Register,
        ModelName::CasRegister,
        ModelName::MultiRegister,
        ModelName::Kv,
        ModelName::Counter,
        ModelName::Set,
        ModelName::FifoQueue,
        ModelName::UnorderedQueue,
        ModelName::Stack,
        ModelName::Mutex,
        ModelName::OwnedMutex,
        ModelName::ReentrantMutex,
        ModelName::FencedMutex,
        ModelName::Semaphore,
    ];

    /// The name in test files and on the command line.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    fn entry(self) -> &'static (&'static str, &'static str) {
        &models()[self as usize]
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ModelName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        ModelName::ALL.into_iter().find(|model| model.name() == name).ok_or_else(|| {
            let names: Vec<_> = models().iter().map(|(name, _)| *name).collect();
            format!("unknown model \"{name}\": use one of {}", names.join(", "))
        })
    }
}

/// The built-in models: name and one line each, in the order of [`ModelName::ALL`].
pub fn models() -> &'static [(&'static str, &'static str)] {
    &[
        ("register", "one value a key; read and write"),
        ("cas-register", "a register that can also compare-and-set"),
        (
            "multi-register",
            "registers that are read and written together; txn, read, write and compare-and-set",
        ),
        ("kv", "a key-value store: read, write, compare-and-set, append and delete"),
        ("counter", "a number; add and read"),
        ("set", "elements; add, remove, contains and read"),
        ("fifo-queue", "first in, first out; enqueue, dequeue and drain"),
        ("unordered-queue", "what went in comes out, in any order; enqueue, dequeue and drain"),
        ("stack", "last in, first out; push and pop"),
        ("mutex", "a lock that anybody may release; acquire and release"),
        ("owned-mutex", "a lock that only its owner may release"),
        ("reentrant-mutex", "a lock that its owner may take again"),
        ("fenced-mutex", "a lock that only its owner may release, whose tokens grow"),
        ("semaphore", "a number of permits (2 unless told); acquire and release"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for model in ModelName::ALL {
            assert_eq!(model.name().parse(), Ok(model));
        }
        let error = "heap".parse::<ModelName>().unwrap_err();
        assert!(error.starts_with("unknown model \"heap\": use one of register, cas-register,"), "{error}");
        let named = [
            Register::default().name(),
            CasRegister::default().name(),
            MultiRegister::default().name(),
            Kv::default().name(),
            Counter::default().name(),
            Set::default().name(),
            FifoQueue::default().name(),
            UnorderedQueue::default().name(),
            Stack::default().name(),
            Mutex::default().name(),
            OwnedMutex::plain().name(),
            OwnedMutex::reentrant().name(),
            OwnedMutex::fenced().name(),
            Semaphore::default().name(),
        ]
        .map(str::to_owned);
        assert_eq!(named, ModelName::ALL.map(|model| model.name().to_owned()));
    }
}
