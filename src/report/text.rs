//! Results as text for a terminal.

use super::{ms, replicas, words};
use crate::judge::Results;
use checkers::{
    Validity, Verdict,
    performance::{Latency, Series},
};
use std::fmt::Write;

/// A verdict in one word.
pub fn word(validity: Validity) -> &'static str {
    match validity {
        Validity::Valid => "VALID",
        Validity::Invalid => "INVALID",
        Validity::Unknown => "UNKNOWN",
    }
}

/// A table whose first columns are words and whose last `numbers` columns are figures.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>], numbers: usize) -> String {
    let width = |i: usize| {
        let cells = rows.iter().map(|r| r[i].chars().count());
        cells.chain([header[i].chars().count()]).max().unwrap_or(0)
    };
    let words = header.len() - numbers;
    let line = |cells: Vec<&str>| {
        let mut out = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(width(i).saturating_sub(cell.chars().count()));
            out += "  ";
            out += &if i < words { format!("{cell}{pad}") } else { format!("{pad}{cell}") };
        }
        out.trim_end().to_owned() + "\n"
    };
    let mut out = line(header.to_vec());
    for row in rows {
        out += &line(row.iter().map(String::as_str).collect());
    }
    out
}

/// One verdict, with what is wrong; `rest` says where all is, if not all is shown.
pub fn verdict(v: &Verdict, rest: &str) -> String {
    let mut out = format!("{}: {}", v.checker, word(v.validity).to_lowercase());
    if let Some(reason) = &v.reason {
        let _ = write!(out, ": {reason}");
    }
    out.push('\n');
    if let Some(words) = v.stats.get("still_holds").and_then(|holds| holds["words"].as_str()) {
        let _ = writeln!(out, "{words}");
    }
    if let Some(words) = service(v) {
        let _ = writeln!(out, "{words}");
    }
    const SHOWN: usize = 3;
    for anomaly in v.anomalies.iter().take(SHOWN) {
        let _ = write!(out, "\n{}", words::anomaly(anomaly));
    }
    if v.anomalies.len() > SHOWN {
        let _ = writeln!(out, "\n… and {} more; {rest}", v.anomalies.len() - SHOWN);
    }
    out
}

/// Of availability: how long nobody was served, and how soon after heals everybody was.
fn service(v: &Verdict) -> Option<String> {
    let gap = v.stats.get("all")?["longest_gap"]["ns"].as_u64()?;
    let mut words = format!("longest time without a success: {} ms", ms(gap));
    let recoveries = v.stats.get("recoveries").and_then(|all| all.as_array());
    let took = |recovery: &serde_json::Value| recovery["every_kind_ns"].as_u64();
    let known: Vec<u64> = recoveries.into_iter().flatten().filter_map(took).collect();
    if let Some(most) = known.iter().max() {
        let heals = if known.len() == 1 { "one heal".to_owned() } else { format!("{} heals", known.len()) };
        let _ = write!(words, "; after {heals} everybody was served again, after {} ms at most", ms(*most));
    }
    Some(words)
}

/// The whole report.
pub fn render(r: &Results) -> String {
    let mut out = String::new();
    out += &format!("\n{} {} (seed {})\n", word(r.valid), r.test, r.seed);
    for v in r.verdicts() {
        out += &format!("\n{}", verdict(v, "see report.html"));
    }
    out += &format!("\n{}", operations(r));
    out += &replicas::text(r);
    out += &format!("\n{}", faults(r));
    out += &format!("\n{}", latencies(r));
    out += &format!("\n{}: seed {}, everything in {}\n", word(r.valid), r.seed, r.folder);
    out
}

