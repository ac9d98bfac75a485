//! At the end: every flow complete, and nothing left of any.

use super::World;
use crate::traffic::App;
use hopline_proto::Time;
use hopline_proto::frame::CloseCode;
use std::time::Duration;

/// How long an origin that has everything stays for its target.
const LINGER: Duration = Duration::from_secs(5);

impl World {
    /// Whether every flow came to the end that it should have; the first that did not fails the run.
    pub(crate) fn check_complete(&mut self) {
        let apps = self.apps.iter().enumerate().filter(|(_, app)| !app.was_aborted());
        let wrong = apps.filter_map(|(number, app)| incomplete(number, app)).next();
        if let Some(what) = wrong {
            let now = self.now;
            self.checks.fail(what.0, now, what.1);
        }
    }

    /// The same for flows that ended early, while others may go on.
    pub(crate) fn check_lost(&mut self) {
        let is_lost =
            |app: &App| !app.was_aborted() && app.half(0).ended.is_some_and(|code| code != CloseCode::Done);
        if self.apps.iter().any(is_lost) {
            self.check_complete();
        }
    }

    /// Whether the targets know as well that all is done, where nothing was wrong while their origins waited for that.
    pub(crate) fn check_targets(&mut self, healed: Time) {
        let is_wrong = |app: &App| {
            let [origin, target] = [app.half(0), app.half(1)];
            let in_peace = origin.ended_at > healed + LINGER * 2;
            let all_done = [origin, target].iter().all(|half| half.ended == Some(CloseCode::Done));
            !app.was_aborted() && origin.ended.is_some() && in_peace && !all_done
        };
        if let Some(number) = self.apps.iter().position(is_wrong) {
            let code = self.apps.get(number).and_then(|app| app.half(1).ended);
            let now = self.now;
            self.checks.fail(
                "completion: target",
                now,
                format!("the target of flow {number} was told {code:?}"),
            );
        }
    }

    /// Where nothing was ever wrong no chain may be left for want of progress: slow readers and slow links are no faults.
    pub(crate) fn check_blame(&mut self, faults: usize) {
        if faults == 0 && self.statistics.gray > 0 {
            let (gray, now) = (self.statistics.gray, self.now);
            self.checks.fail("blame", now, format!("{gray} chains without any fault were left as gray"));
        }
    }

    /// Whether somebody stands by for each hop that is served.
    pub(crate) fn check_backups(&mut self) {
        for index in 0..self.nodes.len() {
            let unprotected = self.asks(index, |flows| flows.unprotected().next()).flatten();
            if let Some(key) = unprotected {
                let (hop, now) = (key.hop + 1, self.now);
                self.checks.fail("backups", now, format!("nobody stands by for hop {hop}"));
            }
        }
    }

    /// Whether anybody still holds anything of a flow, long after the last was over.
    pub(crate) fn check_leaks(&mut self) {
        for index in 0..self.nodes.len() {
            let (flows, legs) = self.holdings(index);
            if self.nodes.at(index).is_alive() && flows + legs > 0 {
                let name = super::name(index, self.nodes.at(index).blueprint);
                let now = self.now;
                let what = format!("{name} still holds {flows} flows and {legs} legs");
                return self.checks.fail("leaks", now, what);
            }
        }
    }

    /// Whether relays still have links to each other that no flow needs.
    pub(crate) fn check_links(&mut self) {
        let endpoints = self.nodes.iter().filter(|(_, node)| !node.is_relay()).count();
        let too_many = |index: &usize| self.nodes.at(*index).conns.len() > endpoints * 2;
        if let Some(index) = self.nodes.living_relays().into_iter().find(too_many) {
            let (links, now) = (self.nodes.at(index).conns.len(), self.now);
            self.checks.fail("leaks", now, format!("r{index} still has {links} links"));
        }
    }
}

/// The check that fails, and how.
fn incomplete(number: usize, app: &App) -> Option<(&'static str, String)> {
    let ([origin, target], kind) = ([app.half(0), app.half(1)], app.plan.kind);
    let (checker, what) = match origin.ended {
        Some(CloseCode::Done) if app.is_complete() => return None,
        Some(CloseCode::Done) => ("completion: short", "done and yet not complete".to_owned()),
        Some(code) => ("completion: lost", format!("lost as {code:?}")),
        None if origin.key.is_none() => ("completion: unopened", "never opened".to_owned()),
        None => ("completion: stuck", "stuck".to_owned()),
    };
    let progress =
        format!("{} of {} bytes there, {} of {} back", target.taken, origin.sent, origin.taken, target.sent);
    Some((checker, format!("flow {number} ({kind}) {what}; {progress}")))
}
