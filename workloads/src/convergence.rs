//! The convergence workload.
//!
//! Writes and compare-and-sets over a few keys that stay, and reads of whatever the replica at hand holds (mode `stale`). Every written
//! value is used once in a run, so that a read names the very write it saw. Operations: `read k` (stale), `write k v`,
//! `cas k [expected new]`. A cas expects the newest value that some client is known to have written or found; stale reads
//! teach nothing. Every key is sampled at every replica through the run, and after healing until all agree.
//!
//! Judged by `convergence`; and what claims linearizability, writes and compare-and-sets, by that (model `cas-register`).

use crate::{WorkloadSpec, generator::Generator};
use checkers::{Key, Op, ReadMode, Ret, Value};
use rand::{Rng, RngExt};
use std::collections::BTreeMap;

/// The generator of the convergence workload.
#[derive(Debug)]
pub struct Convergence {
    shares: [u32; 3],
    keys: i64,
    /// The newest value known of each key.
    seen: BTreeMap<i64, Value>,
    next_value: i64,
}

impl Convergence {
    /// A generator for a section of a test file.
    pub fn new(spec: &WorkloadSpec) -> Self {
        Convergence {
            shares: [spec.mix.read, spec.mix.write, spec.mix.cas],
            keys: i64::from(spec.keys),
            seen: BTreeMap::new(),
            next_value: 1,
        }
    }

    fn fresh(&mut self) -> Value {
        self.next_value += 1;
        Value::Int(self.next_value - 1)
    }
}

impl Generator for Convergence {
    fn next(&mut self, rng: &mut dyn Rng) -> Op {
        let id = rng.random_range(0..self.keys);
        let key = Key::Int(id);
        let [read, write, cas] = self.shares;
        let draw = rng.random_range(0..read + write + cas);
        if draw < read {
            Op::Read { key, mode: ReadMode::Stale }
        } else if draw < read + write {
            Op::Write { key, value: self.fresh() }
        } else {
            let expected = self.seen.get(&id).cloned().unwrap_or(Value::Nil);
            Op::Cas { key, expected, new: self.fresh() }
        }
    }

    fn completed(&mut self, op: &Op, ret: &Ret) {
        let value = match (op, ret) {
            (Op::Write { value, .. }, _) => value.clone(),
            (Op::Cas { new, .. }, Ret::Swapped { swapped: true, .. }) => new.clone(),
            (Op::Cas { .. }, Ret::Swapped { found: Some(found), .. }) => found.clone(),
            _ => return,
        };
        if let Some(Key::Int(key)) = op.key() {
            self.seen.insert(*key, value);
        }
    }

    fn final_ops(&self) -> Vec<Op> {
        self.samples()
    }

    fn samples(&self) -> Vec<Op> {
        (0..self.keys).map(|k| Op::Read { key: Key::Int(k), mode: ReadMode::Stale }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    #[test]
    fn values_are_unique_and_every_key_is_sampled() {
        let spec = WorkloadSpec { name: "convergence".to_owned(), keys: 3, ..WorkloadSpec::default() };
        let mut generator = spec.build();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let sampled: BTreeSet<Key> =
            generator.samples().iter().map(|op| op.key().cloned().unwrap()).collect();
        let (mut values, mut kinds) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..2000 {
            let op = generator.next(&mut rng);
            assert!(sampled.contains(op.key().unwrap()), "{op} is of a key that nobody samples");
            kinds.insert(op.f().to_owned());
            match op {
                Op::Read { mode, .. } => assert_eq!(mode, ReadMode::Stale),
                Op::Write { value, .. } | Op::Cas { new: value, .. } => assert!(values.insert(value)),
                other => panic!("{other}"),
            }
        }
        assert_eq!(kinds.len(), 3);
        assert!(kinds.iter().all(|kind| spec.ops().contains(&kind.as_str())));
    }

    #[test]
    fn a_stale_read_does_not_teach_what_a_cas_may_expect() {
        let mix = crate::Mix { read: 0, write: 0, cas: 1 };
        let mut generator = Convergence::new(&WorkloadSpec { keys: 1, mix, ..WorkloadSpec::default() });
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let read = generator.samples().remove(0);
        generator.completed(&read, &Ret::Value(Value::Int(50)));
        let first = generator.next(&mut rng);
        assert!(matches!(&first, Op::Cas { expected: Value::Nil, .. }));
        generator.completed(&first, &Ret::Swapped { swapped: false, found: Some(Value::Int(77)) });
        assert!(matches!(generator.next(&mut rng), Op::Cas { expected: Value::Int(77), .. }));
    }
}
