//! The events and actions of a node's machine.
//!
//! An [`Event`] reports a fact, an [`Action`] commands. Every action that can fail comes back as an event. Payload is not among
//! them: the driver gives received bytes to [`Machine::receive`], takes bytes to send from its [`Flows`], and looks at a flow
//! again whenever [`Action::Wake`] names it.

use super::detector::Transfer;
use super::enrolment::{Change, Counters};
use super::failure_memory::Failure;
use super::flows::{FlowKey, Flows};
use super::frame::{Attach, AttachOk, Cause, CloseCode, Control, Heartbeat, Reroute};
use super::id::{BootId, FlowId, NodeId};
use super::lane::FlowViolation;
use super::planted::{self, Law};
use super::record::Candidate;
use super::rpc::{Refusal, Request, Response};
use super::splice::LegId;
use super::time::Time;
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;

pub use super::id::LinkId;

/// A question to the bootstrap on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskFailure {
    /// No answer in time.
    Timeout,
    /// No connection, or it broke.
    Unreachable,
}

/// Why a neighbour could not be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// It does not answer, or somebody else did.
    NoAnswer,
    /// This machine has no way to any of its addresses, for want of an IP family or a route, or because it does
    /// not hold the neighbour's certificate to be valid now, or speaks no version that the neighbour does: nobody's fault.
    NoWay,
}

/// A fact that the machine is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection to a neighbour is up: handshake done, [`Hello`](super::frame::Hello) heard.
    LinkUp {
        /// The connection.
        link: LinkId,
        /// Whose certificate the peer showed.
        peer: NodeId,
        /// The life of the peer's process.
        boot: BootId,
        /// Whether this node dialled it.
        dialed: bool,
        /// The round trip that its handshake took.
        rtt: Duration,
    },
    /// A connection is no more, and every leg on it.
    LinkDown {
        /// The connection.
        link: LinkId,
    },
    /// The network says that the peer can't be reached. It may be mistaken, or lie.
    LinkRefused {
        /// The connection.
        link: LinkId,
    },
    /// Packets of a connection were lost since it was said last.
    LinkLossy {
        /// The connection.
        link: LinkId,
        /// What its transport has counted.
        counted: Transfer,
    },
    /// The peer sent what can't be decoded.
    LinkGarbled {
        /// The connection.
        link: LinkId,
    },
    /// [`Action::Connect`] came to nothing.
    ConnectFailed {
        /// Who was dialled.
        peer: NodeId,
        /// Why it failed.
        failure: DialFailure,
    },
    /// A heartbeat came.
    Heartbeat {
        /// Over which connection.
        link: LinkId,
        /// The heartbeat.
        heartbeat: Heartbeat,
    },
    /// A control message came.
    Control {
        /// Over which connection.
        link: LinkId,
        /// The control message.
        control: Control,
    },
    /// Somebody opened a leg. The driver has kept its stream under [`LegId::new`]`(link, attach.leg)`.
    Attach {
        /// Over which connection.
        link: LinkId,
        /// Its header.
        attach: Box<Attach>,
    },
    /// The acceptor of a leg answered.
    Answered {
        /// The leg.
        leg: LegId,
        /// Its answer.
        answer: AttachOk,
    },
    /// The peer ended a leg with a code.
    LegClosed {
        /// The leg.
        leg: LegId,
        /// Its code.
        code: CloseCode,
    },
    /// A leg's stream ended without a code, or could not be opened.
    LegEnded {
        /// The leg.
        leg: LegId,
    },
    /// The bootstrap answered, or did not.
    Asked {
        /// The question.
        ask: AskId,
        /// The answer.
        result: Result<Response, AskFailure>,
    },
    /// A bootstrap can be reached again, after none could for a while: the next question may use that connection.
    BootstrapReached,
}

