//! The processes at the two ends of a measured load, whatever carries it: a server that echoes or checks what comes, and a client
//! that does as it is told. What they say over their line is the same, and so is the code that says it.

use super::flow::print_line;
use super::line::{Line, Way};
use super::network::ORIGIN;
use super::orders::Order;
use super::{Exit, Failure, on_one_thread};
use crate::pattern::{Faults, Pattern, Verifier};
use crate::splice;
use crate::stage::{Process, Stage};
use hopline_command::join::{OpenArgs, ServeArgs};
use hopline_command::{ready, signals};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout, timeout_at};

/// What is read at once.
const BLOCK_BYTES: usize = 256 << 10;
/// A line over which nothing has come for so long makes no progress.
pub(super) const NO_PROGRESS: Duration = Duration::from_secs(20);
/// More than ever comes.
const UNKNOWN_TOTAL: u64 = u64::MAX >> 8;
/// How long a client may take to part.
const PARTING_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// Check what comes for so many seconds, instead of echoing it
    #[arg(long, value_name = "SECONDS")]
    check: Option<u32>,
    /// Seed of the data that is to come
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(subcommand)]
    over: Served,
}

#[derive(Debug, clap::Subcommand)]
enum Served {
    /// Flows to a name
    Hopline {
        target: String,
        #[command(flatten)]
        serve: Box<ServeArgs>,
    },
    /// Streams of the dumb splice
    Splice {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Connections
    Tcp {
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct ClientArgs {
    /// Seed of the data
    #[arg(long)]
    seed: u64,
    #[command(subcommand)]
    over: Opens,
}

#[derive(Debug, clap::Subcommand)]
enum Opens {
    /// Flows to a name
    Hopline {
        target: String,
        #[command(flatten)]
        open: Box<OpenArgs>,
    },
    /// Streams of the dumb splice
    Splice { first: SocketAddr },
    /// Connections
    Tcp { server: SocketAddr },
}

/// What a server does with what comes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Service {
    /// Sends it back.
    Echo,
    /// Checks it against this data for so long after the first byte, says what came, and wants no more.
    Check(Pattern, Duration),
}

/// What a server that checks says of a line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Received {
    /// What came after the first read,
    pub(super) bytes: u64,
    /// and within which time.
    pub(super) seconds: f64,
    /// The longest time without anything.
    pub(super) longest_pause_ms: f64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    /// Why it ended before its time, if it did.
    pub(super) cause: Option<String>,
}

/// The process of a server.
pub(super) async fn serve(args: ServerArgs) -> Result<(), Failure> {
    let check = |seconds: u32| Service::Check(Pattern::new(args.seed), Duration::from_secs(seconds.into()));
    let service = args.check.map_or(Service::Echo, check);
    match args.over {
        Served::Hopline { target, serve } => serve_flows(&target, &serve, service).await,
        Served::Splice { listen } => on_one_thread(async move || {
            let serve = move |stream| async move {
                let line = Line::Splice(Box::new(stream));
                service.serve(line).await.map_err(message)
            };
            splice::server(listen, splice::Options::default(), serve).await
        }),
        Served::Tcp { listen } => on_one_thread(async move || {
            let listener = TcpListener::bind(listen).await?;
            // A namespace may have another than the machine.
            let control = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
            let control = control.unwrap_or_default();
            ready::print(&json!({"addr": listener.local_addr()?, "congestion_control": control.trim()}));
            accept(listener, service).await;
            Ok(())
        }),
    }
}

async fn serve_flows(target: &str, serve: &ServeArgs, service: Service) -> Result<(), Failure> {
    let endpoint = serve.endpoint().await?;
    let mut listener = endpoint.listen(target).await?;
    ready::print(&json!({"role": "server"}));
    let serve = async {
        while let Some(flow) = listener.accept().await {
            tokio::spawn(service.serve_aloud(Line::Hopline(Box::new(flow))));
        }
    };
    tokio::select! {
        () = serve => {}
        () = signals::shutdown() => {}
    }
    Ok(())
}

/// Serves TCP connections until that is impossible.
pub(super) async fn accept(listener: TcpListener, service: Service) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(service.serve_aloud(Line::Tcp(stream)));
    }
}

impl Service {
    async fn serve_aloud(self, line: Line) {
        if let Err(failure) = self.serve(line).await {
            tracing::warn!(cause = failure.cause(), "a line ended badly");
        }
    }

    async fn serve(self, line: Line) -> Result<(), Failure> {
        match self {
            Self::Echo => echo(line).await,
            Self::Check(pattern, time) => {
                let received = check(line, pattern, time).await;
                Ok(print_line(&json!(received).to_string())?)
            }
        }
    }
}

async fn echo(mut line: Line) -> Result<(), Failure> {
    let mut block = vec![0; BLOCK_BYTES];
    let bytes = line.bytes();
    loop {
        let count = bytes.read(&mut block).await?;
        if count == 0 {
            break;
        }
        bytes.write_all(block.get(..count).unwrap_or_default()).await?;
        bytes.flush().await?;
    }
    line.finish().await
}

