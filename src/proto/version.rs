//! Which versions of the protocol a node speaks, and how two nodes find one that both do.

use std::fmt;

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The first.
    pub oldest: u8,
    /// The last.
    pub newest: u8,
}

impl Versions {
    /// Those that this code speaks.
    pub const OURS: Self = Self { oldest: 1, newest: 1 };

    /// The names under which a node offers `protocol`, the newest version first (ALPN, RFC 7301). The last is the bare one,
    /// which all versions know: nodes that have no version in common tell each other under it what they speak.
    #[must_use]
    pub fn names(self, protocol: &str) -> Vec<Vec<u8>> {
        let versions = (self.oldest..=self.newest).rev().map(|version| format!("{protocol}/{version}"));
        versions.chain([protocol.to_owned()]).map(String::into_bytes).collect()
    }

    /// Whether two nodes that settled on this name have a version in common.
    #[must_use]
    pub fn is_version(name: &[u8]) -> bool {
        name.contains(&b'/')
    }

    /// What nodes without a version in common tell each other. It may get longer.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 2] {
        [self.oldest, self.newest]
    }

    /// What the other node told.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([oldest, newest], _) = bytes.split_first_chunk()?;
        Some(Self { oldest: *oldest, newest: *newest })
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.newest {
            newest if newest == self.oldest => write!(f, "version {newest}"),
            newest => write!(f, "versions {} to {newest}", self.oldest),
        }
    }
}

/// Two nodes have no version in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.told("the other"))]
pub struct Mismatch {
    /// What this node speaks.
    pub ours: Versions,
    /// What the other one does, if it said so.
    pub theirs: Option<Versions>,
}

impl Mismatch {
    /// The same as the other node sees it; this one has said what it speaks.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { ours: self.theirs.unwrap_or(self.ours), theirs: Some(self.ours) }
    }

    /// As a sentence, with a word for the other node, and with what to do.
    #[must_use]
    pub fn told(&self, other: &str) -> String {
        let Self { ours, theirs } = self;
        match theirs {
            Some(theirs) => {
                let older = if theirs.newest > ours.newest { "this node" } else { other };
                format!(
                    "no common version: this node speaks {ours}, {other} speaks {theirs}: upgrade {older}"
                )
            }
            None => {
                format!("no common version: this node speaks {ours}, {other} does not: upgrade the older one")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_offered_first_and_the_bare_name_last() {
        let names = Versions { oldest: 2, newest: 3 }.names("hopline");
        assert_eq!(names, [&b"hopline/3"[..], b"hopline/2", b"hopline"]);
        let settled: Vec<bool> = names.iter().map(|name| Versions::is_version(name)).collect();
        assert_eq!(settled, [true, true, false]);
    }

    #[test]
    fn whoever_is_older_is_to_be_upgraded() {
        let (old, new) = (Versions { oldest: 1, newest: 1 }, Versions { oldest: 2, newest: 3 });
        assert_eq!(Versions::from_bytes(&[2, 3, 9]), Some(new));
        assert_eq!(Versions::from_bytes(&[2]), None);
        let told = |ours, theirs| Mismatch { ours, theirs }.told("the bootstrap");
        assert_eq!(
            told(old, Some(new)),
            "no common version: this node speaks version 1, the bootstrap speaks versions 2 to 3: upgrade this node"
        );
        assert!(told(new, Some(old)).ends_with(": upgrade the bootstrap"));
        assert!(told(new, None).ends_with(": upgrade the older one"));
    }
}
