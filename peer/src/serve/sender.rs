//! Sending what an outbox holds: a loader, which reads files, and a writer, which knows the socket.
//!
//! The next piece is read from the disk while the last one is encrypted and sent. A chunk is loaded once it has
//! one of the few slots of the process, and keeps it until its last byte has left, or until the asker turns out to
//! be so slow that its own line is the limit, and not this node's.

use super::{
    Server,
    audience::AskerId,
    grant::Grant,
    line::Leaving,
    outbox::{Item, News, Next, Outbox},
};
use crate::{buffers::Buffer, store::Slot, tls::Writer};
use anchorage_manifest::{ContentId, codec, wire::Answer};
use anyhow::{Context as _, Result};
use std::{mem, pin::pin, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt as _, sync::mpsc, task::spawn_blocking, time::timeout};

/// Bytes that are read from a file at a time.
const PIECE_SIZE: u32 = 256 << 10;

/// Pieces between loader and writer.
const PIECES_MAX: usize = 1;

/// How long a piece may take before its chunk gives its slot back.
const SLOT_PATIENCE: Duration = Duration::from_millis(250);

/// How long the other side may refuse to take a piece.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// Bytes to write, of a message or of a file.
struct Piece {
    head: Vec<u8>,
    body: Buffer,
    /// Whether this is the end of what belongs together.
    is_last: bool,
    /// The slot of its chunk, shared with the chunk's other pieces.
    slot: Option<Arc<Grant>>,
}

/// News as they are sent.
fn frames(news: News) -> Vec<u8> {
    match news {
        News::Have(content, chunks) => codec::frame(&Answer::Have { content, chunks }),
        News::Entries(content, first, hashes, signature) => {
            let count = u32::try_from(hashes.len()).expect("at most as many as chunks");
            let mut frames = codec::frame(&Answer::Entries {
                content,
                first,
                count,
                signature,
            });
            frames.extend(hashes.iter().flat_map(|hash| hash.0));
            frames
        }
    }
}

/// Sends until the outbox is closed and empty, or the other side is gone.
pub(super) async fn send(
    server: Arc<Server>,
    asker: AskerId,
    outbox: Arc<Outbox>,
    mut stream: Writer,
) -> Result<()> {
    let (full, mut pieces) = mpsc::channel::<Piece>(PIECES_MAX);
    let loader = Loader {
        server: server.clone(),
        asker,
        full,
        ahead: Vec::new(),
    };
    let mut loading = pin!(loader.run(&outbox));
    let writing = async {
        let mut leaving = Leaving::new();
        loop {
            let received = tokio::select! {
                received = pieces.recv() => received,
                () = leaving.due() => {
                    leaving.look(&stream);
                    continue;
                }
            };
            let Some(mut piece) = received else {
                break;
            };
            let is_idle = pieces.is_empty();
            write(&mut stream, &mut piece, is_idle).await?;
            if piece.is_last
                && let Some(slot) = piece.slot
            {
                leaving.push(slot, &stream);
            }
            server.traffic.count_out(piece.body.len());
            server.buffers.give_back(piece.body);
        }
        timeout(WRITE_DEADLINE, stream.shutdown())
            .await
            .context("the other side reads nothing")??;
        Ok(())
    };
    let mut writing = pin!(writing);
    tokio::select! {
        written = &mut writing => written,
        () = &mut loading => writing.await,
    }
}

async fn write(stream: &mut Writer, piece: &mut Piece, is_idle: bool) -> Result<()> {
    let Piece {
        head,
        body,
        is_last,
        slot,
    } = piece;
    let mut writing = pin!(async {
        stream.write_all(head).await?;
        stream.write_all(body).await?;
        if *is_last && is_idle {
            stream.flush().await
        } else {
            Ok(())
        }
    });
    if let Ok(written) = timeout(SLOT_PATIENCE, &mut writing).await {
        return Ok(written?);
    }
    *slot = None;
    timeout(WRITE_DEADLINE, writing)
        .await
        .context("the other side reads nothing")??;
    Ok(())
}

