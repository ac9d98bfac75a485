//! A network of real processes, ended with the test whatever becomes of it.

use hopline::endpoint::{Endpoint, FlowEvent, Hop, Options};
use hopline_proto::id::FlowId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::broadcast;

/// How long anything may take before a test counts as hung.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// The binary under test.
pub const HOPLINE: &str = env!("CARGO_BIN_EXE_hopline");

/// A process of the binary under test.
pub struct Process {
    child: Child,
    /// The fields of its `ready` line.
    pub ready: Value,
    lines: mpsc::Receiver<String>,
    said: Arc<Said>,
    stderr: Option<JoinHandle<()>>,
}

/// What a process has said on stderr so far.
#[derive(Default)]
struct Said {
    text: Mutex<String>,
    more: Condvar,
}

/// What a process that ended left behind.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<String>,
    pub stderr: String,
}

impl Process {
    /// Starts `hopline` with these arguments and waits for its `ready` line.
    pub fn serve(home: &Path, ticket: &str, args: &[&str]) -> Self {
        Self::start(home, ticket, args).until_ready()
    }

    /// Waits for its `ready` line.
    pub fn until_ready(mut self) -> Self {
        match self.lines.recv_timeout(TIMEOUT) {
            Ok(line) => {
                let fields = line.strip_prefix("ready ").unwrap_or_else(|| panic!("it began with {line:?}"));
                self.ready = serde_json::from_str(fields).unwrap();
                self
            }
            Err(_) => panic!("it did not get ready: {}", self.end().stderr),
        }
    }

    /// Starts `hopline` with these arguments.
    pub fn start(home: &Path, ticket: &str, args: &[&str]) -> Self {
        Self::start_by(Command::new(HOPLINE), home, ticket, args)
    }

