//! Notices soon that a node's bootstrap is gone, and that it is back, or another is there in its place.
//!
//! For nodes that keep a lease: whoever merely asks now and then finds out when it asks. While the connection is up, the
//! other end's transport is asked for a sign of life, each time a few bytes. Once it is not, bootstraps are dialled again and
//! again, one at a time, until one answers; the question that waits for that may then use the connection. Nodes that lost the
//! same bootstrap at the same moment spread their dials over half a second to a second.

use super::connection::{RESTART, Shared};
use crate::net::{entropy, ping};
use hopline_proto::rpc::Lease;
use quinn::{Connection, ConnectionError};
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How many times in a lease the bootstrap is asked for a sign of life: as often as it can bear, as that says how many nodes
/// it has.
const IN_A_LEASE: u32 = 15;
/// But no more often than this.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long a sign of life may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The longest pauses before the first dial and between two. The shortest are half of that; of the first, nothing.
const FIRST_PAUSE_MS: u64 = 500;
const PAUSE_MS: u64 = 1000;

/// How often the bootstrap that gave this lease is asked for a sign of life.
pub(super) fn interval(lease: &Lease) -> Duration {
    (lease.duration.max(lease.next_heartbeat) / IN_A_LEASE).max(SHORTEST)
}

/// Never ends, unless the node's own end of the connection is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut rng = entropy::seeded_rng();
    let mut watched = shared.watched.subscribe();
    loop {
        let interval = match watched.wait_for(Option::is_some).await.map(|interval| *interval) {
            Ok(interval) => interval.unwrap_or(SHORTEST),
            Err(_) => return,
        };
        if let Some(connection) = shared.kept() {
            match until_doubtful(&shared, &connection, interval).await {
                // The node has closed its line, as it ends: nobody is to be dialled any more.
                Some(ConnectionError::LocallyClosed) if shared.is_kept(&connection) => return,
                _ => shared.drop_kept(&connection),
            }
        }
        // A question may have brought about another connection meanwhile.
        if shared.kept().is_none() {
            look_out(&shared, &mut rng).await;
        }
    }
}

/// Ends when the connection is over, its other end gives no sign of life, or it is not the one that is kept.
async fn until_doubtful(
    shared: &Shared,
    connection: &Connection,
    interval: Duration,
) -> Option<ConnectionError> {
    while shared.is_kept(connection) {
        if let Ok(end) = timeout(interval, connection.closed()).await {
            return Some(end);
        }
        if ping::acknowledges(connection, TIMEOUT).await == Some(false) {
            break;
        }
    }
    connection.close_reason()
}

/// Ends when a bootstrap can be reached.
async fn look_out(shared: &Arc<Shared>, rng: &mut StdRng) {
    if shared.has_several() {
        // Each bootstrap has a pool of its own: who left one at every restart would split the network.
        sleep(RESTART).await;
    }
    let mut pause = rng.random_range(0..=FIRST_PAUSE_MS);
    loop {
        sleep(Duration::from_millis(pause)).await;
        if shared.connection(false).await.is_ok() {
            return shared.reached.send_modify(|times| *times += 1);
        }
        pause = rng.random_range(PAUSE_MS / 2..=PAUSE_MS);
    }
}
