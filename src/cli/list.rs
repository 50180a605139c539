//! `tribunal list`: everything that has a name.

use super::Failure;
use crate::{bugs, exit, scenario::Scenario, scenario::TESTS};
use nemesis::{FaultKind, PLANS, Plan, Shape};

pub(super) fn main() -> Result<u8, Failure> {
    print!("{}", render());
    Ok(exit::VALID)
}

fn render() -> String {
    let mut out = String::new();
    let mut section = |title: &str, rows: Vec<(String, String)>| {
        out += &format!("{title}\n");
        let width = rows.iter().map(|r| r.0.len()).max().unwrap_or(0);
        for (name, doc) in rows {
            out += &format!("  {name:width$}  {doc}\n");
        }
        out += "\n";
    };
    let pair = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    let doc = |name: &str| Scenario::load(name).map(|s| s.doc).unwrap_or_default();
    section("Tests (tribunal run NAME)", TESTS.iter().map(|t| (t.0.to_owned(), doc(t.0))).collect());
    section(
        "Workloads",
        workloads::WORKLOADS.iter().map(|w| (w.name.to_owned(), w.doc.to_owned())).collect(),
    );
    let plan_doc = |text: &str| serde_yaml::from_str::<Plan>(text).map(|p| p.doc).unwrap_or_default();
    section("Fault plans (--nemesis NAME)", PLANS.iter().map(|p| (p.0.to_owned(), plan_doc(p.1))).collect());
    section("Faults", FaultKind::ALL.iter().map(|(k, doc)| (k.to_string(), (*doc).to_owned())).collect());
    section("Shapes of partitions", vec![("shape".to_owned(), Shape::names())]);
    section("Checkers", checkers::checkers().iter().map(pair).collect());
    section("Models", checkers::models().iter().map(pair).collect());
    let bug = |b: bugs::Known| (b.name.to_owned(), format!("{} [{}; {}]", b.breaks, b.family, b.plan));
    section("Planted bugs (--bug NAME)", bugs::known().into_iter().map(bug).collect());
    out.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    #[test]
    fn everything_with_a_name_is_listed() {
        insta::assert_snapshot!(super::render());
    }
}
