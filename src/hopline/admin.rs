//! HTTP pages for operators: a node's state, health, metrics and events, as JSON and text.
//!
//! The pages are for people and programs on the same machine: they need no password and change nothing. They are on loopback
//! by default; any other address is logged as a warning.
//!
//! Invariants: only GET (and HEAD) has an effect. A request for a host name that is not this machine's is refused, as pages in browsers
//! could read the node that way (DNS rebinding). At most [`MAX_CONNECTIONS`] are served at once, one request each; others wait in
//! the kernel's queue. A head has at most [`MAX_HEAD_BYTES`]. A connection ends after [`RESPONSE_TIMEOUT`], one that streams events after
//! [`STREAM_AGE`], whatever its peer does.
//!
//! It does not know what the [`Pages`] show; [`bootstrap`] and [`relay`] make them for their roles.

pub mod bootstrap;
mod events;
mod exposition;
mod guard;
mod peers;
pub mod relay;
pub mod view;
pub mod webhook;

pub use guard::Pages;

use crate::net::error::BindError;
use crate::net::tasks;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tower::ServiceExt;

/// Connections that are served at once.
const MAX_CONNECTIONS: usize = 64;
/// How long the head of a request may be.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// How long it may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last, request and response together.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// How much longer one may last that streams events: whoever listens on comes back.
const STREAM_AGE: Duration = Duration::from_secs(3600);
/// How long to wait when the system has no connection to give, for it has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A socket that listens; who comes waits until there are pages.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// [`BindError`] if the address is taken, or is not this machine's.
    pub fn bind(address: SocketAddr) -> BoxFuture<'static, Result<Self, BindError>> {
        Box::pin(async move {
            let failed = |source| BindError::http(address, source);
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            if !address.ip().to_canonical().is_loopback() {
                tracing::warn!(
                    %address,
                    "the admin pages can be read from other machines, by anybody: let a firewall or a proxy decide who may"
                );
            }
            Ok(Self { listener, address })
        })
    }

    /// Where it listens, as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves these pages, until what this returns is dropped.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn serve(self, pages: Pages) -> Admin {
        let router = pages.into_router(self.address.ip());
        Admin { accepting: tasks::spawn(accept(self.listener, router)) }
    }
}

/// Pages that are being served. Dropping it ends that, and all connections.
#[derive(Debug)]
pub struct Admin {
    accepting: JoinHandle<()>,
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Who made a request.
#[derive(Clone, Copy, Debug)]
struct Client(SocketAddr);

/// Marks a response that goes on for as long as its reader wants.
#[derive(Clone, Copy, Debug)]
struct Endless;

/// Takes connections. Never ends.
async fn accept(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, from)) => {
                connections.spawn(serve(stream, from, router.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "could not take a connection to the admin pages");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, from its request to its end.
async fn serve(stream: TcpStream, from: SocketAddr, router: Router) {
    let streams = Arc::new(AtomicBool::new(false));
    let is_stream = Arc::clone(&streams);
    let service = service_fn(move |request| respond(router.clone(), from, request, Arc::clone(&streams)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let too_old = async {
        sleep(RESPONSE_TIMEOUT).await;
        if is_stream.load(Ordering::Relaxed) {
            sleep(STREAM_AGE).await;
        }
    };
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%from, %error, "a connection to the admin pages broke");
            }
        }
        () = too_old => tracing::debug!(%from, "closed a connection to the admin pages that took too long"),
    }
}

async fn respond(
    router: Router,
    from: SocketAddr,
    request: Request<Incoming>,
    streams: Arc<AtomicBool>,
) -> Result<Response, std::convert::Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Client(from));
    let response = router.oneshot(request).await?;
    streams.store(response.extensions().get::<Endless>().is_some(), Ordering::Relaxed);
    Ok(response)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
