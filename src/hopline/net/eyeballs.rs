//! Dials to several addresses of one node: the next begins when the one before fails or lags ("Happy Eyeballs", RFC 8305), so that
//! one broken IP family does not cost a whole time limit.

use futures_util::stream::{FuturesUnordered, StreamExt};
use std::time::Duration;
use tokio::time::sleep;

/// How long a dial has before the next begins beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// What the first dial has that succeeds; the others are given up. `None` if there is no such dial. `failed` is told of each error.
pub(crate) async fn first_of<T, E>(
    dials: impl Iterator<Item = impl Future<Output = Result<T, E>>>,
    mut failed: impl FnMut(E),
) -> Option<T> {
    let (mut dials, mut under_way) = (dials.peekable(), FuturesUnordered::new());
    loop {
        under_way.extend(dials.next());
        let is_last = dials.peek().is_none();
        tokio::select! {
            // Nothing is under way only when there is nothing left to begin, either.
            ended = under_way.next() => match ended? {
                Ok(connection) => return Some(connection),
                Err(error) => failed(error),
            },
            () = sleep(HEAD_START), if !is_last => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::time::Instant;

    /// What becomes of a dial.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Answers,
        AnswersLate,
        Fails(&'static str),
        Hangs,
    }

    async fn dial(fate: Fate, place: usize, begun: &RefCell<Vec<usize>>) -> Result<usize, &'static str> {
        begun.borrow_mut().push(place);
        match fate {
            Fate::Answers => {}
            Fate::AnswersLate => sleep(HEAD_START * 2).await,
            Fate::Fails(why) => return Err(why),
            Fate::Hangs => std::future::pending().await,
        }
        Ok(place)
    }

    #[tokio::test]
    async fn the_next_address_is_dialled_after_a_failure_or_a_head_start_and_the_first_answer_counts() {
        use Fate::{Answers, AnswersLate, Fails, Hangs};
        struct Case<'a>(&'a [Fate], Option<usize>, &'a [&'a str], &'a [usize], u32);
        let cases = [
            Case(&[Answers, Hangs], Some(0), &[], &[0], 0),
            Case(&[Fails("a"), Answers, Hangs], Some(1), &["a"], &[0, 1], 0),
            Case(&[Hangs, Answers], Some(1), &[], &[0, 1], 1),
            Case(&[AnswersLate, Hangs, Fails("b")], Some(0), &[], &[0, 1], 2),
            Case(&[Fails("a"), Fails("b")], None, &["a", "b"], &[0, 1], 0),
            Case(&[], None, &[], &[], 0),
        ];
        for Case(fates, expected, errors, places, head_starts) in cases {
            let (begun, since, mut failures) = (RefCell::default(), Instant::now(), Vec::new());
            let dials = fates.iter().zip(0..).map(|(fate, place)| dial(*fate, place, &begun));
            let result = first_of(dials, |error| failures.push(error)).await;
            assert_eq!(result, expected, "{fates:?}");
            assert!(failures.starts_with(errors), "{fates:?}: {failures:?}");
            assert!(begun.take().starts_with(places), "{fates:?}");
            assert!(since.elapsed() >= HEAD_START * head_starts, "{fates:?}");
        }
    }
}
