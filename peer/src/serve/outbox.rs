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

/// How long news wait for others at least.
const NEWS_BATCH: Duration = Duration::from_millis(10);

/// Time from one message of news to the next: so much for each who watches the slot, since every message costs both sides
/// as much as a packet of chunks does, and at most so much. With a chunk, news go before. The first pauses are shorter, each
/// by [`NEWS_BATCH`] longer than the one before: whoever knows of little has little to ask for.
const NEWS_PAUSE: (Duration, Duration) = (Duration::from_millis(6), Duration::from_millis(250));

/// Something to send.
pub(super) enum Item {
    /// A message.
    Answer(Answer),
    /// A content's list.
    List(ContentId, Arc<Content>),
    /// The SHA-256 of every chunk alone.
    Hashes(Arc<Slot>),
    /// Which chunks there are when its turn has come: news of some of them may have gone before it.
    Bitmap(Arc<Slot>),
    /// A chunk.
    Chunk(Arc<Slot>, u32),
    /// A chunk that is chosen when its turn has come.
    Any(Arc<Slot>),
    /// What nobody asked for just now.
    News(News),
}

impl Item {
    /// If it has to wait for its turn: its content, and which chunk it is, unless that is still to be chosen.
    fn turn(&self) -> Option<(ContentId, Option<u32>)> {
        match self {
            Self::Chunk(slot, index) => Some((slot.id(), Some(*index))),
            Self::Any(slot) => Some((slot.id(), None)),
            _ => None,
        }
    }
}

/// What the sender does next.
pub(super) enum Next {
    /// It sends this.
    Send(Item),
    /// It waits for its turn to send a chunk of a content: this one, or one that is chosen then.
    Wait(ContentId, Option<u32>),
}

/// What goes before everything else.
pub(super) enum News {
    /// Chunks that came.
    Have(ContentId, Vec<u32>),
    /// Entries of a draft from a chunk on.
    Entries(ContentId, u32, Vec<Hash>, Signature),
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
    /// When news were last taken out, how often so far, and time from then to the next if nothing else is sent.
    told: Option<Instant>,
    times_told: u32,
    news_pause: Duration,
    /// When the sender looks for news if nothing wakes it before.
    looks_at: Option<Instant>,
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

    /// Takes a chunk out that is not being sent yet, even if it is next.
    pub(super) fn cancel(&self, content: ContentId, index: u32) {
        self.queue().items.retain(
            |item| !matches!(item, Item::Chunk(slot, i) if slot.id() == content && *i == index),
        );
    }

    /// No more will come; what is there is still sent, and after it the refusal.
    pub(super) fn close(&self, refusal: Refusal) {
        let mut queue = self.queue();
        queue
            .items
            .push_back(Item::Answer(Answer::Refused { refusal }));
        queue.closed = true;
        drop(queue);
        self.wake.notify_one();
    }

    /// What to do next; nothing when the outbox is closed and empty.
    ///
    /// News go with what is sent next, or alone when they have waited for others long enough: one message for a few
    /// chunks costs everybody a fraction of one message a chunk. Entries go before the chunks that need them.
    pub(super) async fn next(&self) -> Option<Next> {
        loop {
            let due = {
                let mut queue = self.queue();
                let turn = queue.items.front().and_then(Item::turn);
                let goes_now = turn.is_none() && !queue.items.is_empty();
                if let Some(news) = queue.pop_news(goes_now) {
                    return Some(Next::Send(Item::News(news)));
                }
                if let Some((content, asked)) = turn {
                    return Some(Next::Wait(content, asked));
                }
                if let Some(item) = queue.items.pop_front() {
                    return Some(Next::Send(item));
                }
                if queue.closed {
                    return None;
                }
                queue.look_later()
            };
            self.wait_until(due).await;
        }
    }

    /// The next news that are due, while a chunk waits for its turn.
    pub(super) async fn news(&self) -> News {
        loop {
            let due = {
                let mut queue = self.queue();
                if let Some(news) = queue.pop_news(false) {
                    return news;
                }
                queue.look_later()
            };
            self.wait_until(due).await;
        }
    }

