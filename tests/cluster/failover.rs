//! Relays die under a flow, and the flow does not notice.

use crate::fixture::{Cluster, Signal, TIMEOUT, pattern, primary, until};
use hopline::endpoint::{Chain, Endpoint, Flow};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::watch;
use tokio::time::timeout;

/// Sends `data` to the echo in parts and kills, before each part but the first, the relay that serves the next hop.
async fn echo_through_kills(
    cluster: &mut Cluster,
    endpoint: &Endpoint,
    hops: &[u8],
    data: &[u8],
) -> watch::Receiver<Chain> {
    let flow = endpoint.open("echo").await.unwrap();
    let chain = flow.watch_chain();
    let (mut reader, mut writer) = split(flow);
    let part = data.len() / (hops.len() + 1);
    let mut returned = vec![0; part];
    for (n, sent) in data.chunks(part).enumerate() {
        if let Some(hop) = n.checked_sub(1).and_then(|n| hops.get(n)) {
            let victim = primary(&chain, *hop);
            cluster.kill(&victim);
        }
        returned.resize(sent.len(), 0);
        let exchange = async { tokio::try_join!(send(&mut writer, sent), reader.read_exact(&mut returned)) };
        timeout(TIMEOUT, exchange).await.expect("a stall").unwrap();
        assert!(returned == sent, "part {n} came back altered");
    }
    writer.shutdown().await.unwrap();
    assert_eq!(reader.read(&mut [0]).await.unwrap(), 0, "nothing comes after the end");
    timeout(TIMEOUT, reader.unsplit(writer).finished()).await.expect("a stall").unwrap();
    chain
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_of_each_hop_is_killed_in_turn() {
    let mut cluster = Cluster::start(9);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let endpoint = cluster.join().await;
    let chain = echo_through_kills(&mut cluster, &endpoint, &[1, 2, 3], &pattern(8 << 20)).await;
    // The next kill does not wait for the last repair, so a repair may be a whole new chain.
    assert!(chain.borrow().failovers() >= 1, "nothing was repaired");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstrap_is_frozen_meanwhile() {
    let mut cluster = Cluster::start(8);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let endpoint = cluster.join().await;
    // The flow is opened by the time that its first bytes return; the bootstrap freezes before the first kill.
    let mut flow = endpoint.open("echo").await.unwrap();
    let chain = flow.watch_chain();
    cluster.bootstrap.signal(Signal::STOP);
    let data = pattern(1 << 20);
    for hop in [1, 2, 3] {
        let victim = primary(&chain, hop);
        cluster.kill(&victim);
        assert_echo(&mut flow, &data).await;
    }
    cluster.bootstrap.signal(Signal::CONT);
    flow.shutdown().await.unwrap();
    assert_eq!(flow.read(&mut [0]).await.unwrap(), 0);
    timeout(TIMEOUT, flow.finished()).await.expect("a stall").unwrap();
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> std::io::Result<()> {
    writer.write_all(data).await?;
    writer.flush().await
}

async fn assert_echo(flow: &mut Flow, data: &[u8]) {
    let mut returned = vec![0; data.len()];
    let (mut reader, mut writer) = split(&mut *flow);
    let exchange = async { tokio::try_join!(send(&mut writer, data), reader.read_exact(&mut returned)) };
    timeout(TIMEOUT, exchange).await.expect("a stall").unwrap();
    assert!(returned == data, "it came back altered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_flow_is_answered_though_its_relays_die() {
    let mut cluster = Cluster::start(8);
    let target = cluster.join().await;
    let mut listener = target.listen("answerer").await.unwrap();
    let endpoint = cluster.join().await;
    let mut flow = endpoint.open("answerer").await.unwrap();
    let mut chain = flow.watch_chain();
    flow.write_all(b"hello").await.unwrap();
    flow.shutdown().await.unwrap();
    let mut incoming = listener.accept().await.expect("a flow comes in");
    let mut question = Vec::new();
    incoming.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"hello");
    // Half closed, and idle: every hop dies before a byte of the answer is sent.
    for hop in [2, 3, 1] {
        let victim = primary(&chain, hop);
        cluster.kill(&victim);
        until(&mut chain, |chain| !chain.carries(&victim)).await;
    }
    let answer = pattern(3 << 20);
    let send = async {
        incoming.write_all(&answer).await?;
        incoming.shutdown().await?;
        incoming.finished().await.map_err(std::io::Error::from)
    };
    let receive = async {
        let mut received = Vec::new();
        flow.read_to_end(&mut received).await?;
        assert!(received == answer, "the answer came altered");
        flow.finished().await.map_err(std::io::Error::from)
    };
    let both = async { tokio::try_join!(send, receive) };
    timeout(TIMEOUT, both).await.expect("a stall").map(|_: ((), ())| ()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_pipes_through_a_kill() {
    let mut cluster = Cluster::start(8);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let data = pattern(4 << 20);
    let mut pipe = cluster.start_process(&["pipe", "echo", "--hops", "1"]);
    let mut stdin = pipe.stdin();
    let text: String = data.iter().map(|byte| char::from(b'a' + byte % 16)).collect();
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    use std::io::Write;
    writeln!(stdin, "{}", lines[0]).unwrap();
    assert_eq!(pipe.line(), lines[0]);
    // With one hop it is the target's first attachment relay that serves.
    let status = cluster.run(&["status", "--json"], b"");
    let listing: serde_json::Value = serde_json::from_str(&status.stdout[0]).unwrap();
    let victim = listing["targets"][0]["attachments"][0].as_str().unwrap().to_owned();
    cluster.kill(&victim);
    let writer = std::thread::spawn({
        let rest: Vec<String> = lines[1..].iter().map(|line| (*line).to_owned()).collect();
        move || rest.iter().try_for_each(|line| writeln!(stdin, "{line}")).unwrap()
    });
    let ended = pipe.finish();
    writer.join().unwrap();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout == lines[1..], "what returned is what was sent");
}
