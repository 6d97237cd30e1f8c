//! What a connection still has to send: answers in the order of the asks, and news of chunks in between.

use crate::store::{Slot, Watcher};
use anchorage_manifest::{
    ContentId,
    limits::CHUNKS_PER_MESSAGE_MAX,
    wire::{Answer, Refusal},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// Answers that may wait; whoever asks for more without reading is hung up on.
const ITEMS_MAX: usize = 8_192;

/// How long news may wait for others.
const NEWS_BATCH: Duration = Duration::from_millis(20);

/// Something to send.
pub(super) enum Item {
    /// A message.
    Answer(Answer),
    /// A content's list.
    List(Arc<Slot>),
    /// Which chunks there are when its turn has come: news of some of them may have gone before it.
    Bitmap(Arc<Slot>),
    /// A chunk.
    Chunk(Arc<Slot>, u32),
    /// A chunk that is chosen when its turn has come.
    Any(Arc<Slot>),
}

/// The queue between a connection's reader and its sender.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    news: BTreeMap<ContentId, Vec<u32>>,
    /// When the oldest of the news came.
    news_since: Option<Instant>,
    closed: bool,
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

    /// The next item; none when the outbox is closed and empty.
    ///
    /// News go with the next item, or alone when they have waited for others long enough: one message for a few
    /// chunks costs everybody a fraction of one message a chunk.
    pub(super) async fn next(&self) -> Option<Item> {
        loop {
            let due = {
                let mut queue = self.queue();
                let due = queue.news_since.map(|since| since + NEWS_BATCH);
                let is_due = due.is_some_and(|due| due <= Instant::now());
                if is_due || !queue.items.is_empty() {
                    if let Some(news) = queue.pop_news() {
                        return Some(Item::Answer(news));
                    }
                    if let Some(item) = queue.items.pop_front() {
                        return Some(item);
                    }
                }
                if queue.closed {
                    return None;
                }
                due
            };
            match due {
                Some(due) => drop(timeout_at(due, self.wake.notified()).await),
                None => self.wake.notified().await,
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock panics")
    }
}

impl Queue {
    /// A message of news; what does not fit stays for the next.
    fn pop_news(&mut self) -> Option<Answer> {
        let (content, mut chunks) = self.news.pop_first()?;
        if chunks.len() > CHUNKS_PER_MESSAGE_MAX {
            let rest = chunks.split_off(CHUNKS_PER_MESSAGE_MAX);
            self.news.insert(content, rest);
        }
        if self.news.is_empty() {
            self.news_since = None;
        }
        Some(Answer::Have { content, chunks })
    }
}

impl Watcher for Outbox {
    fn marked(&self, content: ContentId, index: u32) {
        let mut queue = self.queue();
        queue.news.entry(content).or_default().push(index);
        let is_first = queue.news_since.is_none();
        queue.news_since.get_or_insert_with(Instant::now);
        drop(queue);
        if is_first {
            self.wake.notify_one();
        }
    }
}

/// Whatever comes to the slot from now on is news.
pub(super) fn interest(outbox: &Arc<Outbox>, slot: &Slot) {
    let watcher: Arc<dyn Watcher> = outbox.clone();
    slot.watch(Arc::downgrade(&watcher));
}
