//! Locks: mutex, the same with an owner, reentrant, fenced, and semaphores.
//!
//! ```text
//! free --acquire 1--> held by 1 --acquire 2--> impossible          a mutex excludes
//!                     held by 1 --release 1--> free
//! fenced: every acquisition that tells its token tells a greater one than all before
//! ```
//!
//! Where no owner is named, the process is meant. An acquisition of unknown outcome is possible where it would have
//! succeeded. Deliberately without time: a lease that runs out is a release by nobody, and for a mutex that is a fault.

use super::{Model, register};
use crate::{Op, Ret, Value};

fn only_locks(name: &str, calls: &[(&Op, Option<&Ret>)]) -> Result<(), String> {
    match calls.iter().find(|(op, _)| !matches!(op, Op::Acquire { .. } | Op::Release { .. })) {
        Some((op, _)) => Err(register::unknown_op(name, op, "it knows acquire and release")),
        None => Ok(()),
    }
}

/// A lock that one holds or nobody; whoever releases it, releases it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mutex {
    /// Whether it is held at first.
    pub held: bool,
}

impl Model for Mutex {
    type State = bool;

    fn name(&self) -> &str {
        "mutex"
    }

    fn init(&self) -> bool {
        self.held
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        only_locks(self.name(), calls)?;
        Ok(self.clone())
    }

    fn step(&self, held: &bool, op: &Op, _: Option<&Ret>) -> Option<bool> {
        match op {
            Op::Acquire { .. } => (!held).then_some(true),
            Op::Release { .. } => held.then_some(false),
            _ => None,
        }
    }

    fn situation(&self, held: &bool) -> String {
        format!("the lock is {}", self.describe(held))
    }

    fn describe(&self, held: &bool) -> String {
        if *held { "held".into() } else { "free".into() }
    }
}

/// A lock that only its owner can release, and perhaps take more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedMutex {
    /// How often its owner may hold it: 1 for a plain lock, more for a reentrant one.
    pub depth: u32,
    /// Whether tokens must grow from one owner to the next.
    pub fenced: bool,
}

impl OwnedMutex {
    /// A plain lock with an owner.
    pub fn plain() -> Self {
        OwnedMutex { depth: 1, fenced: false }
    }

    /// One that its owner may take again.
    pub fn reentrant() -> Self {
        OwnedMutex { depth: u32::MAX, fenced: false }
    }

    /// A plain one whose acquisitions tell a fencing token.
    pub fn fenced() -> Self {
        OwnedMutex { depth: 1, fenced: true }
    }
}

/// Who holds a lock, how often, and the last token that was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holding {
    /// [`Value::Nil`] if nobody does.
    pub owner: Value,
    /// 0 if nobody does.
    pub times: u32,
    /// `None` if none was.
    pub token: Option<i64>,
}

impl Model for OwnedMutex {
    type State = Holding;

    fn name(&self) -> &str {
        match (self.depth, self.fenced) {
            (1, false) => "owned-mutex",
            (1, true) => "fenced-mutex",
            _ => "reentrant-mutex",
        }
    }

    fn init(&self) -> Holding {
        Holding::default()
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        only_locks(self.name(), calls)?;
        Ok(self.clone())
    }

    fn has_owners(&self) -> bool {
        true
    }

    fn step(&self, state: &Holding, op: &Op, ret: Option<&Ret>) -> Option<Holding> {
        match op {
            Op::Acquire { owner, .. } => {
                let again = state.times > 0;
                if again && (state.owner != *owner || state.times >= self.depth) {
                    return None;
                }
                let mut next = Holding { owner: owner.clone(), times: state.times + 1, token: state.token };
                if self.fenced
                    && let Some(Ret::Value(Value::Int(token))) = ret
                {
                    if state.token.is_some_and(|last| last >= *token) {
                        return None;
                    }
                    next.token = Some(*token);
                }
                Some(next)
            }
            Op::Release { owner, .. } if state.times > 0 && state.owner == *owner => Some(Holding {
                owner: if state.times == 1 { Value::Nil } else { owner.clone() },
                times: state.times - 1,
                token: state.token,
            }),
            _ => None,
        }
    }

