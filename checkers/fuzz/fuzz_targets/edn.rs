//! Any bytes as `edn`: an error or a history that survives, never a panic.

#![no_main]

use checkers::{formats::Options, edn};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(history) = edn::read(bytes, &Options::default()) {
        checkers_fuzz::survives(&history);
    }
});
