//! A real bootstrap with many members, each over a connection of its own, on loopback.
//!
//! The members are relays as far as the bootstrap can tell: registered, with a lease, and heartbeating when it says. They are
//! all in this process, behind a few UDP sockets, and carry nothing. Their certificates are signed here, with the
//! network's key from the bootstrap's directory: how fast newcomers are admitted is not measured.
//!
//! Members are added until there are as many as asked for, or until one can't be: what limits them is told.

use super::times::{Spread, Times};
use super::{Args, MIB, load, proc_bytes, registration, resident_bytes};
use crate::bench::{ANYWHERE, Exit, Failure};
use crate::stage::{Process, Stage};
use futures_util::stream::{self, StreamExt};
use hopline::bootstrap::Limits;
use hopline::net::authority::{Authority, DEFAULT_VALIDITY};
use hopline::net::bootstrap_client::Cause;
use hopline::net::bootstrap_rpc::{
    BootstrapClose, BootstrapRequest, BootstrapResponse, MAX_BOOTSTRAP_RESPONSE_BYTES,
};
use hopline::net::clock::Clock;
use hopline::net::frames::{self, Unfinished};
use hopline::net::identity::{Identity, Membership};
use hopline::net::tls::{self, BOOTSTRAP_NAME};
use hopline::net::transport::{self, TransportSettings};
use hopline_proto::rpc::{Heartbeat, Lease, Refusal, Request, Response};
use indicatif::ProgressBar;
use quinn::{ClientConfig, Connection, Endpoint};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// The bootstrap's data directory.
const DATA: &str = "bootstrap-data";
/// What a bootstrap does unless told otherwise.
const USUAL_HEARTBEAT: Duration = Duration::from_secs(10);
/// More requests a second than can be: what fits is to be measured, not what is let in.
const UNLIMITED: &str = "1000000";
/// UDP sockets that the members share.
const ENDPOINTS: usize = 4;
/// Members that connect at once: well below what a bootstrap takes.
const CONNECTING: usize = 32;
/// How long a handshake, or an answer, may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No more members are added when less memory than this is free. It is looked at after each so many.
const SPARE_BYTES: f64 = 512.0 * MIB;
const LOOK_EVERY: usize = 100;
/// Connections that send as many heartbeats as fit, and for how long at most.
const EAGER: usize = 64;
const EAGER_TIME: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measured {
    pub(super) connections: usize,
    /// Why there are not more, if more were asked for.
    pub(super) limited_by: Option<String>,
    /// Handshake and registration.
    pub(super) connections_per_second: f64,
    pub(super) heartbeat_seconds: f64,
    /// Relays that the bootstrap held for online at the end.
    pub(super) online: u32,
    pub(super) paced: Load,
    pub(super) resident_bytes_before: f64,
    pub(super) resident_bytes_after: f64,
    pub(super) resident_kib_per_connection: f64,
    pub(super) saturated_connections: usize,
    pub(super) saturated: Load,
}

/// Heartbeats for a while.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Load {
    pub(super) seconds: f64,
    pub(super) heartbeats_per_second: f64,
    pub(super) latency_ms: Spread,
    /// Of the bootstrap's process, in percent of a core.
    pub(super) cpu_percent: f64,
    /// Heartbeats that were not answered with a lease, and why the first was not.
    pub(super) failures: u64,
    pub(super) failure: Option<String>,
}

