//! What all that was found means for the model that was asked for, and for the others.
//!
//! ```text
//! found        G-single, G2-item
//! not          consistent-view, repeatable-read           the weakest that are ruled out
//! also_not     serializable, …                            what is stronger
//! may_hold     cursor-stability, …                        the strongest that nothing speaks against
//! valid        false, if the chosen model forbids any of what was found
//! ```
//!
//! `stats`: `transactions ok info fail micro_operations keys edges components steps`, then `consistency_model`,
//! `anomaly_counts`, `not`, `also_not`, `may_hold`, `undecided` (anomalies that may be there unseen, since the search was cut short:
//! then less may hold), `findings` (anomalies that the chosen model allows, as in
//! `anomalies`), and `cycles`, all cycles by name and operations, the first hundred thousand.
//!
//! Deliberately cautious: no anomaly makes the verdict `Valid` only if there was something to see, and all of it was looked at.

use serde_json::{Map, Value as Json, json};

use super::{
    Options, explain,
    findings::Finding,
    input::{Datatype, MopKind, Transactions, TxnOutcome},
    judge::{Found, FoundCycle},
    models::{Boundary, ConsistencyModel, Phenomenon},
    reasons::Reasons,
};
use crate::{Anomaly, Validity, Verdict};

/// How many cycles that the model forbids are explained, how many others, and how many anomalies of other kinds.
const EXPLAINED: usize = 100;
/// How many cycles are listed.
const LISTED: usize = 100_000;

/// The verdict.
pub(super) fn verdict(name: &str, txns: &Transactions, options: &Options, found: Found) -> Verdict {
    let model = options.consistency_model;
    let mut counts: Vec<(Phenomenon, usize)> = found.learned.findings.counts().collect();
    for cycles in found.cycles.chunk_by(|a, b| a.phenomenon == b.phenomenon) {
        counts.push((cycles[0].phenomenon, cycles.len()));
    }
    counts.sort_unstable();
    let boundary = Boundary::of(counts.iter().map(|count| count.0));
    let mut verdict = Verdict::valid(name);
    let (anomalies, findings): (Vec<_>, Vec<_>) =
        explained(txns, options, &found).into_iter().partition(|(kind, _)| model.forbids(*kind));
    let anomalies: Vec<Anomaly> = anomalies.into_iter().map(|found| found.1).collect();
    let guilty: Vec<_> = counts.iter().filter(|(kind, _)| model.forbids(*kind)).collect();
    let doubts = if guilty.is_empty() { doubts(txns, model, &found) } else { Vec::new() };
    (verdict.validity, verdict.reason) = match (guilty.is_empty(), doubts.is_empty()) {
        (false, _) => (Validity::Invalid, Some(summary(model, &counts, &boundary, &found))),
        (true, false) => (Validity::Unknown, Some(doubts.join("; "))),
        (true, true) => (Validity::Valid, None),
    };
    let Found { stats, cycles, undecided, .. } = found;
    verdict.anomalies = anomalies;
    verdict.stats = stats;
    describe(&mut verdict.stats, model, &counts, &boundary);
    let findings: Vec<Json> = findings.into_iter().map(|found| json!(found.1)).collect();
    verdict.stats.insert("findings".into(), findings.into());
    verdict.stats.insert("undecided".into(), undecided.iter().map(|kind| kind.name()).collect());
    verdict.stats.insert("cycles".into(), listed(txns, &cycles));
    verdict
}

fn describe(
    stats: &mut Map<String, Json>,
    model: ConsistencyModel,
    counts: &[(Phenomenon, usize)],
    boundary: &Boundary,
) {
    stats.insert("consistency_model".into(), model.name().into());
    let counts: Map<String, Json> =
        counts.iter().map(|(kind, count)| (kind.name().into(), (*count).into())).collect();
    stats.insert("anomaly_counts".into(), counts.into());
    for (field, models) in
        [("not", &boundary.not), ("also_not", &boundary.also_not), ("may_hold", &boundary.may_hold)]
    {
        stats.insert(field.into(), models.iter().map(|model| model.name()).collect());
    }
}

/// Every cycle, shortly.
fn listed(txns: &Transactions, cycles: &[FoundCycle]) -> Json {
    let one = |found: &FoundCycle| {
        let operations: Vec<usize> =
            found.cycle.nodes.iter().map(|node| txns.operation[*node as usize]).collect();
        json!([found.phenomenon.name(), operations])
    };
    cycles.iter().take(LISTED).map(one).collect()
}

/// The first of each kind, fairly: a kind that is frequent does not hide one that is rare.
fn explained(txns: &Transactions, options: &Options, found: &Found) -> Vec<(Phenomenon, Anomaly)> {
    let mut all = Vec::new();
    let mut findings: Vec<&Finding> = found.learned.findings.kept.iter().collect();
    findings.sort_by_key(|finding| finding.kind);
    for finding in fair(&findings, |finding| finding.kind) {
        all.push((finding.kind, explain::finding(txns, finding)));
    }
    let mut reasons = Reasons::new(txns, &found.index, options);
    // What the model allows takes no room from what it forbids.
    let forbidden = |cycle: &&FoundCycle| options.consistency_model.forbids(cycle.phenomenon);
    let (guilty, others): (Vec<_>, Vec<_>) = found.cycles.iter().partition(forbidden);
    for cycle in [guilty, others].iter().flat_map(|cycles| fair(cycles, |cycle| cycle.phenomenon)) {
        all.push((cycle.phenomenon, explain::cycle(txns, &mut reasons, cycle)));
    }
    all.sort_by_key(|(kind, _)| *kind);
    all
}

