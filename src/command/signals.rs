//! The signals that ask a process to end: the first asks for a graceful end, a second one ends it at once.

use crate::{Exit, Failure};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves at the first SIGTERM, SIGINT or SIGHUP.
pub async fn shutdown() {
    first().await;
}

/// The same, with what a command says that had not done its work by then.
pub async fn ended() -> Failure {
    Failure::new(Exit::Failed, format!("ended by {}", first().await))
}

/// Resolves when somebody wants a command to end that has started processes; they are ended by whoever drops them.
pub async fn interrupted() -> Failure {
    let mut signals = Signals::heed();
    signals.next().await;
    Failure::new(Exit::Failed, "interrupted; all processes were ended")
}

async fn first() -> &'static str {
    let mut signals = Signals::heed();
    let name = signals.next().await;
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(1);
    });
    name
}

struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    fn heed() -> Self {
        let heed = |kind| signal(kind).ok();
        Self {
            terminate: heed(SignalKind::terminate()),
            interrupt: heed(SignalKind::interrupt()),
            hangup: (!ignores_hangup()).then(|| heed(SignalKind::hangup())).flatten(),
        }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            () = received(&mut self.terminate) => "SIGTERM",
            () = received(&mut self.interrupt) => "SIGINT",
            () = received(&mut self.hangup) => "SIGHUP",
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether the process was started to outlive its terminal, as nohup does it.
#[must_use]
pub fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
