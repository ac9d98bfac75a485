//! Why an end of a flow gave it up, readable only by the other end.
//!
//! The text travels from hop to hop beside the close code, as a flow that is given up carries no more bytes. It is sealed
//! under a key from the ends' TLS session, so relays can neither read nor make one: an end that can open it knows that the other end
//! wrote it. All texts are padded to one length, so the length tells nothing either.

use super::crypto::{Key, Sealed};
use super::frame::MAX_CAUSE_BYTES;
use super::id::FlowId;
use super::splice::Position;

/// By which one end of a flow seals why it gave it up, and opens what the other end sealed.
#[derive(Clone, Debug)]
pub struct CauseKey {
    flow: FlowId,
    ours: Key,
    theirs: Key,
}

impl CauseKey {
    /// From what both ends of a flow share, for the one at `position`.
    #[must_use]
    pub fn new(shared: &Key, flow: FlowId, position: Position) -> Self {
        let [origins, targets] = ["origin's cause", "target's cause"].map(|whose| shared.derive(whose, &[]));
        // Each end has a key of its own, so that a relay can't hand it back its own words.
        let (ours, theirs) =
            if position == Position::Origin { (origins, targets) } else { (targets, origins) };
        Self { flow, ours, theirs }
    }

    /// Seals the one cause that this end ever gives.
    #[must_use]
    pub fn seal(&self, cause: &str) -> Sealed {
        let mut bytes = bounded(cause).as_bytes().to_vec();
        bytes.resize(MAX_CAUSE_BYTES, 0);
        self.ours.seal_once(self.flow.as_bytes(), &bytes)
    }

    /// What the other end said, fit for a terminal; `None` if it did not say that.
    #[must_use]
    pub fn open(&self, sealed: &Sealed) -> Option<String> {
        let bytes = self.theirs.open(self.flow.as_bytes(), sealed)?;
        let text = String::from_utf8(bytes).ok()?;
        let fit = |c: char| if c.is_control() { ' ' } else { c };
        Some(text.trim_end_matches('\0').chars().map(fit).collect())
    }
}

/// The text, cut where it is too long.
#[must_use]
pub fn bounded(cause: &str) -> &str {
    let whole = (0..=MAX_CAUSE_BYTES).rev().find(|end| cause.is_char_boundary(*end));
    whole.and_then(|end| cause.get(..end)).filter(|_| cause.len() > MAX_CAUSE_BYTES).unwrap_or(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::SEALED_CAUSE_BYTES;

    fn ends() -> [CauseKey; 2] {
        let (shared, flow) = (Key::from_bytes([3; 32]), FlowId::from_bytes([7; 16]));
        [Position::Origin, Position::Target].map(|position| CauseKey::new(&shared, flow, position))
    }

    #[test]
    fn only_the_other_end_reads_it_and_all_look_alike() {
        let [origin, target] = ends();
        for text in ["", "the disk is full", &"\u{e9}".repeat(500)] {
            let sealed = origin.seal(text);
            assert_eq!(sealed.as_bytes().len(), SEALED_CAUSE_BYTES);
            assert_eq!(target.open(&sealed).as_deref(), Some(bounded(text)));
            assert_eq!(origin.open(&sealed), None, "nobody is told their own words");
        }
        let other = CauseKey::new(&Key::from_bytes([3; 32]), FlowId::from_bytes([8; 16]), Position::Target);
        assert_eq!(other.open(&origin.seal("x")), None, "of another flow");
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let text = format!("x{}", "\u{e9}".repeat(200));
        assert_eq!(bounded(&text).len(), 255);
        assert!(text.starts_with(bounded(&text)));
    }
}
