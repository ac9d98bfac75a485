//! The columns of a table of relays, on paper and on the screen.

use super::RelayView;
use hopline::admin::view::rank;
use std::cmp::Ordering;

/// What may be told of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Name,
    Status,
    Zone,
    Flows,
    Load,
    Cpu,
    Memory,
    Rate,
    Age,
    Lease,
    Version,
}

impl Column {
    /// All of them, the most important first.
    pub(crate) const ALL: [Self; 11] = [
        Self::Name,
        Self::Status,
        Self::Zone,
        Self::Flows,
        Self::Load,
        Self::Cpu,
        Self::Memory,
        Self::Rate,
        Self::Age,
        Self::Lease,
        Self::Version,
    ];

    /// What stands above it, with the unit.
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::Status => "STATUS",
            Self::Zone => "ZONE",
            Self::Flows => "FLOWS/CAP",
            Self::Load => "LOAD %",
            Self::Cpu => "CPU %",
            Self::Memory => "MEM %",
            Self::Rate => "MB/s",
            Self::Age => "AGE s",
            Self::Lease => "LEASE s",
            Self::Version => "VERSION",
        }
    }

    /// How wide it is where all rows can't be looked at first.
    pub(crate) const fn width(self) -> u16 {
        match self {
            Self::Name => 16,
            Self::Status => 10,
            Self::Zone | Self::Flows | Self::Version => 12,
            Self::Load | Self::Cpu | Self::Memory => 7,
            Self::Rate | Self::Age | Self::Lease => 9,
        }
    }

    /// Whether it holds words, which begin at the left and are sorted from A to Z.
    pub(crate) const fn is_text(self) -> bool {
        matches!(self, Self::Name | Self::Status | Self::Zone | Self::Version)
    }

    /// What it says of a relay.
    pub(crate) fn cell(self, relay: &RelayView) -> String {
        let share =
            |percent: Option<u8>| percent.map_or_else(|| "-".to_owned(), |percent| percent.to_string());
        match self {
            Self::Name => relay.name.clone(),
            Self::Status => relay.status.clone(),
            Self::Zone => relay.zone.clone(),
            Self::Flows => format!("{}/{}", relay.flows, relay.capacity),
            Self::Load => format!("{:.0}", relay.load_percent()),
            Self::Cpu => share(relay.cpu_percent),
            Self::Memory => share(relay.memory_percent),
            Self::Rate => format!("{:.1}", relay.bytes_per_second as f64 / 1e6),
            Self::Age => format!("{:.0}", relay.age_seconds),
            Self::Lease => format!("{:.0}", relay.lease_seconds),
            Self::Version => relay.version.clone(),
        }
    }

    /// Which of two relays comes first: the one with more of it, or earlier in the alphabet.
    pub(crate) fn compare(self, a: &RelayView, b: &RelayView) -> Ordering {
        let order = match self {
            Self::Name => a.name.cmp(&b.name),
            Self::Status => rank(&a.status).cmp(&rank(&b.status)),
            Self::Zone => a.zone.cmp(&b.zone),
            Self::Version => a.version.cmp(&b.version),
            Self::Flows => a.flows.cmp(&b.flows),
            Self::Load => a.load_percent().total_cmp(&b.load_percent()),
            Self::Cpu => a.cpu_percent.cmp(&b.cpu_percent),
            Self::Memory => a.memory_percent.cmp(&b.memory_percent),
            Self::Rate => a.bytes_per_second.cmp(&b.bytes_per_second),
            Self::Age => a.age_seconds.total_cmp(&b.age_seconds),
            Self::Lease => a.lease_seconds.total_cmp(&b.lease_seconds),
        };
        if self.is_text() { order } else { order.reverse() }
    }
}
