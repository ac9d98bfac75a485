//! What a process still has to say to others before it ends.
//!
//! Who closes a connection says so in a packet, and a process that ends before that has left leaves a dead connection behind: the
//! other end holds it, and what goes with it, until it misses it. So whoever talks to others holds a [`Word`] until its last one
//! has left, and a process's main function waits for all of them, for a moment.

use std::sync::LazyLock;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

static WORDS: LazyLock<watch::Sender<usize>> = LazyLock::new(watch::Sender::default);

/// Something that is still to be said; dropped when it is.
#[derive(Debug)]
pub(crate) struct Word(());

impl Word {
    pub(crate) fn new() -> Self {
        WORDS.send_modify(|words| *words += 1);
        Self(())
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        WORDS.send_modify(|words| *words -= 1);
    }
}

/// Waits until all is said, for so long at most.
pub async fn said(limit: Duration) {
    let mut words = WORDS.subscribe();
    // Who is late is not heard; and the sender lives as long as the process.
    let _ = timeout(limit, words.wait_for(|words| *words == 0)).await;
}
