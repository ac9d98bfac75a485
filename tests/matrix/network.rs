//! The network that the cases share, and how one of them is played on it.

use crate::cases::{Case, Step, Who};
use hopline::endpoint::{Chain, ChainHop, Options};
use hopline_command::Failure;
use hopline_lab::busy_flow::{BusyFlow, Ends};
use hopline_lab::pattern::Faults;
use hopline_lab::stage::{Process, Relays, Stage};
use hopline_lab::traffic::{Pace, Stream};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// Enough for six dead ones of a chain of three.
const POOL: u32 = 9;
/// Those, and the bootstrap, the origin and the target.
pub const HOSTS: usize = 12;
/// Bytes a second.
const RATE: u64 = 1 << 20;
const PACE: Pace = Pace { rate: Some(RATE), tick: Duration::from_millis(1), block: 64 << 10 };
/// How much must come after the fault: a fifth of a second's worth.
const AFTERWARDS_BYTES: u64 = RATE / 5;
/// How much must come until data is said to flow: what is under way at any moment is less.
const FLOWS_BYTES: u64 = RATE / 50;
/// How long a relay may take to drain.
const TIMEOUT: Duration = Duration::from_secs(20);

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
pub struct Network<'a> {
    stage: &'a Stage,
    /// Where the bootstrap keeps what it must not forget, and where it listens.
    bootstrap_at: [String; 2],
    bootstrap: Process,
    relays: Relays<'a>,
    ends: Ends,
    flows: u64,
    /// Those that were asked to leave.
    draining: Vec<Process>,
    frozen: BTreeSet<String>,
}

impl<'a> Network<'a> {
    /// The network of a number, which no other on the same stage has.
    pub async fn start(stage: &'a Stage, options: Options, number: u32) -> Result<Self, Failure> {
        let data = format!("bootstrap-{number}");
        let (bootstrap, ticket) = stage.bootstrap(&["--data", &data]).await?;
        let relays = Relays::start(stage, &ticket.to_string(), POOL).await?;
        let ends = Ends::join(stage, &ticket, options).await?;
        let address = ticket.bootstraps()[0].to_string();
        let (draining, frozen) = Default::default();
        Ok(Self { stage, bootstrap_at: [data, address], bootstrap, relays, ends, flows: 0, draining, frozen })
    }

    /// Plays a case; why it failed.
    pub async fn play(&mut self, case: &Case, calm: Duration) -> Result<Outcome, Failure> {
        let missing = POOL as usize - self.relays.names().len();
        self.relays.grow(u32::try_from(missing).unwrap(), |_| ()).await?;
        self.flows += 1;
        let streams = [("forward", 1), ("backward", 2)];
        let streams = streams.map(|(name, way)| Stream::new(name, self.flows * 2 + way, PACE));
        let mut flow = self.ends.open(case.hops, streams).await?;
        let played = async {
            let since = Instant::now();
            flow.protected(|relay| self.relays.runs(relay)).await?;
            let protected = since.elapsed();
            flow.flows(FLOWS_BYTES).await?;
            flow.longest();
            flow.run_until(Instant::now() + calm).await?;
            let calm = flow.longest();
            self.perform(&case.script, &mut flow).await?;
            flow.flows(AFTERWARDS_BYTES).await?;
            Ok((calm, flow.longest(), protected))
        }
        .await;
        let told = played.map_err(|why: Failure| why.at(state(&flow)));
        self.tidy().await?;
        let (calm, pause, protected) = told?;
        let (faults, equal) = flow.finish().await?;
        assert_eq!(faults, Faults::default());
        Ok(Outcome { equal, calm, pause, protected })
    }

    async fn perform(&mut self, script: &[Step], flow: &mut BusyFlow) -> Result<(), Failure> {
        let chain = flow.watched.chain();
        let attachments = self.attachments(script).await;
        let names = |network: &Self, who: &[Who]| -> Vec<String> {
            who.iter().flat_map(|who| network.names(*who, chain.hops(), &attachments)).collect()
        };
        let ends = |link: u8| [end_of(&chain, link - 1), end_of(&chain, link)];
        for step in script {
            match step {
                Step::Kill(who) => self.kill(&names(self, who)).await?,
                Step::Drain(who) => self.drain(&names(self, &[*who]))?,
                Step::Freeze(who) => {
                    let names = names(self, who);
                    self.signal(&names, Signal::STOP)?;
                    self.frozen.extend(names);
                }
                Step::Thaw => self.thaw()?,
                Step::Gray(who) => self.signal(&names(self, &[*who]), Signal::USR1)?,
                Step::Pause(ms) => flow.run_until(Instant::now() + Duration::from_millis(*ms)).await?,
                Step::Flows => flow.flows(FLOWS_BYTES).await?,
                Step::Cut(link) => {
                    let [near, far] = ends(*link);
                    self.stage.cut(near, far);
                }
                Step::CutForward(link) => {
                    let [near, far] = ends(*link);
                    self.stage.cut_one_way(near, far);
                }
                Step::CutBackward(link) => {
                    let [near, far] = ends(*link);
                    self.stage.cut_one_way(far, near);
                }
                Step::Isolate(hop) => self.stage.isolate(end_of(&chain, *hop)),
                Step::IsolateBootstrap => self.stage.isolate("bootstrap"),
                Step::Heal => self.stage.heal(),
                Step::KillBootstrap => gone(&mut self.bootstrap).await?,
                Step::FreezeBootstrap => self.bootstrap.signal(Signal::STOP)?,
                Step::ThawBootstrap => self.bootstrap.signal(Signal::CONT)?,
                Step::RestartBootstrap => self.restart_bootstrap().await?,
            }
        }
        Ok(())
    }

