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
use anchorage_manifest::{codec, wire::Answer};
use anyhow::{Context as _, Result};
use std::{
    future::poll_fn,
    io, mem,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, sync::oneshot, task::spawn_blocking, time::timeout};

/// Bytes that are read from a file at a time.
const PIECE_SIZE: u32 = 256 << 10;

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

/// Puts news, as they are sent, behind what is in `bytes`.
fn append(bytes: &mut Vec<u8>, news: News) {
    match news {
        News::Have(content, chunks) => {
            codec::append_frame(bytes, &Answer::Have { content, chunks });
        }
        News::Entries(content, first, hashes, signature) => {
            let count = u32::try_from(hashes.len()).expect("at most as many as chunks");
            let entries = Answer::Entries {
                content,
                first,
                count,
                signature,
            };
            codec::append_frame(bytes, &entries);
            bytes.extend(hashes.iter().flat_map(|hash| hash.0));
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
    let mut loader = Loader::new(server.clone(), asker);
    let mut leaving = Leaving::new();
    let mut loaded = loader.next(&outbox).await;
    while let Some(mut piece) = loaded {
        let mut loading = Loading {
            future: pin!(loader.next(&outbox)),
            loaded: None,
        };
        let writing = async {
            stream.write_all(&piece.head).await?;
            stream.write_all(&piece.body).await
        };
        loading.beside(patiently(writing, &mut piece.slot)).await?;
        server.traffic.count_out(piece.body.len());
        server.buffers.give_back(piece.body);
        // What comes at once goes along in the same packets.
        if piece.is_last && !loading.is_there().await {
            let flushing = patiently(stream.flush(), &mut piece.slot);
            loading.beside(flushing).await?;
        }
        if piece.is_last
            && let Some(slot) = piece.slot
        {
            leaving.push(slot, &stream);
        }
        loaded = loop {
            tokio::select! {
                biased;
                next = loading.get() => break next,
                () = leaving.due() => leaving.look(&stream),
            }
        };
    }
    timeout(WRITE_DEADLINE, stream.shutdown())
        .await
        .context("the other side reads nothing")??;
    Ok(())
}

/// Waits for something to be written; where it takes long, the chunk gives its slot back.
async fn patiently(
    writing: impl Future<Output = io::Result<()>>,
    slot: &mut Option<Arc<Grant>>,
) -> Result<()> {
    let mut writing = pin!(writing);
    if let Ok(written) = timeout(SLOT_PATIENCE, &mut writing).await {
        return Ok(written?);
    }
    *slot = None;
    timeout(WRITE_DEADLINE, writing)
        .await
        .context("the other side reads nothing")??;
    Ok(())
}

/// A piece that is being loaded while other things are done.
struct Loading<'a, F: Future> {
    future: Pin<&'a mut F>,
    loaded: Option<F::Output>,
}

impl<F: Future> Loading<'_, F> {
    /// Does something else, and goes on with this meanwhile.
    async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return done,
                loaded = self.future.as_mut(), if self.loaded.is_none() => self.loaded = Some(loaded),
            }
        }
    }

    /// Whether it is there without waiting.
    async fn is_there(&mut self) -> bool {
        if self.loaded.is_none() {
            self.loaded = poll_fn(|context| match self.future.as_mut().poll(context) {
                Poll::Ready(loaded) => Poll::Ready(Some(loaded)),
                Poll::Pending => Poll::Ready(None),
            })
            .await;
        }
        self.loaded.is_some()
    }

    /// Waits for it. To be called until it has been there once.
    async fn get(&mut self) -> F::Output {
        match self.loaded.take() {
            Some(loaded) => loaded,
            None => self.future.as_mut().await,
        }
    }
}

/// Turns items into pieces.
struct Loader {
    server: Arc<Server>,
    asker: AskerId,
    /// Messages that go with whatever comes next: a packet of their own would cost as much as that does.
    ahead: Vec<u8>,
    /// The place in the line for a slot, while the next item is a chunk.
    in_line: Option<oneshot::Receiver<Grant>>,
    /// What is left of a chunk that has begun to be sent.
    chunk: Option<Rest>,
}

/// A chunk from some byte on.
struct Rest {
    slot: Arc<Slot>,
    index: u32,
    within: u32,
    size: u32,
    grant: Option<Arc<Grant>>,
}

impl Loader {
    fn new(server: Arc<Server>, asker: AskerId) -> Self {
        Self {
            server,
            asker,
            ahead: Vec::new(),
            in_line: None,
            chunk: None,
        }
    }

    /// The next piece; none if the outbox is closed and empty, or a chunk cannot be gone on with.
    async fn next(&mut self, outbox: &Outbox) -> Option<Piece> {
        if let Some(rest) = self.chunk.take() {
            return self.go_on(rest).await;
        }
        loop {
            if self.in_line.is_some() {
                if let Some(piece) = self.wait(outbox).await {
                    return Some(piece);
                }
                continue;
            }
            match outbox.next().await? {
                Next::Send(item) => return Some(self.load(item, outbox, None).await),
                Next::Wait(content, asked) => {
                    self.in_line = Some(self.server.line_up(self.asker, content, asked));
                }
            }
        }
    }

    /// Waits for the slot and tells the news meanwhile: whoever stands in a long line is to know what else there is.
    /// Nothing if the chunk was cancelled.
    async fn wait(&mut self, outbox: &Outbox) -> Option<Piece> {
        let line = self.in_line.as_mut()?;
        let grant = tokio::select! {
            biased;
            grant = line => grant.expect("who waits is granted a slot sooner or later"),
            news = outbox.news() => return Some(self.news(news)),
        };
        self.in_line = None;
        while let Some(item) = outbox.in_turn() {
            match item {
                Item::News(news) => append(&mut self.ahead, news),
                item => return Some(self.load(item, outbox, Some(grant)).await),
            }
        }
        (!self.ahead.is_empty()).then(|| self.message())
    }

