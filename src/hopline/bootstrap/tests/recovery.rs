//! The recovery matrix on the wire: a relay, and two bootstraps that play a script.

use super::{LOOPBACK, TIMEOUT};
use crate::net::authority::{Authority, DEFAULT_VALIDITY};
use crate::net::bootstrap_rpc::{
    BootstrapClose, BootstrapRequest, BootstrapResponse, MAX_BOOTSTRAP_REQUEST_BYTES,
};
use crate::net::clock::Clock;
use crate::net::frames;
use crate::net::identity::{Identity, Membership};
use crate::net::ticket::{Grant, Ticket};
use crate::net::tls;
use crate::net::transport::{self, TransportSettings};
use crate::relay;
use hopline_proto::enrolment::{Config, Counters};
use hopline_proto::rpc::{Counts, Lease, Refusal, Request, Response};
use quinn::{Connection, Endpoint, SendStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const INTERVAL: Duration = Duration::from_millis(50);
/// Timeouts of the relay.
const CONFIG: Config = Config {
    first_retry: Duration::from_millis(100),
    backoff: Duration::from_secs(2),
    backoff_max: Duration::from_secs(4),
    jitter_percent: 0,
    attempts: 5,
    full_after: 3,
    min_peers: 3,
    monitor: true,
};
/// By how much anything may be later than it should, on a machine that is busy; less than the back-off.
const LATE: Duration = Duration::from_millis(1900);
/// How long a node waits for an answer, less what a question takes to its bootstrap.
const SILENCE: Duration = Duration::from_millis(4500);
const THROTTLE: Duration = Duration::from_millis(700);

/// How a bootstrap takes a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Play {
    /// With a lease that tells of so many relays.
    Lease(u32),
    /// It knows nobody.
    Forget,
    Fail,
    /// With an answer to another question.
    Misunderstand,
    /// With bytes that are no answer.
    Garble,
    Ignore,
    Throttle,
    /// By closing the connection.
    Die,
    /// By closing its socket.
    Vanish,
}

/// One line of the matrix.
struct Row {
    name: &'static str,
    /// How the relay's questions are taken, one by one, by whichever bootstrap; the last one's way is that of all later ones.
    script: &'static [Play],
    /// What it asks: to register or a heartbeat, of which bootstrap, `+` over a new connection. Of heartbeats in a row that
    /// are answered with leases only the first.
    asks: &'static str,
    /// Between which of these it waits for how long at least. All others follow at once.
    waits: &'static [(usize, usize, Duration)],
    /// What it has counted then, but for its heartbeats.
    counters: Counters,
}

const ROWS: &[Row] = &[
    Row {
        name: "forgot the relay",
        script: &[Play::Lease(5), Play::Forget, Play::Lease(5)],
        asks: "R0+ H0 R0 H0",
        waits: &[],
        counters: Counters { unknown: 1, ..registered(2) },
    },
    Row {
        name: "has an internal error",
        script: &[Play::Lease(5), Play::Fail, Play::Lease(5)],
        asks: "R0+ H0 R0 H0",
        waits: &[],
        counters: Counters { internal: 1, ..registered(2) },
    },
    Row {
        name: "answers another question",
        script: &[Play::Lease(5), Play::Misunderstand, Play::Lease(5)],
        asks: "R0+ H0 R0 H0",
        waits: &[],
        counters: Counters { internal: 1, ..registered(2) },
    },
    Row {
        name: "answers with garbage",
        script: &[Play::Lease(5), Play::Garble, Play::Lease(5)],
        asks: "R0+ H0 R1+ H1",
        waits: &[],
        counters: Counters { network: 1, moved: 1, ..registered(2) },
    },
    Row {
        name: "is silent",
        script: &[Play::Lease(5), Play::Ignore, Play::Lease(5)],
        asks: "R0+ H0 R1+ H1",
        waits: &[(1, 2, SILENCE)],
        counters: Counters { timeouts: 1, moved: 1, ..registered(2) },
    },
    Row {
        name: "throttles heartbeats",
        script: &[Play::Lease(5), Play::Throttle, Play::Throttle, Play::Lease(5)],
        asks: "R0+ H0 H0 H0",
        waits: &[(1, 2, THROTTLE), (2, 3, THROTTLE)],
        counters: Counters { throttled: 2, ..registered(1) },
    },
    Row {
        name: "throttles a registration",
        script: &[Play::Throttle, Play::Lease(5)],
        asks: "R0+ R0 H0",
        waits: &[(0, 1, THROTTLE)],
        counters: Counters { throttled: 1, registrations: 2, ..registered(1) },
    },
    Row {
        name: "dies at every question",
        script: &[Play::Lease(5), Play::Die, Play::Die, Play::Die, Play::Die, Play::Lease(5)],
        asks: "R0+ H0 H0+ R1+ R0+ R1+ H1",
        waits: &[(3, 4, CONFIG.first_retry), (4, 5, CONFIG.first_retry)],
        counters: Counters { network: 3, moved: 3, full: 1, registrations: 4, ..registered(2) },
    },
    Row {
        name: "is gone, and the next does not know the relay",
        script: &[Play::Lease(5), Play::Vanish, Play::Forget, Play::Lease(5)],
        asks: "R0+ H0 H1+ R1 H1",
        waits: &[],
        counters: Counters { unknown: 1, ..registered(2) },
    },
    Row {
        name: "knows two relays, and so does the next",
        script: &[Play::Lease(2)],
        asks: "R0+ H0 R1+ R0+ H0",
        waits: &[(0, 2, CONFIG.backoff)],
        counters: Counters { few_peers: 1, moved: 2, ..registered(3) },
    },
];

