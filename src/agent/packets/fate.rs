//! What becomes of one packet: the pure decision behind the packet queue.
//!
//! ```text
//!  arrival ──┬─ escapes (reorder) ────────────────────────────► leaves at its arrival
//!            └─ arrival + delay + (0..=jitter), but not before
//!               the departure of the one before it ───────────► leaves then
//! ```
//!
//! Times are nanoseconds since an epoch of the caller's. Nothing here reads a clock, a socket or a packet,
//! so the same seed, treatment and arrivals always give the same fates.
//!
//! Deliberately not here: counting and holding (see `held`), and what corrupting means (see `ipv4`).

use rand::Rng;

use super::Treatment;

/// The decision about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// When it leaves; never before its arrival.
    pub departure: u64,
    /// It was meant to be delayed and leaves at once instead, overtaking whatever is held.
    pub escaped: bool,
    /// A copy of it follows it.
    pub duplicate: bool,
    /// It is to be corrupted; the number, uniform over all of `u64`, chooses the bit.
    pub corrupt: Option<u64>,
}

/// Decides about a packet that came in at `arrival`, when the last packet of the same source that did not
/// escape leaves (or left) at `last_departure`.
///
/// It draws the same five numbers whatever the treatment asks, so that changing one part of a treatment
/// leaves the choices of the other parts as they were.
pub(super) fn decide(rng: &mut impl Rng, treatment: &Treatment, arrival: u64, last_departure: u64) -> Fate {
    let [escape, jitter, duplicate, corrupt, bit] = std::array::from_fn(|_| rng.next_u64());
    let holds = treatment.delay_us > 0 || treatment.jitter_us > 0;
    let escaped = holds && happens(treatment.reorder, escape);
    let departure = if escaped {
        arrival
    } else {
        // The jitter in nanoseconds: whole microseconds would make packets of a burst leave in clumps.
        let jitter = below_or_at(nanoseconds(treatment.jitter_us), jitter);
        let kept = nanoseconds(treatment.delay_us).saturating_add(jitter);
        arrival.saturating_add(kept).max(last_departure)
    };
    Fate {
        departure,
        escaped,
        duplicate: happens(treatment.duplicate, duplicate),
        corrupt: happens(treatment.corrupt, corrupt).then_some(bit),
    }
}

/// The longest that a treatment by itself keeps a packet, in nanoseconds.
pub(super) fn longest(treatment: &Treatment) -> u64 {
    nanoseconds(treatment.delay_us).saturating_add(nanoseconds(treatment.jitter_us))
}

/// Maps a number that is uniform over all of `u64` to one uniform in `0..=most`.
pub(super) fn below_or_at(most: u64, uniform: u64) -> u64 {
    ((u128::from(uniform) * (u128::from(most) + 1)) >> 64) as u64
}

/// Whether something of this probability happens, given a uniform number. NaN never happens.
fn happens(probability: f64, uniform: u64) -> bool {
    const STEPS: f64 = (1_u64 << 53) as f64;
    // 53 bits are what an f64 holds exactly; the result is in 0.0..1.0, so 1.0 always and 0.0 never happens.
    ((uniform >> 11) as f64) / STEPS < probability
}

fn nanoseconds(microseconds: u64) -> u64 {
    microseconds.saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(7)
    }

    #[test]
    fn the_default_treatment_lets_a_packet_pass_at_once() {
        let fate = decide(&mut rng(), &Treatment::default(), 100, 0);
        assert_eq!(fate, Fate { departure: 100, escaped: false, duplicate: false, corrupt: None });
    }

    #[test]
    fn a_delay_is_exact() {
        let treatment = Treatment { delay_us: 20_000, ..Treatment::default() };
        assert_eq!(decide(&mut rng(), &treatment, 5, 0).departure, 20_000_005);
    }

    #[test]
    fn jitter_spreads_over_its_range_and_keeps_the_order() {
        let treatment = Treatment { delay_us: 1_000, jitter_us: 500, ..Treatment::default() };
        let mut rng = rng();
        let alone: Vec<u64> = (0..2_000).map(|_| decide(&mut rng, &treatment, 0, 0).departure).collect();
        assert!(alone.iter().all(|&at| (1_000_000..=1_500_000).contains(&at)));
        assert!(alone.iter().any(|&at| at < 1_050_000) && alone.iter().any(|&at| at > 1_450_000));
        let mut last = 0;
        for arrival in (0..2_000).map(|packet| packet * 10_000) {
            let departure = decide(&mut rng, &treatment, arrival, last).departure;
            assert!(departure >= last);
            last = departure;
        }
    }

    #[test]
    fn an_escaped_packet_leaves_at_its_arrival() {
        let treatment = Treatment { delay_us: 1_000, reorder: 1.0, ..Treatment::default() };
        let fate = decide(&mut rng(), &treatment, 40, 900_000);
        assert!(fate.escaped);
        assert_eq!(fate.departure, 40);
        let nothing_to_escape = Treatment { reorder: 1.0, ..Treatment::default() };
        assert!(!decide(&mut rng(), &nothing_to_escape, 40, 0).escaped);
    }

    #[test]
    fn probabilities_are_kept() {
        let treatment =
            Treatment { delay_us: 1, reorder: 0.25, duplicate: 0.5, corrupt: 0.01, ..Default::default() };
        let mut rng = rng();
        let fates: Vec<Fate> = (0..100_000).map(|_| decide(&mut rng, &treatment, 0, 0)).collect();
        let count = |which: fn(&Fate) -> bool| fates.iter().filter(|fate| which(fate)).count();
        assert!((24_000..26_000).contains(&count(|fate| fate.escaped)));
        assert!((49_000..51_000).contains(&count(|fate| fate.duplicate)));
        assert!((850..1_150).contains(&count(|fate| fate.corrupt.is_some())));
    }

    #[test]
    fn the_same_seed_gives_the_same_fates_and_parts_do_not_disturb_each_other() {
        let some = Treatment { delay_us: 9, jitter_us: 9, corrupt: 0.5, ..Treatment::default() };
        let more = Treatment { duplicate: 0.5, ..some };
        let fates = |treatment: Treatment| {
            let mut rng = rng();
            (0..100).map(move |at| decide(&mut rng, &treatment, at, 0)).collect::<Vec<_>>()
        };
        assert_eq!(fates(some), fates(some));
        let without_copies = |fates: Vec<Fate>| {
            fates.into_iter().map(|fate| Fate { duplicate: false, ..fate }).collect::<Vec<_>>()
        };
        assert_eq!(fates(some), without_copies(fates(more)));
    }

    #[test]
    fn absurd_treatments_do_not_overflow() {
        let treatment =
            Treatment { delay_us: u64::MAX, jitter_us: u64::MAX, reorder: f64::NAN, ..Default::default() };
        assert_eq!(decide(&mut rng(), &treatment, 1, 0).departure, u64::MAX);
        assert_eq!(longest(&treatment), u64::MAX);
        assert_eq!(below_or_at(u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(below_or_at(0, u64::MAX), 0);
    }
}
