//! The program. All of it is in the library beside it, which the compiler makes while it still makes the libraries that this one uses; a program
//! would wait for them.

use std::process::ExitCode;

fn main() -> ExitCode {
    hopline_cli::main()
}
