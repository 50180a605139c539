//! One key: a specialist if there is one for it, else two engines that take turns until one of them knows.
//!
//! ```text
//! register whose values are all different ──> valid, or a few operations that cannot be ──┐
//! all else ─┐                                                                             │
//! Frontier  200k steps ──┐ still open
//! Wgl       200k steps <─┘──┐ still open
//! Frontier  400k steps <────┘ …     until memory is out for both, or the caller cancels
//! ```
//!
//! What the specialist calls guilty the engines confirm: on the whole key if that is small, else on the evidence alone.
//!
//! Deliberately one after the other: no thread may win by chance, so that the same history takes the same way to the same
//! answer. Taking turns costs at most four times what the better engine alone would have taken.

use super::{
    calls::{Call, Calls, Step},
    elementwise,
    flat::Flat,
    frontier::{MAX_SLOTS, Sweep},
    outcome::{Failure, GaveUp, Outcome, Purse},
    queue,
    record::Records,
    register::{self, Answer},
    set,
    space::{Memo, Space},
    stack,
    thin_air::thin_air,
    wgl::Wgl,
};
use crate::{
    Budget, Op, OpOutcome, Operation, Operations, Value,
    model::{Model, Special},
};

/// How many steps each engine gets at first: enough for nearly every key of nearly every history.
const FIRST_SLICE: u64 = 200_000;
/// Or so many for each call, if that is more.
const FIRST_SLICE_PER_CALL: u64 = 32;
/// The most operations of a key that the engines look at when the specialist has found it guilty: they say more, above all
/// what would have been possible. In larger ones, and if they need more than one turn, they look at the evidence only.
const MAX_WHOLE: usize = 20_000;
/// The same where a state is a whole collection, which each step copies.
const MAX_WHOLE_COLLECTION: usize = 1_000;
/// The most operations of a specialist's evidence that the engines confirm.
const MAX_CONFIRMED: usize = 2_000;

/// What was found out about one key.
pub(super) struct KeyVerdict {
    pub(super) result: KeyResult,
    pub(super) judged: usize,
    pub(super) unobservable: usize,
    pub(super) steps: u64,
    pub(super) largest_frontier: usize,
    /// Whether the depth-first search was the one to answer.
    pub(super) depth_first: bool,
    /// Whether a specialist answered.
    pub(super) special: bool,
}

pub(super) enum KeyResult {
    Valid,
    Unknown(String),
    Invalid(Guilt),
}

/// The first return that cannot be, in terms of operations.
pub(super) struct Guilt {
    /// The operation that returns.
    pub(super) operation: usize,
    /// The operations that were looked at, all of the key or a specialist's evidence.
    pub(super) part: Vec<u32>,
    /// Why it cannot be, if not by the states just before.
    pub(super) why: Why,
    /// States just before, in words and as data, and the operations still pending in each. None if the engines gave up;
    /// then the return need not be the first.
    pub(super) configs: Vec<(String, serde_json::Value, Vec<usize>)>,
    /// Whether there were more.
    pub(super) more: bool,
}

/// Why a return cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// In none of the states that were possible just before.
    NoState,
    /// The same, of those that the evidence alone allows.
    NoStateOfEvidence,
    /// Nothing can have left the value.
    ThinAir,
    /// The operations about one value are in the way of those about another.
    Values,
    /// What the operations say of this element contradicts itself; their answers are too long to be shown.
    Element(Value),
}

/// Whole operations of these ids.
pub(super) fn whole(operations: &Operations<'_>, ids: &[u32]) -> Vec<Operation> {
    ids.iter().map(|id| operations.get(*id as usize)).collect()
}

/// The same as the model wants them: where it matters who asks, everybody is named.
pub(super) fn whole_for<M: Model>(model: &M, operations: &Operations<'_>, ids: &[u32]) -> Vec<Operation> {
    let mut whole = whole(operations, ids);
    if model.has_owners() {
        for operation in &mut whole {
            if let Op::Acquire { owner, .. } | Op::Release { owner, .. } = &mut operation.op
                && *owner == Value::Nil
            {
                *owner = format!("process {}", operation.process).into();
            }
        }
    }
    whole
}

/// Judged operations as the search wants them.
pub(super) fn calls_of(operations: &[Operation]) -> Vec<Call<'_>> {
    operations
        .iter()
        .map(|operation| {
            let ret = match &operation.outcome {
                OpOutcome::Ok(ret) => Some(ret),
                _ => None,
            };
            let returned = operation.ret.zip(operation.ret_index).filter(|_| ret.is_some());
            Call {
                id: operation.id,
                op: &operation.op,
                ret,
                called: (operation.call, operation.call_index),
                returned,
            }
        })
        .collect()
}

impl KeyVerdict {
    fn new(judged: usize) -> Self {
        KeyVerdict {
            result: KeyResult::Valid,
            judged,
            unobservable: 0,
            steps: 0,
            largest_frontier: 0,
            depth_first: false,
            special: false,
        }
    }

