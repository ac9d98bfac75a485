//! Sessions that somebody measured: a table of when each relay joined and left.

use std::num::NonZeroUsize;
use std::time::Duration;

/// The most sessions that a trace may have.
pub const MAX_SESSIONS: usize = 1_000_000;
/// The longest line of a trace, in bytes.
pub const MAX_LINE_BYTES: usize = 256;
/// The latest time in a trace, in seconds: a century.
pub const MAX_SECONDS: f64 = 100.0 * 366.0 * 24.0 * 3600.0;

/// One relay's stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// When it joined; zero if it was there from the start.
    pub joined: Duration,
    /// When it left; `None` if it stayed to the end.
    pub left: Option<Duration>,
}

/// The sessions of a trace, in the order in which they begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    stays: Vec<Stay>,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// There are more or fewer fields than two.
    #[error("{fields} fields, where JOIN,LEAVE in seconds should be")]
    Fields {
        /// How many there are.
        fields: usize,
    },
    /// The time of joining is no number.
    #[error("the time of joining is not a number of seconds")]
    Join,
    /// The time of leaving is no number.
    #[error("the time of leaving is not a number of seconds")]
    Leave,
    /// A time is negative or later than [`MAX_SECONDS`].
    #[error("a time is before 0 or more than a century later")]
    Range,
    /// A session ends before it begins.
    #[error("it leaves before it joins")]
    Order,
    /// It is longer than [`MAX_LINE_BYTES`].
    #[error("longer than {MAX_LINE_BYTES} bytes")]
    Length,
    /// It is one more than [`MAX_SESSIONS`].
    #[error("more than {MAX_SESSIONS} sessions")]
    TooMany,
}

/// Why a text is no trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A line makes no sense.
    #[error("line {line}: {cause}")]
    Line {
        /// Its number, counted from 1.
        line: NonZeroUsize,
        /// What is wrong with it.
        cause: LineError,
    },
    /// It has no session.
    #[error("no session; write a line JOIN,LEAVE for each, in seconds")]
    Empty,
}

impl Trace {
    /// Reads lines `JOIN,LEAVE` in seconds from the trace's start. An empty `LEAVE` is a relay that stays to the end. Empty
    /// lines and those that begin with `#` are skipped, and a first line that is exactly `join,leave`.
    ///
    /// # Errors
    /// [`TraceError`] with the first line that makes no sense.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut stays = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let content = line.trim();
            let is_header = number == 1 && content.eq_ignore_ascii_case("join,leave");
            if content.is_empty() || content.starts_with('#') || is_header {
                continue;
            }
            let stay = if stays.len() < MAX_SESSIONS { parse_line(content) } else { Err(LineError::TooMany) };
            let line = NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
            stays.push(stay.map_err(|cause| TraceError::Line { line, cause })?);
        }
        if stays.is_empty() {
            return Err(TraceError::Empty);
        }
        stays.sort_by_key(|stay| stay.joined);
        Ok(Self { stays })
    }

    /// The sessions, in the order in which they begin.
    #[must_use]
    pub fn stays(&self) -> &[Stay] {
        &self.stays
    }

    /// How many are there at the start.
    #[must_use]
    pub fn at_start(&self) -> usize {
        self.stays.iter().take_while(|stay| stay.joined.is_zero()).count()
    }

    /// The most that are there at a time.
    #[must_use]
    pub fn most(&self) -> usize {
        let mut ends: Vec<Duration> = self.stays.iter().filter_map(|stay| stay.left).collect();
        ends.sort();
        let mut left = ends.into_iter().peekable();
        let (mut there, mut most) = (0usize, 0);
        for stay in &self.stays {
            while left.next_if(|left| *left <= stay.joined).is_some() {
                there = there.saturating_sub(1);
            }
            there += 1;
            most = most.max(there);
        }
        most
    }

    /// The same sessions in a time that runs `speedup` times as fast.
    #[must_use]
    pub fn sped_up(&self, speedup: f64) -> Self {
        let faster = |time: Duration| super::divide(time, speedup);
        let stays =
            self.stays.iter().map(|stay| Stay { joined: faster(stay.joined), left: stay.left.map(faster) });
        Self { stays: stays.collect() }
    }
}

fn parse_line(line: &str) -> Result<Stay, LineError> {
    if line.len() > MAX_LINE_BYTES {
        return Err(LineError::Length);
    }
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [joined, left] = fields.as_slice() else { return Err(LineError::Fields { fields: fields.len() }) };
    let joined = seconds(joined, LineError::Join)?;
    let left = if left.is_empty() { None } else { Some(seconds(left, LineError::Leave)?) };
    if left.is_some_and(|left| left < joined) {
        return Err(LineError::Order);
    }
    Ok(Stay { joined, left })
}

fn seconds(text: &str, not_a_number: LineError) -> Result<Duration, LineError> {
    let seconds: f64 = text.parse().map_err(|_| not_a_number)?;
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        return Err(if seconds.is_nan() { not_a_number } else { LineError::Range });
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn stay(joined_ms: u64, left_ms: u64) -> Stay {
        let left = Some(Duration::from_millis(left_ms));
        Stay { joined: Duration::from_millis(joined_ms), left }
    }

    #[test]
    fn a_trace_is_read_and_ordered() {
        let trace = Trace::parse("join,leave\n# a comment\n\n10, 12.5\r\n0,11\n 0 ,\n").unwrap();
        let forever = Stay { joined: Duration::ZERO, left: None };
        assert_eq!(trace.stays(), [stay(0, 11_000), forever, stay(10_000, 12_500)]);
        assert_eq!((trace.at_start(), trace.most()), (2, 3));
        assert_eq!(trace.sped_up(10.0).stays(), [stay(0, 1100), forever, stay(1000, 1250)]);
    }

    #[test]
    fn what_makes_no_sense_is_named_by_line_and_cause() {
        let long = format!("0,{}", "1".repeat(300));
        let cases = [
            ("0,1\n2", 2, LineError::Fields { fields: 1 }),
            ("0,1,2", 1, LineError::Fields { fields: 3 }),
            ("# one\n\nx,1", 3, LineError::Join),
            ("0,1\njoin,leave", 2, LineError::Join),
            ("0,soon", 1, LineError::Leave),
            ("nan,1", 1, LineError::Join),
            ("-1,1", 1, LineError::Range),
            ("0,1e300", 1, LineError::Range),
            ("0,inf", 1, LineError::Range),
            ("5,4.999", 1, LineError::Order),
            (&long, 1, LineError::Length),
        ];
        for (text, line, cause) in cases {
            let line = NonZeroUsize::new(line).unwrap();
            assert_eq!(Trace::parse(text), Err(TraceError::Line { line, cause }), "{text}");
        }
        assert_eq!(Trace::parse("join,leave\n"), Err(TraceError::Empty));
        let many = "0,1\n".repeat(MAX_SESSIONS + 1);
        let line = NonZeroUsize::new(MAX_SESSIONS + 1).unwrap();
        assert_eq!(Trace::parse(&many), Err(TraceError::Line { line, cause: LineError::TooMany }));
        assert_eq!(Trace::parse("1,2\n3,2").unwrap_err().to_string(), "line 2: it leaves before it joins");
    }
}
