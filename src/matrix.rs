//! The kill matrix: every planted bug before every judge, as data and as text.
//!
//! ```text
//!                 simulator            stateright     real processes         real processes, `chaos`
//! lowest-vote     4/10 invariants …    found, …       0/10                   0/4
//!                  │        │
//!                  │        └ the channel through which it was found
//!                  └ of how many seeds
//! ```
//!
//! Pure: who runs the trials is `cli/matrix`. A row that is measured again replaces the older one; the table in a document is drawn
//! from the data and from the catalogue, never written by hand.

use crate::bugs::{Known, known};
use checkers::Validity;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

mod text;

pub use text::{document, table};

/// Through what a bug was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// What clients saw contradicts the model.
    ClientHistory,
    /// The healed cluster did not serve, or not again.
    LostProgress,
    /// What nodes say of themselves, or what is seen inside of them, contradicts what must hold there.
    NodeInvariants,
    /// Something else that a run looks at, such as a panic in a node's log.
    Other,
}

impl Channel {
    /// That of a checker, by its name.
    pub fn of(checker: &str) -> Channel {
        match checker {
            crate::sim::INVARIANTS | "node-invariants" => Channel::NodeInvariants,
            "log-patterns" | "guards" | "availability" => Channel::Other,
            _ => Channel::ClientHistory,
        }
    }

    /// Whether it needs nothing but what a client can see.
    pub fn is_black_box(self) -> bool {
        matches!(self, Channel::ClientHistory | Channel::LostProgress)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Channel::ClientHistory => "history",
            Channel::LostProgress => "progress",
            Channel::NodeInvariants => "invariants",
            Channel::Other => "other",
        })
    }
}

/// What one seed came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The seed, or the first of them.
    pub seed: u64,
    /// Through what something was found; nothing if nothing was.
    pub channels: Vec<Channel>,
    /// From the start of the cluster to the verdict, in seconds.
    pub seconds: f64,
}

/// A bug before a judge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cell {
    /// Test and fault plan.
    pub under: String,
    /// Seeds that were tried.
    pub runs: u64,
    /// Those with a finding.
    pub found: u64,
    /// How many of those by each channel; a run may find something through several.
    pub channels: BTreeMap<Channel, u64>,
    /// The median of all runs, in seconds, if most of them found something: one that found nothing counts as endless.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub median_seconds: Option<f64>,
    /// The first seed with a finding.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_seed: Option<u64>,
    /// Why the judge was not asked, or what it said beside.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

impl Cell {
    /// A judge that was not asked.
    pub fn not_asked(why: impl Into<String>) -> Cell {
        Cell { note: Some(why.into()), ..Cell::default() }
    }

    /// Of samples under a test and plan.
    pub fn of(under: impl Into<String>, samples: &[Sample]) -> Cell {
        let mut cell = Cell { under: under.into(), runs: samples.len() as u64, ..Cell::default() };
        let mut seconds: Vec<f64> = Vec::new();
        for sample in samples {
            if sample.channels.is_empty() {
                continue;
            }
            cell.found += 1;
            seconds.push(sample.seconds);
            let seed = cell.first_seed.get_or_insert(sample.seed);
            *seed = sample.seed.min(*seed);
            for channel in &sample.channels {
                *cell.channels.entry(*channel).or_default() += 1;
            }
        }
        seconds.sort_by(f64::total_cmp);
        let runs = samples.len();
        // The upper of the two in the middle: never better than what was seen.
        cell.median_seconds = (runs > 0).then(|| seconds.get(runs / 2).copied()).flatten();
        cell
    }

    /// Whether something was found, through anything or only through what clients see.
    pub fn has_found(&self, black_box: bool) -> bool {
        self.channels.iter().any(|(channel, n)| *n > 0 && (!black_box || channel.is_black_box()))
    }
}

/// A bug before all judges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// Its name.
    pub bug: String,
    /// In virtual time, with invariants and a client history.
    pub simulator: Cell,
    /// Every state of a small model.
    pub stateright: Cell,
    /// Against real processes, with the test and plan of the catalogue.
    pub processes: Cell,
    /// Against real processes, with the default plan.
    pub chaos: Cell,
}

impl Row {
    /// No judge was asked about this bug yet.
    pub fn new(bug: impl Into<String>) -> Row {
        let cell = Cell::default;
        Row { bug: bug.into(), simulator: cell(), stateright: cell(), processes: cell(), chaos: cell() }
    }

    fn cells(&self) -> [&Cell; 4] {
        [&self.simulator, &self.stateright, &self.processes, &self.chaos]
    }

    /// Whether any judge found it.
    pub fn is_found(&self) -> bool {
        self.cells().iter().any(|cell| cell.has_found(false))
    }

    /// Whether it was found against real processes through what clients see.
    pub fn is_found_from_outside(&self) -> bool {
        self.processes.has_found(true) || self.chaos.has_found(true)
    }
}

/// The correct cluster under the test and plan of some bugs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Control {
    /// Test and fault plan.
    pub under: String,
    /// In virtual time.
    pub simulator: Cell,
    /// Against real processes.
    pub processes: Cell,
}

impl Control {
    /// Nobody has tried it yet.
    pub fn new(under: impl Into<String>) -> Control {
        Control { under: under.into(), simulator: Cell::default(), processes: Cell::default() }
    }
}

/// All that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Matrix {
    /// The version of this schema.
    pub schema: u32,
    /// One row a bug, in the order of the catalogue.
    pub rows: Vec<Row>,
    /// The correct cluster under the same tests and plans.
    pub controls: Vec<Control>,
}

impl Default for Matrix {
    fn default() -> Self {
        Matrix { schema: 1, rows: Vec::new(), controls: Vec::new() }
    }
}

