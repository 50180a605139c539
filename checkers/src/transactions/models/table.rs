//! The tables of the lattice: each line with its source.
//!
//! ```text
//! model  implies  other, source      phenomenon  is also  other, source      model  forbids  phenomenon, source
//! ```
//!
//! Sources by their short names:
//!
//! | short | source |
//! |---|---|
//! | Adya | Adya, "Weak Consistency: A Generalized Theory and Optimistic Implementations" (PhD thesis, MIT, 1999) |
//! | Bailis | Bailis et al., "Highly Available Transactions: Virtues and Limitations" (VLDB 2013) |
//! | Bernstein | Bernstein, Hadzilacos, Goodman, "Concurrency Control and Recovery in Database Systems" (1987) |
//! | Cerone | Cerone, Bernardi, Gotsman, "A Framework for Transactional Consistency Models with Atomic Visibility" (CONCUR 2015) |
//! | Cerone-SI | Cerone, Gotsman, "Analysing Snapshot Isolation" (PODC 2016) |
//! | Daudjee | Daudjee, Salem, "Lazy Database Replication with Ordering Guarantees" (ICDE 2004) |
//! | Daudjee-SI | Daudjee, Salem, "Lazy Database Replication with Snapshot Isolation" (VLDB 2006) |
//! | Elle | Kingsbury, Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations" (VLDB 2020), and its checker |
//! | Hermitage | Kleppmann, "Hermitage: Testing the I in ACID" (2014) |
//! | ROLA | Liu et al., "ROLA: A New Distributed Transaction Protocol and Its Formal Analysis" (FASE 2018) |
//! | SQL | ISO/IEC 9075 |
//! | Zuikeviciute | Zuikeviciute, Pedone, "Correctness Criteria for Database Replication" (2008) |
//!
//! Deliberately the lattice that users of Elle know, with its names and synonyms. It differs where Elle's own remarks say
//! that it falls short: all dependencies here are on items, so a cycle with one anti-dependency rules out repeatable read.

use Phenomenon::*;

/// What can be wrong with a history, found or only a name for several of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // each has its line in `PHENOMENA`
pub enum Phenomenon {
    G0,
    G0Process,
    G0Realtime,
    G1c,
    G1cProcess,
    G1cRealtime,
    GSingle,
    GSingleProcess,
    GSingleRealtime,
    GNonadjacent,
    GNonadjacentProcess,
    GNonadjacentRealtime,
    G2Item,
    G2ItemProcess,
    G2ItemRealtime,
    G1a,
    G1b,
    Internal,
    DuplicateElements,
    IncompatibleOrder,
    DirtyUpdate,
    LostUpdate,
    CyclicVersions,
    FutureRead,
    GarbageRead,
    GCursor,
    G1,
    G1Process,
    G1Realtime,
    G2,
    G2Process,
    G2Realtime,
    WriteSkew,
}

impl Phenomenon {
    /// Its line in the table.
    pub fn entry(self) -> &'static PhenomenonEntry {
        &PHENOMENA[self as usize]
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        self.entry().name
    }
}

/// One phenomenon.
#[derive(Debug)]
pub struct PhenomenonEntry {
    /// Which.
    pub phenomenon: Phenomenon,
    /// The name in reports.
    pub name: &'static str,
    /// What it is, in a line.
    pub meaning: &'static str,
    /// Of which others it is a case, and who says so.
    pub is_also: &'static [(Phenomenon, &'static str)],
}

const fn row(
    phenomenon: Phenomenon,
    name: &'static str,
    meaning: &'static str,
    is_also: &'static [(Phenomenon, &'static str)],
) -> PhenomenonEntry {
    PhenomenonEntry { phenomenon, name, meaning, is_also }
}

const TRIVIAL: &str = "by definition: a cycle that needs no such edge";
const SESSIONS: &str = "Elle: a process does one thing at a time, so its order is in real time";