/// A command that the machine gives.
#[derive(Clone, Debug)]
pub enum Action {
    /// Dial a neighbour: ends in [`Event::LinkUp`] or [`Event::ConnectFailed`].
    Connect {
        /// Whose certificate it has to show.
        peer: NodeId,
        /// Where, the preferred address first.
        addresses: Vec<SocketAddr>,
    },
    /// Close a connection. [`Event::LinkDown`] follows.
    Disconnect {
        /// The link.
        link: LinkId,
        /// Why, for its log and the peer's.
        reason: DisconnectReason,
    },
    /// Send a heartbeat, or drop it if it can't leave now.
    Heartbeat {
        /// Over which connection.
        link: LinkId,
        /// The heartbeat.
        heartbeat: Heartbeat,
    },
    /// Send a control message.
    Control {
        /// Over which connection.
        link: LinkId,
        /// The control message.
        control: Control,
    },
    /// Open a leg's stream and send its header; raw bytes of the flow follow.
    OpenLeg {
        /// The leg.
        leg: LegId,
        /// Which flow's.
        flow: FlowKey,
        /// Its header.
        attach: Box<Attach>,
    },
    /// Answer a leg that was opened by the peer; raw bytes of the flow follow.
    AnswerLeg {
        /// The leg.
        leg: LegId,
        /// Which flow's.
        flow: FlowKey,
        /// The answer.
        answer: AttachOk,
    },
    /// Reset and stop a leg's stream. Nothing follows.
    CloseLeg {
        /// The leg.
        leg: LegId,
        /// The close code.
        code: CloseCode,
    },
    /// A flow may have bytes to write or room to read: look again.
    Wake {
        /// The flow.
        flow: FlowKey,
    },
    /// Ask the bootstrap: ends in [`Event::Asked`].
    Ask {
        /// The question's number.
        ask: AskId,
        /// The request.
        request: Request,
        /// Over a new connection, to the next bootstrap in the list, with its address resolved anew.
        fresh: bool,
    },
    /// For the application, the log and the counters.
    Notify(Notice),
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisconnectReason {
    /// Nobody needs it any more.
    Idle,
    /// The peer restarted or dialled anew.
    Superseded,
    /// The peer is dead.
    Down,
    /// The peer broke the protocol.
    Malformed,
    /// This node can take no more.
    Overloaded,
}

/// Something worth telling.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A relay takes no new flows, and waits until those that it carries have gone elsewhere.
    Draining,
    /// It carries no flow any more.
    Drained,
    /// What became of the node's lease.
    Enrolment {
        /// What changed.
        change: Change,
        /// How often what has happened so far.
        counters: Counters,
    },
    /// An origin's flow has a route and is on its way.
    Opened {
        /// The flow.
        flow: FlowKey,
        /// Whom it leads to.
        target: NodeId,
        /// Hops for which the pool had no backup.
        unprotected: Vec<u8>,
        /// Whether no bootstrap answered, so that it goes over a route from before.
        kept: bool,
    },
    /// An origin's flow could not be opened.
    OpenFailed {
        /// The flow.
        flow: FlowId,
        /// The cause.
        cause: OpenFailure,
    },
    /// A target accepted a flow.
    Accepted {
        /// The flow.
        flow: FlowKey,
    },
    /// A flow is over at this node.
    Ended {
        /// The flow.
        flow: FlowKey,
        /// The close code.
        code: CloseCode,
        /// Why the other end gave it up, in its own words.
        cause: Option<String>,
    },
    /// What an origin knows of its flow's chain, at first and after each change: candidates by hop, the active first.
    Chain {
        /// The flow.
        flow: FlowKey,
        /// The hops, the target not counted.
        hops: Vec<Vec<Candidate>>,
        /// What changed.
        change: ChainChange,
    },
    /// A hop of an origin's flow needs another candidate.
    CandidateWanted {
        /// The flow.
        flow: FlowKey,
        /// Which hop, the nearest being 1.
        hop: u8,
        /// Whether a relay serves the hop meanwhile.
        is_served: bool,
    },
    /// A relay repaired the hop after it (at a relay: this one).
    Rerouted {
        /// The flow.
        flow: FlowKey,
        /// The repair.
        reroute: Box<Reroute>,
        /// Who noticed, where known: the relay of the hop before. `None` also if it was this node itself.
        by: Option<Box<Candidate>>,
        /// Who failed, where known.
        from: Option<Candidate>,
        /// Who took over, where known.
        to: Option<Candidate>,
    },
    /// A relay failed an origin's flow, which avoids it for a while.
    Avoided {
        /// The flow.
        flow: FlowKey,
        /// Which relay, where known.
        relay: Option<Candidate>,
        /// Since when, until when, and on which ground.
        failure: Failure,
    },
    /// A target can attach to nobody, as all relays have addresses that it can't dial.
    Unattached {
        /// What the bootstrap said.
        refusal: Refusal,
    },
    /// An endpoint is attached to these relays.
    Attachments {
        /// The relays.
        relays: Vec<NodeId>,
    },
    /// A neighbour's state changed.
    Neighbour {
        /// The node's id.
        node: NodeId,
        /// What changed.
        change: NeighbourChange,
        /// Since it was last heard.
        silence: Duration,
    },
    /// A peer did what it must not; its leg or link was closed.
    Violation {
        /// Over which connection.
        link: LinkId,
        /// Who, unless the connection is gone already.
        peer: Option<NodeId>,
        /// The violation.
        what: Violation,
    },
    /// An origin keeps other routes than before: ask for them, to store them.
    RoutesChanged,
}

