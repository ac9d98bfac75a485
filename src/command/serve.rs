//! Serving a name, and why it is not served in time.

use crate::join::ServeArgs;
use crate::{Exit, Failure};
use hopline::endpoint::{Endpoint, ListenError};
use hopline_proto::rpc::{Listing, Refusal, Status};
use std::time::Duration;
use tokio::time::timeout;

/// How long the bootstrap may take to show that it answers.
const TIMEOUT: Duration = Duration::from_secs(1);

impl ServeArgs {
    /// What serves a name, once that is registered.
    pub async fn serve<T>(
        &self,
        endpoint: &Endpoint,
        listening: impl Future<Output = Result<T, ListenError>>,
    ) -> Result<T, Failure> {
        match self.join.network.wait.within(listening, endpoint.reach().until_in_vain()).await {
            Some(outcome) => Ok(outcome?),
            None => Err(why(endpoint).await),
        }
    }
}

/// Why a name is not served yet.
async fn why(endpoint: &Endpoint) -> Failure {
    let unreached = endpoint.reach().in_vain();
    match timeout(TIMEOUT, endpoint.list()).await {
        Ok(Ok(listing)) => reason(unreached, &listing),
        Ok(Err(_)) | Err(_) => {
            Failure::new(Exit::NoBootstrap, "no bootstrap answers; see whether it runs, and try again")
        }
    }
}

/// The same, of a node whose bootstrap answers.
fn reason(unreached: usize, listing: &Listing) -> Failure {
    let is_up = |status| matches!(status, Status::Registered | Status::Online | Status::Suspect);
    let next = "check their --advertise and firewalls, and this machine's network";
    match unreached {
        0 if listing.relays.iter().any(|relay| is_up(relay.status)) => Failure::new(
            Exit::Failed,
            "the bootstrap answers, but has not registered the name in time; try again",
        ),
        0 => Refusal::PoolTooSmall { need: 1, have: 0 }.into(),
        1 => Failure::new(
            Exit::PoolTooSmall,
            format!("the one relay that the bootstrap named can't be reached from here; {next}"),
        ),
        more => Failure::new(
            Exit::PoolTooSmall,
            format!("none of the {more} relays that the bootstrap named can be reached from here; {next}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_bootstrap_answers_is_not_told_that_none_does() {
        let none = Listing::default();
        for (unreached, says) in [(3, "none of the 3 relays"), (1, "the one relay"), (0, "relays")] {
            let failure = reason(unreached, &none);
            assert_eq!(failure.exit(), Exit::PoolTooSmall);
            assert!(failure.message().contains(says), "{}", failure.message());
        }
    }
}