    /// Adds what another look at the same key has cost.
    fn add(&mut self, other: &KeyVerdict) {
        self.steps += other.steps;
        self.largest_frontier = self.largest_frontier.max(other.largest_frontier);
    }
}

/// What a specialist says, if there is one.
pub(super) fn special<M: Model>(model: &M, records: &Records<'_>, budget: &Budget) -> Answer {
    match model.special() {
        None => Answer::NotForMe,
        Some(Special::Register(like)) => register::decide(&like, records),
        Some(Special::Queue { fifo }) => queue::decide(fifo, records),
        Some(Special::Stack) => stack::decide(records),
        Some(Special::Set) => match set::decide(records) {
            Answer::NotForMe => elementwise::decide(records, budget),
            answer => answer,
        },
    }
}

/// Judges one key, of which these are the judged operations.
pub(super) fn judge<M: Model>(model: &M, records: &Records<'_>, budget: &Budget) -> KeyVerdict {
    let operations = records.operations;
    let evidence = match special(model, records, budget) {
        Answer::NotForMe => return search_flat(model, records, budget),
        Answer::Valid(unobservable) => {
            return KeyVerdict { unobservable, special: true, ..KeyVerdict::new(records.len()) };
        }
        Answer::Huge(part, element) => {
            let last = part.iter().copied().max_by_key(|id| operations.raw(*id as usize).ret);
            let why = Why::Element(operations.values().get(element));
            let operation = last.unwrap_or(0) as usize;
            let result = KeyResult::Invalid(Guilt { operation, part, why, configs: Vec::new(), more: false });
            return KeyVerdict { result, special: true, ..KeyVerdict::new(records.len()) };
        }
        Answer::Unknown(reason) => {
            return KeyVerdict { result: KeyResult::Unknown(reason), ..KeyVerdict::new(records.len()) };
        }
        Answer::Invalid(evidence) => evidence,
    };
    let mut verdict = KeyVerdict { special: true, ..KeyVerdict::new(records.len()) };
    let most = match model.special() {
        Some(Special::Register(_)) => MAX_WHOLE,
        _ => MAX_WHOLE_COLLECTION,
    };
    if records.len() <= most {
        let found = search(model, &whole_for(model, operations, &records.ids()), 1, budget);
        match found.result {
            KeyResult::Unknown(_) => verdict.add(&found),
            KeyResult::Valid | KeyResult::Invalid(_) => return found,
        }
    }
    let last = evidence.iter().copied().max_by_key(|id| operations.raw(*id as usize).ret);
    let mut guilt = Guilt {
        operation: last.unwrap_or(0) as usize,
        part: evidence.clone(),
        why: Why::Values,
        configs: Vec::new(),
        more: false,
    };
    if evidence.len() <= MAX_CONFIRMED {
        let confirmed = search(model, &whole(operations, &evidence), 1, budget);
        verdict.add(&confirmed);
        match confirmed.result {
            KeyResult::Invalid(better) => guilt = Guilt { why: Why::NoStateOfEvidence, ..better },
            KeyResult::Unknown(_) => {}
            // Never cry wolf.
            KeyResult::Valid => {
                let reason = "two judges disagree: one finds no place for operations that another can place; please \
                              report this as a bug, with the history";
                verdict.result = KeyResult::Unknown(reason.into());
                return verdict;
            }
        }
    }
    verdict.result = KeyResult::Invalid(guilt);
    verdict
}

/// Lets the engines look at all operations of a key, as numbers if it is a register.
fn search_flat<M: Model>(model: &M, records: &Records<'_>, budget: &Budget) -> KeyVerdict {
    let operations = records.operations;
    let flat = match model.special() {
        Some(Special::Register(like)) => Flat::new(&like, records),
        _ => None,
    };
    let Some(flat) = flat else {
        return search(model, &whole_for(model, operations, &records.ids()), u32::MAX, budget);
    };
    let mut verdict = decide_flat(&flat, budget);
    if let KeyResult::Unknown(_) = verdict.result {
        let whole = whole_for(model, operations, &flat.ids);
        if let Some(guilt) = from_nowhere(model, &calls_of(&whole)) {
            verdict.result = KeyResult::Invalid(guilt);
        }
    }
    verdict
}

/// Lets the engines look at operations that are numbers.
pub(super) fn decide_flat(flat: &Flat<'_>, budget: &Budget) -> KeyVerdict {
    let mut verdict = KeyVerdict::new(flat.ids.len());
    verdict.unobservable = flat.calls.dropped;
    decide(|| flat.space(), |source| flat.ids[source] as usize, &flat.calls, u32::MAX, budget, &mut verdict);
    verdict
}

