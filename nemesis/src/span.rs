//! Lengths of time as people write them in YAML: `250ms`, `1.5s`, `2m`, `1s..3s`.
//!
//! Not a clock: a [`Span`] never says when.

use rand::{Rng, RngExt};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr, time::Duration};

/// A length of time. Written as jiff's friendly format (`10ms`, `1s 500ms`, `2m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

impl Span {
    /// So many milliseconds.
    pub const fn ms(ms: u64) -> Self {
        Span(Duration::from_millis(ms))
    }
    /// Whether it is no time at all.
    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }
    /// In nanoseconds, as times in histories are.
    pub fn ns(self) -> u64 {
        self.0.as_nanos() as u64
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let parsed: jiff::SignedDuration = s
            .trim()
            .parse()
            .map_err(|_| format!("`{s}` is no length of time; write for example 250ms, 1.5s or 2m"))?;
        Duration::try_from(parsed)
            .map(Span)
            .map_err(|_| format!("`{s}` is negative; a length of time cannot be"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        if us == 0 {
            f.write_str("0s")
        } else if us.is_multiple_of(60_000_000) {
            write!(f, "{}m", us / 60_000_000)
        } else if us >= 1_000_000 {
            write!(f, "{}s", trimmed(us as f64 / 1e6))
        } else {
            write!(f, "{}ms", trimmed(us as f64 / 1e3))
        }
    }
}

fn trimmed(x: f64) -> String {
    let s = format!("{x:.3}");
    s.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(SpanVisitor)
    }
}

struct SpanVisitor;
impl de::Visitor<'_> for SpanVisitor {
    type Value = Span;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a length of time such as 250ms, 1.5s or 2m")
    }
    fn visit_str<E: de::Error>(self, s: &str) -> Result<Span, E> {
        s.parse().map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Span, E> {
        match n {
            0 => Ok(Span::default()),
            _ => Err(E::custom(format!("`{n}` has no unit; write for example {n}s or {n}ms"))),
        }
    }
}

/// A length of time drawn at random between two bounds, both included: `1s..3s`, or `2s` for exactly that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The shortest.
    pub min: Span,
    /// The longest.
    pub max: Span,
}

impl Range {
    /// Draws one, with the caller's randomness, uniformly in steps of a millisecond.
    pub fn draw(self, rng: &mut impl Rng) -> Span {
        let (a, b) = (self.min.0.as_millis() as u64, self.max.0.as_millis() as u64);
        Span::ms(if a >= b { a } else { rng.random_range(a..=b) })
    }
}

impl FromStr for Range {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (min, max) = match s.split_once("..") {
            Some((a, b)) => (a.parse()?, b.parse()?),
            None => {
                let one: Span = s.parse()?;
                (one, one)
            }
        };
        if min > max {
            return Err(format!("`{s}` runs backwards; write the shorter time first"));
        }
        Ok(Range { min, max })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { self.min.fmt(f) } else { write!(f, "{}..{}", self.min, self.max) }
    }
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write_and_writes_it_back() {
        for text in ["250ms", "1.5s", "2m", "0s", "90s", "0.5ms"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span, span.to_string().parse().unwrap(), "{text}");
        }
        assert_eq!("1s..3s".parse::<Range>().unwrap().to_string(), "1s..3s");
        assert_eq!("1m 30s".parse::<Span>().unwrap(), Span::ms(90_000));
    }

    #[test]
    fn refuses_what_is_no_length_of_time() {
        assert!("fast".parse::<Span>().unwrap_err().contains("for example"));
        assert!("-1s".parse::<Span>().unwrap_err().contains("negative"));
        assert!("3s..1s".parse::<Range>().unwrap_err().contains("backwards"));
    }
}
