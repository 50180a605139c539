//! The register workload.
//!
//! Reads, writes and compare-and-sets over a few hot keys. Every written value is used once in a run, so that a read
//! names the very write it saw. Operations: `read k`, `write k v`, `cas k [expected new]`. A cas expects the newest
//! value that some client is known to have seen, so that about half of them succeed under contention. A key is retired
//! after a bounded number of operations; after healing, every key is read through every node.
//!
//! Judged by linearizability, key by key (model `cas-register`).

use crate::{WorkloadSpec, generator::Generator};
use checkers::{Key, Op, ReadMode, Ret, Value};
use rand::{Rng, RngExt};
use std::collections::BTreeMap;

/// The generator of the register workload.
#[derive(Debug)]
pub struct Register {
    shares: [u32; 3],
    read_mode: ReadMode,
    ops_per_key: u32,
    /// Keys in use, with the operations asked of each so far.
    active: Vec<(i64, u32)>,
    /// The newest value known of each key in use.
    seen: BTreeMap<i64, Value>,
    next_key: i64,
    next_value: i64,
}

impl Register {
    /// A generator for a section of a test file.
    pub fn new(spec: &WorkloadSpec) -> Self {
        let keys = i64::from(spec.keys);
        Register {
            shares: [spec.mix.read, spec.mix.write, spec.mix.cas],
            read_mode: spec.read_mode,
            ops_per_key: spec.ops_per_key,
            active: (0..keys).map(|k| (k, 0)).collect(),
            seen: BTreeMap::new(),
            next_key: keys,
            next_value: 1,
        }
    }

    fn pick_key(&mut self, rng: &mut dyn Rng) -> i64 {
        let at = rng.random_range(0..self.active.len());
        let (key, used) = &mut self.active[at];
        let picked = *key;
        *used += 1;
        if *used >= self.ops_per_key {
            self.seen.remove(key);
            self.active[at] = (self.next_key, 0);
            self.next_key += 1;
        }
        picked
    }

    fn fresh(&mut self) -> Value {
        self.next_value += 1;
        Value::Int(self.next_value - 1)
    }
}

impl Generator for Register {
    fn next(&mut self, rng: &mut dyn Rng) -> Op {
        let id = self.pick_key(rng);
        let key = Key::Int(id);
        let [read, write, cas] = self.shares;
        let draw = rng.random_range(0..read + write + cas);
        if draw < read {
            Op::Read { key, mode: self.read_mode }
        } else if draw < read + write {
            Op::Write { key, value: self.fresh() }
        } else {
            let expected = self.seen.get(&id).cloned().unwrap_or(Value::Nil);
            Op::Cas { key, expected, new: self.fresh() }
        }
    }

    fn completed(&mut self, op: &Op, ret: &Ret) {
        let Some(Key::Int(key)) = op.key() else { return };
        // A key that was retired meanwhile is of no more use.
        if !self.active.iter().any(|(k, _)| k == key) {
            return;
        }
        let value = match (op, ret) {
            (Op::Read { .. }, Ret::Value(v)) => v.clone(),
            (Op::Write { value, .. }, _) => value.clone(),
            (Op::Cas { new, .. }, Ret::Swapped { swapped: true, .. }) => new.clone(),
            (Op::Cas { .. }, Ret::Swapped { found: Some(v), .. }) => v.clone(),
            _ => return,
        };
        self.seen.insert(*key, value);
    }

    fn final_ops(&self) -> Vec<Op> {
        (0..self.next_key).map(|k| Op::Read { key: Key::Int(k), mode: self.read_mode }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn values_are_unique_keys_are_retired_and_every_key_is_read_at_the_end(
            seed: u64, keys in 1u32..6, per_key in 1u32..40, n in 1usize..500
        ) {
            let spec = WorkloadSpec { keys, ops_per_key: per_key, ..WorkloadSpec::default() };
            let mut register = Register::new(&spec);
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut values = BTreeSet::new();
            let mut used: BTreeMap<Key, u32> = BTreeMap::new();
            for _ in 0..n {
                let op = register.next(&mut rng);
                *used.entry(op.key().cloned().unwrap()).or_default() += 1;
                if let Op::Write { value, .. } | Op::Cas { new: value, .. } = &op {
                    prop_assert!(values.insert(value.clone()), "{value} was written twice");
                }
            }
            prop_assert!(used.values().all(|&u| u <= per_key));
            let last: BTreeSet<Key> = register.final_ops().iter().map(|op| op.key().cloned().unwrap()).collect();
            prop_assert!(used.keys().all(|k| last.contains(k)));
        }
    }

    #[test]
    fn a_cas_expects_what_was_seen_last() {
        let spec =
            WorkloadSpec { keys: 1, mix: crate::Mix { read: 0, write: 0, cas: 1 }, ..Default::default() };
        let mut register = Register::new(&spec);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let first = register.next(&mut rng);
        assert!(matches!(&first, Op::Cas { expected: Value::Nil, .. }));
        register.completed(&first, &Ret::Swapped { swapped: false, found: Some(Value::Int(77)) });
        assert!(matches!(register.next(&mut rng), Op::Cas { expected: Value::Int(77), .. }));
    }
}