    async fn restart_bootstrap(&mut self) -> Result<(), Failure> {
        let [data, address] = &self.bootstrap_at;
        let arguments = ["bootstrap", "--data", data, "--listen", address];
        self.bootstrap = self.stage.start("bootstrap", None, &arguments)?;
        self.bootstrap.ready().await.map(drop)
    }

    /// The names of the relays that the target is attached to, if the script is about them.
    async fn attachments(&self, script: &[Step]) -> Vec<String> {
        let about = |step: &Step| matches!(step, Step::Kill(who) if who.contains(&Who::Attachments));
        if !script.iter().any(about) {
            return Vec::new();
        }
        let listing = self.ends.origin.list().await.unwrap();
        let is_it = |name: &String| name == Ends::TARGET;
        let target = listing.targets.iter().find(|target| target.names.iter().any(is_it)).unwrap();
        target.attachments.clone()
    }

    fn names(&self, who: Who, hops: &[ChainHop], attachments: &[String]) -> Vec<String> {
        let hop = |at: u8| &hops[usize::from(at) - 1];
        match who {
            Who::Primary(at) => vec![hop(at).primary.clone()],
            Who::Backup(at) => hop(at).backup.iter().cloned().collect(),
            Who::Attachments => attachments.to_vec(),
            Who::Relays(count) => {
                let on_chain = |name: &String| hops.iter().any(|hop| hop.primary == *name);
                let (first, others): (Vec<_>, Vec<_>) = self.relays.names().into_iter().partition(on_chain);
                // One of the chain, and the others from anywhere else.
                first.into_iter().take(1).chain(others).take(count).collect()
            }
        }
    }

    /// All at once; then waits until they are gone.
    async fn kill(&mut self, names: &[String]) -> Result<(), Failure> {
        self.signal(names, Signal::KILL)?;
        // One relay may serve a hop and be another's backup.
        for name in names.iter().collect::<BTreeSet<_>>() {
            let draining = self.draining.iter().position(|relay| relay.name() == name);
            // One that drains is among those no more.
            let relay = self.relays.take(name).or_else(|| Some(self.draining.swap_remove(draining?)));
            gone(&mut relay.unwrap()).await?;
            self.frozen.remove(name);
        }
        Ok(())
    }

    fn drain(&mut self, names: &[String]) -> Result<(), Failure> {
        self.signal(names, Signal::TERM)?;
        self.draining.extend(names.iter().filter_map(|name| self.relays.take(name)));
        Ok(())
    }

    fn thaw(&mut self) -> Result<(), Failure> {
        let names: Vec<String> = std::mem::take(&mut self.frozen).into_iter().collect();
        self.signal(&names, Signal::CONT)
    }

    fn signal(&self, names: &[String], which: Signal) -> Result<(), Failure> {
        for name in names {
            let draining = || self.draining.iter().find(|relay| relay.name() == name);
            self.relays.get(name).or_else(draining).unwrap().signal(which)?;
        }
        Ok(())
    }

    /// Leaves nobody frozen, cut off or draining.
    async fn tidy(&mut self) -> Result<(), Failure> {
        self.thaw()?;
        self.stage.heal();
        for mut relay in self.draining.drain(..) {
            relay.success(TIMEOUT).await?;
        }
        Ok(())
    }

    pub fn is_on(&self, stage: &Stage) -> bool {
        std::ptr::eq(self.stage, stage)
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        let (origin, target) = (self.ends.origin.clone(), self.ends.target.clone());
        tokio::spawn(async move { tokio::join!(origin.shutdown(), target.shutdown()) });
    }
}

/// Kills a process, and waits until it has ended.
async fn gone(process: &mut Process) -> Result<(), Failure> {
    process.kill()?;
    process.ended().await?;
    Ok(())
}

fn state(flow: &BusyFlow) -> String {
    let ways = [&flow.forward, &flow.backward];
    let ways = ways.map(|way| format!("{} {}/{}", way.name, way.received(), way.sent()));
    format!("{}; chain {:?}", ways.join(", "), flow.watched.chain())
}

/// Who is at a place of the chain: 0 is the origin, and the target comes after the last hop.
fn end_of(chain: &Chain, place: u8) -> &str {
    if place == 0 { "origin" } else { chain.primary(place).unwrap_or("target") }
}
