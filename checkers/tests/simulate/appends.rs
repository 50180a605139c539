//! Histories of a simulated key-value store with get, put and append: what Porcupine's key-value tests have.
//!
//! ```text
//! put 3 "a"   append 3 "b"   get 3 -> "ab"
//! ```

use checkers::{Event, Events, Header, History, Kind, Op, ReadMode, Ret, Value};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::event;

/// A history; `wrong` leaves something out of what the last read with an answer of some length saw.
pub(crate) fn appends(operations: usize, clients: usize, keys: usize, wrong: bool, seed: u64) -> History {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cells = vec![String::new(); keys];
    let mut open: Vec<Option<(Op, Option<Ret>)>> = vec![None; clients];
    let (mut time, mut invoked) = (0, 0);
    let mut events: Vec<Event> = Vec::new();
    while invoked < operations || open.iter().any(Option::is_some) {
        let client = rng.random_range(0..clients);
        time += rng.random_range(1..1000);
        let (kind, op, ret) = match open[client].take() {
            None if invoked == operations => continue,
            None => {
                invoked += 1;
                let key = Value::Int(rng.random_range(0..keys as i64));
                let value = Value::from(format!("x {client} {invoked} y"));
                let op = match rng.random_range(0..4) {
                    0 => Op::Write { key, value },
                    1 => Op::Append { key, value },
                    _ => Op::Read { key, mode: ReadMode::Default },
                };
                open[client] = Some((op.clone(), None));
                (Kind::Invoke, op, None)
            }
            Some((op, None)) => {
                let Some(Value::Int(key)) = op.key() else { unreachable!("keys are numbers") };
                let cell = &mut cells[*key as usize];
                let ret = match &op {
                    Op::Write { value: Value::Text(text), .. } => {
                        *cell = text.to_string();
                        Ret::Done
                    }
                    Op::Append { value: Value::Text(text), .. } => {
                        cell.push_str(text);
                        Ret::Done
                    }
                    _ if cell.is_empty() => Ret::Value(Value::Nil),
                    _ => Ret::Value(cell.as_str().into()),
                };
                open[client] = Some((op, Some(ret)));
                continue;
            }
            Some((op, ret)) => (Kind::Ok, op, ret),
        };
        events.push(event(events.len(), time, client as u64, kind, op, ret));
    }
    if wrong {
        let long = |event: &&mut Event| match &event.ret {
            Some(Ret::Value(Value::Text(text))) => text.matches('x').count() > 1,
            _ => false,
        };
        let victim = events.iter_mut().rev().find(long).expect("something was read");
        let Some(Ret::Value(Value::Text(text))) = &victim.ret else { unreachable!("it is text") };
        let after = text.find('y').map_or(0, |at| at + 1);
        victim.ret = Some(Ret::Value(text[after..].into()));
    }
    History {
        header: Header::new("appends", seed, "", vec![]),
        events: events.into_iter().collect::<Events>(),
        cut: None,
    }
}
