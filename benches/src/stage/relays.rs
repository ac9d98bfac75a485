//! The relays of a network, each a process.

use super::{Process, Stage};
use hopline_command::{Exit, Failure};

/// How many of a large pool are started together: more only make each other wait.
const STARTED_AT_ONCE: u32 = 8;

/// Relays, by name.
#[derive(Debug)]
pub struct Relays<'a> {
    stage: &'a Stage,
    ticket: String,
    running: Vec<Process>,
    started: u32,
}

impl<'a> Relays<'a> {
    /// Starts `count` of them and waits until they are all in the pool.
    pub async fn start(stage: &'a Stage, ticket: &str, count: u32) -> Result<Self, Failure> {
        let mut relays = Self::none(stage, ticket);
        for _ in 0..count {
            relays.spawn()?;
        }
        for relay in &mut relays.running {
            relay.ready().await?;
        }
        Ok(relays)
    }

    /// Starts another one, waits until it is in the pool, and gives its name.
    pub async fn add(&mut self) -> Result<String, Failure> {
        let relay = self.spawn()?;
        relay.ready().await?;
        Ok(relay.name().to_owned())
    }

    /// Starts `count` more, a few at a time, and waits until they are all in the pool; tells each time how many are.
    pub async fn grow(&mut self, count: u32, ready: impl Fn(u32)) -> Result<(), Failure> {
        let mut done = 0;
        while done < count {
            let batch = (count - done).min(STARTED_AT_ONCE);
            let before = self.running.len();
            for _ in 0..batch {
                self.spawn()?;
            }
            for relay in self.running.iter_mut().skip(before) {
                relay.ready().await?;
                done += 1;
                ready(done);
            }
        }
        Ok(())
    }

    /// None yet.
    pub fn none(stage: &'a Stage, ticket: &str) -> Self {
        Self { stage, ticket: ticket.to_owned(), running: Vec::new(), started: 0 }
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.running.iter().map(|relay| relay.name().to_owned()).collect()
    }

    /// Kills one with SIGKILL. `false` if there is none of that name.
    pub fn kill(&mut self, name: &str) -> Result<bool, Failure> {
        let Some(mut relay) = self.take(name) else { return Ok(false) };
        relay.kill()?;
        Ok(true)
    }

    /// Takes one out, to do something to it; it counts as running no more.
    pub fn take(&mut self, name: &str) -> Option<Process> {
        let place = self.running.iter().position(|relay| relay.name() == name)?;
        Some(self.running.swap_remove(place))
    }

    /// Puts one back that was taken out, and lives.
    pub fn put_back(&mut self, relay: Process) {
        self.running.push(relay);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Process> {
        self.running.iter()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Process> {
        self.running.iter().find(|relay| relay.name() == name)
    }

    /// Whether it runs, as far as anybody here knows.
    #[must_use]
    pub fn runs(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Fails if one ended that nobody had killed.
    pub async fn check(&mut self) -> Result<(), Failure> {
        match self.running.iter_mut().find_map(|relay| relay.has_ended().then_some(relay)) {
            Some(relay) => Err(relay.died("though nobody had killed it").await),
            None => Ok(()),
        }
    }

    fn spawn(&mut self) -> Result<&mut Process, Failure> {
        self.started += 1;
        let name = format!("r{}", self.started);
        let address = self.stage.address(&name);
        let arguments = ["relay", "--name", &name, "--listen", &address];
        let relay = self.stage.start(&name, Some(&self.ticket), &arguments)?;
        self.running.push(relay);
        self.running.last_mut().ok_or_else(|| Failure::new(Exit::Failed, "no relay"))
    }
}
