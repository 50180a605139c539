//! Mistakes of a user, one clear error each: what is wrong, with what, and the way out. Nothing is left running.

mod common;

use common::{processes_in, run, tribunal};
use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};
use tribunal::{Options, Scenario, trial::try_bundled};

/// Runs in a folder of its own, in which `test.yaml` has this text. Returns exit code and stderr.
fn with_test(yaml: &str, args: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("test.yaml"), yaml).unwrap();
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(args));
    assert_eq!(stdout, "", "nothing was judged");
    assert_eq!(processes_in(folder.path()), Vec::<String>::new());
    if code == 254 {
        assert!(!folder.path().join("store").exists(), "something was started");
    }
    (code, stderr)
}

#[test]
fn a_mistake_in_a_test_file_is_shown_where_it_stands() {
    let cases = [
        ("unknown-field", "name: mine\nload:\n  clients: 5\n  op-timout: 1s\n"),
        ("wrong-type", "name: mine\nload:\n  clients: five\n"),
        ("no-unit", "load:\n  time-limit: 30\n"),
        ("unknown-workload", "workload:\n  name: regster\n"),
        ("unknown-plan", "nemesis: chaoz\n"),
        (
            "unknown-shape",
            "nemesis:\n  steps:\n    - {at: 1s, for: 1s, do: {fault: partition, shape: halfs}}\n",
        ),
        ("no-such-node", "nemesis:\n  steps:\n    - {at: 1s, for: 1s, do: {fault: kill, target: n9}}\n"),
        (
            "no-such-end",
            "nemesis:\n  steps:\n    - {at: 1s, for: 1s, do: {fault: partition, cut: [n1>n2, client>n3]}}\n",
        ),
        ("no-link", "nemesis:\n  steps:\n    - {at: 1s, for: 1s, do: {fault: partition, cut: [n1-n2]}}\n"),
        ("unknown-bug", "cluster:\n  bug: ignore-acepted\n"),
        ("not-yaml", "name: [unclosed\n"),
        ("short-lease", "cluster:\n  heartbeat: 400ms\n"),
        ("no-such-mode", "workload: {read-mode: unsafe-leader}\n"),
        ("bad-name", "name: ../mine\n"),
        ("no-clients", "load: {clients: 0}\n"),
    ];
    for (name, yaml) in cases {
        let (code, stderr) = with_test(yaml, &["run", "./test.yaml"]);
        assert_eq!(code, 254, "{name}: {stderr}");
        insta::assert_snapshot!(name, stderr);
    }
}

#[test]
fn wrong_arguments_are_told_what_there_is() {
    let cases: [(&str, &[&str]); 15] = [
        ("arg-unknown-test", &["run", "regster"]),
        ("arg-no-such-file", &["run", "./missing.yaml"]),
        ("arg-unknown-nemesis", &["run", "--nemesis", "choas"]),
        ("arg-unknown-bug", &["run", "--bug", "ignore-acepted"]),
        ("arg-bad-duration", &["run", "--time-limit", "30"]),
        ("arg-unknown-model", &["check", "test.yaml", "--model", "regsiter"]),
        ("arg-not-a-history", &["check", "test.yaml"]),
        ("arg-unknown-checker", &["check", "test.yaml", "--checker", "list-apend"]),
        (
            "arg-unknown-consistency",
            &["check", "test.yaml", "--checker", "list-append", "--consistency-model", "x"],
        ),
        ("arg-needless-model", &["check", "test.yaml", "--checker", "rw-register", "--model", "kv"]),
        ("arg-bad-initial", &["check", "test.yaml", "--initial", "x"]),
        ("arg-no-such-format", &["convert", "test.yaml", "out.xml"]),
        ("arg-no-jobs", &["sim", "register", "--jobs", "0"]),
        ("arg-no-seeds", &["bugs", "ignore-accepted", "--seeds", "0"]),
        ("arg-unknown-format", &["convert", "test.yaml", "out", "--to", "xml"]),
    ];
    for (name, args) in cases {
        let (code, stderr) = with_test("name: x\n", args);
        assert_eq!(code, 254, "{name}: {stderr}");
        insta::assert_snapshot!(name, stderr);
    }
    let (code, stderr) = with_test("", &["run", "--tmie-limit", "3s"]);
    assert_eq!(code, 254);
    assert!(stderr.contains("--time-limit"), "{stderr}");
}

