//! What an end of a flow has that relays have not: it looks whether bytes arrive, and believes only the other end that it
//! gave the flow up.

use crate::cause::CauseKey;
use crate::crypto::Sealed;
use crate::flows::probe::ProgressWatch;

/// Terminal codes from relays that an origin hears before it believes the next one.
const MAX_DOUBTED: u32 = 2;

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::flows) struct End {
    /// Whether its bytes arrive.
    pub(in crate::flows) watch: ProgressWatch,
    /// How this end tells the other why it gives the flow up; `None` until both have agreed on TLS.
    cause_key: Option<CauseKey>,
    /// Why the other may have given the flow up, which came before the key.
    early_cause: Option<Sealed>,
    /// Terminal codes that were heard and not believed yet.
    doubted: u32,
}

impl End {
    /// The origin's end, which decides, or the target's.
    pub(in crate::flows) fn new(is_origin: bool) -> Self {
        Self { watch: ProgressWatch::new(is_origin), cause_key: None, early_cause: None, doubted: 0 }
    }

    /// Both have agreed on TLS. What the other end said before that, if it proves to be its own word.
    pub(in crate::flows) fn share(&mut self, key: CauseKey) -> Option<Sealed> {
        self.cause_key = Some(key);
        self.early_cause.take().filter(|cause| self.told(cause).is_some())
    }

    pub(in crate::flows) const fn has_key(&self) -> bool {
        self.cause_key.is_some()
    }

    /// Why this end gives the flow up, for the other one's eyes.
    pub(in crate::flows) fn seal(&self, cause: &str) -> Option<Sealed> {
        self.cause_key.as_ref().map(|key| key.seal(cause))
    }

    /// What the other end said of why it gave the flow up. `None` if these are not its own words, or it can't be told.
    pub(in crate::flows) fn told(&self, cause: &Sealed) -> Option<String> {
        self.cause_key.as_ref()?.open(cause)
    }

    /// A relay says that the flow is over, with what the other end is said to have given as the cause. Whether to doubt it.
    pub(in crate::flows) fn doubt(&mut self, cause: Option<&Sealed>) -> bool {
        if self.cause_key.is_none() {
            // A relay that gives no cause does not displace one that came before.
            self.early_cause = cause.cloned().or(self.early_cause.take());
        }
        self.doubted = self.doubted.saturating_add(1);
        self.doubted <= MAX_DOUBTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Key;
    use crate::id::FlowId;
    use crate::splice::Position;

    const FLOW: FlowId = FlowId::from_bytes([7; 16]);

    fn key(of: Position) -> CauseKey {
        CauseKey::new(&Key::from_bytes([5; 32]), FLOW, of)
    }

    #[test]
    fn a_cause_is_read_by_the_other_end_alone() {
        let (mut origin, mut target) = (End::new(true), End::new(false));
        assert_eq!(target.seal("busy"), None);
        target.share(key(Position::Target));
        let sealed = target.seal("busy").expect("it has a key");
        assert_eq!(origin.told(&sealed), None);
        origin.share(key(Position::Origin));
        assert_eq!(origin.told(&sealed), Some("busy".to_owned()));
    }

    #[test]
    fn what_came_before_the_key_counts_once_if_it_is_genuine() {
        let genuine = key(Position::Target).seal("busy");
        let forged = Key::from_bytes([1; 32]).seal_once(b"", &[0; 256]);
        for (cause, proven) in [(genuine, true), (forged, false)] {
            let mut origin = End::new(true);
            assert!(origin.doubt(Some(&cause)) && origin.doubt(None));
            assert_eq!(origin.share(key(Position::Origin)), proven.then_some(cause));
            assert_eq!(origin.share(key(Position::Origin)), None);
        }
    }

    #[test]
    fn the_third_terminal_code_is_believed() {
        let mut origin = End::new(true);
        assert_eq!([(); 4].map(|()| origin.doubt(None)), [true, true, false, false]);
    }
}
