use super::*;
use crate::net::testing::pair;
use crate::net::transport::TransportSettings;
use hopline_proto::codec::MAX_FRAME_BYTES;

/// The receiving half at one end of what `send` does to the sending half at the other.
async fn received(send: impl AsyncFnOnce(SendStream)) -> Result<String, FrameError> {
    let ([near, far], _endpoints) = pair(&TransportSettings::default()).await;
    let (stream, _) = near.open_bi().await.unwrap();
    send(stream).await;
    let (_, mut stream) = far.accept_bi().await.unwrap();
    read_frame(&mut stream, 100).await
}

#[tokio::test]
async fn frames_follow_each_other_on_a_stream() {
    let ([near, far], _endpoints) = pair(&TransportSettings::default()).await;
    let (stream, _) = near.open_bi().await.unwrap();
    let mut stream = Unfinished::new(stream, 9);
    let large = "x".repeat(MAX_FRAME_BYTES - 64);
    write_frame(&mut stream, &"one").await.unwrap();
    write_frame(&mut stream, &large).await.unwrap();
    stream.finish();
    let (_, mut stream) = far.accept_bi().await.unwrap();
    assert_eq!(read_frame::<String>(&mut stream, 100).await.unwrap(), "one");
    assert_eq!(read_frame::<String>(&mut stream, MAX_FRAME_BYTES).await.unwrap(), large);
    assert_eq!(read_frame::<String>(&mut stream, 100).await, Err(FrameError::Finished));
}

#[tokio::test]
async fn a_stream_that_ends_too_early_says_how() {
    let bytes_then_end = async |bytes: &[u8]| {
        received(async |mut stream| stream.write_all(bytes).await.unwrap()).await.unwrap_err()
    };
    assert_eq!(bytes_then_end(&[]).await, FrameError::Finished);
    assert_eq!(bytes_then_end(&[0, 0]).await, FrameError::Truncated);
    assert_eq!(bytes_then_end(&[0, 0, 0, 4, 3, b'o']).await, FrameError::Truncated);
    assert!(FrameError::Truncated.is_violation() && !FrameError::Finished.is_violation());
}

#[tokio::test]
async fn what_is_no_frame_is_a_violation() {
    let sent = async |bytes: &[u8]| {
        received(async |mut stream| stream.write_all(bytes).await.unwrap()).await.unwrap_err()
    };
    let too_long = CodecError::TooLong { length: 101, limit: 100 };
    assert_eq!(sent(&[0, 0, 0, 101]).await, FrameError::Codec(too_long), "before the rest has come");
    assert_eq!(sent(&[0, 0, 0, 1, 3]).await, FrameError::Codec(CodecError::Malformed));
    assert!(sent(&[0, 0, 0, 2, 0, 0]).await.is_violation());
}

#[tokio::test]
async fn giving_up_is_not_finishing() {
    let dropped = received(async |stream| {
        let mut stream = Unfinished::new(stream, 9);
        stream.write_all(&[0, 0]).await.unwrap();
    });
    assert_eq!(dropped.await, Err(FrameError::Reset(9u32.into())));
    let reset = received(async |stream| {
        let mut stream = Unfinished::new(stream, 9);
        stream.write_all(&[0, 0]).await.unwrap();
        stream.reset(7);
    });
    assert_eq!(reset.await, Err(FrameError::Reset(7u32.into())));
}

#[tokio::test]
async fn the_writer_learns_why_nobody_reads() {
    let ([near, far], _endpoints) = pair(&TransportSettings::default()).await;
    let (mut stream, _) = near.open_bi().await.unwrap();
    write_frame(&mut stream, &"one").await.unwrap();
    let (_, mut other) = far.accept_bi().await.unwrap();
    other.stop(5u32.into()).unwrap();
    stream.stopped().await.unwrap();
    assert_eq!(write_frame(&mut stream, &"two").await, Err(FrameError::Reset(5u32.into())));

    let (mut stream, _) = near.open_bi().await.unwrap();
    far.close(3u32.into(), b"bye");
    let error = near.closed().await;
    assert_eq!(write_frame(&mut stream, &"one").await, Err(FrameError::ConnectionLost(error)));
}
