//! What may happen in a world, and to whom.

use crate::conn::{Packet, Side};
use crate::network::NodeIndex;
use hopline_proto::machine::{AskFailure, AskId};
use hopline_proto::rpc::{Request, Response};
use hopline_proto::{NodeId, Time};

/// What happens at one moment.
#[derive(Debug)]
pub(crate) enum Happening {
    Timer {
        node: NodeIndex,
        life: u32,
        due: Time,
    },
    Packet {
        conn: u32,
        side: Side,
        packet: Packet,
    },
    Up {
        conn: u32,
        side: Side,
    },
    Idle {
        conn: u32,
        side: Side,
    },
    /// The network says that the other end can't be reached.
    Refused {
        conn: u32,
        side: Side,
    },
    Dial {
        from: NodeIndex,
        life: u32,
        to: NodeIndex,
        deadline: Time,
    },
    DialFailed {
        node: NodeIndex,
        life: u32,
        peer: NodeId,
    },
    Request {
        node: NodeIndex,
        life: u32,
        ask: AskId,
        request: Box<Request>,
    },
    Answer {
        node: NodeIndex,
        life: u32,
        ask: AskId,
        result: Box<Result<Response, AskFailure>>,
    },
    App {
        app: usize,
        node: NodeIndex,
    },
    /// A node that was busy turns to what waits for it.
    Work {
        node: NodeIndex,
        life: u32,
    },
    Bootstrap,
}
