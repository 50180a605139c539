//! `tribunal doctor`: what this machine can do.

use super::Failure;
use crate::{doctor, exit};

pub(super) fn main() -> Result<u8, Failure> {
    print!("{}", doctor::table(&doctor::examine()));
    Ok(exit::VALID)
}
