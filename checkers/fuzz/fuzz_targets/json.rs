//! Any bytes as `json`: an error or a history that survives, never a panic.

#![no_main]

use checkers::{formats::Options, json};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(history) = json::read(bytes, &Options::default()) {
        checkers_fuzz::survives(&history);
    }
});
