//! The line by which a long-running command says that it serves.

use serde_json::Value;
use std::io::Write;

/// Prints `ready {...}` on stdout: the fields are part of the contract with scripts.
pub(super) fn print(fields: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "ready {fields}");
    let _ = out.flush();
}
