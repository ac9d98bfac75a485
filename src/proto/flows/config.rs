//! How a node treats its flows.

use crate::links::LinksConfig;
use crate::splice::Limits;
use std::time::Duration;

/// Settings of [`super::Flows`].
#[derive(Clone, Debug)]
pub struct FlowsConfig {
    /// The links.
    pub links: LinksConfig,
    /// How much of each direction of a flow is buffered.
    pub limits: Limits,
    /// How much of all flows together is kept for replay, beside [`super::RESERVE_BYTES`] for each direction of each.
    pub replay_bytes: u64,
    /// Most flows at once.
    pub max_flows: usize,
    /// How long a leg may go without its answer.
    pub attach_timeout: Duration,
    /// How long a flow that is being opened waits for the relay that was planned when it could have the backup.
    pub head_start: Duration,
    /// How long a flow waits for a link to its next hop.
    pub connect_timeout: Duration,
    /// How long a link may take to come up, on a long way or a busy machine, before a flow that is being opened asks for others.
    pub handshake_time: Duration,
    /// How long a node that knows nobody good for a flow's next hop hopes for other candidates before it gives up on
    /// these.
    pub stuck_timeout: Duration,
    /// How long a relay at least looks for a way on, with the origin's help, before it tells prev that there is none: prev's
    /// other candidates would only look for the same.
    pub no_path_timeout: Duration,
    /// How long a relay keeps a flow that lost its prev.
    pub orphan_timeout: Duration,
    /// How long the ends of a flow may be lost to each other before they give it up.
    pub give_up: Duration,
    /// How long an origin that has everything stays for a target that may not.
    pub linger: Duration,
    /// How long a target remembers a flow that ended.
    pub tombstone: Duration,
    /// How often links to candidates are asked for anew, each time for twice as long.
    pub upkeep: Duration,
    /// How long a sink may put off an ack.
    pub ack_delay: Duration,
    /// How much a sink may leave unacked.
    pub ack_bytes: u64,
}

impl Default for FlowsConfig {
    fn default() -> Self {
        Self {
            links: LinksConfig::default(),
            limits: Limits::default(),
            replay_bytes: 256 << 20,
            max_flows: 10_000,
            attach_timeout: Duration::from_secs(1),
            head_start: Duration::from_millis(250),
            connect_timeout: Duration::from_secs(3),
            handshake_time: Duration::from_secs(1),
            stuck_timeout: Duration::from_millis(100),
            no_path_timeout: Duration::from_millis(300),
            orphan_timeout: Duration::from_secs(30),
            give_up: Duration::from_secs(25),
            linger: Duration::from_secs(5),
            tombstone: Duration::from_secs(90),
            upkeep: Duration::from_secs(20),
            ack_delay: Duration::from_millis(10),
            ack_bytes: 256 << 10,
        }
    }
}
