//! placeholder
pub mod bugs;
pub mod core;
pub mod sim;
