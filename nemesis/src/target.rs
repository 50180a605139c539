//! To whom a fault is done: `one`, `leader`, `minority`, `n2`, `n1,n4`, …
//!
//! `leader` is resolved at the moment the fault fires; everything else follows from the seed. Resolution is pure.

use crate::cluster::NodeName;
use rand::{Rng, RngExt, seq::SliceRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Which nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// One at random.
    #[default]
    One,
    /// Whoever leads at that moment; one at random if nobody claims to.
    Leader,
    /// One at random that does not lead.
    Follower,
    /// The node in the middle of a bridge that is in force; one at random if there is none.
    Bridge,
    /// Between one and the largest minority, at random.
    Minority,
    /// The smallest majority, at random.
    Majority,
    /// Everyone.
    All,
    /// These.
    Named(Vec<NodeName>),
}

impl Target {
    /// The nodes that are meant, in the cluster's order. Never empty for a cluster that has nodes, unless nodes were
    /// named that it does not have. `special` is the leader for [`Target::Leader`] and [`Target::Follower`], and the node
    /// in the middle for [`Target::Bridge`].
    pub fn resolve(
        &self,
        nodes: &[NodeName],
        special: Option<&NodeName>,
        rng: &mut impl Rng,
    ) -> Vec<NodeName> {
        let n = nodes.len();
        let draw = |k: usize, rng: &mut dyn Rng| {
            let mut all: Vec<usize> = (0..n).collect();
            all.shuffle(rng);
            let mut picked = all[..k.min(n)].to_vec();
            picked.sort_unstable();
            picked.into_iter().map(|i| nodes[i].clone()).collect::<Vec<_>>()
        };
        match self {
            Target::One => draw(1, rng),
            Target::Leader | Target::Bridge => special.map_or_else(|| draw(1, rng), |l| vec![l.clone()]),
            Target::Follower => {
                let others: Vec<_> = nodes.iter().filter(|x| Some(*x) != special).collect();
                if others.is_empty() {
                    vec![]
                } else {
                    vec![others[rng.random_range(0..others.len())].clone()]
                }
            }
            Target::Minority => {
                let k = rng.random_range(1..=((n - 1) / 2).max(1));
                draw(k, rng)
            }
            Target::Majority => draw(n / 2 + 1, rng),
            Target::All => nodes.to_vec(),
            Target::Named(names) => nodes.iter().filter(|x| names.contains(x)).cloned().collect(),
        }
    }
}

impl FromStr for Target {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Ok(match s.trim() {
            "one" => Target::One,
            "leader" => Target::Leader,
            "follower" => Target::Follower,
            "bridge" => Target::Bridge,
            "minority" => Target::Minority,
            "majority" => Target::Majority,
            "all" => Target::All,
            names => {
                let names: Vec<&str> = names.split(',').map(str::trim).collect();
                if let Some(bad) = names.iter().find(|x| !looks_like_a_node(x)) {
                    return Err(format!(
                        "`{bad}` is no target; use one, leader, follower, bridge, minority, majority, all, or names such as n1,n3"
                    ));
                }
                Target::Named(names.into_iter().map(NodeName::from).collect())
            }
        })
    }
}

fn looks_like_a_node(s: &str) -> bool {
    s.strip_prefix('n').is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::One => "one",
            Target::Leader => "leader",
            Target::Follower => "follower",
            Target::Bridge => "bridge",
            Target::Minority => "minority",
            Target::Majority => "majority",
            Target::All => "all",
            Target::Named(names) => return f.write_str(&names.join(",")),
        })
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}
