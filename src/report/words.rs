//! One anomaly as text for a terminal: what cannot be, the evidence, how far it can be put in order, the picture.
//!
//! ```text
//! not-linearizable
//!   read of key 0 by process 2 returned 1, but given everything that returned before, …
//!
//!   Of these 4 operations, the longest order that works:
//!     at first  {nil}
//!     w 1       {1}
//!     w 2       {2}
//!     r -> 2    {2}
//!   ✗ r -> 1    it returned 1, but the key holds 2
//!
//!   process 0  |- w 1 -||--------- w 2 ----------|
//! ```
//!
//! Deliberately from the same data as `results.json`: what is told here, a program can read there.

use checkers::Anomaly;
use serde_json::Value as Json;
use std::fmt::Write;

/// Lines of sentences are not longer than this.
const WIDTH: usize = 110;
/// The most operations of an order that are listed: of its start, and of its end.
const ENDS: (usize, usize) = (6, 10);
/// The most operations that are said to be stuck.
const STUCK: usize = 5;

/// All of it.
pub(super) fn anomaly(anomaly: &Anomaly) -> String {
    let mut out = format!("{}\n", anomaly.name);
    match (because(anomaly), order(anomaly)) {
        (Some((meaning, steps)), _) => {
            out += &wrap(&meaning, "  ", "  ");
            steps.iter().for_each(|step| out += &wrap(step, "    ", "      "));
        }
        (None, Some(order)) => {
            out += &wrap(what(anomaly).lines().next().unwrap_or_default(), "  ", "  ");
            out += &format!("\n{order}");
        }
        (None, None) => what(anomaly).lines().for_each(|line| out += &wrap(line, "  ", "  ")),
    }
    if let Some(picture) = &anomaly.picture {
        out.push('\n');
        picture.trim_end().lines().for_each(|line| {
            let _ = writeln!(out, "  {line}");
        });
    }
    out
}

/// What is wrong, without the name.
pub(super) fn what(anomaly: &Anomaly) -> &str {
    let rest = anomaly.message.strip_prefix(&anomaly.name);
    rest.and_then(|rest| rest.strip_prefix(", ")).unwrap_or(&anomaly.message)
}

/// The steps of a cycle, one a line, and what they come to; `None` if it is no cycle.
pub(super) fn because(anomaly: &Anomaly) -> Option<(String, Vec<String>)> {
    let text = |json: &'_ Json, name: &str| json.get(name).and_then(Json::as_str).map(str::to_owned);
    let names: Vec<String> =
        anomaly.details.get("nodes")?.as_array()?.iter().filter_map(|node| text(node, "name")).collect();
    let edges = anomaly.details.get("edges")?.as_array()?;
    let name = |edge: &Json, end: &str| names.get(edge.get(end)?.as_u64()? as usize);
    let mut steps = Vec::new();
    for (i, edge) in edges.iter().enumerate() {
        let (from, to) = (name(edge, "from")?, name(edge, "to")?);
        let however = if i > 0 && i + 1 == edges.len() { "However, " } else { "" };
        steps.push(format!("{however}{from} < {to}, because {}.", text(edge, "reason")?));
    }
    if let Some(more) = anomaly.details.get("left_out").and_then(Json::as_u64).filter(|more| *more > 0) {
        steps.push(format!("And so on over {more} more transactions, back to T1."));
    }
    let meaning = what(anomaly).split(&format!(": {} < ", names.first()?)).next()?;
    Some((format!("{meaning}:"), steps))
}

/// The longest order, an operation a line, and what cannot be next; `None` if the anomaly has none.
fn order(anomaly: &Anomaly) -> Option<String> {
    let details = &anomaly.details;
    let orders = details.get("orders")?;
    let path = orders.get("paths")?.get(0)?;
    let window = details.get("window")?.as_array()?;
    let label = |id: &Json| {
        let found = window.iter().find(|operation| operation.get("id") == Some(id));
        found.and_then(|operation| operation.get("label")?.as_str()).unwrap_or("?").to_owned()
    };
    let states = orders.get("states")?.as_array()?;
    let words = |place: &Json| {
        let words = place.as_u64().and_then(|place| states.get(place as usize)?.get("words")?.as_str());
        format!("{{{}}}", words.unwrap_or("?"))
    };
    let placed = path.get("operations")?.as_array()?;
    let through = path.get("states")?.as_array()?;
    let mut rows = vec![(' ', "at first".to_owned(), words(through.first()?))];
    for (id, state) in placed.iter().zip(through.iter().skip(1)) {
        rows.push((' ', label(id), words(state)));
    }
    if placed.len() > ENDS.0 + ENDS.1 + 1 {
        let skipped = placed.len() - ENDS.0 - ENDS.1;
        let row = (' ', format!("… {skipped} more"), String::new());
        rows.splice(1 + ENDS.0..1 + ENDS.0 + skipped, [row]);
    }
    let stuck = path.get("stuck")?.as_array()?;
    for one in stuck.iter().take(STUCK) {
        rows.push(('✗', label(one.get("operation")?), one.get("reason")?.as_str()?.to_owned()));
    }
    if stuck.len() > STUCK {
        rows.push((' ', format!("… {} more", stuck.len() - STUCK), String::new()));
    }
    let count = orders.get("operations")?.as_array()?.len();
    let mut out = match (count, placed.is_empty()) {
        (1, _) => "  By itself it is impossible:\n".to_owned(),
        (_, true) => format!("  Of these {count} operations no order works:\n"),
        _ => format!("  Of these {count} operations, the longest order that works:\n"),
    };
    let wide = rows.iter().map(|row| row.1.chars().count()).max().unwrap_or(0).min(WIDTH / 2);
    for (mark, what, then) in rows {
        let pad = " ".repeat(wide.saturating_sub(what.chars().count()));
        out += format!("  {mark} {what}{pad}  {then}").trim_end();
        out.push('\n');
    }
    let all = orders.get("count").and_then(Json::as_u64)?;
    match (all, orders.get("cut").and_then(Json::as_bool)?) {
        (1, false) => {}
        (u64::MAX, _) => out += "  No order goes further, of too many to count.\n",
        (_, true) => out += &format!("  No order goes further, of the {all} that were tried.\n"),
        (_, false) => out += &format!("  No order goes further, of {all}.\n"),
    }
    Some(out)
}

/// Breaks a sentence between words.
fn wrap(text: &str, first: &str, others: &str) -> String {
    let mut out = String::new();
    let mut line = first.to_owned();
    let mut length = first.chars().count();
    let mut begun = false;
    for word in text.split(' ') {
        let chars = word.chars().count();
        if begun && length + 1 + chars > WIDTH {
            out += &line;
            out.push('\n');
            line = others.to_owned();
            length = others.chars().count();
            begun = false;
        }
        if begun {
            line.push(' ');
            length += 1;
        }
        line += word;
        length += chars;
        begun = true;
    }
    out += &line;
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_broken_between_words_only() {
        let long = "word ".repeat(40) + &"x".repeat(200);
        let text = wrap(&long, "  ", "    ");
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH || line.trim() == "x".repeat(200)),
            "{text}"
        );
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), long.split_whitespace().collect::<Vec<_>>());
        assert_eq!(wrap("", "  ", ""), "  \n");
    }
}
