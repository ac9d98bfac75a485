//! Numbered messages both ways beside the data: exactly once and in order is checked where they arrive.

use crate::pattern::{Faults, SequenceCounts};
use crate::stage::Process;
use hopline::endpoint::{Endpoint, Inbox, Receipt};
use hopline_command::{Exit, Failure};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

/// The pause between two messages.
const PAUSE: Duration = Duration::from_millis(20);
/// Receipts that may be outstanding.
const MAX_OUTSTANDING: usize = 1024;
/// How long the last messages and receipts may take.
const LAST: Duration = Duration::from_secs(30);

/// Messages that arrive at one place.
#[derive(Debug, Default)]
pub(super) struct Arrived(watch::Sender<Arrivals>);

#[derive(Debug, Default)]
struct Arrivals {
    counts: SequenceCounts,
    last: Option<Instant>,
    longest_pause: Duration,
}

impl Arrived {
    fn came(&self, text: &str, now: Instant) -> Result<(), Failure> {
        let Some(number) = text.strip_prefix("message ").and_then(|number| number.parse().ok()) else {
            return Err(Failure::new(Exit::Failed, format!("a message came that nobody sent: {text:?}")));
        };
        self.0.send_modify(|arrivals| {
            arrivals.counts.came(number, 1);
            let pause = arrivals.last.replace(now).map_or(Duration::ZERO, |last| now - last);
            arrivals.longest_pause = arrivals.longest_pause.max(pause);
        });
        Ok(())
    }

    pub(super) fn delivered(&self) -> u64 {
        self.0.borrow().counts.distinct()
    }

    pub(super) fn faults(&self, sent: u64) -> Faults {
        self.0.borrow().counts.faults(sent)
    }

    /// The longest pause between two messages.
    pub(super) fn longest_pause(&self) -> Duration {
        self.0.borrow().longest_pause
    }

    /// Waits until as many have come as were sent, or for as long as that may take: what is lost then is lost.
    async fn all(&self, sent: u64) {
        let mut arrivals = self.0.subscribe();
        let _ = timeout(LAST, arrivals.wait_for(|arrivals| arrivals.counts.distinct() >= sent)).await;
    }

    /// Takes in what a process prints, as long as it does.
    pub(super) async fn fill_from(&self, process: &mut Process) -> Result<(), Failure> {
        while let Some(line) = process.line().await? {
            self.came(&line, Instant::now())?;
        }
        Ok(())
    }

    /// Takes in what comes to a name served here.
    pub(super) async fn serve(&self, mut inbox: Inbox) -> Failure {
        while let Some(message) = inbox.recv().await {
            let text = String::from_utf8_lossy(message.payload()).into_owned();
            if let Err(failure) = self.came(&text, Instant::now()) {
                return failure;
            }
            let _ = message.take();
        }
        Failure::new(Exit::Failed, "the demo's own node ended")
    }
}

fn text(number: u64) -> String {
    format!("message {number}")
}

/// Sends messages to `name` until told to stop; how many, once all have their receipts and are in `arrived`.
pub(super) async fn send(
    endpoint: &Endpoint,
    name: &str,
    arrived: &Arrived,
    stop: &CancellationToken,
) -> Result<u64, Failure> {
    let (outstanding, mut receipts) = mpsc::channel::<Receipt>(MAX_OUTSTANDING);
    let send = async {
        let mut pause = interval(PAUSE);
        let mut sent = 0;
        while !stop.is_cancelled() {
            pause.tick().await;
            let receipt = endpoint.send(name, text(sent)).await?;
            sent += 1;
            if outstanding.send(receipt).await.is_err() {
                break;
            }
        }
        drop(outstanding);
        Ok::<_, Failure>(sent)
    };
    let receive = async {
        while let Some(receipt) = receipts.recv().await {
            receipt.await?;
        }
        Ok(())
    };
    let work = async { tokio::try_join!(send, receive) };
    let (sent, ()) = in_time(work, stop).await.unwrap_or_else(|| Err(no_receipts(arrived)))?;
    arrived.all(sent).await;
    Ok(sent)
}

/// Has a `hopline send` process send messages until told to stop; how many, once it has all the receipts and ended well.
pub(super) async fn send_from(
    process: &mut Process,
    arrived: &Arrived,
    stop: &CancellationToken,
) -> Result<u64, Failure> {
    let Some(stdin) = process.stdin() else { return Err(process.failure("takes no input")) };
    let work = async { tokio::join!(feed(stdin, stop), count_receipts(process)) };
    let (sent, receipts) = match in_time(work, stop).await {
        Some((Ok(sent), Ok(receipts))) => (sent, receipts),
        Some(_) => return Err(process.died("while it was sending").await),
        None => return Err(no_receipts(arrived)),
    };
    process.success(LAST).await?;
    if receipts != sent {
        return Err(process.failure(&format!("had {receipts} receipts for {sent} messages")));
    }
    arrived.all(sent).await;
    Ok(sent)
}

/// `None` if the work is not done some time after it should have come to its end.
async fn in_time<T>(work: impl Future<Output = T>, stop: &CancellationToken) -> Option<T> {
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST).await;
    };
    tokio::select! {
        done = work => Some(done),
        () = late => None,
    }
}

fn no_receipts(arrived: &Arrived) -> Failure {
    Failure::new(
        Exit::FlowLost,
        format!(
            "{} messages arrived, but some have no receipt {} s later; this is a bug: run it again with --logs DIR, and \
             report it",
            arrived.delivered(),
            LAST.as_secs()
        ),
    )
}

async fn feed(mut stdin: ChildStdin, stop: &CancellationToken) -> std::io::Result<u64> {
    let mut pause = interval(PAUSE);
    let mut sent = 0;
    while !stop.is_cancelled() {
        pause.tick().await;
        stdin.write_all(format!("{}\n", text(sent)).as_bytes()).await?;
        sent += 1;
    }
    Ok(sent)
}

async fn count_receipts(process: &mut Process) -> std::io::Result<u64> {
    let mut receipts = 0;
    while let Some(line) = process.line().await? {
        receipts += u64::from(line.starts_with("delivered "));
    }
    Ok(receipts)
}