fn operations(r: &Results) -> String {
    let row = |name: &str, t: &crate::judge::Tallies| {
        vec![name.to_owned(), t.asked.to_string(), t.ok.to_string(), t.fail.to_string(), t.info.to_string()]
    };
    let mut rows: Vec<_> = r.by_operation.iter().map(|(f, t)| row(f, t)).collect();
    rows.push(row("all", &r.operations));
    let mut out = table(&["operations", "asked", "ok", "failed", "unknown"], &rows, 4);
    let leaders: Vec<&str> = r.record.leaders.iter().map(|l| l.node.as_str()).collect();
    if leaders.len() > 1 {
        let shown = leaders.iter().take(12).copied().collect::<Vec<_>>().join(" ");
        let more = if leaders.len() > 12 { " …" } else { "" };
        let _ = writeln!(out, "  leadership changed {} times: {shown}{more}", leaders.len() - 1);
    }
    if r.record.dropped_arrivals > 0 {
        let n = r.record.dropped_arrivals;
        let _ = writeln!(out, "  {n} arrivals waited too long for a free client and were dropped");
    }
    if r.record.late_starts > 0 {
        let (n, max) = (r.record.late_starts, ms(r.record.latest_start_ns));
        let _ = writeln!(
            out,
            "  the tester itself fell behind: {n} operations began over 10 ms late (at most {max} ms)"
        );
    }
    for stand_in in &r.record.stand_ins {
        let _ = writeln!(out, "  stand-in: {stand_in}");
    }
    if let Some(l) = r.record.links {
        let (asked, measured) = (ms(l.asked_ns), ms(l.measured_ns));
        let _ = writeln!(out, "  links delay {asked} ms one way as asked, {measured} ms as measured");
    }
    out
}

fn faults(r: &Results) -> String {
    if r.record.faults.is_empty() {
        return "  no faults\n".to_owned();
    }
    let seconds = |ns: u64| format!("{:.1}", ns.saturating_sub(r.record.load_start_ns) as f64 / 1e9);
    let rows: Vec<Vec<String>> = r
        .record
        .faults
        .iter()
        .map(|f| {
            let seen = if f.effect.seen { "" } else { "NOT SEEN: " };
            let healed = if f.healed.seen || f.healed.what.is_empty() {
                String::new()
            } else {
                format!("; then {}", f.healed.what)
            };
            let error = f.error.as_ref().map(|e| format!("; {e}")).unwrap_or_default();
            vec![
                seconds(f.start_ns),
                seconds(f.end_ns),
                f.fault.clone(),
                f.on.clone(),
                format!("{seen}{}{healed}{error}", f.effect.what),
            ]
        })
        .collect();
    const SHOWN: usize = 30;
    let mut out = table(&["from s", "to s", "fault", "on", "effect"], &rows[..rows.len().min(SHOWN)], 0);
    if rows.len() > SHOWN {
        let _ = writeln!(out, "  … and {} more; see report.html", rows.len() - SHOWN);
    }
    let missed = r.record.faults.iter().filter(|f| !f.effect.seen).count();
    if missed > 0 {
        let _ =
            writeln!(out, "  {missed} of {} faults had no effect that could be seen", r.record.faults.len());
    }
    out
}

fn latencies(r: &Results) -> String {
    let cells = |name: String, l: &Latency| {
        let mut row = vec![name, l.count.to_string()];
        row.extend([l.p50_ns, l.p90_ns, l.p99_ns, l.p999_ns, l.max_ns].map(ms));
        row
    };
    let name = |s: &Series| match (&s.f, &s.path) {
        (Some(f), Some(path)) => format!("{f} {path}"),
        (Some(f), None) => f.clone(),
        (None, Some(path)) => path.clone(),
        (None, None) => "all".to_owned(),
    };
    let p = &r.performance;
    let mut rows = Vec::new();
    for s in p.by_f.iter().chain(&p.by_f_path).filter(|s| s.ok > 0 && !(s.path.is_none() && s.f.is_none())) {
        let doubled = p.by_f.iter().any(|f| f.f == s.f && s.path.is_none() && !std::ptr::eq(f, s));
        if !doubled {
            rows.push(cells(name(s), &s.response));
        }
    }
    for s in p.by_path.iter() {
        if let Some(commit) = &s.commit {
            rows.push(cells(format!("{} commit at proposer", name(s)), commit));
        }
    }
    let rate = format!("latency, ms ({:.0} ok/s)", p.total.ok_per_second);
    table(&[&rate, "count", "p50", "p90", "p99", "p99.9", "max"], &rows, 6)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_report_says_everything() {
        let folder = tempfile::tempdir().unwrap();
        insta::assert_snapshot!(super::render(&crate::report::sample::run(folder.path()).0));
    }
}
