//! Every state of a small cluster is seen, and in none of them is anything wrong; with a bug in every node something is.
//!
//! How many states there are is said even where tests pass and their output is kept back.

use std::io::Write;

use paxos_kv::bugs::catalogue;
use paxos_kv::model::{bounded, of_bug};

/// Past the harness, which shows what `println!` says only of tests that fail.
fn say(what: std::fmt::Arguments) {
    let mut stderr = std::io::stderr();
    stderr.write_all(format!("{what}\n").as_bytes()).unwrap();
}

#[test]
fn the_correct_core_is_right_in_every_state() {
    let mut explored = 0;
    let only = std::env::var("PAXOS_MODEL").unwrap_or_default();
    for (name, cluster) in bounded().into_iter().filter(|(name, _)| name.contains(&only)) {
        let start = std::time::Instant::now();
        let seen = cluster.explore();
        say(format_args!(
            "{name}: {} states ({} with repetitions), {} steps deep, {:.1} s",
            seen.states,
            seen.visited,
            seen.depth,
            start.elapsed().as_secs_f64()
        ));
        assert_eq!(seen.wrong, None, "{name}");
        assert!(seen.never.is_empty(), "{name} is stuck, these never happen: {:?}", seen.never);
        assert!(seen.whole, "{name}: all states were seen");
        explored += 1;
    }
    assert!(explored > 0, "no model is called {only}");
}

/// The same models with a bug in every node: whoever explores them must find it.
#[test]
fn planted_bugs_are_found() {
    let mut found = 0;
    for info in catalogue() {
        let Some((name, cluster)) = of_bug(info.bug) else { continue };
        let seen = cluster.explore();
        let wrong = seen.wrong.map(|(what, _)| what);
        say(format_args!("{} in {name}: {wrong:?} after {} states", info.name, seen.states));
        assert!(wrong.is_some(), "{} was not found", info.name);
        found += 1;
    }
    assert!(found >= 25, "only {found} bugs have a model");
}
