//! Serving chunks: what peers and the transfer processes of anchors do with the very same code.
//!
//! Each connection has a reader, which takes asks and never touches a file, and behind its [`outbox`] a loader and
//! a writer: the next piece is read from the disk while the last one is encrypted and sent.

mod connection;
mod outbox;

use crate::store::Store;
use anchorage_manifest::{ContentId, Geometry};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc, oneshot},
};
use tokio_rustls::server::TlsStream;

/// Most bytes of chunks on their way from the network to the disk, over all connections of a process.
pub const INCOMING_SIZE_MAX: usize = 32 << 20;

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
        /// Which chunk; none means the list.
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
}

impl Server {
    /// A server of `store`, which takes chunks from others if somebody answers its `deposits`.
    pub fn new(store: Arc<Store>, deposits: Option<mpsc::Sender<Deposit>>) -> Arc<Self> {
        let incoming = Arc::new(Semaphore::new(INCOMING_SIZE_MAX));
        Arc::new(Self {
            store,
            deposits,
            traffic: Traffic::default(),
            incoming,
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
