//! The network that the cases share, and how one of them is played on it.

use crate::cases::{Case, Step, Who};
use crate::fixture::{Chain, Cluster, Process, TIMEOUT};
use crate::network::Network;
use hopline::endpoint::{Endpoint, FlowEvent, Hop, Listener};
use hopline_lab::pattern::Faults;
use hopline_lab::traffic::{Carried, Pace, Stream, carry};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

const TARGET: &str = "sink";
/// Enough for six dead ones of a chain of three.
pub const POOL: usize = 9;
/// Bytes a second.
const RATE: u64 = 1 << 20;
const PACE: Pace = Pace { rate: Some(RATE), tick: Duration::from_millis(1), block: 64 << 10 };
/// How much must come after the fault: a fifth of a second's worth.
const AFTERWARDS_BYTES: u64 = RATE / 5;
/// How much must come until data is said to flow: what is under way at any moment is less.
const FLOWS_BYTES: u64 = RATE / 50;

/// What a case came to, forward and backward.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub equal: [bool; 2],
    /// The longest pause before the fault.
    pub calm: [Duration; 2],
    /// The longest pause from the fault on.
    pub pause: [Duration; 2],
    /// How long it took until each hop had a primary and a backup that lived, before the fault.
    pub protected: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { equal, calm, pause, protected } = self;
        write!(f, "pause {pause:.1?}, before {calm:.1?}, equal {equal:?}, protected after {protected:.1?}")
    }
}

/// A network, an origin and a target.
pub struct Stage {
    pub network: Network,
    cluster: Cluster,
    origin: Endpoint,
    target: Endpoint,
    listener: Listener,
    started: usize,
    flows: u64,
    /// Those that were asked to leave.
    draining: Vec<Process>,
    frozen: BTreeSet<String>,
}

/// A flow under way.
struct Run {
    chain: Chain,
    ways: [Arc<Stream>; 2],
    stop: CancellationToken,
    ends: [JoinHandle<std::io::Result<Carried>>; 2],
}

