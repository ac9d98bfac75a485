//! What a program that uses the library relies on.

use crate::fixture::{Cluster, TIMEOUT};
use futures_util::FutureExt;
use hopline::{Chain, Endpoint, FlowError, ListenError, SendError, StartError};
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime;
use tokio::time::{interval, timeout};

#[test]
fn an_endpoint_joins_on_a_runtime_and_is_used_from_any_other() {
    let cluster = Cluster::start(3);
    let builder = || Endpoint::builder().ticket(cluster.ticket.parse().unwrap()).hops(1);
    let joined = builder().join().now_or_never().expect("an answer at once");
    assert!(matches!(joined, Err(StartError::NoRuntime)), "{joined:?}");
    let joins_on = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let endpoint = joins_on.block_on(builder().join()).unwrap();
    // Without timers, and without I/O.
    let bare = runtime::Builder::new_current_thread().build().unwrap();
    bare.block_on(async {
        let mut listener = endpoint.listen("x").await.unwrap();
        let (mut send, _receive) = endpoint.open("x").await.unwrap().split();
        send.write_all(b"!").await.unwrap();
        send.flush().await.unwrap();
        assert_eq!(listener.accept().await.unwrap().read_u8().await.unwrap(), b'!');
        endpoint.shutdown().await;
    });
}

#[tokio::test]
async fn a_name_that_is_not_listened_to_any_more_is_free_at_once() {
    let cluster = Cluster::start(3);
    let [one, other] = [cluster.join().await, cluster.join().await];
    let first = one.listen("x").await.unwrap();
    let second = one.listen("x").now_or_never().expect("an answer at once");
    assert!(matches!(second, Err(ListenError::Twice { .. })), "{second:?}");
    assert!(other.listen("x").await.is_err(), "it is taken");
    drop(first);
    let again = timeout(TIMEOUT, one.listen("x")).await.expect("an answer").unwrap();
    drop(again);
    // Long before the lease ends, which the endpoint keeps.
    let mut ticks = interval(Duration::from_millis(20));
    let freed = async {
        loop {
            ticks.tick().await;
            match other.listen("x").await {
                Ok(listener) => return listener,
                Err(error) => assert!(matches!(error, ListenError::Refused(_)), "{error}"),
            }
        }
    };
    let _freed = timeout(TIMEOUT, freed).await.expect("it is free");
    assert!(one.listen("x").await.is_err(), "now it is the other's");
    one.listen("y").await.unwrap();
}

#[tokio::test]
async fn a_name_takes_flows_or_messages_or_both() {
    let cluster = Cluster::start(3);
    let [target, origin] = [cluster.join().await, cluster.join().await];
    let mut inbox = target.receive("x").await.unwrap();
    let mut refused = origin.open("x").await.unwrap();
    let error = timeout(TIMEOUT, refused.read(&mut [0])).await.expect("an end").unwrap_err();
    assert!(error.to_string().contains("\"x\" takes messages, not flows"), "{error}");
    let mut listener = target.listen("x").await.unwrap();
    let (mut flow, receipt) = (origin.open("x").await.unwrap(), origin.send("x", "hello").await.unwrap());
    flow.write_all(b"!").await.unwrap();
    flow.flush().await.unwrap();
    assert_eq!(timeout(TIMEOUT, inbox.recv()).await.expect("a message").unwrap().take(), "hello");
    timeout(TIMEOUT, receipt).await.expect("a receipt").unwrap();
    let came = timeout(TIMEOUT, listener.accept()).await.expect("a flow").unwrap();
    assert_eq!((came.id(), came.peer()), (flow.id(), origin.id()));
    inbox.close("it has heard enough");
    let refused = async { origin.send("x", "more").await?.await };
    let error = timeout(TIMEOUT, refused).await.expect("an end").unwrap_err();
    assert!(matches!(error, SendError::Refused { .. }), "{error}");
    target.shutdown().await;
    assert!(listener.accept().await.is_none());
}

