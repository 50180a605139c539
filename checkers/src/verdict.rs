//! `Verdict`: what a checker found, data first, prose second.
//!
//! ```text
//! Valid  <  Unknown  <  Invalid        merging is max; merging none is Unknown
//! true      "unknown"   false          in JSON
//! ```
//!
//! One proof of guilt outweighs any number of acquittals, and a doubt outweighs an acquittal. Deliberately no severity
//! beyond that.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value as Json};

/// Whether the history is one that the system may produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Validity {
    /// It is.
    Valid,
    /// It could not be decided, or there was too little to decide on.
    Unknown,
    /// It is not, and here is the evidence.
    Invalid,
}

impl Validity {
    /// The worst of all; of none [`Validity::Unknown`], since nothing was judged.
    pub fn merge(all: impl IntoIterator<Item = Validity>) -> Validity {
        all.into_iter().max().unwrap_or(Validity::Unknown)
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Validity::Valid => "valid",
            Validity::Unknown => "unknown",
            Validity::Invalid => "invalid",
        })
    }
}

impl Serialize for Validity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Validity::Valid => serializer.serialize_bool(true),
            Validity::Unknown => serializer.serialize_str("unknown"),
            Validity::Invalid => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for Validity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Validity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"unknown\"")
            }
            fn visit_bool<E: de::Error>(self, valid: bool) -> Result<Validity, E> {
                Ok(if valid { Validity::Valid } else { Validity::Invalid })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Validity, E> {
                match text {
                    "unknown" => Ok(Validity::Unknown),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// One thing that should not have been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Its name in the literature.
    pub name: String,
    /// In words, for a person who did not run the test.
    pub message: String,
    /// The ids of the operations that show it, the smallest set that could be found.
    pub operations: Vec<usize>,
    /// The same as data; each checker documents its own.
    pub details: Json,
    /// A picture of it, in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
}

/// What one checker, or several together, have found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// In JSON the field `valid`, and the first one.
    #[serde(rename = "valid")]
    pub validity: Validity,
    /// Who says so.
    pub checker: String,
    /// Why it is unknown; for an invalid one a summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What should not have been. Empty unless invalid.
    #[serde(default)]
    pub anomalies: Vec<Anomaly>,
    /// What the checker counted.
    #[serde(default)]
    pub stats: Map<String, Json>,
}

impl Verdict {
    /// Nothing to complain about.
    pub fn valid(checker: impl Into<String>) -> Self {
        Verdict {
            validity: Validity::Valid,
            checker: checker.into(),
            reason: None,
            anomalies: Vec::new(),
            stats: Map::new(),
        }
    }

    /// It could not be decided, for this reason.
    pub fn unknown(checker: impl Into<String>, reason: impl Into<String>) -> Self {
        Verdict { validity: Validity::Unknown, reason: Some(reason.into()), ..Verdict::valid(checker) }
    }

    /// Several verdicts as one: the worst validity, all anomalies, all reasons under their checkers' names, and all
    /// stats likewise.
    pub fn merge(checker: impl Into<String>, verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
        let mut merged = Verdict::valid(checker);
        let mut validities = Vec::new();
        let mut reasons = Vec::new();
        for verdict in verdicts {
            validities.push(verdict.validity);
            if let Some(reason) = verdict.reason {
                reasons.push(format!("{}: {reason}", verdict.checker));
            }
            merged.anomalies.extend(verdict.anomalies);
            merged.stats.insert(verdict.checker, Json::Object(verdict.stats));
        }
        if validities.is_empty() {
            reasons.push("nothing was judged".into());
        }
        merged.validity = Validity::merge(validities);
        merged.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_wins_and_nothing_is_unknown() {
        use Validity::*;
        assert_eq!(Validity::merge([]), Unknown);
        assert_eq!(Validity::merge([Valid, Valid]), Valid);
        assert_eq!(Validity::merge([Valid, Unknown]), Unknown);
        assert_eq!(Validity::merge([Unknown, Invalid, Valid]), Invalid);
        assert_eq!(Verdict::merge("all", []).validity, Unknown);
    }

    #[test]
    fn json_begins_with_valid() {
        let verdict = Verdict::unknown("linearizable", "cancelled");
        let text = serde_json::to_string(&verdict).unwrap();
        assert!(
            text.starts_with(r#"{"valid":"unknown","checker":"linearizable","reason":"cancelled""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), verdict);
        for (validity, text) in [(Validity::Valid, "true"), (Validity::Invalid, "false")] {
            assert_eq!(serde_json::to_string(&validity).unwrap(), text);
            assert_eq!(serde_json::from_str::<Validity>(text).unwrap(), validity);
        }
        assert!(serde_json::from_str::<Validity>("\"maybe\"").is_err());
    }

    #[test]
    fn merging_keeps_everything_under_its_name() {
        let mut bad = Verdict::valid("a");
        bad.validity = Validity::Invalid;
        bad.stats.insert("keys".into(), 3.into());
        let merged = Verdict::merge("all", [bad, Verdict::unknown("b", "too long")]);
        assert_eq!(merged.validity, Validity::Invalid);
        assert_eq!(merged.reason.as_deref(), Some("b: too long"));
        assert_eq!(merged.stats["a"]["keys"], 3);
    }
}