impl Matrix {
    /// Takes in what was measured later: its rows replace those of the same name. Bugs that there are no longer are forgotten.
    pub fn update(&mut self, later: Matrix) {
        let names: Vec<&str> = later.rows.iter().map(|row| row.bug.as_str()).collect();
        self.rows.retain(|row| !names.contains(&row.bug.as_str()));
        self.controls.retain(|old| !later.controls.iter().any(|new| new.under == old.under));
        self.rows.extend(later.rows);
        self.controls.extend(later.controls);
        let all = known();
        let place = |row: &Row| all.iter().position(|bug| bug.name == row.bug);
        self.rows.retain(|row| place(row).is_some());
        self.rows.sort_by_key(place);
        self.controls.sort_by(|a, b| a.under.cmp(&b.under));
    }

    /// Bugs of the catalogue that nothing is known of.
    pub fn missing(&self) -> Vec<&'static str> {
        let measured = |bug: &Known| self.rows.iter().any(|row| row.bug == bug.name);
        known().into_iter().filter(|bug| !measured(bug)).map(|bug| bug.name).collect()
    }

    /// `Invalid` if the correct cluster was accused, `Unknown` if nothing was measured or no judge at all found a bug that is not known to
    /// need a script. Why clients do not see one is no excuse for the judges that look inside.
    pub fn validity(&self) -> Validity {
        let accused = |c: &Control| c.simulator.found + c.processes.found > 0;
        let all = known();
        let scripted = |row: &Row| all.iter().any(|bug| bug.scripted && bug.name == row.bug);
        let survives = |row: &Row| !row.is_found() && !scripted(row);
        if self.controls.iter().any(accused) {
            Validity::Invalid
        } else if self.rows.is_empty() || self.rows.iter().any(survives) {
            Validity::Unknown
        } else {
            Validity::Valid
        }
    }
}

/// Why clients of real processes see nothing of a bug.
pub fn reason(bug: &str) -> Option<&'static str> {
    known().into_iter().find(|known| known.name == bug)?.hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seed: u64, channels: &[Channel], seconds: f64) -> Sample {
        Sample { seed, channels: channels.to_vec(), seconds }
    }

    fn row(bug: &str, found: bool) -> Row {
        let channels: &[Channel] = if found { &[Channel::NodeInvariants] } else { &[] };
        Row {
            simulator: Cell::of("hunt, storm", &[sample(1, channels, 1.0)]),
            stateright: Cell::not_asked("no model"),
            ..Row::new(bug)
        }
    }

    #[test]
    fn a_median_counts_what_found_nothing_as_endless() {
        let found = |seed, seconds| sample(seed, &[Channel::ClientHistory], seconds);
        let nothing = |seed| sample(seed, &[], 30.0);
        let cell = Cell::of("x", &[found(1, 5.0), nothing(2), found(3, 1.0)]);
        assert_eq!((cell.found, cell.median_seconds, cell.first_seed), (2, Some(5.0), Some(1)));
        assert_eq!(Cell::of("x", &[found(1, 5.0), nothing(2), nothing(3)]).median_seconds, None);
        assert_eq!(Cell::of("x", &[found(2, 5.0), nothing(1)]).median_seconds, None);
        assert_eq!(Cell::of("x", &[]).median_seconds, None);
    }

    #[test]
    fn only_what_clients_see_counts_from_outside() {
        let mut row = row("lowest-vote", true);
        assert!(row.is_found() && !row.is_found_from_outside());
        row.chaos = Cell::of("x", &[sample(1, &[Channel::NodeInvariants, Channel::Other], 1.0)]);
        assert!(!row.is_found_from_outside());
        row.chaos = Cell::of("x", &[sample(1, &[Channel::LostProgress], 1.0)]);
        assert!(row.is_found_from_outside());
        assert_eq!(Channel::of("linearizable"), Channel::ClientHistory);
        assert_eq!(Channel::of(crate::sim::INVARIANTS), Channel::NodeInvariants);
    }

    #[test]
    fn later_rows_replace_older_ones_and_the_order_is_that_of_the_catalogue() {
        let mut all =
            Matrix { rows: vec![row("dirty-reads", true), row("no-such-bug", true)], ..Matrix::default() };
        all.update(Matrix {
            rows: vec![row("dirty-reads", false), row("follower-reads", true)],
            ..Matrix::default()
        });
        let names: Vec<_> = all.rows.iter().map(|row| (row.bug.as_str(), row.is_found())).collect();
        assert_eq!(names, [("follower-reads", true), ("dirty-reads", false)]);
        assert_eq!(all.missing().len(), known().len() - 2);
    }

    #[test]
    fn an_accused_control_or_a_survivor_without_a_reason_is_no_pass() {
        assert_eq!(Matrix::default().validity(), Validity::Unknown);
        let rows = |rows: Vec<Row>| Matrix { rows, ..Matrix::default() };
        assert_eq!(rows(vec![row("dirty-reads", true)]).validity(), Validity::Valid);
        assert_eq!(rows(vec![row("dirty-reads", false)]).validity(), Validity::Unknown);
        assert_eq!(rows(vec![row("votes-of-any-ballot", false)]).validity(), Validity::Valid);
        // That clients do not see it is no reason for the simulator.
        assert_eq!(rows(vec![row("lowest-vote", false)]).validity(), Validity::Unknown);
        let mut accused = rows(vec![row("dirty-reads", true)]);
        let processes = Cell::of("x", &[sample(1, &[Channel::LostProgress], 1.0)]);
        accused.controls = vec![Control { under: "x".to_owned(), simulator: Cell::default(), processes }];
        assert_eq!(accused.validity(), Validity::Invalid);
    }
}
