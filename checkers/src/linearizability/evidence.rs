//! How far the evidence can be put in order, in words and as data.
//!
//! ```text
//! Of these 4 operations, the longest order that works: {nil}, w 1 {1}, w 2 {2}, r -> 2;
//! then r -> 1 cannot be next: it returned 1, but the key holds 2.
//! ```
//!
//! `details.orders`:
//!
//! | field | what |
//! |---|---|
//! | `count` | how many maximal orders there are |
//! | `cut` | whether the effort ran out: there may be more, and longer ones |
//! | `operations` | the evidence, in the order of the calls: `{id, call, ret}`; `ret` is `null` if it had not returned when the impossible return came |
//! | `states` | the states of the orders: `{state, words, situation}`, the one at the start first |
//! | `paths` | at most 100 orders, the longest first: `operations` (ids), `states` (places in `states`, one more than operations), `stuck` |
//! | `stuck` | each operation that is left: `{operation, reason}`, and `after`, if time forbids that it is next: the operation it must come after |
//! | `impossible` | each operation that cannot happen in one of the states: `{operation, state, reason}` |
//!
//! Deliberately no search: see [`orders`](super::orders).

use serde_json::{Map, Value as Json, json};

use super::{
    calls::Call,
    explain::answer,
    orders::{Block, MAX_CALLS, Order, Orders, orders},
};
use crate::{Operation, Ret, history::timeline, model::Model};

/// The most characters of a state in a sentence.
const MOST_WORDS: usize = 80;
/// The most operations of an order in a sentence: at its start, and at its end.
const ENDS: (usize, usize) = (4, 8);
/// The most operations of which a sentence says why they cannot be next.
const MOST_STUCK: usize = 3;

/// Tells of these calls, the evidence, in words if there is something to tell. `part` has their operations.
pub(super) fn tell<M: Model>(model: &M, calls: &[Call<'_>], part: &[Operation]) -> (Option<String>, Json) {
    let Some(orders) = orders(model, calls) else {
        let reason = match calls.len() {
            count if count > MAX_CALLS => {
                format!("the evidence has {count} operations, and orders are made of {MAX_CALLS} at most")
            }
            _ => "the states are too large".to_owned(),
        };
        return (None, json!({"skipped": reason}));
    };
    let teller = Teller::new(model, &orders, part);
    (teller.sentence(), teller.data())
}

struct Teller<'a, M: Model> {
    model: &'a M,
    orders: &'a Orders<'a, M::State>,
    /// The operation of each call.
    operations: Vec<Option<&'a Operation>>,
    /// The states of the orders that are kept.
    states: Vec<usize>,
    /// Each operation, and each of these states, in words: they are needed again and again.
    labels: Vec<String>,
    situations: Vec<String>,
}

impl<'a, M: Model> Teller<'a, M> {
    fn new(model: &'a M, orders: &'a Orders<'a, M::State>, part: &'a [Operation]) -> Self {
        let of = |call: &Call<'_>| part.iter().find(|operation| operation.id == call.id);
        let operations: Vec<Option<&Operation>> = orders.calls.iter().map(of).collect();
        let label = |operation: &Option<&Operation>| operation.map(timeline::label).unwrap_or_default();
        let labels = operations.iter().map(label).collect();
        let mut states: Vec<usize> = orders.kept.iter().flat_map(|order| order.states.clone()).collect();
        states.sort_unstable();
        states.dedup();
        let situations = states.iter().map(|state| clip(model.situation(&orders.states[*state]))).collect();
        Teller { model, orders, operations, states, labels, situations }
    }

    fn label(&self, call: usize) -> &str {
        &self.labels[call]
    }

    /// Where a state of the orders is among them.
    fn place(&self, state: usize) -> usize {
        self.states.partition_point(|known| *known < state)
    }

    /// Why an operation cannot happen in a state.
    fn reason(&self, call: usize, state: usize) -> String {
        let situation = &self.situations[self.place(state)];
        match (self.orders.calls[call].ret, self.operations[call]) {
            (Some(Ret::Txn(_)), _) => format!("it cannot have read that: {situation}"),
            (Some(_), Some(operation)) => format!("it {}, but {situation}", answer(operation)),
            _ => format!("it cannot take effect: {situation}"),
        }
    }

    fn why(&self, order: &Order, call: usize, block: Block) -> String {
        match block {
            Block::After(first) => format!("{} had returned before it was called", self.label(first)),
            Block::State => self.reason(call, order.states[order.states.len() - 1]),
        }
    }

