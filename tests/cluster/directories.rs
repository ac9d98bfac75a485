//! Data directories: one process at a time uses one, and each says whose it is.

use crate::fixture::{Cluster, Ended, HOPLINE, Process};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

fn last_line(ended: &Ended) -> &str {
    ended.stderr.lines().last().unwrap_or_default()
}

/// What is in a directory, and when it was changed.
fn contents(directory: &Path) -> Vec<(String, SystemTime)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().modified().unwrap())
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}

#[test]
fn two_processes_do_not_share_one() {
    let cluster = Cluster::start(1);
    let directory = cluster.home.path().join("shared");
    let data = directory.to_str().unwrap();
    let commands: [&[&str]; 2] = [&["listen", "x", "--keep", "--data", data], &["relay", "--data", data]];
    for (args, role) in commands.into_iter().zip(["an endpoint", "a relay"]) {
        let mut first = cluster.serve(args);
        let second = cluster.run(args, b"");
        assert_eq!(second.status.code(), Some(1), "{}", second.stderr);
        let told = format!("in use by {role}, process {};", first.id());
        assert!(last_line(&second).contains(&told), "{}", second.stderr);
        first.kill();
        let third = cluster.serve(args);
        assert_eq!(third.ready["id"], first.ready["id"], "nothing is left of a process that was killed");
        drop(third);
        fs::remove_dir_all(&directory).unwrap();
    }
}

/// Runs `hopline` with a data directory from the environment.
fn run_at(cluster: &Cluster, data: &Path, args: &[&str]) -> Ended {
    let mut command = Command::new(HOPLINE);
    command.env("HOPLINE_DATA", data);
    Process::start_by(command, cluster.home.path(), &cluster.ticket, args).finish()
}

#[test]
fn one_of_another_role_is_refused_and_stays_as_it_is() {
    let cluster = Cluster::start(1);
    let bootstrap = cluster.home.path().join("bootstrap");
    let endpoint = cluster.home.path().join("endpoint");
    drop(cluster.serve(&["listen", "y", "--data", endpoint.to_str().unwrap()]));
    for (data, whose, commands) in [
        (&bootstrap, "a bootstrap", [&["pipe", "x"][..], &["listen", "x"], &["send", "x", "a"], &["relay"]]),
        (&endpoint, "an endpoint", [&["relay"], &["bootstrap"], &["relay"], &["bootstrap"]]),
    ] {
        let before = contents(data);
        for args in commands {
            let ended = run_at(&cluster, data, args);
            assert_eq!(ended.status.code(), Some(2), "{args:?}: {}", ended.stderr);
            let line = last_line(&ended);
            assert!(line.contains(&format!("belongs to {whose}")) && line.contains("--data"), "{line}");
        }
        assert_eq!(contents(data), before);
    }
    // To look takes no directory, unless it is said which.
    let before = contents(&bootstrap);
    let looked = run_at(&cluster, &bootstrap, &["status"]);
    assert!(looked.status.success(), "{}", looked.stderr);
    let looked = cluster.run(&["status", "--data", bootstrap.to_str().unwrap()], b"");
    assert_eq!(looked.status.code(), Some(2), "{}", looked.stderr);
    assert_eq!(contents(&bootstrap), before);
    let missing = cluster.home.path().join("missing");
    assert!(run_at(&cluster, &missing, &["status"]).status.success());
    assert!(!missing.exists(), "whose it will be is not for a look to say");
}

#[test]
fn a_variable_set_to_nothing_or_to_blanks_is_not_set() {
    let cluster = Cluster::start(3);
    let _echo = cluster.serve(&["listen", "x", "--echo", "--keep"]);
    let run = |value: &str, args: &[&str], input: &[u8]| {
        let mut command = Command::new(HOPLINE);
        let names = [
            "ADMIN",
            "ADMIN_LISTEN",
            "ADVERTISE",
            "BEHIND_NAT",
            "BRIDGE",
            "CAPACITY",
            "DATA",
            "HEARTBEAT",
            "HOPS",
            "LISTEN",
            "LIVENESS",
            "LOG",
            "NAME",
            "NODE_NAME",
            "NO_JOURNAL",
            "RETRY",
            "STORE",
            "WAIT",
            "WEBHOOK",
            "ZONE",
        ];
        command.envs(names.map(|name| (format!("HOPLINE_{name}"), value)));
        let mut process = Process::start_by(command, cluster.home.path(), value, args);
        std::io::Write::write_all(&mut process.stdin(), input).unwrap();
        process
    };
    for value in ["", " ", "\t "] {
        // The ticket is that of the network joined last.
        let piped = run(value, &["pipe", "x"], b"hello").finish();
        assert!(piped.status.success() && piped.stdout == ["hello"], "{}", piped.stderr);
        assert!(run(value, &["status"], b"").finish().status.success());
        run(value, &["relay"], b"").until_ready();
        run(value, &["bootstrap"], b"").until_ready();
    }
}
