//! The line by which a long-running command says that it serves.

use crate::say;
use serde_json::Value;
use std::io::Write;

/// Prints `ready {...}` on stdout: the fields are part of the contract with scripts. If that takes nothing, the command serves all
/// the same: the network needs it more than its output, and what is written for a flow fails that flow, with the cause.
pub fn print(fields: &Value) {
    let mut out = say::output();
    let _ = writeln!(out, "ready {fields}").and_then(|()| out.flush());
}
