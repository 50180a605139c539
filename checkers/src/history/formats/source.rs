//! `Source`: a window over a file, wide enough for one form, that knows lines and columns.
//!
//! ```text
//! file    …{:type :ok …}\n{:type :invoke, :f :read …}\n{:type …
//! window                  [ pos: line 7, column 1          ]     too short? read on, and parse the form again
//! ```
//!
//! The window is at least as wide as one reading, so that parsing a form again is rare. Deliberately without a notion of
//! what a form is.

use std::io::{self, Read};

/// How much is read at first, in bytes; then twice as much each time, up to a limit, so that small files are cheap.
const FIRST_READ: usize = 1 << 12;
const LARGEST_READ: usize = 1 << 18;

pub(crate) struct Source<R> {
    reader: R,
    buffer: Vec<u8>,
    /// How much is read next.
    chunk: usize,
    position: usize,
    end: bool,
    place: Place,
    /// Nothing is dropped, so that one can go back to the start.
    keep: bool,
}

/// Where in the file, both from 1. Columns count bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl Place {
    pub(crate) const START: Place = Place { line: 1, column: 1 };

    /// Behind these bytes.
    pub(crate) fn after(self, bytes: &[u8]) -> Place {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let column = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => (bytes.len() - last) as u64,
            None => self.column + bytes.len() as u64,
        };
        Place { line: self.line + lines, column }
    }
}

impl<R: Read> Source<R> {
    pub(crate) fn new(reader: R) -> Self {
        Source {
            reader,
            buffer: Vec::new(),
            chunk: FIRST_READ,
            position: 0,
            end: false,
            place: Place::START,
            keep: true,
        }
    }

    /// What is in the window, from the present position.
    pub(crate) fn window(&self) -> &[u8] {
        &self.buffer[self.position..]
    }

    /// Whether the file ends where the window ends.
    pub(crate) fn ended(&self) -> bool {
        self.end
    }

    /// Where the window begins.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Widens the window, unless the file has ended.
    pub(crate) fn widen(&mut self) -> io::Result<()> {
        if !self.keep && self.position > 0 {
            self.buffer.drain(..self.position);
            self.position = 0;
        }
        let length = self.buffer.len();
        // Doubling: a form of any length is parsed again a bounded number of times for each byte.
        self.buffer.resize(length + self.chunk.max(self.window().len()), 0);
        self.chunk = (2 * self.chunk).min(LARGEST_READ);
        let result = loop {
            match self.reader.read(&mut self.buffer[length..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        let got = *result.as_ref().unwrap_or(&0);
        self.buffer.truncate(length + got);
        self.end = got == 0;
        result.map(drop)
    }

    /// Goes on behind the first `count` bytes of the window.
    pub(crate) fn advance(&mut self, count: usize) {
        self.place = self.place.after(&self.window()[..count]);
        self.position += count;
    }

    /// Goes back to the start of the file, once. After this what was passed is forgotten.
    pub(crate) fn rewind(&mut self) {
        debug_assert!(self.keep, "the start is still there");
        self.position = 0;
        self.place = Place::START;
        self.keep = false;
    }

    /// The bytes from the start of the window, and the rest of the file.
    pub(crate) fn into_rest(self) -> (Vec<u8>, R) {
        let Source { mut buffer, position, reader, .. } = self;
        buffer.drain(..position);
        (buffer, reader)
    }
}
