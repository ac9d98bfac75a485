//! The `hopline` binary.
fn main() {}