/// Takes what comes for so long after the first of it.
async fn check(mut line: Line, pattern: Pattern, time: Duration) -> Received {
    let bytes = line.bytes();
    let mut block = vec![0; BLOCK_BYTES];
    let mut verifier = Verifier::new(pattern, UNKNOWN_TOTAL);
    let mut received = Received::default();
    let first = match timeout(NO_PROGRESS, bytes.read(&mut block)).await {
        Ok(Ok(count @ 1..)) => count,
        ended => return Received { cause: Some(why(ended)), ..received },
    };
    verifier.came(block.get(..first).unwrap_or_default());
    let start = Instant::now();
    let (end, mut last) = (start + time, start);
    loop {
        let deadline = end.min(last + NO_PROGRESS);
        let read = timeout_at(deadline, bytes.read(&mut block)).await;
        let now = Instant::now();
        received.longest_pause_ms = received.longest_pause_ms.max((now - last).as_secs_f64() * 1000.0);
        match read {
            Ok(Ok(count @ 1..)) if now < end => {
                verifier.came(block.get(..count).unwrap_or_default());
                received.bytes += count as u64;
                last = now;
            }
            _ if now >= end => break,
            ended => {
                received.cause = Some(why(ended));
                break;
            }
        }
    }
    received.seconds = start.elapsed().as_secs_f64();
    if received.bytes == 0 && received.cause.is_none() {
        received.cause = Some("nothing came after the first bytes".to_owned());
    }
    let Faults { lost, duplicated, reordered } = verifier.faults_of(received.bytes + first as u64);
    Received { lost, duplicated, reordered, ..received }
}

/// Why nothing more comes.
fn why(ended: Result<std::io::Result<usize>, tokio::time::error::Elapsed>) -> String {
    match ended {
        Err(_) => format!("nothing came for {} s", NO_PROGRESS.as_secs()),
        Ok(Err(error)) => format!("it broke: {error}"),
        Ok(Ok(_)) => "the other end stopped sending".to_owned(),
    }
}

/// The process of a client: an order a line on stdin, an answer a line on stdout.
pub(super) async fn obey(args: ClientArgs) -> Result<(), Failure> {
    let pattern = Pattern::new(args.seed);
    match args.over {
        Opens::Hopline { target, open } => {
            let endpoint = open.endpoint().await?;
            perform(Way::Hopline { endpoint, target }, pattern).await
        }
        Opens::Splice { first } => on_one_thread(async move || {
            let client = splice::Client::dial(first, splice::Options::default()).await?;
            perform(Way::Splice(client), pattern).await.map_err(message)
        }),
        Opens::Tcp { server } => {
            on_one_thread(async move || perform(Way::Tcp(server), pattern).await.map_err(message))
        }
    }
}

/// As the baseline has its errors.
fn message(failure: Failure) -> Box<dyn std::error::Error + Send + Sync> {
    failure.message().into()
}

async fn perform(way: Way, pattern: Pattern) -> Result<(), Failure> {
    ready::print(&json!({"role": "client"}));
    let way = Arc::new(way);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let order: Order =
            serde_json::from_str(&line).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        print_line(&order.perform(&way, pattern).await?.to_string())?;
    }
    way.close().await;
    Ok(())
}

/// A client, as whoever gives it orders sees it.
pub(super) struct Client(Process);

impl Client {
    /// Starts one at the origin, over what these arguments say.
    pub(super) async fn start(
        stage: &Stage,
        name: &str,
        ticket: Option<&str>,
        seed: u64,
        over: &[&str],
    ) -> Result<Self, Failure> {
        let seed = seed.to_string();
        let arguments = [&["bench", "client", "--seed", &seed], over].concat();
        let mut client = stage.start_at(ORIGIN, name, ticket, &arguments)?;
        client.ready().await?;
        Ok(Self(client))
    }

    /// What comes of an order.
    pub(super) async fn order<T: DeserializeOwned>(
        &mut self,
        order: Order,
        within: Duration,
    ) -> Result<T, Failure> {
        let answer = self.0.ask_within(&json!(order).to_string(), within).await?;
        serde_json::from_str(&answer).map_err(|_| self.0.failure(&format!("answered {answer:?}")))
    }

    /// Has it part in good order, if it does so soon.
    pub(super) async fn end(mut self) {
        drop(self.0.stdin());
        let _ = timeout(PARTING_TIMEOUT, self.0.ended()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::net::TcpStream;

    const PATTERN: Pattern = Pattern::new(7);

    /// What is received, for a second, of what `send` sends.
    async fn received(send: impl AsyncFnOnce(TcpStream)) -> Received {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (taker, _) = listener.accept().await.unwrap();
        tokio::join!(check(Line::Tcp(taker), PATTERN, Duration::from_secs(1)), send(sender)).0
    }

    /// Keeps a connection until the other end has what it wants.
    async fn until_closed(mut sender: TcpStream) {
        let _ = sender.read(&mut [0]).await;
    }

    fn data(bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        PATTERN.fill(0, &mut data);
        data
    }

    #[tokio::test]
    async fn what_comes_is_counted_after_the_first_of_it_and_checked() {
        let received = received(async |mut sender| {
            let data = data(5000);
            sender.write_all(&data[..1000]).await.unwrap();
            // The pause that is to be measured.
            tokio::time::sleep(Duration::from_millis(300)).await;
            sender.write_all(&data[1000..]).await.unwrap();
            until_closed(sender).await;
        })
        .await;
        assert_eq!((received.bytes, received.cause.as_deref()), (4000, None));
        assert_eq!((received.lost, received.duplicated, received.reordered), (0, 0, 0));
        assert!((1.0..2.0).contains(&received.seconds) && received.longest_pause_ms > 290.0, "{received:?}");
    }

    #[tokio::test]
    async fn what_is_wrong_or_ends_too_soon_is_told() {
        let swapped = received(async |mut sender| {
            let mut data = data(5000);
            data[2000] ^= 1;
            sender.write_all(&data).await.unwrap();
            until_closed(sender).await;
        })
        .await;
        assert!(swapped.lost > 0, "{swapped:?}");
        let ended = received(async |mut sender| sender.write_all(&data(100)).await.unwrap()).await;
        assert_eq!(ended.cause.as_deref(), Some("the other end stopped sending"));
    }
}
