//! Hopline's machines in virtual time.
fn main() {}
