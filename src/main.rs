//! The `hopline` binary: see [`hopline::cli`].

fn main() -> std::process::ExitCode {
    hopline::cli::main()
}
