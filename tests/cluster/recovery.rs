//! All links are cut for a while and heal: everybody is back soon, and whoever wants something meanwhile waits for it.

use crate::fixture::{Ended, HOPLINE, Process, Signal, TIMEOUT};
use hopline::bootstrap::{Options, Server};
use hopline_lab::testbed::Testbed;
use hopline_proto::bootstrap::Config;
use hopline_proto::id::NodeId;
use hopline_proto::pool;
use hopline_proto::rpc::Status;
use hopline_proto::time::Time;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::{interval, sleep, timeout};

const RELAYS: usize = 3;
/// The hosts of the bootstrap, whoever serves a name, whoever wants it, and the first relay.
const BOOTSTRAP: usize = 0;
const TARGET: usize = 1;
const ORIGIN: usize = 2;
const FIRST: usize = 3;
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Long enough that relays ask only every few seconds in the end.
const CUT: Duration = Duration::from_secs(14);
/// How long commands wait in vain before it heals: longer than a dial takes to fail.
const WAITING: Duration = Duration::from_secs(5);
/// Everybody is to be back within two seconds, and the machine may be busy.
const SOON: Duration = Duration::from_millis(3300);
/// How much a relay may log in that time, from its start on.
const MOST_LINES: usize = 14;

struct World {
    home: TempDir,
    bed: Testbed,
    server: Server,
    relays: Vec<Process>,
    listener: Process,
}

impl World {
    /// # Errors
    /// Why there is no testbed.
    async fn start() -> Result<Self, String> {
        let bed = Testbed::new(FIRST + RELAYS, 1).map_err(|error| error.to_string())?;
        let home = tempfile::tempdir().unwrap();
        let listen = SocketAddr::from((bed.host(BOOTSTRAP).address(), 0));
        let pool = pool::Config { lease: HEARTBEAT * 3, ..pool::Config::default() };
        let policies = Config { pool, heartbeat: HEARTBEAT, ..Config::default() };
        let options = Options { listen, policies, ..Options::default() };
        let server = bed.host(BOOTSTRAP).spawn(Server::start(options)).await.unwrap().unwrap();
        let ticket = server.ticket().to_string();
        let start = |host, args: &[&str]| start(&bed, host, &home, &ticket, args).until_ready();
        let relays = (0..RELAYS).map(|n| {
            let listen = format!("{}:0", bed.host(FIRST + n).address());
            start(FIRST + n, &["relay", "--name", &format!("r{}", n + 1), "--listen", &listen])
        });
        let relays = relays.collect();
        let listener = start(TARGET, &["listen", "echo", "--echo", "--keep"]);
        Ok(Self { home, bed, server, relays, listener })
    }

    fn run(&self, args: &[&str]) -> Process {
        start(&self.bed, ORIGIN, &self.home, &self.server.ticket().to_string(), args)
    }

    fn leases(&self) -> BTreeMap<NodeId, (Status, Time)> {
        self.server.inspect(|machine| {
            machine.pool().iter().map(|relay| (relay.node, (relay.status, relay.lease_ends))).collect()
        })
    }

    /// Waits until every relay has renewed its lease since it was `before`.
    async fn all_back(&self, before: &BTreeMap<NodeId, (Status, Time)>) {
        let is_back = |(node, (status, ends)): (&NodeId, &(Status, Time))| {
            matches!(status, Status::Online | Status::Registered) && *ends > before[node].1
        };
        let mut ticks = interval(Duration::from_millis(10));
        let back = async {
            while !self.leases().iter().all(is_back) {
                ticks.tick().await;
            }
        };
        timeout(TIMEOUT, back).await.expect("all relays in the pool again");
    }

    fn cut(&self) {
        (0..self.bed.len()).for_each(|host| self.bed.isolate(host));
    }
}

fn start(bed: &Testbed, host: usize, home: &TempDir, ticket: &str, args: &[&str]) -> Process {
    bed.host(host).enter(|| Process::start_by(Command::new(HOPLINE), home.path(), ticket, args))
}

fn assert_waited(ended: &Ended, what: &str) {
    assert!(ended.status.success(), "{}", ended.stderr);
    let said = ended.stderr.lines().filter(|line| line.contains("waiting for")).collect::<Vec<_>>();
    assert!(said.len() == 1 && said[0].contains(what), "it says once that it waits: {}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_back_two_seconds_after_a_cut_and_commands_wait_for_it() {
    let mut world = match World::start().await {
        Ok(world) => world,
        Err(why) => return println!("SKIPPED: {why}"),
    };
    let mut flow = world.run(&["pipe", "echo", "--hops", "2"]);
    let mut input = flow.stdin();
    writeln!(input, "before").unwrap();
    assert_eq!(flow.line(), "before");
    world.cut();
    writeln!(input, "meanwhile").unwrap();
    sleep(CUT - WAITING).await;
    let before = world.leases();
    assert!(before.values().all(|(status, _)| *status != Status::Online), "{before:?}");
    let waiting = ["pipe", "status"].map(|command| {
        let args: &[&str] = if command == "pipe" { &["pipe", "echo", "--hops", "2"] } else { &["status"] };
        world.run(&[args, &["--wait", "20s"]].concat())
    });
    sleep(WAITING).await;

    let healed = Instant::now();
    world.bed.heal_all();
    let flow = std::thread::spawn(move || {
        assert_eq!(flow.line(), "meanwhile");
        (healed.elapsed(), flow)
    });
    world.all_back(&before).await;
    let relays = healed.elapsed();
    // Whoever comes before the target is back waits for it, and for relays.
    let ended = world.run(&["pipe", "echo", "--hops", "2"]).finish();
    let piped = healed.elapsed();
    assert!(ended.status.success(), "{}", ended.stderr);
    for process in waiting {
        assert_waited(&process.finish(), "a bootstrap");
    }
    let (flowed, flow) = flow.join().unwrap();
    drop(input);
    assert!(flow.finish().status.success());
    println!(
        "after a cut of {CUT:?}: relays back {relays:.1?}, a flow goes on {flowed:.1?}, a new one {piped:.1?}"
    );
    assert!(relays < SOON && flowed < SOON && piped < SOON * 2);
    for relay in &mut world.relays {
        relay.signal(Signal::TERM);
        let log = relay.stderr();
        let lines = log.lines().count();
        println!("{lines} lines");
        assert!(lines <= MOST_LINES, "{log}");
    }
    world.listener.signal(Signal::TERM);
}
