//! The webhook: tells a URL when relays go offline and come back, and when self-preservation begins and ends.
//!
//! Each event is one request, in order, tried [`ATTEMPTS`] times. Events wait in a bounded queue; when it is full the oldest is dropped
//! and counted. Only this task waits for the URL's server.

use crate::bootstrap::{BootstrapEvent, Observer};
use crate::net::tasks;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use axum::http::uri::{Authority, Scheme};
use axum::http::{Request, StatusCode, Uri};
use futures_util::future::BoxFuture;
use hopline_proto::backoff::Pauses;
use hopline_proto::pool::PoolEvent;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

/// How often each event is sent until it is given up.
const ATTEMPTS: usize = 3;

/// How long is waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    /// For the other side, each time.
    pub(super) timeout: Duration,
    /// After each attempt that failed.
    pub(super) pauses: Pauses,
}

const RETRY_POLICY: RetryPolicy = RetryPolicy {
    timeout: Duration::from_secs(5),
    pauses: Pauses::growing(Duration::from_millis(500), Duration::from_secs(2), 4),
};

/// Where events are sent: `http://` or `https://`, a host, and what else the other side wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    uri: Uri,
    authority: Authority,
    is_secure: bool,
}

/// Why a text is no URL that events can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write a URL such as http://127.0.0.1:8080/hook or https://example.net/hook, without a name and password"
)]
pub struct BadUrl;

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let uri: Uri = text.parse().map_err(|_| BadUrl)?;
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(BadUrl)?.clone();
        let is_secure = uri.scheme() == Some(&Scheme::HTTPS);
        if is_secure || uri.scheme() == Some(&Scheme::HTTP) {
            Ok(Self { uri, authority, is_secure })
        } else {
            Err(BadUrl)
        }
    }
}

/// Why an event did not get there.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no connection: {0}")]
    Connection(#[from] io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("no answer in {0:?}")]
    Timeout(Duration),
}

/// Sends what happens from now on to `url`. Never ends.
pub fn run(url: Url, observer: Observer) -> BoxFuture<'static, ()> {
    Box::pin(run_with(url, observer, RETRY_POLICY))
}

pub(super) async fn run_with(url: Url, observer: Observer, policy: RetryPolicy) {
    let mut events = observer.events();
    let count = |outcome| observer.metrics().webhook.get_or_create(&[("outcome", outcome)]).clone();
    let (delivered, failed, missed) = (count("delivered"), count("failed"), count("missed"));
    loop {
        match events.recv().await {
            Ok(event) if is_wanted(&event) => match deliver(&url, &event, policy).await {
                Ok(()) => drop(delivered.inc()),
                Err(error) => {
                    failed.inc();
                    tracing::warn!(url = %url.uri, event = event.word(), %error, "the webhook did not take an event; given up");
                }
            },
            Ok(_) => {}
            Err(RecvError::Lagged(count)) => {
                missed.inc_by(count);
                tracing::warn!(count, "the webhook is so slow that events were lost before it took them");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

const fn is_wanted(event: &BootstrapEvent) -> bool {
    match event.kind {
        PoolEvent::Offline(_) | PoolEvent::Back(_) | PoolEvent::Preserving { .. } | PoolEvent::Resumed => {
            true
        }
        PoolEvent::Joined(_)
        | PoolEvent::Online(_)
        | PoolEvent::Suspect(_)
        | PoolEvent::Draining(_)
        | PoolEvent::Left(_)
        | PoolEvent::Forgotten(_)
        | PoolEvent::TargetJoined(_)
        | PoolEvent::TargetLeft(_)
        | PoolEvent::Unreached(_)
        | PoolEvent::Distrusted(_)
        | PoolEvent::Ignored(_) => false,
    }
}

/// Sends one event, several times if need be; the last failure, if it was in vain.
async fn deliver(url: &Url, event: &BootstrapEvent, policy: RetryPolicy) -> Result<(), Failure> {
    let text = event.to_json().to_string();
    let attempt = async || {
        let sent = timeout(policy.timeout, send(url, text.clone())).await;
        sent.unwrap_or(Err(Failure::Timeout(policy.timeout)))
    };
    for pause in policy.pauses.sequence().take(ATTEMPTS - 1) {
        let Err(error) = attempt().await else { return Ok(()) };
        tracing::debug!(url = %url.uri, %error, "the webhook did not take an event; trying again");
        sleep(pause).await;
    }
    attempt().await
}

async fn send(url: &Url, text: String) -> Result<(), Failure> {
    let host = url.authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = url.authority.port_u16().unwrap_or(if url.is_secure { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    if !url.is_secure {
        return post(stream, url, text).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(tls_config()?));
    post(connector.connect(name, stream).await?, url, text).await
}

/// The system's certificates say whom to trust. TLS 1.3 only.
fn tls_config() -> io::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// One request on a connection of its own. Of the answer only the status is read.
async fn post(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    url: &Url,
    text: String,
) -> Result<(), Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = url.uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(HOST, url.authority.as_str())
        .header(USER_AGENT, concat!("hopline/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(text))
        .expect("all of it was parsed before");
    // It ends by itself when nobody wants anything of it any more.
    tasks::spawn(connection);
    let status = sender.send_request(request).await?.status();
    if status.is_success() { Ok(()) } else { Err(Failure::Status(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_sent_to_is_a_url() {
        for good in ["http://localhost:1/a?b=c", "https://example.net", "http://[::1]:8080/"] {
            assert!(good.parse::<Url>().is_ok(), "{good}");
        }
        for bad in ["", "example.net", "/hook", "ftp://example.net/", "http://", "http://a:b@example.net/"] {
            assert_eq!(bad.parse::<Url>(), Err(BadUrl), "{bad}");
        }
    }
}
