//! When operations are due: open-loop arrivals.
//!
//! ```text
//! constant   |    |    |    |    |        Poisson   | |      ||   |        |
//! ```
//! Arrivals do not wait for answers, so that a slow system cannot slow its own examination (no coordinated omission).

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The distribution of the gaps between arrivals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// All gaps equal.
    Constant,
    /// Exponentially distributed gaps: what many independent users make.
    #[default]
    Poisson,
}

impl Pace {
    /// Nanoseconds until the next arrival, at `rate` arrivals per second.
    pub fn gap_ns(self, rate: f64, rng: &mut dyn Rng) -> u64 {
        let mean = 1e9 / rate;
        match self {
            Pace::Constant => mean as u64,
            // 1 - u lies in (0, 1], so that the logarithm is finite.
            Pace::Poisson => (-(1.0 - rng.random::<f64>()).ln() * mean) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn both_paces_keep_the_rate() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for pace in [Pace::Constant, Pace::Poisson] {
            let total: u64 = (0..20_000).map(|_| pace.gap_ns(1000.0, &mut rng)).sum();
            let mean = total / 20_000;
            assert!((950_000..1_050_000).contains(&mean), "{pace:?}: mean gap {mean} ns");
        }
    }
}
