//! A process, from its start to its end.

use hopline_command::{Exit, Failure};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long a process may take until it serves.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer of a process may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Ticks of /proc/PID/stat in a second, on Linux.
const TICKS: f64 = 100.0;
/// How much of a process's log a failure cites.
const LAST_WORDS_BYTES: i64 = 2000;
const LAST_WORDS_LINES: usize = 8;

/// A process that runs; it is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts a command that has its arguments and its stderr, which goes to `log` if that is a file. Its other streams lead
    /// here.
    ///
    /// # Errors
    /// If it can't be started.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn(name: &str, command: std::process::Command, log: Option<PathBuf>) -> std::io::Result<Self> {
        let mut command = Command::from(command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(Self { name: name.to_owned(), child, lines: BufReader::new(stdout).lines(), log })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, as long as nobody has waited for its end.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Takes its standard input, which closes when that is dropped.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Takes its standard error, if that leads here.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits until it says that it serves, and gives what it says.
    pub async fn ready(&mut self) -> Result<Value, Failure> {
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
    pub async fn line(&mut self) -> std::io::Result<Option<String>> {
        self.lines.next_line().await
    }

    /// User and system time so far (proc(5): fields 14 and 15 of stat, counted after the command's name).
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        let stat = self.id().and_then(|id| std::fs::read_to_string(format!("/proc/{id}/stat")).ok());
        let fields = stat.as_deref().and_then(|stat| stat.rsplit_once(')')).map_or("", |(_, rest)| rest);
        let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        ticks.sum::<f64>() / TICKS
    }

    /// Sends it a line, and gives the line that it answers with.
    pub async fn ask(&mut self, line: &str) -> Result<String, Failure> {
        self.ask_within(line, ANSWER_TIMEOUT).await
    }

    /// The same, where the answer may take so long.
    pub async fn ask_within(&mut self, line: &str, within: Duration) -> Result<String, Failure> {
        let asked = async {
            let stdin = self.child.stdin.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
            stdin.write_all(format!("{line}\n").as_bytes()).await?;
            self.lines.next_line().await
        };
        match timeout(within, asked).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None) | Err(_)) => Err(self.died("when it was asked something").await),
            Err(_) => Err(self.failure(&format!("gave no answer within {} s", within.as_secs()))),
        }
    }

    /// Resolves when it ends, which it should not.
    pub async fn death(&mut self) -> Failure {
        while let Ok(Some(_)) = self.line().await {}
        self.died("in the middle of it").await
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, which should be a good one.
    pub async fn success(&mut self, within: Duration) -> Result<(), Failure> {
        match timeout(within, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(_) => Err(self.died("with an error").await),
            Err(_) => Err(self.failure(&format!("did not end within {} s", within.as_secs()))),
        }
    }

    /// Kills it, as `kill -9` does, and does not wait.
    pub fn kill(&mut self) -> std::io::Result<()> {
        self.child.start_kill()
    }

    /// Asks it to end, as SIGTERM does, and does not wait.
    pub fn terminate(&self) -> std::io::Result<()> {
        self.signal(rustix::process::Signal::TERM)
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&self, signal: rustix::process::Signal) -> std::io::Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let Some(id) = id.and_then(rustix::process::Pid::from_raw) else { return Ok(()) };
        Ok(rustix::process::kill_process(id, signal)?)
    }

    /// Waits until it has ended, one way or the other.
    ///
    /// # Errors
    /// Whatever the system has against it.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// The failure that it ended when it should not have.
    pub async fn died(&mut self, when: &str) -> Failure {
        match timeout(Duration::from_secs(1), self.child.wait()).await {
            Ok(Ok(status)) => self.failure(&format!("ended {when} ({status})")),
            _ => self.failure(&format!("closed its output {when}")),
        }
    }

    /// A failure of this process, with the end of its log.
    pub fn failure(&self, what: &str) -> Failure {
        let said = match self.log.as_deref().map(last_words) {
            Some(Ok(words)) if !words.is_empty() => format!("; the last it said:\n{words}"),
            _ => String::new(),
        };
        Failure::new(Exit::Failed, format!("the process {} {what}{said}", self.name))
    }
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
