//! The file `routes` beside an endpoint's key: the routes that it keeps, for its next life.
//!
//! Lines of text: the format's version, the network and the node that they are for, a line a route, and at the end the hash
//! of all that. What is in it lets its reader open flows as this node, so it is as private as the key. A file that makes no
//! sense is replaced, one of a later version is left alone.

use crate::net::clock::Clock;
use crate::net::identity::Membership;
use crate::net::keyfile::{self, KeyFileError};
use data_encoding::{BASE64, HEXLOWER};
use hopline_proto::codec;
use hopline_proto::crypto;
use hopline_proto::endpoint::{Destination, Kept, MAX_DESTINATIONS, MAX_ROUTES};
use hopline_proto::epoch::MAX_HOPS;
use hopline_proto::record::Route;
use hopline_proto::rpc::is_name;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tokio::sync::{Mutex, Notify};
use tokio::task::spawn_blocking;

const FILE: &str = "routes";
const VERSION: u32 = 1;
/// The largest file that is read. The longest routes take 20 KiB each.
const MAX_BYTES: u64 = 4 << 20;

/// See the module's documentation.
pub(super) struct RouteFile {
    path: PathBuf,
    /// Whose they are.
    head: String,
    /// Told when there is something to store.
    pub(super) changed: Notify,
    /// Whose turn it is to store.
    pub(super) turn: Mutex<()>,
}

/// What a file turned out to be.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Routes(Vec<Kept>),
    /// Of another node or network.
    Foreign,
    Damaged,
    Later,
}

impl RouteFile {
    /// The file in `data` and what is in it. No file if there is no `data`, or if it must be left alone.
    pub(super) async fn open(data: Option<&Path>, membership: &Membership) -> (Option<Self>, Vec<Kept>) {
        let Some(data) = data else { return (None, Vec::new()) };
        let path = data.join(FILE);
        let head = format!("network = {}\nnode = {}\n", membership.network, membership.node_id());
        let file = Self { path: path.clone(), head, changed: Notify::new(), turn: Mutex::new(()) };
        let Ok(text) = spawn_blocking(move || read(&path)).await else { return (Some(file), Vec::new()) };
        let Some(text) = text else { return (Some(file), Vec::new()) };
        let shown = file.path.display();
        match file.parse(&text) {
            Content::Routes(mut kept) => {
                let now = Clock::wall();
                kept.retain(|kept| kept.route.records.iter().all(|record| record.scope.expires > now));
                tracing::debug!(path = %shown, routes = kept.len(), "routes kept from before");
                (Some(file), kept)
            }
            Content::Foreign => {
                tracing::info!(path = %shown, "routes of another node or network: not used, and to be replaced");
                (Some(file), Vec::new())
            }
            Content::Damaged => {
                tracing::warn!(path = %shown, "damaged: the routes in it are lost, and it will be replaced");
                (Some(file), Vec::new())
            }
            Content::Later => {
                tracing::warn!(path = %shown, "written by a later version of hopline: left alone, no routes are kept");
                (None, Vec::new())
            }
        }
    }

    /// Puts these routes in place of what is in the file.
    pub(super) async fn store(&self, kept: &[Kept]) {
        let (path, text) = (self.path.clone(), self.text(kept));
        match spawn_blocking(move || keyfile::write_private(&path, &text)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the routes are not stored"),
            Err(error) => tracing::warn!(%error, "the routes are not stored"),
        }
    }

    fn text(&self, kept: &[Kept]) -> String {
        let mut text = format!("version = {VERSION}\n{}", self.head);
        for Kept { to, route } in kept {
            let route = BASE64.encode(&codec::to_bytes(route));
            let _ = writeln!(text, "route = {} {} {route}", to.name, to.hops);
        }
        let check = HEXLOWER.encode(&crypto::hash(&[text.as_bytes()]));
        text + "check = " + &check + "\n"
    }

    fn parse(&self, text: &str) -> Content {
        let version = keyfile::field(text, "version").and_then(|version| version.parse::<u32>().ok());
        match version {
            Some(VERSION) => {}
            Some(later) if later > VERSION => return Content::Later,
            Some(_) | None => return Content::Damaged,
        }
        self.parse_body(text).unwrap_or(Content::Damaged)
    }

