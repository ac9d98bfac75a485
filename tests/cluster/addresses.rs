//! Relays with several addresses: whoever dials them comes to one that leads there.

use crate::fixture::{Cluster, Process, TIMEOUT, run};
use hopline::endpoint::{ChainHop, Endpoint, Options};
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_reached_at_its_second_address_if_the_first_leads_nowhere() {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = bind();
    for first_answers_with_an_error in [true, false] {
        let first = if first_answers_with_an_error { bind().local_addr() } else { silent.local_addr() };
        let (first, second) = (first.unwrap().to_string(), bind().local_addr().unwrap().to_string());
        let cluster = Cluster::start(0);
        let both = format!("{first},{second}");
        let relay = cluster.serve(&["relay", "--listen", &second, "--advertise", &both]);
        assert_eq!(relay.ready["addr"], first.as_str(), "the preferred one");
        let join = async || {
            let options = Options { hops: 1, ..Options::default() };
            Endpoint::join(cluster.ticket.parse().unwrap(), options).await.unwrap()
        };
        let (target, origin) = (join().await, join().await);
        let mut listener = target.listen("sink").await.unwrap();
        let mut flow = timeout(TIMEOUT, origin.open("sink")).await.unwrap().unwrap();
        flow.write_all(b"here").await.unwrap();
        flow.shutdown().await.unwrap();
        let Some(mut came) = timeout(TIMEOUT, listener.accept()).await.unwrap() else { panic!() };
        let mut read = Vec::new();
        timeout(TIMEOUT, came.read_to_end(&mut read)).await.unwrap().unwrap();
        assert_eq!(read, b"here");
        tokio::join!(origin.shutdown(), target.shutdown());
    }
}

#[test]
fn what_nobody_says_serves_the_family_by_which_the_bootstrap_is_reached() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        if let Err(error) = UdpSocket::bind(listen) {
            println!("SKIPPED: {listen}: {error}");
            continue;
        }
        let home = tempfile::tempdir().unwrap();
        let bootstrap = Process::serve(home.path(), "", &["bootstrap", "--listen", listen]);
        let ticket = bootstrap.ready["ticket"].as_str().unwrap();
        let serve = |args: &[&str]| Process::serve(home.path(), ticket, args);
        let _running = [serve(&["relay"]), serve(&["listen", "echo", "--echo", "--keep"])];
        let piped = run(home.path(), ticket, &["pipe", "echo", "--hops", "1"], b"here\n");
        assert_eq!(
            (piped.status.code(), piped.stdout),
            (Some(0), vec!["here".to_owned()]),
            "{}",
            piped.stderr
        );
    }
}

#[test]
fn more_addresses_than_a_relay_may_have_are_refused_at_once() {
    let cluster = Cluster::start(0);
    let five = (1..=5).map(|host| format!("192.0.2.{host}:4433")).collect::<Vec<_>>().join(",");
    let ended = cluster.run(&["relay", "--advertise", &five], b"");
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--advertise") && ended.stderr.contains('4'), "{}", ended.stderr);
}

#[test]
fn addresses_that_name_no_machine_are_refused_at_once() {
    let cluster = Cluster::start(0);
    let cases = [
        ("[fe80::1]:4433", "link-local"),
        ("0.0.0.0:4433", "unspecified"),
        ("[::]:4433", "unspecified"),
        ("224.0.0.1:4433", "multicast"),
        ("255.255.255.255:4433", "broadcast"),
        ("192.0.2.1:0", "port 0"),
        ("192.0.2.1", "IP:PORT"),
        ("192.0.2.1:4433,[ff02::1]:4433", "multicast"),
    ];
    for (address, why) in cases {
        let ended = cluster.run(&["relay", "--advertise", address], b"");
        assert_eq!(ended.status.code(), Some(2), "{address}: {}", ended.stderr);
        assert!(ended.stderr.contains("--advertise"), "{address}: {}", ended.stderr);
        assert!(ended.stderr.contains(why), "{address}: {}", ended.stderr);
    }
}

/// Then it is the relays, and not the bootstrap, that whoever wants to serve a name has to see to.
#[test]
fn a_target_that_reaches_no_relay_says_so() {
    let cluster = Cluster::start(0);
    let nobody = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let _relays: Vec<Process> = (0..3).map(|_| cluster.serve(&["relay", "--advertise", &nobody()])).collect();
    let mut attempts = 0;
    loop {
        let began = Instant::now();
        let ended = cluster.run(&["listen", "echo", "--wait", "0s"], b"");
        attempts += 1;
        // A busy machine may not find out in so short a time.
        if ended.status.code() == Some(1) && ended.stderr.contains("in time") && attempts < 5 {
            continue;
        }
        assert_eq!(ended.status.code(), Some(5), "{}", ended.stderr);
        assert!(ended.stderr.contains("that the bootstrap named"), "{}", ended.stderr);
        // Once the bootstrap has heard that they can't be reached, it names fewer.
        assert!(attempts > 1 || ended.stderr.contains("none of the 3 relays"), "{}", ended.stderr);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        break;
    }
    let ended = cluster.run(&["receive", "echo", "--wait", "2s"], b"");
    let says = [(5, "that the bootstrap named"), (1, "has not registered the name in time")];
    let is_said = |(code, what)| ended.status.code() == Some(code) && ended.stderr.contains(what);
    assert!(says.into_iter().any(is_said), "{:?}: {}", ended.status, ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_nobody_can_reach_attracts_no_flows() {
    const FLOWS: usize = 30;
    let cluster = Cluster::start(6);
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let _unreached = cluster.serve(&["relay", "--name", "nowhere", "--advertise", &nobody]);
    let (target, origin) = tokio::join!(cluster.join(), cluster.join());
    let mut listener = target.listen("sink").await.unwrap();
    let accept = tokio::spawn(async move { while listener.accept().await.is_some() {} });
    let is_nowhere = |name: &str| name == "nowhere";
    let (mut primaries, mut backups) = (0, 0);
    for _ in 0..FLOWS {
        let flow = timeout(TIMEOUT, origin.open("sink")).await.unwrap().unwrap();
        let chain = flow.watch_chain();
        let count =
            |is: &dyn Fn(&ChainHop) -> bool| chain.borrow().hops().iter().filter(|hop| is(hop)).count();
        primaries += count(&|hop| is_nowhere(&hop.primary));
        backups += count(&|hop| hop.backup.as_deref().is_some_and(is_nowhere));
    }
    println!("of {FLOWS} flows {primaries} were led over it, and it stood by for {backups}");
    // The first that tries it finds out. Until the bootstrap hears of that, the next may be planned.
    assert!(primaries <= 3 && backups <= 3, "{primaries} primaries, {backups} backups");
    tokio::join!(origin.shutdown(), target.shutdown());
    timeout(TIMEOUT, accept).await.expect("it ends with its endpoint").unwrap();
}