/// With 254 nothing was made: see [`with_test`].
#[test]
fn a_plan_that_cannot_be_carried_out_is_refused_before_anything_is_made() {
    let plan = "{steps: [{at: 1s, for: 1s, do: {fault: loss, target: one, link: {loss: 0.2}}}]}";
    let (code, stderr) = with_test(&format!("nemesis: {plan}\n"), &["run", "./test.yaml"]);
    assert_eq!(code, 254, "{stderr}");
    assert!(stderr.contains("packet loss") && stderr.contains("TCP proxies"), "{stderr}");
}

#[test]
fn a_taken_port_is_named() {
    let taken = (20_000..30_000).find_map(|p| TcpListener::bind(("127.0.0.1", p)).ok()).unwrap();
    let port = taken.local_addr().unwrap().port();
    let (code, stderr) = with_test(&format!("cluster: {{base-port: {port}}}\n"), &["run", "./test.yaml"]);
    assert_eq!(code, 255, "{stderr}");
    assert!(
        stderr.contains(&format!("port {port} on 127.0.0.1 is taken")) && stderr.contains("base-port"),
        "{stderr}"
    );
}

#[test]
fn an_engine_that_does_not_answer_holds_nobody_up_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let docker = folder.path().join("docker");
    std::fs::write(&docker, "#!/bin/sh\nsleep 300\n").unwrap();
    std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let began = Instant::now();
    let (code, stdout, stderr) = run(tribunal(folder.path()).args(["clean", "--dry-run"]).env("PATH", &path));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    assert!(stderr.contains("Docker was not looked at") && stderr.contains("did not end within"), "{stderr}");
    assert_ne!(stdout, "nothing was left\n", "nobody looked everywhere");
    let (code, stdout, stderr) = run(tribunal(folder.path()).arg("doctor").env("PATH", &path));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("no Docker engine answers"), "{stdout}");
    assert!(began.elapsed() < Duration::from_secs(150), "{:?}", began.elapsed());
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let (code, stderr) = with_test("", &["run", "--store", "test.yaml"]);
    assert_eq!(code, 255, "{stderr}");
    assert!(stderr.contains("test.yaml/register") && stderr.contains("--store"), "{stderr}");
}

#[tokio::test]
async fn a_node_that_does_not_start_is_named_with_its_log() {
    let scenario = Scenario::parse("t", "{name: t, nemesis: none, bounds: {set-up: 20s}}").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("node");
    std::fs::write(&program, "#!/bin/sh\necho no disk today >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let options = |program: &Path| Options {
        quiet: true,
        program: program.to_owned(),
        ..Options::new(folder.path()).unwrap()
    };
    let error = try_bundled(&scenario, &options(&program)).await.unwrap_err().to_string();
    assert!(error.contains("n1 ended by itself (exit code 3)") && error.contains("no disk today"), "{error}");
    let error = try_bundled(&scenario, &options(Path::new("/nonexistent"))).await.unwrap_err().to_string();
    assert!(error.contains("start n1: cannot run `/nonexistent`"), "{error}");
    assert_eq!(processes_in(folder.path()), Vec::<String>::new());
}

#[test]
fn a_stored_history_is_judged() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkers/tests/histories");
    let mut judged = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".jsonl") || !name.contains("cas-register") {
            continue;
        }
        let expected = if name.contains("invalid") {
            1
        } else if name.contains("unknown") {
            2
        } else {
            0
        };
        let folder = tempfile::tempdir().unwrap();
        let (code, stdout, stderr) = run(tribunal(folder.path()).arg("check").arg(&path));
        assert_eq!(code, expected, "{name}\n{stdout}\n{stderr}");
        judged += 1;
    }
    assert!(judged > 0, "the corpus was not found");
}

