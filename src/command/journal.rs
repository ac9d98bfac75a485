//! What happened to the flows that this process opened, kept for `hopline explain`.
//!
//! One file a flow, a line an event, the same lines that `--events` prints. They are written by a thread of their own from
//! a bounded queue, as far as the disk allows: a full or slow disk costs lines, said once, and never a flow.
//!
//! Bounds: [`MAX_FLOWS`] files and [`MAX_BYTES`] in all, looked after with every [`PRUNE_EVERY`]th flow (the oldest go
//! first); [`MAX_FLOW_BYTES`] a flow (what comes then is left out, but for its end).

use hopline::endpoint::{Endpoint, FlowEvent};
use hopline::net::clock::Clock;
use hopline_proto::Time;
use serde::Serialize;
use serde_json::json;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// Flows that the journal keeps; older ones are forgotten.
pub const MAX_FLOWS: usize = 200;
const MAX_BYTES: u64 = 16 << 20;
const MAX_FLOW_BYTES: u64 = 256 << 10;
const PRUNE_EVERY: u32 = 32;
/// Events that may wait for the disk.
const MAX_QUEUED: usize = 1024;
/// How long the end of a process waits for the disk.
const TIMEOUT: Duration = Duration::from_secs(1);

/// An event and when this process heard of it: a line of `--events`, and of a journal.
#[derive(Serialize)]
pub struct Stamped<'a> {
    #[serde(flatten)]
    event: &'a FlowEvent,
    /// Milliseconds since the Unix epoch.
    at_ms: f64,
}

impl<'a> Stamped<'a> {
    /// `event`, with the present time.
    pub fn now(event: &'a FlowEvent) -> Self {
        Self { event, at_ms: Clock::wall().since(Time::ZERO).as_secs_f64() * 1000.0 }
    }
}

/// Where the journals are.
pub fn directory() -> Option<PathBuf> {
    Some(hopline::net::state::directory()?.join("flows"))
}

/// A process has one; it is [`finish`]ed by the end of the command line's `main`, whichever way a command ends.
static KEPT: Mutex<Option<Journal>> = Mutex::new(None);

struct Journal {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

/// Keeps what happens to the endpoint's flows from now on.
pub fn keep(endpoint: &Endpoint) {
    let Some(directory) = directory() else { return };
    let (lines, queue) = sync_channel(MAX_QUEUED);
    let thread = std::thread::Builder::new().name("hopline-journal".to_owned());
    let Ok(thread) = thread.spawn(move || Writer::new(directory).run(&queue)) else { return };
    let stop = CancellationToken::new();
    tokio::spawn(hand_on(endpoint.events(), lines, stop.clone()));
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Journal { stop, thread });
}

/// Waits until what happened has been written, but not for long.
pub async fn finish() {
    let Some(journal) = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    journal.stop.cancel();
    let written = tokio::task::spawn_blocking(|| journal.thread.join());
    let _ = tokio::time::timeout(TIMEOUT, written).await;
}

/// Hands events to the thread that writes, until it is told to stop and none is left.
async fn hand_on(
    mut events: broadcast::Receiver<FlowEvent>,
    lines: SyncSender<Line>,
    stop: CancellationToken,
) {
    let mut missed = 0;
    loop {
        let event = tokio::select! {
            biased;
            event = events.recv() => event,
            () = stop.cancelled() => break,
        };
        match event {
            Ok(event) => missed += u64::from(!queue(&event, &lines)),
            Err(RecvError::Lagged(more)) => missed += more,
            Err(RecvError::Closed) => break,
        }
    }
    if missed > 0 {
        tracing::warn!(missed, "the disk was too slow for the journal: `hopline explain` lacks these events");
    }
}

struct Line {
    flow: String,
    is_first: bool,
    is_last: bool,
    json: String,
}

/// Returns whether there was room, or nobody to write it any more.
fn queue(event: &FlowEvent, lines: &SyncSender<Line>) -> bool {
    let Ok(json) = serde_json::to_string(&Stamped::now(event)) else { return true };
    let is_first = matches!(event, FlowEvent::Chain { .. });
    let is_last = matches!(event, FlowEvent::Closed { .. });
    let line = Line { flow: event.flow().to_string(), is_first, is_last, json };
    !matches!(lines.try_send(line), Err(TrySendError::Full(_)))
}

struct Writer {
    directory: PathBuf,
    flows: u32,
}

impl Writer {
    const fn new(directory: PathBuf) -> Self {
        Self { directory, flows: 0 }
    }

