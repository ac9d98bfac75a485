//! Standard input and output in large pieces.
//!
//! Each has a thread that only calls read(2) or write(2), and a bounded number of pieces that circulate between it and the task. With
//! small pieces, handing them over would take most of the time. Nothing waits for the thread that reads: it may be blocked for ever when
//! the process ends.

use rustix::event::{PollFd, PollFlags, poll};
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio::sync::{mpsc, oneshot};

const PIECE_BYTES: usize = 256 << 10;
/// Pieces that go round: one with the thread, one with the task, and two that wait.
const PIECES: usize = 4;

/// Bytes on their way, and the room for more.
struct Piece {
    bytes: Box<[u8]>,
    len: usize,
}

impl Piece {
    fn new() -> Self {
        Self { bytes: vec![0; PIECE_BYTES].into_boxed_slice(), len: 0 }
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.len..).unwrap_or_default()
    }

    /// Takes what `reader` has at hand, at least something; nothing at its end.
    fn poll_fill<R: AsyncRead>(
        &mut self,
        mut reader: Pin<&mut R>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.len < PIECE_BYTES {
            let mut buf = ReadBuf::new(self.room());
            let polled = reader.as_mut().poll_read(cx, &mut buf);
            let count = buf.filled().len();
            match polled {
                Poll::Ready(Ok(())) if count > 0 => self.len += count,
                // An end or an error comes again, after what came before.
                Poll::Ready(_) | Poll::Pending if self.len > 0 => break,
                other @ (Poll::Ready(_) | Poll::Pending) => return other,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Standard input. It is not touched before somebody wants something of it: a shell stops a command in the background that
/// reads from the terminal.
pub struct Stdin {
    pieces: Option<mpsc::Receiver<io::Result<Piece>>>,
    spent: Option<mpsc::Sender<Piece>>,
    piece: Option<Piece>,
    at: usize,
}

impl Default for Stdin {
    fn default() -> Self {
        Self::new()
    }
}

impl Stdin {
    /// Reads nothing before it is asked to.
    pub const fn new() -> Self {
        Self { pieces: None, spent: None, piece: None, at: 0 }
    }

    /// One that has nothing to read.
    pub fn closed() -> Self {
        let (_, pieces) = mpsc::channel(1);
        Self { pieces: Some(pieces), ..Self::new() }
    }

    /// Whether there is nothing to read at the moment.
    pub fn is_dry(&self) -> bool {
        self.rest().is_empty() && self.pieces.as_ref().is_none_or(mpsc::Receiver::is_empty)
    }

    fn rest(&self) -> &[u8] {
        self.piece.as_ref().and_then(|piece| piece.filled().get(self.at..)).unwrap_or_default()
    }

    fn start(&mut self) -> io::Result<&mut mpsc::Receiver<io::Result<Piece>>> {
        if self.pieces.is_none() {
            let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
            let (filled, pieces) = mpsc::channel(PIECES);
            let (spent, mut free) = mpsc::channel(PIECES);
            let thread = std::thread::Builder::new().name("hopline-stdin".to_owned());
            thread.spawn(move || read_all(input, &filled, &mut free))?;
            (self.pieces, self.spent) = (Some(pieces), Some(spent));
        }
        self.pieces.as_mut().ok_or_else(|| ErrorKind::BrokenPipe.into())
    }
}

impl AsyncBufRead for Stdin {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let stdin = self.get_mut();
        if stdin.rest().is_empty() {
            if let (Some(piece), Some(spent)) = (stdin.piece.take(), &stdin.spent) {
                let _ = spent.try_send(piece);
            }
            stdin.at = 0;
            stdin.piece = ready!(stdin.start()?.poll_recv(cx)).transpose()?;
        }
        Poll::Ready(Ok(stdin.rest()))
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        self.get_mut().at += count;
    }
}

impl AsyncRead for Stdin {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = ready!(self.as_mut().poll_fill_buf(cx))?;
        let count = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..count).unwrap_or_default());
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

/// The thread that reads, until the end or until nobody wants any more.
fn read_all(mut input: File, filled: &mpsc::Sender<io::Result<Piece>>, free: &mut mpsc::Receiver<Piece>) {
    loop {
        let mut piece = free.try_recv().unwrap_or_else(|_| Piece::new());
        piece.len = 0;
        let read = match patiently(&mut input, PollFlags::IN, |input| input.read(piece.room())) {
            Ok(0) => return,
            Ok(count) => Ok(Piece { len: count, ..piece }),
            Err(error) => Err(at("read standard input", &error)),
        };
        let is_last = read.is_err();
        if filled.blocking_send(read).is_err() || is_last {
            return;
        }
    }
}

/// Standard output.
pub struct Stdout {
    orders: mpsc::Sender<Order>,
    free: mpsc::Receiver<Piece>,
    /// The one that is filled next.
    piece: Option<Piece>,
    /// How many there are.
    made: usize,
    failure: Arc<Mutex<Option<io::Error>>>,
}

enum Order {
    Write(Piece),
    Flush(oneshot::Sender<io::Result<()>>),
}

impl Stdout {
    /// Opens it.
    ///
    /// # Errors
    /// If this process has none, or no thread is to be had.
    pub fn new() -> io::Result<Self> {
        Self::of(File::from(io::stdout().as_fd().try_clone_to_owned()?))
    }

    fn of(output: File) -> io::Result<Self> {
        let (orders, mut ordered) = mpsc::channel(PIECES);
        let (spent, free) = mpsc::channel(PIECES);
        let failure = Arc::<Mutex<Option<io::Error>>>::default();
        let told = failure.clone();
        std::thread::Builder::new().name("hopline-stdout".to_owned()).spawn(move || {
            if let Err(error) = write_all(output, &mut ordered, &spent) {
                *told.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(at("write to standard output", &error));
            }
        })?;
        Ok(Self { orders, free, piece: None, made: 0, failure })
    }

    /// Takes what comes from `reader`, for [`Stdout::push`] to write; nothing has come at its end. May be dropped at any point.
    pub async fn fill(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        let piece = self.piece().await?;
        poll_fn(|cx| piece.poll_fill(Pin::new(&mut *reader), cx)).await?;
        Ok(piece.len > 0)
    }

    /// Has what was filled in written.
    pub async fn push(&mut self) -> io::Result<()> {
        let Ok(place) = self.orders.reserve().await else { return Err(broken(&self.failure)) };
        if let Some(piece) = self.piece.take() {
            place.send(Order::Write(piece));
        }
        Ok(())
    }

    /// Writes these bytes. [`Stdout::flush`] tells whether that went well.
    pub async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.fill(&mut bytes).await?;
            self.push().await?;
        }
        Ok(())
    }

    /// Waits until all is written, as far as the operating system tells.
    pub async fn flush(&mut self) -> io::Result<()> {
        let (done, flushed) = oneshot::channel();
        let _ = self.orders.send(Order::Flush(done)).await;
        flushed.await.unwrap_or_else(|_| Err(broken(&self.failure)))
    }

    /// One that has room.
    async fn piece(&mut self) -> io::Result<&mut Piece> {
        if self.piece.is_none() {
            self.piece = self.free.try_recv().ok();
        }
        if self.piece.is_none() && self.made < PIECES {
            self.made += 1;
            self.piece = Some(Piece::new());
        }
        if self.piece.is_none() {
            self.piece = self.free.recv().await;
        }
        match &mut self.piece {
            Some(piece) => Ok(piece),
            None => Err(broken(&self.failure)),
        }
    }
}

