//! Networks of IPv4, of IPv6 and of both, in every mixture that has a path, and hosts whose addresses change.

use crate::echo::{keep_sending, serve_echo};
use crate::fixture::{TIMEOUT, pattern, primary};
use hopline::bootstrap::{self, Server};
use hopline::endpoint::{self, Chain, Endpoint, ListenError, OpenError};
use hopline::relay::{self, Relay};
use hopline_lab::testbed::{Testbed, TestbedError};
use hopline_proto::enrolment;
use hopline_proto::families::Families;
use hopline_proto::machine::OpenFailure;
use hopline_proto::rpc::{Refusal, Status};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

const V4: Families = Families::V4;
const V6: Families = Families::V6;
const BOTH: Families = Families::BOTH;

/// The hosts of the bootstrap, the origin, the target, and the first relay.
const BOOTSTRAP: usize = 0;
const ORIGIN: usize = 1;
const TARGET: usize = 2;
const FIRST: usize = 3;
const PORT: u16 = 4433;

/// Who has which families.
#[derive(Clone, Copy, Debug)]
struct Case {
    bootstrap: Families,
    origin: Families,
    target: Families,
    relays: &'static [Families],
    hops: u8,
}

/// A network of which every member lives on a host of its own, with what are the defaults everywhere.
struct World {
    bed: Testbed,
    server: Server,
    relays: Vec<Relay>,
}

impl World {
    async fn start(case: &Case) -> Result<Self, TestbedError> {
        let hosts = [&[case.bootstrap, case.origin, case.target], case.relays].concat();
        let bed = Testbed::of(&hosts, 1)?;
        let host = bed.host(BOOTSTRAP);
        let all =
            [IpAddr::from(host.address()), host.address_v6().into()].map(|ip| SocketAddr::from((ip, PORT)));
        let has = |address: &&SocketAddr| case.bootstrap.meets(Families::of(address.ip()));
        let options = bootstrap::Options {
            listen: SocketAddr::new(bootstrap::Options::default().listen.ip(), PORT),
            advertise: all.iter().filter(has).map(ToString::to_string).collect(),
            ..bootstrap::Options::default()
        };
        let server = host.spawn(Server::start(options)).await.unwrap().unwrap();
        let mut world = Self { bed, server, relays: Vec::new() };
        for (families, host) in case.relays.iter().zip(FIRST..) {
            let relay = world.start_relay(host).await;
            let offered = Families::of_all(&relay.addresses());
            assert_eq!(offered, *families, "it offers what it serves: {:?}", relay.addresses());
            world.relays.push(relay);
        }
        Ok(world)
    }

    async fn start_relay(&self, host: usize) -> Relay {
        let options = relay::Options {
            name: Some(format!("r{}", host - FIRST)),
            enrolment: enrolment::Config::dev(),
            replay_bytes: 64 << 20,
            ..relay::Options::default()
        };
        let start = Relay::start(self.server.ticket().clone(), options);
        let mut relay = self.bed.host(host).spawn(start).await.unwrap().unwrap();
        relay.enrolled().await.unwrap();
        relay
    }

    async fn join(&self, host: usize, hops: u8) -> Endpoint {
        let options = endpoint::Options { hops, ..endpoint::Options::default() };
        self.bed
            .host(host)
            .spawn(Endpoint::join(self.server.ticket().clone(), options))
            .await
            .unwrap()
            .unwrap()
    }

    /// The relay that is called so.
    fn place(name: &str) -> usize {
        name.strip_prefix('r').and_then(|number| number.parse().ok()).unwrap()
    }

    /// Whether nothing is held against any relay but this one.
    fn is_nobody_blamed(&self, but: Option<&str>) -> bool {
        let is_well = |status| matches!(status, Status::Registered | Status::Online);
        self.server.inspect(|machine| {
            machine.pool().iter().all(|r| is_well(r.status) || Some(r.offer().name.as_str()) == but)
        })
    }

