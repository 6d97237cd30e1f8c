//! Frames over a byte stream: one message at a time, bounded, and with the raw bytes between them left alone.

use anchorage_manifest::codec::{self, CodecError, PREFIX_SIZE};
use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::io::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

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
        // Many nodes just go; without TLS's good-bye that is an error of this kind.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
        Err(error) => return Err(error).context("the connection broke"),
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

/// Reads one message that must come.
pub async fn expect<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    size_max: usize,
) -> Result<T> {
    read(stream, size_max)
        .await?
        .context("the other side hung up")
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

    #[tokio::test]
    async fn an_end_is_clean_only_between_frames() -> Result<()> {
        let frame = codec::frame(&Request::Heartbeat);
        let mut twice: &[u8] = &[&frame[..], &frame[..]].concat();
        assert_eq!(
            read(&mut twice, FRAME_SIZE_MAX).await?,
            Some(Request::Heartbeat)
        );
        assert_eq!(
            read(&mut twice, FRAME_SIZE_MAX).await?,
            Some(Request::Heartbeat)
        );
        assert_eq!(read::<Request>(&mut twice, FRAME_SIZE_MAX).await?, None);
        let mut cut = &frame[..frame.len() - 1];
        let error = read::<Request>(&mut cut, FRAME_SIZE_MAX)
            .await
            .err()
            .context("cut")?;
        assert!(nonsense(&error).is_none(), "{error:#}");
        Ok(())
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_is_nonsense() -> Result<()> {
        let mut claim: &[u8] = &[0xff; 8];
        let error = read::<Request>(&mut claim, FRAME_SIZE_MAX)
            .await
            .err()
            .context("4 GiB")?;
        assert!(
            nonsense(&error).is_some_and(|text| text.contains("4294967295")),
            "{error:#}"
        );
        Ok(())
    }
}
