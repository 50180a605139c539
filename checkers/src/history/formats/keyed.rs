//! Does a history hold many keys? `jepsen.independent` prints `[key value]` as a plain vector, so that one has to look.
//!
//! ```text
//! :invoke :read  [7 nil]      keyed: nobody invokes a plain read with that
//! :invoke :read  nil          plain
//! :invoke :write [7 1]        either: look further
//! :invoke :cas   [7 [1 2]]    keyed, if nothing ever says otherwise
//! ```
//!
//! Whoever wraps one value wraps all of them: the first event that can only be one of the two decides. Deliberately
//! without a guess: where nothing decides, values are plain.

use super::{Datum, form::Form, operation::is_mop};
use crate::{Kind, Process};

/// What the events so far say.
#[derive(Default)]
pub(crate) struct Keyed {
    /// Compare-and-sets that can only be keyed, unless the values of the register are lists themselves.
    likely: bool,
}

impl Keyed {
    /// Looks at one more event; the answer, as soon as there is one.
    pub(crate) fn look(&mut self, form: &Form<'_>) -> Option<bool> {
        if form.kind != Kind::Invoke || !matches!(form.process, Process::Client(_)) {
            return None;
        }
        if form.key.is_some() {
            return Some(false);
        }
        let value = form.value.as_ref().unwrap_or(&Datum::Nil);
        if value.tagged_tuple().is_some() {
            return Some(true);
        }
        let f = form.f.as_deref()?;
        match (f, value.list()) {
            ("transfer", Some([_, Datum::Map(_)])) => Some(true),
            ("txn", Some([first, mops])) if !is_mop(first) => match mops.list() {
                Some(mops) if mops.iter().all(is_mop) => Some(true),
                _ => None,
            },
            ("txn" | "transfer", _) => Some(false),
            (
                "read" | "dequeue" | "drain" | "pop" | "generate" | "acquire" | "release",
                Some([key, Datum::Nil]),
            ) if key.list().is_none() && !key.is_nil() => Some(true),
            ("cas", Some([key, swap])) => match swap.list() {
                Some([_, _]) => {
                    self.likely |= key.list().is_none() && !key.is_nil();
                    None
                }
                _ => Some(false),
            },
            (
                "read" | "write" | "append" | "delete" | "add" | "enqueue" | "dequeue" | "remove"
                | "contains" | "drain" | "push" | "pop" | "generate" | "acquire" | "release",
                Some([_, _]),
            ) => None,
            (
                "read" | "write" | "cas" | "append" | "delete" | "add" | "enqueue" | "dequeue" | "remove"
                | "contains" | "drain" | "push" | "pop" | "generate" | "acquire" | "release",
                _,
            ) => Some(false),
            // A stranger's own operation says nothing.
            _ => None,
        }
    }

    /// The answer when all events were looked at.
    pub(crate) fn at_the_end(&self) -> bool {
        self.likely
    }
}
