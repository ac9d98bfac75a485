//! Ends: a flow is done when everything was taken, who leaves in peace says so, and who is killed is missed soon.

use crate::fixture::{Cluster, HOPLINE, Process, Signal, TIMEOUT};
use hopline::endpoint::{Aborter, Endpoint, Flow, FlowError};
use hopline_command::signals::ignores_hangup;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// By then whoever is killed is known to be gone.
const KNOWN_DEAD: Duration = Duration::from_secs(30);
/// A round trip on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(5);
const LOST: Option<i32> = Some(6);

/// A flow between a process and this one, in a state of half-close.
struct Case {
    process_opens: bool,
    process_has_ended: bool,
    we_have_ended: bool,
}

impl Case {
    /// All of them; where both have ended, the last ack is outstanding.
    fn all() -> impl Iterator<Item = Self> {
        (0..8).map(|n| Self {
            process_opens: n & 1 == 0,
            process_has_ended: n & 2 == 0,
            we_have_ended: n & 4 == 0,
        })
    }

    /// The process, and our end of the flow, which has to be kept.
    async fn set_up(&self, cluster: &Cluster, endpoint: &Endpoint, name: &str) -> (Process, Flow) {
        let (mut process, mut flow) = if self.process_opens {
            let mut listener = endpoint.listen(name).await.unwrap();
            let process = cluster.start_process(&["pipe", name, "--hops", "2"]);
            let incoming = timeout(TIMEOUT, listener.accept()).await.expect("a flow");
            let Some(flow) = incoming else { panic!("no flow") };
            (process, flow)
        } else {
            let process = cluster.serve(&["listen", name]);
            (process, endpoint.open_over(name, 2).await.unwrap())
        };
        let mut stdin = process.stdin();
        stdin.write_all(b"y").unwrap();
        flow.write_all(b"x\n").await.unwrap();
        flow.flush().await.unwrap();
        assert_eq!(timeout(TIMEOUT, flow.read_u8()).await.expect("a byte").unwrap(), b'y');
        let line = process.line();
        assert_eq!(line, "x");
        if self.we_have_ended {
            flow.shutdown().await.unwrap();
        }
        if self.process_has_ended {
            drop(stdin);
            assert_eq!(timeout(TIMEOUT, flow.read(&mut [0])).await.expect("the end").unwrap(), 0);
        } else {
            // Held open for as long as the process lives.
            std::mem::forget(stdin);
        }
        (process, flow)
    }
}