/// So many registrations, all of them with success, and nothing else.
const fn registered(registrations: u64) -> Counters {
    Counters {
        registrations,
        registered: registrations,
        full: 0,
        offers: 0,
        few_peers: 0,
        moved: 0,
        heartbeats: 0,
        renewed: 0,
        unknown: 0,
        internal: 0,
        timeouts: 0,
        network: 0,
        throttled: 0,
        rejected: 0,
    }
}

/// A question as a bootstrap saw it.
#[derive(Clone, Debug)]
struct Seen {
    /// As in [`Row::asks`].
    ask: String,
    leased: bool,
    at: Instant,
}

/// What both bootstraps go by.
struct Theatre {
    authority: Authority,
    /// Backwards.
    script: Mutex<Vec<Play>>,
    seen: mpsc::Sender<Seen>,
}

impl Theatre {
    fn next(&self) -> Play {
        let mut script = self.script.lock().unwrap();
        if script.len() > 1 { script.pop().unwrap() } else { script[0] }
    }

    /// A bootstrap of the network.
    fn open(self: &Arc<Self>, place: usize) -> Endpoint {
        let identity = Arc::new(Identity::generate());
        let issued = self.authority.issue_bootstrap(identity.public_key(), DEFAULT_VALIDITY, Clock::wall());
        let membership = Membership::new(Arc::clone(&identity), issued, self.authority.public_key());
        let server = tls::bootstrap_server(&membership).unwrap();
        let settings = TransportSettings::control();
        let endpoint = transport::bind(LOOPBACK, Some(server), &settings, &identity.reset_secret()).unwrap();
        tokio::spawn(Arc::clone(self).serve(place, endpoint.clone()));
        endpoint
    }

    async fn serve(self: Arc<Self>, place: usize, endpoint: Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            if let Ok(connection) = incoming.await {
                tokio::spawn(Arc::clone(&self).talk(place, endpoint.clone(), connection));
            }
        }
    }

    async fn talk(self: Arc<Self>, place: usize, endpoint: Endpoint, connection: Connection) {
        let (mut plus, mut ignored) = ("+", Vec::new());
        while let Ok((mut sender, mut receiver)) = connection.accept_bi().await {
            let request = frames::read_frame(&mut receiver, MAX_BOOTSTRAP_REQUEST_BYTES).await.unwrap();
            let what = match request {
                BootstrapRequest::Join(join) => {
                    let issued = self.authority.issue(join.public_key(), DEFAULT_VALIDITY, Clock::wall());
                    let response = BootstrapResponse::Issued(issued);
                    frames::write_frame(&mut sender, &response).await.unwrap();
                    continue;
                }
                BootstrapRequest::Ask(Request::Register { .. }) => "R",
                BootstrapRequest::Ask(Request::Heartbeat(_)) => "H",
                other @ (BootstrapRequest::Renew
                | BootstrapRequest::Ask(_)
                | BootstrapRequest::Drain { .. }
                | BootstrapRequest::Unknown) => {
                    panic!("{other:?}")
                }
            };
            let play = self.next();
            let seen = Seen {
                ask: format!("{what}{place}{plus}"),
                leased: what == "H" && matches!(play, Play::Lease(_)),
                at: Instant::now(),
            };
            plus = "";
            let _ = self.seen.try_send(seen);
            match play {
                Play::Ignore => ignored.push(sender),
                Play::Die => BootstrapClose::ShuttingDown.close(&connection),
                Play::Vanish => endpoint.close(BootstrapClose::ShuttingDown.number().into(), b""),
                Play::Lease(_)
                | Play::Forget
                | Play::Fail
                | Play::Misunderstand
                | Play::Garble
                | Play::Throttle => answer(play, sender).await,
            }
        }
    }
}

async fn answer(play: Play, mut sender: SendStream) {
    let response = match play {
        Play::Lease(online) => Response::Lease(Lease {
            duration: INTERVAL * 3,
            next_heartbeat: INTERVAL,
            keys: Vec::new(),
            counts: Counts { registered: online, online, expired: 0 },
            drain: false,
            now: Clock::wall(),
            restored: false,
        }),
        Play::Forget => Response::Refused(Refusal::UnknownNode),
        Play::Fail => Response::Refused(Refusal::Internal),
        Play::Misunderstand => Response::Done,
        Play::Throttle => Response::Refused(Refusal::Throttled { retry_after: THROTTLE }),
        Play::Garble => return sender.write_all(&[0, 0, 0, 3, 250, 251, 252]).await.unwrap(),
        Play::Ignore | Play::Die | Play::Vanish => unreachable!(),
    };
    frames::write_frame(&mut sender, &BootstrapResponse::Answer(response)).await.unwrap();
}

