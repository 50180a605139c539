//! Consistency models and what rules them out, as data.
//!
//! ```text
//!    strict-serializable ──> serializable ──> snapshot-isolation ──> … ──> read-committed ──> read-uncommitted
//!                            └─────────────> repeatable-read ──> cursor-stability ──┘
//!    G-single ──> G-nonadjacent, G2-item, …        an anomaly that is also a case of others
//!    snapshot-isolation  forbids  G-nonadjacent    and so does every model that implies it
//! ```
//!
//! A model falls if an anomaly is found that it forbids, or that is a case of one it forbids, or if a model falls that it
//! implies. The tables, with the source of each line, are in [`table`]. Deliberately only what these checkers can see: a
//! model that forbids nothing they look for is never said to hold, and a model of which the tables know only a part is
//! marked as such.

mod table;

use std::{fmt, str::FromStr, sync::LazyLock};

pub use self::table::{CONSISTENCY_MODELS, ModelEntry, PHENOMENA, Phenomenon, PhenomenonEntry};

/// A consistency model, by its place in [`CONSISTENCY_MODELS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsistencyModel(u8);

impl ConsistencyModel {
    /// All of them.
    pub fn all() -> impl Iterator<Item = ConsistencyModel> {
        (0..CONSISTENCY_MODELS.len() as u8).map(ConsistencyModel)
    }

    /// Strict serializability: serializable in an order that agrees with real time.
    pub fn strict_serializable() -> Self {
        "strict-serializable".parse().expect("it is in the table")
    }

    /// Its line in the table.
    pub fn entry(self) -> &'static ModelEntry {
        &CONSISTENCY_MODELS[self.0 as usize]
    }

    /// The name by which people know it.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// Whether a history that satisfies this model satisfies the other. Every model implies itself.
    pub fn implies(self, other: ConsistencyModel) -> bool {
        TABLES.implied[self.0 as usize] & 1 << other.0 != 0
    }

    /// Whether a history with this anomaly cannot satisfy the model.
    pub fn forbids(self, phenomenon: Phenomenon) -> bool {
        TABLES.forbidden[self.0 as usize] & 1 << phenomenon as u64 != 0
    }

    /// Whether these checkers look for anything that the model forbids.
    pub fn is_judged(self) -> bool {
        TABLES.forbidden[self.0 as usize] != 0
    }
}

impl fmt::Display for ConsistencyModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for ConsistencyModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ConsistencyModel {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let is = |text: &&str| text.eq_ignore_ascii_case(name);
        let found = CONSISTENCY_MODELS.iter().position(|m| is(&m.name) || m.synonyms.iter().any(is));
        found.map(|place| ConsistencyModel(place as u8)).ok_or_else(|| {
            let names: Vec<_> = CONSISTENCY_MODELS.iter().map(|model| model.name).collect();
            format!("unknown consistency model \"{name}\": use one of {}", names.join(", "))
        })
    }
}

/// What anomalies leave of the lattice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// The weakest models that are ruled out.
    pub not: Vec<ConsistencyModel>,
    /// The stronger ones, which fall with them.
    pub also_not: Vec<ConsistencyModel>,
    /// The strongest judged models that are left.
    pub may_hold: Vec<ConsistencyModel>,
}

impl Boundary {
    /// Of these anomalies.
    pub fn of(found: impl IntoIterator<Item = Phenomenon>) -> Boundary {
        let found = found.into_iter().fold(0u64, |set, phenomenon| set | 1 << phenomenon as u64);
        let out = |m: ConsistencyModel| TABLES.forbidden[m.0 as usize] & found != 0;
        let weaker_out =
            |m: ConsistencyModel| ConsistencyModel::all().any(|w| w != m && m.implies(w) && out(w));
        let (not, also_not): (Vec<_>, Vec<_>) =
            ConsistencyModel::all().filter(|&m| out(m)).partition(|&m| !weaker_out(m));
        let left = |m: &ConsistencyModel| !out(*m) && m.is_judged();
        let stronger_left =
            |m: ConsistencyModel| ConsistencyModel::all().any(|s| s != m && s.implies(m) && left(&s));
        let may_hold = ConsistencyModel::all().filter(left).filter(|&m| !stronger_left(m)).collect();
        Boundary { not, also_not, may_hold }
    }
}

