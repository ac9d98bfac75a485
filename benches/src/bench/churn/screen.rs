//! What a person sees while it runs.

use super::load::Shared;
use super::pool::Gauges;
use hopline_command::say;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::interval;

/// How often it is drawn.
const FRAME: Duration = Duration::from_millis(200);

/// The live view, on stderr: a bar if that is a terminal, and lines.
#[derive(Debug)]
pub(super) struct Screen(Option<ProgressBar>);

impl Screen {
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template("{prefix:10} {bar:24} {elapsed}/{len}s {msg}");
        let bar = || ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(std::io::stderr().is_terminal().then(bar))
    }

    /// Shows a line for good.
    pub(super) fn say(&self, line: &str) {
        match &self.0 {
            Some(bar) => bar.println(line),
            None => say::line(line),
        }
    }

    /// Shows how a phase stands, for ever.
    pub(super) async fn follow(&self, phase: &'static str, shared: &Shared, gauges: &Gauges) {
        let Some(bar) = &self.0 else { return std::future::pending().await };
        bar.reset();
        bar.set_prefix(phase);
        bar.set_length((shared.end - shared.start).as_secs());
        let mut frames = interval(FRAME);
        let mut before = 0;
        loop {
            frames.tick().await;
            let received = shared.received.load(Ordering::Relaxed);
            let speed = (received - before) as f64 / FRAME.as_secs_f64() / 1e6;
            before = received;
            bar.set_position(shared.start.elapsed().as_secs());
            bar.set_message(format!(
                "{} relays, {} went; {speed:.1} MB/s, longest pause {} ms",
                gauges.ready.load(Ordering::Relaxed),
                gauges.departures.load(Ordering::Relaxed),
                shared.longest_pause.load(Ordering::Relaxed) / 1000,
            ));
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
