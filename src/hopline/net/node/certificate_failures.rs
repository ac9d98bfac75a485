//! What this node remembers of dials that failed because a certificate was not taken for valid: if no relay can be had, that is
//! what people have to know.

use crate::net::bootstrap_client::BootstrapClient;
use crate::net::clock::{Clock, Skew};
use crate::net::tls::{OutOfTime, Untimely};
use hopline_proto::id::NodeId;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long such a failure explains others: for longer than a flow may take to open.
const LASTS: Duration = Duration::from_secs(30);

/// The last such failure since the last dial that succeeded.
#[derive(Debug, Default)]
pub(super) struct CertificateFailures(RefCell<Option<(Instant, Arc<str>)>>);

impl CertificateFailures {
    pub(super) fn note(&self, peer: NodeId, untimely: Untimely, bootstrap_client: &BootstrapClient) {
        let why = match untimely {
            Untimely::Theirs(out) => {
                out.told(&format!("the certificate of relay {}", peer.short()), "this machine's clock")
            }
            Untimely::Ours(out) => {
                let skew = Skew::of(Clock::wall(), bootstrap_client.network_time());
                format!("{} (this machine's clock is {skew} of the bootstrap's)", refused(peer, out))
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

/// That a relay does not take this node's certificate, and why, as far as it says so.
fn refused(relay: NodeId, out: Option<OutOfTime>) -> String {
    let clock = format!("the clock of relay {}", relay.short());
    match out {
        Some(out) => out.told("this node's certificate", &clock),
        None => format!("by {clock} this node's certificate has expired, or is not valid yet"),
    }
}
