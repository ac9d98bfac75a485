//! A message as it reaches a name, and the inbox there as the message finds it.

use bytes::Bytes;
use hopline_proto::id::NodeId;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// A message that waits to be taken.
///
/// Its sender gets the receipt with [`Message::take`], not before: take it when nothing can be lost any more. To drop a message
/// refuses it.
#[derive(Debug)]
pub struct Message {
    from: NodeId,
    payload: Bytes,
    verdict: oneshot::Sender<Result<(), Arc<str>>>,
}

impl Message {
    pub(super) const fn new(
        from: NodeId,
        payload: Bytes,
        verdict: oneshot::Sender<Result<(), Arc<str>>>,
    ) -> Self {
        Self { from, payload, verdict }
    }

    /// Who sent it, as its certificate proves.
    #[must_use]
    pub const fn from(&self) -> NodeId {
        self.from
    }

    /// What it says.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Takes it: its sender gets the receipt.
    #[must_use]
    pub fn take(self) -> Bytes {
        let _ = self.verdict.send(Ok(()));
        self.payload
    }

    /// Refuses it, and with it all that its sender has under way. The sender is told this cause, of which at most 256 bytes go
    /// there.
    pub fn refuse(self, cause: impl Into<String>) {
        let cause: String = cause.into();
        let _ = self.verdict.send(Err(cause.into()));
    }
}

/// A name's inbox, as what comes for the name sees it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) incoming: mpsc::Sender<Message>,
    pub(super) refusal: Refused,
}

/// Whether it takes no more messages.
#[derive(Clone, Debug)]
pub(super) struct Refused(pub(super) watch::Receiver<Option<Arc<str>>>);

impl Refused {
    /// Why it takes no more, if that is so.
    pub(super) fn present(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }

    /// Resolves once it takes no more, with why.
    pub(super) async fn cause(&mut self) -> Arc<str> {
        let cause = self.0.wait_for(Option::is_some).await.ok().and_then(|cause| cause.clone());
        cause.unwrap_or_else(|| "nobody takes them any more".into())
    }
}
