//! What came of all cells, for people and for scripts.

use super::{Args, SUBJECTS, Subject};
use crate::bench::peers::Received;
use crate::pattern::Faults;
use crate::report::{Report, ms};
use hopline::endpoint::Plane;
use hopline_command::Failure;
use serde_json::{Value, json};
use std::fmt;
use std::io::Write;
use std::time::Duration;

/// A pause of more than this share of a transfer's time is named.
const LONG_PAUSE: f64 = 0.3;

/// Links of one kind, and what was carried over them.
#[derive(Debug)]
pub(super) struct Cell {
    /// Of one link.
    pub(super) rtt: Duration,
    pub(super) loss: f64,
    links: u32,
    /// In the order of [`SUBJECTS`].
    pub(super) transfers: Vec<(Subject, Received)>,
}

impl Cell {
    pub(super) fn new(rtt: Duration, loss: f64, hops: u8) -> Self {
        Self { rtt, loss, links: u32::from(hops) + 1, transfers: Vec::new() }
    }

    /// What all links of a chain take together,
    pub(super) fn end_to_end_rtt(&self) -> Duration {
        self.rtt * self.links
    }

    /// and lose, each way.
    pub(super) fn end_to_end_loss(&self) -> f64 {
        let arrives = (0..self.links).fold(1.0, |arrives, _| arrives * (1.0 - self.loss));
        1.0 - arrives
    }

    fn rate(&self, subject: Subject) -> f64 {
        let transfer = self.transfers.iter().find(|(of, _)| *of == subject);
        transfer.map_or(0.0, |(_, received)| megabytes_a_second(received))
    }

    /// The better plane to the better of the splice and TCP; `None` if these carried nothing.
    fn best_to_baseline(&self) -> Option<f64> {
        let [stored, session] = Plane::ALL.map(|plane| self.rate(Subject::Flows(plane)));
        ratio(stored.max(session), self.rate(Subject::Splice).max(self.rate(Subject::Tcp)))
    }

    fn stored_to_session(&self) -> Option<f64> {
        let [stored, session] = Plane::ALL.map(|plane| self.rate(Subject::Flows(plane)));
        ratio(stored, session)
    }

    /// What a figure alone does not tell.
    fn remarks(&self) -> impl Iterator<Item = String> {
        self.transfers.iter().filter_map(move |(subject, received)| {
            let name = subject.as_str();
            let long = received.seconds * 1000.0 * LONG_PAUSE;
            match &received.cause {
                Some(cause) => Some(format!("NO PROGRESS {name} at {self}: {cause}")),
                None if received.longest_pause_ms > long => {
                    Some(format!("{name} at {self}: nothing came for {:.0} ms", received.longest_pause_ms))
                }
                None => None,
            }
        })
    }

    fn to_json(&self) -> Value {
        let transfers = self.transfers.iter().map(|(subject, received)| {
            let mut told = json!(received);
            if let Some(told) = told.as_object_mut() {
                told.insert("mb_per_second".to_owned(), json!(megabytes_a_second(received)));
            }
            (subject.as_str().to_owned(), told)
        });
        let transfers: serde_json::Map<String, Value> = transfers.collect();
        json!({
            "rtt_ms": ms(self.rtt),
            "loss_percent": self.loss * 100.0,
            "end_to_end_rtt_ms": ms(self.end_to_end_rtt()),
            "end_to_end_loss_percent": self.end_to_end_loss() * 100.0,
            "transfers": transfers,
            "better_plane_to_better_baseline": self.best_to_baseline(),
            "stored_to_session": self.stored_to_session(),
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ms, {} % lost", ms(self.rtt), rounded(self.loss * 100.0))
    }
}

/// Without what binary fractions add.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

/// 0 for what made no progress.
fn megabytes_a_second(received: &Received) -> f64 {
    if received.cause.is_some() || received.seconds <= 0.0 {
        return 0.0;
    }
    received.bytes as f64 / 1e6 / received.seconds
}

fn ratio(of: f64, to: f64) -> Option<f64> {
    (to > 0.0).then(|| of / to)
}

/// All of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) cells: Vec<Cell>,
    pub(super) congestion_control: Option<String>,
}

impl Outcome {
    pub(super) fn is_clean(&self) -> bool {
        self.faults() == Faults::default()
    }

