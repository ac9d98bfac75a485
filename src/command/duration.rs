//! Durations as people write them.

use jiff::{Span, SpanRelativeTo};
use std::time::Duration;

/// Nobody waits for longer, and every clock can be that far ahead: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Reads `500ms`, `30s`, `10min` or `2h`; `0s` too.
pub fn parse(text: &str) -> Result<Duration, String> {
    let time = read(text).ok_or("write a duration such as 500ms, 30s, 10min or 2h")?;
    within_reason(time)
}

/// The same, but not nothing.
pub fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("write a duration above 0".to_owned()),
        duration => Ok(duration),
    }
}

/// The same as [`parse`], where a number alone is seconds: `2` or `0.5`.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let is_number = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let seconds = |text: &str| Duration::try_from_secs_f64(text.parse().ok()?).ok();
    let time = if is_number { seconds(text) } else { read(text) };
    within_reason(time.ok_or("write seconds, such as 2 or 0.5, or a duration such as 500ms or 10min")?)
}

fn read(text: &str) -> Option<Duration> {
    let span = text.trim().parse::<Span>().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?.try_into().ok()
}

fn within_reason(time: Duration) -> Result<Duration, String> {
    if time <= LONGEST { Ok(time) } else { Err("write a duration of at most 100 years".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_seconds_where_that_is_said() {
        for (text, ms) in
            [("0", 0), ("2", 2000), ("0.5", 500), (".25", 250), ("500ms", 500), ("1.5min", 90_000)]
        {
            assert_eq!(parse_seconds(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", ".", "1.2.3", "-1", "1e3", "inf", "s", "2 apples"] {
            assert!(parse_seconds(text).unwrap_err().starts_with("write seconds"), "{text}");
        }
        assert!(parse("2").unwrap_err().starts_with("write a duration such as"));
    }

    #[test]
    fn no_duration_is_beyond_what_a_clock_can_tell() {
        for read in [parse, parse_positive, parse_seconds] {
            assert_eq!(read("876001h"), Err("write a duration of at most 100 years".to_owned()));
            for text in ["9999999999999999999s", "99999999999999h"] {
                assert!(read(text).is_err(), "{text}");
            }
        }
        assert!(parse_seconds("99999999999999999999").is_err());
        assert_eq!(parse("876000h"), Ok(LONGEST));
        assert!(tokio::time::Instant::now().checked_add(LONGEST).is_some());
    }
}
