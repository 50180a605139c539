//! A mistake in a test file, as a compiler would report it.
//!
//! ```text
//! my-test.yaml:4:3: unknown field `op-timout`
//!    4 |   op-timout: 1s
//!      |   ^ did you mean `op-timeout`? expected one of `clients`, `rate`, …
//! ```
//! YAML readers know where a mapping began, not always where the offending word stands; since messages name the word in
//! backticks, it is looked up in the text.

use std::fmt;

/// A mistake with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    place: Option<Place>,
    message: String,
    hint: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    file: String,
    line: usize,
    column: usize,
    text: String,
}

impl std::error::Error for Diagnostic {}

impl Diagnostic {
    /// A mistake that has no place in a file.
    pub fn plain(message: impl Into<String>) -> Self {
        Diagnostic { place: None, message: message.into(), hint: String::new() }
    }

    /// A mistake that the YAML reader found.
    pub fn of_yaml(file: &str, text: &str, error: &serde_yaml::Error) -> Self {
        let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        let full = error.to_string();
        // The place stands in front of the message already.
        let message = full.split(" at line ").next().unwrap_or(&full).to_owned();
        let (head, expected) = match message.split_once(", expected ") {
            Some((head, expected)) => (head.to_owned(), format!("expected {expected}")),
            None => (message.clone(), String::new()),
        };
        let expected = in_words(expected);
        let wrong = backticked(&head).or_else(|| quoted(&head));
        let near = match (wrong, &expected) {
            (Some(wrong), expected) if !expected.is_empty() => did_you_mean(wrong, &all_backticked(expected)),
            _ => String::new(),
        };
        let (line, column) = wrong.and_then(|w| find(text, w, line)).unwrap_or((line, column));
        let hint =
            format!("{}{expected}", near.strip_prefix("; ").map(|n| format!("{n} ")).unwrap_or_default());
        Diagnostic { place: Some(Place::new(file, text, line, column)), message: head, hint }
    }

    /// A mistake that was found after reading; the word in backticks is looked up in the text.
    pub fn at_mention(file: &str, text: &str, message: String) -> Self {
        let phrase = backticked(&message).unwrap_or_default();
        // `kill n9` may stand as two words in two places: the last one is the one that is wrong.
        let words = std::iter::once(phrase).chain(phrase.split(' ').rev());
        let place = words.filter(|w| !w.is_empty()).find_map(|w| find(text, w, 1));
        let (line, column) = place.unwrap_or((1, 1));
        Diagnostic { place: Some(Place::new(file, text, line, column)), message, hint: String::new() }
    }
}

impl Place {
    fn new(file: &str, text: &str, line: usize, column: usize) -> Self {
        let shown = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        Place { file: file.to_owned(), line, column, text: shown.to_owned() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.place else { return f.write_str(&self.message) };
        let Place { file, line, column, text } = place;
        writeln!(f, "{file}:{line}:{column}: {}", self.message)?;
        writeln!(f, "{line:4} | {text}")?;
        write!(f, "     | {}^ {}", " ".repeat(column.saturating_sub(1)), self.hint)
    }
}

/// Rust's names of types mean nothing to the author of a test file.
fn in_words(expected: String) -> String {
    match expected.strip_prefix("expected ") {
        Some("u8" | "u16" | "u32" | "u64" | "usize") => "expected a whole number".to_owned(),
        Some("f32" | "f64") => "expected a number".to_owned(),
        Some("a boolean" | "bool") => "expected true or false".to_owned(),
        _ => expected,
    }
}

/// `; did you mean …?` if a name is close to the word, otherwise nothing.
pub fn did_you_mean(word: &str, names: &[&str]) -> String {
    let score = |n: &&&str| (strsim::jaro_winkler(n, word) * 1000.0) as u32;
    match names.iter().max_by_key(score) {
        Some(name) if score(&name) > 780 => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

fn backticked(text: &str) -> Option<&str> {
    text.split('`').nth(1)
}

fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

fn all_backticked(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Where a word stands on its own, from a line on; columns and lines count from 1.
fn find(text: &str, word: &str, from: usize) -> Option<(usize, usize)> {
    let part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let in_line = |line: &str| {
        line.match_indices(word).map(|(at, _)| at).find(|&at| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            !before.is_some_and(part) && !after.is_some_and(part)
        })
    };
    let lines: Vec<&str> = text.lines().collect();
    let start = from.saturating_sub(1).min(lines.len());
    let hit = |i: usize| in_line(lines[i]).map(|at| (i + 1, lines[i][..at].chars().count() + 1));
    (start..lines.len()).chain(0..start).find_map(hit)
}
