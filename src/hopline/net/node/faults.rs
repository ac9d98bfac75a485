//! Faults that a test has a node show: with the feature `faults` alone, never in a release.

#[cfg(feature = "faults")]
use std::cell::Cell;

/// The faults that a node shows now.
#[derive(Debug, Default)]
pub(super) struct Faults {
    #[cfg(feature = "faults")]
    gray: Cell<bool>,
}

#[cfg(not(feature = "faults"))]
impl Faults {
    /// Whether it moves no payload while everything else goes on.
    pub(super) const fn is_gray(&self) -> bool {
        false
    }
}

#[cfg(feature = "faults")]
impl Faults {
    /// Whether it moves no payload while everything else goes on.
    pub(super) fn is_gray(&self) -> bool {
        self.gray.get()
    }
}

#[cfg(feature = "faults")]
impl<M: hopline_proto::machine::Machine + 'static> super::Node<M> {
    /// Turns the node gray at SIGUSR1, and back at SIGUSR2.
    ///
    /// # Errors
    /// If the process can't have a handler for them.
    pub(crate) async fn turn_gray_at_signals(self: std::rc::Rc<Self>) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut gray, mut whole) =
            (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
        loop {
            let is_gray = tokio::select! {
                _ = gray.recv() => true,
                _ = whole.recv() => false,
            };
            self.faults.gray.set(is_gray);
            self.signals.borrow().values().for_each(|signal| signal.wake_all());
        }
    }
}