pub(super) async fn measure(args: &Args, stage: &Stage, screen: &ProgressBar) -> Result<Measured, Failure> {
    let (mut bootstrap, door) = open(args, stage).await?;
    screen.set_message("making certificates");
    let configs = certified(stage, args.connections)?;
    let resident_bytes_before = resident(&bootstrap)?;
    let (stats, mut paced) = (Arc::new(HeartbeatStats::new()?), JoinSet::new());
    let start = Instant::now();
    let (members, limited_by) = gather(&door, configs, &stats, &mut paced, screen).await;
    let (connections, connecting) = (members.len(), start.elapsed());
    if members.is_empty() {
        let why = limited_by.unwrap_or_default();
        return Err(bootstrap.failure(&format!("lets nobody in: {why}")));
    }
    screen.set_message(format!("{connections} connections, until each has sent a heartbeat"));
    alive(&mut bootstrap, args.heartbeat).await?;
    screen.set_message(format!("{connections} connections, heartbeats every {:?}", args.heartbeat));
    let length = Duration::from_secs(args.seconds.into());
    let (paced_load, online) = observe(&mut bootstrap, &stats, length).await?;
    let resident_bytes_after = resident(&bootstrap)?;
    drop(paced);
    let eager = members.get(..EAGER).unwrap_or(&members);
    screen.set_message(format!("{} connections, as many heartbeats as fit", eager.len()));
    let saturated = saturate(&mut bootstrap, &stats, eager, length.min(EAGER_TIME)).await?;
    door.close();
    let grown = (resident_bytes_after - resident_bytes_before).max(0.0);
    Ok(Measured {
        connections,
        limited_by,
        connections_per_second: connections as f64 / connecting.as_secs_f64(),
        heartbeat_seconds: args.heartbeat.as_secs_f64(),
        online,
        paced: paced_load,
        resident_bytes_before,
        resident_bytes_after,
        resident_kib_per_connection: grown / 1024.0 / connections as f64,
        saturated_connections: eager.len(),
        saturated,
    })
}

/// A bootstrap that serves, and the way to it.
async fn open(args: &Args, stage: &Stage) -> Result<(Process, Door), Failure> {
    let heartbeat = format!("{}ms", args.heartbeat.as_millis());
    let mut arguments = vec!["bootstrap", "--data", DATA];
    arguments.extend(["--max-requests", UNLIMITED, "--max-requests-per-member", UNLIMITED]);
    if args.heartbeat != USUAL_HEARTBEAT {
        arguments.extend(["--heartbeat", &heartbeat]);
    }
    let mut bootstrap = stage.start("bootstrap", None, &arguments)?;
    let ready = bootstrap.ready().await?;
    let address = ready.get("addr").and_then(|address| address.as_str()?.parse().ok());
    let door = Door::new(address.ok_or_else(|| bootstrap.failure("told no address"))?)?;
    Ok((bootstrap, door))
}

/// TLS configurations of so many members, each with a key of its own.
fn certified(stage: &Stage, count: u32) -> Result<Vec<ClientConfig>, Failure> {
    let failed = |error: String| Failure::new(Exit::Failed, error);
    let authority = Authority::load_or_create(&stage.directory().join(DATA));
    let authority = authority.map_err(|error| failed(error.to_string()))?;
    let member = |_| {
        let identity = Arc::new(Identity::generate());
        let issued = authority.issue(identity.public_key(), DEFAULT_VALIDITY, Clock::wall());
        let membership = Membership::new(identity, issued, authority.public_key());
        tls::bootstrap_client(&membership).map_err(|error| failed(error.to_string()))
    };
    (0..count).map(member).collect()
}

fn resident(process: &Process) -> Result<f64, Failure> {
    resident_bytes(process.id().ok_or_else(|| process.failure("ended"))?)
}

/// Connects and registers members, each of which heartbeats from then on in `paced`. Gives them, and what kept the next one
/// out.
async fn gather(
    door: &Door,
    configs: Vec<ClientConfig>,
    stats: &Arc<HeartbeatStats>,
    paced: &mut JoinSet<()>,
    screen: &ProgressBar,
) -> (Vec<Arc<Member>>, Option<String>) {
    let wanted = configs.len();
    let numbered = configs.into_iter().zip(0u32..);
    let mut joining =
        stream::iter(numbered.map(|(config, number)| door.join(config, number))).buffer_unordered(CONNECTING);
    let mut members = Vec::with_capacity(wanted);
    while let Some(joined) = joining.next().await {
        let (member, wait) = match joined {
            Ok(joined) => joined,
            Err(cause) => return (members, Some(limit(&cause))),
        };
        let member = Arc::new(member);
        paced.spawn(Arc::clone(&member).keep_up(wait, Arc::clone(stats)));
        members.push(member);
        if members.len() % LOOK_EVERY == 0 {
            screen.set_message(format!("{} of {wanted} connections", members.len()));
            if let Some(full) = memory_limit() {
                return (members, Some(full));
            }
        }
    }
    (members, None)
}

