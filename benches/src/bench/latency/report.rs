//! What came of all rounds, for people and for scripts.

use super::{Args, FIRST_BYTES};
use crate::bench::network::Subject;
use crate::bench::orders::{Opened, Timed};
use crate::report::{QUANTILES, Report, Times};
use hopline::endpoint::Plane;
use hopline_command::Failure;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// What is compared, in the order of measurements; what the others are compared with comes first.
pub(super) const SUBJECTS: [Subject; 3] =
    [Subject::Splice, Subject::Flows(Plane::Stored), Subject::Flows(Plane::Session)];

/// All rounds of one of them.
#[derive(Debug)]
pub(super) struct Side {
    echo: Times,
    first_byte: Times,
    opened: u64,
    seconds: f64,
    relays_cpu_seconds: f64,
    bytes: u64,
    wrong_bytes: u64,
}

impl Side {
    pub(super) fn new() -> Result<Self, Failure> {
        let (echo, first_byte) = (Times::new()?, Times::new()?);
        let (opened, bytes, wrong_bytes) = (0, 0, 0);
        Ok(Self { echo, first_byte, opened, seconds: 0.0, relays_cpu_seconds: 0.0, bytes, wrong_bytes })
    }

    pub(super) fn echoed(&mut self, timed: &Timed, size: u64) {
        record(&mut self.echo, timed);
        self.compared(timed.micros.len() as u64 * size, timed.wrong_bytes);
    }

    pub(super) fn came_first(&mut self, timed: &Timed) {
        record(&mut self.first_byte, timed);
        self.compared(timed.micros.len() as u64, timed.wrong_bytes);
    }

    pub(super) fn opened(&mut self, opened: &Opened, relays_cpu_seconds: f64) {
        self.opened += opened.count;
        self.seconds += opened.seconds;
        self.relays_cpu_seconds += relays_cpu_seconds;
        self.compared(opened.count, opened.wrong_bytes);
    }

    const fn compared(&mut self, bytes: u64, wrong_bytes: u64) {
        self.bytes += bytes;
        self.wrong_bytes += wrong_bytes;
    }

    fn opened_a_second(&self) -> f64 {
        self.opened as f64 / self.seconds
    }

    fn relays_cpu_seconds_a_thousand(&self) -> f64 {
        1000.0 * self.relays_cpu_seconds / self.opened as f64
    }

    fn to_json(&self, splice: &Self) -> Value {
        let ratios = |of: fn(&Self) -> &Times| -> Value {
            let ratio = |share| of(self).quantile_ms(share) / of(splice).quantile_ms(share);
            QUANTILES.iter().map(|(name, share)| ((*name).to_owned(), json!(ratio(*share)))).collect()
        };
        json!({
            "echo_ms": self.echo.to_json(),
            "first_byte_ms": self.first_byte.to_json(),
            "opened": self.opened,
            "opened_per_second": self.opened_a_second(),
            "relays_cpu_seconds_per_1000": self.relays_cpu_seconds_a_thousand(),
            "times_the_splice": {
                "echo": ratios(|side| &side.echo),
                "first_byte": ratios(|side| &side.first_byte),
                "opened_per_second": self.opened_a_second() / splice.opened_a_second(),
                "relays_cpu_seconds_per_1000":
                    self.relays_cpu_seconds_a_thousand() / splice.relays_cpu_seconds_a_thousand(),
            },
        })
    }
}

fn record(times: &mut Times, timed: &Timed) {
    timed.micros.iter().for_each(|micros| times.record(Duration::from_micros(*micros)));
}

/// All of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// In the order of [`SUBJECTS`].
    pub(super) sides: [(Subject, Side); 3],
}

impl Outcome {
    pub(super) fn is_clean(&self) -> bool {
        self.wrong_bytes() == 0
    }

    fn wrong_bytes(&self) -> u64 {
        self.sides.iter().map(|(_, side)| side.wrong_bytes).sum()
    }

    fn bytes(&self) -> u64 {
        self.sides.iter().map(|(_, side)| side.bytes).sum()
    }

    const fn splice(&self) -> &Side {
        let [(_, splice), ..] = &self.sides;
        splice
    }

