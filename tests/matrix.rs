//! A part of the kill matrix, from outside: found, not found, by which channel; and the data and the document that come of it.
//!
//! The whole is `tribunal bugs --matrix` without names; see `docs/bugs.md`.

mod common;

use common::{run, tribunal};
use serde_json::Value;

#[test]
fn a_part_of_the_matrix_is_measured_written_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("bugs.md");
    std::fs::write(
        &document,
        "# Bugs\n<!-- matrix: made by `tribunal bugs --matrix` -->\n<!-- matrix: end -->\nthe end\n",
    )
    .unwrap();
    // One that clients see under any plan, one that is a matter of quorums, one that costs progress.
    let bugs = ["follower-reads", "chosen-by-one", "never-backs-off"];
    let flags = "--seeds 2 --controls 1 --sim-seeds 8 --storm-seeds 2 --patience 1 --jobs 3 --data m.json --document bugs.md";
    let mut command = tribunal(folder.path());
    let (code, stdout, stderr) =
        run(command.args(["bugs", "--matrix"]).args(bugs).args(flags.split_whitespace()));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let data: Value = serde_json::from_slice(&std::fs::read(folder.path().join("m.json")).unwrap()).unwrap();
    let row = |bug: &str| {
        let rows = data["rows"].as_array().unwrap();
        rows.iter().find(|row| row["bug"] == bug).unwrap_or_else(|| panic!("no {bug} in {data}")).clone()
    };
    assert_eq!(data["rows"].as_array().unwrap().len(), 3);
    for judge in ["simulator", "processes", "chaos"] {
        let cell = &row("follower-reads")[judge];
        assert_eq!((&cell["runs"], &cell["found"]), (&2.into(), &2.into()), "{judge}: {cell}");
        assert!(
            cell["channels"]["client-history"] == 2 && cell["median-seconds"].as_f64() > Some(0.0),
            "{cell}"
        );
    }
    assert_eq!(row("follower-reads")["stateright"]["runs"], 0);
    assert_eq!(row("chosen-by-one")["stateright"]["channels"]["node-invariants"], 1);
    assert_eq!(row("chosen-by-one")["processes"]["channels"]["client-history"], 2);
    assert_eq!(row("never-backs-off")["simulator"]["channels"]["lost-progress"], 2);
    for control in data["controls"].as_array().unwrap() {
        for judge in ["simulator", "processes"] {
            assert_eq!(
                (&control[judge]["runs"], &control[judge]["found"]),
                (&1.into(), &0.into()),
                "{control}"
            );
        }
    }
    let drawn = std::fs::read_to_string(&document).unwrap();
    assert!(drawn.starts_with("# Bugs\n") && drawn.ends_with("\nthe end\n"), "{drawn}");
    assert!(
        drawn.contains("\n3 of 3 bugs are found by at least one judge") && drawn.contains(&stdout),
        "{drawn}"
    );
    // Measuring one again leaves the others as they were.
    let mut command = tribunal(folder.path());
    let again = "bugs --matrix follower-reads --seeds 1 --controls 0 --data m.json --document bugs.md";
    let (code, _, stderr) = run(command.args(again.split_whitespace()));
    assert_eq!(code, 0, "{stderr}");
    let later: Value = serde_json::from_slice(&std::fs::read(folder.path().join("m.json")).unwrap()).unwrap();
    assert_eq!(later["rows"].as_array().unwrap().len(), 3);
    assert_eq!(later["rows"][0]["processes"]["runs"], 1, "{later}");
    assert_eq!((&later["rows"][1], &later["controls"]), (&data["rows"][1], &data["controls"]));
    // And so does asking one judge alone.
    let mut command = tribunal(folder.path());
    let again = "bugs --matrix chosen-by-one --judge simulator --seeds 1 --controls 0 --data m.json";
    let (code, _, stderr) = run(command.args(again.split_whitespace()));
    assert_eq!(code, 0, "{stderr}");
    let last: Value = serde_json::from_slice(&std::fs::read(folder.path().join("m.json")).unwrap()).unwrap();
    let cells = |matrix: &Value| {
        let rows = matrix["rows"].as_array().unwrap();
        let row = rows.iter().find(|row| row["bug"] == "chosen-by-one").unwrap();
        ["simulator", "stateright", "processes", "chaos"].map(|judge| row[judge].clone())
    };
    let ([simulator, others @ ..], [_, before @ ..]) = (cells(&last), cells(&later));
    assert_eq!((&simulator["runs"], others), (&1.into(), before));
}