/// Why there can't be another member.
fn limit(cause: &NoLease) -> String {
    let Limits { admission, members, .. } = Limits::default();
    if let NoLease::Unheard(Cause::Overloaded) = cause {
        let handshakes = admission.proven.most;
        format!("the bootstrap's own limits: {members} members' connections, {handshakes} handshakes at once")
    } else {
        cause.to_string()
    }
}

/// Why there should not be another one.
fn memory_limit() -> Option<String> {
    let free = proc_bytes("/proc/meminfo", "MemAvailable:").ok().filter(|free| *free < SPARE_BYTES)?;
    let mib = |bytes: f64| bytes / MIB;
    Some(format!("memory: {:.0} MiB are free, and {:.0} are left alone", mib(free), mib(SPARE_BYTES)))
}

/// Sees to it that the bootstrap lives so long.
async fn alive(bootstrap: &mut Process, length: Duration) -> Result<(), Failure> {
    tokio::select! {
        () = sleep(length) => Ok(()),
        failure = bootstrap.death() => Err(failure),
    }
}

/// Counts heartbeats for so long; how many relays are online, too.
async fn observe(
    bootstrap: &mut Process,
    stats: &HeartbeatStats,
    length: Duration,
) -> Result<(Load, u32), Failure> {
    stats.take()?;
    let (start, cpu) = (Instant::now(), bootstrap.cpu_seconds());
    alive(bootstrap, length).await?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = bootstrap.cpu_seconds() - cpu;
    let Counted { times, failures, failure, online } = stats.take()?;
    let load = Load {
        seconds,
        heartbeats_per_second: times.count() as f64 / seconds,
        latency_ms: times.ms(),
        cpu_percent: cpu / seconds * 100.0,
        failures,
        failure,
    };
    Ok((load, online))
}

/// Has these members send one heartbeat after the other.
async fn saturate(
    bootstrap: &mut Process,
    stats: &Arc<HeartbeatStats>,
    members: &[Arc<Member>],
    length: Duration,
) -> Result<Load, Failure> {
    let mut eager = JoinSet::new();
    for member in members {
        let (member, stats) = (Arc::clone(member), Arc::clone(stats));
        eager.spawn(member.keep_on(stats));
    }
    Ok(observe(bootstrap, stats, length).await?.0)
}

/// Where members come in.
struct Door {
    address: SocketAddr,
    endpoints: Vec<Endpoint>,
    transport: Arc<quinn::TransportConfig>,
}

impl Door {
    fn new(address: SocketAddr) -> Result<Self, Failure> {
        let settings = TransportSettings::control();
        let secret = Identity::generate().reset_secret();
        let endpoint = || transport::bind(ANYWHERE, None, &settings, &secret);
        let endpoints = (0..ENDPOINTS).map(|_| endpoint()).collect::<Result<_, _>>();
        let endpoints = endpoints.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        Ok(Self { address, endpoints, transport: transport::transport(&settings) })
    }

    /// A member that is connected and registered, and when its first heartbeat is due.
    async fn join(&self, mut config: ClientConfig, number: u32) -> Result<(Member, Duration), NoLease> {
        config.transport_config(Arc::clone(&self.transport));
        let place = number as usize % self.endpoints.len().max(1);
        let endpoint = self.endpoints.get(place).ok_or(Cause::NoAddress)?;
        let connecting = endpoint.connect_with(config, self.address, BOOTSTRAP_NAME).map_err(Cause::Dial)?;
        let connection = in_time(async { Ok(connecting.await?) }).await?;
        let lease = lease(&connection, registration(number)).await?;
        let key_epoch = lease.keys.last().map(|(epoch, _)| *epoch);
        Ok((Member { connection, sequence: AtomicU64::new(0), key_epoch }, lease.next_heartbeat))
    }

