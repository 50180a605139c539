//! What is told beside the verdict: staleness, lag, divergence over time. The schema is in `docs/results.md`.

use serde_json::{Map, Value as Json, json};

use super::{
    Final,
    distribution::{distribution, percentiles},
    divergence, end,
    evidence::Evidence,
    versions::Age,
    words,
};
use crate::Budget;

/// The first bucket of the histogram of ages, in ns.
const UNIT_NS: u64 = 1_000_000;
/// The most keys whose values are listed.
const MAX_LISTED: usize = 20;

/// `None` if the budget did not suffice.
pub(super) fn stats(
    evidence: &Evidence,
    finals: &[Final<'_>],
    since: Option<u64>,
    budget: &Budget,
) -> Option<Map<String, Json>> {
    let nodes = evidence.nodes.len();
    let mut by_node: Vec<Vec<Age>> = vec![vec![]; nodes];
    for key in &evidence.keys {
        for (read, age) in key.reads.iter().zip(key.versions.ages(&key.reads, budget)?) {
            by_node[read.node].push(age);
        }
    }
    let all: Vec<Age> = by_node.iter().flatten().copied().collect();
    let over_time = divergence::over_time(&evidence.keys, nodes, budget)?;
    let arrivals = end::arrivals(finals, nodes, since.unwrap_or(0));
    let mut silent = vec![0_u64; nodes];
    evidence.silences.iter().for_each(|silence| silent[silence.node] += 1);
    let replicas = (0..nodes).map(|node| {
        let ages = &by_node[node];
        let sorted = |of: fn(&Age) -> u64| {
            let mut values: Vec<u64> = ages.iter().map(of).collect();
            values.sort_unstable();
            values
        };
        json!({
            "node": evidence.nodes[node],
            "reads": ages.len(),
            "unanswered": silent[node],
            "stale": ages.iter().filter(|age| age.k > 0).count(),
            "t_ns": percentiles(&sorted(|age| age.t_ns)),
            "k": percentiles(&sorted(|age| age.k)),
            "arrived": since.and(arrivals[node]).map(|a| json!({"at_least_ns": a.at_least, "at_most_ns": a.at_most})),
        })
    });
    let mut stats = Map::new();
    let mut stat = |name: &str, value: Json| stats.insert(name.to_owned(), value);
    stat("keys", evidence.keys.len().into());
    stat("reads", all.len().into());
    stat("healed_ns", json!(evidence.quiet.healed));
    stat("writing_stopped_ns", json!(evidence.quiet.stopped));
    stat("quiet_ns", json!(since));
    stat("replicas", replicas.collect());
    stat(
        "staleness",
        json!({
            "t_ns": distribution(all.iter().map(|age| age.t_ns).collect(), UNIT_NS),
            "k": distribution(all.iter().map(|age| age.k).collect(), 1),
        }),
    );
    stat("divergent_keys", json!({"bucket_ns": over_time.bucket_ns, "keys": over_time.keys}));
    stat("differing", differing(evidence, finals));
    Some(stats)
}

/// Keys of which replicas held different values in the end.
fn differing(evidence: &Evidence, finals: &[Final<'_>]) -> Json {
    let several =
        finals.iter().map(|(key, stands)| (key, words::groups(stands))).filter(|(_, g)| g.len() > 1);
    several
        .take(MAX_LISTED)
        .map(|(key, groups)| {
            let held = groups.into_iter().map(|(value, nodes)| {
                let names: Vec<&str> = nodes.into_iter().map(|node| &*evidence.nodes[node]).collect();
                json!({"value": value, "nodes": names})
            });
            json!({"key": key.key, "held": held.collect::<Json>()})
        })
        .collect()
}

/// When all replicas had come together, since everything was quiet and since the faults were healed.
pub(super) fn converged(finals: &[Final<'_>], nodes: usize, since: u64, healed: Option<u64>) -> Json {
    let all = end::arrivals(finals, nodes, since).into_iter().flatten().reduce(end::Arrival::later);
    let arrival = all.unwrap_or_default();
    let before = since - healed.unwrap_or(since).min(since);
    json!({
        "at_least_ns": arrival.at_least,
        "at_most_ns": arrival.at_most,
        "since_healed_at_most_ns": arrival.at_most + before,
    })
}
