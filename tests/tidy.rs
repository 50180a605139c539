//! The invariants of the architecture, phrased as absences, checked on the source itself. See `docs/architecture.md`.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder, with its path from the root and its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(at: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(at).unwrap_or_else(|e| panic!("{}: {e}", at.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    let read = |p: PathBuf| {
        let name = p.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(p).unwrap())
    };
    let all: Vec<_> = paths.into_iter().map(read).collect();
    assert!(!all.is_empty(), "no Rust files in {folder}: this test would check nothing");
    all
}

const FOLDERS: [&str; 8] = [
    "src",
    "workloads/src",
    "nemesis/src",
    "checkers/src",
    "reference-impl/src",
    "tests",
    "examples",
    "benches",
];

fn everything() -> Vec<(String, String)> {
    FOLDERS.iter().flat_map(|f| sources(f)).collect()
}

/// The part of a file before its unit tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn dependencies(manifest: &str) -> String {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let start = text.find("[dependencies]").expect("a manifest has dependencies");
    let rest = &text[start..];
    rest[..rest[1..].find("\n[").map_or(rest.len(), |i| i + 1)].to_owned()
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<_> =
        everything().into_iter().filter(|(_, t)| !t.starts_with("//!")).map(|f| f.0).collect();
    assert!(silent.is_empty(), "files that do not open with `//!`: {silent:?}");
}

#[test]
fn files_are_short() {
    let long: Vec<_> =
        everything().into_iter().map(|(n, t)| (t.lines().count(), n)).filter(|f| f.0 > 600).collect();
    assert!(long.is_empty(), "files over 600 lines want splitting: {long:?}");
    let mut lines: Vec<usize> = everything().iter().map(|(_, t)| t.lines().count()).collect();
    lines.sort_unstable();
    let median = lines[lines.len() / 2];
    assert!(median <= 200, "the median file has {median} lines");
}

#[test]
fn nothing_is_left_undone() {
    // Written in two parts so that this file does not find itself.
    let words =
        [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("TO", "DO"), concat!("FIX", "ME")];
    let words: Vec<&str> = words.into_iter().chain([concat!("#[ign", "ore")]).collect();
    for (name, text) in everything() {
        for word in &words {
            assert!(!text.contains(word), "{name} contains {word}");
        }
    }
}

#[test]
fn checkers_are_pure() {
    let deps = dependencies("checkers/Cargo.toml");
    for banned in ["tokio", "async", "rand", "tonic", "reqwest", "nemesis", "workloads", "paxos"] {
        assert!(!deps.contains(banned), "checkers depends on {banned}");
    }
    for (name, text) in sources("checkers/src") {
        for banned in
            ["std::fs", "std::net", "std::process", "Instant::now", "SystemTime", "async fn", "println!"]
        {
            assert!(!code(&text).contains(banned), "{name} uses {banned}");
        }
    }
}

#[test]
fn the_nemesis_knows_no_operations() {
    let deps = dependencies("nemesis/Cargo.toml");
    for banned in ["checkers", "workloads", "paxos"] {
        assert!(!deps.contains(banned), "nemesis depends on {banned}");
    }
}

#[test]
fn the_bundled_cluster_knows_no_tester() {
    let deps = dependencies("reference-impl/Cargo.toml");
    for banned in ["checkers", "workloads", "nemesis", "tribunal"] {
        assert!(!deps.contains(banned), "paxos-kv depends on {banned}");
    }
}

#[test]
fn the_tester_reaches_the_bundled_cluster_by_its_protocol_only() {
    let allowed = ["src/cli/node.rs", "src/bugs.rs", "src/sim/cluster.rs"];
    for (name, text) in sources("src") {
        let imports =
            code(&text).lines().any(|l| !l.trim_start().starts_with("//") && l.contains("paxos_kv::"));
        assert!(!imports || allowed.contains(&name.as_str()), "{name} imports paxos_kv");
    }
}

#[test]
fn the_consensus_core_is_sans_io() {
    let core: Vec<_> = sources("reference-impl/src").into_iter().filter(|f| f.0.contains("/core")).collect();
    assert!(core.len() > 3, "the core was not found");
    for (name, text) in core {
        for banned in [
            "std::time::Instant",
            "SystemTime",
            "std::fs",
            "std::net",
            "std::thread",
            "tokio",
            "async fn",
            "HashMap",
            "HashSet",
            "rand::rng",
        ] {
            assert!(!code(&text).contains(banned), "{name} uses {banned}");
        }
    }
}

#[test]
fn one_clock_makes_events() {
    // Who may look at a clock at all: the run's clock, the timer behind it, links, and what measures itself.
    let allowed = [
        "src/clock.rs",
        "src/cluster/timer.rs",
        "src/cluster/proxy.rs",
        "src/cli/paths/measure.rs",
        "src/cli/bugs.rs",
        "src/cli/matrix.rs",
        "src/cli/sim.rs",
        "src/run.rs",
        // These bound how long they wait for processes to end.
        "src/clean.rs",
        "src/cluster/children.rs",
        "src/cluster/ssh/processes.rs",
    ];
    // Agents make no events: they time what they do to a machine.
    for (name, text) in sources("src").into_iter().filter(|(name, _)| !name.starts_with("src/agent/")) {
        assert!(
            !code(&text).contains("Instant::now") || allowed.contains(&name.as_str()),
            "{name} reads a clock"
        );
    }
    for folder in ["nemesis/src", "workloads/src"] {
        for (name, text) in sources(folder) {
            assert!(!code(&text).contains("Instant::now"), "{name} reads a clock");
        }
    }
}

#[test]
fn only_the_journal_makes_numbered_events() {
    for (name, text) in sources("src") {
        let makes = code(&text).contains("Event {");
        assert!(!makes || name == "src/journal.rs", "{name} makes events");
    }
}
