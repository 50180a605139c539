//! From a file to its forms: one a line, or all in one enclosing list.
//!
//! ```text
//! {…} {…} {…}      three forms
//! [{…} {…} {…}]    the same three
//! [0 :invoke :read nil] [0 :ok :read 5]      two: a list whose first item is neither map nor list is an event
//! ```
//!
//! Deliberately lazy: a form is handed over as soon as it is parsed, and forgotten before the next one.

use std::io::{self, Read};

use super::{
    Datum,
    source::{Place, Source},
};

/// How deep forms may nest.
pub(crate) const MAX_DEPTH: usize = 512;

/// Why a form could not be parsed.
pub(crate) enum Stop {
    /// The text ends within it.
    More,
    /// It is malformed, at this byte of the text.
    Bad { at: usize, problem: String },
}

/// How a language writes forms. All places are bytes of `text`; `ended` says that nothing follows it.
pub(crate) trait Syntax {
    /// Whether the items of a list are separated by commas.
    const SEPARATED: bool;

    /// Where the blanks and comments that begin at `at` end.
    fn blanks(text: &[u8], at: usize, ended: bool) -> Result<usize, Stop>;

    /// The form that begins at `at`, and where it ends.
    fn form<'a>(text: &'a [u8], at: usize, ended: bool) -> Result<(Datum<'a>, usize), Stop>;

    /// Whether a list that begins so, behind its bracket and blanks, encloses events and is none itself.
    fn is_item(text: &[u8]) -> bool;
}

/// Why a file could not be taken apart.
pub(crate) enum FormError {
    Io { place: Place, source: io::Error },
    At { place: Place, problem: String },
}

/// What the one who gets the forms wants.
pub(crate) enum Next {
    GoOn,
    Enough,
}

/// Hands over all forms from the present place of `source` on, each with its place.
pub(crate) fn each<S: Syntax, R: Read>(
    source: &mut Source<R>,
    mut take: impl FnMut(Datum<'_>, Place) -> Result<Next, FormError>,
) -> Result<(), FormError> {
    // The bracket that closes the enclosing list, and where that list began.
    let mut enclosing: Option<(u8, Place)> = None;
    let mut need_comma = false;
    if source.place() == (Place { line: 1, column: 1 }) {
        look(source, |text, ended| match text.len() < 3 && !ended {
            true => Err(Stop::More),
            false => Ok(if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }),
        })?;
    }
    loop {
        look(source, |text, ended| {
            let end = S::blanks(text, 0, ended)?;
            if end == text.len() && !ended { Err(Stop::More) } else { Ok(end) }
        })?;
        let Some(&byte) = source.window().first() else {
            return match enclosing {
                None => Ok(()),
                Some((_, place)) => Err(never_closed(place)),
            };
        };
        if let Some((close, _)) = enclosing {
            if byte == close {
                source.advance(1);
                (enclosing, need_comma) = (None, false);
                continue;
            }
            if S::SEPARATED && need_comma {
                if byte != b',' {
                    let problem =
                        format!("expected ',' or '{}', found {}", close as char, found(source.window()));
                    return Err(FormError::At { place: source.place(), problem });
                }
                source.advance(1);
                need_comma = false;
                continue;
            }
        } else if matches!(byte, b'[' | b'(') {
            let mut encloses = false;
            look(source, |text, ended| {
                let first = S::blanks(text, 1, ended)?;
                if text.len() < first + 2 && !ended {
                    return Err(Stop::More);
                }
                encloses = S::is_item(&text[first..]);
                Ok(usize::from(encloses))
            })?;
            if encloses {
                let place = source.place();
                let began = Place { column: place.column - 1, ..place };
                enclosing = Some((if byte == b'[' { b']' } else { b')' }, began));
                continue;
            }
        }
        let place = source.place();
        let mut next = Next::GoOn;
        look(source, |text, ended| {
            let (datum, end) = S::form(text, 0, ended)?;
            next = match take(datum, place) {
                Ok(next) => next,
                Err(error) => return Ok(Err(error)),
            };
            Ok(Ok(end))
        })??;
        if matches!(next, Next::Enough) {
            return Ok(());
        }
        need_comma = true;
    }
}

/// How far a look went: a number of bytes, or that and an error of another kind.
trait Advance {
    fn count(&self) -> usize;
}

impl Advance for usize {
    fn count(&self) -> usize {
        *self
    }
}

impl Advance for Result<usize, FormError> {
    fn count(&self) -> usize {
        *self.as_ref().unwrap_or(&0)
    }
}

/// Parses at the window's start, widening it as often as needed, and goes on behind what was parsed.
fn look<R: Read, T: Advance>(
    source: &mut Source<R>,
    mut parse: impl FnMut(&[u8], bool) -> Result<T, Stop>,
) -> Result<T, FormError> {
    loop {
        match parse(source.window(), source.ended()) {
            Ok(done) => {
                source.advance(done.count());
                return Ok(done);
            }
            Err(Stop::Bad { at, problem }) => {
                let place = source.place().after(&source.window()[..at]);
                return Err(FormError::At { place, problem });
            }
            Err(Stop::More) if source.ended() => return Err(never_closed(source.place())),
            Err(Stop::More) => {
                let place = source.place();
                source.widen().map_err(|source| FormError::Io { place, source })?;
            }
        }
    }
}

fn never_closed(place: Place) -> FormError {
    FormError::At {
        place,
        problem: "what begins here has no end: the file ends first; was it cut off?".into(),
    }
}

/// The text between two bytes.
pub(crate) fn text_of(text: &[u8], from: usize, to: usize) -> Result<&str, Stop> {
    std::str::from_utf8(&text[from..to]).map_err(|error| Stop::Bad {
        at: from + error.valid_up_to(),
        problem: format!("expected text in UTF-8, found the byte 0x{:02x}", text[from + error.valid_up_to()]),
    })
}

/// What stands at the start of `text`, for messages.
pub(crate) fn found(text: &[u8]) -> String {
    match text.first() {
        None => "the end of the file".into(),
        Some(byte @ 0x20..=0x7e) => format!("'{}'", *byte as char),
        Some(byte) => format!("the byte 0x{byte:02x}"),
    }
}
