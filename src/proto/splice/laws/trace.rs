//! What happened in a run, line by line, for people.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Keeps the lines of a run that is to be told; others cost nothing.
#[derive(Clone, Default)]
pub(super) struct Trace(Option<Rc<RefCell<Vec<String>>>>);

impl Trace {
    /// A trace that keeps its lines, also if the run panics.
    pub(super) fn kept() -> Self {
        Self(Some(Rc::default()))
    }

    pub(super) fn line(&self, step: u32, line: fmt::Arguments<'_>) {
        if let Some(lines) = &self.0 {
            lines.borrow_mut().push(format!("{step:>5}  {line}"));
        }
    }

    /// All of it, or the beginning and the end.
    pub(super) fn told(&self, most: usize) -> String {
        let lines = self.0.as_ref().map(|lines| lines.borrow().clone()).unwrap_or_default();
        let left_out = lines.len().saturating_sub(most);
        if left_out == 0 {
            return lines.join("\n");
        }
        let (head, tail) = (&lines[..most / 4], &lines[most / 4 + left_out..]);
        format!("{}\n       ... {left_out} lines ...\n{}", head.join("\n"), tail.join("\n"))
    }
}

/// A node's: `O`, `T`, or a relay's hop and place among its candidates, as in `2b`.
#[derive(Clone, Copy)]
pub(super) enum Name {
    Origin,
    Relay { hop: usize, place: char },
    Target,
}

impl Name {
    pub(super) fn of(hop: usize, place: usize, relays: usize) -> Self {
        match hop {
            0 => Self::Origin,
            _ if hop > relays => Self::Target,
            _ => Self::Relay { hop, place: ['a', 'b', 'c'][place] },
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin => f.write_str("O"),
            Self::Relay { hop, place } => write!(f, "{hop}{place}"),
            Self::Target => f.write_str("T"),
        }
    }
}
