//! One codec frame on a QUIC stream: what [`codec`] describes, as far as it takes waiting.
//!
//! A frame's length is checked before anything is allocated for it. Neither half can be resumed if it is dropped
//! half-way (by a timeout, say): what was read or written so far is lost, so the stream must be reset then, which
//! [`Unfinished`] sees to for the sending half; the receiving half stops itself when dropped.

use hopline_proto::codec::{self, CodecError, Growing, PREFIX_BYTES};
use quinn::{ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::{Deref, DerefMut};

/// Why a frame was not read or not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The peer ended the stream where a frame would have begun.
    #[error("the peer ended the stream")]
    Finished,
    /// The peer ended the stream inside a frame.
    #[error("the peer ended the stream inside a frame")]
    Truncated,
    /// The peer reset the stream it sends, or stopped the one it receives.
    #[error("the peer closed the stream with code {0}")]
    Reset(VarInt),
    /// The peer sent something that is no frame of the expected type.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The connection is gone.
    #[error("connection lost: {0}")]
    ConnectionLost(#[source] ConnectionError),
    /// This side has closed the stream already: a fault of ours.
    #[error("this side has closed the stream")]
    Misused,
}

impl FrameError {
    /// Whether the peer broke the protocol, rather than the network or a timeout.
    #[must_use]
    pub const fn is_violation(&self) -> bool {
        matches!(self, Self::Truncated | Self::Codec(_))
    }
}

impl From<ReadError> for FrameError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(code),
            ReadError::ConnectionLost(error) => Self::ConnectionLost(error),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                Self::Misused
            }
        }
    }
}

impl From<WriteError> for FrameError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Reset(code),
            WriteError::ConnectionLost(error) => Self::ConnectionLost(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Misused,
        }
    }
}

/// Reads one frame of at most `limit` bytes after its prefix. What follows it on the stream stays there.
///
/// # Errors
/// [`FrameError`]; the stream is of no use afterwards.
pub async fn read_frame<T: DeserializeOwned>(stream: &mut RecvStream, limit: usize) -> Result<T, FrameError> {
    Ok(codec::from_bytes(&read_bytes(stream, limit).await?)?)
}

/// As [`read_frame`], a frame of which this node may not know all.
///
/// # Errors
/// As [`read_frame`].
pub async fn read_growing_frame<T: Growing>(stream: &mut RecvStream, limit: usize) -> Result<T, FrameError> {
    Ok(codec::from_growing_bytes(&read_bytes(stream, limit).await?)?)
}

async fn read_bytes(stream: &mut RecvStream, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).await.map_err(|error| match error {
        ReadExactError::FinishedEarly(0) => FrameError::Finished,
        ReadExactError::FinishedEarly(_) | ReadExactError::ReadError(_) => ended_early(error),
    })?;
    let mut bytes = vec![0; codec::frame_length(prefix, limit)?];
    stream.read_exact(&mut bytes).await.map_err(ended_early)?;
    Ok(bytes)
}

fn ended_early(error: ReadExactError) -> FrameError {
    match error {
        ReadExactError::FinishedEarly(_) => FrameError::Truncated,
        ReadExactError::ReadError(error) => error.into(),
    }
}

/// Writes `value` as one frame. The stream stays open.
///
/// # Errors
/// [`FrameError`]; the stream is of no use afterwards.
///
/// # Panics
/// If the value is larger than [`codec::MAX_FRAME_BYTES`].
pub async fn write_frame<T: Serialize>(stream: &mut SendStream, value: &T) -> Result<(), FrameError> {
    let mut bytes = Vec::new();
    codec::write_frame(value, &mut bytes);
    Ok(stream.write_all(&bytes).await?)
}

/// A sending half that is reset with a code when it is dropped, unless it was finished.
///
/// quinn's own finishes on drop: to the peer, whatever made us give up would look like a complete message.
#[derive(Debug)]
pub struct Unfinished {
    stream: SendStream,
    /// `None` once finished: a reset would then take back what is not acknowledged yet.
    code: Option<VarInt>,
}

impl Unfinished {
    /// Guards `stream`; `code` is what its reset says.
    #[must_use]
    pub fn new(stream: SendStream, code: u32) -> Self {
        Self { stream, code: Some(code.into()) }
    }

    /// Ends the stream for good: everything was written.
    pub fn finish(mut self) {
        // Fails only if the peer has stopped the stream: then nobody waits for its end.
        let _ = self.stream.finish();
        self.code = None;
    }

    /// Resets the stream now, with another code.
    pub fn reset(mut self, code: u32) {
        self.code = Some(code.into());
    }
}

impl Deref for Unfinished {
    type Target = SendStream;
    fn deref(&self) -> &SendStream {
        &self.stream
    }
}

impl DerefMut for Unfinished {
    fn deref_mut(&mut self) -> &mut SendStream {
        &mut self.stream
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(code) = self.code {
            // Fails only if the stream is closed already.
            let _ = self.stream.reset(code);
        }
    }
}

#[cfg(test)]
mod tests;