/// Why a flow could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenFailure {
    /// The bootstrap refused to plan a route.
    #[error(transparent)]
    Refused(Refusal),
    /// No bootstrap answered.
    #[error("no bootstrap answered")]
    NoAnswer(AskFailure),
    /// The route that the bootstrap planned is of no use, or this endpoint has too many flows.
    #[error("the planned route is of no use")]
    BadRoute,
}

/// Why an origin's picture of a chain changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainChange {
    /// The flow was opened.
    Opened,
    /// A hop has a new backup.
    BackupReplaced {
        /// The hop.
        hop: u8,
    },
    /// The flow goes over another chain.
    Rebuilt {
        /// What was wrong with the one before, where known.
        cause: Option<Cause>,
    },
}

/// What a node believes of a neighbour now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourChange {
    /// A link is up.
    Up,
    /// It was silent for too long.
    Suspect,
    /// It was heard again.
    Recovered,
    /// It is dead, as far as this node can tell.
    Down,
}

/// What a peer did that it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame's lists or numbers are out of bounds.
    #[error("a frame out of bounds")]
    OutOfBounds,
    /// An attach without the right to it.
    #[error("an attach without the right to it: {0}")]
    Forbidden(Forbidden),
    /// Bytes, an end or an ack that can't be true.
    #[error(transparent)]
    Flow(#[from] FlowViolation),
    /// An attach or an answer that contradicts what the target knows.
    #[error("an attach that can't be true")]
    Impossible,
    /// What can't be decoded.
    #[error("a frame that can't be read")]
    Garbled,
    /// Attaches without any use, or of one flow, more often than anybody honest sends them.
    #[error("a storm of attaches")]
    TooManyAttaches,
    /// Messages that cost work, more often than anybody honest sends them.
    #[error("a storm of control messages")]
    TooManyQuestions,
}

/// What an attach lacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// No entry in the record is sealed to this node.
    #[error("no entry for this node")]
    NoEntry,
    /// The tag does not prove the epoch.
    #[error("wrong tag")]
    WrongTag,
    /// The record has expired.
    #[error("record expired")]
    Expired,
    /// The entry is for another role than this node's.
    #[error("entry for another role")]
    WrongRole,
}

/// A node's machine, as its driver sees it.
pub trait Machine {
    /// Takes a fact.
    fn handle(&mut self, event: Event, now: Time, actions: &mut Vec<Action>);
    /// Does what is due. Afterwards [`Machine::poll_timeout`] lies after `now`.
    fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>);
    /// When something will be due.
    fn poll_timeout(&self) -> Option<Time>;
    /// The node's flows, for whatever nothing arises from: looking at them, asking for room, and writing to legs what
    /// they hold.
    fn flows(&mut self) -> &mut Flows;
    /// Acts on what has arisen in the flows otherwise than from an event or with time.
    fn act_on_flows(&mut self, now: Time, actions: &mut Vec<Action>);

    /// Does with the flows what an application or a leg wants, and acts at once on what arises from it.
    fn with_flows<T>(
        &mut self,
        now: Time,
        actions: &mut Vec<Action>,
        f: impl FnOnce(&mut Flows, &mut Vec<Action>) -> T,
    ) -> T
    where
        Self: Sized,
    {
        let result = f(self.flows(), actions);
        if !planted::broken(Law::PayloadHeeded) {
            self.act_on_flows(now, actions);
        }
        result
    }

    /// Bytes came over `leg`; whoever writes what they feed is to be woken.
    fn receive(
        &mut self,
        leg: LegId,
        chunks: impl IntoIterator<Item = Bytes>,
        now: Time,
        actions: &mut Vec<Action>,
    ) where
        Self: Sized,
    {
        self.with_flows(now, actions, |flows, actions| flows.receive(leg, chunks, now, actions));
    }
}