/// Turns items into pieces.
struct Loader {
    server: Arc<Server>,
    asker: AskerId,
    full: mpsc::Sender<Piece>,
    /// Messages that go with whatever comes next: a packet of their own would cost as much as that does.
    ahead: Vec<u8>,
}

impl Loader {
    /// Runs until the outbox is closed and empty, nobody takes the pieces, or a chunk cannot be gone on with.
    async fn run(mut self, outbox: &Outbox) {
        while let Some(next) = outbox.next().await {
            let goes_on = match next {
                Next::Send(item) => self.load(item, outbox, None).await,
                Next::Wait(content, asked) => self.take_turn(outbox, content, asked).await,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Waits for a slot and tells the news meanwhile: whoever stands in a long line is to know what else there is.
    async fn take_turn(&mut self, outbox: &Outbox, content: ContentId, asked: Option<u32>) -> bool {
        let server = self.server.clone();
        let mut waiting = pin!(server.slot(self.asker, content, asked));
        let grant = loop {
            tokio::select! {
                grant = &mut waiting => break grant,
                news = outbox.news() => if !self.news(news).await {
                    return false;
                },
            }
        };
        while let Some(item) = outbox.in_turn() {
            match item {
                Item::News(news) => self.ahead.extend(frames(news)),
                item => return self.load(item, outbox, Some(grant)).await,
            }
        }
        // The chunk was cancelled meanwhile.
        drop(grant);
        self.ahead.is_empty() || self.send(Vec::new(), Buffer::default()).await
    }

    /// Loads an item; a chunk has been granted a slot.
    async fn load(&mut self, item: Item, outbox: &Outbox, grant: Option<Grant>) -> bool {
        match item {
            Item::Answer(answer) => self.answer(&answer).await,
            Item::News(news) => self.news(news).await,
            Item::List(content, list) => {
                let body = list.encode();
                let size = u32::try_from(body.len()).expect("a list is far below 4 GiB");
                let frame = codec::frame(&Answer::List { content, size });
                self.send(frame, body.into()).await
            }
            Item::Bitmap(slot) => self.answer(&outbox.bitmap(&slot)).await,
            Item::Chunk(slot, index) => {
                self.server.has(self.asker, slot.id(), index);
                self.chunk(&slot, index, grant).await
            }
            Item::Any(slot) => match self.server.choose(self.asker, &slot) {
                Some(index) => self.chunk(&slot, index, grant).await,
                None => self.answer(&Answer::Exhausted { content: slot.id() }).await,
            },
        }
    }

    async fn news(&mut self, news: News) -> bool {
        self.send(frames(news), Buffer::default()).await
    }

    async fn answer(&mut self, answer: &Answer) -> bool {
        self.send(codec::frame(answer), Buffer::default()).await
    }

    /// A message and the raw bytes that belong to it, if any, behind those that were to go with whatever comes next.
    async fn send(&mut self, frame: Vec<u8>, body: Buffer) -> bool {
        let piece = Piece {
            head: self.behind_others(frame),
            body,
            is_last: true,
            slot: None,
        };
        self.full.send(piece).await.is_ok()
    }

    /// A message, and before it those that were to go with whatever comes next.
    fn behind_others(&mut self, frame: Vec<u8>) -> Vec<u8> {
        if self.ahead.is_empty() {
            return frame;
        }
        let mut head = mem::take(&mut self.ahead);
        head.extend(frame);
        head
    }

    /// Loads a chunk piece by piece; false if nobody takes the pieces, or one cannot be read after others went.
    async fn chunk(&mut self, slot: &Arc<Slot>, index: u32, grant: Option<Grant>) -> bool {
        let grant = grant.map(Arc::new);
        let content = slot.id();
        let missing = Answer::Missing {
            content,
            index: Some(index),
        };
        let Some(extent) = slot.geometry().extent(index) else {
            return self.answer(&missing).await;
        };
        let mut frame = codec::frame(&Answer::Chunk {
            content,
            index,
            size: extent.size,
        });
        let mut within = 0;
        while within < extent.size {
            let size = (extent.size - within).min(PIECE_SIZE);
            let Ok(body) = self.read(slot, index, within, size).await else {
                return within == 0 && self.answer(&missing).await;
            };
            within += size;
            let is_last = within == extent.size;
            let piece = Piece {
                head: self.behind_others(mem::take(&mut frame)),
                body,
                is_last,
                slot: grant.clone(),
            };
            if self.full.send(piece).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Reads a piece of a chunk; on this thread, if it is in memory.
    async fn read(&self, slot: &Arc<Slot>, index: u32, within: u32, size: u32) -> Result<Buffer> {
        let mut body = self.server.buffers.take(size);
        if slot.read_now(index, within, &mut body)? {
            return Ok(body);
        }
        let slot = slot.clone();
        spawn_blocking(move || slot.read(index, within, &mut body).map(|()| body))
            .await
            .context("BUG: reading panicked")?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        serve::{Share, outbox},
        store::{Place, Store},
    };
    use anchorage_manifest::{Content, Geometry, Hash};

    /// The messages in front of a piece's bytes.
    fn messages(mut head: &[u8]) -> Result<Vec<Answer>> {
        let mut messages = Vec::new();
        while let Some((&prefix, rest)) = head.split_first_chunk() {
            let (body, rest) = rest.split_at(codec::body_size(prefix, 1 << 10)?);
            messages.push(codec::decode(body)?);
            head = rest;
        }
        Ok(messages)
    }

    /// What is sent first to somebody who asked for chunk 0, when 1 and 2 have come since; `spoil` changes the file before.
    async fn first_piece(spoil: impl FnOnce(&Slot) -> Result<()>) -> Result<(ContentId, Piece)> {
        let directory = tempfile::tempdir()?;
        let store = Store::open(directory.path())?;
        let bytes = [7; 3 * 1_024];
        let chunks = bytes.chunks(1_024).map(Hash::of).collect();
        let geometry = Geometry::new(bytes.len() as u64, 1_024)?;
        let content = Content::new(geometry, Hash::of(&bytes), chunks)?;
        let slot = store.create(&content, &Place::inside())?;
        slot.store(0, &bytes[..1_024])?;
        let outbox = Arc::new(Outbox::default());
        outbox::interest(&outbox, &slot);
        slot.store(1, &bytes[..1_024])?;
        slot.store(2, &bytes[..1_024])?;
        spoil(&slot)?;
        assert!(outbox.push(Item::Chunk(slot.clone(), 0)));
        let server = Server::new(store, None, Share::whole());
        let (full, mut pieces) = mpsc::channel(PIECES_MAX);
        let loader = Loader {
            asker: server.asker(),
            server,
            full,
            ahead: Vec::new(),
        };
        let mut loading = pin!(loader.run(&outbox));
        let piece = tokio::select! {
            () = &mut loading => None,
            piece = pieces.recv() => piece,
        };
        Ok((slot.id(), piece.context("a piece")?))
    }

    fn news(content: ContentId) -> Answer {
        Answer::Have {
            content,
            chunks: vec![1, 2],
        }
    }

    #[tokio::test]
    async fn news_go_with_the_chunk_that_is_next() -> Result<()> {
        let (content, piece) = first_piece(|_| Ok(())).await?;
        let chunk = Answer::Chunk {
            content,
            index: 0,
            size: 1_024,
        };
        assert_eq!(messages(&piece.head)?, [news(content), chunk]);
        assert_eq!(*piece.body, [7; 1_024]);
        Ok(())
    }

    #[tokio::test]
    async fn news_are_told_even_if_the_chunk_cannot_be_read() -> Result<()> {
        let (content, piece) = first_piece(|slot| Ok(slot.file().set_len(0)?)).await?;
        let missing = Answer::Missing {
            content,
            index: Some(0),
        };
        assert_eq!(messages(&piece.head)?, [news(content), missing]);
        assert!(piece.body.is_empty());
        Ok(())
    }
}
