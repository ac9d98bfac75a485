//! Real processes of one binary, and the place where they live.
//!
//! Nothing of them stays: a [`Process`] that is dropped is killed, and a [`Stage`] that is dropped takes the directory
//! with it in which they kept their state. (Only if this process itself is killed with SIGKILL do they live on.)
//!
//! They talk over the loopback interface, or each lives on a host of a testbed.

#[cfg_attr(not(target_os = "linux"), path = "stage/nowhere.rs")]
mod places;
mod process;
mod relays;

pub use process::Process;
pub use relays::Relays;

use hopline::endpoint::{Endpoint, Options};
use hopline::net::ticket::Ticket;
use hopline_command::Failure;
use places::Places;
use std::fs::{DirBuilder, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long to try to remove the directory: a process that is being killed may still create a file.
const REMOVAL_ATTEMPTS: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// Where processes live: a directory of their own, which is also their home.
#[derive(Debug)]
pub struct Stage {
    directory: PathBuf,
    logs: PathBuf,
    log_filter: &'static str,
    binary: PathBuf,
    places: Option<Places>,
}

impl Stage {
    /// Of this same binary. With `logs`, the processes' logs are more detailed, and kept there.
    ///
    /// # Errors
    /// If there can be no directory.
    pub fn new(logs: Option<&Path>) -> Result<Self, Failure> {
        Self::of(std::env::current_exe()?, logs)
    }

    /// Of a binary.
    ///
    /// # Errors
    /// As [`Stage::new`].
    pub fn of(binary: PathBuf, logs: Option<&Path>) -> Result<Self, Failure> {
        static STAGES: AtomicU32 = AtomicU32::new(1);
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("hopline-{}-{number}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&directory).map_err(|error| at(&directory, error))?;
        let kept = logs.map_or_else(|| directory.clone(), Path::to_owned);
        let log_filter = if logs.is_some() { "hopline=debug" } else { "hopline=info" };
        let stage = Self { directory, logs: kept, log_filter, binary, places: None };
        std::fs::create_dir_all(&stage.logs).map_err(|error| at(&stage.logs, error))?;
        Ok(stage)
    }

    /// Where they live.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// From now on each process and endpoint lives on a host of its own, `hosts` in all.
    ///
    /// # Errors
    /// If there can be no testbed.
    pub fn on_testbed(mut self, hosts: usize, seed: u64) -> Result<Self, Failure> {
        self.places = Some(Places::new(hosts, seed)?);
        Ok(self)
    }

    /// Where the process of this name may listen: its address, any port.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        let host = self.places.as_ref().map(|places| places.address(name));
        format!("{}:0", host.unwrap_or(Ipv4Addr::LOCALHOST))
    }

    /// Joins as an endpoint that is no process of its own.
    ///
    /// # Errors
    /// If it can't join.
    pub async fn join(&self, name: &str, ticket: Ticket, options: Options) -> Result<Endpoint, Failure> {
        let join = Endpoint::join(ticket, Options { name: Some(name.to_owned()), ..options });
        let joined = match &self.places {
            Some(places) => places.spawn(name, join).await.map_err(std::io::Error::other)?,
            None => join.await,
        };
        Ok(joined?)
    }

    /// From now on this share of all packets is lost. (On the loopback interface none is.)
    pub fn lose(&self, share: f64) {
        if let Some(places) = &self.places {
            places.lose(share);
        }
    }

    /// From now on packets between two are so long under way, and this share is lost, each way; nothing is cut between them. (On
    /// the loopback interface nothing changes.)
    pub fn link(&self, a: &str, b: &str, delay: Duration, loss: f64) {
        if let Some(places) = &self.places {
            places.link(a, b, delay, loss);
        }
    }

    /// Cuts the wires between two, both ways. (On the loopback interface there are none.)
    pub fn cut(&self, a: &str, b: &str) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Cuts the wire from the one to the other.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        if let Some(places) = &self.places {
            places.cut_one_way(from, to);
        }
    }

    /// Cuts all wires to and from one.
    pub fn isolate(&self, name: &str) {
        if let Some(places) = &self.places {
            places.isolate(name);
        }
    }

    /// Undoes all cuts.
    pub fn heal(&self) {
        if let Some(places) = &self.places {
            places.heal();
        }
    }

    /// Starts a network's bootstrap, with these arguments more; its ticket.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn bootstrap(&self, arguments: &[&str]) -> Result<(Process, Ticket), Failure> {
        let listen = self.address("bootstrap");
        let arguments = [&["bootstrap", "--listen", &listen], arguments].concat();
        let mut bootstrap = self.start("bootstrap", None, &arguments)?;
        let ready = bootstrap.ready().await?;
        let ticket = ready.get("ticket").and_then(|ticket| ticket.as_str()?.parse().ok());
        let ticket = ticket.ok_or_else(|| bootstrap.failure("gave no ticket"))?;
        Ok((bootstrap, ticket))
    }

    /// Starts `hopline ARGUMENTS`, with the network's ticket if it has one. Its log goes to NAME.log.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(&self, name: &str, ticket: Option<&str>, arguments: &[&str]) -> Result<Process, Failure> {
        self.start_at(name, name, ticket, arguments)
    }

    /// The same, where `place` lives.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub fn start_at(
        &self,
        place: &str,
        name: &str,
        ticket: Option<&str>,
        arguments: &[&str],
    ) -> Result<Process, Failure> {
        let log = self.logs.join(format!("{name}.log"));
        let file = File::create(&log).map_err(|error| at(&log, error))?;
        let mut command = Command::new(&self.binary);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("HOPLINE_") {
                command.env_remove(variable);
            }
        }
        if let Some(ticket) = ticket {
            command.env("HOPLINE_TICKET", ticket);
        }
        command
            .args(["--log", self.log_filter])
            .args(arguments)
            .current_dir(&self.directory)
            .env("HOME", &self.directory)
            .env("XDG_STATE_HOME", self.directory.join(name))
            .stderr(file)
            // Ctrl-C is for this process alone, which ends the others itself.
            .process_group(0);
        let runtime = Handle::current();
        let spawn = || {
            let _runtime = runtime.enter();
            Process::spawn(name, command, Some(log))
        };
        let process = match &self.places {
            Some(places) => places.enter(place, spawn),
            None => spawn(),
        };
        process.map_err(|error| at(&self.binary, error))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for _ in 0..REMOVAL_ATTEMPTS {
            match std::fs::remove_dir_all(&self.directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(REMOVAL_PAUSE)
                }
                _ => return,
            }
        }
        tracing::warn!(directory = %self.directory.display(), "could not remove the temporary directory");
    }
}

fn at(path: &Path, error: std::io::Error) -> Failure {
    Failure::from(error).at(path.display())
}