/// Lets the engines look at these operations, for so many turns each.
fn search<M: Model>(model: &M, operations: &[Operation], turns: u32, budget: &Budget) -> KeyVerdict {
    let calls = calls_of(operations);
    let mut verdict = KeyVerdict::new(calls.len());
    let shapes: Vec<_> = calls.iter().map(|call| (call.op, call.ret)).collect();
    let model = match model.fit(&shapes) {
        Ok(model) => model,
        Err(reason) => {
            verdict.result = KeyResult::Unknown(reason);
            return verdict;
        }
    };
    let (laid, classes) = Calls::new(&model, &calls);
    verdict.unobservable = laid.dropped;
    let space = || Memo::new(&model, &classes);
    decide(space, |source| calls[source].id, &laid, turns, budget, &mut verdict);
    if let KeyResult::Unknown(_) = verdict.result
        && let Some(guilt) = from_nowhere(&model, &calls)
    {
        verdict.result = KeyResult::Invalid(guilt);
    }
    verdict
}

/// The last resort.
fn from_nowhere<M: Model>(model: &M, calls: &[Call<'_>]) -> Option<Guilt> {
    let operation = thin_air(model, calls)?;
    let part = calls.iter().map(|call| call.id as u32).collect();
    Some(Guilt { operation, part, why: Why::ThinAir, configs: Vec::new(), more: false })
}

/// Lets the engines take turns, each in a space of its own. `id_of` gives the operation of a call's source.
///
/// The result stays valid, becomes invalid, or unknown with the reason.
fn decide<S: Space>(
    space: impl Fn() -> S,
    id_of: impl Fn(usize) -> usize,
    laid: &Calls,
    turns: u32,
    budget: &Budget,
    verdict: &mut KeyVerdict,
) {
    let mut spaces = [space(), space()];
    let start = spaces[0].start();
    let mut sweep = Sweep::new(laid, start);
    // Made when its turn comes: most histories never need it.
    let mut wgl = None;
    let mut gave_up = [None, None];
    if sweep.is_none() {
        gave_up[0] = Some(format!("{} operations are open at once, more than {MAX_SLOTS}", laid.slots));
    }
    let half = budget.bytes() / 2;
    let first_slice = FIRST_SLICE.max(FIRST_SLICE_PER_CALL * laid.infos.len() as u64);
    for round in 0..turns {
        if let [Some(one), Some(two)] = &gave_up {
            verdict.result = KeyResult::Unknown(format!("after {} steps {one}, and {two}", verdict.steps));
            return;
        }
        for engine in 0..2 {
            if gave_up[engine].is_some() {
                continue;
            }
            let own = &mut spaces[engine];
            let mut purse = Purse::new(first_slice << round.min(24), half, budget);
            let outcome = match &mut sweep {
                Some(sweep) if engine == 0 => {
                    let outcome = sweep.run(own, &mut purse);
                    verdict.largest_frontier = sweep.frontier.largest;
                    outcome
                }
                _ => wgl.get_or_insert_with(|| Wgl::new(laid, start)).run(own, &mut purse),
            };
            verdict.steps += purse.spent();
            verdict.depth_first = engine == 1;
            match outcome {
                Outcome::Valid => return,
                Outcome::Invalid(failure) => {
                    verdict.result = KeyResult::Invalid(guilt(id_of, laid, own, &failure));
                    return;
                }
                Outcome::Paused => {}
                Outcome::GaveUp(GaveUp::Cancelled) => {
                    verdict.result = KeyResult::Unknown(format!("cancelled after {} steps", verdict.steps));
                    return;
                }
                Outcome::GaveUp(GaveUp::OutOfMemory) => {
                    let what = if engine == 0 {
                        sweep = None;
                        format!("the frontier of {} configurations", verdict.largest_frontier)
                    } else {
                        wgl = None;
                        "the memo of the depth-first search".into()
                    };
                    gave_up[engine] = Some(format!("{what} outgrew its {half} bytes"));
                    spaces[engine] = space();
                }
            }
        }
    }
    verdict.result = KeyResult::Unknown(format!("not decided within {} steps", verdict.steps));
}

/// Says a failure of the search in terms of operations and states.
fn guilt<S: Space>(id_of: impl Fn(usize) -> usize, laid: &Calls, space: &S, failure: &Failure) -> Guilt {
    let part = (0..laid.sources).map(|source| id_of(source) as u32).collect();
    let id_of = |call: u32| id_of(laid.infos[call as usize].source as usize);
    let (Step::Return(call) | Step::Invoke(call)) = laid.steps[failure.at];
    let mut configs: Vec<_> = failure
        .configs
        .iter()
        .map(|config| {
            let (words, json) = space.tell(config.state);
            let pending = config.pending.iter().map(|&call| id_of(call)).collect();
            (words, json, pending)
        })
        .collect();
    // Numbers by size, all else as text.
    configs.sort_by(|(a, a_json, _), (b, b_json, _)| match (a_json.as_i64(), b_json.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        (a_number, b_number) => (a_number.is_none(), a).cmp(&(b_number.is_none(), b)),
    });
    Guilt { operation: id_of(call), part, why: Why::NoState, configs, more: failure.more }
}