    fn situation(&self, state: &Holding) -> String {
        format!("the lock is {}", self.describe(state))
    }

    fn describe(&self, state: &Holding) -> String {
        let mut text = match state.times {
            0 => "free".to_string(),
            1 => format!("held by {}", state.owner),
            times => format!("held {times} times by {}", state.owner),
        };
        if let Some(token) = state.token {
            text.push_str(&format!(", last token {token}"));
        }
        text
    }
}

/// So many permits, for whoever comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semaphore {
    /// How many there are.
    pub permits: u32,
}

impl Default for Semaphore {
    /// Two permits.
    fn default() -> Self {
        Semaphore { permits: 2 }
    }
}

impl Model for Semaphore {
    type State = u32;

    fn name(&self) -> &str {
        "semaphore"
    }

    fn init(&self) -> u32 {
        0
    }

    fn fit(&self, calls: &[(&Op, Option<&Ret>)]) -> Result<Self, String> {
        only_locks(self.name(), calls)?;
        Ok(self.clone())
    }

    fn step(&self, taken: &u32, op: &Op, _: Option<&Ret>) -> Option<u32> {
        match op {
            Op::Acquire { .. } => (*taken < self.permits).then_some(taken + 1),
            Op::Release { .. } => taken.checked_sub(1),
            _ => None,
        }
    }

    fn situation(&self, taken: &u32) -> String {
        self.describe(taken)
    }

    fn describe(&self, taken: &u32) -> String {
        format!("{taken} of {} permits taken", self.permits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquire(owner: i64) -> Op {
        Op::Acquire { key: Value::Nil, owner: owner.into() }
    }

    fn release(owner: i64) -> Op {
        Op::Release { key: Value::Nil, owner: owner.into() }
    }

    /// How many of the operations are possible one after the other.
    fn possible<M: Model>(model: &M, ops: &[(Op, Option<Ret>)]) -> usize {
        let mut state = model.init();
        for (done, (op, ret)) in ops.iter().enumerate() {
            match model.step(&state, op, ret.as_ref()) {
                Some(next) => state = next,
                None => return done,
            }
        }
        ops.len()
    }

    #[test]
    fn who_may_do_what() {
        let done = |op: Op| (op, Some(Ret::Done));
        let stolen = [acquire(1), release(2), acquire(2)].map(done);
        assert_eq!(possible(&Mutex::default(), &stolen), 3);
        assert_eq!(possible(&OwnedMutex::plain(), &stolen), 1);
        let again = [acquire(1), acquire(1), release(1), acquire(2)].map(done);
        assert_eq!(possible(&Mutex::default(), &again), 1);
        assert_eq!(possible(&OwnedMutex::plain(), &again), 1);
        assert_eq!(possible(&OwnedMutex::reentrant(), &again), 3);
        assert_eq!(possible(&Semaphore::default(), &again), 4);
        let three = [acquire(1), acquire(2), acquire(3)].map(done);
        assert_eq!(possible(&Semaphore::default(), &three), 2);
        assert_eq!(possible(&Semaphore::default(), &[release(1)].map(done)), 0);
    }

    #[test]
    fn tokens_grow() {
        let take = |owner, token: i64| (acquire(owner), Some(Ret::Value(token.into())));
        let give = |owner| (release(owner), Some(Ret::Done));
        let fenced = OwnedMutex::fenced();
        assert_eq!(possible(&fenced, &[take(1, 5), give(1), take(2, 6), give(2), take(1, 6)]), 4);
        let untold = (acquire(2), Some(Ret::Done));
        assert_eq!(possible(&fenced, &[take(1, 5), give(1), untold, give(2), take(1, 4)]), 4);
    }
}