    /// Writes until there is no more, or it can't.
    fn run(mut self, queue: &Receiver<Line>) {
        for line in queue {
            if let Err(error) = self.write(&line) {
                tracing::warn!(
                    %error,
                    "can't keep the flows' journal in {}: flows go on, but `hopline explain` won't know them; see to the \
                     disk, or use --no-journal",
                    self.directory.display()
                );
                return;
            }
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        if line.is_first {
            if self.flows == 0 {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
            }
            if self.flows.is_multiple_of(PRUNE_EVERY) {
                prune(&self.directory)?;
            }
            self.flows = self.flows.wrapping_add(1);
        }
        let path = self.directory.join(&line.flow).with_extension("jsonl");
        let file = OpenOptions::new().append(true).create(line.is_first).mode(0o600).open(path);
        let mut file = match file {
            // It was among the oldest.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !line.is_first => return Ok(()),
            file => file?,
        };
        let used = file.metadata()?.len();
        let needed = line.json.len() as u64 + 1;
        if used + needed <= MAX_FLOW_BYTES || line.is_last {
            return file.write_all(format!("{}\n", line.json).as_bytes());
        }
        if used <= MAX_FLOW_BYTES {
            // Puts the file beyond the bound, so it is said once.
            let left_out = json!({"event": "left_out", "flow": line.flow}).to_string();
            let width = usize::try_from(MAX_FLOW_BYTES + 1 - used).unwrap_or_default();
            return file.write_all(format!("{left_out:<width$}\n").as_bytes());
        }
        Ok(())
    }
}

/// Makes room for another flow.
fn prune(directory: &Path) -> io::Result<()> {
    let mut files = files(directory)?;
    let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
    files.sort_unstable_by_key(|file| std::cmp::Reverse(file.written));
    while files.len() >= MAX_FLOWS || bytes > MAX_BYTES {
        let Some(oldest) = files.pop() else { break };
        bytes -= oldest.bytes;
        match std::fs::remove_file(&oldest.path) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// A flow's journal.
pub struct Kept {
    /// Its id, as the journal writes it.
    pub flow: String,
    /// Where its events stand.
    pub path: PathBuf,
    /// When the last of them was written.
    pub written: std::time::SystemTime,
    bytes: u64,
}

/// All journals in a directory.
pub fn files(directory: &Path) -> io::Result<Vec<Kept>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jsonl");
        let Some(flow) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_journal) else {
            continue;
        };
        // One that another process removes meanwhile is none.
        if let Ok(metadata) = path.metadata() {
            let (flow, bytes) = (flow.to_owned(), metadata.len());
            files.push(Kept { flow, written: metadata.modified()?, bytes, path });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(flow: &str, is_first: bool, is_last: bool, bytes: usize) -> Line {
        Line { flow: flow.to_owned(), is_first, is_last, json: "x".repeat(bytes) }
    }

    #[test]
    fn a_flow_that_has_much_to_tell_is_cut_short_but_for_its_end() {
        let home = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(home.path().join("flows"));
        writer.write(&line("a", true, false, 10)).unwrap();
        for _ in 0..300 {
            writer.write(&line("a", false, false, 1000)).unwrap();
        }
        writer.write(&line("a", false, true, 20)).unwrap();
        let text = std::fs::read_to_string(home.path().join("flows/a.jsonl")).unwrap();
        assert_eq!(text.matches("left_out").count(), 1);
        assert!(text.ends_with(&format!(" \n{}\n", "x".repeat(20))), "its end is there");
        assert!(text.len() as u64 <= MAX_FLOW_BYTES + 200);
    }

    #[test]
    fn the_oldest_make_room() {
        let home = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(home.path().join("flows"));
        let flows = MAX_FLOWS + 2 * PRUNE_EVERY as usize;
        for flow in 0..flows {
            writer.write(&line(&flow.to_string(), true, false, 10)).unwrap();
            let path = home.path().join(format!("flows/{flow}.jsonl"));
            let age = Duration::from_secs((flows - flow) as u64);
            let file = OpenOptions::new().append(true).open(path).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) - age)
                .unwrap();
        }
        let kept = files(&home.path().join("flows")).unwrap();
        assert!(kept.len() <= MAX_FLOWS + PRUNE_EVERY as usize, "{}", kept.len());
        assert!(kept.iter().any(|file| file.flow == (flows - 1).to_string()));
        assert!(kept.iter().all(|file| file.flow != "0"));
        writer.write(&line("0", false, false, 10)).unwrap();
        assert!(
            !home.path().join("flows/0.jsonl").exists(),
            "one that was forgotten does not come back by halves"
        );
    }

    #[test]
    fn a_directory_that_can_not_be_had_is_an_error_not_a_panic() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Writer::new(file.join("flows")).write(&line("a", true, false, 10)).is_err());
    }
}
