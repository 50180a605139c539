//! The packets that are being kept back, and what has been done to each source's packets so far.
//!
//! ```text
//!  arrive(id, bytes, now) ─► [ heap by (due, order of arrival) ] ─► leave(by, now)
//!                                    ▲ treat(source, …, now) may make what is held leave earlier
//! ```
//!
//! Every packet goes through the heap, also one that leaves at once: that way a packet that may pass never
//! slips in front of an earlier one that is due but has not been let go yet.
//!
//! Deliberately without a clock or a socket: the caller says what time it is (nanoseconds of its own epoch).

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::net::Ipv4Addr;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::fate::{self, Fate};
use super::{Treated, Treatment, ipv4};

/// A packet on its way through the queue.
#[derive(Debug)]
pub(super) struct Held {
    /// The kernel's number of the packet in the queue.
    pub id: u32,
    /// Where it came from.
    pub source: Ipv4Addr,
    /// What to put in its place, when it was corrupted.
    pub altered: Option<Vec<u8>>,
    /// A copy to send after it, when it was duplicated.
    pub copy: Option<Vec<u8>>,
    arrived: u64,
    due: u64,
    order: u64,
    delayed: bool,
}

/// A packet as it came in.
#[derive(Debug)]
pub(super) struct Arrived {
    /// The kernel's number of the packet in the queue.
    pub id: u32,
    /// Where it came from.
    pub source: Ipv4Addr,
    /// The packet from its IP header on.
    pub bytes: Vec<u8>,
    /// Whether `bytes` is all of it; a cut packet is delayed, but neither corrupted nor duplicated.
    pub whole: bool,
}

/// All that is held, and the books about it.
#[derive(Debug)]
pub(super) struct Holding {
    seed: u64,
    limit: usize,
    sources: HashMap<Ipv4Addr, Source>,
    heap: BinaryHeap<Reverse<Held>>,
    arrivals: u64,
    lost: u64,
}

#[derive(Debug)]
struct Source {
    treatment: Treatment,
    treated: Treated,
    rng: ChaCha8Rng,
    last_departure: u64,
}

impl Holding {
    /// Nothing held. At most `limit` packets will be: more pass at once and are counted as overflowed.
    pub(super) fn new(seed: u64, limit: usize) -> Holding {
        let (sources, heap) = (HashMap::new(), BinaryHeap::new());
        Holding { seed, limit, sources, heap, arrivals: 0, lost: 0 }
    }

    /// Treats the source's packets so from now on. What is held of it leaves no later than a packet that
    /// came in now could, so that lifting a delay of a minute does not take a minute.
    pub(super) fn treat(&mut self, source: Ipv4Addr, treatment: Treatment, now: u64) {
        let latest = now.saturating_add(fate::longest(&treatment));
        let state = self.source(source);
        state.treatment = treatment;
        state.last_departure = state.last_departure.min(latest);
        let mut held = std::mem::take(&mut self.heap).into_vec();
        for Reverse(packet) in held.iter_mut().filter(|held| held.0.source == source) {
            // Cutting all at the same time keeps their order: equal times leave in order of arrival.
            packet.due = packet.due.min(latest);
        }
        self.heap = held.into();
    }

    /// Takes a packet in.
    pub(super) fn arrive(&mut self, packet: Arrived, now: u64) {
        let full = self.heap.len() >= self.limit;
        let Arrived { id, source, bytes, whole } = packet;
        let state = self.source(source);
        state.treated.packets += 1;
        let mut fate = fate::decide(&mut state.rng, &state.treatment, now, state.last_departure);
        if full {
            state.treated.overflowed += 1;
            fate.departure = now;
        } else if fate.escaped {
            state.treated.escaped += 1;
        } else {
            state.last_departure = fate.departure;
        }
        let (altered, copy) = if whole { alter(bytes, &fate) } else { (None, None) };
        state.treated.corrupted += u64::from(altered.is_some());
        let order = self.arrivals;
        self.arrivals += 1;
        let (due, delayed) = (fate.departure, fate.departure > now);
        self.heap.push(Reverse(Held { id, source, altered, copy, arrived: now, due, order, delayed }));
    }

    /// When the next packet is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.heap.peek().map(|packet| packet.0.due)
    }

    /// The next packet that is due `by` then, if any; it counts as let go at `now`.
    pub(super) fn leave(&mut self, by: u64, now: u64) -> Option<Held> {
        if self.next_due()? > by {
            return None;
        }
        let Reverse(packet) = self.heap.pop()?;
        if packet.delayed {
            let treated = &mut self.source(packet.source).treated;
            treated.delayed += 1;
            treated.delayed_ns += now.saturating_sub(packet.arrived);
        }
        Some(packet)
    }

    /// Makes everything due, for the end.
    pub(super) fn give_up(&mut self, now: u64) {
        let mut held = std::mem::take(&mut self.heap).into_vec();
        for Reverse(packet) in &mut held {
            packet.due = packet.due.min(now);
        }
        self.heap = held.into();
    }

    /// A copy of a packet of this source has been sent.
    pub(super) fn copied(&mut self, source: Ipv4Addr) {
        self.source(source).treated.duplicated += 1;
    }

    /// The kernel had this many packets pass us by so far, of whichever source.
    pub(super) fn lost(&mut self, lost: u64) {
        self.lost = lost;
    }

    /// What has been done to a source's packets so far.
    pub(super) fn treated(&self, source: Ipv4Addr) -> Treated {
        let treated = self.sources.get(&source).map(|state| state.treated).unwrap_or_default();
        Treated { overflowed: treated.overflowed + self.lost, ..treated }
    }

    fn source(&mut self, source: Ipv4Addr) -> &mut Source {
        let seed = self.seed;
        self.sources.entry(source).or_insert_with(|| {
            // A stream of its own: how packets of several sources interleave changes no source's choices.
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(u64::from(source.to_bits()));
            Source { treatment: Treatment::default(), treated: Treated::default(), rng, last_departure: 0 }
        })
    }
}

