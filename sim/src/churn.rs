//! A pool whose relays come and go, as measured networks' nodes do, and flows that should not notice.

mod chart;
mod report;
mod run;
#[cfg(test)]
mod tests;

pub(crate) use chart::draw;

pub(crate) use run::{Options, run};
