//! Quoted strings, which EDN and JSON write alike.
//!
//! ```text
//! "plain"           borrowed from the file
//! "a\n\u00e9\"b"    copied, its escapes replaced
//! ```
//!
//! Half of a surrogate pair becomes U+FFFD. Deliberately without the rule of JSON that control characters are escaped.

use std::borrow::Cow;

use super::forms::{Stop, text_of};

/// Reads the string whose opening quote is at `*at`; leaves `*at` behind its closing one. `octal` allows Clojure's `\101`.
pub(crate) fn quoted<'a>(text: &'a [u8], at: &mut usize, octal: bool) -> Result<Cow<'a, str>, Stop> {
    let start = *at + 1;
    let mut end = start;
    loop {
        match text.get(end) {
            None => return Err(Stop::More),
            Some(b'"') => {
                *at = end + 1;
                return text_of(text, start, end).map(Cow::Borrowed);
            }
            Some(b'\\') => break,
            Some(_) => end += 1,
        }
    }
    let mut out = text_of(text, start, end)?.to_owned();
    loop {
        let plain = end;
        match text.get(end) {
            None => return Err(Stop::More),
            Some(b'"') => {
                *at = end + 1;
                return Ok(Cow::Owned(out));
            }
            Some(b'\\') => end = escape(text, end, &mut out, octal)?,
            Some(_) => {
                while text.get(end).is_some_and(|byte| !matches!(byte, b'"' | b'\\')) {
                    end += 1;
                }
                if end == text.len() {
                    return Err(Stop::More);
                }
                out.push_str(text_of(text, plain, end)?);
            }
        }
    }
}

/// The escape whose backslash is at `at`; returns where it ends.
fn escape(text: &[u8], at: usize, out: &mut String, octal: bool) -> Result<usize, Stop> {
    let Some(kind) = text.get(at + 1) else { return Err(Stop::More) };
    out.push(match kind {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => {
            let high = unit(text, at)?;
            let mut end = at + 6;
            let mut units = vec![high];
            if (0xd800..0xdc00).contains(&high)
                && text.get(end) == Some(&b'\\')
                && text.get(end + 1) == Some(&b'u')
            {
                let low = unit(text, end)?;
                // A high half without a low one stands alone, and so does what follows it.
                if (0xdc00..0xe000).contains(&low) {
                    units.push(low);
                    end += 6;
                }
            }
            out.push_str(&String::from_utf16_lossy(&units));
            return Ok(end);
        }
        b'0'..=b'7' if octal => {
            let digits = text[at + 1..].iter().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
            if at + 1 + digits == text.len() {
                return Err(Stop::More);
            }
            let code =
                text[at + 1..at + 1 + digits].iter().fold(0, |sum, byte| sum * 8 + u32::from(byte - b'0'));
            out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            return Ok(at + 1 + digits);
        }
        other => {
            let problem = format!("\\{} is no escape in a string", other.escape_ascii());
            return Err(Stop::Bad { at, problem });
        }
    });
    Ok(at + 2)
}

/// The four hexadecimal digits of the `\u` at `at`.
fn unit(text: &[u8], at: usize) -> Result<u16, Stop> {
    let Some(digits) = text.get(at + 2..at + 6) else {
        return match text[(at + 2).min(text.len())..].contains(&b'"') {
            true => Err(Stop::Bad { at, problem: "\\u needs four hexadecimal digits".into() }),
            false => Err(Stop::More),
        };
    };
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    digits
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
        .ok_or_else(|| Stop::Bad { at, problem: "\\u needs four hexadecimal digits".into() })
}