/// Why the thread that writes has ended.
fn broken(failure: &Mutex<Option<io::Error>>) -> io::Error {
    let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    failure.unwrap_or_else(|| ErrorKind::BrokenPipe.into())
}

/// The thread that writes, until it can't or nobody has any more.
fn write_all(
    mut output: File,
    ordered: &mut mpsc::Receiver<Order>,
    spent: &mpsc::Sender<Piece>,
) -> io::Result<()> {
    while let Some(order) = ordered.blocking_recv() {
        match order {
            Order::Write(mut piece) => {
                let mut rest = piece.filled();
                while !rest.is_empty() {
                    let count = patiently(&mut output, PollFlags::OUT, |output| output.write(rest))?;
                    rest = rest.get(count..).unwrap_or_default();
                }
                piece.len = 0;
                let _ = spent.try_send(piece);
            }
            Order::Flush(done) => {
                // Network file systems tell of a full disk when a descriptor is closed; a copy of it will do.
                let flushed = output.try_clone().and_then(|copy| Ok(nix::unistd::close(copy)?));
                let _ = done.send(flushed.map_err(|error| at("write to standard output", &error)));
            }
        }
    }
    Ok(())
}

/// Whoever shares a descriptor may have made it non-blocking.
fn patiently(
    file: &mut File,
    ready: PollFlags,
    mut step: impl FnMut(&mut File) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match step(file) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(file, ready)], None)?;
            }
            done => return done,
        }
    }
}

/// The same error, and what failed.
pub fn at(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("can't {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;
    use tokio::io::AsyncWriteExt;

    fn bytes(length: usize) -> Vec<u8> {
        (0..=250).cycle().take(length).collect()
    }

    #[tokio::test]
    async fn what_comes_is_written_whole_and_in_order() {
        let mut file = tempfile::tempfile().unwrap();
        let mut out = Stdout::of(file.try_clone().unwrap()).unwrap();
        let sent = bytes(3 * PIECES * PIECE_BYTES + 1);
        let (mut writer, mut reader) = tokio::io::duplex(100_000);
        let send = async {
            writer.write_all(&sent).await.unwrap();
            drop(writer);
        };
        let receive = async {
            while out.fill(&mut reader).await.unwrap() {
                out.push().await.unwrap();
            }
        };
        tokio::join!(receive, send);
        out.write(&sent).await.unwrap();
        out.flush().await.unwrap();
        assert!(out.made <= PIECES, "pieces go round");
        let mut written = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut written).unwrap();
        assert!(written == [&sent[..], &sent[..]].concat());
    }

    #[tokio::test]
    async fn a_full_disk_is_told_as_such() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut out = Stdout::of(full).unwrap();
        out.write(b"hello").await.unwrap();
        let error = out.flush().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(error.to_string().starts_with("can't write to standard output: No space"), "{error}");
    }

    #[test]
    fn a_descriptor_that_does_not_block_is_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let (filled, mut pieces) = mpsc::channel(PIECES);
        let (_spent, mut free) = mpsc::channel(PIECES);
        let input = File::from(std::os::fd::OwnedFd::from(reader));
        let thread = std::thread::spawn(move || read_all(input, &filled, &mut free));
        writer.write_all(b"one").unwrap();
        assert_eq!(pieces.blocking_recv().unwrap().unwrap().filled(), b"one");
        writer.write_all(b"two").unwrap();
        assert_eq!(pieces.blocking_recv().unwrap().unwrap().filled(), b"two");
        drop(writer);
        assert!(pieces.blocking_recv().is_none());
        thread.join().unwrap();
    }
}
