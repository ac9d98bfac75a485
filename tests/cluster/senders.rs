//! Senders: `send` heeds a signal whatever it waits for, and learns what became of its receiver, which says why it ends.

use crate::fixture::{Cluster, Ended, HOPLINE, Process, Signal, TIMEOUT};
use futures_util::FutureExt;
use hopline::endpoint::{Inbox, SendError};
use std::fs::File;
use std::io::Write;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// By then whoever is killed is known to be gone.
const KNOWN_DEAD: Duration = Duration::from_secs(30);
/// A round trip on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(5);
const FAILED: Option<i32> = Some(1);
const REFUSED: Option<i32> = Some(4);
const LOST: Option<i32> = Some(6);

async fn message(inbox: &mut Inbox) -> hopline::endpoint::Message {
    timeout(TIMEOUT, inbox.recv()).await.expect("a message").expect("no end")
}

async fn finish_soon(process: Process) -> Ended {
    timeout(SOON, spawn_blocking(|| process.finish())).await.expect("an end").unwrap()
}

/// A sender of two lines, both taken, whose standard input stays open.
fn idle(cluster: &Cluster) -> (Process, impl Write) {
    let mut send = cluster.start_process(&["send", "x", "--hops", "2"]);
    let mut stdin = send.stdin();
    stdin.write_all(b"1\n2\n").unwrap();
    for n in ["1", "2"] {
        assert!(send.line().starts_with(&format!("delivered {n} ")));
    }
    (send, stdin)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_shuts_down_though_a_flow_is_being_opened() {
    let cluster = Cluster::start(3);
    let target = cluster.join().await;
    let _inbox = target.receive("x").await.unwrap();
    let origin = cluster.join().await;
    let mut sending = pin!(origin.send("x", "hello"));
    // It stays in the middle of that.
    assert!(sending.as_mut().now_or_never().is_none());
    timeout(SOON, origin.shutdown()).await.expect("nobody is waited for");
    assert!(timeout(SOON, sending).await.expect("an end").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn send_heeds_a_signal_while_it_opens_its_flow() {
    let cluster = Cluster::start(3);
    let receive = cluster.serve(&["receive", "x"]);
    receive.signal(Signal::STOP);
    let send = cluster.start_process(&["send", "x", "hello", "--hops", "2", "--events"]);
    send.until_says("\"event\":");
    send.signal(Signal::TERM);
    let send = finish_soon(send).await;
    assert_eq!(send.status.code(), FAILED, "{}", send.stderr);
    assert!(send.stderr.contains("ended by SIGTERM; no message delivered"), "{}", send.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn send_heeds_a_signal_while_it_waits_for_receipts() {
    let cluster = Cluster::start(3);
    let endpoint = cluster.join().await;
    let mut inbox = endpoint.receive("x").await.unwrap();
    let mut send = cluster.start_process(&["send", "x", "a", "b", "--hops", "2"]);
    let _ = message(&mut inbox).await.take();
    let _kept = message(&mut inbox).await;
    assert!(send.line().starts_with("delivered 1 "));
    send.signal(Signal::INT);
    let send = finish_soon(send).await;
    assert_eq!(send.status.code(), FAILED, "{}", send.stderr);
    let told = "not every message was taken: ended by SIGINT; 1 message delivered";
    assert!(send.stderr.contains(told), "{}", send.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn send_heeds_a_signal_while_nobody_reads_its_receipts() {
    /// More than fit into a pipe.
    const RECEIPTS: usize = 5000;
    let cluster = Cluster::start(3);
    let endpoint = cluster.join().await;
    let mut inbox = endpoint.receive("x").await.unwrap();
    let lines = cluster.home.path().join("lines");
    std::fs::write(&lines, "x\n".repeat(4 * RECEIPTS)).unwrap();
    let send = Command::new(HOPLINE)
        .args(["send", "x", "--hops", "2"])
        .env("XDG_STATE_HOME", cluster.home.path())
        .env("HOPLINE_TICKET", &cluster.ticket)
        .stdin(File::open(lines).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..RECEIPTS {
        let _ = message(&mut inbox).await.take();
    }
    let sent = Command::new("kill").args(["-TERM", &send.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let (mut send, began) = (send, Instant::now());
    let status = timeout(SOON, spawn_blocking(move || (send.wait(), send))).await.expect("an end");
    let (status, send) = status.unwrap();
    assert_eq!(status.unwrap().code(), FAILED, "{:?}", began.elapsed());
    let stderr = String::from_utf8(send.wait_with_output().unwrap().stderr).unwrap();
    assert!(stderr.contains("ended by SIGTERM; "), "{stderr}");
}

#[test]
fn a_signal_when_all_was_taken_says_so() {
    let cluster = Cluster::start(3);
    let _receive = cluster.serve(&["receive", "x"]);
    let (send, stdin) = idle(&cluster);
    send.signal(Signal::TERM);
    let send = send.finish();
    assert_eq!(send.status.code(), FAILED, "{}", send.stderr);
    let last = send.stderr.lines().last().unwrap();
    assert_eq!(last, "hopline: ended by SIGTERM; 2 messages delivered");
    drop(stdin);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_waits_for_stdin_learns_at_once_why_its_receiver_ends() {
    let cluster = Cluster::start(3);
    for (end, cause) in [(Some(Signal::TERM), "ended by SIGTERM"), (None, "it took the 2 it was to take")] {
        for is_late in [false, true] {
            let args: &[&str] =
                if end.is_none() { &["receive", "x", "--count", "2"] } else { &["receive", "x"] };
            let receive = cluster.serve(args);
            let (send, mut stdin) = idle(&cluster);
            end.into_iter().for_each(|signal| receive.signal(signal));
            if is_late {
                receive.finish();
                // It may have ended.
                let _ = stdin.write_all(b"3\n");
            }
            let send = finish_soon(send).await;
            assert_eq!(send.status.code(), REFUSED, "{}", send.stderr);
            assert!(send.stderr.contains(cause), "{}", send.stderr);
            let told = "2 messages delivered, standard input not at its end: ";
            assert!(send.stderr.contains(told), "{}", send.stderr);
        }
    }
}

#[test]
fn a_sender_that_waits_for_stdin_misses_a_receiver_that_was_killed() {
    let cluster = Cluster::start(4);
    let mut receive = cluster.serve(&["receive", "x"]);
    let (send, stdin) = idle(&cluster);
    let killed = Instant::now();
    receive.kill();
    let send = send.finish();
    assert!(killed.elapsed() < KNOWN_DEAD, "{:?}", killed.elapsed());
    assert_eq!(send.status.code(), LOST, "{}", send.stderr);
    let told = "2 messages delivered, standard input not at its end: the flow broke";
    assert!(send.stderr.contains(told), "{}", send.stderr);
    drop(stdin);
}

#[test]
fn a_receiver_that_can_not_print_says_why() {
    let cluster = Cluster::start(3);
    for n in 0..8 {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {HOPLINE} receive x{n} > /dev/full"), "sh"]);
        let receive = Process::start_by(shell, cluster.home.path(), &cluster.ticket, &[]);
        let send = cluster.run(&["send", &format!("x{n}"), "a", "b", "--hops", "1"], b"");
        assert_eq!(send.status.code(), REFUSED, "{}", send.stderr);
        assert!(send.stderr.contains("No space left on device"), "{}", send.stderr);
        assert_eq!(receive.finish().status.code(), FAILED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_after_the_end_is_refused_with_its_cause() {
    let cluster = Cluster::start(3);
    let target = cluster.join().await;
    let mut inbox = target.receive("x").await.unwrap();
    let (origin, late) = (cluster.join().await, cluster.join().await);
    let receipt = origin.send("x", "a").await.unwrap();
    let mut carrier = receipt.carrier();
    let _ = message(&mut inbox).await.take();
    timeout(SOON, receipt).await.expect("a receipt").unwrap();
    inbox.close("closed for lunch");
    let is_told =
        |error: &SendError| matches!(error, SendError::Refused { cause } if &**cause == "closed for lunch");
    let ended = timeout(SOON, carrier.ended()).await.expect("an end");
    assert!(is_told(&ended), "{ended:?}");
    // The bootstrap still knows the name.
    let sent = timeout(SOON, late.send("x", "b")).await.expect("a flow").unwrap();
    let refused = timeout(SOON, sent).await.expect("an end").unwrap_err();
    assert!(is_told(&refused), "{refused:?}");
}
