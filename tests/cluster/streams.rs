//! What becomes of a process whose stderr or stdout takes nothing: a full disk, or a reader that has gone.

use crate::fixture::{Cluster, Ended, HOPLINE, Process, Signal};
use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

/// How a shell gives a process a stderr that takes nothing, and takes the process' place.
const DEAF: [&str; 2] = [
    r#"exec "$HOPLINE" "$@" 2>/dev/full"#,
    r#"gone=$(mktemp -u -p "$XDG_STATE_HOME") && mkfifo "$gone" && exec "$HOPLINE" "$@" 3<>"$gone" 2>"$gone" 3>&-"#,
];

/// Starts `hopline` with such a stderr.
fn start(cluster: &Cluster, how: &str, args: &[&str]) -> Process {
    let mut shell = Command::new("sh");
    shell.args(["-c", how, "sh"]).env("HOPLINE", HOPLINE);
    Process::start_by(shell, cluster.home.path(), &cluster.ticket, args)
}

fn serve(cluster: &Cluster, how: &str, args: &[&str]) -> Process {
    start(cluster, how, args).until_ready()
}

/// Joins and relays, and everybody says what it does on stderr, if that takes it.
fn deaf_cluster(how: &str) -> Cluster {
    let mut cluster = Cluster::start(0);
    cluster.bootstrap = serve(&cluster, how, &["bootstrap", "--listen", "127.0.0.1:0"]);
    cluster.ticket = cluster.bootstrap.ready["ticket"].as_str().unwrap().to_owned();
    for name in ["r1", "r2", "r3"] {
        let relay = serve(&cluster, how, &["relay", "--name", name]);
        cluster.relays.insert(name.to_owned(), relay);
    }
    cluster
}

fn assert_done(ended: &Ended, stdout: &[&str]) {
    assert_eq!((ended.status.code(), &ended.stderr), (Some(0), &String::new()));
    assert_eq!(ended.stdout, stdout);
}

#[test]
fn a_stderr_that_takes_nothing_is_ignored_by_everybody() {
    for how in DEAF {
        let mut cluster = deaf_cluster(how);
        assert!(cluster.run(&["status"], b"").status.success(), "the bootstrap answers");
        let mut echo = serve(&cluster, how, &["--log", "debug", "listen", "x", "--echo"]);
        let mut pipe = start(&cluster, how, &["--log", "debug", "pipe", "x", "--events"]);
        let mut input = pipe.stdin();
        writeln!(input, "before").unwrap();
        assert_eq!(pipe.line(), "before");
        // Neighbours, origin and bootstrap have something to log, and go on.
        cluster.kill("r1");
        let r4 = serve(&cluster, how, &["relay", "--name", "r4"]);
        cluster.relays.insert("r4".to_owned(), r4);
        writeln!(input, "after").unwrap();
        assert_eq!(pipe.line(), "after");
        drop(input);
        assert_done(&pipe.finish(), &[]);
        drop(echo.stdin());
        assert_done(&echo.finish(), &[]);
        assert!(cluster.run(&["status"], b"").status.success(), "the bootstrap answers still");
        for process in cluster.relays.into_values().chain([cluster.bootstrap]) {
            process.signal(Signal::TERM);
            assert_done(&process.finish(), &[]);
        }
    }
}

#[test]
fn a_flow_outlives_the_hint_that_nobody_takes() {
    let cluster = Cluster::start(3);
    let begin = |name: &'static str, pipe: &dyn Fn(&[&str]) -> Process| {
        let mut listen = cluster.serve(&["listen", name]);
        let typed = listen.stdin();
        let mut pipe = pipe(&["pipe", name]);
        pipe.stdin().write_all(b"hello\n").unwrap();
        assert_eq!(listen.line(), "hello");
        (listen, typed, pipe)
    };
    let deaf = DEAF.map(|how| begin(how_called(how), &|args| start(&cluster, how, args)));
    // One that begins to wait later, and can be heard: the others have given their hints when it does.
    let (_listen, _typed, heard) = begin("heard", &|args| cluster.start_process(args));
    heard.until_says("waits for the other end");
    for (listen, mut typed, pipe) in deaf {
        typed.write_all(b"bye\n").unwrap();
        drop(typed);
        assert_done(&pipe.finish(), &["bye"]);
        assert!(listen.finish().status.success());
    }
}

fn how_called(how: &str) -> &'static str {
    if how == DEAF[0] { "full" } else { "gone" }
}

#[test]
fn exit_codes_are_the_same_when_the_last_line_is_lost() {
    let cluster = Cluster::start(3);
    for how in DEAF {
        for (args, code) in [
            (&["pipe", "nobody", "--wait", "0s"][..], 4),
            (&["pipe", "nobody", "--wait", "200ms"], 4),
            (&["status", "--ticket", "x"], 2),
            (&["status", "--nonsense"], 2),
            (&["--log", "=,=", "status"], 2),
        ] {
            let ended = start(&cluster, how, args).finish();
            assert_eq!(ended.status.code(), Some(code), "{args:?}, {how}");
        }
    }
}

#[test]
fn a_stdout_that_takes_nothing_fails_the_command_with_its_cause() {
    let cluster = Cluster::start(3);
    let _echo = cluster.serve(&["listen", "x", "--echo", "--keep"]);
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["pipe", "x"],
        &["--help"],
        &["pipe", "--help"],
        &["--version"],
    ] {
        let mut command = Command::new(HOPLINE);
        command.args(args).env("XDG_STATE_HOME", cluster.home.path()).env("HOPLINE_TICKET", &cluster.ticket);
        command.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
        let input = cluster.home.path().join("input");
        std::fs::write(&input, "hello").unwrap();
        let ended = command.stdin(std::fs::File::open(input).unwrap()).output().unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains("can't write to standard output: No space left"), "{args:?}: {stderr}");
    }
}