#[test]
fn a_history_of_others_is_judged_and_converted() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkers/tests/formats");
    let judged = run(tribunal(folder.path()).arg("check").arg(corpus.join("lines.edn")));
    assert_eq!((judged.0, judged.2.as_str()), (0, ""), "{}", judged.1);
    for (from, to) in [("lines.edn", "a.json"), ("a.json", "b.jsonl"), ("b.jsonl", "c.edn")] {
        let from = if from == "lines.edn" { corpus.join(from) } else { from.into() };
        let (code, stdout, stderr) = run(tribunal(folder.path()).arg("convert").arg(from).arg(to));
        assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
        assert!(stderr.starts_with("8 events converted from "), "{stderr}");
        assert_eq!(run(tribunal(folder.path()).arg("check").arg(to)), judged, "{to}");
    }
    let (code, stdout, _) = run(tribunal(folder.path()).args(["convert", "c.edn", "-", "--to", "jsonl"]));
    let expected = std::fs::read_to_string(folder.path().join("b.jsonl")).unwrap();
    assert_eq!((code, stdout), (0, expected));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");

    let started = "[0 :invoke :read nil] [0 :ok :read 0] [0 :invoke :read nil] [0 :ok :read nil]";
    std::fs::write(folder.path().join("started.edn"), started).unwrap();
    for (initial, expected) in [("0", 0), ("1", 1)] {
        let args = ["check", "started.edn", "--initial", initial];
        assert_eq!(run(tribunal(folder.path()).args(args)).0, expected, "{initial}");
    }
    std::fs::write(folder.path().join("idle.edn"), "[0 :invoke :write 1] [0 :fail :write 1]").unwrap();
    let (code, stdout, _) = run(tribunal(folder.path()).args(["check", "idle.edn"]));
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("no operation took effect"), "{stdout}");
    // That is Knossos's own rule. For others, and for a file without operations, nothing was tested.
    std::fs::write(folder.path().join("empty.edn"), "[]").unwrap();
    let failed = [("idle.edn", "set-full"), ("idle.edn", "list-append"), ("idle.edn", "counter")];
    let empty = [("empty.edn", "set-full"), ("empty.edn", "linearizable"), ("empty.edn", "rw-register")];
    for (file, checker) in failed.into_iter().chain(empty) {
        let (code, stdout, stderr) = run(tribunal(folder.path()).args(["check", file, "--checker", checker]));
        assert_eq!((code, stderr.as_str()), (2, ""), "{file} {checker}: {stdout}");
        assert!(stdout.starts_with(&format!("{checker}: unknown: ")), "{stdout}");
    }
    std::fs::write(folder.path().join("broken.edn"), "{:process 0, :type :invoke}\n{:process 0 :type]}")
        .unwrap();
    let (code, _, stderr) = run(tribunal(folder.path()).args(["check", "broken.edn"]));
    assert_eq!(code, 254);
    insta::assert_snapshot!("arg-broken-edn", stderr);
}

#[test]
fn a_file_is_judged_event_by_event() {
    let folder = tempfile::tempdir().unwrap();
    let histories = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkers/tests/histories");
    let (valid, invalid) = ("valid", histories.join("invalid-register-stale-read.jsonl"));
    let events = "[0 :invoke :write 1] [0 :ok :write 1] [1 :invoke :read nil] [1 :ok :read 1]";
    std::fs::write(folder.path().join("valid.edn"), events).unwrap();
    assert_eq!(run(tribunal(folder.path()).args(["convert", "valid.edn", valid, "--to", "jsonl"])).0, 0);
    std::fs::write(folder.path().join("idle.edn"), "[0 :invoke :write 1] [0 :info :write 1]").unwrap();
    assert_eq!(run(tribunal(folder.path()).args(["convert", "idle.edn", "idle", "--to", "jsonl"])).0, 0);
    let check = |file: &Path, more: &[&str]| {
        run(tribunal(folder.path()).arg("check").arg("--online").arg(file).args(more))
    };
    for (name, file, expected) in [
        ("online-valid", Path::new(valid), 0),
        ("online-invalid", &*invalid, 1),
        ("online-idle", Path::new("idle"), 2),
    ] {
        let (code, stdout, stderr) = check(file, &[]);
        assert_eq!((code, stderr.as_str()), (expected, ""), "{name}: {stdout}");
        insta::assert_snapshot!(name, stdout);
        let (code, stdout, _) = check(file, &["--json"]);
        let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, &json["stats"]["online"]), (expected, &true.into()), "{name}");
    }
    let (code, stdout, stderr) = check(Path::new("valid.edn"), &[]);
    assert_eq!((code, stdout.as_str()), (254, ""));
    assert!(stderr.contains("valid.edn (--online reads jsonl only)"), "{stderr}");
    let refused: [&[&str]; 4] =
        [&["--initial", "0"], &["--keyed", "true"], &["--html", "page.html"], &["--checker", "counter"]];
    for more in refused {
        let (code, stdout, stderr) = check(Path::new(valid), more);
        assert_eq!((code, stdout.as_str()), (254, ""), "{more:?}");
        assert!(stderr.contains("--online "), "{stderr}");
    }
}