impl Stage {
    pub async fn start(network: Network) -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("bootstrap");
        let args = ["bootstrap", "--data", data.to_str().unwrap()];
        let bootstrap = network.start("bootstrap", home.path(), "", &args).until_ready();
        let ticket = bootstrap.ready["ticket"].as_str().unwrap().to_owned();
        let mut cluster = Cluster { home, bootstrap, ticket, relays: BTreeMap::new() };
        replenish(&mut cluster, &network, &mut 0);
        let origin = network.join("origin", &cluster.ticket).await;
        let target = network.join("target", &cluster.ticket).await;
        let listener = target.listen(TARGET).await.unwrap();
        let (draining, frozen) = Default::default();
        Self { network, cluster, origin, target, listener, started: POOL, flows: 0, draining, frozen }
    }

    /// Plays a case; why it failed.
    pub async fn play(&mut self, case: &Case, calm: Duration) -> Result<Outcome, String> {
        replenish(&mut self.cluster, &self.network, &mut self.started);
        let mut run = self.open(case.hops).await?;
        let played = async {
            let since = Instant::now();
            self.protected(&mut run.chain).await?;
            let protected = since.elapsed();
            run.flows(FLOWS_BYTES).await?;
            run.longest();
            run.listen_until(Instant::now() + calm).await?;
            let calm = run.longest();
            self.perform(&case.script, &mut run).await?;
            run.flows(AFTERWARDS_BYTES).await?;
            let pause = run.longest();
            Ok((calm, pause, protected))
        }
        .await;
        let told = played.map_err(|why: String| format!("{why}; {}", run.state()));
        self.tidy()?;
        let (calm, pause, protected) = told?;
        let equal = run.finish().await?;
        Ok(Outcome { equal, calm, pause, protected })
    }

    async fn open(&mut self, hops: u8) -> Result<Run, String> {
        self.flows += 1;
        let mut chain = Chain::of(&self.origin);
        let ways = [("forward", 1), ("backward", 2)]
            .map(|(name, way)| Arc::new(Stream::new(name, self.flows * 2 + way, PACE)));
        let stop = CancellationToken::new();
        let [forward, backward] = &ways;
        let opened = timeout(TIMEOUT, self.origin.open_over(TARGET, hops)).await;
        let flow =
            opened.map_err(|_| "the flow was not opened in time")?.map_err(|error| error.to_string())?;
        chain.until(|event| matches!(event, FlowEvent::Chain { .. })).await;
        let origin = carry(flow, forward.clone(), backward.clone(), stop.clone());
        // A flow reaches its target with the first byte.
        let Ok(Some(flow)) = timeout(TIMEOUT, self.listener.accept()).await else {
            return Err("the flow did not come to its target".to_owned());
        };
        let target = carry(flow, backward.clone(), forward.clone(), stop.clone());
        Ok(Run { chain, ways, stop, ends: [tokio::spawn(origin), tokio::spawn(target)] })
    }

    /// Waits until every hop has a primary and a backup that run.
    async fn protected(&self, chain: &mut Chain) -> Result<(), String> {
        let deadline = Instant::now() + TIMEOUT;
        let runs = |relay: &String| self.cluster.relays.contains_key(relay);
        while !chain.hops.iter().all(|hop| runs(&hop.primary) && hop.backup.as_ref().is_some_and(runs)) {
            let event = timeout_at(deadline, chain.next()).await;
            event.map_err(|_| format!("a hop has no backup that runs after {TIMEOUT:?}"))?;
        }
        Ok(())
    }

    async fn perform(&mut self, script: &[Step], run: &mut Run) -> Result<(), String> {
        let hops = run.chain.hops.clone();
        let attachments = self.attachments(script).await;
        let names = |stage: &Self, who: &[Who]| -> Vec<String> {
            who.iter().flat_map(|who| stage.names(*who, &hops, &attachments)).collect()
        };
        let ends = |link: u8| [end_of(&hops, link - 1), end_of(&hops, link)];
        for step in script {
            match step {
                Step::Kill(who) => self.kill(&names(self, who)),
                Step::Drain(who) => self.drain(&names(self, &[*who])),
                Step::Freeze(who) => {
                    let names = names(self, who);
                    self.signal(&names, Signal::STOP);
                    self.frozen.extend(names);
                }
                Step::Thaw => self.thaw(),
                Step::Gray(who) => self.signal(&names(self, &[*who]), Signal::USR1),
                Step::Pause(ms) => run.listen_until(Instant::now() + Duration::from_millis(*ms)).await?,
                Step::Flows => run.flows(FLOWS_BYTES).await?,
                Step::Cut(link) => {
                    let [near, far] = ends(*link);
                    self.network.cut(near, far);
                }
                Step::CutForward(link) => {
                    let [near, far] = ends(*link);
                    self.network.cut_one_way(near, far);
                }
                Step::CutBackward(link) => {
                    let [near, far] = ends(*link);
                    self.network.cut_one_way(far, near);
                }
                Step::Isolate(hop) => self.network.isolate(end_of(&hops, *hop)),
                Step::IsolateBootstrap => self.network.isolate("bootstrap"),
                Step::Heal => self.network.heal(),
                Step::KillBootstrap => self.cluster.bootstrap.kill(),
                Step::FreezeBootstrap => signal(&self.cluster.bootstrap, Signal::STOP),
                Step::ThawBootstrap => signal(&self.cluster.bootstrap, Signal::CONT),
                Step::RestartBootstrap => self.cluster.restart_bootstrap(),
            }
        }
        Ok(())
    }

    /// The names of the relays that the target is attached to, if the script is about them.
    async fn attachments(&self, script: &[Step]) -> Vec<String> {
        let about = |step: &Step| matches!(step, Step::Kill(who) if who.contains(&Who::Attachments));
        if !script.iter().any(about) {
            return Vec::new();
        }
        let listing = self.origin.list().await.unwrap();
        let target =
            listing.targets.iter().find(|target| target.names.iter().any(|name| name == TARGET)).unwrap();
        target.attachments.clone()
    }

    fn names(&self, who: Who, hops: &[Hop], attachments: &[String]) -> Vec<String> {
        let hop = |at: u8| &hops[usize::from(at) - 1];
        match who {
            Who::Primary(at) => vec![hop(at).primary.clone()],
            Who::Backup(at) => hop(at).backup.iter().cloned().collect(),
            Who::Attachments => attachments.to_vec(),
            Who::Relays(count) => {
                let on_chain = |name: &&String| hops.iter().any(|hop| hop.primary == **name);
                let (first, others): (Vec<_>, Vec<_>) = self.cluster.relays.keys().partition(on_chain);
                // One of the chain, and the others from anywhere else.
                first.into_iter().take(1).chain(others).take(count).cloned().collect()
            }
        }
    }

    /// All at once; then waits until they are gone.
    fn kill(&mut self, names: &[String]) {
        self.signal(names, Signal::KILL);
        for name in names {
            // One that drains is among those no more.
            drop(self.cluster.relays.remove(name));
            self.frozen.remove(name);
        }
        self.draining.retain(|relay| !names.iter().any(|name| relay.ready["name"] == **name));
    }

    fn drain(&mut self, names: &[String]) {
        self.signal(names, Signal::TERM);
        self.draining.extend(names.iter().filter_map(|name| self.cluster.relays.remove(name)));
    }

    fn thaw(&mut self) {
        let names: Vec<String> = std::mem::take(&mut self.frozen).into_iter().collect();
        self.signal(&names, Signal::CONT);
    }

    fn signal(&self, names: &[String], which: Signal) {
        for name in names {
            let draining = || self.draining.iter().find(|relay| relay.ready["name"] == **name);
            signal(self.cluster.relays.get(name).or_else(draining).unwrap(), which);
        }
    }

    /// Leaves nobody frozen, cut off or draining.
    fn tidy(&mut self) -> Result<(), String> {
        self.thaw();
        self.network.heal();
        for relay in self.draining.drain(..) {
            let name = relay.ready["name"].clone();
            let ended = relay.finish();
            if !ended.status.success() {
                return Err(format!("{name} drained and ended with {}: {}", ended.status, ended.stderr));
            }
        }
        Ok(())
    }
}

