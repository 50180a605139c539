//! Exit codes, the same as Jepsen's, for every command that judges.

use checkers::Validity;

/// Valid.
pub const VALID: u8 = 0;
/// Invalid: a promise was broken.
pub const INVALID: u8 = 1;
/// Unknown: not decided, or a pass would have meant nothing.
pub const UNKNOWN: u8 = 2;
/// Bad arguments, a mistake in a test file, or a test that cannot be carried out here. No node was started.
pub const BAD_ARGUMENTS: u8 = 254;
/// The tester itself failed: it could not set up the cluster, or write its results.
pub const FAILED: u8 = 255;

/// The exit code of a verdict.
pub fn of(validity: Validity) -> u8 {
    match validity {
        Validity::Valid => VALID,
        Validity::Invalid => INVALID,
        Validity::Unknown => UNKNOWN,
    }
}
