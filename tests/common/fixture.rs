//! A network of real processes, ended with the test whatever becomes of it.
//!
//! The processes are the lab's. Here their methods wait, and what goes wrong is a panic. What a process prints waits in its pipe
//! until it is asked for: one that prints much must have its reader.

use hopline::FlowId;
use hopline::endpoint::{Chain, Endpoint, FlowEvent, Hop, Options, Plane};
use hopline_lab::pattern::Pattern;
use hopline_lab::stage;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStderr;
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

pub use rustix::process::Signal;

/// How long anything may take before a test counts as hung.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// The binary under test.
pub const HOPLINE: &str = env!("CARGO_BIN_EXE_hopline");

/// Where the processes are waited for.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Waits, on a thread of its own: whoever calls may be a task of any runtime.
fn wait<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| RUNTIME.block_on(future)).join()).unwrap()
}

/// A process of the binary under test.
pub struct Process {
    process: stage::Process,
    /// The fields of its `ready` line.
    pub ready: Value,
    /// What it has said on stderr so far.
    said: watch::Receiver<String>,
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
        self.ready = wait(self.process.ready()).unwrap_or_else(|error| {
            self.kill();
            panic!("{}: {}", error.message(), self.stderr())
        });
        self
    }

    /// Starts `hopline` with these arguments.
    pub fn start(home: &Path, ticket: &str, args: &[&str]) -> Self {
        Self::start_by(Command::new(HOPLINE), home, ticket, args)
    }

    /// Starts it by a command that takes its arguments last.
    pub fn start_by(mut command: Command, home: &Path, ticket: &str, args: &[&str]) -> Self {
        command.args(args).env("XDG_STATE_HOME", home).env("HOPLINE_TICKET", ticket).stderr(Stdio::piped());
        let _runtime = RUNTIME.enter();
        let mut process = stage::Process::spawn("hopline", command, None).unwrap();
        let (told, said) = watch::channel(String::new());
        tokio::spawn(hear(process.stderr().unwrap(), told));
        Self { process, ready: Value::Null, said }
    }

    pub fn stdin(&mut self) -> impl Write + Send + use<> {
        File::from(self.process.stdin().unwrap().into_owned_fd().unwrap())
    }

    pub fn id(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let line = wait(async { timeout(TIMEOUT, self.process.line()).await });
        line.expect("a line in time").unwrap().expect("a line on stdout")
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal).unwrap();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        wait(self.process.ended()).unwrap();
    }

    /// Waits for its own end.
    pub fn finish(mut self) -> Ended {
        drop(self.process.stdin());
        let (status, stdout) = wait(async {
            let mut lines = Vec::new();
            while let Some(line) = self.process.line().await.unwrap() {
                lines.push(line);
            }
            (self.process.ended().await.unwrap(), lines)
        });
        Ended { status, stdout, stderr: self.stderr() }
    }

    /// Waits until it says that on stderr.
    pub fn until_says(&self, what: &str) {
        let mut heard = self.said.clone();
        let says = heard.wait_for(|said| said.contains(what));
        let said = wait(async { timeout(TIMEOUT, says).await.is_ok_and(|said| said.is_ok()) });
        assert!(said, "it did not say {what:?}, but {:?}", self.said.borrow());
    }

    /// All of its stderr, once it has ended.
    pub fn stderr(&mut self) -> String {
        wait(async { while self.said.changed().await.is_ok() {} });
        self.said.borrow().clone()
    }
}

/// Takes what a process says, until it has ended.
async fn hear(stderr: ChildStderr, told: watch::Sender<String>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        told.send_modify(|said| *said += &(line + "\n"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = wait(self.process.ended());
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
        self.bootstrap.signal(Signal::TERM);
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
        self.join_as(Options::default()).await
    }

    /// The same, where flows travel that way.
    pub async fn join_over(&self, plane: Plane) -> Endpoint {
        self.join_as(Options { plane, ..Options::default() }).await
    }

    pub async fn join_as(&self, options: Options) -> Endpoint {
        Endpoint::join(self.ticket.parse().unwrap(), options).await.unwrap()
    }
}

fn bootstrap(home: &Path, address: &str, more: &[&str]) -> Process {
    let data = home.join("bootstrap");
    let args = ["bootstrap", "--data", data.to_str().unwrap(), "--listen", address];
    Process::serve(home, "", &[&args, more].concat())
}

/// Waits until the chain is so.
pub async fn until(chain: &mut watch::Receiver<Chain>, so: impl FnMut(&Chain) -> bool) {
    timeout(TIMEOUT, chain.wait_for(so)).await.expect("a change of the chain").expect("a flow");
}

/// The relays over which a redundant session goes besides those of its first chain, once it does.
pub async fn second_chain(events: &mut broadcast::Receiver<FlowEvent>, first: FlowId) -> Vec<Hop> {
    let found = async {
        loop {
            match events.recv().await.unwrap() {
                FlowEvent::Chain { flow, hops, .. } if flow != first => return hops,
                _ => {}
            }
        }
    };
    timeout(TIMEOUT, found).await.expect("a second chain")
}

/// Who serves a hop now, the nearest being 1.
pub fn primary(chain: &watch::Receiver<Chain>, hop: u8) -> String {
    chain.borrow().primary(hop).unwrap().to_owned()
}

/// Bytes that no two offsets within reach of each other share a run of.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Pattern::new(1).fill(0, &mut bytes);
    bytes
}
