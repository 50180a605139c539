//! The matrix as a table, and in its place in a document.

use super::{Cell, Matrix, Row, reason};
use crate::bugs::known;
use anyhow::{Result, anyhow};
use std::fmt::Write;

const BEGIN: &str = "<!-- matrix: made by `tribunal bugs --matrix` -->";
const END: &str = "<!-- matrix: end -->";

/// The table, with a line of sums below it and the controls behind that, in Markdown.
pub fn table(matrix: &Matrix) -> String {
    let mut out = String::from(
        "| bug | test, plan | simulator | stateright | real processes | real processes, `chaos` | why not |\n|---|---|---|---|---|---|---|\n",
    );
    for row in &matrix.rows {
        let cells = [&row.simulator, &row.stateright, &row.processes, &row.chaos].map(cell);
        let why = if row.is_found_from_outside() { "" } else { reason(&row.bug).unwrap_or("") };
        let _ = writeln!(out, "| `{}` | {} | {} | {why} |", row.bug, row.processes.under, cells.join(" | "));
    }
    out += &sums(&matrix.rows);
    if !matrix.controls.is_empty() {
        out += "\nThe correct cluster under the same tests and plans:\n\n| test, plan | simulator: seeds, findings | real processes: runs, findings |\n|---|---|---|\n";
        for c in &matrix.controls {
            let of = |cell: &Cell| match &cell.note {
                Some(note) if cell.runs == 0 => first_words(note),
                _ => format!("{}, {}", cell.runs, cell.found),
            };
            let _ = writeln!(out, "| {} | {} | {} |", c.under, of(&c.simulator), of(&c.processes));
        }
    }
    out
}

fn sums(rows: &[Row]) -> String {
    let n = |count: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| count(row)).count();
    format!(
        "\n{} of {} bugs are found by at least one judge, {} against real processes through what clients see alone: their history, or progress that is lost.\n",
        n(&Row::is_found),
        rows.len(),
        n(&Row::is_found_from_outside)
    )
}

/// What is wrong, without the advice that comes after it; the data has all of it.
fn first_words(note: &str) -> String {
    note.split(": ").next().unwrap_or(note).to_owned()
}

/// `7/10 history 7, invariants 2; 4.1 s`.
fn cell(cell: &Cell) -> String {
    if cell.runs == 0 {
        return cell.note.as_deref().map_or("–".to_owned(), first_words);
    }
    let mut out = format!("{}/{}", cell.found, cell.runs);
    let channels: Vec<String> = cell
        .channels
        .iter()
        .map(|(channel, n)| if *n == cell.found { channel.to_string() } else { format!("{channel} {n}") })
        .collect();
    if !channels.is_empty() {
        let _ = write!(out, " {}", channels.join(", "));
    }
    if let Some(median) = cell.median_seconds {
        let _ = write!(out, "; {median:.1} s");
    }
    if let Some(note) = &cell.note {
        let _ = write!(out, " ({note})");
    }
    out
}

/// A document with the catalogue's stories and the table in the place that is marked for them.
///
/// # Errors
/// If the document has no such place.
pub fn document(text: &str, matrix: &Matrix) -> Result<String> {
    let missing = |what: &str| anyhow!("the document has no line `{what}`");
    let (before, rest) = text.split_once(BEGIN).ok_or_else(|| missing(BEGIN))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| missing(END))?;
    let mut stories =
        String::from("| bug | what it breaks | seen in | what reveals it |\n|---|---|---|---|\n");
    for info in known() {
        let _ =
            writeln!(stories, "| `{}` | {} | {} | {} |", info.name, info.breaks, info.seen_in, info.reveals);
    }
    Ok(format!("{before}{BEGIN}\n\n{stories}\n{}\n{END}{after}", table(matrix)))
}

#[cfg(test)]
mod tests {
    use super::super::{Channel, Control, Sample};
    use super::*;

    fn some() -> Matrix {
        let sample =
            |seed, channels: &[Channel], seconds| Sample { seed, channels: channels.to_vec(), seconds };
        let (history, inside) = (Channel::ClientHistory, Channel::NodeInvariants);
        let found =
            [sample(1, &[history, inside], 4.25), sample(2, &[inside], 2.0), sample(3, &[history], 9.0)];
        let row = Row {
            bug: "follower-reads".to_owned(),
            simulator: Cell::of("hunt, chaos", &found),
            stateright: Cell::not_asked("no model"),
            processes: Cell::of("hunt, chaos", &found[..1]),
            chaos: Cell::of("hunt, chaos", &[sample(1, &[], 31.0)]),
        };
        let survivor = Row {
            bug: "counts-replies".to_owned(),
            processes: Cell::of("hunt, storm", &[sample(1, &[], 31.0)]),
            ..row.clone()
        };
        let control = Control {
            under: "hunt, chaos".to_owned(),
            simulator: Cell::of("hunt, chaos", &[sample(1, &[], 1.0)]),
            processes: Cell::not_asked("needs root"),
        };
        Matrix { rows: vec![row, survivor], controls: vec![control], ..Matrix::default() }
    }

    #[test]
    fn the_table() {
        insta::assert_snapshot!(table(&some()));
    }

    /// The documents of this repository say what was measured, of every bug there is.
    #[test]
    fn the_catalogue_in_the_docs_is_drawn_from_its_data_and_whole() {
        let matrix: Matrix = serde_json::from_str(include_str!("../../docs/bugs.json")).unwrap();
        let text = include_str!("../../docs/bugs.md");
        assert_eq!(document(text, &matrix).unwrap(), text, "`tribunal bugs --matrix --draw` draws it again");
        assert_eq!(matrix.missing(), Vec::<&str>::new(), "nothing was measured of these");
        let unexplained = |row: &&Row| !row.is_found_from_outside() && reason(&row.bug).is_none();
        let unexplained: Vec<_> = matrix.rows.iter().filter(unexplained).map(|row| &row.bug).collect();
        assert!(unexplained.is_empty(), "clients see nothing of {unexplained:?}, and nobody says why");
        assert_eq!(matrix.validity(), checkers::Validity::Valid, "each is found by a judge, or by a script");
        assert!(matrix.rows.iter().filter(|row| row.is_found_from_outside()).count() >= 30);
        let tried = |c: &&super::super::Control| c.simulator.runs > 0;
        assert!(matrix.controls.iter().filter(tried).count() >= 10, "the correct cluster was tried as well");
    }

    #[test]
    fn a_document_keeps_what_is_around_the_table() {
        let text = format!("before\n{BEGIN}\nwhat was here\n{END}\nafter\n");
        let new = document(&text, &some()).unwrap();
        assert!(
            new.starts_with("before\n") && new.ends_with("\nafter\n") && !new.contains("what was here"),
            "{new}"
        );
        assert!(new.contains("| `follower-reads` | a linearizable read"), "{new}");
        assert_eq!(document(&new, &some()).unwrap(), new, "drawing it again changes nothing");
        assert!(document("nothing", &some()).unwrap_err().to_string().contains("no line"));
    }
}
