//! Machines whose clocks are wrong, or are set while everything runs. Their time is libfaketime's (Debian: faketime).

use crate::fixture::{Ended, HOPLINE, Process, TIMEOUT};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// As long as a clock that was set may keep newcomers out, on a machine that is busy.
const SOON: Duration = Duration::from_secs(8);

fn library() -> Option<PathBuf> {
    let places = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let mut libraries = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists())
}

/// A machine, and what its clock says.
struct Machine {
    library: PathBuf,
    clock: PathBuf,
}

impl Machine {
    /// # Errors
    /// Why there is none.
    fn new(home: &Path, name: &str, offset: &str) -> Result<Self, &'static str> {
        let library = library().ok_or("no libfaketime; install the package faketime")?;
        let machine = Self { library, clock: home.join(name) };
        machine.set_clock(offset);
        Ok(machine)
    }

    /// So far from the real time, such as `-2h`.
    fn set_clock(&self, offset: &str) {
        std::fs::write(&self.clock, offset).unwrap();
    }

    fn start(&self, home: &TempDir, ticket: &str, args: &[&str]) -> Process {
        let mut command = Command::new(HOPLINE);
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.clock)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        Process::start_by(command, home.path(), ticket, args)
    }

    fn bootstrap(&self, home: &TempDir) -> (Process, String) {
        let data = home.path().join("bootstrap");
        let args =
            ["bootstrap", "--listen", "127.0.0.1:0", "--cadence", "dev", "--data", data.to_str().unwrap()];
        let process = self.start(home, "", &args).until_ready();
        let ticket = process.ready["ticket"].as_str().unwrap().to_owned();
        (process, ticket)
    }
}

fn assert_echoes(machine: &Machine, home: &TempDir, ticket: &str) -> Duration {
    let since = Instant::now();
    loop {
        let mut pipe = machine.start(home, ticket, &["pipe", "echo", "--hops", "1", "--wait", "1s"]);
        std::io::Write::write_all(&mut pipe.stdin(), b"here").unwrap();
        let Ended { status, stdout, stderr } = pipe.finish();
        if status.success() && stdout == ["here"] {
            return since.elapsed();
        }
        assert!(since.elapsed() < TIMEOUT, "{stderr}");
    }
}

#[test]
fn newcomers_and_new_flows_get_in_soon_after_the_clock_was_set() {
    let home = tempfile::tempdir().unwrap();
    let machine = match Machine::new(home.path(), "clock", "-30d") {
        Ok(machine) => machine,
        Err(why) => return println!("SKIPPED: {why}"),
    };
    let (_bootstrap, ticket) = machine.bootstrap(&home);
    let start = |args: &[&str]| machine.start(&home, &ticket, args).until_ready();
    let _relays = ["r1", "r2"].map(|name| start(&["relay", "--listen", "127.0.0.1:0", "--name", name]));
    let _listener = start(&["listen", "echo", "--echo", "--keep"]);
    assert_echoes(&machine, &home, &ticket);
    for (offset, what) in [("+0", "30 days ahead"), ("-2h", "2 hours back"), ("-30d", "30 days back")] {
        machine.set_clock(offset);
        let took = assert_echoes(&machine, &home, &ticket);
        println!("the clock was set {what}: a newcomer's flow went through after {took:.1?}");
        assert!(took < SOON, "{took:?} after the clock was set {what}");
    }
}

#[test]
fn whose_clock_is_wrong_is_told_so() {
    let home = tempfile::tempdir().unwrap();
    let machine = match Machine::new(home.path(), "right", "+0") {
        Ok(machine) => machine,
        Err(why) => return println!("SKIPPED: {why}"),
    };
    let (_bootstrap, ticket) = machine.bootstrap(&home);
    for (offset, expected) in [("+1500d", ["only until", "later"]), ("-1500d", ["only from", "earlier"])] {
        let wrong = Machine::new(home.path(), "wrong", offset).unwrap();
        let ended = wrong.start(&home, &ticket, &["status"]).finish();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        let last = ended.stderr.lines().last().unwrap();
        let said = last.contains("set the clock") && last.contains(" days ");
        assert!(said && expected.iter().all(|part| last.contains(part)), "{last}");
    }
    let fast = Machine::new(home.path(), "fast", "+10m").unwrap();
    let ended = fast.start(&home, &ticket, &["status"]).finish();
    assert!(ended.status.success(), "{}", ended.stderr);
    let warned = ended.stderr.matches("this machine's clock is 10 minutes ahead of the bootstrap's").count();
    assert_eq!(warned, 1, "{}", ended.stderr);
}

#[test]
fn a_network_is_whole_soon_after_its_bootstraps_clock_leapt_and_came_back() {
    let home = tempfile::tempdir().unwrap();
    let [leaping, right] = match ["leaping", "right"].map(|name| Machine::new(home.path(), name, "+0")) {
        [Ok(leaping), Ok(right)] => [leaping, right],
        [Err(why), _] | [_, Err(why)] => return println!("SKIPPED: {why}"),
    };
    let (_bootstrap, ticket) = leaping.bootstrap(&home);
    let start = |args: &[&str]| right.start(&home, &ticket, args).until_ready();
    let [r1, r2] = ["r1", "r2"].map(|name| start(&["relay", "--listen", "127.0.0.1:0", "--name", name]));
    let nodes = [r1, r2, start(&["listen", "echo", "--echo", "--keep", "--log", "info"])];
    assert_echoes(&right, &home, &ticket);
    leaping.set_clock("+30d");
    nodes.iter().for_each(|node| node.until_says("renewed this node's certificate"));
    leaping.set_clock("+0");
    let took = assert_echoes(&right, &home, &ticket);
    println!("the bootstrap's clock came back: a flow went through after {took:.1?}");
    assert!(took < SOON, "{took:?}");
    nodes.iter().for_each(|node| node.until_says("the network's clock was set back"));
}

#[test]
fn an_origin_is_told_that_its_targets_clock_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    let [wrong, right] = match ["wrong", "right"].map(|name| Machine::new(home.path(), name, "+0")) {
        [Ok(wrong), Ok(right)] => [wrong, right],
        [Err(why), _] | [_, Err(why)] => return println!("SKIPPED: {why}"),
    };
    let (_bootstrap, ticket) = right.bootstrap(&home);
    let _relay =
        right.start(&home, &ticket, &["relay", "--listen", "127.0.0.1:0", "--name", "r1"]).until_ready();
    let _listener = wrong.start(&home, &ticket, &["listen", "echo", "--echo", "--keep"]).until_ready();
    assert_echoes(&right, &home, &ticket);
    wrong.set_clock("+30d");
    let since = Instant::now();
    let ended = right.start(&home, &ticket, &["pipe", "echo", "--hops", "1"]).finish();
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert_eq!(ended.status.code(), Some(6), "{}", ended.stderr);
    assert!(
        last.contains("by its clock it has expired") && last.contains("this machine's clock says"),
        "{last}"
    );
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}