    fn sentence(&self) -> Option<String> {
        let longest = self.orders.kept.first()?;
        let stuck: Vec<(String, String)> = longest
            .stuck
            .iter()
            .filter(|(call, block)| *block == Block::State && self.orders.calls[*call].returned.is_some())
            .map(|(call, block)| (self.label(*call).to_owned(), self.why(longest, *call, *block)))
            .collect();
        let n = self.orders.calls.len();
        let dead_ends = match (self.orders.count, self.orders.cut) {
            (1, false) => String::new(),
            (u64::MAX, false) => " Dead ends in all: too many to count.".to_owned(),
            (count, false) => format!(" Dead ends in all: {count}."),
            (count, true) => format!(" Dead ends in all: at least {count}."),
        };
        let none_first = longest.calls.is_empty();
        let place = if none_first { "first" } else { "next" };
        let cannot = match &stuck[..] {
            [(label, why)] if n == 1 => return Some(format!("By itself {label} is impossible: {why}.")),
            [(label, why)] => format!("{label} cannot be {place}: {why}"),
            several => {
                let shown: Vec<_> =
                    several.iter().take(MOST_STUCK).map(|(label, why)| format!("{label}: {why}")).collect();
                let more = several.len() - shown.len();
                let more = if more > 0 { format!("; and {more} more") } else { String::new() };
                format!("none of these can be {place}: {}{more}", shown.join("; "))
            }
        };
        Some(if none_first {
            format!("Of these {n} operations no order works: {cannot}.{dead_ends}")
        } else {
            let steps = self.steps(longest).join(", ");
            format!(
                "Of these {n} operations, the longest order that works: {steps}; then {cannot}.{dead_ends}"
            )
        })
    }

    /// The operations of an order, with the state wherever it is another.
    fn steps(&self, order: &Order) -> Vec<String> {
        let words = |state: usize| clip(self.model.describe(&self.orders.states[state]));
        let mut steps = vec![format!("{{{}}}", words(order.states[0]))];
        let skipped = order.calls.len().saturating_sub(ENDS.0 + ENDS.1);
        for (i, call) in order.calls.iter().enumerate() {
            let (before, after) = (order.states[i], order.states[i + 1]);
            if skipped > 1 && (ENDS.0..ENDS.0 + skipped).contains(&i) {
                if i == ENDS.0 {
                    steps.push(format!("{skipped} more"));
                }
                continue;
            }
            let state = if before == after { String::new() } else { format!(" {{{}}}", words(after)) };
            steps.push(format!("{}{state}", self.label(*call)));
        }
        steps
    }

    fn data(&self) -> Json {
        let id = |call: usize| self.orders.calls[call].id;
        let stuck = |order: &Order, (call, block): (usize, Block)| {
            let mut entry = Map::new();
            entry.insert("operation".into(), id(call).into());
            if let Block::After(first) = block {
                entry.insert("after".into(), id(first).into());
            }
            entry.insert("reason".into(), self.why(order, call, block).into());
            entry
        };
        let path = |order: &Order| {
            let ids: Vec<usize> = order.calls.iter().map(|call| id(*call)).collect();
            let states: Vec<usize> = order.states.iter().map(|state| self.place(*state)).collect();
            let stuck: Json = order.stuck.iter().map(|entry| stuck(order, *entry)).collect();
            object([("operations", ids.into()), ("states", states.into()), ("stuck", stuck)])
        };
        let state = |(state, situation): (&usize, &String)| {
            let state = &self.orders.states[*state];
            object([
                ("state", self.model.to_json(state)),
                ("words", clip(self.model.describe(state)).into()),
                ("situation", situation.as_str().into()),
            ])
        };
        let pairs = self.states.iter().flat_map(|state| {
            (0..self.orders.calls.len()).filter_map(move |call| {
                let is_impossible = self.orders.asked(*state, call) == Some(None);
                is_impossible.then_some((*state, call))
            })
        });
        let impossible = pairs.map(|(state, call)| {
            object([
                ("operation", id(call).into()),
                ("state", self.place(state).into()),
                ("reason", self.reason(call, state).into()),
            ])
        });
        let operation = |call: &Call<'_>| {
            let ret = call.returned.map(|returned| returned.0);
            object([("id", call.id.into()), ("call", call.called.0.into()), ("ret", ret.into())])
        };
        object([
            ("count", self.orders.count.into()),
            ("cut", self.orders.cut.into()),
            ("operations", self.orders.calls.iter().map(operation).collect()),
            ("states", self.states.iter().zip(&self.situations).map(state).collect()),
            ("paths", self.orders.kept.iter().map(path).collect()),
            ("impossible", impossible.collect()),
        ])
    }
}

/// An object of values that are there already: the macro would write each of them anew, at every level.
pub(super) fn object<const N: usize>(fields: [(&str, Json); N]) -> Json {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Not more of a text than fits.
fn clip(text: String) -> String {
    match text.char_indices().nth(MOST_WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