/// The closures of the tables, as sets of bits.
struct Tables {
    /// By model: the models it implies, itself included.
    implied: Vec<u64>,
    /// By model: every anomaly that rules it out.
    forbidden: Vec<u64>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let place = |name: &str| {
        CONSISTENCY_MODELS.iter().position(|m| m.name == name).expect("the tables name known models")
    };
    // By anomaly: itself and whatever it is a case of.
    let cases = closure(PHENOMENA.len(), |i| PHENOMENA[i].is_also.iter().map(|(p, _)| *p as usize).collect());
    let implied = closure(CONSISTENCY_MODELS.len(), |i| {
        CONSISTENCY_MODELS[i].implies.iter().map(|(name, _)| place(name)).collect()
    });
    let direct = |model: usize| {
        CONSISTENCY_MODELS[model].forbids.iter().fold(0u64, |set, (p, _)| set | 1 << *p as u64)
    };
    let forbidden = implied
        .iter()
        .map(|weaker| {
            let named = (0..CONSISTENCY_MODELS.len())
                .filter(|m| weaker & 1 << m != 0)
                .fold(0, |set, m| set | direct(m));
            (0..PHENOMENA.len()).filter(|&p| cases[p] & named != 0).fold(0, |set, p| set | 1 << p)
        })
        .collect();
    Tables { implied, forbidden }
});

/// By place: the places that can be reached, itself included.
fn closure(places: usize, next: impl Fn(usize) -> Vec<usize>) -> Vec<u64> {
    assert!(places <= 64, "the sets have 64 bits");
    (0..places)
        .map(|start| {
            let (mut reached, mut open) = (1u64 << start, vec![start]);
            while let Some(place) = open.pop() {
                for next in next(place) {
                    if reached & 1 << next == 0 {
                        reached |= 1 << next;
                        open.push(next);
                    }
                }
            }
            reached
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(models: &[ConsistencyModel]) -> Vec<&str> {
        let mut names: Vec<_> = models.iter().map(|m| m.name()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn names_are_unique_and_the_table_is_in_order() {
        let mut all: Vec<&str> = Vec::new();
        for model in CONSISTENCY_MODELS {
            all.push(model.name);
            all.extend(model.synonyms);
            assert!(model.implies.iter().all(|(_, source)| !source.is_empty()), "{}", model.name);
            assert!(model.forbids.iter().all(|(_, source)| !source.is_empty()), "{}", model.name);
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        for name in all {
            let model: ConsistencyModel = name.parse().unwrap();
            assert_eq!(model.name().parse::<ConsistencyModel>().unwrap(), model);
        }
        for (i, entry) in PHENOMENA.iter().enumerate() {
            assert_eq!(entry.phenomenon as usize, i, "{}", entry.name);
        }
    }

    #[test]
    fn the_lattice_has_no_cycles() {
        for a in ConsistencyModel::all() {
            for b in ConsistencyModel::all() {
                assert!(a == b || !(a.implies(b) && b.implies(a)), "{a} and {b}");
            }
        }
    }

    #[test]
    fn boundaries_that_are_well_known() {
        let of = |p| Boundary::of([p]);
        assert_eq!(names(&of(Phenomenon::G2Item).not), ["repeatable-read"]);
        assert_eq!(
            names(&of(Phenomenon::G2Item).may_hold),
            ["strong-snapshot-isolation", "update-serializable"]
        );
        assert_eq!(names(&of(Phenomenon::GSingle).not), ["consistent-view", "repeatable-read"]);
        assert_eq!(names(&of(Phenomenon::G0).not), ["read-uncommitted"]);
        assert_eq!(names(&of(Phenomenon::G2ItemRealtime).not), ["strict-serializable"]);
        assert_eq!(
            names(&of(Phenomenon::G2ItemRealtime).may_hold),
            ["strong-session-serializable", "strong-snapshot-isolation"]
        );
        assert_eq!(names(&Boundary::of([]).may_hold), ["strict-serializable"]);
        assert!(Boundary::of([]).not.is_empty());
    }

    #[test]
    fn what_is_not_judged_is_not_said_to_hold() {
        for name in ["linearizable", "sequential", "causal", "monotonic-reads", "view-serializable"] {
            assert!(!name.parse::<ConsistencyModel>().unwrap().is_judged(), "{name}");
        }
    }
}
