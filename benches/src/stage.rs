//! Real processes of this same binary, and the place where they live.
//!
//! Nothing of them stays: a [`Process`] that is dropped is killed, and a [`Stage`] that is dropped takes the directory
//! with it in which they kept their state. (Only if this process itself is killed with SIGKILL do they live on.)
//!
//! They talk over the loopback interface, or each lives on a host of a testbed.

#[cfg_attr(not(target_os = "linux"), path = "stage/nowhere.rs")]
mod places;

use hopline::endpoint::{Endpoint, Options};
use hopline::net::ticket::Ticket;
use hopline_command::{Exit, Failure};
use places::Places;
use serde_json::Value;
use std::fs::{DirBuilder, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long a process may take until it serves.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How many relays of a large pool are started together: more only make each other wait.
const STARTED_AT_ONCE: u32 = 8;
/// How long an answer of a process may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a process's log a failure cites.
const LAST_WORDS_BYTES: i64 = 2000;
const LAST_WORDS_LINES: usize = 8;
/// How long to try to remove the directory: a process that is being killed may still create a file.
const REMOVAL_ATTEMPTS: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// Where processes live: a directory of their own, which is also their home.
#[derive(Debug)]
pub(super) struct Stage {
    directory: PathBuf,
    logs: PathBuf,
    log_filter: &'static str,
    binary: PathBuf,
    places: Option<Places>,
}

impl Stage {
    /// Makes the directory. With `logs`, the processes' logs are more detailed, and kept there.
    pub(super) fn new(logs: Option<&Path>) -> Result<Self, Failure> {
        let binary = std::env::current_exe()?;
        let directory = std::env::temp_dir().join(format!("hopline-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&directory).map_err(|error| at(&directory, error))?;
        let kept = logs.map_or_else(|| directory.clone(), Path::to_owned);
        let log_filter = if logs.is_some() { "hopline=debug" } else { "hopline=info" };
        let stage = Self { directory, logs: kept, log_filter, binary, places: None };
        std::fs::create_dir_all(&stage.logs).map_err(|error| at(&stage.logs, error))?;
        Ok(stage)
    }

    /// Where they live.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// From now on each process and endpoint lives on a host of its own, `hosts` in all.
    pub(super) fn on_testbed(mut self, hosts: usize, seed: u64) -> Result<Self, Failure> {
        self.places = Some(Places::new(hosts, seed)?);
        Ok(self)
    }

    /// Where the process of this name may listen: its address, any port.
    pub(super) fn address(&self, name: &str) -> String {
        let host = self.places.as_ref().map(|places| places.address(name));
        format!("{}:0", host.unwrap_or(Ipv4Addr::LOCALHOST))
    }

    /// Joins as an endpoint that is no process of its own.
    pub(super) async fn join(
        &self,
        name: &str,
        ticket: Ticket,
        options: Options,
    ) -> Result<Endpoint, Failure> {
        let join = Endpoint::join(ticket, Options { name: Some(name.to_owned()), ..options });
        let joined = match &self.places {
            Some(places) => places.spawn(name, join).await.map_err(std::io::Error::other)?,
            None => join.await,
        };
        Ok(joined?)
    }

    /// From now on this share of all packets is lost. (On the loopback interface none is.)
    pub(super) fn lose(&self, share: f64) {
        if let Some(places) = &self.places {
            places.lose(share);
        }
    }

    /// Cuts the wires between two, both ways. (On the loopback interface there are none.)
    pub(super) fn cut(&self, a: &str, b: &str) {
        if let Some(places) = &self.places {
            places.cut(a, b);
        }
    }

    /// Undoes the cut.
    pub(super) fn heal(&self, a: &str, b: &str) {
        if let Some(places) = &self.places {
            places.heal(a, b);
        }
    }

    /// Starts `hopline ARGUMENTS`, with the network's ticket if it has one. Its log goes to NAME.log.
    pub(super) fn start(
        &self,
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
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            // Ctrl-C is for this process alone, which ends the others itself.
            .process_group(0)
            .kill_on_drop(true);
        let runtime = Handle::current();
        let mut spawn = || {
            let _runtime = runtime.enter();
            command.spawn()
        };
        let child = match &self.places {
            Some(places) => places.enter(name, spawn),
            None => spawn(),
        };
        let mut child = child.map_err(|error| at(&self.binary, error))?;
        let stdout =
            child.stdout.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(Process { name: name.to_owned(), child, lines: BufReader::new(stdout).lines(), log })
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

/// A process that runs; it is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Process {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, as long as nobody has waited for its end.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Takes its standard input, which closes when that is dropped.
    pub(super) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits until it says that it serves, and gives what it says.
    pub(super) async fn ready(&mut self) -> Result<Value, Failure> {
        match timeout(READY_TIMEOUT, self.line()).await {
            Ok(Ok(Some(line))) => line
                .strip_prefix("ready ")
                .inspect(|fields| tracing::debug!(process = self.name, fields, "ready"))
                .and_then(|fields| serde_json::from_str(fields).ok())
                .ok_or_else(|| self.failure(&format!("said {line:?} instead of that it is ready"))),
            Ok(Ok(None)) => Err(self.died("before it was ready").await),
            Ok(Err(error)) => Err(self.failure(&format!("can't be heard: {error}"))),
            Err(_) => Err(self.failure(&format!("was not ready within {} s", READY_TIMEOUT.as_secs()))),
        }
    }

    /// The next line of its standard output; `None` when it has ended. May be cancelled.
    pub(super) async fn line(&mut self) -> std::io::Result<Option<String>> {
        self.lines.next_line().await
    }

    /// Sends it a line, and gives the line that it answers with.
    pub(super) async fn ask(&mut self, line: &str) -> Result<String, Failure> {
        let asked = async {
            let stdin = self.child.stdin.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
            stdin.write_all(format!("{line}\n").as_bytes()).await?;
            self.lines.next_line().await
        };
        match timeout(ANSWER_TIMEOUT, asked).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None) | Err(_)) => Err(self.died("when it was asked something").await),
            Err(_) => Err(self.failure(&format!("gave no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
        }
    }

    /// Resolves when it ends, which it should not.
    pub(super) async fn death(&mut self) -> Failure {
        while let Ok(Some(_)) = self.line().await {}
        self.died("in the middle of it").await
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, which should be a good one.
    pub(super) async fn success(&mut self, within: Duration) -> Result<(), Failure> {
        match timeout(within, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(_) => Err(self.died("with an error").await),
            Err(_) => Err(self.failure(&format!("did not end within {} s", within.as_secs()))),
        }
    }

    /// Kills it, as `kill -9` does, and does not wait.
    pub(super) fn kill(&mut self) -> std::io::Result<()> {
        self.child.start_kill()
    }

    /// Asks it to end, as SIGTERM does, and does not wait.
    pub(super) fn terminate(&mut self) -> std::io::Result<()> {
        self.signal(rustix::process::Signal::TERM)
    }

    /// Sends it a signal, unless it has ended.
    pub(super) fn signal(&mut self, signal: rustix::process::Signal) -> std::io::Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let Some(id) = id.and_then(rustix::process::Pid::from_raw) else { return Ok(()) };
        Ok(rustix::process::kill_process(id, signal)?)
    }

    /// Waits until it has ended, one way or the other; whether that was a good end.
    pub(super) async fn ended(&mut self) -> bool {
        self.child.wait().await.is_ok_and(|status| status.success())
    }

    /// The failure that it ended when it should not have.
    pub(super) async fn died(&mut self, when: &str) -> Failure {
        match timeout(Duration::from_secs(1), self.child.wait()).await {
            Ok(Ok(status)) => self.failure(&format!("ended {when} ({status})")),
            _ => self.failure(&format!("closed its output {when}")),
        }
    }

    /// A failure of this process, with the end of its log.
    pub(super) fn failure(&self, what: &str) -> Failure {
        let said = match last_words(&self.log) {
            Ok(words) if !words.is_empty() => format!("; the last it said:\n{words}"),
            _ => String::new(),
        };
        Failure::new(Exit::Failed, format!("the process {} {what}{said}", self.name))
    }
}

fn at(path: &Path, error: std::io::Error) -> Failure {
    Failure::from(error).at(path.display())
}

/// The last lines of a log.
fn last_words(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
    file.seek(SeekFrom::End(-length.min(LAST_WORDS_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let (_, last) = lines.split_at(lines.len().saturating_sub(LAST_WORDS_LINES));
    Ok(last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"))
}

/// Relays, by name.
#[derive(Debug)]
pub(super) struct Relays<'a> {
    stage: &'a Stage,
    ticket: &'a str,
    running: Vec<Process>,
    started: u32,
}

impl<'a> Relays<'a> {
    /// Starts `count` of them and waits until they are all in the pool.
    pub(super) async fn start(stage: &'a Stage, ticket: &'a str, count: u32) -> Result<Self, Failure> {
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
    pub(super) async fn add(&mut self) -> Result<String, Failure> {
        let relay = self.spawn()?;
        relay.ready().await?;
        Ok(relay.name().to_owned())
    }

    /// Starts `count` more, a few at a time, and waits until they are all in the pool; tells each time how many are.
    pub(super) async fn grow(&mut self, count: u32, ready: impl Fn(u32)) -> Result<(), Failure> {
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
    pub(super) const fn none(stage: &'a Stage, ticket: &'a str) -> Self {
        Self { stage, ticket, running: Vec::new(), started: 0 }
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<String> {
        self.running.iter().map(|relay| relay.name().to_owned()).collect()
    }

    /// Kills one with SIGKILL. `false` if there is none of that name.
    pub(super) fn kill(&mut self, name: &str) -> Result<bool, Failure> {
        let Some(mut relay) = self.take(name) else { return Ok(false) };
        relay.kill()?;
        Ok(true)
    }

    /// Takes one out, to do something to it; it counts as running no more.
    pub(super) fn take(&mut self, name: &str) -> Option<Process> {
        let place = self.running.iter().position(|relay| relay.name() == name)?;
        Some(self.running.swap_remove(place))
    }

    /// Puts one back that was taken out, and lives.
    pub(super) fn put_back(&mut self, relay: Process) {
        self.running.push(relay);
    }

    /// Whether it runs, as far as anybody here knows.
    pub(super) fn runs(&self, name: &str) -> bool {
        self.running.iter().any(|relay| relay.name() == name)
    }

    /// Fails if one ended that nobody had killed.
    pub(super) async fn check(&mut self) -> Result<(), Failure> {
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
        let relay = self.stage.start(&name, Some(self.ticket), &arguments)?;
        self.running.push(relay);
        self.running.last_mut().ok_or_else(|| Failure::new(Exit::Failed, "no relay"))
    }
}
