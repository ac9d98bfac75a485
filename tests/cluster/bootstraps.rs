//! Two bootstraps in one ticket: whoever finds one of them dead goes on to the other.

use crate::fixture::{Ended, Process, TIMEOUT, pattern, run};
use hopline::endpoint::{Endpoint, Flow, Options};
use hopline::net::authority::Authority;
use hopline::net::ticket::{Grant, Ticket};
use hopline_proto::rpc::{Listing, RelayInfo, Status, TargetInfo};
use serde_json::Value;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{interval, timeout};

const RELAYS: usize = 4;
const INTERVAL: Duration = Duration::from_secs(3);
const LEASE: Duration = Duration::from_secs(9);
const CADENCE: [&str; 4] = ["--heartbeat", "3s", "--lease", "9s"];
/// How much later than a heartbeat a node may be elsewhere, on a machine that is busy.
const LATE: Duration = Duration::from_secs(2);

/// Two bootstraps of one network, and what lives in it.
struct Pair {
    home: TempDir,
    addresses: [String; 2],
    bootstraps: [Option<Process>; 2],
    ticket: String,
}

impl Pair {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let sockets = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let addresses = sockets.map(|socket| socket.local_addr().unwrap().to_string());
        let (bootstraps, ticket) = ([None, None], String::new());
        let mut pair = Self { home, addresses, bootstraps, ticket };
        pair.bring_up(0);
        std::fs::create_dir(pair.data(1)).unwrap();
        std::fs::copy(pair.data(0).join("network.key"), pair.data(1).join("network.key")).unwrap();
        pair.bring_up(1);
        pair
    }

    fn data(&self, place: usize) -> PathBuf {
        self.home.path().join(format!("bootstrap{place}"))
    }

    fn bring_up(&mut self, place: usize) {
        let (data, both) = (self.data(place), self.addresses.join(","));
        let args = [
            "bootstrap",
            "--data",
            data.to_str().unwrap(),
            "--listen",
            &self.addresses[place],
            "--advertise",
            &both,
        ];
        let process = Process::serve(self.home.path(), "", &[&args, CADENCE.as_slice()].concat());
        self.ticket = process.ready["ticket"].as_str().unwrap().to_owned();
        self.bootstraps[place] = Some(process);
    }

    fn kill(&mut self, place: usize) -> Instant {
        self.bootstraps[place].take().unwrap().kill();
        Instant::now()
    }

    fn serve(&self, args: &[&str]) -> Process {
        Process::serve(self.home.path(), &self.ticket, args)
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Ended {
        run(self.home.path(), &self.ticket, args, input)
    }

    /// An endpoint that asks this bootstrap and no other.
    async fn watcher(&self, place: usize) -> Endpoint {
        let authority = Authority::load_or_create(&self.data(place)).unwrap();
        let ticket = Ticket::issue(&authority, vec![self.addresses[place].clone()], Grant::DEFAULT).unwrap();
        Endpoint::join(ticket, Options::default()).await.unwrap()
    }

    /// Waits until this bootstrap has heard everybody since then, whomever it remembers from before: how long that took.
    async fn all_at(&self, place: usize, since: Instant) -> Duration {
        let watcher = self.watcher(place).await;
        let mut ticks = interval(Duration::from_millis(20));
        let here = |listing: &Listing| {
            let heard = |lease_left: Duration| lease_left + since.elapsed() >= LEASE;
            let online = |relay: &&RelayInfo| {
                matches!(relay.status, Status::Registered | Status::Online) && heard(relay.lease_left)
            };
            let attached = |target: &TargetInfo| !target.attachments.is_empty() && heard(target.lease_left);
            listing.relays.iter().filter(online).count() == RELAYS && listing.targets.iter().any(attached)
        };
        let came = async {
            loop {
                ticks.tick().await;
                if watcher.list().await.is_ok_and(|listing| here(&listing)) {
                    return since.elapsed();
                }
            }
        };
        let came = timeout(INTERVAL * 2 + TIMEOUT, came).await.expect("all of them at the other bootstrap");
        watcher.shutdown().await;
        came
    }

    /// Newcomers reach what is there, whichever bootstrap they ask first.
    fn assert_serves(&self) {
        let piped = self.run(&["pipe", "echo", "--hops", "2"], b"hello");
        assert!(piped.status.success(), "{}", piped.stderr);
        assert_eq!(piped.stdout, ["hello"]);
    }

    fn status(&self) -> Value {
        let status = self.run(&["status", "--json"], b"");
        assert!(status.status.success(), "{}", status.stderr);
        serde_json::from_str(&status.stdout.concat()).unwrap()
    }
}

/// Bytes go there and back.
async fn assert_flows(flow: &mut Flow) {
    let sent = pattern(64 << 10);
    let mut echoed = vec![0; sent.len()];
    let (mut read, mut write) = tokio::io::split(flow);
    let exchange = async {
        tokio::try_join!(
            async {
                write.write_all(&sent).await?;
                write.flush().await
            },
            read.read_exact(&mut echoed)
        )
    };
    timeout(TIMEOUT, exchange).await.expect("a stall").unwrap();
    assert!(echoed == sent, "it came back altered");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_bootstrap_dies_everybody_is_at_the_other_within_an_interval() {
    let mut pair = Pair::start();
    let relays: Vec<Process> =
        (1..=RELAYS).map(|n| pair.serve(&["relay", "--name", &format!("r{n}")])).collect();
    let _echo = pair.serve(&["listen", "echo", "--echo", "--keep"]);
    pair.all_at(0, Instant::now()).await;
    let origin = Endpoint::join(pair.ticket.parse().unwrap(), Options::default()).await.unwrap();
    let mut flow = origin.open_over("echo", 2).await.unwrap();
    assert_flows(&mut flow).await;

    let killed = pair.kill(0);
    let moved = pair.all_at(1, killed).await;
    let bound = INTERVAL * 11 / 10 + LATE;
    println!(
        "heartbeats every {:?}: all at the second bootstrap {moved:.1?} after the first was killed",
        INTERVAL
    );
    assert!(moved <= bound, "{moved:?} is more than {bound:?}");
    assert_flows(&mut flow).await;
    pair.assert_serves();
    let status = pair.status();
    assert_eq!((&status["total"], status["targets"].as_array().map(Vec::len)), (&RELAYS.into(), Some(1)));

    // The first comes back, and may know nobody: newcomers ask it first.
    pair.bring_up(0);
    pair.assert_serves();
    assert_flows(&mut flow).await;
    let mut second = origin.open_over("echo", 2).await.unwrap();
    assert_flows(&mut second).await;

    let killed = pair.kill(1);
    let moved = pair.all_at(0, killed).await;
    println!("and {moved:.1?} back to the first after the second was killed");
    assert!(moved <= bound, "{moved:?} is more than {bound:?}");
    pair.assert_serves();
    assert_flows(&mut flow).await;
    assert_flows(&mut second).await;
    drop(relays);
}
