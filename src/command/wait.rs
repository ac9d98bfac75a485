//! How long a command waits for problems that may pass: a bootstrap that does not answer yet, a name that is not served yet, relays
//! that are not back yet.

use crate::say::say;
use crate::{Failure, duration};
use hopline_proto::backoff::Pauses;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// Between two attempts.
const PAUSES: Pauses = Pauses::doubling(Duration::from_millis(50), Duration::from_millis(400));
/// The first attempt is given this long in any case.
const FIRST_ATTEMPT: Duration = Duration::from_secs(5);

/// How long a command waits, in all.
#[derive(Clone, Debug, clap::Args)]
pub struct WaitArgs {
    /// How long to wait for a bootstrap that does not answer yet, a name that is not served yet, or more relays
    #[arg(long, env = "HOPLINE_WAIT", default_value = "10s", value_name = "TIME", value_parser = duration::parse)]
    wait: Duration,
    #[arg(skip)]
    began: OnceLock<Instant>,
    #[arg(skip)]
    told: OnceLock<()>,
}

impl WaitArgs {
    /// What the first attempt that succeeds gives. Repeated while the failure is one that time can mend, until the time is
    /// over that the command has in all; then it is the last failure.
    pub async fn until<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let deadline = self.began() + self.wait;
        let mut failure = match attempt().await {
            Err(failure) if failure.awaits().is_some() && Instant::now() < deadline => failure,
            outcome => return outcome,
        };
        self.tell(&failure);
        for pause in PAUSES.sequence() {
            if Instant::now() + pause >= deadline {
                break;
            }
            sleep(pause).await;
            match timeout_at(deadline, attempt()).await {
                Ok(Err(again)) if again.awaits().is_some() => failure = again,
                Ok(outcome) => return outcome,
                Err(_) => break,
            }
        }
        Err(failure)
    }

    /// What `attempt` gives, which goes on by itself. `None` if that took too long: when the time is over it is given as long as
    /// a first attempt takes, unless it is in vain.
    pub async fn within<T>(
        &self,
        attempt: impl Future<Output = T>,
        in_vain: impl Future<Output = ()>,
    ) -> Option<T> {
        let (deadline, first) = (self.began() + self.wait, Instant::now() + FIRST_ATTEMPT);
        let too_long = async {
            sleep_until(deadline).await;
            let _ = timeout_at(first, in_vain).await; // at once if that is over too
        };
        tokio::select! {
            biased;
            outcome = attempt => Some(outcome),
            () = too_long => None,
        }
    }

    /// The time runs from the command's first use of it.
    fn began(&self) -> Instant {
        *self.began.get_or_init(Instant::now)
    }

    fn tell(&self, failure: &Failure) {
        if let (Some(what), Ok(())) = (failure.awaits(), self.told.set(())) {
            let wait = self.wait.as_secs_f64();
            say(format_args!("{}; waiting for {what}, up to {wait} s", failure.cause()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Exit;
    use hopline_proto::rpc::{DenyReason, Refusal};

    fn waiting(wait: Duration) -> WaitArgs {
        WaitArgs { wait, began: OnceLock::new(), told: OnceLock::new() }
    }

    fn unknown() -> Failure {
        Refusal::UnknownName { name: "echo".to_owned() }.into()
    }

    #[tokio::test]
    async fn what_time_can_mend_is_tried_again_until_it_succeeds() {
        let mut attempts = 0;
        let attempt = async || {
            attempts += 1;
            if attempts < 4 { Err(unknown()) } else { Ok(()) }
        };
        let began = Instant::now();
        waiting(Duration::from_secs(60)).until(attempt).await.unwrap();
        assert!(began.elapsed() >= PAUSES.sequence().take(3).sum::<Duration>());
    }

    #[tokio::test]
    async fn the_last_failure_counts_when_the_time_is_over() {
        let (wait, began, mut first) = (Duration::from_millis(500), Instant::now(), true);
        let attempt = async || {
            if !std::mem::replace(&mut first, false) {
                std::future::pending::<()>().await;
            }
            Err::<(), _>(unknown())
        };
        let failure = waiting(wait).until(attempt).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused);
        assert!(began.elapsed() >= wait, "the attempt that hangs ends with the time, and not before");
    }

    #[tokio::test]
    async fn what_is_in_vain_ends_with_the_time_and_not_before() {
        for wait in [Duration::ZERO, Duration::from_millis(100)] {
            let began = Instant::now();
            assert_eq!(waiting(wait).within(std::future::pending::<()>(), async {}).await, None);
            let took = began.elapsed();
            assert!(
                (wait..FIRST_ATTEMPT).contains(&took),
                "relays may yet come back within the time: {took:?}"
            );
        }
        let soon = async {
            sleep(Duration::from_millis(1)).await;
            7
        };
        let outcome = waiting(Duration::ZERO).within(soon, std::future::pending()).await;
        assert_eq!(outcome, Some(7), "a first attempt is made in any case");
    }

    #[tokio::test]
    async fn what_time_cannot_mend_fails_at_once_and_so_does_everything_without_patience() {
        let denied = || Failure::from(Refusal::Denied { reason: DenyReason::Revoked });
        let minute = Duration::from_secs(60);
        for (wait, failure) in [(minute, denied as fn() -> Failure), (Duration::ZERO, unknown)] {
            let mut attempts = 0;
            let attempt = async || {
                attempts += 1;
                Err::<(), _>(failure())
            };
            waiting(wait).until(attempt).await.unwrap_err();
            assert_eq!(attempts, 1);
        }
    }
}
