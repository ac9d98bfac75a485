//! `hopline demo`: the main job, with real processes and real kills.
//!
//! Everything runs on loopback as a process of its own, started from this binary: a bootstrap, the relays, an endpoint
//! that returns what comes, one that receives messages and one that sends some. This process is the flow's origin. What it
//! reports, it has measured where the data arrives; it deliberately trusts no counter of the system under test.

mod kill;
mod killer;
mod load;
mod messages;
mod report;

use crate::pattern::Pattern;
use crate::report::{RunArgs, uninterrupted, verdict};
use crate::stage::{Process, Relays, Stage};
use crate::watched::Watched;
use aws_lc_rs::digest::Digest;
use bytesize::ByteSize;
use futures_util::future::LocalBoxFuture;
use hopline::endpoint::{Endpoint, Flow, Inbox, Options};
use hopline_command::{Exit, Failure};
use kill::Kill;
use killer::Killer;
use load::{Progress, Received};
use messages::Arrived;
use report::{Outcome, Screen};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// The names that are served.
const ECHO: &str = "echo";
const AWAY: &str = "away";
const HOME: &str = "home";
/// Less than this for each kill would be gone before the last.
const MIN_BYTES_PER_KILL: u64 = 64 << 10;
/// How long the flow's last words may take.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// See it work: kills real relays while they carry a flow, and checks that nothing is lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline demo
  hopline demo --relays 12 --hops 5 --size 1GiB --kills 20
  hopline demo --json | jq .gap_ms

Everything runs on this machine, in processes that end with the demo. The exit code is 0 only if every byte and every message
arrived exactly once and in order, and every kill was made.")]
pub struct Args {
    /// Relays to start; at least one more than hops
    #[arg(long, default_value_t = 8, value_name = "N")]
    relays: u32,
    /// Relays on the flow's chain
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    hops: u8,
    /// Data to send to an echo and back
    #[arg(long, default_value = "64MiB", value_name = "SIZE", value_parser = hopline_command::size::parse)]
    size: ByteSize,
    /// Relays to kill while they carry the flow; the hops take turns
    #[arg(long, default_value_t = 6, value_name = "N")]
    kills: u32,
    #[command(flatten)]
    run: RunArgs,
}

impl Args {
    fn check(&self) -> Result<(), Failure> {
        let usage = |message: String| Err(Failure::new(Exit::Usage, message));
        if self.relays <= u32::from(self.hops) {
            return usage(format!(
                "--relays {} is too few for --hops {}: at least {}, so that one is left when another is killed",
                self.relays,
                self.hops,
                u32::from(self.hops) + 1
            ));
        }
        let least = ByteSize(MIN_BYTES_PER_KILL * (u64::from(self.kills) + 1));
        if self.size < least {
            return usage(format!(
                "--size {} is too little to last for --kills {}: at least {least}",
                self.size, self.kills
            ));
        }
        Ok(())
    }
}

/// Shows a flow that outlives its relays.
///
/// # Errors
/// [`Failure`] if it can't be shown here, or a byte was lost.
pub fn run(args: Args) -> LocalBoxFuture<'static, Result<(), Failure>> {
    Box::pin(async move {
        args.check()?;
        let seed = args.run.seed();
        let stage = args.run.stage()?;
        let screen = Screen::new(args.size);
        let performed = uninterrupted("demo", seed, perform(&args, seed, &stage, &screen)).await;
        screen.end();
        let outcome = performed?;
        args.run.print(&outcome, &args)?;
        verdict(outcome.is_success())
    })
}

/// The processes that must live to the end.
struct Cast {
    echo: Process,
    receiver: Process,
    sender: Process,
}

impl Cast {
    async fn start(stage: &Stage, ticket: &str, hops: u8) -> Result<Self, Failure> {
        let mut echo = stage.start("echo", Some(ticket), &["listen", ECHO, "--echo", "--keep"])?;
        let mut receiver = stage.start("receive", Some(ticket), &["receive", AWAY])?;
        let sender = stage.start("send", Some(ticket), &["send", HOME, "--hops", &hops.to_string()])?;
        echo.ready().await?;
        receiver.ready().await?;
        Ok(Self { echo, receiver, sender })
    }
}

async fn perform(args: &Args, seed: u64, stage: &Stage, screen: &Screen) -> Result<Outcome, Failure> {
    screen.say(&format!("starting a bootstrap, {} relays and 3 endpoints, a process each", args.relays));
    let (mut bootstrap, ours) = stage.bootstrap(&[]).await?;
    let ticket = &ours.to_string();
    let relays = Relays::start(stage, ticket, args.relays).await?;
    let options = Options { name: Some("demo".to_owned()), hops: args.hops, ..Options::default() };
    let endpoint = Endpoint::join(ours, options).await?;
    let inbox = endpoint.receive(HOME).await?;
    let cast = Cast::start(stage, ticket, args.hops).await?;
    let play = Play {
        args,
        seed,
        screen,
        endpoint: &endpoint,
        progress: Arc::new(Progress::new(args.size.0, args.kills, Instant::now())),
    };
    let outcome = tokio::select! {
        outcome = play.run(relays, cast, inbox) => outcome,
        failure = bootstrap.death() => Err(failure),
    };
    endpoint.shutdown().await;
    outcome
}

