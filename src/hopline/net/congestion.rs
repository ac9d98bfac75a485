//! A congestion controller with a minimum window and a trickle: whatever is lost, a sender may have a few packets outstanding, and
//! send a little more while it waits for acks. What is lost before the first ack says nothing about the path's capacity.
//!
//! Heartbeats are QUIC datagrams, so they count against the congestion window. A path that loses half of its packets shrinks the
//! window to two packets, full or not. Once both are lost nothing leaves before a probe timeout, which doubles each time, and a link
//! whose heartbeats would have arrived falls silent for seconds. The minimum window is about the initial window of RFC 9002 (7.2), so it does a
//! path no more harm than a new connection.
//!
//! On links with legs data fills the minimum window, and only acks or probe timeouts make room. So while something is outstanding, each
//! moment without an ack lets the window grow by a trickle, which datagrams use first. Heartbeats leave on time, and as they are acked,
//! QUIC knows that the packets before them are lost without a probe timeout. The trickle ends after a while: when nothing at all is
//! acked, probe timeouts slow the sender down as usual.
//!
//! Until the first ack only a handshake is under way. A session sends it while its chain is still being set up, so the first copies may
//! get lost where there was no next hop yet. Taken for congestion, such a loss would end slow start at the initial window: over 200 ms
//! a flow then stayed at 0.6 MB/s.

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a sender may always have under way, in bytes.
const MIN_WINDOW_BYTES: u64 = 16 << 10;
/// What it may send beyond its window in each second without an ack: some ten heartbeats in the shortest interval,
const TRICKLE_BYTES_PER_SECOND: u64 = 64 << 10;
/// for so long.
const TRICKLE_LASTS: Duration = Duration::from_secs(2);

/// Builds controllers of another kind, and gives them the minimum window.
pub(super) struct MinWindow(pub(super) Arc<dyn ControllerFactory + Send + Sync>);

impl ControllerFactory for MinWindow {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = self.0.clone().build(now, current_mtu);
        Box::new(MinWindowController { inner, waiting_since: None, first_ack: None })
    }
}

struct MinWindowController {
    inner: Box<dyn Controller>,
    /// Since when something has been under way without an ack.
    waiting_since: Option<Instant>,
    first_ack: Option<Instant>,
}

impl MinWindowController {
    fn window_at(&self, now: Instant) -> u64 {
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let waited = waited.min(TRICKLE_LASTS);
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.inner.window().max(MIN_WINDOW_BYTES) + micros * TRICKLE_BYTES_PER_SECOND / 1_000_000
    }
}

impl Controller for MinWindowController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.waiting_since.get_or_insert(now);
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.waiting_since = Some(now);
        self.first_ack.get_or_insert(now);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        // With nothing under way no ack is waited for.
        self.waiting_since = self.waiting_since.filter(|_| in_flight > 0);
        self.inner.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        if self.first_ack.is_some_and(|first_ack| sent >= first_ack) {
            self.inner.on_congestion_event(now, sent, is_persistent, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    #[expect(clippy::disallowed_methods, reason = "quinn's controllers are told instants, but not here")]
    fn window(&self) -> u64 {
        self.window_at(Instant::now())
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.inner.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), ..*self })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "quinn's controllers are told instants")]
mod tests {
    use super::*;
    use quinn::congestion::CubicConfig;

    const SECOND: Duration = Duration::from_secs(1);

    /// Past its handshake.
    fn floored(config: CubicConfig, now: Instant) -> MinWindowController {
        let inner = Arc::new(config).build(now, 1200);
        MinWindowController { inner, waiting_since: None, first_ack: Some(now) }
    }

    #[test]
    fn no_loss_shrinks_the_window_below_the_floor_nor_does_a_clone() {
        let now = Instant::now();
        let mut controller = floored(CubicConfig::default(), now);
        for n in 1..100 {
            let later = now + SECOND * n;
            controller.on_congestion_event(later, later, true, 1200);
        }
        assert!(controller.inner.window() < MIN_WINDOW_BYTES, "it is the minimum window that holds");
        assert_eq!(controller.window_at(now), MIN_WINDOW_BYTES);
        let clone = controller.clone_box();
        assert!(clone.window() >= MIN_WINDOW_BYTES && clone.metrics().congestion_window >= MIN_WINDOW_BYTES);
    }

    #[test]
    fn without_acks_a_trickle_goes_on_for_a_while() {
        let now = Instant::now();
        let mut controller = floored(CubicConfig::default(), now);
        let window = controller.window_at(now);
        assert_eq!(controller.window_at(now + SECOND), window, "nothing is under way");
        controller.on_sent(now, 1200, 1);
        controller.on_sent(now + SECOND / 200, 1200, 2);
        let beyond = |controller: &MinWindowController, after| controller.window_at(now + after) - window;
        assert_eq!(beyond(&controller, SECOND / 100), TRICKLE_BYTES_PER_SECOND / 100);
        assert_eq!(beyond(&controller, SECOND * 60), TRICKLE_BYTES_PER_SECOND * TRICKLE_LASTS.as_secs());
        controller.on_end_acks(now + SECOND, 0, false, Some(2));
        assert_eq!(beyond(&controller, SECOND * 2), 0, "all has arrived");
    }

    #[test]
    fn above_the_floor_the_controller_rules() {
        let now = Instant::now();
        let mut config = CubicConfig::default();
        config.initial_window(1 << 20);
        let mut controller = floored(config, now);
        assert_eq!((controller.window_at(now), controller.initial_window()), (1 << 20, 1 << 20));
        controller.on_congestion_event(now, now, false, 1200);
        assert!((MIN_WINDOW_BYTES..1 << 20).contains(&controller.window_at(now)));
    }
    #[test]
    fn what_is_lost_of_a_handshake_is_no_congestion() {
        let now = Instant::now();
        let mut controller = floored(CubicConfig::default(), now + SECOND);
        let window = controller.window_at(now);
        controller.on_congestion_event(now + SECOND * 2, now, false, 3600);
        assert_eq!(controller.window_at(now), window);
        controller.on_congestion_event(now + SECOND * 2, now + SECOND, false, 1200);
        assert!(controller.inner.window() < window, "later losses count");
    }
}
