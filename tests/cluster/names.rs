//! A bootstrap that is named, not numbered, may move to another machine. And names of targets: who holds them, for how long.

use crate::fixture::{Cluster, HOPLINE, Process, Signal, TIMEOUT};
use hopline::endpoint::{Endpoint, Options};
use hopline::net::authority::Authority;
use hopline::net::ticket::{Grant, Ticket};
use std::io::Write;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::{interval, timeout};

/// A heartbeat, the timeout of its answer, and a dial.
const LATEST: Duration = Duration::from_secs(2 + 5 + 3);

/// A command whose /etc/hosts is this file. Needs root.
fn with_hosts(hosts: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(hosts);
    command
}

const SKIPPED: &str = "SKIPPED: no file can be mounted over /etc/hosts; only root can, with unshare(1)";

/// The same, if that can be had.
fn with_these_hosts(hosts: &Path) -> Option<Command> {
    let looks_up = with_hosts(hosts).args(["grep", "-q", "boot.test", "/etc/hosts"]).status();
    looks_up.is_ok_and(|status| status.success()).then(|| with_hosts(hosts))
}

fn bootstrap(home: &Path, address: &str, port: u16) -> Process {
    let (listen, name) = (format!("{address}:{port}"), format!("boot.test:{port}"));
    let data = home.join("bootstrap");
    let args = [
        "bootstrap",
        "--cadence",
        "dev",
        "--data",
        data.to_str().unwrap(),
        "--listen",
        &listen,
        "--advertise",
        &name,
    ];
    Process::serve(home, "", &args)
}

/// Waits until a bootstrap knows a relay.
async fn knows_a_relay(home: &Path, address: &str) {
    let authority = Authority::load_or_create(&home.join("bootstrap")).unwrap();
    let ticket = Ticket::issue(&authority, vec![address.to_owned()], Grant::DEFAULT).unwrap();
    let endpoint = Endpoint::join(ticket, Options::default()).await.unwrap();
    let mut ticks = interval(Duration::from_millis(50));
    let known = async {
        while !endpoint.list().await.is_ok_and(|listing| !listing.relays.is_empty()) {
            ticks.tick().await;
        }
    };
    timeout(LATEST + TIMEOUT, known).await.expect("a relay that looks its bootstrap up anew");
    endpoint.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_name_with_two_addresses_one_that_answers_is_enough() {
    let home = tempfile::tempdir().unwrap();
    let hosts = home.path().join("hosts");
    for addresses in [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"], ["::1", "127.0.0.1"]] {
        std::fs::write(&hosts, addresses.map(|address| format!("{address} boot.test\n")).concat()).unwrap();
        let Some(mut command) = with_these_hosts(&hosts) else { return println!("{SKIPPED}") };
        command.arg(HOPLINE);
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let bootstrap = bootstrap(home.path(), "127.0.0.1", port);
        let ticket = bootstrap.ready["ticket"].as_str().unwrap().to_owned();
        let relay =
            Process::start_by(command, home.path(), &ticket, &["relay", "--name", "r1"]).until_ready();
        assert!(relay.ready["addr"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", relay.ready);
        knows_a_relay(home.path(), &format!("127.0.0.1:{port}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_looked_up_anew_when_its_bootstrap_does_not_answer() {
    let home = tempfile::tempdir().unwrap();
    let hosts = home.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 boot.test\n").unwrap();
    let Some(mut command) = with_these_hosts(&hosts) else { return println!("{SKIPPED}") };
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut first = bootstrap(home.path(), "127.0.0.1", port);
    let ticket = first.ready["ticket"].as_str().unwrap().to_owned();
    command.arg(HOPLINE);
    let relay =
        Process::start_by(command, home.path(), &ticket, &["relay", "--name", "r1", "--retry", "dev"]);
    let _relay = relay.until_ready();
    knows_a_relay(home.path(), &format!("127.0.0.1:{port}")).await;

    first.kill();
    // Without its store, if it has one: it shall not know the relay from before.
    let key = std::fs::read(home.path().join("bootstrap/network.key")).unwrap();
    std::fs::remove_dir_all(home.path().join("bootstrap")).unwrap();
    std::fs::create_dir(home.path().join("bootstrap")).unwrap();
    std::fs::write(home.path().join("bootstrap/network.key"), key).unwrap();
    std::fs::write(&hosts, "127.0.0.2 boot.test\n").unwrap();
    let _second = bootstrap(home.path(), "127.0.0.2", port);
    knows_a_relay(home.path(), &format!("127.0.0.2:{port}")).await;
}

#[test]
fn a_listener_that_was_killed_has_its_name_again_at_once() {
    let cluster = Cluster::start(3);
    let listen = ["listen", "echo", "--echo", "--keep"];
    for _ in 0..3 {
        let mut holder = cluster.serve(&listen);
        holder.kill();
    }
    let began = Instant::now();
    let _holder = cluster.serve(&listen);
    assert!(began.elapsed() < TIMEOUT / 2, "well before the lease of the one before ends");
    let ended = cluster.run(&["pipe", "echo", "--hops", "1"], b"hello");
    assert_eq!(ended.stdout, ["hello"], "{}", ended.stderr);
}

#[test]
fn a_killed_holders_name_is_free_though_another_who_wanted_it_was_killed_meanwhile() {
    let cluster = Cluster::start(3);
    let listen = ["listen", "echo", "--echo", "--keep", "--wait", "0s"];
    cluster.serve(&listen).kill();
    let mut hasty = cluster.start_process(&[&listen[..], &["--log", "hopline=info"]].concat());
    hasty.until_says("joined");
    hasty.kill();
    let _holder = cluster.serve(&listen);
}

#[test]
fn a_holder_that_was_stopped_and_lost_its_name_is_told() {
    let cluster = Cluster::start(3);
    let stopped = cluster.serve(&["receive", "inbox"]);
    stopped.signal(Signal::STOP);
    let _holder = cluster.serve(&["receive", "inbox"]);
    stopped.signal(Signal::CONT);
    stopped.until_says("taken");
    let ended = stopped.finish();
    assert_eq!(ended.status.code(), Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("\"inbox\"") && ended.stderr.contains("taken"), "{}", ended.stderr);
}

#[test]
fn nobody_takes_the_name_of_a_holder_that_lives() {
    let cluster = Cluster::start(3);
    let _holder = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" > /dev/null", "sh", HOPLINE]);
    let args = ["pipe", "echo", "--hops", "1"];
    let mut busy = Process::start_by(shell, cluster.home.path(), &cluster.ticket, &args);
    let mut stdin = busy.stdin();
    let writer = std::thread::spawn(move || {
        let bytes = crate::fixture::pattern(1 << 20);
        while stdin.write_all(&bytes).is_ok() {}
    });
    for _ in 0..3 {
        let thief = cluster.run(&["listen", "echo"], b"");
        assert_eq!(thief.status.code(), Some(4), "{}", thief.stderr);
        assert!(thief.stderr.contains("taken"), "{}", thief.stderr);
    }
    busy.kill();
    writer.join().unwrap();
    let ended = cluster.run(&["pipe", "echo", "--hops", "1"], b"hello");
    assert_eq!(ended.stdout, ["hello"], "{}", ended.stderr);
}
