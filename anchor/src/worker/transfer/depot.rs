//! Between the server, which stores what publishers bring, and the manifest process, which allows it and lists it.
//!
//! Questions wait here for their answers, and are asked again of a new life of the manifest process; to that one
//! all that the store holds is told again too. What was stored is told in batches, a few milliseconds late, and flushed
//! to the disk once it is whole.

use crate::{
    order::ToTransfer,
    packet::Deposited,
    sys::{pipe, readiness},
};
use anchorage_manifest::{ContentId, Geometry, limits::CHUNKS_PER_MESSAGE_MAX};
use anchorage_peer::{serve::Deposit, store::Store};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};

/// How long a batch is collected: a publisher that is done, and the next command after it, should find the anchor
/// among the holders.
const BATCH: Duration = Duration::from_millis(2);

/// A question without an answer for so long is answered no; the publisher tries again.
const ADMIT_PATIENCE: Duration = Duration::from_secs(10);

/// A publisher that waits for leave to store.
struct Waiting {
    reply: oneshot::Sender<Option<Geometry>>,
    deadline: Instant,
}

/// The depot.
pub(super) struct Depot {
    store: Arc<Store>,
    requests: AsyncFd<OwnedFd>,
    waiting: BTreeMap<ContentId, Vec<Waiting>>,
    /// What was stored since the last batch; without chunks it is the list.
    stored: BTreeMap<ContentId, BTreeSet<u32>>,
    /// When the batch is due.
    due: Option<Instant>,
    /// Looks at what another process has stored of a content, and whether a draft turns out to be it.
    looks: JoinSet<(ContentId, bool)>,
    /// What may be whole, and is to be flushed to the disk then; and the one that is flushed at the moment.
    unsettled: BTreeSet<ContentId>,
    settling: JoinSet<()>,
}

impl Depot {
    /// A depot for `store`, which writes to the manifest process through `requests`.
    pub(super) fn new(store: Arc<Store>, requests: OwnedFd) -> io::Result<Self> {
        pipe::set_nonblocking(&requests)?;
        Ok(Self {
            store,
            requests: readiness::register(requests, Interest::WRITABLE)?,
            waiting: BTreeMap::new(),
            stored: BTreeMap::new(),
            due: None,
            looks: JoinSet::new(),
            unsettled: BTreeSet::new(),
            settling: JoinSet::new(),
        })
    }

    /// Works until the server is gone, or the pipe.
    pub(super) async fn run(
        mut self,
        mut deposits: mpsc::Receiver<Deposit>,
        mut replies: mpsc::Receiver<ToTransfer>,
    ) -> io::Result<()> {
        loop {
            self.settle();
            let wake = self.wake();
            tokio::select! {
                deposit = deposits.recv() => match deposit {
                    Some(deposit) => self.take(deposit).await?,
                    None => return self.flush().await,
                },
                Some(reply) = replies.recv() => self.hear(reply).await?,
                Some(looked) = self.looks.join_next() => {
                    let Ok((content, is_sealed)) = looked else {
                        continue;
                    };
                    // What was stored here by the draft's name is the content's now.
                    if is_sealed {
                        self.tell_held(content).await?;
                    }
                    self.unsettled.insert(content);
                }
                Some(_) = self.settling.join_next() => {}
                () = sleep_until(wake) => {
                    self.flush().await?;
                    self.expire();
                }
            }
        }
    }

    fn wake(&self) -> Instant {
        let waiting = self
            .waiting
            .values()
            .flatten()
            .map(|waiting| waiting.deadline);
        let next = waiting.chain(self.due).min();
        next.unwrap_or_else(|| Instant::now() + ADMIT_PATIENCE)
    }

    async fn take(&mut self, deposit: Deposit) -> io::Result<()> {
        match deposit {
            Deposit::Admit { content, reply } => {
                let waiting = Waiting {
                    reply,
                    deadline: Instant::now() + ADMIT_PATIENCE,
                };
                self.waiting.entry(content).or_default().push(waiting);
                self.tell(&Deposited::Admit { content }).await
            }
            Deposit::Stored { content, index } => {
                if index.is_none() {
                    // With a list may come what was stored while the content was a draft.
                    self.tell_held(content).await?;
                }
                self.due.get_or_insert_with(|| Instant::now() + BATCH);
                self.stored.entry(content).or_default().extend(index);
                Ok(())
            }
        }
    }

    async fn hear(&mut self, reply: ToTransfer) -> io::Result<()> {
        match reply {
            ToTransfer::Listening => {
                // What another process has stored meanwhile, nobody has told this one.
                let store = self.store.clone();
                drop(spawn_blocking(move || {
                    for slot in store.slots() {
                        store.refresh(slot.id());
                    }
                }));
                self.tell_all().await?;
            }
            ToTransfer::Admitted { content, geometry } => {
                for waiting in self.waiting.remove(&content).unwrap_or_default() {
                    // A publisher that has gone does not need it.
                    let _ = waiting.reply.send(geometry);
                }
            }
            ToTransfer::Stored { content } => self.look(content),
        }
        Ok(())
    }

    fn look(&mut self, content: ContentId) {
        let store = self.store.clone();
        self.looks
            .spawn_blocking(move || (content, store.refresh(content)));
    }

    /// Flushes what is whole to the disk, one content at a time. What cannot be flushed is read again after a power cut, as is
    /// what was not whole by then.
    fn settle(&mut self) {
        while self.settling.is_empty()
            && let Some(content) = self.unsettled.pop_first()
        {
            let slot = self.store.slot(content);
            if let Some(slot) = slot.filter(|slot| slot.is_unsettled()) {
                self.settling.spawn_blocking(move || drop(slot.settle()));
            }
        }
    }

    /// Asks all questions again, and tells all that the store holds.
    async fn tell_all(&mut self) -> io::Result<()> {
        for content in self.waiting.keys() {
            self.tell(&Deposited::Admit { content: *content }).await?;
        }
        for slot in self.store.slots() {
            self.tell_held(slot.id()).await?;
        }
        Ok(())
    }

    /// Tells all that the store holds of a content.
    async fn tell_held(&self, content: ContentId) -> io::Result<()> {
        let slot = self.store.slot(content);
        for segment in slot.iter().flat_map(|slot| slot.have().segments()) {
            self.tell(&Deposited::Has { content, segment }).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.due.is_none_or(|due| Instant::now() < due) {
            return Ok(());
        }
        self.due = None;
        for (content, chunks) in std::mem::take(&mut self.stored) {
            self.unsettled.insert(content);
            let chunks: Vec<u32> = chunks.into_iter().collect();
            let mut parts: Vec<&[u32]> = chunks.chunks(CHUNKS_PER_MESSAGE_MAX).collect();
            if parts.is_empty() {
                parts.push(&[]);
            }
            for part in parts {
                let chunks = part.to_vec();
                self.tell(&Deposited::Stored { content, chunks }).await?;
            }
        }
        Ok(())
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for waiting in self.waiting.values_mut() {
            // Dropping a sender answers no.
            waiting.retain(|waiting| waiting.deadline > now);
        }
        self.waiting.retain(|_, waiting| !waiting.is_empty());
    }

    async fn tell(&self, deposited: &Deposited) -> io::Result<()> {
        let packet = pipe::pack(deposited);
        loop {
            let mut room = self.requests.writable().await?;
            if let Ok(sent) = room.try_io(|requests| pipe::send(requests, &packet)) {
                return sent;
            }
        }
    }
}