/// Starts relays in the place of those that are gone.
fn replenish(cluster: &mut Cluster, network: &Network, started: &mut usize) {
    let missing = POOL - cluster.relays.len();
    let names: Vec<String> = (1..=missing).map(|n| format!("r{}", *started + n)).collect();
    *started += missing;
    let start = |name: &String| {
        let args = ["relay", "--name", name];
        network.start(name, cluster.home.path(), &cluster.ticket, &args)
    };
    let starting: Vec<Process> = names.iter().map(start).collect();
    let ready = starting.into_iter().map(Process::until_ready);
    cluster.relays.extend(names.into_iter().zip(ready));
}

impl Drop for Stage {
    fn drop(&mut self) {
        let (origin, target) = (self.origin.clone(), self.target.clone());
        tokio::spawn(async move { tokio::join!(origin.shutdown(), target.shutdown()) });
    }
}

impl Run {
    fn longest(&self) -> [Duration; 2] {
        self.ways.each_ref().map(|way| way.take_longest())
    }

    /// Minds the flow's events until then.
    async fn listen_until(&mut self, then: Instant) -> Result<(), String> {
        while let Ok(event) = timeout_at(then, self.chain.next()).await {
            alive(&event)?;
        }
        Ok(())
    }

    /// Waits until all that was sent by now has come, both ways, and so many bytes more.
    async fn flows(&mut self, more: u64) -> Result<(), String> {
        let ways = self.ways.clone();
        let mut arrived = Box::pin(async {
            let [forward, backward] = &ways;
            let enough = ways.each_ref().map(|way| way.sent() + more);
            tokio::join!(forward.has_received(enough[0]), backward.has_received(enough[1]))
        });
        let deadline = Instant::now() + TIMEOUT;
        loop {
            tokio::select! {
                _ = &mut arrived => return Ok(()),
                event = self.chain.next() => alive(&event)?,
                () = tokio::time::sleep_until(deadline) => return Err("data stands still".to_owned()),
            }
        }
    }

    /// Ends the flow, which must say at both ends that it is whole: whether the hashes agree.
    async fn finish(self) -> Result<[bool; 2], String> {
        self.stop.cancel();
        let mut carried = Vec::new();
        for end in self.ends {
            let ended = timeout(TIMEOUT, end).await.map_err(|_| "the flow did not end")?;
            carried.push(ended.unwrap().map_err(|error| format!("the flow broke: {error}"))?);
        }
        let [origin, target] = [&carried[0], &carried[1]];
        assert_eq!([origin.faults, target.faults], [Faults::default(); 2]);
        Ok([origin.is_whole_at(target), target.is_whole_at(origin)])
    }

    fn state(&self) -> String {
        let ways = self.ways.each_ref().map(|way| format!("{} {}/{}", way.name, way.received(), way.sent()));
        format!("{}; chain {:?}", ways.join(", "), self.chain.hops)
    }
}

/// Who is at a place of the chain: 0 is the origin, and the target comes after the last hop.
fn end_of(hops: &[Hop], place: u8) -> &str {
    match usize::from(place).checked_sub(1) {
        None => "origin",
        Some(hop) => hops.get(hop).map_or("target", |hop| &hop.primary),
    }
}

fn alive(event: &FlowEvent) -> Result<(), String> {
    match event {
        FlowEvent::Closed { complete: false, .. } => Err("the flow was closed".to_owned()),
        _ => Ok(()),
    }
}

fn signal(process: &Process, which: Signal) {
    let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(id, which).unwrap();
}
