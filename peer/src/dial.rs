//! Dialling a source: a connection of the chunk plane, seen from the node that asks.

use crate::{
    framed,
    identity::Identity,
    tls::{self, Stream},
};
use anchorage_manifest::{
    Bitmap, Content, ContentId, Source, codec,
    content::LIST_SIZE_MAX,
    limits::{FRAME_SIZE_MAX, PROTOCOL_VERSION},
    wire::{ALPN_CHUNKS, Answer, Ask},
};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use std::{pin::pin, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// How long connecting, handshake and greeting may take together.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);

/// How long they usually take at most: after that it is tried a second time, beside the first. Behind one address there
/// may be several processes, of which one has stopped.
const SECOND_AFTER: Duration = Duration::from_millis(400);

/// How long a list may take.
const LIST_DEADLINE: Duration = Duration::from_secs(30);

/// How long hashes of chunks may take, which may have to be made from a big file.
const HASHES_DEADLINE: Duration = Duration::from_secs(60);

/// What is asked together with a list, for it will be asked when the list is there: of a source that is busy with others
/// every answer takes its time.
#[derive(Clone, Debug, Default)]
pub struct Ahead {
    /// Whether the content is of interest, and what there is of it.
    pub interested: Option<Bitmap>,
    /// How many chunks the source is to choose.
    pub any: u32,
}

/// Connects to a source and greets it. It must prove that it is the node it is said to be.
pub async fn dial(identity: &Identity, source: Source) -> Result<Stream> {
    let once = || async {
        let stream = TcpStream::connect(source.address).await?;
        stream.set_nodelay(true)?;
        let config = tls::client_config(identity, ALPN_CHUNKS, Some(source.node))?;
        let mut stream = TlsConnector::from(config)
            .connect(tls::server_name(), stream)
            .await?;
        framed::write(
            &mut stream,
            &Ask::Hello {
                version: PROTOCOL_VERSION,
            },
        )
        .await?;
        match framed::expect(&mut stream, FRAME_SIZE_MAX).await? {
            Answer::Welcome {
                version: PROTOCOL_VERSION,
            } => {
                let (socket, connection) = stream.into_inner();
                Stream::take_over(socket, connection)
            }
            other => Err(unexpected(&other)),
        }
    };
    let dialling = async {
        let mut first = pin!(once());
        if let Ok(dialled) = timeout(SECOND_AFTER, &mut first).await {
            return dialled;
        }
        let mut second = pin!(once());
        // The first that succeeds, or the last that fails.
        tokio::select! {
            dialled = &mut first => match dialled {
                Ok(stream) => Ok(stream),
                Err(_) => second.await,
            },
            dialled = &mut second => match dialled {
                Ok(stream) => Ok(stream),
                Err(_) => first.await,
            },
        }
    };
    let operand = || format!("cannot talk to {}", source.address);
    timeout(DIAL_DEADLINE, dialling)
        .await
        .map_err(|_| anyhow!("no answer"))
        .flatten()
        .with_context(operand)
}

/// Fetches a content's list; what is asked `ahead` goes with it, and is answered behind it.
pub async fn get_list(stream: &mut Stream, content: ContentId, ahead: &Ahead) -> Result<Content> {
    let fetching = async {
        let mut asks = codec::frame(&Ask::GetList { content });
        if let Some(have) = ahead.interested.clone() {
            codec::append_frame(&mut asks, &Ask::Interested { content, have });
        }
        for _ in 0..ahead.any {
            codec::append_frame(&mut asks, &Ask::Any { content });
        }
        stream.write_all(&asks).await?;
        stream.flush().await?;
        let size = loop {
            match framed::expect(stream, FRAME_SIZE_MAX).await? {
                Answer::List {
                    content: same,
                    size,
                } if same == content => break size as usize,
                Answer::Have { .. } => {}
                Answer::Missing { .. } => bail!("it does not have the list"),
                other => return Err(unexpected(&other)),
            }
        };
        ensure!(size <= LIST_SIZE_MAX, "peer sent a list of {size} bytes");
        let mut bytes = vec![0; size];
        stream.read_exact(&mut bytes).await?;
        Content::decode_as(&bytes, content).context("peer sent what is not the list")
    };
    timeout(LIST_DEADLINE, fetching)
        .await
        .map_err(|_| anyhow!("the list does not arrive"))
        .flatten()
}

/// Fetches the SHA-256 of every chunk alone, 32 bytes each; zeros for what the other side does not know.
pub async fn get_hashes(stream: &mut Stream, content: ContentId, chunks: u32) -> Result<Vec<u8>> {
    let fetching = async {
        let ask = codec::frame(&Ask::GetHashes { content });
        stream.write_all(&ask).await?;
        stream.flush().await?;
        let size = match framed::expect(stream, FRAME_SIZE_MAX).await? {
            Answer::Hashes {
                content: same,
                size,
            } if same == content => size,
            Answer::Missing { .. } => bail!("it does not have the file"),
            other => return Err(unexpected(&other)),
        };
        ensure!(
            u64::from(size) == 32 * u64::from(chunks),
            "peer sent {size} bytes of hashes of {chunks} chunks"
        );
        let mut bytes = vec![0; size as usize];
        stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    };
    timeout(HASHES_DEADLINE, fetching)
        .await
        .map_err(|_| anyhow!("the hashes do not arrive"))
        .flatten()
}

/// An answer that fits no question that was asked.
pub fn unexpected(answer: &Answer) -> anyhow::Error {
    match answer {
        Answer::Refused { refusal } => anyhow!("it refuses: {refusal}"),
        other => anyhow!("it sent an answer that does not fit: {other:?}"),
    }
}
