//! Durations as people write them.

use crate::churn::parse_duration;
use std::time::Duration;

/// Reads `500ms`, `30s`, `10min` or `2h`; `0s` too.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a duration such as 500ms, 30s, 10min or 2h".to_owned())
}

/// The same, but not nothing.
pub(super) fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("write a duration above 0".to_owned()),
        duration => Ok(duration),
    }
}