/// The corrupted packet and the copy that a fate asks for. The copy is of the packet as it came.
fn alter(bytes: Vec<u8>, fate: &Fate) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let copy = fate.duplicate.then(|| bytes.clone());
    let altered = fate.corrupt.and_then(|choice| {
        let mut bytes = bytes;
        ipv4::corrupt(&mut bytes, choice).then_some(bytes)
    });
    (altered, copy)
}

impl Ord for Held {
    fn cmp(&self, other: &Held) -> Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Held {}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn packet(id: u32, source: Ipv4Addr) -> Arrived {
        let mut bytes = vec![0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0];
        bytes.extend(source.octets());
        bytes.extend([10, 0, 0, 9]);
        bytes.extend([0; 12]);
        Arrived { id, source, bytes, whole: true }
    }

    fn delay(delay_us: u64) -> Treatment {
        Treatment { delay_us, ..Treatment::default() }
    }

    fn left(holding: &mut Holding, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| holding.leave(now, now)).map(|held| held.id).collect()
    }

    #[test]
    fn sources_are_held_apart() {
        let mut holding = Holding::new(1, 100);
        holding.treat(A, delay(10), 0);
        holding.arrive(packet(1, A), 0);
        holding.arrive(packet(2, B), 0);
        holding.arrive(packet(3, A), 5);
        assert_eq!(left(&mut holding, 5), [2]);
        assert_eq!(holding.next_due(), Some(10_000));
        assert_eq!(left(&mut holding, 11_000), [1, 3]);
        let expected = Treated { packets: 2, delayed: 2, delayed_ns: 21_995, ..Treated::default() };
        assert_eq!(holding.treated(A), expected);
        assert_eq!(holding.treated(B), Treated { packets: 1, ..Treated::default() });
    }

    #[test]
    fn lifting_a_delay_frees_what_is_held_in_order() {
        let mut holding = Holding::new(1, 100);
        holding.treat(A, delay(60_000_000), 0);
        (0..5).for_each(|id| holding.arrive(packet(id, A), u64::from(id)));
        holding.treat(A, Treatment::default(), 50);
        holding.arrive(packet(5, A), 51);
        assert_eq!(left(&mut holding, 51), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn lengthening_a_delay_leaves_what_is_held_alone() {
        let mut holding = Holding::new(1, 100);
        holding.treat(A, delay(1), 0);
        holding.arrive(packet(1, A), 0);
        holding.treat(A, delay(100), 0);
        holding.arrive(packet(2, A), 0);
        assert_eq!(left(&mut holding, 1_000), [1]);
        assert_eq!(left(&mut holding, 100_000), [2]);
    }

    #[test]
    fn a_full_holding_lets_packets_pass_and_says_so() {
        let mut holding = Holding::new(1, 2);
        holding.treat(A, delay(1), 0);
        (0..3).for_each(|id| holding.arrive(packet(id, A), 0));
        assert_eq!(left(&mut holding, 0), [2]);
        holding.lost(7);
        assert_eq!(holding.treated(A).overflowed, 8);
        assert_eq!(holding.treated(B).overflowed, 7);
    }

    #[test]
    fn corrupting_spares_the_copy_and_cut_packets() {
        let mut holding = Holding::new(1, 100);
        holding.treat(A, Treatment { corrupt: 1.0, duplicate: 1.0, ..Treatment::default() }, 0);
        holding.arrive(packet(1, A), 0);
        holding.arrive(Arrived { whole: false, ..packet(2, A) }, 0);
        let held = holding.leave(0, 0).expect("a packet is due");
        assert_eq!(held.copy, Some(packet(1, A).bytes));
        assert_ne!(held.altered, None);
        assert_ne!(held.altered, held.copy);
        let cut = holding.leave(0, 0).expect("another packet is due");
        assert_eq!((cut.altered, cut.copy), (None, None));
        assert_eq!(holding.treated(A).corrupted, 1);
    }

    #[test]
    fn giving_up_makes_everything_due() {
        let mut holding = Holding::new(1, 100);
        holding.treat(A, delay(u64::MAX), 0);
        (0..3).for_each(|id| holding.arrive(packet(id, A), 0));
        assert!(left(&mut holding, 1).is_empty());
        holding.give_up(1);
        assert_eq!(left(&mut holding, 1), [0, 1, 2]);
    }
}
