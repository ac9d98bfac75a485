//! A rolling restart: every relay of the pool ends by SIGTERM and starts again with its own key, one after the other.

use super::report::{Outcome, Restart, Side};
use super::{TIMEOUT, longest};
use crate::busy_flow::BusyFlow;
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
    mut flow: BusyFlow,
    seed: u64,
) -> Result<Outcome, Failure> {
    let (mut calm, mut faulty, mut restarts) = (Side::new()?, Side::new()?, Vec::new());
    let mut running = Vec::new();
    for mut old in relays {
        flow.protected(|_| true).await?;
        watch(&mut flow, CALM, &mut calm).await?;
        let (start, before) = (Instant::now(), flow.forward.received());
        flow.run_until(Instant::now()).await?;
        let on_chain = flow.watched.chain().carries(old.name());
        old.terminate()?;
        old.success(TIMEOUT).await?;
        let left = start.elapsed();
        let mut new = relay(stage, ticket, old.name())?;
        new.ready().await?;
        flow.run_until(Instant::now() + AFTERWARDS).await?;
        let pause = longest(&flow);
        faulty.paused(pause);
        faulty.carried(flow.forward.received() - before, start.elapsed());
        restarts.push(Restart { relay: new.name().to_owned(), on_chain, left, pause });
        running.push(new);
    }
    let chain = flow.watched.chain();
    let (faults, equal) = flow.finish().await?;
    Ok(Outcome {
        seed,
        calm,
        faulty,
        kills: 0,
        spared: 0,
        failovers: chain.failovers(),
        rebuilds: chain.rebuilds(),
        restarts,
        bytes: flow.forward.received() + flow.backward.received(),
        faults,
        equal: equal == [true; 2],
    })
}

async fn watch(flow: &mut BusyFlow, length: Duration, side: &mut Side) -> Result<(), Failure> {
    let (start, before) = (Instant::now(), flow.forward.received());
    longest(flow);
    flow.run_until(start + length).await?;
    side.paused(longest(flow));
    side.carried(flow.forward.received() - before, start.elapsed());
    Ok(())
}
