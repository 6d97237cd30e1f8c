//! Serving chunks: what peers and the transfer processes of anchors do with the very same code.
//!
//! Each connection has a reader, which takes asks and never touches a file, and behind its `outbox` a
//! `sender`, which reads the next piece from the disk while the last one is encrypted and sent.

pub mod audience;
mod connection;
mod given;
mod grant;
mod line;
mod outbox;
mod sender;
mod share;
pub mod slots;

pub use share::Share;

use crate::{
    buffers::Buffers,
    store::{Slot, Store},
    time::Time,
};
use anchorage_manifest::{Bitmap, ContentId, Geometry, limits::CHUNK_SIZE_MAX};
use audience::{AskerId, Audience};
use given::Given;
use grant::Waiting;
use slots::Slots;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc, oneshot},
};
use tokio_rustls::server::TlsStream;

/// Most bytes of chunks on their way from the network to the disk, over all connections of a process: the largest
/// chunk, or many small ones.
pub const INCOMING_SIZE_MAX: usize = CHUNK_SIZE_MAX as usize;

/// What a node that stores for others is asked and told; a node without this serves only.
#[derive(Debug)]
pub enum Deposit {
    /// May this content be stored? The reply has its sizes if a release has it.
    Admit {
        /// Which content.
        content: ContentId,
        /// Where the answer goes.
        reply: oneshot::Sender<Option<Geometry>>,
    },
    /// This was stored.
    Stored {
        /// Of which content.
        content: ContentId,
        /// Which chunk; none means the list, and all chunks that were there before it.
        index: Option<u32>,
    },
}

/// Bytes of chunks that went through a process.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// Serves the chunks of a store.
pub struct Server {
    store: Arc<Store>,
    deposits: Option<mpsc::Sender<Deposit>>,
    traffic: Traffic,
    incoming: Arc<Semaphore>,
    buffers: Buffers,
    /// Who makes hashes that nobody has made yet: one at a time, since it may take long, and threads are few.
    hashing: Arc<Semaphore>,
    slots: Mutex<Slots<Waiting>>,
    audiences: Mutex<BTreeMap<ContentId, Hearers>>,
    share: Share,
    next_asker: AtomicU64,
    /// When time began.
    epoch: Instant,
}

/// Who asks for a content, and what need not be given out by any of the servers with the same store.
struct Hearers {
    audience: Audience,
    given: Option<Given>,
}

impl Server {
    /// A server of `store`, which takes chunks from others if somebody answers its `deposits`.
    /// Of `share` it gives every chunk out once before it gives one out twice.
    pub fn new(
        store: Arc<Store>,
        deposits: Option<mpsc::Sender<Deposit>>,
        share: Share,
    ) -> Arc<Self> {
        let incoming = Arc::new(Semaphore::new(INCOMING_SIZE_MAX));
        Arc::new(Self {
            store,
            deposits,
            traffic: Traffic::default(),
            incoming,
            buffers: Buffers::default(),
            hashing: Arc::new(Semaphore::new(1)),
            slots: Mutex::default(),
            audiences: Mutex::default(),
            share,
            next_asker: AtomicU64::new(0),
            epoch: Instant::now(),
        })
    }

    /// Serves one connection to its end.
    pub async fn serve(self: Arc<Self>, stream: TlsStream<TcpStream>) {
        connection::run(self, stream).await;
    }

    /// Bytes of chunks in and out so far.
    pub fn traffic(&self) -> (u64, u64) {
        self.traffic.read()
    }

    fn now(&self) -> Time {
        Time::default() + self.epoch.elapsed()
    }

    /// A number for a connection.
    fn asker(&self) -> AskerId {
        self.next_asker.fetch_add(1, Ordering::Relaxed)
    }

    /// Somebody begins to ask for a content, and has some of it.
    fn join(&self, asker: AskerId, slot: &Slot, have: &Bitmap) {
        let chunks = slot.geometry().chunks();
        let mut audiences = self.audiences();
        let hearers = audiences.entry(slot.id()).or_insert_with(|| Hearers {
            audience: Audience::new(chunks, self.share),
            given: self.given(slot),
        });
        if have.len() == chunks {
            hearers.audience.join(self.now(), asker, have);
        }
    }

    /// What others with the same store have given out; none if there are none, or it cannot be known.
    fn given(&self, slot: &Slot) -> Option<Given> {
        let sibling = self.share.sibling()?;
        Given::open(&slot.given_path(), sibling).ok()
    }

    /// An asker has a chunk, or is being sent it.
    fn has(&self, asker: AskerId, content: ContentId, index: u32) {
        if let Some(Hearers { audience, given }) = self.audiences().get_mut(&content)
            && audience.has(self.now(), asker, index)
            && let Some(given) = given
        {
            // Whoever gave it out: those with the same store are not to give it out again.
            given.claim(index);
        }
    }

    /// A chunk for an asker that no asker has yet.
    fn choose(&self, asker: AskerId, slot: &Slot) -> Option<u32> {
        let mut audiences = self.audiences();
        let Hearers { audience, given } = audiences.get_mut(&slot.id())?;
        let claim = |index| given.as_ref().is_none_or(|given| given.claim(index));
        audience.take(self.now(), asker, &slot.have(), claim)
    }

    /// An asker has gone.
    fn leave(&self, asker: AskerId) {
        self.audiences().retain(|_, hearers| {
            hearers.audience.leave(asker);
            !hearers.audience.is_empty()
        });
    }

    fn audiences(&self) -> MutexGuard<'_, BTreeMap<ContentId, Hearers>> {
        self.audiences
            .lock()
            .expect("no holder of this lock panics")
    }
}

impl Traffic {
    /// Counts bytes that came in.
    pub fn count_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that went out.
    pub fn count_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes in and out so far.
    pub fn read(&self) -> (u64, u64) {
        (
            self.bytes_in.load(Ordering::Relaxed),
            self.bytes_out.load(Ordering::Relaxed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Place;
    use anchorage_manifest::Content;
    use anyhow::Result;

    #[test]
    fn what_one_server_hears_is_out_is_not_given_out_by_another_with_the_same_store() -> Result<()>
    {
        let directory = tempfile::tempdir()?;
        let content = Content::of(&[7; 8 * 1_024], 1_024)?;
        let open = |index| {
            let store = Store::open(directory.path())?;
            let share = Share::part(0, 2).of_sibling(index, 2);
            let server = Server::new(store.clone(), None, share);
            anyhow::Ok((store, server))
        };
        let (store, one) = open(0)?;
        let slot = store.create(&content, &Place::inside())?;
        for index in 0..8 {
            slot.store(index, &[7; 1_024])?;
        }
        let (store, two) = open(1)?;
        let same = store.slot(slot.id()).expect("it is there");
        let (asker, other) = (one.asker(), two.asker());
        one.join(asker, &slot, &Bitmap::empty(8));
        two.join(other, &same, &Bitmap::empty(8));
        assert_eq!(one.choose(asker, &slot), Some(0));
        // From another source, of either's share.
        for index in [1, 4, 5] {
            one.has(asker, slot.id(), index);
        }
        let given = || two.choose(other, &same);
        assert_eq!([given(), given(), given()], [Some(2), Some(6), None]);
        std::thread::sleep(std::time::Duration::from_millis(250));
        assert_eq!([given(), given(), given()], [Some(7), Some(3), None]);
        Ok(())
    }
}