/// Every phenomenon, in the order of the enumeration: cycles by severity, then what needs no cycle, then collective names.
pub const PHENOMENA: &[PhenomenonEntry] = &[
    row(G0, "G0", "a cycle of write dependencies", &[(G1c, "Adya"), (G0Process, TRIVIAL)]),
    row(
        G0Process,
        "G0-process",
        "a cycle of write dependencies and the order of processes",
        &[(G1cProcess, TRIVIAL), (G0Realtime, SESSIONS)],
    ),
    row(G0Realtime, "G0-realtime", "a cycle of write dependencies and real time", &[(G1cRealtime, TRIVIAL)]),
    row(G1c, "G1c", "a cycle of write and read dependencies", &[(G1, "Adya"), (G1cProcess, TRIVIAL)]),
    row(
        G1cProcess,
        "G1c-process",
        "a cycle of write and read dependencies and the order of processes",
        &[(G1Process, TRIVIAL), (G1cRealtime, SESSIONS)],
    ),
    row(
        G1cRealtime,
        "G1c-realtime",
        "a cycle of write and read dependencies and real time",
        &[(G1Realtime, TRIVIAL)],
    ),
    row(
        GSingle,
        "G-single",
        "a cycle with exactly one anti-dependency",
        &[(GNonadjacent, "Elle: one has no neighbour"), (GSingleProcess, TRIVIAL)],
    ),
    row(
        GSingleProcess,
        "G-single-process",
        "a cycle with exactly one anti-dependency and the order of processes",
        &[(GNonadjacentProcess, "Elle"), (GSingleRealtime, SESSIONS)],
    ),
    row(
        GSingleRealtime,
        "G-single-realtime",
        "a cycle with exactly one anti-dependency and real time",
        &[(GNonadjacentRealtime, "Elle")],
    ),
    row(
        GNonadjacent,
        "G-nonadjacent",
        "a cycle with several anti-dependencies, no two of them in a row",
        &[(G2Item, "Adya: all dependencies here are on items"), (GNonadjacentProcess, TRIVIAL)],
    ),
    row(
        GNonadjacentProcess,
        "G-nonadjacent-process",
        "a cycle with several anti-dependencies, no two of them in a row, and the order of processes",
        &[(G2ItemProcess, "Elle"), (GNonadjacentRealtime, SESSIONS)],
    ),
    row(
        GNonadjacentRealtime,
        "G-nonadjacent-realtime",
        "a cycle with several anti-dependencies, no two of them in a row, and real time",
        &[(G2ItemRealtime, "Elle")],
    ),
    row(
        G2Item,
        "G2-item",
        "a cycle with two anti-dependencies in a row",
        &[(G2, "Adya"), (G2ItemProcess, TRIVIAL)],
    ),
    row(
        G2ItemProcess,
        "G2-item-process",
        "a cycle with two anti-dependencies in a row and the order of processes",
        &[(G2Process, TRIVIAL), (G2ItemRealtime, SESSIONS)],
    ),
    row(
        G2ItemRealtime,
        "G2-item-realtime",
        "a cycle with two anti-dependencies in a row and real time",
        &[(G2Realtime, TRIVIAL)],
    ),
    row(G1a, "G1a", "aborted read: what a failed transaction wrote was read", &[(G1, "Adya")]),
    row(
        G1b,
        "G1b",
        "intermediate read: what a transaction wrote and then overwrote was read by another",
        &[(G1, "Adya")],
    ),
    row(
        Internal,
        "internal",
        "a transaction's reads do not agree with its own earlier reads and writes",
        &[],
    ),
    row(DuplicateElements, "duplicate-elements", "an element stands twice in a list", &[]),
    row(
        IncompatibleOrder,
        "incompatible-order",
        "two reads of a list, neither a prefix of the other, or one that disagrees with its writer",
        &[(G1a, "Elle: at least one of them was never committed")],
    ),
    row(
        DirtyUpdate,
        "dirty-update",
        "a committed write on top of what a failed transaction wrote",
        &[(G1a, "Elle: a dirty read by a write")],
    ),
    row(
        LostUpdate,
        "lost-update",
        "two transactions read the same version of a key and both wrote the next",
        &[(WriteSkew, "Bailis"), (G2Item, "Adya, Bailis: it is by key")],
    ),
    row(CyclicVersions, "cyclic-versions", "the versions of a key cannot be put into an order", &[]),
    row(
        FutureRead,
        "future-read",
        "a transaction read what it wrote only later",
        &[(G1c, "Elle: a read dependency on itself")],
    ),
    row(
        GarbageRead,
        "garbage-read",
        "a value was read that nobody wrote",
        &[(G1a, "Adya: it is of no committed transaction")],
    ),
    row(
        GCursor,
        "G-cursor",
        "a transaction read a version of a key and overwrote a later one that it had not seen",
        &[(GSingle, "Adya: a cycle of one anti-dependency and write dependencies, all of one key")],
    ),
    row(G1, "G1", "G1a, G1b or G1c", &[(G1Process, TRIVIAL)]),
    row(G1Process, "G1-process", "G1a, G1b or G1c with the order of processes", &[(G1Realtime, SESSIONS)]),
    row(G1Realtime, "G1-realtime", "G1a, G1b or G1c with real time", &[]),
    row(G2, "G2", "a cycle with an anti-dependency", &[(G2Process, TRIVIAL)]),
    row(
        G2Process,
        "G2-process",
        "a cycle with an anti-dependency and the order of processes",
        &[(G2Realtime, SESSIONS)],
    ),
    row(G2Realtime, "G2-realtime", "a cycle with an anti-dependency and real time", &[]),
    row(
        WriteSkew,
        "write-skew",
        "two transactions each overwrote what the other had read",
        &[(G2, "Hermitage")],
    ),
];