async fn ended(aborter: &Aborter, within: Duration) -> FlowError {
    let ended = timeout(within, aborter.ended()).await;
    ended.expect("it knows in time").expect_err("the other end is gone")
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_is_missed_in_every_state_of_half_close() {
    let cluster = Cluster::start(6);
    let endpoint = cluster.join().await;
    let mut waits = JoinSet::new();
    for (n, case) in Case::all().enumerate() {
        let (mut process, flow) = case.set_up(&cluster, &endpoint, &format!("n{n}")).await;
        process.kill();
        waits.spawn(async move {
            let error = ended(&flow.aborter(), KNOWN_DEAD).await;
            assert!(
                matches!(error, FlowError::NoPath | FlowError::Lost | FlowError::Unknown),
                "case {n}: {error}"
            );
        });
    }
    waits.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_says_so_in_every_state_of_half_close() {
    let cluster = Cluster::start(6);
    let endpoint = cluster.join().await;
    // Under nohup a SIGHUP means nothing, to whatever is started from here.
    let signals = [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT"), (Signal::HUP, "SIGHUP")];
    let signals = if ignores_hangup() { &signals[..2] } else { &signals[..] };
    for (n, case) in Case::all().enumerate() {
        let (process, flow) = case.set_up(&cluster, &endpoint, &format!("n{n}")).await;
        let (signal, name) = signals[n % signals.len()];
        process.signal(signal);
        let error = ended(&flow.aborter(), SOON).await;
        let FlowError::Aborted { cause } = error else { panic!("case {n}: {error}") };
        assert!(cause.contains(name), "case {n}: {cause}");
        let process = process.finish();
        assert_eq!(process.status.code(), Some(1), "case {n}: {}", process.stderr);
        assert!(process.stderr.lines().last().unwrap().contains(name), "{}", process.stderr);
    }
}

/// The target has ended its direction, and the pipe waits for its own stdin.
#[test]
fn a_pipe_that_waits_for_stdin_learns_that_its_flow_is_lost() {
    let cluster = Cluster::start(4);
    let mut listen = cluster.serve(&["listen", "x"]);
    drop(listen.stdin());
    let mut pipe = cluster.start_process(&["pipe", "x", "--hops", "2"]);
    let mut stdin = pipe.stdin();
    writeln!(stdin, "hello").unwrap();
    assert_eq!(listen.line(), "hello");
    let killed = Instant::now();
    listen.kill();
    let pipe = pipe.finish();
    assert!(killed.elapsed() < KNOWN_DEAD, "{:?}", killed.elapsed());
    assert_eq!(pipe.status.code(), LOST, "{}", pipe.stderr);
    drop(stdin);
}

#[test]
fn who_can_not_write_what_came_makes_the_other_end_fail() {
    let cluster = Cluster::start(4);
    let full = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {HOPLINE} {command} > /dev/full"), "sh"]);
        Process::start_by(shell, cluster.home.path(), &cluster.ticket, &[])
    };
    for n in 0..5 {
        let listen = cluster.serve(&["listen", &format!("a{n}")]);
        let mut pipe = full(&format!("pipe a{n} --hops 1"));
        let mut answers = listen;
        answers.stdin().write_all(b"answer").unwrap();
        drop(pipe.stdin());
        let (pipe, listen) = (pipe.finish(), answers.finish());
        assert_eq!(pipe.status.code(), Some(1), "{}", pipe.stderr);
        assert_eq!(listen.status.code(), LOST, "{}", listen.stderr);
        assert!(listen.stderr.contains("No space left on device"), "{}", listen.stderr);
    }
    for n in 0..5 {
        let name = format!("b{n}");
        let mut listen = full(&format!("listen {name}"));
        drop(listen.stdin());
        // It waits until the name is served.
        let pipe = cluster.run(&["pipe", &name, "--hops", "1"], b"question");
        assert_eq!(pipe.status.code(), LOST, "{}", pipe.stderr);
        assert!(pipe.stderr.contains("No space left on device"), "{}", pipe.stderr);
        assert_eq!(listen.finish().status.code(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_is_refused_ends_at_once_with_the_cause() {
    let cluster = Cluster::start(4);
    let endpoint = cluster.join().await;
    let mut listener = endpoint.listen("x").await.unwrap();
    let mut pipe = cluster.start_process(&["pipe", "x", "--hops", "2"]);
    let stdin = pipe.stdin();
    let Some(flow) = timeout(TIMEOUT, listener.accept()).await.expect("a flow") else { panic!() };
    flow.abort("busy: it serves another");
    let pipe = pipe.finish();
    assert_eq!(pipe.status.code(), LOST);
    assert!(pipe.stderr.contains("busy: it serves another"), "{}", pipe.stderr);
    drop(stdin);
}

#[test]
fn thousands_of_small_messages_are_not_kept_back() {
    let cluster = Cluster::start(4);
    let receive = cluster.serve(&["receive", "x", "--count", "2000"]);
    let lines: String = (1..=2000).map(|n| format!("{n}\n")).collect();
    let send = cluster.run(&["send", "x", "--hops", "2"], lines.as_bytes());
    assert!(send.status.success(), "{}", send.stderr);
    assert_eq!(send.stdout.len(), 2000);
    assert_eq!(receive.finish().stdout.len(), 2000);
}

#[test]
fn a_message_too_many_is_refused_with_the_cause_and_those_before_have_their_receipts() {
    let cluster = Cluster::start(4);
    for n in 0..5 {
        let name = format!("x{n}");
        let receive = cluster.serve(&["receive", &name, "--count", "2"]);
        let send = cluster.run(&["send", &name, "a", "b", "c", "--hops", "1"], b"");
        assert_eq!(send.stdout.len(), 2, "{}", send.stderr);
        assert_eq!(send.status.code(), Some(4), "{}", send.stderr);
        assert!(send.stderr.contains("it took the 2 it was to take"), "{}", send.stderr);
        let receive = receive.finish();
        assert_eq!((receive.status.code(), receive.stdout), (Some(0), vec!["a".to_owned(), "b".to_owned()]));
    }
}
