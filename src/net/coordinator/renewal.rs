//! Keeping the certificate from running out, by the network's time. Whenever this machine's clock was set, or it slept, the
//! bootstrap is asked at once: its answer tells what time it is there.

use super::line::Shared;
use super::{Cause, JoinError};
use crate::net::bootstrap_rpc::{BootstrapRequest, BootstrapResponse};
use crate::net::clock::Jumps;
use crate::net::identity::Membership;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The wall clock, by which certificates end, is looked at this often: it may jump, and a timer would not notice.
const LOOK: Duration = Duration::from_secs(1);
/// The shortest and the longest wait after a renewal that failed.
const MIN_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(3600);

/// Renews whenever it is time. Never ends.
pub(super) async fn keep_renewed(shared: Arc<Shared>) {
    let (clock, mut jumps) = (&shared.entrance.clock, Jumps::new());
    loop {
        let (due, expires) = {
            let membership = shared.membership.borrow();
            (membership.renew, membership.expires)
        };
        let jump = jumps.look();
        if let Some(jump) = jump {
            tracing::info!(%jump, "this machine's clock was set, or it slept; asking for a new certificate");
        } else if clock.now() < due {
            sleep(due.since(clock.now()).min(LOOK)).await;
            continue;
        }
        match renew(&shared).await {
            Ok(membership) => {
                let left = membership.expires.since(clock.now());
                tracing::info!(good_for_seconds = left.as_secs(), "renewed this node's certificate");
                // Of a bootstrap that issues certificates to be renewed at once no more than this is asked.
                sleep(MIN_RETRY).await;
            }
            Err(error) => {
                let left = expires.since(clock.now());
                tracing::warn!(%error, left_seconds = left.as_secs(), "could not renew this node's certificate");
                sleep((left / 20).clamp(MIN_RETRY, MAX_RETRY)).await;
            }
        }
    }
}

/// Asks for the next certificate; joins anew if this one has ended.
pub(super) async fn renew(shared: &Arc<Shared>) -> Result<Membership, Arc<JoinError>> {
    let limit = shared.entrance.answer_timeout;
    let mut used = None;
    let answer = timeout(limit, shared.request(&BootstrapRequest::Renew, false, &mut used)).await;
    let issued = match answer {
        Ok(Ok(BootstrapResponse::Issued(issued))) => Ok(issued),
        Ok(Ok(BootstrapResponse::JoinRefused(_) | BootstrapResponse::Answer(_))) => Err(Cause::WrongAnswer),
        Ok(Err(failure)) => return Err(failure),
        Err(_) => Err(Cause::NoAnswer { within: limit }),
    };
    match issued.and_then(|issued| shared.entrance.membership(issued)) {
        Ok(membership) => {
            let membership = shared.entrance.keep(membership).await;
            shared.membership.send_replace(membership.clone());
            shared.answered();
            Ok(membership)
        }
        Err(cause) => Err(shared.failed(used, cause)),
    }
}