/// One consistency model.
#[derive(Debug)]
pub struct ModelEntry {
    /// The name by which people know it.
    pub name: &'static str,
    /// Other names for the same.
    pub synonyms: &'static [&'static str],
    /// The models that hold wherever it holds, and who says so.
    pub implies: &'static [(&'static str, &'static str)],
    /// What it forbids over and above the models that it implies, and who says so.
    pub forbids: &'static [(Phenomenon, &'static str)],
    /// Whether it also forbids what these checkers do not look for: that nothing was found proves less.
    pub partial: bool,
}

const fn model(
    name: &'static str,
    synonyms: &'static [&'static str],
    implies: &'static [(&'static str, &'static str)],
    forbids: &'static [(Phenomenon, &'static str)],
) -> ModelEntry {
    ModelEntry { name, synonyms, implies, forbids, partial: false }
}

const fn partial(
    name: &'static str,
    synonyms: &'static [&'static str],
    implies: &'static [(&'static str, &'static str)],
    forbids: &'static [(Phenomenon, &'static str)],
) -> ModelEntry {
    ModelEntry { name, synonyms, implies, forbids, partial: true }
}

const EXTENDED: &str = "Elle: the weaker model with the order of sessions or real time";

/// Every model, the strongest of each family first.
pub const CONSISTENCY_MODELS: &[ModelEntry] = &[
    model(
        "strict-serializable",
        &["PL-SS", "strong-serializable", "strict-1SR", "strong-1SR"],
        &[
            ("serializable", "Adya, Bailis"),
            ("linearizable", "Bailis"),
            ("snapshot-isolation", "Adya"),
            ("strong-snapshot-isolation", EXTENDED),
            ("strong-session-serializable", "Daudjee"),
            ("session-serializable", "Zuikeviciute"),
        ],
        &[(G1, "Adya"), (G1cRealtime, "Adya"), (G2Realtime, "Adya")],
    ),
    model(
        "strong-session-serializable",
        &["strong-session-1SR"],
        &[("serializable", "Daudjee"), ("strong-session-snapshot-isolation", EXTENDED)],
        &[(G1Process, "Daudjee"), (G2Process, "Daudjee")],
    ),
    model(
        "serializable",
        &["PL-3", "conflict-serializable"],
        &[
            ("repeatable-read", "SQL, Adya"),
            ("snapshot-isolation", "Bailis, Cerone"),
            ("update-serializable", "Adya"),
            ("view-serializable", "Bernstein"),
        ],
        &[(G1, "Adya"), (G2, "Adya"), (Internal, "Cerone")],
    ),
    partial("session-serializable", &[], &[("1SR", "Zuikeviciute")], &[]),
    partial("1SR", &["one-copy-serializable"], &[], &[]),
    partial("view-serializable", &[], &[], &[]),
    partial("update-serializable", &["PL-3U"], &[("forward-consistent-view", "Adya")], &[(G1, "Adya")]),
    model(
        "strong-snapshot-isolation",
        &["strong-SI"],
        &[("strong-session-snapshot-isolation", "Daudjee-SI"), ("strong-read-committed", EXTENDED)],
        &[(Internal, EXTENDED), (G1Realtime, EXTENDED), (GNonadjacentRealtime, EXTENDED)],
    ),
    model(
        "strong-session-snapshot-isolation",
        &["strong-session-SI"],
        &[("snapshot-isolation", "Daudjee-SI, Cerone-SI"), ("strong-session-read-committed", EXTENDED)],
        &[(Internal, EXTENDED), (G1Process, EXTENDED), (GNonadjacentProcess, "Cerone-SI")],
    ),
    model(
        "snapshot-isolation",
        &["PL-SI", "SI"],
        &[
            ("forward-consistent-view", "Adya"),
            ("monotonic-atomic-view", "Bailis"),
            ("monotonic-snapshot-read", "Adya"),
            ("parallel-snapshot-isolation", "Cerone"),
            ("prefix", "Cerone"),
        ],
        &[(Internal, "Cerone"), (G1, "Adya"), (GNonadjacent, "Cerone-SI, Elle")],
    ),
    partial(
        "parallel-snapshot-isolation",
        &["PSI"],
        &[("causal-cerone", "Cerone"), ("ROLA", "ROLA")],
        &[(Internal, "Cerone"), (G1a, "Cerone")],
    ),
    partial(
        "prefix",
        &["prefix-consistency"],
        &[("causal-cerone", "Cerone")],
        &[(Internal, "Cerone"), (G1a, "Cerone")],
    ),
    partial("ROLA", &["update-atomic"], &[("read-atomic", "ROLA")], &[(LostUpdate, "ROLA")]),
    partial("causal-cerone", &[], &[("read-atomic", "Cerone")], &[(Internal, "Cerone"), (G1a, "Cerone")]),
    partial(
        "read-atomic",
        &[],
        &[("monotonic-atomic-view", "Cerone")],
        &[(Internal, "Cerone"), (G1a, "Cerone"), (FutureRead, "Elle: a violation of Cerone's EXT")],
    ),
    model(
        "repeatable-read",
        &["PL-2.99"],
        &[("cursor-stability", "Adya"), ("monotonic-atomic-view", "Bailis")],
        &[(G1, "Adya"), (G2Item, "Adya"), (LostUpdate, "Bailis")],
    ),
    partial("forward-consistent-view", &["PL-FCV"], &[("consistent-view", "Adya")], &[(G1, "Adya")]),
    model(
        "consistent-view",
        &["PL-2+"],
        &[("cursor-stability", "Adya"), ("monotonic-view", "Adya")],
        &[(G1, "Adya"), (GSingle, "Adya")],
    ),
    partial("monotonic-view", &["PL-2L"], &[("read-committed", "Adya")], &[(G1, "Adya")]),
    partial("monotonic-snapshot-read", &["PL-MSR"], &[("read-committed", "Adya")], &[(G1, "Adya")]),
    partial("monotonic-atomic-view", &["MAV"], &[("read-committed", "Bailis")], &[]),
    model(
        "cursor-stability",
        &["PL-CS"],
        &[("read-committed", "Adya, Bailis")],
        &[(G1, "Adya"), (GCursor, "Adya"), (LostUpdate, "Adya, Bailis")],
    ),
    model(
        "strong-read-committed",
        &["strong-PL-2"],
        &[("strong-session-read-committed", EXTENDED), ("strong-read-uncommitted", EXTENDED)],
        &[(G1cRealtime, EXTENDED)],
    ),
    model(
        "strong-session-read-committed",
        &["strong-session-PL-2"],
        &[("read-committed", EXTENDED), ("strong-session-read-uncommitted", EXTENDED)],
        &[(G1cProcess, EXTENDED)],
    ),
    model("read-committed", &["PL-2"], &[("read-uncommitted", "SQL, Adya")], &[(G1, "Adya")]),
    model(
        "strong-read-uncommitted",
        &["strong-PL-1"],
        &[("strong-session-read-uncommitted", EXTENDED)],
        &[(G0Realtime, EXTENDED)],
    ),
    model(
        "strong-session-read-uncommitted",
        &["strong-session-PL-1"],
        &[("read-uncommitted", EXTENDED)],
        &[(G0Process, EXTENDED)],
    ),
    model(
        "read-uncommitted",
        &["PL-1"],
        &[],
        &[
            (G0, "Adya"),
            (DuplicateElements, "Elle: no history of Adya's has them"),
            (CyclicVersions, "Adya: version orders are total"),
            (GarbageRead, "Adya: a read in a history is of a version that was written in it"),
        ],
    ),
    partial("linearizable", &[], &[("sequential", "Bailis")], &[]),
    partial("sequential", &[], &[("causal", "Bailis")], &[]),
    partial("causal", &[], &[("writes-follow-reads", "Bailis"), ("PRAM", "Bailis")], &[]),
    partial(
        "PRAM",
        &[],
        &[("monotonic-reads", "Bailis"), ("monotonic-writes", "Bailis"), ("read-your-writes", "Bailis")],
        &[],
    ),
    partial("writes-follow-reads", &["WFR"], &[], &[]),
    partial("monotonic-reads", &["MR"], &[], &[]),
    partial("monotonic-writes", &["MW"], &[], &[]),
    partial("read-your-writes", &["RYW"], &[], &[]),
];
