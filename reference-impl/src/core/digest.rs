//! A digest of a set that is kept up to date member by member, so that replicas can be compared without being read.
//!
//! ```text
//! {a: 1, b: 2}   mix(a, 1) + mix(b, 2)        put b=3:  − mix(b, 2) + mix(b, 3)        order does not matter
//! ```
//!
//! Sums of mixed hashes (AdHash: Bellare and Micciancio, "A new paradigm for collision-free hashing", EUROCRYPT 1997). The
//! hashes are CRC-32, which is enough against accidents; two different states agree with a chance of about one in four thousand
//! million. Deliberately no defence against somebody who looks for two that do.

/// The sum so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Digest(u64);

impl Digest {
    /// A member came in.
    pub(super) fn add(&mut self, member: u64) {
        self.0 = self.0.wrapping_add(member);
    }

    /// A member went out.
    pub(super) fn remove(&mut self, member: u64) {
        self.0 = self.0.wrapping_sub(member);
    }

    /// As a number; 0 of the empty set.
    pub(super) fn value(self) -> u64 {
        self.0
    }
}

/// Hash of some bytes.
pub(super) fn bytes(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Hash of a key and its value.
pub(super) fn pair(key: u32, value: u32) -> u64 {
    mix((u64::from(key) << 32) | u64::from(value))
}

/// Makes every bit of the result depend on every bit of the number (the finalizer of SplitMix64: Steele, Lea, Flood, "Fast
/// splittable pseudorandom number generators", OOPSLA 2014).
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_leaves_no_trace_and_order_does_not_matter() {
        let member = |key: &str, value: &str| pair(bytes(key.as_bytes()), bytes(value.as_bytes()));
        let of = |members: &[(&str, &str)]| {
            let mut digest = Digest::default();
            members.iter().for_each(|(key, value)| digest.add(member(key, value)));
            digest
        };
        let mut digest = of(&[("b", "2"), ("c", "3"), ("a", "1")]);
        digest.remove(member("c", "3"));
        assert_eq!(digest, of(&[("a", "1"), ("b", "2")]));
        assert_ne!(digest, of(&[("a", "2"), ("b", "1")]), "which key holds which value");
        assert_ne!(digest, of(&[("a", "1"), ("b", "3")]));
        assert_eq!(Digest::default().value(), 0);
    }
}
