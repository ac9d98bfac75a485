//! Hopline: ordered byte streams and messages over chains of relays, of which any may be killed, frozen, cut off,
//! drained or upgraded in the middle of a stream without one byte lost, doubled or reordered.
//!
//! ```no_run
//! # #[cfg(feature = "endpoint")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use hopline::Endpoint;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let endpoint = Endpoint::builder().join().await?; // the ticket comes from HOPLINE_TICKET
//! let (mut send, mut receive) = endpoint.open("echo").await?.split();
//! send.write_all(b"hello").await?;
//! send.shutdown().await?; // the end of this direction
//! let mut answer = Vec::new();
//! receive.read_to_end(&mut answer).await?;
//! drop(receive); // this end took everything
//! send.finish().await?; // so did the other
//! endpoint.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! - [`Endpoint::open`] gives a [`Flow`], which reads and writes like any stream; [`Endpoint::listen`] a [`Listener`] that accepts
//!   flows.
//! - [`Endpoint::send`] sends a message and gives a [`Receipt`]; [`Endpoint::receive`] gives an [`Inbox`] that takes messages.
//! - [`Flow::watch_chain`] shows which relays carry a flow, and how safe each hop is; [`Endpoint::events`] tells what happened, and
//!   why.
//!
//! It runs on tokio, on either kind of runtime (with `enable_all`). `docs/LIBRARY.md` is the guide, `examples/` has whole programs.
//!
//! # Features
//! `endpoint` (default) is what is described here. `relay`, `bootstrap` and `admin` are the servers, for the `hopline` binary; their
//! interface is not stable. [`proto`] is the protocol itself: pure, without I/O, clock or ambient randomness.

#![cfg_attr(
    not(all(feature = "endpoint", feature = "admin")),
    allow(
        dead_code,
        unused_imports,
        reason = "`net` has what every role needs; a build with fewer roles needs less of it"
    )
)]

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "bootstrap")]
pub mod bootstrap;
#[cfg(feature = "endpoint")]
pub mod endpoint;
#[doc(hidden)]
pub mod net;
#[cfg(feature = "relay")]
pub mod relay;
#[cfg(feature = "bootstrap")]
pub mod store;

pub use hopline_proto as proto;

#[cfg(feature = "endpoint")]
#[doc(inline)]
pub use endpoint::{
    Aborter, Builder, Carrier, Cause, Chain, ChainHop, DatagramError, DatagramListener, Datagrams,
    DrainError, Endpoint, Evidence, Flow, FlowError, FlowEvent, Hop, HopState, Inbox, ListenError, Listener,
    MAX_MESSAGE_BYTES, Message, OpenError, Options, Receipt, RecvStream, SendError, SendStream, StartError,
    Watched,
};
pub use hopline_proto::detector::Liveness;
pub use hopline_proto::id::{FlowId, NodeId};
pub use hopline_proto::machine::AskFailure;
pub use hopline_proto::rpc::{Listing, Refusal};
pub use net::bootstrap_client::JoinError;
pub use net::datadir::DataDirError;
#[doc(inline)]
pub use net::ticket::{Ticket, TicketError};
pub use net::transport::TransportSettings;
