//! Flows whose two ends don't reach each other for long: everything between them stands still, or is gone.

use crate::fixture::{Cluster, Process, TIMEOUT, pattern};
use futures_util::future::try_join_all;
use hopline::Flow;
use hopline::endpoint::{Endpoint, FlowError, Options, Plane};
use rustix::process::Signal;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::time::{Instant, timeout};

/// Longer than nodes wait that were told nothing: ends, relays, connections.
const APART: Duration = Duration::from_secs(36);

/// A flow on each plane, with its origin, which has to be kept.
async fn flows(cluster: &Cluster, flow_timeout: Duration) -> [(Endpoint, Flow); 2] {
    let flow = async |plane| {
        let origin = cluster.join_as(Options { plane, flow_timeout, ..Options::default() }).await;
        let flow = origin.open("echo").await.unwrap();
        (origin, flow)
    };
    [flow(Plane::Stored).await, flow(Plane::Session).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_go_on_after_a_long_time_if_both_ends_were_told_to_wait() {
    let cluster = Cluster::start(4);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep", "--flow-timeout", "10min"]);
    let flows = flows(&cluster, Duration::from_secs(600)).await;
    let data = pattern(8 << 20);
    let echoes = flows.into_iter().map(async |(_origin, mut flow)| {
        let (mut returned, (mut reader, mut writer)) = (vec![0; data.len()], split(&mut flow));
        tokio::try_join!(writer.write_all(&data), reader.read_exact(&mut returned)).unwrap();
        assert!(returned == data, "it came back altered");
        flow.finished().await
    });
    let echoes = try_join_all(echoes);
    let between: Vec<&Process> = cluster.relays.values().chain([&cluster.bootstrap]).collect();
    let apart = async {
        between.iter().for_each(|process| process.signal(Signal::STOP));
        tokio::time::sleep(APART).await;
        between.iter().for_each(|process| process.signal(Signal::CONT));
    };
    let (echoed, ()) = tokio::join!(timeout(APART + TIMEOUT, echoes), apart);
    echoed.expect("a stall").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_are_lost_as_soon_as_their_end_was_told_to_wait_no_longer() {
    let mut cluster = Cluster::start(3);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let mut flows = flows(&cluster, Duration::from_secs(2)).await;
    for (_, flow) in &mut flows {
        flow.write_all(b"?").await.unwrap();
    }
    let began = Instant::now();
    ["r1", "r2", "r3"].into_iter().for_each(|relay| cluster.kill(relay));
    for (_origin, flow) in &flows {
        let lost = timeout(TIMEOUT, flow.aborter().ended()).await.expect("an end");
        assert!(matches!(lost, Err(FlowError::NoPath)), "{lost:?}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}
