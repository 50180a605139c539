//! `Span`: a length of time in the options of a checker, as people write it.
//!
//! ```text
//! 250ms   1.5s   2m   10us
//! ```
//!
//! Deliberately with a unit always: nobody guesses whether `5` means seconds.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

/// Units with their nanoseconds, the longest names first.
const UNITS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

impl Span {
    /// So many milliseconds.
    pub const fn ms(ms: u64) -> Span {
        Span(ms.saturating_mul(1_000_000))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("`{text}` is no length of time; write for example 250ms, 1.5s or 2m");
        let trimmed = text.trim();
        let (unit, scale) = UNITS.iter().find(|(unit, _)| trimmed.ends_with(unit)).ok_or_else(wrong)?;
        let number: f64 = trimmed[..trimmed.len() - unit.len()].trim().parse().map_err(|_| wrong())?;
        let ns = number * scale;
        // Beyond that a number of 64 bits would be cut off.
        if !(ns.is_finite() && (0.0..1.8e19).contains(&ns)) {
            return Err(wrong());
        }
        Ok(Span(ns as u64))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = match self.0 {
            0 => return f.write_str("0s"),
            ns if ns < 1_000 => ("ns", 1.0),
            ns if ns < 1_000_000 => ("us", 1e3),
            ns if ns < 1_000_000_000 => ("ms", 1e6),
            _ => ("s", 1e9),
        };
        let number = format!("{:.3}", self.0 as f64 / scale);
        write!(f, "{}{unit}", number.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // In the smallest unit if need be, so that reading it back gives the same.
        match self.to_string().parse::<Span>() {
            Ok(same) if same == *self => serializer.collect_str(self),
            _ => serializer.collect_str(&format_args!("{}ns", self.0)),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_write_it() {
        for (text, ns) in
            [("250ms", 250_000_000), ("1.5s", 1_500_000_000), ("2m", 120_000_000_000), ("0s", 0), ("7 ns", 7)]
        {
            assert_eq!(text.parse(), Ok(Span(ns)));
        }
        for text in ["", "5", "s", "-1s", "1e300h", "NaNs", "five s", "µ"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for ns in [0, 1, 999, 1_234_567, 1_500_000_000, 3_600_000_000_001] {
            let text = serde_json::to_string(&Span(ns)).unwrap();
            assert_eq!(serde_json::from_str::<Span>(&text).unwrap(), Span(ns), "{text}");
        }
    }
}
