//! A system that answers at once, in this process: a map behind a lock.
//!
//! Linearizable by construction. It measures what the tester itself costs (`cargo bench`), and tries the run loop in
//! tests.

use super::{Adapter, Session};
use async_trait::async_trait;
use checkers::{Key, Op, Ret, Value};
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex};
use workloads::{Client, Outcome};

/// The in-process register store.
#[derive(Clone, Debug, Default)]
pub struct Null {
    map: Arc<Mutex<FxHashMap<Key, Value>>>,
}

#[async_trait]
impl Adapter for Null {
    fn name(&self) -> &str {
        "null"
    }
    fn operations(&self) -> &[&str] {
        &["read", "write", "cas"]
    }
    async fn connect(&self, _session: &Session) -> Result<Box<dyn Client>, String> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Client for Null {
    async fn invoke(&mut self, op: &Op) -> Outcome {
        let mut map = self.map.lock().unwrap_or_else(|e| e.into_inner());
        Outcome::ok(match op {
            Op::Read { key, .. } => Ret::Value(map.get(key).cloned().unwrap_or(Value::Nil)),
            Op::Write { key, value } => {
                map.insert(key.clone(), value.clone());
                Ret::Done
            }
            Op::Cas { key, expected, new } => {
                let found = map.get(key).cloned().unwrap_or(Value::Nil);
                let swapped = found == *expected;
                if swapped {
                    map.insert(key.clone(), new.clone());
                }
                Ret::Swapped { swapped, found: Some(found) }
            }
            other => return Outcome::Fail(format!("no operation `{}` here", other.f())),
        })
    }
}