/// At most [`EXPLAINED`] of these, which are sorted by kind.
fn fair<T: Copy>(all: &[T], kind: impl Fn(&T) -> Phenomenon) -> Vec<T> {
    let kinds: Vec<&[T]> = all.chunk_by(|a, b| kind(a) == kind(b)).collect();
    let mut taken: Vec<usize> = vec![0; kinds.len()];
    let mut room = EXPLAINED;
    while room > 0 && kinds.iter().zip(&taken).any(|(kind, taken)| *taken < kind.len()) {
        for (kind, taken) in kinds.iter().zip(&mut taken) {
            if *taken < kind.len() && room > 0 {
                *taken += 1;
                room -= 1;
            }
        }
    }
    kinds.iter().zip(taken).flat_map(|(kind, taken)| kind[..taken].iter().copied()).collect()
}

fn summary(
    model: ConsistencyModel,
    counts: &[(Phenomenon, usize)],
    boundary: &Boundary,
    found: &Found,
) -> String {
    let named: Vec<String> = counts
        .iter()
        .filter(|(kind, _)| model.forbids(*kind))
        .map(|(kind, count)| format!("{count} {}", kind.name()))
        .collect();
    let names =
        |models: &[ConsistencyModel]| models.iter().map(|model| model.name()).collect::<Vec<_>>().join(", ");
    let left = match &boundary.may_hold[..] {
        [] => "no model that is judged here is left".into(),
        models => format!("nothing speaks against {}", known(models)),
    };
    let cut = cut_short(found).map(|why| format!("; but {why}: more may be ruled out than was seen"));
    format!(
        "not {model}: {}; the weakest ruled out: {}; {left}{}",
        named.join(", "),
        names(&boundary.not),
        cut.unwrap_or_default()
    )
}

/// Models by name, with a star at those of which only a part is looked for.
fn known(models: &[ConsistencyModel]) -> String {
    let partial = |model: &ConsistencyModel| model.entry().partial;
    let mark = |model: &ConsistencyModel| if partial(model) { "*" } else { "" };
    let names: Vec<_> = models.iter().map(|model| format!("{}{}", model.name(), mark(model))).collect();
    let note = if models.iter().any(partial) { " (* forbids more than is looked for here)" } else { "" };
    names.join(", ") + note
}

/// Why something may have been missed, if so.
fn cut_short(found: &Found) -> Option<String> {
    if found.cancelled {
        return Some("the search was cancelled".into());
    }
    if !found.undecided.is_empty() {
        let names: Vec<_> = found.undecided.iter().map(|kind| kind.name()).collect();
        return Some(format!("a component is too large to exclude {}", names.join(", ")));
    }
    let keys = found.learned.cut_keys.len();
    (keys > 0).then(|| format!("the versions of {keys} keys could not all be followed"))
}

/// Why the absence of anomalies proves nothing.
fn doubts(txns: &Transactions, model: ConsistencyModel, found: &Found) -> Vec<String> {
    let mut doubts = Vec::new();
    if !model.is_judged() {
        doubts.push(format!("no anomaly that {model} forbids can be seen in such histories"));
    }
    let reads = (0..txns.len() as u32).any(|txn| {
        let read = |mop: &super::input::Mop| mop.kind == MopKind::Read && !txns.mixed[mop.key as usize];
        txns.is_ok(txn) && txns.mops_of(txn).iter().any(read)
    });
    if !reads {
        let ok = txns.outcome.contains(&TxnOutcome::Ok);
        doubts.push(match (txns.is_empty(), ok) {
            (true, _) => "there is no transaction".into(),
            (_, false) => "no transaction is known to have succeeded".into(),
            _ => "no transaction that succeeded has read anything".into(),
        });
    }
    if let Some(reason) = &txns.mixed_reason {
        let keys = txns.mixed.iter().filter(|mixed| **mixed).count();
        doubts.push(format!("{keys} keys were set aside: {reason}"));
    }
    if let Some((key, value)) = found.learned.ambiguous.first() {
        let (key, value) = (&txns.keys[*key as usize], &txns.values[*value as usize]);
        let what = if txns.datatype == Datatype::ListAppend { "appended to" } else { "written to" };
        doubts.push(format!(
            "{value} was {what} key {key} by more than one transaction, or is its initial value, so its reads tell nothing; \
             so in {} keys",
            found.learned.ambiguous.len()
        ));
    }
    if let Some(key) = found.learned.cut_keys.first() {
        doubts.push(format!(
            "the versions of {} keys have too many successors to follow them all, first of key {}",
            found.learned.cut_keys.len(),
            txns.keys[*key as usize]
        ));
    }
    let undecided: Vec<_> =
        found.undecided.iter().filter(|kind| model.forbids(**kind)).map(|kind| kind.name()).collect();
    if !undecided.is_empty() {
        doubts.push(format!("a component is too large to exclude {}", undecided.join(", ")));
    }
    if found.cancelled {
        doubts.push("the search was cancelled".into());
    }
    doubts
}
