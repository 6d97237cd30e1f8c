//! Frames over a byte stream: one message at a time, bounded, and with the raw bytes between them left alone.

use anchorage_manifest::codec::{self, CodecError, PREFIX_SIZE};
use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, ErrorKind};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite,
    AsyncWriteExt as _,
};

/// Why a message that must come does not.
const HUNG_UP: &str = "the other side hung up";

/// Reads one message of at most `size_max` bytes; `None` where the stream ends between two messages.
///
/// An error whose root is a [`CodecError`] means that the other side sent nonsense; any other that it is gone.
pub async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    size_max: usize,
) -> Result<Option<T>> {
    let mut prefix = [0; PREFIX_SIZE];
    let first = match stream.read(&mut prefix[..1]).await {
        Ok(count) => count,
        Err(error) => return broken(error),
    };
    if first == 0 {
        return Ok(None);
    }
    stream
        .read_exact(&mut prefix[1..])
        .await
        .context("the connection ended within a frame")?;
    let mut body = vec![0; codec::body_size(prefix, size_max)?];
    stream
        .read_exact(&mut body)
        .await
        .context("the connection ended within a frame")?;
    Ok(Some(codec::decode(&body)?))
}

/// [`read`] of a stream that has a buffer: what lies there whole is decoded there.
pub async fn read_buffered<T: DeserializeOwned>(
    stream: &mut (impl AsyncBufRead + Unpin),
    size_max: usize,
) -> Result<Option<T>> {
    let bytes = match stream.fill_buf().await {
        Ok(bytes) => bytes,
        Err(error) => return broken(error),
    };
    if let Some(body) = codec::first_body(bytes, size_max)? {
        let (message, size) = (codec::decode(body)?, PREFIX_SIZE + body.len());
        stream.consume(size);
        return Ok(Some(message));
    }
    read(stream, size_max).await
}

/// The end of a stream between two messages.
fn broken<T>(error: io::Error) -> Result<Option<T>> {
    match error.kind() {
        // Many nodes just go; without TLS's good-bye that is an error of this kind.
        ErrorKind::UnexpectedEof => Ok(None),
        _ => Err(error).context("the connection broke"),
    }
}

/// Reads one message that must come.
pub async fn expect<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    size_max: usize,
) -> Result<T> {
    read(stream, size_max).await?.context(HUNG_UP)
}

/// [`expect`] of a stream that has a buffer.
pub async fn expect_buffered<T: DeserializeOwned>(
    stream: &mut (impl AsyncBufRead + Unpin),
    size_max: usize,
) -> Result<T> {
    read_buffered(stream, size_max).await?.context(HUNG_UP)
}

/// Writes one message and flushes it.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> Result<()> {
    stream
        .write_all(&codec::frame(message))
        .await
        .context("the connection broke")?;
    stream.flush().await.context("the connection broke")
}

/// Whether an error means that the other side sent nonsense; what to tell it then.
pub fn nonsense(error: &anyhow::Error) -> Option<String> {
    error
        .downcast_ref::<CodecError>()
        .map(CodecError::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anchorage_manifest::{limits::FRAME_SIZE_MAX, wire::Request};
    use tokio::io::BufReader;

    #[tokio::test]
    async fn an_end_is_clean_only_between_frames() -> Result<()> {
        let frame = codec::frame(&Request::Heartbeat);
        let twice: &[u8] = &[&frame[..], &frame[..]].concat();
        let (mut plain, mut buffered) = (twice, twice);
        for expected in [Some(Request::Heartbeat), Some(Request::Heartbeat), None] {
            assert_eq!(read(&mut plain, FRAME_SIZE_MAX).await?, expected);
            assert_eq!(
                read_buffered(&mut buffered, FRAME_SIZE_MAX).await?,
                expected
            );
        }
        let cut = &frame[..frame.len() - 1];
        let error = read::<Request>(&mut &*cut, FRAME_SIZE_MAX).await.err();
        let error = error.context("cut")?;
        assert!(nonsense(&error).is_none(), "{error:#}");
        let error = read_buffered::<Request>(&mut &*cut, FRAME_SIZE_MAX)
            .await
            .err();
        let error = error.context("cut")?;
        assert!(nonsense(&error).is_none(), "{error:#}");
        Ok(())
    }

    #[tokio::test]
    async fn a_frame_may_come_in_pieces() -> Result<()> {
        let frames = [
            codec::frame(&Request::Heartbeat),
            codec::frame(&Request::Heartbeat),
        ]
        .concat();
        for size in 1..frames.len() {
            let mut stream = BufReader::with_capacity(size, &frames[..]);
            for expected in [Some(Request::Heartbeat), Some(Request::Heartbeat), None] {
                assert_eq!(read_buffered(&mut stream, FRAME_SIZE_MAX).await?, expected);
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_is_nonsense() -> Result<()> {
        let claim: &[u8] = &[0xff; 8];
        let errors = [
            read::<Request>(&mut &*claim, FRAME_SIZE_MAX).await.err(),
            read_buffered::<Request>(&mut &*claim, FRAME_SIZE_MAX)
                .await
                .err(),
        ];
        for error in errors {
            let error = error.context("4 GiB")?;
            assert!(
                nonsense(&error).is_some_and(|text| text.contains("4294967295")),
                "{error:#}"
            );
        }
        Ok(())
    }
}
