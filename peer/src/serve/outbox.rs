//! What a connection still has to send: answers in the order of the asks, and news of chunks in between.

use crate::store::{Slot, Watcher};
use anchorage_manifest::{
    Content, ContentId, Hash, Signature,
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
    List(ContentId, Arc<Content>),
    /// Which chunks there are when its turn has come: news of some of them may have gone before it.
    Bitmap(Arc<Slot>),
    /// Entries of a draft from a chunk on.
    Entries(ContentId, u32, Vec<Hash>, Signature),
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
    drafts: BTreeMap<ContentId, Told>,
    /// When the oldest of the news came.
    news_since: Option<Instant>,
    closed: bool,
}

/// How much of a draft's list the other side has been told.
struct Told {
    slot: Arc<Slot>,
    count: u32,
    is_behind: bool,
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
    /// chunks costs everybody a fraction of one message a chunk. Entries go before the chunks that need them.
    pub(super) async fn next(&self) -> Option<Item> {
        loop {
            let due = {
                let mut queue = self.queue();
                let due = queue.news_since.map(|since| since + NEWS_BATCH);
                let is_due = due.is_some_and(|due| due <= Instant::now());
                if is_due || !queue.items.is_empty() {
                    if let Some(entries) = queue.pop_entries() {
                        return Some(entries);
                    }
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

    /// The chunks of a slot now, as far as the other side knows the entries that they need; of the others it is told
    /// behind their entries.
    pub(super) fn bitmap(&self, slot: &Slot) -> Answer {
        let content = slot.id();
        let mut have = slot.have();
        if let Some(told) = self.queue().drafts.get(&content) {
            while let Some(index) = have.next_from(told.count) {
                have.remove(index);
            }
        }
        Answer::Bitmap { content, have }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock panics")
    }
}

impl Queue {
    /// Entries that the other side has not been told.
    fn pop_entries(&mut self) -> Option<Item> {
        for (&draft, told) in self.drafts.iter_mut().filter(|(_, told)| told.is_behind) {
            told.is_behind = false;
            if let Some((hashes, signature)) = told.slot.entries_since(told.count) {
                let first = told.count;
                told.count += u32::try_from(hashes.len()).expect("at most as many as chunks");
                return Some(Item::Entries(draft, first, hashes, signature));
            }
        }
        None
    }

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

    fn grew(&self, content: ContentId) {
        if let Some(told) = self.queue().drafts.get_mut(&content) {
            told.is_behind = true;
        }
    }
}

/// Whatever comes to the slot from now on is news.
pub(super) fn interest(outbox: &Arc<Outbox>, slot: &Arc<Slot>) {
    if slot.is_draft() {
        let told = Told {
            slot: slot.clone(),
            count: 0,
            is_behind: true,
        };
        outbox.queue().drafts.insert(slot.id(), told);
    }
    let watcher: Arc<dyn Watcher> = outbox.clone();
    slot.watch(Arc::downgrade(&watcher));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::Identity,
        store::{Place, Store},
    };
    use anchorage_manifest::{Draft, Geometry};
    use anyhow::Result;

    fn hashes() -> Vec<Hash> {
        (0..4u8).map(|byte| Hash::of(&[byte])).collect()
    }

    fn draft(directory: &std::path::Path) -> Result<Arc<Slot>> {
        let draft = Draft {
            name: "file".parse()?,
            geometry: Geometry::new(4_096, 1_024)?,
            publisher: author().id(),
            nonce: [1; 32],
        };
        Store::open(directory)?.draft(&draft, &Place::inside())
    }

    fn author() -> Identity {
        Identity::from_seed([7; 32])
    }

    /// Adds as many of the entries and chunks as make `count`.
    fn grow(slot: &Slot, count: usize) -> Result<()> {
        let known = slot.have().count() as usize;
        let more = &hashes()[known..count];
        slot.grow(more, |bytes| author().sign_bytes(bytes))
    }

    #[tokio::test]
    async fn entries_go_before_the_chunks_that_need_them() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let slot = draft(directory.path())?;
        let outbox = Arc::new(Outbox::default());
        grow(&slot, 1)?;
        interest(&outbox, &slot);
        for (first, count) in [(0, 2), (2, 2)] {
            grow(&slot, first as usize + count)?;
            let Some(Item::Entries(content, from, told, _)) = outbox.next().await else {
                panic!("no entries");
            };
            assert_eq!((content, from), (slot.id(), first));
            assert_eq!(told, hashes()[first as usize..][..count]);
            let Some(Item::Answer(Answer::Have { chunks, .. })) = outbox.next().await else {
                panic!("no news of the chunks");
            };
            assert_eq!(chunks.last(), Some(&(first + 1)));
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_bitmap_takes_nothing_back_that_was_told_before_it() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let slot = draft(directory.path())?;
        let outbox = Arc::new(Outbox::default());
        grow(&slot, 1)?;
        interest(&outbox, &slot);
        assert!(outbox.push(Item::Bitmap(slot.clone())));
        grow(&slot, 3)?;
        let mut told = Vec::new();
        for _ in 0..3 {
            match outbox.next().await {
                Some(Item::Entries(_, 0, entries, _)) => assert_eq!(entries.len(), 3),
                Some(Item::Answer(Answer::Have { chunks, .. })) => told = chunks,
                Some(Item::Bitmap(slot)) => {
                    let Answer::Bitmap { have, .. } = outbox.bitmap(&slot) else {
                        break;
                    };
                    assert_eq!(told, [1, 2], "news went first");
                    assert_eq!(have.iter().collect::<Vec<_>>(), [0, 1, 2]);
                    return Ok(());
                }
                _ => break,
            }
        }
        panic!("no bitmap");
    }
}
