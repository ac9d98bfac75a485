//! Dials that are under way, and what the network says of the addresses that they go to.
//!
//! Without its word a dial to a relay that has just died would end only when the handshake takes too long, and whoever
//! was given that relay as a backup would have none until then.

use crate::net::address::is_same;
use crate::net::gate::Turned;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hopline_proto::id::NodeId;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// A dial that the network refuses is given as long again as it has lasted, and this: whoever lives there would answer about
/// as soon as the network did, and anybody can forge its word.
const GRACE: Duration = Duration::from_millis(10);
/// How long a dial at one address of a node has before the next is tried as well (RFC 8305, 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Peers of which it is remembered that they were said to be out of reach.
const MAX_BARRED: usize = 1024;

pub(super) type Dialled<T> = Result<T, Turned>;

/// See the module's documentation. There are as many as the machine has wishes.
#[derive(Debug, Default)]
pub(super) struct Dials {
    under_way: RefCell<Vec<(SocketAddr, oneshot::Sender<()>)>>,
    /// Who was said to be out of reach.
    barred: RefCell<HashSet<NodeId>>,
}

impl Dials {
    /// Ends when the network has said that nobody is at this address, which is dialled from now on, and the grace is over.
    pub(super) async fn refusal(&self, address: SocketAddr) {
        let since = Instant::now();
        let told = self.add(address);
        match told.await {
            Ok(()) => sleep(since.elapsed() + GRACE).await,
            Err(_) => std::future::pending().await,
        }
    }

    /// There is no way to `peer` from here. Returns whether that was not said before, as far as this is remembered.
    pub(super) fn is_barred_anew(&self, peer: NodeId) -> bool {
        let mut barred = self.barred.borrow_mut();
        if barred.len() >= MAX_BARRED {
            barred.clear();
        }
        barred.insert(peer)
    }

    fn add(&self, address: SocketAddr) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mut under_way = self.under_way.borrow_mut();
        under_way.retain(|(_, dial)| !dial.is_closed());
        under_way.push((address, tell));
        told
    }

    /// The network says that nobody is at this address.
    pub(super) fn refused(&self, address: SocketAddr) {
        let refused = |(dialled, _): &mut (SocketAddr, _)| is_same(*dialled, address);
        for (_, dial) in self.under_way.borrow_mut().extract_if(.., refused) {
            let _ = dial.send(());
        }
    }
}

/// What the first of these dials has that succeeds. Each begins when the one before has failed or its head start is over; the
/// others are given up. Without any success it is the last one's error.
pub(super) async fn first_of<T>(dials: impl Iterator<Item = impl Future<Output = Dialled<T>>>) -> Dialled<T> {
    let (mut dials, mut under_way) = (dials.peekable(), FuturesUnordered::new());
    let mut failure = "there is no address to dial".into();
    loop {
        under_way.extend(dials.next());
        let is_last = dials.peek().is_none();
        tokio::select! {
            ended = under_way.next() => match ended {
                Some(Ok(connection)) => return Ok(connection),
                Some(Err(error)) => failure = error,
                None => return Err(failure),
            },
            () = sleep(HEAD_START), if !is_last => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::authority::Authority;
    use crate::net::socket::HintingSocket;
    use crate::net::testing::{LOOPBACK, member};
    use crate::net::tls;
    use crate::net::transport::{self, TransportSettings};
    use std::net::UdpSocket;

    /// What becomes of a dial.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Answers,
        AnswersLate,
        Fails(&'static str),
        Hangs,
    }

    async fn dial(fate: Fate, place: usize, begun: &RefCell<Vec<usize>>) -> Dialled<usize> {
        begun.borrow_mut().push(place);
        match fate {
            Fate::Answers => {}
            Fate::AnswersLate => sleep(HEAD_START * 2).await,
            Fate::Fails(why) => return Err(why.into()),
            Fate::Hangs => std::future::pending().await,
        }
        Ok(place)
    }

    #[tokio::test]
    async fn the_next_address_is_dialled_after_a_failure_or_a_head_start_and_the_first_answer_counts() {
        use Fate::{Answers, AnswersLate, Fails, Hangs};
        struct Case<'a>(&'a [Fate], Result<usize, &'a str>, &'a [usize], u32);
        let cases = [
            Case(&[Answers, Hangs], Ok(0), &[0], 0),
            Case(&[Fails("a"), Answers, Hangs], Ok(1), &[0, 1], 0),
            Case(&[Hangs, Answers], Ok(1), &[0, 1], 1),
            Case(&[AnswersLate, Hangs, Fails("b")], Ok(0), &[0, 1], 2),
            Case(&[Fails("a"), Fails("b")], Err("b"), &[0, 1], 0),
            Case(&[], Err("there is no address to dial"), &[], 0),
        ];
        for Case(fates, expected, places, head_starts) in cases {
            let (begun, since) = (RefCell::default(), Instant::now());
            let dials = fates.iter().zip(0..).map(|(fate, place)| dial(*fate, place, &begun));
            let result = first_of(dials).await.map_err(|error| error.to_string());
            assert_eq!(result, expected.map_err(str::to_owned), "{fates:?}");
            assert!(begun.take().starts_with(places), "{fates:?}");
            assert!(since.elapsed() >= HEAD_START * head_starts, "{fates:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_dial_to_a_port_that_nobody_has_fails_long_before_its_handshake_would() {
        let (authority, settings) = (Authority::generate(), TransportSettings::default());
        let (near, far) = (member(&authority), member(&authority));
        let hints = HintingSocket::new(transport::open_socket(LOOPBACK, 0).unwrap()).unwrap();
        let secret = near.identity.reset_secret();
        let endpoint = transport::bind_socket(hints.clone(), None, &settings, &secret).unwrap();
        let nobody = UdpSocket::bind(LOOPBACK).unwrap().local_addr().unwrap();
        let dials = Dials::default();
        let client = tls::link_client(&near).unwrap();
        let name = tls::node_name(far.node_id());
        let mut connecting = endpoint.connect_with(client, nobody, &name.to_str()).unwrap();
        let hear = async {
            while let Ok(address) = hints.refused().await {
                dials.refused(address);
            }
        };
        let refused = tokio::select! {
            () = dials.refusal(nobody) => true,
            _ = &mut connecting => false,
            () = hear => false,
        };
        assert!(refused, "the handshake alone says nothing for seconds");
        assert_eq!(dials.under_way.borrow().len(), 0);
    }
}
