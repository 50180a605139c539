//! The binary: parse, call, turn the outcome into an exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tribunal::cli::main()
}
