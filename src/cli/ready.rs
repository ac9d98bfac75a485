//! The line by which a long-running command says that it serves.

use super::say;
use serde_json::Value;
use std::io::{self, Write};

/// Prints `ready {...}` on stdout: the fields are part of the contract with scripts.
///
/// # Errors
/// If standard output does not take it: whoever waits for it would do so for ever.
pub(super) fn print(fields: &Value) -> io::Result<()> {
    let mut out = say::output();
    writeln!(out, "ready {fields}")?;
    out.flush()
}
