//! A target that returns what comes, and an origin that looks whether it does.

use crate::fixture::pattern;
use hopline::endpoint::{Endpoint, Flow};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

const PART: usize = 2048;

/// Serves "echo" for as long as the endpoint lives.
pub async fn serve_echo(target: &Endpoint) {
    let mut listener = target.listen("echo").await.unwrap();
    tokio::spawn(async move {
        while let Some(flow) = listener.accept().await {
            let (mut send, mut receive) = flow.split();
            tokio::spawn(async move {
                tokio::io::copy(&mut receive, &mut send).await.unwrap();
                drop(receive);
                send.finish().await.unwrap();
            });
        }
    });
}

/// Sends a part at every tick, checks what returns and counts it, until told to stop. The longest time that one took, which
/// must not be more than `limit`.
pub async fn keep_sending(
    mut flow: Flow,
    n: usize,
    limit: Duration,
    count: impl Fn(),
    stopped: watch::Receiver<bool>,
) -> Duration {
    let data = pattern((64 + n) * PART);
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut echoed, mut longest) = (vec![0; PART], Duration::ZERO);
    for sent in data.chunks(PART).cycle() {
        if *stopped.borrow() {
            break;
        }
        ticks.tick().await;
        let began = Instant::now();
        let exchange = async {
            flow.write_all(sent).await?;
            flow.flush().await?;
            flow.read_exact(&mut echoed).await
        };
        timeout(limit, exchange).await.expect("a stall").unwrap();
        assert!(echoed == sent, "a part came back altered");
        longest = longest.max(began.elapsed());
        count();
    }
    flow.shutdown().await.unwrap();
    assert_eq!(flow.read(&mut [0]).await.unwrap(), 0, "nothing comes after the end");
    timeout(limit, flow.finished()).await.expect("a stall").unwrap();
    longest
}
