//! Where a node's admin pages are served, if they are.

use hopline::admin::Listener;
use hopline_command::{Exit, Failure};
use serde_json::Value;
use std::net::SocketAddr;
use std::str::FromStr;

/// An address, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(Option<SocketAddr>);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address =
            text.parse().map_err(|_| "write an address such as 127.0.0.1:9090, or off".to_owned())?;
        Ok(Self(Some(address)))
    }
}

impl Place {
    /// Listens there, if anywhere.
    pub(super) async fn listen(self) -> Result<Option<Listener>, Failure> {
        let Some(address) = self.0 else { return Ok(None) };
        let listener = Listener::bind(address).await;
        listener.map(Some).map_err(|error| Failure::new(Exit::Failed, error.to_string()))
    }
}

/// Adds to the fields of a `ready` line where the pages are, if they are anywhere.
pub(super) fn tell(url: Option<String>, ready: &mut Value) {
    if let (Some(url), Some(fields)) = (url, ready.as_object_mut()) {
        fields.insert("admin".to_owned(), url.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_or_off() {
        assert_eq!("off".parse(), Ok(Place(None)));
        assert_eq!("[::1]:0".parse(), Ok(Place(Some(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0))))));
        assert!("localhost".parse::<Place>().is_err());
    }
}
