//! Any bytes as `jsonl`, and as whatever they look like: an error or a history that survives, never a panic.

#![no_main]

use checkers::{
    formats::{self, Options},
    jsonl,
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(history) = jsonl::read(bytes) {
        checkers_fuzz::survives(&history);
    }
    if let Ok((history, _)) = formats::read(bytes, &Options::default()) {
        checkers_fuzz::survives(&history);
    }
});