    fn parse_body(&self, text: &str) -> Option<Content> {
        let end = text.rfind("check = ")?;
        let (body, check) = text.split_at(end);
        let found = HEXLOWER.encode(&crypto::hash(&[body.as_bytes()]));
        if check.strip_prefix("check = ")?.trim_end() != found {
            return None;
        }
        let Some(routes) = body.split_once('\n')?.1.strip_prefix(&self.head) else {
            return Some(Content::Foreign);
        };
        let kept: Option<Vec<Kept>> = routes.lines().take(MAX_DESTINATIONS * MAX_ROUTES).map(parse).collect();
        kept.map(Content::Routes)
    }
}

fn parse(line: &str) -> Option<Kept> {
    let mut words = line.strip_prefix("route = ")?.split(' ');
    let (name, hops, route) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let route: Route = codec::from_bytes(&BASE64.decode(route.as_bytes()).ok()?).ok()?;
    let good = is_name(name) && (1..=MAX_HOPS).contains(&usize::from(hops)) && route.open().is_some();
    good.then(|| Kept { to: Destination { name: name.to_owned(), hops }, route })
}

/// The text of the file, and nothing in place of one that can't be read; `None` if there is no file.
fn read(path: &Path) -> Option<String> {
    let is_large = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > MAX_BYTES);
    match keyfile::load(path) {
        Ok(text) if !is_large => text,
        Ok(_) | Err(KeyFileError::Malformed { .. }) => Some(String::new()),
        Err(error) => {
            tracing::warn!(%error, "can't read the routes kept from before");
            Some(String::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopline_proto::Time;
    use hopline_proto::crypto::Key;
    use hopline_proto::id::{ChainId, NodeId, Pseudonym};
    use hopline_proto::record::{Candidate, ChainSecret, Scope, relay_key};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn kept(name: &str, hops: u8) -> Kept {
        let (network, chain) = (Key::from_bytes([9; 32]), ChainId::from_bytes([1; 16]));
        let origin = Pseudonym::from_bytes([2; 16]);
        let secret = ChainSecret::derive(&network, chain, origin);
        let mut rng = StdRng::seed_from_u64(1);
        let mut issue = |hop: u8| {
            let scope = Scope { chain, origin, hop, version: 1, key_epoch: 0, expires: Time::MAX };
            let node = NodeId::from_bytes([hop; 32]);
            let candidate = Candidate { node, name: "r".to_owned(), addresses: Vec::new() };
            secret.issue(scope, &[(candidate, relay_key(&network, &node, 0))], hop > hops, &mut rng)
        };
        let records = (1..=hops + 1).map(&mut issue).collect();
        let route = Route { target: NodeId::from_bytes([hops + 1; 32]), secret, records };
        Kept { to: Destination { name: name.to_owned(), hops }, route }
    }

    fn file(node: &str) -> RouteFile {
        let head = format!("network = x\nnode = {node}\n");
        RouteFile { path: PathBuf::new(), head, changed: Notify::new(), turn: Mutex::new(()) }
    }

    #[test]
    fn what_is_stored_is_found_again() {
        for routes in [vec![], vec![kept("printer", 1)], vec![kept("printer", 1), kept("a", 8)]] {
            let text = file("me").text(&routes);
            assert_eq!(file("me").parse(&text), Content::Routes(routes));
            assert_eq!(file("another").parse(&text), Content::Foreign);
        }
    }

    #[test]
    fn what_was_altered_is_not_believed() {
        let text = file("me").text(&[kept("printer", 2)]);
        assert!(matches!(file("me").parse(&text), Content::Routes(_)));
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] = if bytes[place] == b'1' { b'0' } else { b'1' };
            let altered = String::from_utf8(bytes).unwrap();
            assert!(!matches!(file("me").parse(&altered), Content::Routes(_)), "at {place}");
            let cut = text[..place].trim_end();
            assert!(
                !matches!(file("me").parse(cut), Content::Routes(_)) || place + 1 == text.len(),
                "cut at {place}"
            );
        }
        assert_eq!(file("me").parse(""), Content::Damaged);
        assert_eq!(file("me").parse(&text.replace("version = 1", "version = 2")), Content::Later);
    }
}
