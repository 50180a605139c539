//! Your own service on trial, in one file: an in-memory register store with a lost-update bug.
//!
//! `cargo run --example own-service` ends with exit code 1 and a report that shows two compare-and-sets which both
//! believe to have replaced the same value. It checks first and locks again to write: another client fits between.

use std::{collections::HashMap, process::ExitCode, sync::Arc, sync::Mutex, time::Duration};
use tribunal::{
    Adapter, Client, Op, Options, Outcome, Ret, Scenario, Session, Value, async_trait, exit, put_on_trial,
    report,
};

/// The service. A real one would listen on a port; see `src/adapter/paxos_kv_grpc.rs` for one that does.
#[derive(Default)]
struct Store(Mutex<HashMap<String, Value>>);

impl Store {
    fn get(&self, key: &str) -> Value {
        self.0.lock().unwrap().get(key).cloned().unwrap_or(Value::Nil)
    }
    fn put(&self, key: &str, value: Value) {
        self.0.lock().unwrap().insert(key.to_owned(), value);
    }
}

/// How the tester reaches it.
struct OwnService(Arc<Store>);

#[async_trait]
impl Adapter for OwnService {
    fn name(&self) -> &str {
        "own-service"
    }
    fn operations(&self) -> &[&str] {
        &["read", "write", "cas"]
    }
    async fn connect(&self, _: &Session) -> Result<Box<dyn Client>, String> {
        Ok(Box::new(Connection(self.0.clone())))
    }
}

struct Connection(Arc<Store>);

#[async_trait]
impl Client for Connection {
    async fn invoke(&mut self, op: &Op) -> Outcome {
        let key = op.key().map(Value::to_string).unwrap_or_default();
        Outcome::ok(match op {
            Op::Read { .. } => Ret::Value(self.0.get(&key)),
            Op::Write { value, .. } => {
                self.0.put(&key, value.clone());
                Ret::Done
            }
            Op::Cas { expected, new, .. } => {
                let found = self.0.get(&key);
                let swapped = found == *expected;
                if swapped {
                    // The bug: the lock is not held from the comparison to the write.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    self.0.put(&key, new.clone());
                }
                Ret::Swapped { swapped, found: Some(found) }
            }
            other => return Outcome::Fail(format!("no operation `{}`", other.f())),
        })
    }
}

const TEST: &str =
    "{name: own-service, nemesis: none, cluster: {nodes: 1}, load: {rate: 2000, time-limit: 2s}}";

#[tokio::main]
async fn main() -> ExitCode {
    let scenario = Scenario::parse("TEST", TEST).expect("the test is right");
    let options = Options::new("store").expect("this program has a path");
    let results = put_on_trial(&scenario, Arc::new(OwnService(Arc::default())), &options).await;
    let results = results.expect("the trial can be carried out");
    print!("{}", report::text::render(&results));
    ExitCode::from(exit::of(results.valid))
}
