//! Histories written by hand, each with the verdict in its name: `<verdict>-<model>-<what it shows>.jsonl`. The model is that
//! of linearizability; `convergence` stands there for the checker of that name.
//!
//! ```text
//! histories/invalid-register-stale-read.jsonl   ->   invalid, by the model `register`, and why: snapshots/corpus__….snap
//! ```
//!
//! One file, one test. To add one, put the file there and its name, with underscores, into the list below.

#![expect(
    clippy::disallowed_methods,
    reason = "these files are read from the disk, the checker is still given bytes"
)]

use std::path::Path;

use checkers::{Budget, Checker, ModelName, Validity, convergence, jsonl, linearizable};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/histories");

/// The checker and the verdict that a file's name asks for.
fn expected(name: &str) -> (Box<dyn Checker>, Validity) {
    let (verdict, rest) = name.split_once('-').expect("<verdict>-<model>-<what>");
    let validity = match verdict {
        "valid" => Validity::Valid,
        "unknown" => Validity::Unknown,
        "invalid" => Validity::Invalid,
        other => panic!("{name}: no verdict is called {other}"),
    };
    if rest.starts_with("convergence-") {
        return (Box::new(convergence::convergence(convergence::Options::default())), validity);
    }
    // Not by the first hyphen: one of the models has one in its name.
    let model = ModelName::ALL.into_iter().find(|model| rest.starts_with(&format!("{model}-")));
    (Box::new(linearizable(model.expect("a model"))), validity)
}

fn judge(test: &str) {
    let name = test.replace('_', "-");
    let (checker, validity) = expected(&name);
    let file = std::fs::read(Path::new(FOLDER).join(format!("{name}.jsonl"))).expect("the file is there");
    let history = jsonl::read(&file[..]).expect("a history");
    let verdict = checker.check(&history, &Budget::unlimited());
    assert_eq!(verdict.validity, validity, "{name}: {:?}", verdict.reason);
    if validity == Validity::Valid {
        assert!(verdict.anomalies.is_empty() && verdict.reason.is_none(), "{name}: {verdict:?}");
        return;
    }
    let mut text = verdict.reason.expect("whatever is not valid has a reason");
    text.push('\n');
    for anomaly in verdict.anomalies {
        let picture = anomaly.picture.expect("there is a picture of every anomaly");
        text.push_str(&format!(
            "\n{}: {}\nminimal: {:?}\n\n{picture}",
            anomaly.name, anomaly.message, anomaly.operations
        ));
    }
    insta::with_settings!({ prepend_module_to_snapshot => true, omit_expression => true }, {
        insta::assert_snapshot!(test, text);
    });
}

macro_rules! corpus {
    ($($name:ident,)*) => {
        $(#[test] fn $name() { judge(stringify!($name)); })*

        #[test]
        fn every_file_is_listed() {
            let mut listed: Vec<String> = [$(stringify!($name)),*].map(|name| name.replace('_', "-") + ".jsonl").into();
            let files = std::fs::read_dir(FOLDER).expect("the folder is there");
            let mut found: Vec<String> =
                files.map(|file| file.expect("readable").file_name().into_string().expect("plain name")).collect();
            listed.sort();
            found.sort();
            assert_eq!(listed, found);
        }
    };
}

corpus! {
    invalid_cas_register_crashed_swap_used_twice,
    invalid_cas_register_found_what_was_gone,
    invalid_cas_register_had_to_win,
    invalid_cas_register_two_winners,
    invalid_convergence_deleted_key_comes_back,
    invalid_convergence_diverged_for_good,
    invalid_convergence_diverged_over_concurrent_writes,
    invalid_convergence_element_lost_on_one_replica,
    invalid_convergence_failed_write_is_held,
    invalid_convergence_garbage,
    invalid_convergence_lost_write,
    invalid_convergence_value_from_the_future,
    invalid_kv_append_lost,
    invalid_kv_append_orders_disagree,
    invalid_kv_deleted_key_comes_back,
    invalid_kv_deleted_twice,
    invalid_kv_one_bad_key_of_two,
    invalid_register_a_microsecond_later,
    invalid_register_crashed_once_seen_twice,
    invalid_register_crashed_write_comes_and_goes,
    invalid_register_failed_write_is_seen,
    invalid_register_lost_write,
    invalid_register_new_then_old,
    invalid_register_stale_lease_read,
    invalid_register_stale_read,
    invalid_register_torn_end,
    invalid_register_value_from_nowhere,
    invalid_register_value_from_the_future,
    unknown_convergence_a_replica_is_silent,
    unknown_convergence_a_write_is_still_open,
    unknown_convergence_no_replica_was_named,
    unknown_convergence_nobody_says_it_was_healed,
    unknown_convergence_not_apart_for_long_enough,
    unknown_convergence_nothing_read_in_the_end,
    unknown_convergence_one_key_was_not_read,
    unknown_convergence_one_replica_still_moves,
    unknown_kv_append_to_a_number,
    unknown_register_nothing_to_judge,
    unknown_register_operation_it_does_not_know,
    unknown_register_retired_process_goes_on,
    valid_cas_register_chain,
    valid_cas_register_crashed_write_witnessed_by_failure,
    valid_cas_register_creates_what_is_absent,
    valid_convergence_either_of_two_concurrent_writes,
    valid_convergence_one_replica_comes_last,
    valid_convergence_sets_without_faults,
    valid_convergence_unknown_write_supersedes,
    valid_kv_append_text,
    valid_kv_delete_says_whether_it_existed,
    valid_register_crashed_twice_seen_twice,
    valid_register_crashed_write_is_seen_late,
    valid_register_either_side_of_a_concurrent_write,
    valid_register_one_after_the_other,
    valid_register_stale_mode_claims_nothing,
    valid_register_torn_end,
    valid_register_touching_intervals_overlap,
    valid_register_unread_info_read,
}