    /// Starts it by a command that takes its arguments last.
    pub fn start_by(mut command: Command, home: &Path, ticket: &str, args: &[&str]) -> Self {
        let mut child = command
            .args(args)
            .env("XDG_STATE_HOME", home)
            .env("HOPLINE_TICKET", ticket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let pipe = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::<Said>::default();
        let hearer = Arc::clone(&said);
        let stderr = std::thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                *hearer.text.lock().unwrap() += &(line + "\n");
                hearer.more.notify_all();
            }
        });
        Self { child, ready: Value::Null, lines, said, stderr: Some(stderr) }
    }

    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(TIMEOUT).expect("a line on stdout")
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its own end.
    pub fn finish(mut self) -> Ended {
        drop(self.child.stdin.take());
        let stdout = self.lines.iter().collect();
        let status = self.child.wait().unwrap();
        Ended { status, stdout, stderr: self.stderr() }
    }

    /// Waits until it says that on stderr.
    pub fn until_says(&self, what: &str) {
        let said = self.said.text.lock().unwrap();
        let is_silent = |text: &mut String| !text.contains(what);
        let (said, waited) = self.said.more.wait_timeout_while(said, TIMEOUT, is_silent).unwrap();
        assert!(!waited.timed_out(), "it did not say {what:?}, but {said:?}");
    }

    /// All of its stderr, once it has ended.
    pub fn stderr(&mut self) -> String {
        self.stderr.take().unwrap().join().unwrap();
        std::mem::take(&mut self.said.text.lock().unwrap())
    }

    fn end(mut self) -> Ended {
        self.kill();
        self.finish()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `hopline` to its end, with `input` on stdin.
pub fn run(home: &Path, ticket: &str, args: &[&str], input: &[u8]) -> Ended {
    let mut process = Process::start(home, ticket, args);
    process.stdin().write_all(input).unwrap();
    process.finish()
}

/// A bootstrap and relays.
pub struct Cluster {
    pub home: tempfile::TempDir,
    pub bootstrap: Process,
    pub ticket: String,
    pub relays: BTreeMap<String, Process>,
}

impl Cluster {
    pub fn start(relays: usize) -> Self {
        Self::start_with(relays, &[])
    }

    /// With more arguments for the bootstrap.
    pub fn start_with(relays: usize, more: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let bootstrap = bootstrap(home.path(), "127.0.0.1:0", more);
        let ticket = bootstrap.ready["ticket"].as_str().unwrap().to_owned();
        let mut cluster = Self { home, bootstrap, ticket, relays: BTreeMap::new() };
        for n in 1..=relays {
            cluster.add_relay(&format!("r{n}"));
        }
        cluster
    }

    /// Ends the bootstrap; what it had logged.
    pub fn bootstrap_log(&mut self) -> String {
        self.bootstrap.signal("-TERM");
        self.bootstrap.stderr()
    }

    /// Starts the bootstrap anew, from the directory and at the address of the one before, which has ended.
    pub fn restart_bootstrap(&mut self) {
        let address = self.bootstrap.ready["addr"].as_str().unwrap();
        self.bootstrap = bootstrap(self.home.path(), address, &[]);
    }

    pub fn add_relay(&mut self, name: &str) {
        let relay = self.serve(&["relay", "--name", name]);
        self.relays.insert(name.to_owned(), relay);
    }

    pub fn serve(&self, args: &[&str]) -> Process {
        Process::serve(self.home.path(), &self.ticket, args)
    }

    pub fn start_process(&self, args: &[&str]) -> Process {
        Process::start(self.home.path(), &self.ticket, args)
    }

    pub fn run(&self, args: &[&str], input: &[u8]) -> Ended {
        run(self.home.path(), &self.ticket, args, input)
    }

    pub fn kill(&mut self, relay: &str) {
        self.relays.remove(relay).unwrap_or_else(|| panic!("no relay {relay}")).kill();
    }

    /// Joins as an endpoint of this very process.
    pub async fn join(&self) -> Endpoint {
        Endpoint::join(self.ticket.parse().unwrap(), Options::default()).await.unwrap()
    }
}

fn bootstrap(home: &Path, address: &str, more: &[&str]) -> Process {
    let data = home.join("bootstrap");
    let args = ["bootstrap", "--data", data.to_str().unwrap(), "--listen", address];
    Process::serve(home, "", &[&args, more].concat())
}

/// Follows the chain of the next flow that is opened, by its events.
pub struct Chain {
    events: broadcast::Receiver<FlowEvent>,
    flow: Option<FlowId>,
    pub hops: Vec<Hop>,
    pub rerouted: usize,
}

impl Chain {
    pub fn of(endpoint: &Endpoint) -> Self {
        Self { events: endpoint.events(), flow: None, hops: Vec::new(), rerouted: 0 }
    }

    /// Waits for an event of a kind, taking in all before it.
    pub async fn until(&mut self, is_it: impl Fn(&FlowEvent) -> bool) -> FlowEvent {
        loop {
            let event = tokio::time::timeout(TIMEOUT, self.next()).await.expect("an event");
            if is_it(&event) {
                return event;
            }
        }
    }

    /// The flow's next event, taken in.
    pub async fn next(&mut self) -> FlowEvent {
        loop {
            let event = self.events.recv().await.unwrap();
            if self.take_in(&event) {
                return event;
            }
        }
    }

    /// Who serves a hop now, the nearest being 1.
    pub fn primary(&mut self, hop: usize) -> String {
        while let Ok(event) = self.events.try_recv() {
            self.take_in(&event);
        }
        self.hops[hop - 1].primary.clone()
    }

    /// Whether the event is about this flow.
    fn take_in(&mut self, event: &FlowEvent) -> bool {
        if self.flow.is_none() && matches!(event, FlowEvent::Chain { .. }) {
            self.flow = Some(event.flow());
        }
        if self.flow != Some(event.flow()) {
            return false;
        }
        match event {
            FlowEvent::Chain { hops, .. }
            | FlowEvent::BackupReplaced { hops, .. }
            | FlowEvent::Rebuilt { hops, .. } => self.hops.clone_from(hops),
            FlowEvent::Rerouted { hop, to, .. } | FlowEvent::Drained { hop, to, .. } => {
                self.rerouted += 1;
                // The target is a hop too, which the last relay may have to reach anew.
                if let Some(hop) = self.hops.get_mut(usize::from(*hop) - 1) {
                    hop.backup.take_if(|backup| backup == to);
                    hop.primary.clone_from(to);
                }
            }
            FlowEvent::Chosen { hop, to, .. } => {
                if let Some(hop) = self.hops.get_mut(usize::from(*hop) - 1) {
                    let planned = std::mem::replace(&mut hop.primary, to.clone());
                    if hop.backup.as_ref() == Some(to) {
                        hop.backup = Some(planned);
                    }
                }
            }
            _ => {}
        }
        true
    }
}

/// Bytes that no two offsets within reach of each other share a run of.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
