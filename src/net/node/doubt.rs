//! What this node remembers of dials that failed because a certificate was not taken for valid: if no relay can be had, that is
//! what people have to know.

use crate::net::clock::{Clock, Skew};
use crate::net::coordinator::Coordinator;
use crate::net::tls::Untimely;
use crate::proto::id::NodeId;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long such a failure explains others: for longer than a flow may take to open.
const LASTS: Duration = Duration::from_secs(30);

/// The last such failure since the last dial that succeeded.
#[derive(Debug, Default)]
pub(super) struct Doubt(RefCell<Option<(Instant, Arc<str>)>>);

impl Doubt {
    pub(super) fn note(&self, peer: NodeId, untimely: Untimely, coordinator: &Coordinator) {
        let why = match untimely {
            Untimely::Theirs(out) => format!("relay {} can't be trusted at this time: {out}", peer.short()),
            Untimely::Ours => {
                let (own, network) = (Clock::wall(), coordinator.network_time());
                format!(
                    "by the clock of relay {} this node's certificate has ended, or has not begun: it is valid {}, and this \
                     machine's clock says {}, {} of the bootstrap's",
                    peer.short(),
                    coordinator.membership().period(),
                    own.shown(),
                    Skew::of(own, network)
                )
            }
        };
        self.0.replace(Some((Instant::now(), why.into())));
    }

    pub(super) fn clear(&self) {
        self.0.take();
    }

    pub(super) fn present(&self) -> Option<Arc<str>> {
        let doubt = self.0.borrow();
        doubt.as_ref().filter(|(at, _)| at.elapsed() < LASTS).map(|(_, why)| Arc::clone(why))
    }
}