/// What all parts of the main job share.
struct Play<'a> {
    args: &'a Args,
    seed: u64,
    screen: &'a Screen,
    endpoint: &'a Endpoint,
    progress: Arc<Progress>,
}

impl Play<'_> {
    async fn run(&self, relays: Relays<'_>, mut cast: Cast, inbox: Inbox) -> Result<Outcome, Failure> {
        let events = self.endpoint.events();
        let flow = self.endpoint.open(ECHO).await?;
        let watched = Watched::new(&flow, events);
        let chain = self.screen.chain(&watched.chain());
        let mut killer = Killer::new(watched, relays, &self.progress, self.screen, self.seed);
        self.screen.say(&format!("the flow's chain, backups in parentheses: {chain}"));

        let (home, away, stop) = (Arrived::default(), Arrived::default(), CancellationToken::new());
        let start = Instant::now();
        let data = async {
            let moved = tokio::try_join!(self.transfer(flow), killer.run(self.args.kills));
            stop.cancel();
            moved
        };
        let work = async {
            tokio::try_join!(
                data,
                messages::send(self.endpoint, AWAY, &away, &stop),
                messages::send_from(&mut cast.sender, &home, &stop)
            )
        };
        let (((sent, received), kills), sent_away, sent_home) = tokio::select! {
            done = work => done?,
            failure = home.serve(inbox) => return Err(failure),
            failure = fill(&away, &mut cast.receiver) => return Err(failure),
            failure = cast.echo.death() => return Err(failure),
            failure = self.progress.stall() => return Err(failure),
            () = self.screen.follow(&self.progress) => unreachable!("the bar follows for ever"),
        };
        let duration = start.elapsed();
        // What it still says after this came too often.
        cast.receiver.kill()?;
        away.fill_from(&mut cast.receiver).await?;
        let failovers = killer.failovers();
        Ok(self.outcome(&sent, &received, (&away, sent_away), (&home, sent_home), kills, failovers, duration))
    }

    /// Sends the data through the flow and back, and waits until both ends know that all of it arrived.
    async fn transfer(&self, flow: Flow) -> Result<(Digest, Received), Failure> {
        let (pattern, size) = (Pattern::new(self.seed), self.args.size.0);
        let (reader, writer) = tokio::io::split(flow);
        let (to, from) = (self.progress.clone(), self.progress.clone());
        let send =
            AbortOnDropHandle::new(tokio::spawn(async move { load::send(writer, pattern, size, &to).await }));
        let receive =
            AbortOnDropHandle::new(tokio::spawn(
                async move { load::receive(reader, pattern, size, &from).await },
            ));
        let joined = |ended: Result<_, tokio::task::JoinError>| ended.map_err(std::io::Error::other);
        let ((writer, sent), (reader, received)) = tokio::try_join!(async { joined(send.await)? }, async {
            receive.await.map_err(std::io::Error::other)?
        })?;
        let finished = timeout(LAST_WORDS, reader.unsplit(writer).finished()).await;
        finished.map_err(|_| {
            Failure::new(
                Exit::FlowLost,
                format!("all data is back, but the flow was not done {} s later", LAST_WORDS.as_secs()),
            )
        })??;
        Ok((sent, received))
    }

    #[expect(clippy::too_many_arguments, reason = "the sum of everything that was counted")]
    fn outcome(
        &self,
        sent: &Digest,
        received: &Received,
        (away, sent_away): (&Arrived, u64),
        (home, sent_home): (&Arrived, u64),
        kills: Vec<Kill>,
        failovers: u32,
        duration: Duration,
    ) -> Outcome {
        let hex = |digest: &Digest| data_encoding::HEXLOWER.encode(digest.as_ref());
        Outcome {
            seed: self.seed,
            hops: self.args.hops,
            kills_wanted: self.args.kills,
            bytes_sent: self.progress.now().sent,
            bytes_received: received.bytes,
            data: received.faults,
            sha256_sent: hex(sent),
            sha256_received: hex(&received.sha256),
            messages_sent: sent_away + sent_home,
            messages_delivered: away.delivered() + home.delivered(),
            messages: away.faults(sent_away) + home.faults(sent_home),
            kills,
            failovers,
            longest_other_pause: self.progress.now().longest_other_pause(),
            longest_message_pause: away.longest_pause().max(home.longest_pause()),
            duration,
        }
    }
}

/// Takes in the messages that a process prints; resolves when it ends, which it should not.
async fn fill(arrived: &Arrived, process: &mut Process) -> Failure {
    match arrived.fill_from(process).await {
        Ok(()) => process.died("in the middle of it").await,
        Err(failure) => failure,
    }
}
