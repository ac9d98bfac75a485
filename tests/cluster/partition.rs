//! A part of the relays can't reach the bootstrap for a while: nobody's flow notices, and the pool keeps its head.

use crate::echo::{keep_sending, serve_echo};
use crate::fixture::TIMEOUT;
use hopline::bootstrap::{self, Server};
use hopline::endpoint::{self, Endpoint};
use hopline::net::ticket::Ticket;
use hopline::relay::{self, Relay};
use hopline_lab::testbed::Testbed;
use hopline_proto::bootstrap::Config;
use hopline_proto::detector::Liveness;
use hopline_proto::enrolment;
use hopline_proto::id::NodeId;
use hopline_proto::pool;
use hopline_proto::rpc::Status;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

const RELAYS: usize = 20;
const LEASE: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_millis(750);
const FLOWS: usize = 2;
/// Neighbours that are patient with each other report nobody: this is about leases, and the machine may be busy.
const LIVENESS: Liveness = Liveness::Satellite;
/// The hosts of the bootstrap, the origin, the target, and the first relay.
const BOOTSTRAP: usize = 0;
const ORIGIN: usize = 1;
const TARGET: usize = 2;
const FIRST: usize = 3;

/// A network of which every member lives on a host of its own.
struct World {
    bed: Testbed,
    server: Server,
    relays: Vec<Relay>,
    returned: Arc<[AtomicUsize; FLOWS]>,
    stop: watch::Sender<bool>,
    flows: Vec<JoinHandle<Duration>>,
    _ends: [Endpoint; 2],
}

/// What a partition came to.
struct Outcome {
    /// When relays were taken for dead, since it began.
    evictions: Vec<Duration>,
    /// How long it took until the last of those that were cut off had its lease again.
    back: Duration,
    /// Parts that each flow brought back meanwhile.
    parts: [usize; FLOWS],
}

impl World {
    /// # Errors
    /// Why there is no testbed.
    async fn start() -> Result<Self, String> {
        let bed = Testbed::new(FIRST + RELAYS, 1).map_err(|error| error.to_string())?;
        let pool = pool::Config { lease: LEASE, ..pool::Config::default() };
        let policies = Config { pool, heartbeat: HEARTBEAT, ..Config::default() };
        let listen = SocketAddr::from((bed.host(BOOTSTRAP).address(), 0));
        let options = bootstrap::Options { listen, policies, ..bootstrap::Options::default() };
        let server = bed.host(BOOTSTRAP).spawn(Server::start(options)).await.unwrap().unwrap();
        let mut relays = Vec::new();
        for host in FIRST..FIRST + RELAYS {
            relays.push(start_relay(&bed, host, server.ticket()).await);
        }
        let join = async |host| {
            let options = endpoint::Options { liveness: LIVENESS.config(), ..endpoint::Options::default() };
            bed.host(host).spawn(Endpoint::join(server.ticket().clone(), options)).await.unwrap().unwrap()
        };
        let (origin, target) = (join(ORIGIN).await, join(TARGET).await);
        serve_echo(&target).await;
        let (stop, stopped) = watch::channel(false);
        let returned: Arc<[AtomicUsize; FLOWS]> = Arc::default();
        let mut flows = Vec::new();
        for n in 0..FLOWS {
            let flow = origin.open("echo").await.unwrap();
            let count = returned.clone();
            let count = move || {
                count[n].fetch_add(1, Ordering::Relaxed);
            };
            flows.push(tokio::spawn(keep_sending(flow, n, TIMEOUT, count, stopped.clone())));
        }
        Ok(Self { bed, server, relays, returned, stop, flows, _ends: [origin, target] })
    }

    /// How many parts each flow has brought back.
    fn parts(&self) -> [usize; FLOWS] {
        std::array::from_fn(|n| self.returned[n].load(Ordering::Relaxed))
    }

    fn statuses(&self) -> BTreeMap<NodeId, Status> {
        self.server.inspect(|machine| machine.pool().iter().map(|relay| (relay.node, relay.status)).collect())
    }

    /// Waits until every relay may be assigned.
    async fn whole(&self) {
        let mut ticks = interval(HEARTBEAT / 10);
        let whole = async {
            while self.statuses().values().filter(|status| is_good(status)).count() < RELAYS {
                ticks.tick().await;
            }
        };
        timeout(TIMEOUT, whole).await.expect("all relays in the pool");
    }

