//! When the next heartbeat is sent: when the lease asks for it, or sooner for what the bootstrap is to know.

use super::{Enrolment, MAX_WAIT, Phase, Question};
use crate::rpc::{Lease, Load};
use crate::time::Time;
use std::time::Duration;

/// Bootstraps that ask for more frequent heartbeats are not obeyed.
const MIN_HEARTBEAT: Duration = Duration::from_millis(10);

/// How long a change of load waits for others that come with it.
const LOAD_REPORT_DELAY: Duration = Duration::from_millis(300);
/// How long after a heartbeat the next one may be sent for the sake of the load: this at least, and such a part of the time
/// between heartbeats. What a bootstrap expects of all nodes together is thus exceeded tenfold at most.
const LOAD_REPORT_GAP: Duration = Duration::from_secs(1);
const LOAD_REPORT_GAP_SHARE: u32 = 10;
/// A change by less than such a part of the flows is none.
const LOAD_REPORT_SHARE: u32 = 16;

impl Enrolment {
    /// How busy the node is: the bootstrap hears of it soon if it has become markedly busier or idler.
    pub fn tell_load(&mut self, load: Load, now: Time) {
        self.load = load;
        let changed = load.flows.abs_diff(self.told_flows);
        let is_new = changed > self.told_flows / LOAD_REPORT_SHARE;
        // The news is to be told already, or there is none.
        if is_new == self.load_report_at.is_some() || !matches!(self.next, Some((_, Question::Heartbeat))) {
            return;
        }
        self.load_report_at = is_new.then(|| {
            let gap = LOAD_REPORT_GAP.max(self.interval / LOAD_REPORT_GAP_SHARE);
            (now + self.jittered(LOAD_REPORT_DELAY)).max(self.asked_at + gap)
        });
        self.wait_for_heartbeat();
    }

    /// This node may have been reported down though it lives (it was stopped, or cut off): its next heartbeat, which takes
    /// it back into the pool, doesn't wait. Heartbeats for this reason keep the distance of failed registrations.
    pub fn revive(&mut self, now: Time) {
        self.revived = self.phase == Phase::Registered;
        self.hurry(now);
    }

    /// Brings the next heartbeat forward if that is called for and none is on its way.
    pub(super) fn hurry(&mut self, now: Time) {
        // A registration shows that the node lives as well as a heartbeat does.
        let registers = matches!(self.next, Some((_, Question::Register)));
        if self.revived && self.asking.is_none() && !registers {
            self.revived = false;
            let soon = now.max(self.asked_at + self.config.first_retry);
            self.heartbeat_at = self.heartbeat_at.map(|at| at.min(soon));
            self.wait_for_heartbeat();
        }
    }

    pub(super) fn keep(&mut self, lease: &Lease, now: Time) {
        let monitored = self.config.monitor && !lease.next_heartbeat.is_zero();
        let wait = lease.next_heartbeat.clamp(MIN_HEARTBEAT, MAX_WAIT);
        self.heartbeat_at = monitored.then(|| now + wait);
        self.interval = wait;
        self.key_epoch = self.key_epoch.max(lease.keys.iter().map(|(epoch, _)| *epoch).max());
        self.wait_for_heartbeat();
    }

    pub(super) fn wait_for_heartbeat(&mut self) {
        let at = self.heartbeat_at.map(|at| self.load_report_at.map_or(at, |report| report.min(at)));
        self.next = at.map(|at| (at, Question::Heartbeat));
    }
}
