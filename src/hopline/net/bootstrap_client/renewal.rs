//! Keeping the certificate from running out, by the network's time. Whenever this machine's clock was set, or it slept, the
//! bootstrap is asked at once: its answer tells what time it is there. So it is when the network's time falls back behind that
//! at which the certificate was made: with each day that it does, the certificate is good for fewer clocks, and soon for none.

use super::connection::Shared;
use super::network_clock::AGREEMENT;
use super::{Cause, JoinError};
use crate::net::bootstrap_rpc::{BootstrapRequest, BootstrapResponse};
use crate::net::clock::Jumps;
use crate::net::identity::Membership;
use hopline_proto::Time;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The wall clock, by which certificates end, is looked at this often: it may jump, and a timer would not notice.
const LOOK: Duration = Duration::from_secs(1);
/// The shortest pause between two looks.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);
/// The shortest and the longest wait after a renewal that failed.
const MIN_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(3600);

/// What calls for a renewal.
#[derive(Debug, Default)]
struct RenewalState {
    /// This machine's clock was set, and no certificate has come since.
    is_urgent: bool,
    /// When it failed last, if it did since the last success.
    failed: Option<Instant>,
}

impl RenewalState {
    /// Whether to ask now. The less is left of the certificate, the sooner a failure is followed by the next try; a network
    /// whose time was set may leave nothing of it at any moment.
    fn is_due(&self, membership: &Membership, now: Time, at: Instant) -> bool {
        let wait = (membership.left(now) / 20).clamp(MIN_RETRY, MAX_RETRY);
        let may_ask = self.failed.is_none_or(|failed| at.duration_since(failed) >= wait);
        may_ask && (self.is_urgent || membership.is_due(now, AGREEMENT))
    }
}

/// Renews whenever it is time. Never ends.
pub(super) async fn keep_renewed(shared: Arc<Shared>) {
    let (clock, mut jumps, mut state) = (&shared.joiner.clock, Jumps::new(), RenewalState::default());
    loop {
        if let Some(jump) = jumps.look() {
            tracing::info!(%jump, "this machine's clock was set, or the machine slept; asking for a new certificate");
            state = RenewalState { is_urgent: true, failed: None };
        }
        let (membership, now) = (shared.membership.borrow().clone(), clock.now());
        if !state.is_due(&membership, now, Instant::now()) {
            let until_due = membership.renew.since(now).clamp(SHORTEST_LOOK, LOOK);
            let pause = if state.failed.is_some() { LOOK } else { until_due };
            let _ = timeout(pause, clock.changed()).await;
            continue;
        }
        if membership.issued > now + AGREEMENT {
            let (made, now) = (membership.issued.shown(), now.shown());
            tracing::info!(%made, %now, "the network's clock was set back since this node's certificate was made; asking for a new one");
        }
        state = match renew(&shared).await {
            Ok(membership) => {
                let left = membership.expires.since(clock.now());
                tracing::info!(good_for_seconds = left.as_secs(), "renewed this node's certificate");
                // Of a bootstrap that issues certificates to be renewed at once no more than this is asked.
                sleep(MIN_RETRY).await;
                RenewalState::default()
            }
            Err(error) => {
                let left = membership.left(clock.now());
                tracing::warn!(%error, left_seconds = left.as_secs(), "could not renew this node's certificate");
                RenewalState { failed: Some(Instant::now()), ..state }
            }
        };
    }
}

/// Asks for the next certificate; joins anew if this one has ended.
pub(super) async fn renew(shared: &Arc<Shared>) -> Result<Membership, Arc<JoinError>> {
    let limit = shared.joiner.answer_timeout;
    let mut used = None;
    let answer = timeout(limit, shared.request(&BootstrapRequest::Renew, false, &mut used)).await;
    let issued = match answer {
        Ok(Ok(BootstrapResponse::Issued(issued))) => Ok(issued),
        Ok(Ok(
            BootstrapResponse::JoinRefused(_) | BootstrapResponse::Answer(_) | BootstrapResponse::Unknown,
        )) => Err(Cause::WrongAnswer),
        Ok(Err(failure)) => return Err(failure),
        Err(_) => Err(Cause::NoAnswer { within: limit }),
    };
    match issued.and_then(|issued| shared.joiner.membership(issued)) {
        Ok(membership) => {
            let membership = shared.joiner.keep(membership).await;
            shared.membership.send_replace(membership.clone());
            shared.answered();
            Ok(membership)
        }
        Err(cause) => Err(shared.failed(used, cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::authority::{Authority, DEFAULT_VALIDITY};
    use crate::net::identity::Identity;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_try_that_failed_is_repeated_the_sooner_the_less_is_left() {
        let (authority, identity) = (Authority::generate(), Arc::new(Identity::generate()));
        let (made, at) = (Time::ZERO + DAY * 20_000, Instant::now());
        let issued = authority.issue(identity.public_key(), DEFAULT_VALIDITY, made);
        let membership = Membership::new(identity, issued, authority.public_key());
        let ask = |state: &RenewalState, now, after| state.is_due(&membership, now, at + after);
        let (fresh, failed) = (RenewalState::default(), RenewalState { is_urgent: false, failed: Some(at) });
        let urgent = RenewalState { is_urgent: true, failed: Some(at) };

        assert!(!ask(&fresh, made, DAY) && ask(&fresh, made + DAY * 6, Duration::ZERO));
        assert!(ask(&fresh, made - DAY * 30, Duration::ZERO), "it has not begun");
        for now in [made - DAY * 30, made + DAY * 30] {
            assert!(!ask(&failed, now, MIN_RETRY / 2) && ask(&failed, now, MIN_RETRY), "nothing is left");
        }
        assert!(!ask(&failed, made + DAY * 5, MAX_RETRY / 2) && ask(&failed, made + DAY * 5, MAX_RETRY));
        assert!(!ask(&urgent, made, MAX_RETRY / 2) && ask(&urgent, made, MAX_RETRY));
    }
}