    fn offered(&self, name: &str) -> Vec<SocketAddr> {
        self.server.inspect(|machine| {
            let relay = machine.pool().iter().find(|relay| relay.offer().name == name).unwrap();
            relay.offer().addresses.clone()
        })
    }
}

/// Waits until it is so.
async fn until(what: &str, is_it: impl Fn() -> bool) -> Duration {
    let (began, mut ticks) = (Instant::now(), interval(Duration::from_millis(20)));
    let so = async {
        while !is_it() {
            ticks.tick().await;
        }
    };
    timeout(TIMEOUT, so).await.unwrap_or_else(|_| panic!("not so in time: {what}"));
    began.elapsed()
}

/// A flow that goes to and fro until it is told to stop.
struct Talk {
    parts: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    longest: JoinHandle<Duration>,
    chain: watch::Receiver<Chain>,
}

impl Talk {
    async fn begin(origin: &Endpoint, limit: Duration) -> Self {
        let flow = timeout(TIMEOUT, origin.open("echo")).await.expect("a flow").unwrap();
        let chain = flow.watch_chain();
        let parts = Arc::<AtomicUsize>::default();
        let (stop, stopped) = watch::channel(false);
        let counted = parts.clone();
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        let longest = tokio::spawn(keep_sending(flow, 0, limit, count, stopped));
        let talk = Self { parts, stop, longest, chain };
        talk.goes_on().await;
        talk
    }

    /// Waits until some more parts have returned.
    async fn goes_on(&self) {
        let now = || self.parts.load(Ordering::Relaxed);
        let enough = now() + 5;
        until("the flow goes on", || now() >= enough || self.longest.is_finished()).await;
    }

    /// The longest time that a part took.
    async fn end(self) -> Duration {
        self.stop.send_replace(true);
        self.longest.await.unwrap()
    }
}

