//! See [`hopline_sim`].

use std::process::ExitCode;

fn main() -> ExitCode {
    hopline_sim::cli::run()
}
