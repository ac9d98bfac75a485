//! A flow outlives every record, every key, every certificate and every relay that it began with.

use crate::echo::keep_sending;
use crate::fixture::{Cluster, TIMEOUT, primary, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{interval, timeout};

/// Routes live for 4 s, certificates for 6 s, keys for 1 s; the flow for longer than three of the longest.
const LIFETIMES: [&str; 6] = ["--route-lifetime", "4s", "--certificate-lifetime", "6s", "--key-epoch", "1s"];
const LONGEST: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_outlives_everything_that_it_began_with() {
    let mut cluster = Cluster::start_with(8, &LIFETIMES);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let endpoint = cluster.join().await;
    let flow = endpoint.open("echo").await.unwrap();
    let mut chain = flow.watch_chain();
    let (began, returned) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let (stop, stopped) = watch::channel(false);
    let counted = returned.clone();
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    let traffic = tokio::spawn(keep_sending(flow, 0, TIMEOUT, count, stopped));

    // The originals go one by one, those that serve first, each some periods after the one before.
    let mut ticks = interval(LONGEST / 4);
    for n in 1..=8 {
        ticks.tick().await;
        let serving = (1..=3).map(|hop| primary(&chain, hop)).find(|name| name.starts_with('r'));
        let original = cluster.relays.keys().find(|name| name.starts_with('r')).cloned();
        let victim = serving.or(original).expect("an original that lives");
        let before = returned.load(Ordering::Relaxed);
        cluster.kill(&victim);
        cluster.add_relay(&format!("n{n}"));
        assert!(!traffic.is_finished(), "the flow ended after {before} parts");
    }
    while began.elapsed() < LONGEST * 3 {
        ticks.tick().await;
    }
    // Now that nothing is left of what there was, it is still repaired.
    for hop in 1..=3 {
        ticks.tick().await;
        let victim = primary(&chain, hop);
        assert!(victim.starts_with('n'), "{victim} was there from the beginning");
        let before = chain.borrow().failovers();
        cluster.kill(&victim);
        cluster.add_relay(&format!("m{hop}"));
        until(&mut chain, |chain| chain.failovers() > before).await;
    }
    // Processes that were there from the beginning open and take new flows.
    let mut second = timeout(TIMEOUT, endpoint.open("echo")).await.expect("a stall").unwrap();
    second.write_all(b"new").await.unwrap();
    let mut echoed = [0; 3];
    timeout(TIMEOUT, second.read_exact(&mut echoed)).await.expect("a stall").unwrap();
    assert_eq!(&echoed, b"new");
    stop.send_replace(true);
    timeout(TIMEOUT, traffic).await.expect("a stall").unwrap();
    let parts = returned.load(Ordering::Relaxed);
    assert!(parts > 100, "{parts} parts are no steady traffic");
    eprintln!("{parts} parts in {:?}, {} repairs", began.elapsed(), chain.borrow().failovers());
}