    /// Ends all connections.
    fn close(&self) {
        let code = BootstrapClose::Done;
        for endpoint in &self.endpoints {
            endpoint.close(code.number().into(), code.as_str().as_bytes());
        }
    }
}

/// A relay as far as the bootstrap can tell.
struct Member {
    connection: Connection,
    sequence: AtomicU64,
    key_epoch: Option<u32>,
}

impl Member {
    /// Sends a heartbeat whenever one is due, until the connection breaks.
    async fn keep_up(self: Arc<Self>, mut wait: Duration, stats: Arc<HeartbeatStats>) {
        while self.connection.close_reason().is_none() {
            sleep(wait).await;
            if let Ok(lease) = self.heartbeat(&stats).await {
                wait = lease.next_heartbeat;
            }
        }
    }

    /// Sends one after the other, until the connection breaks.
    async fn keep_on(self: Arc<Self>, stats: Arc<HeartbeatStats>) {
        while self.connection.close_reason().is_none() {
            let _ = self.heartbeat(&stats).await; // the statistics know how that went
        }
    }

    async fn heartbeat(&self, stats: &HeartbeatStats) -> Result<Lease, NoLease> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let (sent_at, load, key_epoch) = (Clock::wall(), load(sequence), self.key_epoch);
        let request = Request::Heartbeat(Heartbeat { sequence, sent_at, load, key_epoch });
        let start = Instant::now();
        let answered = lease(&self.connection, request).await;
        stats.count(start.elapsed(), &answered);
        answered
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, Cause>>) -> Result<T, Cause> {
    timeout(TIMEOUT, work).await.unwrap_or(Err(Cause::NoAnswer { within: TIMEOUT }))
}

/// One question on a stream of its own, as every member asks it.
async fn ask(connection: &Connection, request: Request) -> Result<Response, Cause> {
    let (sender, mut receiver) = connection.open_bi().await?;
    let mut sender = Unfinished::new(sender, BootstrapClose::Cancelled.number());
    frames::write_frame(&mut sender, &BootstrapRequest::Ask(request)).await?;
    sender.finish();
    let response = frames::read_frame(&mut receiver, MAX_BOOTSTRAP_RESPONSE_BYTES).await?;
    if let BootstrapResponse::Answer(response) = response { Ok(response) } else { Err(Cause::WrongAnswer) }
}

/// A question that is answered with a lease.
async fn lease(connection: &Connection, request: Request) -> Result<Lease, NoLease> {
    let response = in_time(ask(connection, request)).await?;
    if let Response::Refused(refusal) = response {
        return Err(refusal.into());
    }
    if let Response::Lease(lease) = response { Ok(lease) } else { Err(Cause::WrongAnswer.into()) }
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
enum NoLease {
    #[error(transparent)]
    Unheard(#[from] Cause),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Heartbeats of all members since it was last looked at.
struct HeartbeatStats(Mutex<Counted>);

struct Counted {
    times: Times,
    failures: u64,
    failure: Option<String>,
    online: u32,
}

impl Counted {
    fn new() -> Result<Self, Failure> {
        Ok(Self { times: Times::new()?, failures: 0, failure: None, online: 0 })
    }
}

impl HeartbeatStats {
    fn new() -> Result<Self, Failure> {
        Ok(Self(Mutex::new(Counted::new()?)))
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, took: Duration, answered: &Result<Lease, NoLease>) {
        let mut counted = self.counted();
        match answered {
            Ok(lease) => {
                counted.times.record(took);
                counted.online = lease.counts.online;
            }
            Err(cause) => {
                counted.failures += 1;
                counted.failure.get_or_insert_with(|| cause.to_string());
            }
        }
    }

    fn take(&self) -> Result<Counted, Failure> {
        Ok(std::mem::replace(&mut *self.counted(), Counted::new()?))
    }
}
