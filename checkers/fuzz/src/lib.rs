//! What the fuzz targets share: whatever can be read survives being written and read again, in every format.
//!
//! ```console
//! $ cd checkers && cargo +nightly fuzz run edn fuzz/corpus/edn tests/formats -- -max_total_time=60
//! ```
//!
//! Deliberately no check of what the history says: the tests of the crate do that.

use checkers::{
    History,
    formats::{self, Format, Options},
};

/// Panics if a history does not come back.
pub fn survives(history: &History) {
    // What events mean together is an error or not, but never a panic.
    let _ = history.operations();
    // An empty file has no room for the header.
    if history.events.is_empty() {
        return;
    }
    for format in Format::ALL {
        let mut file = Vec::new();
        // Our own format can hold answers that are missing; the others refuse them.
        if formats::write(&mut file, history, format).is_err() {
            continue;
        }
        match formats::read(&file[..], &Options::default()) {
            Ok((again, _)) => assert!(
                again.events == history.events && again.header == history.header,
                "not the same as {format}:\n{}",
                String::from_utf8_lossy(&file)
            ),
            Err(error) => panic!("not read again as {format}: {error}\n{}", String::from_utf8_lossy(&file)),
        }
    }
}