    /// Cuts this share of the relays off the bootstrap for five leases.
    async fn part(&self, percent: usize) -> Outcome {
        self.whole().await;
        let (cut, before, began) = (RELAYS * percent / 100, self.parts(), Instant::now());
        for relay in 0..cut {
            self.bed.cut(BOOTSTRAP, FIRST + relay);
        }
        let (mut evictions, mut known) = (Vec::new(), self.statuses());
        let mut ticks = interval(Duration::from_millis(10));
        while began.elapsed() < LEASE * 5 {
            ticks.tick().await;
            let now = self.statuses();
            let gone = |node: &&NodeId| now[*node] == Status::Offline && known[*node] != Status::Offline;
            evictions.extend(now.keys().filter(gone).map(|_| began.elapsed()));
            known = now;
        }
        let kept = known.values().filter(|status| is_good(status)).count();
        assert!(
            self.is_noticed(cut, kept, evictions.len()),
            "{kept} kept, {} evicted: {known:?}",
            evictions.len()
        );
        let after = self.parts();
        let back = self.heal(cut).await;
        self.whole().await;
        Outcome { evictions, back, parts: std::array::from_fn(|n| after[n] - before[n]) }
    }

    /// Whether the bootstrap misses those that are cut off: they are evicted or suspect, or so many are silent that it keeps
    /// them all.
    fn is_noticed(&self, cut: usize, kept: usize, evicted: usize) -> bool {
        let preserving = self.server.inspect(|machine| machine.pool().preserving_since().is_some());
        kept == RELAYS - cut || (preserving && evicted < cut)
    }

    /// Heals everything, and waits until those that were cut off have been heard.
    async fn heal(&self, cut: usize) -> Duration {
        let heard = self.relays[..cut].iter().map(|relay| {
            let mut changes = relay.enrolment();
            async move {
                use enrolment::Change::{Registered, Renewed};
                while !matches!(changes.recv().await.unwrap(), Registered | Renewed) {}
            }
        });
        let heard: Vec<_> = heard.map(tokio::spawn).collect();
        let healed = Instant::now();
        self.bed.heal_all();
        for heard in heard {
            timeout(TIMEOUT, heard).await.expect("a relay that comes back").unwrap();
        }
        healed.elapsed()
    }

    /// Ends the flows, which must have lost nothing: the longest pause that any of them made.
    async fn finish(self) -> Duration {
        self.stop.send_replace(true);
        let mut longest = Duration::ZERO;
        for flow in self.flows {
            longest = longest.max(timeout(TIMEOUT, flow).await.expect("a stall").unwrap());
        }
        longest
    }
}

const fn is_good(status: &Status) -> bool {
    matches!(status, Status::Registered | Status::Online)
}

async fn start_relay(bed: &Testbed, host: usize, ticket: &Ticket) -> Relay {
    let options = relay::Options {
        listen: SocketAddr::from((bed.host(host).address(), 0)),
        name: Some(format!("r{}", host - FIRST + 1)),
        enrolment: enrolment::Config::dev(),
        liveness: LIVENESS.config(),
        replay_bytes: 64 << 20,
        ..relay::Options::default()
    };
    let mut relay = bed.host(host).spawn(Relay::start(ticket.clone(), options)).await.unwrap().unwrap();
    relay.enrolled().await.unwrap();
    relay
}

/// The most evictions within one window. Those count from when a relay becomes suspect, a sixth of a lease before it is given
/// up, or more if that has to wait.
fn most_at_once(evictions: &[Duration]) -> usize {
    let window = LEASE / 2;
    let within =
        |from: &Duration| evictions.iter().filter(|at| **at >= *from && **at < *from + window).count();
    evictions.iter().map(within).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_ends_no_flow_and_empties_no_pool() {
    let world = match World::start().await {
        Ok(world) => world,
        Err(why) => return println!("SKIPPED: {why}"),
    };
    // A relay that is cut off asks at least so often, and a question may be under way, in vain, when the cut heals.
    let limit = enrolment::Config::dev();
    let back = limit.backoff_max * (100 + limit.jitter_percent) / 100 + Duration::from_secs(5);
    let most = (RELAYS * 15 / 100).max(3);
    println!(
        "| cut off | evicted | at most in one window | all back after | parts that returned |\n|---|---|---|---|---|"
    );
    for percent in [20, 50, 100] {
        let outcome = world.part(percent).await;
        let at_once = most_at_once(&outcome.evictions);
        let Outcome { evictions, back: took, parts } = outcome;
        println!("| {percent} % of {RELAYS} | {} | {at_once} | {took:.1?} | {parts:?} |", evictions.len());
        assert!(at_once <= most, "{evictions:?}");
        assert!(took <= back, "{took:?} is more than {back:?}");
        assert!(parts.iter().all(|parts| *parts >= 10), "{parts:?}");
    }
    println!("the longest time that a part took: {:?}", world.finish().await);
}
