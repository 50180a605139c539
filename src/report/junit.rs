//! Results as JUnit XML, so that CI systems show them: one test case a checker.

use crate::judge::Results;
use anyhow::Result;
use checkers::Validity;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

/// The document.
pub fn render(results: &Results) -> Result<String> {
    let mut suite = TestSuite::new(results.test.clone());
    for verdict in results.checkers.values() {
        let mut status = match verdict.validity {
            Validity::Valid => TestCaseStatus::success(),
            Validity::Invalid => TestCaseStatus::non_success(NonSuccessKind::Failure),
            Validity::Unknown => TestCaseStatus::non_success(NonSuccessKind::Error),
        };
        if verdict.validity != Validity::Valid {
            let first = verdict.anomalies.first().map(|a| a.message.clone());
            status.set_message(verdict.reason.clone().or_else(|| first.clone()).unwrap_or_default());
            status.set_description(first.unwrap_or_default());
        }
        suite.add_test_case(TestCase::new(verdict.checker.clone(), status));
    }
    let mut report = Report::new("tribunal");
    report.add_test_suite(suite);
    Ok(report.to_string()?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_violation_is_a_failure_and_an_empty_pass_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let xml = super::render(&crate::report::sample::run(folder.path()).0).unwrap();
        insta::assert_snapshot!(xml);
    }
}
