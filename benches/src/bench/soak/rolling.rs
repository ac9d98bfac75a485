//! A rolling restart: every relay of the pool ends by SIGTERM and starts again with its own key, one after the other.

use super::report::{Outcome, Restart, Side};
use super::{Load, TIMEOUT};
use crate::stage::{Process, Stage};
use hopline_command::Failure;
use std::time::Duration;
use tokio::time::Instant;

/// How long nothing happens before each restart: about as long as one takes.
const CALM: Duration = Duration::from_secs(1);
/// How long a relay that is back is watched, before the next one goes.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// Starts the pool; its relays keep their keys, so that one that is restarted comes back as the same.
pub(super) async fn start(stage: &Stage, ticket: &str, count: u32) -> Result<Vec<Process>, Failure> {
    let names: Vec<String> = (1..=count).map(|number| format!("r{number}")).collect();
    let starting: Result<Vec<_>, _> = names.iter().map(|name| relay(stage, ticket, name)).collect();
    let mut relays = starting?;
    for relay in &mut relays {
        relay.ready().await?;
    }
    Ok(relays)
}

fn relay(stage: &Stage, ticket: &str, name: &str) -> Result<Process, Failure> {
    let data = format!("{name}-data");
    let arguments = ["relay", "--name", name, "--listen", "127.0.0.1:0", "--data", &data];
    stage.start(name, Some(ticket), &arguments)
}

pub(super) async fn run(
    stage: &Stage,
    ticket: &str,
    relays: Vec<Process>,
    mut load: Load,
    seed: u64,
) -> Result<Outcome, Failure> {
    let (mut calm, mut faulty, mut restarts) = (Side::new()?, Side::new()?, Vec::new());
    let mut running = Vec::new();
    for mut old in relays {
        load.protected(|_| true).await?;
        watch(&mut load, CALM, &mut calm).await?;
        let (start, before) = (Instant::now(), load.forward.received());
        load.run_until(Instant::now()).await?;
        let on_chain = load.watched.chain().carries(old.name());
        old.terminate()?;
        old.success(TIMEOUT).await?;
        let left = start.elapsed();
        let mut new = relay(stage, ticket, old.name())?;
        new.ready().await?;
        load.run_until(Instant::now() + AFTERWARDS).await?;
        let pause = load.longest();
        faulty.paused(pause);
        faulty.carried(load.forward.received() - before, start.elapsed());
        restarts.push(Restart { relay: new.name().to_owned(), on_chain, left, pause });
        running.push(new);
    }
    let chain = load.watched.chain();
    let (faults, equal) = load.finish().await?;
    Ok(Outcome {
        seed,
        calm,
        faulty,
        kills: 0,
        spared: 0,
        failovers: chain.failovers(),
        rebuilds: chain.rebuilds(),
        restarts,
        bytes: load.forward.received() + load.backward.received(),
        faults,
        equal,
    })
}

async fn watch(load: &mut Load, length: Duration, side: &mut Side) -> Result<(), Failure> {
    let (start, before) = (Instant::now(), load.forward.received());
    load.longest();
    load.run_until(start + length).await?;
    side.paused(load.longest());
    side.carried(load.forward.received() - before, start.elapsed());
    Ok(())
}
