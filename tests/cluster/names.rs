//! A bootstrap that is named, not numbered, may move to another machine.

use crate::fixture::{HOPLINE, PATIENCE, Process};
use hopline::endpoint::{Endpoint, Options};
use hopline::net::authority::Authority;
use hopline::net::ticket::{Grant, Ticket};
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::time::{interval, timeout};

/// A heartbeat, the patience for its answer, and a dial.
const LATEST: Duration = Duration::from_secs(2 + 5 + 3);

/// A command whose /etc/hosts is this file. Needs root.
fn with_hosts(hosts: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(hosts);
    command
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
    timeout(LATEST + PATIENCE, known).await.expect("a relay that looks its bootstrap up anew");
    endpoint.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_looked_up_anew_when_its_bootstrap_does_not_answer() {
    let home = tempfile::tempdir().unwrap();
    let hosts = home.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 boot.test\n").unwrap();
    if !with_hosts(&hosts).args(["grep", "-q", "boot.test", "/etc/hosts"]).status().is_ok_and(|s| s.success())
    {
        return println!("SKIPPED: no file can be mounted over /etc/hosts; only root can, with unshare(1)");
    }
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut first = bootstrap(home.path(), "127.0.0.1", port);
    let ticket = first.ready["ticket"].as_str().unwrap().to_owned();
    let mut command = with_hosts(&hosts);
    command.arg(HOPLINE);
    let relay =
        Process::start_by(command, home.path(), &ticket, &["relay", "--name", "r1", "--patience", "dev"]);
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