/// What the relay asked, heartbeats that renewed a lease put together, with the times of the first and the last of them.
#[derive(Debug, Default)]
struct Log(Vec<(Seen, Instant)>);

impl Log {
    fn add(&mut self, seen: Seen) {
        match self.0.last_mut() {
            Some((first, last)) if first.leased && seen.leased && first.ask == seen.ask => *last = seen.at,
            _ => self.0.push((seen.clone(), seen.at)),
        }
    }

    fn asks(&self) -> String {
        self.0.iter().map(|(seen, _)| seen.ask.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn wait(&self, from: usize, to: usize) -> Duration {
        self.0[to].0.at - self.0[from].0.at
    }

    /// From the question before.
    fn pause(&self, ask: usize) -> Duration {
        self.0[ask].0.at - self.0[ask - 1].1
    }
}

/// Plays a row until the relay has asked all that was expected, and then nothing but heartbeats for longer than any wait.
async fn play(row: &Row) -> (Log, Counters) {
    let (seen, mut sees) = mpsc::channel(1000);
    let script = Mutex::new(row.script.iter().rev().copied().collect());
    let theatre = Arc::new(Theatre { authority: Authority::generate(), script, seen });
    let bootstraps = [0, 1].map(|place| theatre.open(place));
    let addresses = bootstraps.iter().map(|endpoint| endpoint.local_addr().unwrap().to_string()).collect();
    let ticket = Ticket::issue(&theatre.authority, addresses, Grant::DEFAULT).unwrap();
    let options = relay::Options { listen: LOOPBACK, enrolment: CONFIG, ..relay::Options::default() };
    let relay = relay::Relay::start(ticket, options).await.unwrap();
    let (mut log, expected) = (Log::default(), row.asks.split(' ').count());
    let calm = CONFIG.backoff + CONFIG.first_retry + INTERVAL;
    let played = async {
        while log.0.len() < expected || log.0.last().is_none_or(|(first, last)| *last - first.at < calm) {
            log.add(sees.recv().await.unwrap());
            if log.0.len() > expected {
                break;
            }
        }
    };
    let ended = timeout(TIMEOUT * 2, played).await;
    assert!(ended.is_ok(), "{}: it only asked {}", row.name, log.asks());
    let counters = relay.enrolment_counters();
    for bootstrap in bootstraps {
        bootstrap.close(0u32.into(), b"");
    }
    (log, Counters { heartbeats: 0, renewed: 0, ..counters })
}

fn check(row: &Row, log: &Log, counters: &Counters) -> Vec<String> {
    let mut wrong = Vec::new();
    if log.asks() != row.asks {
        return vec![format!("{}: it asked {}, not {}", row.name, log.asks(), row.asks)];
    }
    if *counters != row.counters {
        wrong.push(format!("{}: it counted {counters:?}, not {:?}", row.name, row.counters));
    }
    for (from, to, least) in row.waits {
        let waited = log.wait(*from, *to);
        if waited < *least {
            wrong.push(format!("{}: it waited for {waited:?} before ask {to}, not {least:?}", row.name));
        }
    }
    for ask in 1..log.0.len() {
        let wait = row.waits.iter().find(|(from, to, _)| (*from, *to) == (ask - 1, ask));
        let due = wait.map_or(Duration::ZERO, |(.., least)| *least);
        if log.pause(ask) > due + LATE {
            wrong.push(format!("{}: ask {ask} came after {:?}", row.name, log.pause(ask)));
        }
    }
    wrong
}

fn table_line(row: &Row, log: &Log, counters: &Counters) -> String {
    let pauses: Vec<String> = (1..log.0.len()).map(|ask| log.pause(ask).as_millis().to_string()).collect();
    let all = format!("{counters:?}");
    let counted = all.trim_start_matches("Counters { ").trim_end_matches(" }").split(", ");
    let counted: Vec<&str> = counted.filter(|counter| !counter.ends_with(": 0")).collect();
    format!("| {} | {} | {} | {} |", row.name, log.asks(), pauses.join(" "), counted.join(", "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recovery_matrix_holds_on_the_wire() {
    let played = ROWS.iter().map(async |row| {
        let (log, counters) = play(row).await;
        (table_line(row, &log, &counters), check(row, &log, &counters))
    });
    let (lines, wrong): (Vec<_>, Vec<_>) = futures_util::future::join_all(played).await.into_iter().unzip();
    println!("| a bootstrap that | is asked | after ms | and the relay counts |\n|---|---|---|---|");
    println!("{}", lines.join("\n"));
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
