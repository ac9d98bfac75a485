//! `hopline pipe` and `hopline listen`: whose standard input and output are, and when a flow ends.

use crate::fixture::{Cluster, Ended, HOPLINE, Process, pattern};
use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

/// How long a command says nothing before it tells what it waits for, and how long at most it is to take for an answer.
const HINT: f64 = 5.0;

fn assert_done(ended: &Ended, stdout: &[&str]) {
    assert!(ended.status.success(), "{:?}: {}", ended.status, ended.stderr);
    assert_eq!(ended.stdout, stdout, "{}", ended.stderr);
}

#[test]
fn one_flow_at_a_time_has_the_listener_and_others_are_told() {
    let cluster = Cluster::start(3);
    for how in [&["listen", "x"][..], &["listen", "y", "--keep"], &["listen", "z", "--echo"]] {
        let (name, mut listen) = (how[1], cluster.serve(how));
        let mut first = cluster.start_process(&["pipe", name]);
        let mut input = first.stdin();
        writeln!(input, "one").unwrap();
        let seen = if how.contains(&"--echo") { first.line() } else { listen.line() };
        assert_eq!(seen, "one");
        let second = cluster.run(&["pipe", name], b"two");
        assert_eq!(second.status.code(), Some(6), "{}", second.stderr);
        assert!(second.stderr.contains("busy"), "{}", second.stderr);
        writeln!(input, "three").unwrap();
        drop(input);
        if how.contains(&"--keep") {
            assert_eq!(listen.line(), "three");
            drop(listen);
        } else {
            let printed: &[&str] = if how.contains(&"--echo") { &[] } else { &["three"] };
            assert_done(&listen.finish(), printed);
            let returned: &[&str] = if how.contains(&"--echo") { &["three"] } else { &[] };
            assert_done(&first.finish(), returned);
        }
    }
}

#[test]
fn what_is_typed_while_there_is_no_flow_goes_to_the_next_one() {
    let cluster = Cluster::start(3);
    let mut listen = cluster.serve(&["listen", "x", "--keep"]);
    let mut typed = listen.stdin();
    writeln!(typed, "typed 0").unwrap();
    for n in 0..3 {
        let mut pipe = cluster.start_process(&["pipe", "x", "-q", "0"]);
        let mut input = pipe.stdin();
        writeln!(input, "asked {n}").unwrap();
        assert_eq!(listen.line(), format!("asked {n}"));
        // Nor has the flow before this one taken it.
        if n > 0 {
            writeln!(typed, "typed {n}").unwrap();
        }
        assert_eq!(pipe.line(), format!("typed {n}"));
        drop(input);
        assert_done(&pipe.finish(), &[]);
    }
    drop(typed);
    assert_done(&cluster.run(&["pipe", "x"], b"last\n"), &[]);
    assert_eq!(listen.line(), "last");
}

#[test]
fn whoever_waits_for_the_other_end_is_told_so() {
    let cluster = Cluster::start(3);
    let mut listen = cluster.serve(&["listen", "x"]);
    let typed = listen.stdin();
    let mut pipe = cluster.start_process(&["pipe", "x"]);
    pipe.stdin().write_all(b"hello\n").unwrap();
    assert_eq!(listen.line(), "hello");
    pipe.until_says("waits for the other end");
    pipe.until_says("--quit-after");
    listen.until_says("waits for the end of standard input");
    drop(typed);
    assert_done(&pipe.finish(), &[]);
    assert_done(&listen.finish(), &[]);
}

#[test]
fn nobody_waits_who_said_that_it_will_not() {
    let cluster = Cluster::start(3);
    // The pipe leaves; the listener has taken everything, so both have done well.
    let mut listen = cluster.serve(&["listen", "x"]);
    assert_done(&cluster.run(&["pipe", "x", "--quit-after", "200ms"], b"hello\n"), &[]);
    assert_eq!(listen.line(), "hello");
    let began = Instant::now();
    let typed = listen.stdin();
    let listened = listen.finish();
    assert_done(&listened, &[]);
    assert!(began.elapsed().as_secs_f64() < HINT, "after {:?}", began.elapsed());
    drop(typed);
    // The listener ends its direction by itself.
    for how in [&["listen", "x", "--receive-only"][..], &["listen", "x", "-q", "0"]] {
        let mut listen = cluster.serve(how);
        let typed = listen.stdin();
        assert_done(&cluster.run(&["pipe", "x"], b"hello"), &[]);
        assert_done(&listen.finish(), &["hello"]);
        drop(typed);
    }
}

#[test]
fn at_a_terminal_a_listener_ends_with_the_other_end() {
    if !Command::new("script").arg("--version").output().is_ok_and(|version| version.status.success()) {
        return println!("SKIPPED: no script(1) to make a terminal with");
    }
    let cluster = Cluster::start(3);
    let mut listen = Command::new("script");
    let line = format!("exec {HOPLINE} listen x");
    listen.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let mut listen = Process::start_by(listen, cluster.home.path(), &cluster.ticket, &[]).until_ready();
    let typed = listen.stdin();
    assert_done(&cluster.run(&["pipe", "x"], b"hello\n"), &[]);
    assert_eq!(listen.line(), "hello");
    let listened = listen.finish();
    assert!(listened.status.success(), "{}", listened.stderr);
    drop(typed);
}

#[test]
fn files_pass_both_ways_at_once_whole() {
    let cluster = Cluster::start(3);
    let path = |name: &str| cluster.home.path().join(name);
    let (there, back) = (pattern(30 << 20), pattern((10 << 20) + 7));
    std::fs::write(path("there"), &there).unwrap();
    std::fs::write(path("back"), &back).unwrap();
    let command = |args: &[&str], input: &str, output: &str| {
        let mut command = Command::new(HOPLINE);
        command.args(args).env("XDG_STATE_HOME", cluster.home.path()).env("HOPLINE_TICKET", &cluster.ticket);
        command.stdin(File::open(path(input)).unwrap()).stdout(File::create(path(output)).unwrap());
        command.stderr(Stdio::inherit());
        command.spawn().unwrap()
    };
    let mut listen = command(&["listen", "x"], "back", "arrived");
    while !std::fs::read(path("arrived")).unwrap().starts_with(b"ready ") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut pipe = command(&["pipe", "x"], "there", "returned");
    assert!(pipe.wait().unwrap().success() && listen.wait().unwrap().success());
    assert!(std::fs::read(path("returned")).unwrap() == back);
    let arrived = std::fs::read(path("arrived")).unwrap();
    let ready = arrived.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert!(arrived[ready..] == there);
}
