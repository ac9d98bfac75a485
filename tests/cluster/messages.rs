//! Messages: each is taken once, in order, and has its receipt.

use crate::fixture::{Cluster, PATIENCE};
use std::io::Write;

const MESSAGES: usize = 10_000;

#[test]
fn ten_thousand_messages_through_three_kills() {
    let mut cluster = Cluster::start(9);
    let receive = cluster.serve(&["receive", "x", "--count", &MESSAGES.to_string()]);
    let mut send = cluster.start_process(&["send", "x", "--events"]);
    let mut stdin = send.stdin();
    let victims: Vec<String> = cluster.relays.keys().take(3).cloned().collect();
    for n in 0..MESSAGES {
        writeln!(stdin, "message {n}").unwrap();
        stdin.flush().unwrap();
        assert_eq!(receive_line(&receive), format!("message {n}"));
        let receipt = send.line();
        assert!(receipt.starts_with(&format!("delivered {} ", n + 1)), "{receipt:?}");
        if let Some(kill) = [2_000, 4_000, 6_000].iter().position(|at| *at == n) {
            cluster.kill(&victims[kill]);
        }
    }
    drop(stdin);
    let (sent, received) = (send.finish(), receive.finish());
    assert!(sent.status.success() && sent.stdout.is_empty(), "{}", sent.stderr);
    assert!(received.status.success() && received.stdout.is_empty(), "{}", received.stderr);
}

fn receive_line(process: &crate::fixture::Process) -> String {
    process.line()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_taken_has_no_receipt() {
    let cluster = Cluster::start(4);
    let target = cluster.join().await;
    let mut listener = target.listen("x").await.unwrap();
    let origin = cluster.join().await;
    let receipt = origin.send("x", "hello").await.unwrap();
    let Some(hopline::endpoint::Incoming::Message(message)) = listener.next().await else { panic!() };
    assert_eq!((&message.payload()[..], message.from()), (&b"hello"[..], origin.id()));
    drop(message);
    let refused = tokio::time::timeout(PATIENCE, receipt).await.expect("an end");
    assert!(matches!(refused, Err(hopline::endpoint::SendError::Refused)), "{refused:?}");
    let receipt = origin.send("x", "again").await.unwrap();
    let Some(hopline::endpoint::Incoming::Message(message)) = listener.next().await else { panic!() };
    assert_eq!(message.take(), "again");
    tokio::time::timeout(PATIENCE, receipt).await.expect("a receipt").unwrap();
}