    /// A line for each side, with figures of it and each one's ratio to the splice's.
    fn print_lines<const N: usize>(
        &self,
        out: &mut dyn Write,
        of: impl Fn(&Side) -> [f64; N],
    ) -> std::io::Result<()> {
        let splice = of(self.splice());
        for (subject, side) in &self.sides {
            write!(out, "{:<12}", subject.as_str().replace('_', " "))?;
            for (figure, splice) in of(side).into_iter().zip(splice) {
                write!(out, " {figure:>12.3} {:>8.2}", figure / splice)?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn print_times(&self, out: &mut dyn Write, of: impl Fn(&Side) -> &Times) -> std::io::Result<()> {
        const SHOWN: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];
        write!(out, "{:<12}", "ms")?;
        for (name, _) in SHOWN {
            write!(out, " {name:>12} {:>8}", "x splice")?;
        }
        writeln!(out)?;
        self.print_lines(out, |side| SHOWN.map(|(_, share)| of(side).quantile_ms(share)))
    }
}

impl Report<Args> for Outcome {
    fn print_table(&self, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
        let Args { hops, size, count, rounds, parallel, seconds, .. } = args;
        writeln!(out, "{hops} relays, {rounds} rounds; \"x splice\" is the ratio to the dumb splice")?;
        writeln!(out, "\nround trip of an echo of {size}, {count} a round, one after the other")?;
        self.print_times(out, |side| &side.echo)?;
        writeln!(
            out,
            "\nfirst byte: from before a flow is opened to its first echoed byte, {FIRST_BYTES} a round"
        )?;
        self.print_times(out, |side| &side.first_byte)?;
        writeln!(
            out,
            "\nset-up: flows opened, a byte echoed, ended, by {parallel} openers for {seconds} s a round"
        )?;
        writeln!(
            out,
            "{:<12} {:>12} {:>8} {:>12} {:>8}",
            "", "a second", "x splice", "CPU-s/1,000", "x splice"
        )?;
        self.print_lines(out, |side| [side.opened_a_second(), side.relays_cpu_seconds_a_thousand()])?;
        writeln!(out, "(CPU-s/1,000: CPU seconds of the relays together for 1,000 flows)")?;
        writeln!(out, "\n{} bytes compared, {} of them wrong", self.bytes(), self.wrong_bytes())?;
        Ok(())
    }

    fn to_json(&self, args: &Args) -> Result<Value, Failure> {
        let mut report = json!({
            "hops": args.hops,
            "size_bytes": args.size.0,
            "count": args.count,
            "rounds": args.rounds,
            "first_bytes": FIRST_BYTES,
            "parallel": args.parallel,
            "seconds": args.seconds,
            "bytes": self.bytes(),
            "wrong_bytes": self.wrong_bytes(),
        });
        if let Some(report) = report.as_object_mut() {
            for (subject, side) in &self.sides {
                report.insert(subject.as_str().to_owned(), side.to_json(self.splice()));
            }
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(micros: &[u64], opened: u64, cpu_seconds: f64) -> Side {
        let mut side = Side::new().unwrap();
        let timed = || Timed { micros: micros.to_vec(), wrong_bytes: 0 };
        side.echoed(&timed(), 64);
        side.came_first(&timed());
        for _ in 0..2 {
            side.opened(&Opened { count: opened / 2, seconds: 2.0, wrong_bytes: 0 }, cpu_seconds / 2.0);
        }
        side
    }

    fn outcome() -> Outcome {
        let [splice, stored, session] = SUBJECTS;
        let sides = [
            (splice, side(&[100, 200, 300], 4000, 2.0)),
            (stored, side(&[200, 300, 900], 1000, 4.0)),
            (session, side(&[150, 200, 300], 8000, 1.0)),
        ];
        Outcome { sides }
    }

    #[test]
    fn ratios_are_to_the_splice() {
        let stored = outcome().sides[1].1.to_json(&outcome().sides[0].1);
        let number = |at: &str| stored.pointer(at).and_then(Value::as_f64).unwrap();
        assert!((number("/echo_ms/p50") - 0.3).abs() < 0.001);
        assert!((number("/times_the_splice/echo/p50") - 1.5).abs() < 0.01);
        assert!((number("/times_the_splice/first_byte/max") - 3.0).abs() < 0.01);
        assert_eq!(number("/opened_per_second"), 250.0);
        assert_eq!(number("/relays_cpu_seconds_per_1000"), 4.0);
        assert_eq!(number("/times_the_splice/opened_per_second"), 0.25);
        assert_eq!(number("/times_the_splice/relays_cpu_seconds_per_1000"), 8.0);
    }

    #[test]
    fn one_wrong_byte_is_one_too_many() {
        let mut outcome = outcome();
        assert!(outcome.is_clean());
        assert_eq!(outcome.bytes(), 3 * (3 * 64 + 3) + 13_000);
        outcome.sides[2].1.echoed(&Timed { micros: vec![1], wrong_bytes: 1 }, 64);
        assert!(!outcome.is_clean());
    }
}
