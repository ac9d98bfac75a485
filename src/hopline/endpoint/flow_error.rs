//! Why a flow broke, and how it ended.

use crate::net::clock::Clock;
use hopline_proto::frame::CloseCode;
use hopline_proto::version::Mismatch;
use rustls::AlertDescription;
use std::io;
use std::sync::Arc;
use tokio::sync::watch;

/// Why a flow ends that is dropped before its time.
pub(super) const DROPPED: &str = "its application dropped the flow before the end";
/// By which one end says that it does not take the other's certificate, beside the one that is about its time.
const CERTIFICATE_ALERTS: [AlertDescription; 7] = [
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
];
/// Why a flow broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// No chain led to the target for as long as the endpoint was willing to try.
    #[error("no path to the target within the time allowed")]
    NoPath,
    /// No chain led to the target, as a relay or this node was not trusted for what a clock says.
    #[error("no path to the target: {cause}")]
    OutOfTime {
        /// Who does not trust whom, and the times.
        cause: Arc<str>,
    },
    /// The other end does not trust this one.
    #[error("the other end does not accept this node's certificate: {cause}")]
    Untrusted {
        /// Why, as far as it says so.
        cause: Arc<str>,
    },
    /// The other end gave the flow up.
    #[error("the other end gave the flow up: {cause}")]
    Aborted {
        /// Why, in its own words; relays could neither read nor make them.
        cause: Arc<str>,
    },
    /// This end gave the flow up.
    #[error("the flow was given up here: {cause}")]
    GivenUp {
        /// Why, as this end said it.
        cause: Arc<str>,
    },
    /// The other end does not know the flow: it restarted.
    #[error("the other end no longer knows the flow")]
    Unknown,
    /// The other end did not come back within the time allowed.
    #[error("the other end was not heard of within the time allowed")]
    Lost,
    /// The two ends did not agree on TLS.
    #[error("no secure channel with the other end")]
    Handshake,
    /// The two ends speak no version of the protocol in common.
    #[error("{}", .0.told("the other end"))]
    Version(Mismatch),
    /// This endpoint was shut down.
    #[error("this endpoint was shut down")]
    Closed,
}

impl FlowError {
    /// The error of a flow that is in one of its reads or writes.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().cloned()
    }

    /// What it means that the other end answered with this alert (RFC 8446, 6.2).
    pub(super) fn of_alert(alert: AlertDescription) -> Option<Self> {
        let cause = if alert == AlertDescription::CertificateExpired {
            let now = Clock::wall().shown();
            format!("by its clock it has expired, or is not valid yet, and this machine's clock says {now}")
        } else if CERTIFICATE_ALERTS.contains(&alert) {
            "it holds it to be of another network, or damaged".to_owned()
        } else {
            return None;
        };
        Some(Self::Untrusted { cause: cause.into() })
    }

    /// The same error of a flow, in the flow's terms if the other end refused its certificate.
    pub(super) fn of_stream(error: io::Error) -> io::Error {
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(rustls::Error::AlertReceived(alert)) => Self::of_alert(*alert).map_or(error, Self::into),
            Some(_) | None => error,
        }
    }
}

/// How a flow ended, as the node knows it.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// Everything arrived and was taken, both ways.
    Done,
    /// It did not come to that.
    Broken(FlowError),
    /// The application here gave it up.
    Here(Arc<str>),
}

impl Ending {
    /// What the end of a flow with `code` means here.
    pub(super) fn of(code: CloseCode, cause: Option<String>) -> Self {
        Self::Broken(match code {
            CloseCode::Done => return Self::Done,
            CloseCode::NoPath | CloseCode::Overloaded | CloseCode::Forbidden | CloseCode::Malformed => {
                FlowError::NoPath
            }
            CloseCode::Aborted => {
                FlowError::Aborted { cause: cause.map_or("it did not say why".into(), Arc::from) }
            }
            CloseCode::Unknown => FlowError::Unknown,
            CloseCode::Lost | CloseCode::Moved | CloseCode::Stale | CloseCode::Replaced => FlowError::Lost,
        })
    }

    /// The same, if there is no path and certificates are known to be why.
    pub(super) fn explained(self, doubt: Option<Arc<str>>) -> Self {
        match (self, doubt) {
            (Self::Broken(FlowError::NoPath | FlowError::Lost), Some(cause)) => {
                Self::Broken(FlowError::OutOfTime { cause })
            }
            (ending, _) => ending,
        }
    }

    /// What it means to whoever still reads or writes.
    pub(super) fn error(self) -> FlowError {
        match self {
            Self::Done => FlowError::Closed,
            Self::Broken(error) => error,
            Self::Here(cause) => FlowError::GivenUp { cause },
        }
    }
}

pub(super) type Endings = watch::Receiver<Option<Ending>>;

/// How a flow ended, if it has.
pub(super) fn present(endings: &Endings) -> FlowError {
    let ending = endings.borrow().clone();
    ending.map_or(FlowError::Closed, Ending::error)
}

/// Resolves once a flow is over.
pub(super) async fn over(mut endings: Endings) -> Result<(), FlowError> {
    let ending = endings.wait_for(Option::is_some).await.map_err(|_| FlowError::Closed)?.clone();
    match ending {
        Some(Ending::Done) => Ok(()),
        Some(ending) => Err(ending.error()),
        None => Err(FlowError::Closed),
    }
}

impl From<FlowError> for io::Error {
    fn from(error: FlowError) -> Self {
        let kind = match error {
            FlowError::NoPath
            | FlowError::OutOfTime { .. }
            | FlowError::Handshake
            | FlowError::Version(_) => io::ErrorKind::HostUnreachable,
            FlowError::Untrusted { .. } => io::ErrorKind::PermissionDenied,
            FlowError::Aborted { .. } | FlowError::Unknown | FlowError::Lost => {
                io::ErrorKind::ConnectionReset
            }
            FlowError::GivenUp { .. } => io::ErrorKind::ConnectionAborted,
            FlowError::Closed => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_told_as_the_cause_of_no_path_alone() {
        let doubt = || Some(Arc::from("a clock is wrong"));
        let error = |code, doubt| Ending::of(code, None).explained(doubt).error().to_string();
        let told = "no path to the target: a clock is wrong";
        assert_eq!([CloseCode::NoPath, CloseCode::Lost].map(|code| error(code, doubt())), [told, told]);
        assert_eq!(error(CloseCode::NoPath, None), FlowError::NoPath.to_string());
        assert_eq!(error(CloseCode::Unknown, doubt()), FlowError::Unknown.to_string());
    }

    #[test]
    fn alerts_about_certificates_are_the_flows_error() {
        let read =
            |error: rustls::Error| FlowError::of_stream(io::Error::new(io::ErrorKind::InvalidData, error));
        let heard = |alert| FlowError::of(&read(rustls::Error::AlertReceived(alert)));
        let cases = [
            (AlertDescription::CertificateExpired, Some("this machine's clock says")),
            (AlertDescription::BadCertificate, Some("of another network")),
            (AlertDescription::InternalError, None),
        ];
        for (alert, expected) in cases {
            let said = heard(alert).map(|error| error.to_string());
            assert_eq!(said.is_some(), expected.is_some(), "{alert:?}: {said:?}");
            assert!(expected.is_none_or(|part| said.unwrap().contains(part)), "{alert:?}");
        }
        assert_eq!(FlowError::of(&read(rustls::Error::DecryptError)), None);
    }
}
