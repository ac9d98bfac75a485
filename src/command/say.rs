//! Output of commands: lines for people on stderr, results on stdout.
//!
//! Invariant: a failed write never panics. A line for stderr that cannot be written is dropped, as its reader is gone or its disk is
//! full, and flows go on. A result that cannot be written to stdout is an error.

use crate::stdio::at;
use std::fmt::Display;
use std::io::{self, StdoutLock, Write};

/// Tells people something on stderr.
pub fn say(what: impl Display) {
    line(format_args!("hopline: {what}"));
}

/// Writes a line to stderr, in one piece.
pub fn line(line: impl Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Standard output, for what a command was asked for. Its errors say whose they are.
pub fn output() -> Output<StdoutLock<'static>> {
    Output(io::stdout().lock())
}

/// See [`output`].
pub struct Output<W>(W);

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| told(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|error| told(&error))
    }
}

/// The same error, which says what could not be written to.
pub fn told(error: &io::Error) -> io::Error {
    at("write to standard output", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Exit, Failure};

    #[test]
    fn what_stdout_does_not_take_fails_the_command_with_its_cause() {
        let mut out = Output(io::LineWriter::new(Full));
        let failure = Failure::from(writeln!(out, "a line").unwrap_err());
        assert_eq!(failure.exit(), Exit::Failed);
        assert!(failure.message().starts_with("can't write to standard output: "), "{}", failure.message());
        assert!(failure.message().contains("no storage space"), "{}", failure.message());
    }

    /// A disk without room.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
