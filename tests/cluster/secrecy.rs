//! Relays see ciphertext only.

use crate::fixture::{Cluster, TIMEOUT};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};

/// Whether `needle` is anywhere in the writable memory of a process. `None` if its memory can't be read.
fn is_in_memory(process: u32, needle: &[u8]) -> Option<bool> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    let mut memory = File::open(format!("/proc/{process}/mem")).ok()?;
    let mut read_bytes = 0;
    for line in maps.lines().filter(|line| line.contains("rw-p")) {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let mut bytes = vec![0; usize::try_from(end - start).ok()?];
        if memory.seek(SeekFrom::Start(start)).is_err() || memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        read_bytes += bytes.len();
        if bytes.windows(needle.len()).any(|window| window == needle) {
            return Some(true);
        }
    }
    (read_bytes > 0).then_some(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_relay_has_the_plaintext_in_its_memory() {
    let cluster = Cluster::start(3);
    let echo = cluster.serve(&["listen", "x", "--echo", "--keep"]);
    let endpoint = cluster.join().await;
    let secret = b"the quick brown fox keeps a secret from every relay ";
    let flow = endpoint.open("x").await.unwrap();
    let (mut reader, mut writer) = split(flow);
    let data = secret.repeat(20_000);
    let mut returned = vec![0; data.len()];
    let send = async {
        writer.write_all(&data).await?;
        writer.flush().await
    };
    let exchange = async { tokio::try_join!(send, reader.read_exact(&mut returned)) };
    tokio::time::timeout(TIMEOUT, exchange).await.expect("a stall").unwrap();
    assert!(returned == data);
    match is_in_memory(echo.id(), secret) {
        Some(seen) => assert!(seen, "the search finds the plaintext where it must be"),
        None => return eprintln!("skipped: this user may not read the memory of its own child processes"),
    }
    for (name, relay) in &cluster.relays {
        assert_eq!(is_in_memory(relay.id(), secret), Some(false), "{name} has seen the plaintext");
    }
}