#[tokio::test]
async fn a_direction_is_finished_when_the_application_at_the_other_end_took_everything() {
    let cluster = Cluster::start(3);
    let [target, origin] = [cluster.join().await, cluster.join().await];
    let mut listener = target.listen("x").await.unwrap();
    let (mut send, mut receive) = origin.open("x").await.unwrap().split();
    send.write_all(b"question").await.unwrap();
    let (mut answer, mut question) = {
        let mut finishing = pin!(send.finish());
        let came = tokio::select! {
            biased;
            ended = &mut finishing => panic!("nobody has taken anything: {ended:?}"),
            flow = listener.accept() => flow.unwrap(),
        };
        let (answer, mut question) = came.split();
        let mut heard = String::new();
        let read = timeout(TIMEOUT, question.read_to_string(&mut heard));
        tokio::select! {
            biased;
            ended = &mut finishing => panic!("it was only read: {ended:?}"),
            read = read => read.expect("the end").unwrap(),
        };
        assert_eq!(heard, "question");
        (answer, question)
    };
    assert_eq!(question.read(&mut [0]).await.unwrap(), 0);
    drop(question);
    timeout(TIMEOUT, send.finish()).await.expect("it was taken").unwrap();
    answer.write_all(b"answer").await.unwrap();
    let taken = async {
        let mut heard = String::new();
        receive.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
        drop(receive);
    };
    let (finished, ()) =
        timeout(TIMEOUT, async { tokio::join!(answer.finish(), taken) }).await.expect("an end");
    finished.unwrap();
    timeout(TIMEOUT, send.finish()).await.expect("it is over").unwrap();
}

#[tokio::test]
async fn a_half_that_is_dropped_before_its_end_aborts_the_flow() {
    let cluster = Cluster::start(3);
    let [target, origin] = [cluster.join().await, cluster.join().await];
    let mut listener = target.listen("x").await.unwrap();
    for drops_sender in [true, false] {
        let (mut send, receive) = origin.open("x").await.unwrap().split();
        send.write_all(b"!").await.unwrap();
        send.flush().await.unwrap();
        let mut came = timeout(TIMEOUT, listener.accept()).await.expect("a flow").unwrap();
        let _kept = if drops_sender {
            drop(send);
            (None, Some(receive))
        } else {
            drop(receive);
            (Some(send), None)
        };
        let broken = async {
            let mut heard = Vec::new();
            came.read_to_end(&mut heard).await
        };
        let error = timeout(TIMEOUT, broken).await.expect("an end").unwrap_err();
        assert!(error.get_ref().is_some_and(|error| error.is::<FlowError>()), "{error}");
        assert!(error.to_string().contains("dropped the flow before the end"), "{error}");
    }
}

#[tokio::test]
async fn a_flows_chain_shows_a_failover_and_is_protected_again() {
    let mut cluster = Cluster::start(6);
    let [target, origin] = [cluster.join().await, cluster.join().await];
    let _listener = target.listen("x").await.unwrap();
    let mut flow = origin.open_over("x", 2).await.unwrap();
    let mut chain = flow.watch_chain();
    let relay = chain.borrow().primary(1).expect("a chain").to_owned();
    timeout(TIMEOUT, chain.wait_for(Chain::is_protected)).await.expect("backups").unwrap();
    cluster.kill(&relay);
    let is_repaired = |chain: &Chain| !chain.carries(&relay) && chain.is_protected();
    let repaired = timeout(TIMEOUT, chain.wait_for(is_repaired)).await.expect("a repair").unwrap().clone();
    assert!(repaired.failovers() >= 1 && repaired.hops().len() == 2, "{repaired:?}");
    flow.shutdown().await.unwrap();
    drop(flow);
    let over = async { while chain.changed().await.is_ok() {} };
    timeout(TIMEOUT, over).await.expect("the flow is over");
}

#[tokio::test]
async fn a_flow_of_an_endpoint_that_is_shut_down_says_so_at_either_end() {
    let cluster = Cluster::start(3);
    let [target, origin] = [cluster.join().await, cluster.join().await];
    let mut listener = target.listen("x").await.unwrap();
    let mut flow = origin.open("x").await.unwrap();
    flow.write_all(b"!").await.unwrap();
    flow.flush().await.unwrap();
    let mut came = timeout(TIMEOUT, listener.accept()).await.expect("a flow").unwrap();
    assert_eq!(came.read_u8().await.unwrap(), b'!');
    origin.shutdown_because("the office closes").await;
    let here = timeout(TIMEOUT, flow.read(&mut [0])).await.expect("an end").unwrap_err();
    assert!(here.to_string().contains("this endpoint was shut down"), "{here}");
    let there = timeout(TIMEOUT, came.read(&mut [0])).await.expect("an end").unwrap_err();
    assert!(there.to_string().contains("the office closes"), "{there}");
}
