//! Names on the command line, checked before anything is done with them.

use hopline_proto::record::MAX_NAME_BYTES;
use hopline_proto::rpc;

/// A name of a node or a target.
pub fn parse(name: &str) -> Result<String, String> {
    if rpc::is_name(name) {
        Ok(name.to_owned())
    } else {
        Err(format!("a name has 1 to {MAX_NAME_BYTES} letters, digits, dots, dashes and underscores"))
    }
}

/// A zone, which may be none.
pub fn parse_zone(zone: &str) -> Result<String, String> {
    if zone.is_empty() { Ok(String::new()) } else { parse(zone) }
}
