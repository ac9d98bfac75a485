//! A congestion controller with a floor: whatever is lost, a sender may have a few packets under way.
//!
//! Heartbeats are QUIC datagrams, so they count against the congestion window. A path that loses half of its packets, full or
//! not, shrinks the window to two of them; once both are lost nothing goes out before a probe timeout, which doubles each
//! time, and a link whose heartbeats would have arrived falls silent for seconds. The floor is about what RFC 9002 (7.2)
//! lets every connection begin with, so it can't do a path more harm than a new connection does. When nothing at all is
//! acked, probe timeouts slow the sender down as ever.

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// What a sender may always have under way, in bytes.
const FLOOR_BYTES: u64 = 16 << 10;

/// Builds controllers of another kind, and gives them the floor.
pub(super) struct Floored(pub(super) Arc<dyn ControllerFactory + Send + Sync>);

impl ControllerFactory for Floored {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(FlooredController(self.0.clone().build(now, current_mtu)))
    }
}

struct FlooredController(Box<dyn Controller>);

impl Controller for FlooredController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.0.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.0.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.0.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.0.on_congestion_event(now, sent, is_persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.0.window().max(FLOOR_BYTES)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.0.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone_box()))
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window()
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
    use std::time::Duration;

    #[test]
    fn no_loss_shrinks_the_window_below_the_floor_nor_does_a_clone() {
        let now = Instant::now();
        let mut controller = Arc::new(Floored(Arc::new(CubicConfig::default()))).build(now, 1200);
        let mut bare: Box<dyn Controller> = Arc::new(CubicConfig::default()).build(now, 1200);
        for n in 1..100 {
            let later = now + Duration::from_secs(n);
            controller.on_congestion_event(later, later, true, 1200);
            bare.on_congestion_event(later, later, true, 1200);
        }
        assert!(bare.window() < FLOOR_BYTES, "it is the floor that holds");
        for controller in [controller.clone_box(), controller] {
            assert_eq!(
                (controller.window(), controller.metrics().congestion_window),
                (FLOOR_BYTES, FLOOR_BYTES)
            );
        }
    }

    #[test]
    fn above_the_floor_the_controller_rules() {
        let now = Instant::now();
        let mut config = CubicConfig::default();
        config.initial_window(1 << 20);
        let mut controller = Arc::new(Floored(Arc::new(config))).build(now, 1200);
        assert_eq!((controller.window(), controller.initial_window()), (1 << 20, 1 << 20));
        controller.on_congestion_event(now, now, false, 1200);
        assert!((FLOOR_BYTES..1 << 20).contains(&controller.window()));
    }
}
