//! What a client of a measurement is told to do over its [`Way`], and what it answers: one line of JSON each.

use super::line::{Line, Way};
use crate::pattern::Pattern;
use hopline_command::{Exit, Failure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// What is written at once of bulk.
const BLOCK_BYTES: usize = 256 << 10;
/// How long an echo, and a short flow from its opening to its end, may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// So many echoes of so many bytes, one after the other, over one line. Answered by [`Timed`].
    Echo { size: usize, count: u32 },
    /// So many lines, one after the other, each from before it is opened to the first echoed byte. Answered by [`Timed`].
    FirstByte { count: u32 },
    /// As many short lines as so many openers manage in that time: opened, a byte echoed, ended. Answered by [`Opened`].
    SetUp { openers: u32, seconds: u32 },
    /// One line, and as many bytes as it takes until the server wants no more. Answered by [`Sent`].
    Bulk,
}

/// How long each of some things took.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Timed {
    pub(super) micros: Vec<u64>,
    /// Bytes that came back as others than were sent.
    pub(super) wrong_bytes: u64,
}

/// How many lines were opened and ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opened {
    pub(super) count: u64,
    pub(super) seconds: f64,
    pub(super) wrong_bytes: u64,
}

/// How bulk ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    /// Why no more could be sent.
    pub(super) cause: String,
}

impl Order {
    /// Does it, with this data; the answer.
    pub(super) async fn perform(self, way: &Arc<Way>, pattern: Pattern) -> Result<Value, Failure> {
        Ok(match self {
            Self::Echo { size, count } => json!(echo(way, Echo::new(pattern, size), count).await?),
            Self::FirstByte { count } => json!(first_byte(way, pattern, count).await?),
            Self::SetUp { openers, seconds } => {
                json!(set_up(way, pattern, openers, Duration::from_secs(seconds.into())).await?)
            }
            Self::Bulk => json!(bulk(way, pattern).await),
        })
    }
}

async fn echo(way: &Way, mut echo: Echo, count: u32) -> Result<Timed, Failure> {
    let mut line = way.open().await?;
    // The first has the line's set-up in it.
    let mut wrong_bytes = echo.there_and_back(&mut line).await?;
    let mut micros = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        wrong_bytes += echo.there_and_back(&mut line).await?;
        micros.push(elapsed_us(start));
    }
    line.finish().await?;
    Ok(Timed { micros, wrong_bytes })
}

async fn first_byte(way: &Way, pattern: Pattern, count: u32) -> Result<Timed, Failure> {
    // The way itself, such as a session, is up before anything is timed.
    let mut wrong_bytes = short(way, pattern).await?;
    let mut micros = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let mut line = bounded(way.open()).await?;
        wrong_bytes += Echo::new(pattern, 1).there_and_back(&mut line).await?;
        micros.push(elapsed_us(start));
        bounded(line.finish()).await?;
    }
    Ok(Timed { micros, wrong_bytes })
}

async fn set_up(way: &Arc<Way>, pattern: Pattern, openers: u32, time: Duration) -> Result<Opened, Failure> {
    let start = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..openers {
        let way = way.clone();
        running.spawn(async move {
            let (mut count, mut wrong_bytes) = (0, 0);
            while start.elapsed() < time {
                wrong_bytes += short(&way, pattern).await?;
                count += 1;
            }
            Ok::<_, Failure>((count, wrong_bytes))
        });
    }
    let mut all = Opened { count: 0, seconds: 0.0, wrong_bytes: 0 };
    while let Some(opener) = running.join_next().await {
        let (count, wrong_bytes) = opener.map_err(std::io::Error::other)??;
        all.count += count;
        all.wrong_bytes += wrong_bytes;
    }
    // Until the last has ended, so that each counts with all of its time.
    all.seconds = start.elapsed().as_secs_f64();
    Ok(all)
}

/// A line that is opened, has a byte echoed, and ends: how many of its bytes were wrong.
async fn short(way: &Way, pattern: Pattern) -> Result<u64, Failure> {
    bounded(async {
        let mut line = way.open().await?;
        let wrong_bytes = Echo::new(pattern, 1).there_and_back(&mut line).await?;
        line.finish().await?;
        Ok(wrong_bytes)
    })
    .await
}

async fn bulk(way: &Way, pattern: Pattern) -> Sent {
    let mut sent = Sent { bytes: 0, cause: String::new() };
    let mut line = match way.open().await {
        Ok(line) => line,
        Err(failure) => return Sent { cause: format!("nothing was opened: {}", failure.cause()), ..sent },
    };
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        pattern.fill(sent.bytes, &mut block);
        if let Err(error) = line.bytes().write_all(&block).await {
            sent.cause = error.to_string();
            return sent;
        }
        sent.bytes += BLOCK_BYTES as u64;
    }
}

/// Bytes to be echoed, other ones each time.
struct Echo {
    pattern: Pattern,
    at: u64,
    sent: Vec<u8>,
    came: Vec<u8>,
}

impl Echo {
    fn new(pattern: Pattern, size: usize) -> Self {
        Self { pattern, at: 0, sent: vec![0; size], came: vec![0; size] }
    }

    /// How many bytes came back wrongly.
    async fn there_and_back(&mut self, line: &mut Line) -> Result<u64, Failure> {
        self.pattern.fill(self.at, &mut self.sent);
        self.at += self.sent.len() as u64;
        let bytes = line.bytes();
        bounded(async {
            bytes.write_all(&self.sent).await?;
            bytes.flush().await?;
            bytes.read_exact(&mut self.came).await?;
            Ok(())
        })
        .await?;
        Ok(self.sent.iter().zip(&self.came).filter(|(sent, came)| sent != came).count() as u64)
    }
}

/// Fails if it takes too long.
async fn bounded<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = || Failure::new(Exit::FlowLost, format!("nothing came back within {} s", TIMEOUT.as_secs()));
    timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(late()))
}

fn elapsed_us(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::peers::{Service, accept};
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    const PATTERN: Pattern = Pattern::new(7);

    /// A way to an echo over TCP, in this process.
    async fn way() -> Arc<Way> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, Service::Echo));
        Arc::new(Way::Tcp(server))
    }

    async fn answer<T: serde::de::DeserializeOwned>(order: Order) -> T {
        let order: Order = serde_json::from_str(&serde_json::to_string(&order).unwrap()).unwrap();
        serde_json::from_value(order.perform(&way().await, PATTERN).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn orders_are_done_as_often_as_they_say() {
        let echoes: Timed = answer(Order::Echo { size: 100, count: 7 }).await;
        assert_eq!((echoes.micros.len(), echoes.wrong_bytes), (7, 0));
        let first: Timed = answer(Order::FirstByte { count: 3 }).await;
        assert_eq!((first.micros.len(), first.wrong_bytes), (3, 0));
        let opened: Opened = answer(Order::SetUp { openers: 4, seconds: 1 }).await;
        assert!(opened.count >= 4 && opened.seconds >= 1.0 && opened.wrong_bytes == 0, "{opened:?}");
    }

    #[tokio::test]
    async fn bytes_that_come_back_as_others_are_counted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let way = Way::Tcp(listener.local_addr().unwrap());
        let mut line = way.open().await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut bytes = [0; 64];
            server.read_exact(&mut bytes).await.unwrap();
            bytes[3] ^= 1;
            bytes[63] ^= 0x80;
            server.write_all(&bytes).await.unwrap();
        });
        assert_eq!(Echo::new(PATTERN, 64).there_and_back(&mut line).await.unwrap(), 2);
    }
}
