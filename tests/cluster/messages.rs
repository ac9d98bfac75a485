//! Messages: each is taken once, in order, and has its receipt.

use crate::fixture::{Cluster, HOPLINE, TIMEOUT};
use hopline::endpoint::{MAX_MESSAGE_BYTES, SendError};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use tokio::time::timeout;

const MESSAGES: usize = 10_000;

#[test]
fn ten_thousand_messages_through_three_kills() {
    let mut cluster = Cluster::start(9);
    let mut receive = cluster.serve(&["receive", "x", "--count", &MESSAGES.to_string()]);
    let mut send = cluster.start_process(&["send", "x", "--events"]);
    let mut stdin = send.stdin();
    let victims: Vec<String> = cluster.relays.keys().take(3).cloned().collect();
    for n in 0..MESSAGES {
        writeln!(stdin, "message {n}").unwrap();
        stdin.flush().unwrap();
        assert_eq!(receive.line(), format!("message {n}"));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_taken_has_no_receipt() {
    let cluster = Cluster::start(4);
    let target = cluster.join().await;
    let mut inbox = target.receive("x").await.unwrap();
    let origin = cluster.join().await;
    let receipt = origin.send("x", "hello").await.unwrap();
    let message = inbox.recv().await.unwrap();
    assert_eq!((&message.payload()[..], message.from()), (&b"hello"[..], origin.id()));
    drop(message);
    let refused = timeout(TIMEOUT, receipt).await.expect("an end");
    assert!(matches!(refused, Err(SendError::Refused { .. })), "{refused:?}");
    let receipt = origin.send("x", "again").await.unwrap();
    let message = inbox.recv().await.unwrap();
    assert_eq!(message.take(), "again");
    timeout(TIMEOUT, receipt).await.expect("a receipt").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_message_is_a_message_and_a_too_long_one_is_refused_before_it_leaves() {
    let cluster = Cluster::start(4);
    let target = cluster.join().await;
    let mut inbox = target.receive("x").await.unwrap();
    let origin = cluster.join().await;
    for length in [0, MAX_MESSAGE_BYTES, 1, 0] {
        let receipt = origin.send("x", vec![7; length]).await.unwrap();
        let message = inbox.recv().await.unwrap();
        assert_eq!(message.take(), vec![7; length]);
        timeout(TIMEOUT, receipt).await.expect("a receipt").unwrap();
        let refused = origin.send("x", vec![7; MAX_MESSAGE_BYTES + 1]).await;
        assert!(
            matches!(refused, Err(SendError::TooLong { bytes }) if bytes == MAX_MESSAGE_BYTES + 1),
            "{refused:?}"
        );
    }
}

/// Sends, and gives what the receiver printed after its ready line, byte by byte, and what the sender said.
fn deliver(
    cluster: &Cluster,
    count: usize,
    how: &[&str],
    send: impl FnOnce(&mut Command),
) -> (Vec<u8>, String) {
    let mut receive = Command::new(HOPLINE);
    let count = count.to_string();
    receive.args(["receive", "x", "--count", &count]).args(how);
    let mut receive = with_ticket(&mut receive, cluster).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(receive.stdout.take().unwrap());
    let mut ready = String::new();
    out.read_line(&mut ready).unwrap();
    assert!(ready.starts_with("ready "), "{ready:?}");
    let printed = std::thread::spawn(move || {
        let mut printed = Vec::new();
        out.read_to_end(&mut printed).unwrap();
        printed
    });
    let mut sender = Command::new(HOPLINE);
    sender.args(["send", "x"]);
    send(with_ticket(&mut sender, cluster));
    let sent = sender.output().unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert!(receive.wait().unwrap().success());
    (printed.join().unwrap(), String::from_utf8(sent.stdout).unwrap())
}

fn with_ticket<'a>(command: &'a mut Command, cluster: &Cluster) -> &'a mut Command {
    command.env("XDG_STATE_HOME", cluster.home.path()).env("HOPLINE_TICKET", &cluster.ticket)
}

/// A command's standard input: a file of these bytes.
fn input(cluster: &Cluster, bytes: &[u8]) -> File {
    let path = cluster.home.path().join("input");
    std::fs::write(&path, bytes).unwrap();
    File::open(path).unwrap()
}

#[test]
fn messages_are_any_bytes_and_lines_end_at_newlines_alone() {
    let cluster = Cluster::start(3);
    let (lines, from) = (b"one\r\n\n\xff\xfe\nlast", |bytes: &[u8]| Stdio::from(input(&cluster, bytes)));
    let (printed, receipts) = deliver(&cluster, 4, &[], |send| {
        send.stdin(from(lines));
    });
    assert_eq!(printed, b"one\r\n\n\xff\xfe\nlast\n");
    assert_eq!(receipts.lines().count(), 4);
    let records = b"two\nlines\0\0\xff";
    let (printed, _) = deliver(&cluster, 3, &["--null"], |send| {
        send.arg("--null").stdin(from(records));
    });
    assert_eq!(printed, b"two\nlines\0\0\xff\0");
    let (printed, _) = deliver(&cluster, 1, &[], |send| {
        send.arg(OsStr::from_bytes(b"\xfe\xff"));
    });
    assert_eq!(printed, b"\xfe\xff\n");
    let noise = crate::fixture::pattern(1 << 20);
    let (printed, _) = deliver(&cluster, 2, &["--raw"], |send| {
        let file = cluster.home.path().join("file");
        std::fs::write(&file, b"\0\n").unwrap();
        send.arg("--raw").arg(file).args(["--raw", "-"]).stdin(from(&noise));
    });
    assert!(printed == [b"\0\n", &noise[..]].concat());
}

#[test]
fn objects_tell_messages_apart_whatever_is_in_them() {
    let cluster = Cluster::start(3);
    let (printed, receipts) = deliver(&cluster, 2, &["--json"], |send| {
        send.args(["--json", "two\nlines"]).arg(OsStr::from_bytes(b"\xff"));
    });
    let objects: Vec<serde_json::Value> = printed
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let [first, second] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!((&first["message"], &first["text"]), (&1.into(), &"two\nlines".into()));
    assert_eq!(first["base64"], "dHdvCmxpbmVz");
    assert_eq!((&second["message"], &second["base64"]), (&2.into(), &"/w==".into()));
    assert!(second.get("text").is_none() && second["from"].is_string());
    let receipt: serde_json::Value = serde_json::from_str(receipts.lines().next().unwrap()).unwrap();
    assert_eq!(receipt["delivered"], 1);
}

#[test]
fn a_line_that_is_too_long_is_refused_by_its_number_after_those_before_it() {
    let cluster = Cluster::start(3);
    let mut receive = cluster.serve(&["receive", "x"]);
    let text = [b"fine\n", &vec![b'x'; 40 << 20][..], b"\nnever"].concat();
    let sent = with_ticket(&mut Command::new(HOPLINE), &cluster)
        .args(["send", "x"])
        .stdin(input(&cluster, &text))
        .output()
        .unwrap();
    let stderr = String::from_utf8(sent.stderr).unwrap();
    assert_eq!(sent.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("message 2 of standard input: more than 1048576 bytes"), "{stderr}");
    assert!(sent.stdout.starts_with(b"delivered 1 "), "{:?}", sent.stdout);
    assert_eq!(receive.line(), "fine");
}
