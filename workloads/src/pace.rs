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
            Pace::Poisson => (-ln(1.0 - rng.random::<f64>()) * mean) as u64,
        }
    }
}

/// The natural logarithm of a normal positive number, by additions, multiplications and divisions alone: those are the same on
/// every machine, and what the system's library computes is not.
fn ln(x: f64) -> f64 {
    // x = m · 2^e with m in [0.75, 1.5), and ln m = 2 artanh((m − 1) / (m + 1)).
    let bits = x.to_bits();
    let mut e = (bits >> 52) as i64 - 1023;
    let mut m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if m >= 1.5 {
        (m, e) = (m / 2.0, e + 1);
    }
    let z = (m - 1.0) / (m + 1.0);
    let (square, mut power, mut sum) = (z * z, z, 0.0);
    for odd in (1..32).step_by(2) {
        sum += power / f64::from(odd);
        power *= square;
    }
    2.0 * sum + e as f64 * std::f64::consts::LN_2
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

    #[test]
    fn the_logarithm_is_one() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let drawn = (0..10_000).map(|_| 1.0 - rng.random::<f64>());
        for x in drawn.chain([1.0, 0.5, 0.75, f64::EPSILON, 1e-300, 3.7, 1e10]) {
            assert!((ln(x) - x.ln()).abs() <= 1e-14 * (1.0 + x.ln().abs()), "{x}");
        }
    }
}
