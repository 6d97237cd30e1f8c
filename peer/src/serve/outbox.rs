//! What a connection still has to send: answers in the order of the asks, and news of chunks in between.

use super::Server;
use crate::store::{Slot, Watcher};
use anchorage_manifest::{
    Bitmap, ContentId, codec,
    limits::CHUNKS_PER_MESSAGE_MAX,
    wire::{Answer, Refusal},
};
use anyhow::{Context as _, Result};
use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::{Notify, mpsc},
    time::timeout,
};

/// Bytes that are read from a file at a time.
const PIECE_SIZE: usize = 256 << 10;

/// Pieces between loader and writer.
const PIECES_MAX: usize = 2;

/// Answers that may wait; whoever asks for more without reading is hung up on.
const ITEMS_MAX: usize = 8_192;

/// How long the other side may refuse to take a piece.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// Something to send.
pub(super) enum Item {
    /// A message.
    Answer(Answer),
    /// A content's list.
    List(Arc<Slot>),
    /// A chunk.
    Chunk(Arc<Slot>, u32),
}

/// The queue between a connection's reader and its writer.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    news: BTreeMap<ContentId, Vec<u32>>,
    closed: bool,
}

/// Bytes to write, of a message or of a file.
struct Piece {
    head: Vec<u8>,
    body: Vec<u8>,
    is_last: bool,
}

impl Outbox {
    /// Adds an item; false if there are too many.
    #[must_use]
    pub(super) fn push(&self, item: Item) -> bool {
        let mut queue = self.queue();
        let fits = queue.items.len() < ITEMS_MAX;
        if fits {
            queue.items.push_back(item);
        }
        drop(queue);
        self.wake.notify_one();
        fits
    }

    /// Takes a chunk out that is not being sent yet.
    pub(super) fn cancel(&self, content: ContentId, index: u32) {
        self.queue().items.retain(
            |item| !matches!(item, Item::Chunk(slot, i) if slot.id() == content && *i == index),
        );
    }

    /// No more will come; what is there is still sent, and after it a refusal if there is one.
    pub(super) fn close(&self, refusal: Option<Refusal>) {
        let mut queue = self.queue();
        if let Some(refusal) = refusal {
            queue
                .items
                .push_back(Item::Answer(Answer::Refused { refusal }));
        }
        queue.closed = true;
        drop(queue);
        self.wake.notify_one();
    }

    /// Sends until the outbox is closed and empty, or the other side is gone.
    pub(super) async fn send(
        self: Arc<Self>,
        server: Arc<Server>,
        mut stream: impl AsyncWrite + Unpin,
    ) -> Result<()> {
        let (full, mut pieces) = mpsc::channel::<Piece>(PIECES_MAX);
        let (spent, buffers) = mpsc::channel::<Vec<u8>>(PIECES_MAX + 2);
        let loading = tokio::spawn(self.load(full, buffers));
        let write = async {
            while let Some(piece) = pieces.recv().await {
                let bytes = async {
                    stream.write_all(&piece.head).await?;
                    stream.write_all(&piece.body).await?;
                    if piece.is_last && pieces.is_empty() {
                        stream.flush().await
                    } else {
                        Ok(())
                    }
                };
                timeout(WRITE_DEADLINE, bytes)
                    .await
                    .context("the other side reads nothing")??;
                server.traffic.count_out(piece.body.len());
                // Where there are enough buffers already, this one is just dropped.
                drop(spent.try_send(piece.body));
            }
            timeout(WRITE_DEADLINE, stream.shutdown())
                .await
                .context("the other side reads nothing")??;
            Ok(())
        };
        let result = write.await;
        loading.abort();
        result
    }

    /// Turns items into pieces.
    async fn load(
        self: Arc<Self>,
        full: mpsc::Sender<Piece>,
        mut buffers: mpsc::Receiver<Vec<u8>>,
    ) {
        while let Some(item) = self.next().await {
            let sent = match item {
                Item::Answer(answer) => full.send(Piece::message(&answer)).await.is_ok(),
                Item::List(slot) => {
                    let body = slot.content().encode();
                    let size = u32::try_from(body.len()).expect("a list is far below 4 GiB");
                    let head = codec::frame(&Answer::List {
                        content: slot.id(),
                        size,
                    });
                    full.send(Piece {
                        head,
                        body,
                        is_last: true,
                    })
                    .await
                    .is_ok()
                }
                Item::Chunk(slot, index) => load_chunk(&slot, index, &full, &mut buffers).await,
            };
            if !sent {
                return;
            }
        }
    }

    /// The next item; news go first, since they are small and others wait for them.
    async fn next(&self) -> Option<Item> {
        loop {
            {
                let mut queue = self.queue();
                if let Some((content, chunks)) = queue.news.pop_first() {
                    return Some(Item::Answer(queue.news_of(content, chunks)));
                }
                if let Some(item) = queue.items.pop_front() {
                    return Some(item);
                }
                if queue.closed {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock panics")
    }
}

impl Queue {
    /// A message of news; what does not fit stays for the next.
    fn news_of(&mut self, content: ContentId, mut chunks: Vec<u32>) -> Answer {
        if chunks.len() > CHUNKS_PER_MESSAGE_MAX {
            let rest = chunks.split_off(CHUNKS_PER_MESSAGE_MAX);
            self.news.insert(content, rest);
        }
        Answer::Have { content, chunks }
    }
}

impl Watcher for Outbox {
    fn marked(&self, content: ContentId, index: u32) {
        self.queue().news.entry(content).or_default().push(index);
        self.wake.notify_one();
    }
}

impl Piece {
    fn message(answer: &Answer) -> Self {
        Self {
            head: codec::frame(answer),
            body: Vec::new(),
            is_last: true,
        }
    }
}

/// Loads a chunk piece by piece; false if nobody takes the pieces, or one could not be read after others went out.
async fn load_chunk(
    slot: &Arc<Slot>,
    index: u32,
    full: &mpsc::Sender<Piece>,
    buffers: &mut mpsc::Receiver<Vec<u8>>,
) -> bool {
    let content = slot.id();
    let missing = Piece::message(&Answer::Missing {
        content,
        index: Some(index),
    });
    let Some(extent) = slot.content().geometry().extent(index) else {
        return full.send(missing).await.is_ok();
    };
    let mut head = codec::frame(&Answer::Chunk {
        content,
        index,
        size: extent.size,
    });
    let mut within = 0;
    while within < extent.size {
        let size = (extent.size - within).min(u32::try_from(PIECE_SIZE).expect("a small constant"));
        let mut body = buffers.try_recv().unwrap_or_default();
        let slot = slot.clone();
        let read = move || {
            body.resize(size as usize, 0);
            slot.read(index, within, &mut body).map(|()| body)
        };
        let Ok(Ok(body)) = tokio::task::spawn_blocking(read).await else {
            return within == 0 && full.send(missing).await.is_ok();
        };
        within += size;
        let piece = Piece {
            head: mem::take(&mut head),
            body,
            is_last: within == extent.size,
        };
        if full.send(piece).await.is_err() {
            return false;
        }
    }
    true
}

/// The answer to an interest: what there is now. Whatever comes later is news.
pub(super) fn interest(outbox: &Arc<Outbox>, slot: &Slot) -> Bitmap {
    let watcher: Arc<dyn Watcher> = outbox.clone();
    slot.watch(Arc::downgrade(&watcher))
}