/// Sends bytes there and back, and kills the first relay half-way.
async fn try_out(case: &Case) -> Result<(), TestbedError> {
    let world = World::start(case).await?;
    let (target, origin) = (world.join(TARGET, case.hops).await, world.join(ORIGIN, case.hops).await);
    timeout(TIMEOUT, serve_echo(&target)).await.expect("an attachment");
    let mut flow = timeout(TIMEOUT, origin.open("echo")).await.expect("a flow").unwrap();
    let chain = flow.watch_chain();
    let (sent, mut echoed) = (pattern(200_000), vec![0; 200_000]);
    let (first, rest) = echoed.split_at_mut(100_000);
    flow.write_all(&sent[..100_000]).await.unwrap();
    flow.flush().await.unwrap();
    timeout(TIMEOUT, flow.read_exact(first)).await.expect("the first half").unwrap();
    assert!(world.is_nobody_blamed(None), "whoever can't be reached for want of a family is not to blame");
    let killed = primary(&chain, 1);
    world.bed.isolate(FIRST + World::place(&killed));
    flow.write_all(&sent[100_000..]).await.unwrap();
    flow.shutdown().await.unwrap();
    timeout(TIMEOUT, flow.read_exact(rest)).await.expect("the second half").unwrap();
    assert!(echoed == sent, "what returned is what was sent");
    timeout(TIMEOUT, flow.finished()).await.expect("an end").unwrap();
    assert!(world.is_nobody_blamed(Some(&killed)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_go_wherever_there_is_a_path() {
    let cases = [
        Case { bootstrap: V6, origin: V6, target: V6, relays: &[V6; 4], hops: 2 },
        Case { bootstrap: BOTH, origin: BOTH, target: BOTH, relays: &[BOTH; 4], hops: 2 },
        Case { bootstrap: BOTH, origin: V4, target: V6, relays: &[BOTH; 4], hops: 2 },
        Case { bootstrap: V4, origin: BOTH, target: BOTH, relays: &[V4; 4], hops: 2 },
        Case { bootstrap: BOTH, origin: V4, target: V6, relays: &[V4, V4, BOTH, BOTH, V6, V6], hops: 2 },
        Case { bootstrap: BOTH, origin: V6, target: BOTH, relays: &[V4, V4, BOTH, BOTH, V4], hops: 3 },
    ];
    for case in cases {
        println!("{case:?}");
        if let Err(error) = timeout(TIMEOUT * 3, try_out(&case)).await.expect("an end in time") {
            return println!("SKIPPED: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_dial_nobody_is_told_so_and_blames_nobody() {
    let case = Case { bootstrap: BOTH, origin: V4, target: V6, relays: &[V6; 3], hops: 2 };
    let world = match World::start(&case).await {
        Ok(world) => world,
        Err(error) => return println!("SKIPPED: {error}"),
    };
    let (target, origin) = (world.join(TARGET, case.hops).await, world.join(ORIGIN, case.hops).await);
    serve_echo(&target).await;
    let opened = timeout(TIMEOUT, origin.open("echo")).await.expect("an answer");
    let refusal = Refusal::OutOfReach { dials: V4 };
    assert!(matches!(&opened, Err(OpenError::Route(OpenFailure::Refused(r))) if *r == refusal), "{opened:?}");
    let served = timeout(TIMEOUT, origin.listen("here")).await.expect("an answer");
    assert!(matches!(&served, Err(ListenError::Refused(r)) if *r == refusal), "{served:?}");
    assert!(world.is_nobody_blamed(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_address_changes_is_in_the_pool_with_the_new_one() {
    for families in [V4, BOTH] {
        let relays: &[Families] = if families == V4 { &[V4; 3] } else { &[BOTH; 3] };
        let case = Case { bootstrap: families, origin: families, target: families, relays, hops: 2 };
        let world = match World::start(&case).await {
            Ok(world) => world,
            Err(error) => return println!("SKIPPED: {error}"),
        };
        let (target, origin) = (world.join(TARGET, 2).await, world.join(ORIGIN, 2).await);
        serve_echo(&target).await;
        let talk = Talk::begin(&origin, TIMEOUT).await;
        let moved = primary(&talk.chain, 1);
        let (host, old) = (world.bed.host(FIRST + World::place(&moved)), world.offered(&moved));
        host.renumber().unwrap();
        let new =
            |address: &SocketAddr| [host.address().into(), host.address_v6().into()].contains(&address.ip());
        let took = until("the pool has the new address", || world.offered(&moved).iter().all(new)).await;
        let is_back = || world.is_nobody_blamed(None);
        let back = until("nothing is held against it", is_back).await;
        println!(
            "{families}: {old:?} became {:?} after {took:.1?}, good after {:.1?}",
            world.offered(&moved),
            took + back
        );
        assert_eq!(world.offered(&moved).len(), old.len());
        talk.goes_on().await;
        // Three hops over three relays: it is one of them.
        let all = timeout(TIMEOUT, origin.open_over("echo", 3)).await.expect("a flow").unwrap();
        drop(all);
        println!("the longest pause was {:.1?}", talk.end().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_outlive_other_addresses_of_their_ends_and_a_cut_of_everything() {
    const CUT: Duration = Duration::from_secs(20);
    let case = Case { bootstrap: BOTH, origin: BOTH, target: BOTH, relays: &[BOTH; 4], hops: 2 };
    let world = match World::start(&case).await {
        Ok(world) => world,
        Err(error) => return println!("SKIPPED: {error}"),
    };
    let (target, origin) = (world.join(TARGET, 2).await, world.join(ORIGIN, 2).await);
    serve_echo(&target).await;
    let talk = Talk::begin(&origin, CUT + TIMEOUT).await;
    for end in [ORIGIN, TARGET] {
        world.bed.host(end).renumber().unwrap();
        talk.goes_on().await;
    }
    let before = talk.end().await;
    assert!(before < TIMEOUT, "{before:?}");
    let talk = Talk::begin(&origin, CUT + TIMEOUT).await;
    (0..world.bed.len()).for_each(|host| world.bed.isolate(host));
    tokio::time::sleep(CUT).await;
    world.bed.heal_all();
    talk.goes_on().await;
    println!("other addresses: {before:.1?}; a cut of {CUT:?}: {:.1?}", talk.end().await);
}