/// What is wrong with each of these is told so that a person sees it at once; the page is written besides.
#[test]
fn evidence_is_told_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let queue = "[0 :invoke :enqueue 1] [1 :invoke :enqueue 2] [0 :ok :enqueue 1] [1 :ok :enqueue 2]
        [0 :invoke :dequeue nil] [1 :invoke :dequeue nil] [0 :ok :dequeue 2] [1 :ok :dequeue 2]";
    let keys = "[0 :invoke :write [1 1]] [0 :ok :write [1 1]] [0 :invoke :write [2 1]] [0 :ok :write [2 1]]
        [1 :invoke :read [1 nil]] [1 :ok :read [1 2]] [1 :invoke :read [2 nil]] [1 :ok :read [2 nil]]";
    let crashed =
        "[0 :invoke :write 1] [0 :ok :write 1] [1 :invoke :write 2] [2 :invoke :read nil] [1 :info :write 2]
        [2 :ok :read 2] [3 :invoke :read nil] [3 :ok :read 1] [3 :invoke :write 3] [3 :ok :write 3]";
    let skew = "[0 :invoke :txn [[:r 1 nil] [:append 2 1]]] [1 :invoke :txn [[:r 2 nil] [:append 1 1]]]
        [0 :ok :txn [[:r 1 []] [:append 2 1]]] [1 :ok :txn [[:r 2 []] [:append 1 1]]]
        [0 :invoke :txn [[:r 1 nil] [:r 2 nil]]] [0 :ok :txn [[:r 1 [1]] [:r 2 [1]]]]";
    let orders =
        "[0 :invoke :txn [[:append 1 1]]] [1 :invoke :txn [[:append 1 2]]] [2 :invoke :txn [[:r 1 nil]]]
        [3 :invoke :txn [[:r 1 nil]]] [0 :ok :txn [[:append 1 1]]] [1 :ok :txn [[:append 1 2]]]
        [2 :ok :txn [[:r 1 [1 2]]]] [3 :ok :txn [[:r 1 [2 1]]]]";
    let cases: [(&str, &str, &[&str]); 5] = [
        ("told-queue", queue, &["--model", "fifo-queue"]),
        ("told-keys", keys, &["--model", "register", "--keyed", "true"]),
        ("told-crashed", crashed, &[]),
        ("told-write-skew", skew, &["--checker", "list-append"]),
        ("told-orders", orders, &["--checker", "list-append"]),
    ];
    for (name, history, args) in cases {
        std::fs::write(folder.path().join("history.edn"), history).unwrap();
        let check =
            |more: &[&str]| run(tribunal(folder.path()).args(["check", "history.edn"]).args(args).args(more));
        let told = check(&[]);
        assert_eq!((told.0, told.2.as_str()), (1, ""), "{name}: {}", told.1);
        assert_eq!(check(&["--html", "page.html"]), told, "the page comes besides");
        let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
        assert!(page.contains("<svg") && page.contains("INVALID") && page.contains("history.edn"), "{name}");
        assert_eq!(check(&["--html", "json.html", "--json"]).1, check(&["--json"]).1);
        assert_eq!(std::fs::read_to_string(folder.path().join("json.html")).unwrap(), page);
        insta::assert_snapshot!(name, told.1);
    }
    let (code, stdout, stderr) =
        run(tribunal(folder.path()).args(["check", "history.edn", "--html", "no/page.html"]));
    assert_eq!((code, stdout.as_str()), (254, ""));
    assert!(stderr.contains("cannot write no/page.html"), "{stderr}");
}

#[test]
fn a_dry_run_starts_nothing_and_prints_the_same_plan_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let plan = || run(tribunal(folder.path()).args(["run", "--seed", "5", "--dry-run"]));
    let (code, first, stderr) = plan();
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(first, plan().1);
    assert!(first.contains("partition") && first.contains("seed 5"), "{first}");
    assert!(!folder.path().join("store").exists());
}