    /// What is sent when the turn of a chunk has come: news, one after the other, and then the chunk, unless it was
    /// cancelled meanwhile.
    pub(super) fn in_turn(&self) -> Option<Item> {
        let mut queue = self.queue();
        queue.items.front().and_then(Item::turn)?;
        match queue.pop_news(true) {
            Some(news) => Some(Item::News(news)),
            None => queue.items.pop_front(),
        }
    }

    /// Waits until something has come, or until it is time to look for news.
    async fn wait_until(&self, due: Option<Instant>) {
        match due {
            Some(due) => drop(timeout_at(due, self.wake.notified()).await),
            None => self.wake.notified().await,
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
    fn pop_entries(&mut self) -> Option<News> {
        for (&draft, told) in self.drafts.iter_mut().filter(|(_, told)| told.is_behind) {
            told.is_behind = false;
            if let Some((hashes, signature)) = told.slot.entries_since(told.count) {
                let first = told.count;
                told.count += u32::try_from(hashes.len()).expect("at most as many as chunks");
                return Some(News::Entries(draft, first, hashes, signature));
            }
        }
        None
    }

    /// When the oldest of the news have waited for others long enough.
    fn news_due(&self) -> Option<Instant> {
        let due = self.news_since? + NEWS_BATCH;
        Some(self.paused_until().map_or(due, |next| next.max(due)))
    }

    /// When news may be told again after the last, if nothing else is sent.
    fn paused_until(&self) -> Option<Instant> {
        self.told.map(|told| told + self.news_pause)
    }

    /// When to look for news: when those that are there are due, or those that come before that would be. Where news keep
    /// coming, so the first of them need not wake anybody.
    fn look_later(&mut self) -> Option<Instant> {
        self.looks_at = match self.news_since {
            Some(_) => self.news_due(),
            None => self.paused_until().filter(|&next| next > Instant::now()),
        };
        self.looks_at
    }

    /// Entries, or a message of news, if they are due or something else goes now; what does not fit stays for the next.
    fn pop_news(&mut self, goes_now: bool) -> Option<News> {
        let is_due = self.news_due().is_some_and(|due| due <= Instant::now());
        if !is_due && !goes_now {
            return None;
        }
        if let Some(entries) = self.pop_entries() {
            return Some(entries);
        }
        let (content, mut chunks) = self.news.pop_first()?;
        if chunks.len() > CHUNKS_PER_MESSAGE_MAX {
            let rest = chunks.split_off(CHUNKS_PER_MESSAGE_MAX);
            self.news.insert(content, rest);
        }
        self.told = Some(Instant::now());
        self.times_told = self.times_told.saturating_add(1);
        if self.news.is_empty() {
            self.news_since = None;
        }
        Some(News::Have(content, chunks))
    }
}

impl Watcher for Outbox {
    fn marked(&self, content: ContentId, chunks: &[u32], watchers: usize) {
        let mut queue = self.queue();
        let (each, most) = NEWS_PAUSE;
        queue.news_pause = each
            .saturating_mul(u32::try_from(watchers).unwrap_or(u32::MAX))
            .min(most)
            .min(NEWS_BATCH.saturating_mul(queue.times_told));
        queue.news.entry(content).or_default().extend(chunks);
        if queue.news_since.is_some() {
            return;
        }
        queue.news_since = Some(Instant::now());
        let is_seen_in_time = queue
            .looks_at
            .is_some_and(|at| Some(at) <= queue.news_due());
        drop(queue);
        if !is_seen_in_time {
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
            let Some(Next::Send(Item::News(News::Entries(content, from, told, _)))) =
                outbox.next().await
            else {
                panic!("no entries");
            };
            assert_eq!((content, from), (slot.id(), first));
            assert_eq!(told, hashes()[first as usize..][..count]);
            let Some(Next::Send(Item::News(News::Have(_, chunks)))) = outbox.next().await else {
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
                Some(Next::Send(Item::News(News::Entries(_, 0, entries, _)))) => {
                    assert_eq!(entries.len(), 3);
                }
                Some(Next::Send(Item::News(News::Have(_, chunks)))) => told = chunks,
                Some(Next::Send(Item::Bitmap(slot))) => {
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

    #[tokio::test]
    async fn a_chunk_that_waits_for_its_turn_holds_up_no_news_and_can_be_cancelled() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let slot = draft(directory.path())?;
        let outbox = Arc::new(Outbox::default());
        grow(&slot, 1)?;
        interest(&outbox, &slot);
        assert!(outbox.push(Item::Chunk(slot.clone(), 0)));
        assert!(outbox.push(Item::Chunk(slot.clone(), 1)));
        let next = outbox.next().await;
        assert!(matches!(next, Some(Next::Wait(content, Some(0))) if content == slot.id()));
        grow(&slot, 2)?;
        assert!(matches!(outbox.news().await, News::Entries(..)));
        assert!(matches!(outbox.news().await, News::Have(_, chunks) if chunks == [1]));
        grow(&slot, 3)?;
        outbox.cancel(slot.id(), 0);
        // Its turn has come: what is new goes with it.
        assert!(matches!(
            outbox.in_turn(),
            Some(Item::News(News::Entries(..)))
        ));
        assert!(
            matches!(outbox.in_turn(), Some(Item::News(News::Have(_, chunks))) if chunks == [2])
        );
        assert!(matches!(outbox.in_turn(), Some(Item::Chunk(_, 1))));
        assert!(outbox.in_turn().is_none());
        Ok(())
    }

    #[tokio::test]
    async fn what_was_written_is_news_once_it_is_told() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let bytes = [7; 2_048];
        let content = Content::of(&bytes, 1_024)?;
        let slot = Store::open(directory.path())?.create(&content, &Place::inside())?;
        let outbox = Arc::new(Outbox::default());
        interest(&outbox, &slot);
        for index in [1, 0] {
            slot.write(index, &bytes[..1_024])?;
        }
        let before = timeout_at(Instant::now() + 3 * NEWS_BATCH, outbox.news()).await;
        assert!(before.is_err(), "nobody has told");
        slot.tell();
        assert!(matches!(outbox.news().await, News::Have(_, chunks) if chunks == [1, 0]));
        Ok(())
    }

    #[tokio::test]
    async fn news_wake_a_sender_that_would_not_look_for_them() {
        let (outbox, content) = (Outbox::default(), ContentId(Hash([1; 32])));
        for index in 0..3 {
            let later = async {
                // By then it has looked once more after the last news, and will not look again.
                tokio::time::sleep(4 * NEWS_BATCH).await;
                outbox.marked(content, &[index], 1);
                Instant::now()
            };
            let limit = Instant::now() + Duration::from_secs(10);
            let (news, marked) = tokio::join!(timeout_at(limit, outbox.news()), later);
            assert!(matches!(news, Ok(News::Have(_, chunks)) if chunks == [index]));
            assert!(marked.elapsed() + Duration::from_millis(1) >= NEWS_BATCH);
        }
    }

    #[tokio::test]
    async fn the_first_news_follow_one_another_soon_however_many_are_told() {
        let (outbox, content) = (Outbox::default(), ContentId(Hash([1; 32])));
        let began = Instant::now();
        for times_told in 0..4 {
            let told = Instant::now();
            outbox.marked(content, &[times_told], usize::MAX);
            outbox.news().await;
            let pause = NEWS_BATCH * times_told.max(1);
            assert!(told.elapsed() + Duration::from_millis(1) >= pause);
        }
        assert!(began.elapsed() < 3 * NEWS_PAUSE.1);
    }

    #[tokio::test]
    async fn the_more_are_told_the_longer_news_wait_for_others() {
        let (outbox, content) = (Outbox::default(), ContentId(Hash([1; 32])));
        for (watchers, pause) in [
            (1, NEWS_BATCH),
            (20, 20 * NEWS_PAUSE.0),
            (usize::MAX, NEWS_PAUSE.1),
        ] {
            outbox.queue().times_told = 100;
            outbox.marked(content, &[1], watchers);
            outbox.news().await;
            let told = Instant::now();
            outbox.marked(content, &[2], watchers);
            outbox.news().await;
            assert!(
                told.elapsed() + Duration::from_millis(1) >= pause,
                "{watchers}"
            );
        }
    }
}
