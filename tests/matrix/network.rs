//! Where processes and endpoints live: on the loopback interface, or each on a host of a testbed, where ways can be cut.

use crate::fixture::Process;
use hopline::endpoint::{Endpoint, Options};
use hopline_lab::testbed::{Host, Testbed, TestbedError};
use std::path::Path;

/// Bootstrap, origin, target.
const NOT_RELAYS: usize = 3;

pub struct Network(Option<Testbed>);

impl Network {
    pub const fn loopback() -> Self {
        Self(None)
    }

    /// So many relays, each on a host of its own; needs root.
    pub fn testbed(relays: usize) -> Result<Self, TestbedError> {
        Testbed::new(NOT_RELAYS + relays, 1).map(Some).map(Self)
    }

    pub const fn is_testbed(&self) -> bool {
        self.0.is_some()
    }

    /// Starts `hopline` where `name` lives, told to listen there.
    pub fn start(&self, name: &str, home: &Path, ticket: &str, args: &[&str]) -> Process {
        let Some(host) = self.host(name) else { return Process::start(home, ticket, args) };
        let listen = format!("{}:0", host.address());
        let args = [args, &["--listen", &listen]].concat();
        host.enter(|| Process::start(home, ticket, &args))
    }

    pub async fn join(&self, name: &str, ticket: &str) -> Endpoint {
        let join = Endpoint::join(ticket.parse().unwrap(), Options::default());
        match self.host(name) {
            Some(host) => host.spawn(join).await.unwrap().unwrap(),
            None => join.await.unwrap(),
        }
    }

    pub fn cut(&self, a: &str, b: &str) {
        self.bed().cut(self.number(a), self.number(b));
    }

    pub fn cut_one_way(&self, from: &str, to: &str) {
        self.bed().cut_one_way(self.number(from), self.number(to));
    }

    pub fn isolate(&self, name: &str) {
        self.bed().isolate(self.number(name));
    }

    pub fn heal(&self) {
        if let Some(bed) = &self.0 {
            bed.heal_all();
        }
    }

    fn host(&self, name: &str) -> Option<&Host> {
        self.0.as_ref().map(|bed| bed.host(self.number(name)))
    }

    fn bed(&self) -> &Testbed {
        self.0.as_ref().expect("the case says that it needs a testbed")
    }

    /// The host of a name; a relay is called r1, r2 and so on.
    fn number(&self, name: &str) -> usize {
        match ["bootstrap", "origin", "target"].iter().position(|known| *known == name) {
            Some(number) => number,
            None => {
                let relay: usize = name.trim_start_matches('r').parse().unwrap();
                NOT_RELAYS + (relay - 1) % (self.bed().len() - NOT_RELAYS)
            }
        }
    }
}
