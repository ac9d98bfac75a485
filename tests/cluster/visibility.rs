//! What people who look at a network see, and how soon.

use crate::fixture::{Cluster, Signal, TIMEOUT};
use hopline::endpoint::Endpoint;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How late a change may be seen on a machine that is busy with other tests; on one that is not, it is within 2 s.
const SOON: Duration = Duration::from_secs(3);

/// Waits until so many flows are seen at all relays together; how long that took.
async fn seen(looker: &Endpoint, flows: u32) -> Duration {
    let began = Instant::now();
    let looking = async {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            let listing = looker.list().await.unwrap();
            if listing.relays.iter().map(|relay| relay.load.flows).sum::<u32>() == flows {
                return;
            }
        }
    };
    tokio::time::timeout(TIMEOUT, looking).await.expect("a change that is seen at all");
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_is_seen_soon_and_so_is_its_end() {
    let cluster = Cluster::start(4);
    let _echo = cluster.serve(&["listen", "x", "--echo", "--keep"]);
    let (looker, origin) = (cluster.join().await, cluster.join().await);
    for _ in 0..2 {
        let mut flow = origin.open("x").await.unwrap();
        let took = seen(&looker, 3).await;
        assert!(took < SOON, "seen after {took:?}");
        flow.shutdown().await.unwrap();
        flow.read_to_end(&mut Vec::new()).await.unwrap();
        flow.finished().await.unwrap();
        let took = seen(&looker, 0).await;
        assert!(took < SOON, "gone after {took:?}");
    }
}

#[test]
fn commands_for_people_say_only_what_they_are_asked_and_what_is_wrong() {
    let cluster = Cluster::start(6);
    let mut echo = cluster.serve(&["listen", "x", "--echo", "--keep"]);
    let quiet = [cluster.run(&["pipe", "x"], b"hello"), cluster.run(&["status"], b"")];
    for ended in quiet {
        assert!(ended.status.success());
        assert_eq!(ended.stderr, "");
    }
    let told = cluster.run(&["pipe", "x", "--log", "hopline=info"], b"hello");
    assert!(told.stderr.contains("INFO"), "{:?}", told.stderr);
    echo.signal(Signal::TERM);
    assert_eq!(echo.stderr(), "");
}
