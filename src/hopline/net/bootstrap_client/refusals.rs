//! What the network says of bootstraps: that nobody is there.
//!
//! quinn takes no notice of it, so a question to a bootstrap that has been killed would wait for its whole time limit. Where the
//! ticket names another one that would be a waste; where it does not, it is right to wait: the only bootstrap restarts.

use crate::net::address::is_same;
use crate::net::socket::HintingSocket;
use crate::net::tasks;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

/// Whoever is refused is given as long again as the attempt has lasted, and this: anybody can forge the network's word.
const GRACE: Duration = Duration::from_millis(10);
/// Refusals that may wait to be heard.
const QUEUED_REFUSALS: usize = 16;

/// Hears them.
#[derive(Debug)]
pub(super) struct Refusals {
    heard: broadcast::Sender<SocketAddr>,
    _hearing: AbortOnDropHandle<()>,
}

impl Refusals {
    /// Those that come to `socket`.
    pub(super) fn of(socket: Arc<HintingSocket>) -> Self {
        let heard = broadcast::Sender::new(QUEUED_REFUSALS);
        let tell = heard.clone();
        let hearing = async move {
            while let Ok(address) = socket.refused().await {
                let _ = tell.send(address);
            }
        };
        Self { heard, _hearing: AbortOnDropHandle::new(tasks::spawn(hearing)) }
    }

    /// Ends when the network has said from now on that nobody is at `address`, and the grace is over.
    pub(super) fn to(&self, address: SocketAddr) -> impl Future<Output = ()> + Send + use<> {
        let mut heard = self.heard.subscribe();
        async move {
            let since = Instant::now();
            loop {
                match heard.recv().await {
                    Ok(refused) if is_same(refused, address) => return sleep(since.elapsed() + GRACE).await,
                    // A refusal that was missed costs the time limit at most.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }
}
