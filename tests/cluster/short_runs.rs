//! Short commands, again and again: none is refused, and nobody keeps anything of those that have ended.
//!
//! `HOPLINE_SHORT_RUNS=10000 cargo test --test cluster nothing_is_left -- --nocapture` takes its time.

use crate::fixture::{Cluster, Process, run};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Commands at once.
const HANDS: usize = 8;
/// What a process may hold more of than when it was warm.
const MORE_DESCRIPTORS: usize = 4;
const MORE_MIB: f64 = 16.0;
/// Below so many runs memory says little: allocators and caches are still filling.
const TELLING: usize = 1000;

#[test]
fn one_identity_may_run_thirty_commands_in_a_row() {
    let cluster = Cluster::start(3);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let data = cluster.home.path().join("me");
    for run in 0..30 {
        let args = ["pipe", "echo", "--hops", "1", "--data", text(&data)];
        let ended = cluster.run(&args, b"hello");
        assert!(ended.status.success(), "run {run}: {}", ended.stderr);
        assert_eq!(ended.stdout, ["hello"], "run {run}");
    }
}

#[test]
fn one_identity_is_let_in_however_many_of_its_processes_were_killed() {
    let cluster = Cluster::start(3);
    let data = cluster.home.path().join("me");
    let listen = ["listen", "echo", "--echo", "--keep", "--data", text(&data)];
    for _ in 0..12 {
        cluster.serve(&listen).kill();
    }
    let _thirteenth = cluster.serve(&listen);
    let ended = cluster.run(&["pipe", "echo", "--hops", "1"], b"hello");
    assert_eq!(ended.stdout, ["hello"], "{}", ended.stderr);
}

#[test]
fn nothing_is_left_of_short_commands() {
    let runs = std::env::var("HOPLINE_SHORT_RUNS").map_or(48, |runs| runs.parse().unwrap());
    let cluster = Cluster::start(3);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let _inbox = cluster.serve(&["receive", "inbox"]);
    let began = Instant::now();
    run_all(&cluster, runs / 3);
    let warm = held(&cluster);
    run_all(&cluster, runs - runs / 3);
    let after = held(&cluster);
    println!("{runs} runs in {:.0} s", began.elapsed().as_secs_f64());
    for (process, then) in &warm {
        let now = &after.iter().find(|(name, _)| name == process).unwrap().1;
        println!("{process}: {then:?} when warm, {now:?} after all");
        assert!(now.descriptors <= then.descriptors + MORE_DESCRIPTORS, "{process} keeps descriptors");
        assert!(runs < TELLING || now.mib <= then.mib + MORE_MIB, "{process} keeps memory");
    }
}

/// So many short commands, several at once; each must succeed.
fn run_all(cluster: &Cluster, runs: usize) {
    let (next, home, ticket) = (AtomicUsize::new(0), cluster.home.path(), cluster.ticket.as_str());
    std::thread::scope(|scope| {
        for hand in 0..HANDS {
            let next = &next;
            scope.spawn(move || {
                let data = home.join(format!("hand-{hand}"));
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= runs {
                        return;
                    }
                    run_one(home, ticket, number, &data);
                }
            });
        }
    });
}

fn run_one(home: &Path, ticket: &str, number: usize, data: &Path) {
    let (args, expected): (&[&str], _) = match number % 4 {
        0 => (&["pipe", "echo", "--hops", "2"], "hello"),
        1 => (&["pipe", "echo", "--hops", "2", "--data", text(data)], "hello"),
        2 => (&["send", "inbox", "hello"], "delivered"),
        _ => (&["status"], "r1"),
    };
    let ended = run(home, ticket, args, b"hello");
    assert!(ended.status.success(), "run {number}, {args:?}: {}", ended.stderr);
    assert!(ended.stdout.concat().contains(expected), "run {number}, {args:?}: {:?}", ended.stdout);
}

/// What a process holds.
#[derive(Debug)]
struct Held {
    mib: f64,
    descriptors: usize,
}

fn held(cluster: &Cluster) -> Vec<(String, Held)> {
    let relays = cluster.relays.iter().map(|(name, relay)| (name.clone(), of(relay)));
    std::iter::once(("bootstrap".to_owned(), of(&cluster.bootstrap))).chain(relays).collect()
}

fn of(process: &Process) -> Held {
    let proc = Path::new("/proc").join(process.id().to_string());
    let status = std::fs::read_to_string(proc.join("status")).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = kib.trim().trim_end_matches(" kB").parse().unwrap();
    Held { mib: kib / 1024.0, descriptors: std::fs::read_dir(proc.join("fd")).unwrap().count() }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