    /// Loads an item; a chunk has been granted a slot.
    async fn load(&mut self, item: Item, outbox: &Outbox, grant: Option<Grant>) -> Piece {
        match item {
            Item::Answer(answer) => self.answer(&answer),
            Item::News(news) => self.news(news),
            Item::List(content, list) => {
                let body = list.encode();
                let size = u32::try_from(body.len()).expect("a list is far below 4 GiB");
                Piece {
                    body: body.into(),
                    ..self.answer(&Answer::List { content, size })
                }
            }
            Item::Hashes(slot) => self.hashes(slot).await,
            Item::Bitmap(slot) => self.answer(&outbox.bitmap(&slot)),
            Item::Chunk(slot, index) => {
                self.server.has(self.asker, slot.id(), index);
                self.chunk(slot, index, grant).await
            }
            Item::Any(slot) => match self.server.choose(self.asker, &slot) {
                Some(index) => self.chunk(slot, index, grant).await,
                None => self.answer(&Answer::Exhausted { content: slot.id() }),
            },
        }
    }

    async fn hashes(&mut self, slot: Arc<Slot>) -> Piece {
        let content = slot.id();
        let turn = self.server.hashing.clone().acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let hashing = spawn_blocking(move || {
            // Kept by the thread: whoever asked may hang up meanwhile.
            let _turn = turn;
            slot.hashes()
        });
        let Ok(Ok(body)) = hashing.await else {
            return self.answer(&Answer::Missing {
                content,
                index: None,
            });
        };
        let size = u32::try_from(body.len()).expect("as long as a list");
        Piece {
            body: body.into(),
            ..self.answer(&Answer::Hashes { content, size })
        }
    }

    fn news(&mut self, news: News) -> Piece {
        append(&mut self.ahead, news);
        self.message()
    }

    fn answer(&mut self, answer: &Answer) -> Piece {
        codec::append_frame(&mut self.ahead, answer);
        self.message()
    }

    /// The messages that were to go with whatever comes next.
    fn message(&mut self) -> Piece {
        Piece {
            head: mem::take(&mut self.ahead),
            body: Buffer::default(),
            is_last: true,
            slot: None,
        }
    }

    /// The first piece of a chunk, or word that it is missing.
    async fn chunk(&mut self, slot: Arc<Slot>, index: u32, grant: Option<Grant>) -> Piece {
        let content = slot.id();
        if let Some(extent) = slot.geometry().extent(index) {
            let size = extent.size;
            let rest = Rest {
                slot,
                index,
                within: 0,
                size,
                grant: grant.map(Arc::new),
            };
            if let Some(piece) = self.go_on(rest).await {
                let chunk = Answer::Chunk {
                    content,
                    index,
                    size,
                };
                let head = self.answer(&chunk).head;
                return Piece { head, ..piece };
            }
        }
        self.answer(&Answer::Missing {
            content,
            index: Some(index),
        })
    }

    /// The next piece of a chunk; none if it cannot be read.
    async fn go_on(&mut self, rest: Rest) -> Option<Piece> {
        let size = (rest.size - rest.within).min(PIECE_SIZE);
        let body = self
            .read(&rest.slot, rest.index, rest.within, size)
            .await
            .ok()?;
        let within = rest.within + size;
        let is_last = within == rest.size;
        let slot = rest.grant.clone();
        self.chunk = (!is_last).then_some(Rest { within, ..rest });
        Some(Piece {
            head: Vec::new(),
            body,
            is_last,
            slot,
        })
    }

    /// Reads a piece of a chunk; on this thread, if it is in memory.
    async fn read(&self, slot: &Arc<Slot>, index: u32, within: u32, size: u32) -> Result<Buffer> {
        let mut body = self.server.buffers.take(size as usize);
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
    use anchorage_manifest::{Content, ContentId};

    /// The messages in front of a piece's bytes.
    fn messages(mut head: &[u8]) -> Result<Vec<Answer>> {
        let mut messages = Vec::new();
        while let Some(body) = codec::first_body(head, 1 << 10)? {
            messages.push(codec::decode(body)?);
            head = &head[codec::PREFIX_SIZE + body.len()..];
        }
        anyhow::ensure!(head.is_empty(), "a part of a message");
        Ok(messages)
    }

    /// What is sent first to somebody who asked for chunk 0, when 1 and 2 have come since; `spoil` changes the file before.
    async fn first_piece(spoil: impl FnOnce(&Slot) -> Result<()>) -> Result<(ContentId, Piece)> {
        let directory = tempfile::tempdir()?;
        let store = Store::open(directory.path())?;
        let bytes = [7; 3 * 1_024];
        let content = Content::of(&bytes, 1_024)?;
        let slot = store.create(&content, &Place::inside())?;
        slot.store(0, &bytes[..1_024])?;
        let outbox = Arc::new(Outbox::default());
        outbox::interest(&outbox, &slot);
        slot.store(1, &bytes[..1_024])?;
        slot.store(2, &bytes[..1_024])?;
        spoil(&slot)?;
        assert!(outbox.push(Item::Chunk(slot.clone(), 0)));
        let server = Server::new(store, None, Share::whole());
        let asker = server.asker();
        let piece = Loader::new(server, asker).next(&outbox).await;
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
