//! What whoever runs the network orders, with its ticket as proof.

use super::connection::Shared;
use super::dial::exchange;
use super::{Cause, JoinError};
use crate::net::bootstrap_rpc::{BootstrapRequest, BootstrapResponse};
use crate::net::join::{ChannelBinding, JoinRequest};
use hopline_proto::rpc::Response;
use std::sync::Arc;
use tokio::time::timeout;

/// Has the relay of this name or id drain.
pub(super) async fn drain(shared: &Arc<Shared>, relay: String) -> Result<Response, Arc<JoinError>> {
    let limit = shared.joiner.answer_timeout;
    let (connection, _) = shared.connection(false).await?;
    let joiner = &shared.joiner;
    let proof = JoinRequest::new(&joiner.ticket, &joiner.identity, &ChannelBinding::of(&connection));
    let request = BootstrapRequest::Drain { relay, proof };
    let cause = match timeout(limit, exchange(&connection, &request)).await {
        Ok(Ok(BootstrapResponse::Answer(response))) => return Ok(response),
        Ok(Ok(BootstrapResponse::JoinRefused(refusal))) => return Err(Arc::new(refusal.into())),
        Ok(Ok(BootstrapResponse::Issued(_) | BootstrapResponse::Unknown)) => Cause::WrongAnswer,
        Ok(Err(cause)) => cause,
        Err(_) => Cause::NoAnswer { within: limit },
    };
    Err(shared.failed(Some(connection), cause))
}
