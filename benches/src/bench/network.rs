//! What a measured load goes over, each a set of processes: a small network of Hopline, and the dumb splice.
//!
//! Its places are those of a chain: `origin`, the relays `r1`, `r2` and so on, `target`, and the `bootstrap`. On a testbed each is a
//! host, and the splice's processes live on the same ones.

use super::peers::Client;
use crate::stage::{Process, Relays, Stage};
use hopline::endpoint::Plane;
use hopline_command::Failure;
use serde_json::Value;
use std::time::Duration;

/// Where flows begin,
pub(super) const ORIGIN: &str = "origin";
/// and where they end.
pub(super) const TARGET: &str = "target";

/// What carries a measured load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Flows of Hopline that travel so.
    Flows(Plane),
    /// The dumb splice.
    Splice,
    /// A connection of the kernel, from end to end.
    Tcp,
}

impl Subject {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Flows(plane) => plane.as_str(),
            Self::Splice => "dumb_splice",
            Self::Tcp => "tcp",
        }
    }
}

/// A bootstrap, relays and a server that serve every flow of a run.
pub(super) struct Network<'a> {
    pub(super) ticket: String,
    pub(super) relays: Relays<'a>,
    pub(super) server: Process,
    bootstrap: Process,
}

impl<'a> Network<'a> {
    /// Starts them; `server` are the arguments of the server.
    pub(super) async fn start(stage: &'a Stage, relays: u32, server: &[&str]) -> Result<Self, Failure> {
        let (bootstrap, ticket) = stage.bootstrap(&[]).await?;
        let ticket = ticket.to_string();
        let relays = Relays::start(stage, &ticket, relays).await?;
        let mut server = stage.start(TARGET, Some(&ticket), server)?;
        server.ready().await?;
        Ok(Self { ticket, relays, server, bootstrap })
    }

    /// A client whose flows take this plane over so many relays.
    pub(super) async fn client(
        &self,
        stage: &Stage,
        name: &str,
        (plane, hops): (Plane, u8),
        seed: u64,
    ) -> Result<Client, Failure> {
        let over = ["hopline", TARGET, "--plane", plane.as_str(), "--hops", &hops.to_string()];
        Client::start(stage, name, Some(&self.ticket), seed, &over).await
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.relays.iter().chain([&self.bootstrap, &self.server])
    }
}

/// The dumb splice: relays, and a server at the end. They end by themselves when the one link to the first is closed.
pub(super) struct SpliceChain {
    pub(super) server: Process,
    pub(super) relays: Vec<Process>,
    first: String,
}

impl SpliceChain {
    /// Starts them, the last first; `server` are the arguments of the server, but for its address.
    pub(super) async fn start(stage: &Stage, relays: u8, server: &[&str]) -> Result<Self, Failure> {
        let listen = stage.address(TARGET);
        let arguments = [server, &["--listen", &listen]].concat();
        let mut server = stage.start_at(TARGET, "splice-target", None, &arguments)?;
        let mut first = address(&mut server).await?;
        let mut started = Vec::new();
        for number in (1..=relays).rev() {
            let (place, name) = (format!("r{number}"), format!("splice-{number}"));
            let listen = stage.address(&place);
            let arguments = ["bench", "splice-relay", &first, "--listen", &listen];
            let mut relay = stage.start_at(&place, &name, None, &arguments)?;
            first = address(&mut relay).await?;
            started.push(relay);
        }
        Ok(Self { server, relays: started, first })
    }

    /// Where to dial.
    pub(super) fn first(&self) -> &str {
        &self.first
    }

    /// Waits until they have ended; the CPU time that they took together, without that of handshakes.
    pub(super) async fn ended(mut self, within: Duration) -> Result<f64, Failure> {
        let mut cpu_seconds = 0.0;
        for process in self.relays.iter_mut().chain([&mut self.server]) {
            let report = done(process, within).await?;
            cpu_seconds += number(&report, "cpu_seconds") - number(&report, "setup_cpu_seconds");
        }
        Ok(cpu_seconds)
    }
}

/// Where a process says that it serves.
async fn address(server: &mut Process) -> Result<String, Failure> {
    let ready = server.ready().await?;
    told(&ready, "addr").ok_or_else(|| server.failure("did not say where it serves"))
}

/// A text of what a process said.
pub(super) fn told(fields: &Value, name: &str) -> Option<String> {
    fields.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// What a process says when it is done.
pub(super) async fn done(process: &mut Process, within: Duration) -> Result<Value, Failure> {
    let line = tokio::time::timeout(within, process.line()).await;
    let line = line.map_err(|_| process.failure("did not finish in time"))??;
    match line.as_deref().and_then(|line| line.strip_prefix("done ")) {
        Some(fields) => serde_json::from_str(fields).map_err(|_| process.failure("said nonsense")),
        None => Err(process.died("before it was done").await),
    }
}

/// A number of what a process said.
pub(super) fn number(fields: &Value, name: &str) -> f64 {
    fields.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN)
}
