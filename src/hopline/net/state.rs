//! What commands of one user leave for each other.

use std::path::PathBuf;

/// The directory.
#[must_use]
pub fn directory() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")))?;
    Some(state.join("hopline"))
}

/// Where the ticket stands of the network that was joined last.
#[must_use]
pub fn last_ticket() -> Option<PathBuf> {
    Some(directory()?.join("ticket"))
}
