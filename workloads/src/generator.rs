//! Where operations come from.
//!
//! Not a scheduler: when an operation is due is the business of [`crate::pace`].

use checkers::{Op, Ret};
use rand::Rng;

/// A stream of operations that may learn from what came back.
pub trait Generator: Send {
    /// The next operation.
    fn next(&mut self, rng: &mut dyn Rng) -> Op;
    /// An operation was completed with `Ok`.
    fn completed(&mut self, op: &Op, ret: &Ret);
    /// What is to be asked through every node once the cluster is healed: reads of all that was ever touched.
    fn final_ops(&self) -> Vec<Op>;
    /// Reads of all that a replica holds, if replicas are to be watched: asked of every node, again and again, through the
    /// run and, instead of [`Generator::final_ops`], after it.
    fn samples(&self) -> Vec<Op> {
        vec![]
    }
}
