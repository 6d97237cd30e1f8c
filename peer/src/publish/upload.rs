//! Bringing a content's chunks to an anchor: what it lacks, pipelined, and again where a connection broke.

use crate::{
    buffers::Buffer,
    dial, framed,
    node::Node,
    session::Session,
    store::Slot,
    tls::{Stream, Writer},
};
use anchorage_manifest::{
    Bitmap, ContentId, codec,
    limits::FRAME_SIZE_MAX,
    wire::{Answer, Ask, Refusal},
};
use anyhow::{Context as _, Result, bail};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt as _,
    task::spawn_blocking,
    time::{sleep, timeout},
};

/// How often a broken upload is taken up again without a single chunk in between.
const ATTEMPTS_MAX: u32 = 10;

/// How long the anchor may be silent while chunks are under way.
const SILENCE: Duration = Duration::from_secs(30);

/// Uploads what the anchor lacks. `tell` is told of bytes that the anchor has and of bytes in all.
pub(super) async fn upload(
    node: &Node,
    session: &Session,
    slot: &Arc<Slot>,
    tell: &(impl Fn(u64, u64) + Sync),
) -> Result<()> {
    let mut attempts = 0;
    let mut stored = 0;
    loop {
        let before = stored;
        let error = match attempt(node, session, slot, tell, &mut stored).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if error.downcast_ref::<Refused>().is_some() {
            return Err(error);
        }
        attempts = if stored > before { 0 } else { attempts + 1 };
        if attempts >= ATTEMPTS_MAX {
            return Err(error);
        }
        sleep(Duration::from_millis(100) * attempts.max(1)).await;
    }
}

/// The anchor will not take it, however often it is asked.
#[derive(Debug)]
struct Refused(Refusal);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it refuses: {}", self.0)
    }
}

impl std::error::Error for Refused {}

async fn attempt(
    node: &Node,
    session: &Session,
    slot: &Arc<Slot>,
    tell: &(impl Fn(u64, u64) + Sync),
    stored: &mut u64,
) -> Result<()> {
    let anchor = session.connected().context("the anchor is not connected")?;
    let content = slot.id();
    let geometry = slot.geometry();
    let mut stream = dial::dial(&node.identity, anchor).await?;
    let have = match offer(&mut stream, content).await? {
        Some(have) => have,
        None => {
            put_list(&mut stream, slot).await?;
            // By its list the anchor knows the draft that it had, and the chunks with it.
            let have = offer(&mut stream, content).await?;
            have.unwrap_or_else(|| Bitmap::empty(geometry.chunks()))
        }
    };
    let missing: Vec<u32> = have.missing().collect();
    let size_of = |index| {
        geometry
            .extent(index)
            .map_or(0, |extent| u64::from(extent.size))
    };
    let mut owed: u64 = missing.iter().map(|&index| size_of(index)).sum();
    let size = geometry.size();
    tell(size - owed, size);
    let mut count = missing.len();
    let (mut reader, writer) = stream.split();
    let receive = async {
        while count > 0 {
            match answer(&mut reader).await? {
                Answer::Stored {
                    index: Some(index), ..
                } => {
                    count -= 1;
                    owed = owed.saturating_sub(size_of(index));
                    *stored = size - owed;
                    tell(size - owed, size);
                }
                Answer::Have { .. } => {}
                other => return Err(dial::unexpected(&other)),
            }
        }
        Ok(())
    };
    tokio::select! {
        received = receive => received,
        sent = send(slot.clone(), writer, missing) => match sent {
            Ok(never) => match never {},
            Err(error) => Err(error),
        }
    }
}

/// Offers a content or a draft; what the anchor has of it, if it knows the list or the draft.
pub(super) async fn offer(stream: &mut Stream, content: ContentId) -> Result<Option<Bitmap>> {
    framed::write(stream, &Ask::Offer { content }).await?;
    match answer(stream).await? {
        Answer::Offered { have, .. } => Ok(have),
        other => Err(dial::unexpected(&other)),
    }
}

/// Sends chunks, reading the next while one is sent. Never returns but with an error: the reader knows the end.
async fn send(
    slot: Arc<Slot>,
    mut writer: Writer,
    missing: Vec<u32>,
) -> Result<std::convert::Infallible> {
    let mut spare = Buffer::default();
    let mut chunks = missing.into_iter();
    let mut next = chunks
        .next()
        .map(|index| (index, read(&slot, index, Buffer::default())));
    while let Some((index, reading)) = next {
        let bytes = reading.await?;
        next = chunks
            .next()
            .map(|index| (index, read(&slot, index, std::mem::take(&mut spare))));
        let size = u32::try_from(bytes.len()).context("BUG: a chunk over 4 GiB")?;
        let head = Ask::Put {
            content: slot.id(),
            index,
            size,
        };
        put(&mut writer, &head, &bytes).await?;
        spare = bytes;
    }
    std::future::pending().await
}

/// Begins to read a chunk into a buffer.
pub(super) fn read(
    slot: &Arc<Slot>,
    index: u32,
    mut bytes: Buffer,
) -> impl Future<Output = Result<Buffer>> {
    let slot = slot.clone();
    let reading = spawn_blocking(move || {
        let extent = slot.geometry().extent(index);
        let size = extent.context("chunk past the end")?.size;
        bytes.resize(size as usize);
        slot.read(index, 0, &mut bytes).map(|()| bytes)
    });
    async { reading.await.context("BUG: reading panicked")? }
}

/// Sends a message and the raw bytes that belong to it.
pub(super) async fn put(writer: &mut Writer, head: &Ask, bytes: &[u8]) -> Result<()> {
    let sent = async {
        writer.write_all(&codec::frame(head)).await?;
        writer.write_all(bytes).await?;
        writer.flush().await
    };
    timeout(SILENCE, sent)
        .await
        .context("the anchor reads nothing")??;
    Ok(())
}

async fn put_list(stream: &mut Stream, slot: &Slot) -> Result<()> {
    let list = slot.content().context("BUG: a draft is uploaded")?.encode();
    let size = u32::try_from(list.len()).context("BUG: a list over 4 GiB")?;
    stream
        .write_all(&codec::frame(&Ask::PutList {
            content: slot.id(),
            size,
        }))
        .await?;
    stream.write_all(&list).await?;
    stream.flush().await?;
    match answer(stream).await? {
        Answer::Stored { index: None, .. } => Ok(()),
        other => Err(dial::unexpected(&other)),
    }
}

/// The next answer; refusals that would come again are told apart.
pub(super) async fn answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<Answer> {
    let answer = timeout(SILENCE, framed::expect(stream, FRAME_SIZE_MAX)).await;
    match answer.context("the anchor says nothing")?? {
        Answer::Refused {
            refusal: Refusal::Busy,
        } => bail!("it has too much to do"),
        Answer::Refused { refusal } => Err(Refused(refusal).into()),
        answer => Ok(answer),
    }
}