    fn faults(&self) -> Faults {
        let received = self.cells.iter().flat_map(|cell| &cell.transfers).map(|(_, received)| received);
        received.fold(Faults::default(), |sum, received| {
            let Received { lost, duplicated, reordered, .. } = *received;
            sum + Faults { lost, duplicated, reordered }
        })
    }
}

impl Report<Args> for Outcome {
    fn print_table(&self, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
        let control = self.congestion_control.as_deref().unwrap_or("unknown");
        writeln!(
            out,
            "goodput of one flow over {} relays for {} s from its first byte on, slow start included, MB/s; seed {}",
            args.hops, args.seconds, self.seed
        )?;
        writeln!(
            out,
            "(TCP is direct, congestion control {control}; its way has the round trips and losses of all links)"
        )?;
        write!(out, "{:>8} {:>8}", "rtt, ms", "lost, %")?;
        for subject in SUBJECTS {
            write!(out, " {:>11}", subject.as_str().replace('_', " "))?;
        }
        writeln!(out, " {:>15} {:>15}", "best/baseline", "stored/session")?;
        let told = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        for cell in &self.cells {
            write!(out, "{:>8} {:>8}", ms(cell.rtt), rounded(cell.loss * 100.0))?;
            for subject in SUBJECTS {
                write!(out, " {:>11.2}", cell.rate(subject))?;
            }
            writeln!(out, " {:>15} {:>15}", told(cell.best_to_baseline()), told(cell.stored_to_session()))?;
        }
        writeln!(out, "(best/baseline: the better plane to the better of the dumb splice and TCP)")?;
        for remark in self.cells.iter().flat_map(Cell::remarks) {
            writeln!(out, "{remark}")?;
        }
        let Faults { lost, duplicated, reordered } = self.faults();
        writeln!(
            out,
            "of all that was received: lost {lost}, duplicated {duplicated}, reordered {reordered} bytes"
        )?;
        Ok(())
    }

    fn to_json(&self, args: &Args) -> Result<Value, Failure> {
        let Faults { lost, duplicated, reordered } = self.faults();
        Ok(json!({
            "hops": args.hops,
            "seconds": args.seconds,
            "seed": self.seed,
            "tcp_congestion_control": self.congestion_control,
            "cells": self.cells.iter().map(Cell::to_json).collect::<Vec<_>>(),
            "lost": lost,
            "duplicated": duplicated,
            "reordered": reordered,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(rates: [u32; 4]) -> Cell {
        let mut cell = Cell::new(Duration::from_millis(50), 0.01, 3);
        let received = |rate: u32| Received {
            bytes: u64::from(rate) * 4_000_000,
            seconds: 4.0,
            cause: (rate == 0).then(|| "nothing came for 20 s".to_owned()),
            ..Received::default()
        };
        cell.transfers = SUBJECTS.into_iter().zip(rates.map(received)).collect();
        cell
    }

    #[test]
    fn the_direct_way_is_as_long_and_lossy_as_all_links_together() {
        let cell = cell([1; 4]);
        assert_eq!(cell.end_to_end_rtt(), Duration::from_millis(200));
        assert!((cell.end_to_end_loss() - (1.0 - 0.99_f64.powi(4))).abs() < 1e-12);
        assert_eq!(Cell::new(Duration::ZERO, 0.0, 1).end_to_end_loss(), 0.0);
    }

    #[test]
    fn the_better_plane_is_compared_with_the_better_baseline() {
        let cell = cell([6, 3, 4, 1]);
        assert_eq!((cell.best_to_baseline(), cell.stored_to_session()), (Some(1.5), Some(2.0)));
        assert_eq!(cell.remarks().count(), 0);
    }

    #[test]
    fn what_makes_no_progress_counts_as_nothing_and_is_named() {
        let cell = cell([3, 0, 0, 0]);
        assert_eq!((cell.best_to_baseline(), cell.stored_to_session()), (None, None));
        let remarks: Vec<String> = cell.remarks().collect();
        assert_eq!(remarks[0], "NO PROGRESS session at 50 ms, 1 % lost: nothing came for 20 s");
        assert_eq!(remarks.len(), 3);
        // What had come before it stopped does not count either.
        let stopped =
            Received { bytes: 1000, seconds: 1.0, cause: Some("it broke".to_owned()), ..Received::default() };
        assert_eq!(megabytes_a_second(&stopped), 0.0);
    }

    #[test]
    fn one_lost_byte_is_one_too_many() {
        let mut outcome = Outcome { seed: 1, cells: vec![cell([1; 4])], congestion_control: None };
        assert!(outcome.is_clean());
        outcome.cells[0].transfers[1].1.lost = 1;
        assert!(!outcome.is_clean());
    }
}
