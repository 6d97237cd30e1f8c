//! A transfer process: moves chunks in and out of the store, with the very code that peers serve with.
//!
//! Sockets come out of its mailbox as they were accepted; the TLS handshake is its own. What may be stored it asks
//! the manifest process, and what was stored it tells it; it never sees the database.

mod depot;
mod mailbox;

use super::{StatusPipe, forward_orders, next_order};
use crate::{
    order::{Order, ToTransfer, TransferStart},
    packet::Counters,
    sys::descriptors::{self, FIRST},
};
use anchorage_manifest::wire::ALPN_CHUNKS;
use anchorage_peer::{
    identity::Identity,
    serve::{Deposit, Server},
    store::Store,
    tls,
};
use anyhow::{Context as _, Result, bail};
use depot::Depot;
use ipc_channel::ipc::IpcReceiver;
use mailbox::Mailbox;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// How long a handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// Time between two reports.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// How long transfers under way may take when the process drains.
const DRAIN_PATIENCE: Duration = Duration::from_millis(2_500);

/// A process that drains and has moved no byte for so long has nothing under way.
const DRAIN_QUIET: Duration = Duration::from_millis(300);

/// Deposits that wait for the depot.
const DEPOSITS_MAX: usize = 256;

/// Messages of the manifest process that wait for the depot.
const REPLIES_MAX: usize = 256;

/// Time between two times that others are told what was found of a content that is read again.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// A draft to which nothing was added for so long will not be sealed.
const DRAFT_IDLE: Duration = Duration::from_secs(600);

/// Is a transfer process until it is drained.
pub(super) fn run(status: &StatusPipe, orders: IpcReceiver<Order>) -> Result<()> {
    let Order::StartTransfer(start) = next_order(&orders) else {
        bail!("the first order is no start");
    };
    let (sender, orders_here) = mpsc::unbounded_channel();
    forward_orders(orders, move |order| {
        // The receiver lives as long as the process.
        let _ = sender.send(order);
    });
    let store = Store::open(&start.store)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(&start, store, status, orders_here));
    // A write to a slow disk is not waited for: it was not acknowledged.
    runtime.shutdown_background();
    result
}

/// What every connection needs.
struct Hall {
    acceptor: TlsAcceptor,
    server: Arc<Server>,
    connections: AtomicUsize,
}

async fn serve(
    start: &TransferStart,
    store: Arc<Store>,
    status: &StatusPipe,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> Result<()> {
    let mailbox = Mailbox::new(descriptors::take(FIRST + 1)?)?;
    let (deposits, deposited) = mpsc::channel(DEPOSITS_MAX);
    let (replies, heard) = mpsc::channel(REPLIES_MAX);
    let depot = Depot::new(store.clone(), descriptors::take(FIRST + 2)?)?;
    tokio::spawn(depot.run(deposited, heard));
    if start.share.sibling().unwrap_or(0) == 0 {
        tokio::spawn(recheck(store.clone(), deposits.clone()));
    }
    let identity = Identity::from_seed(start.seed);
    let hall = Arc::new(Hall {
        acceptor: TlsAcceptor::from(tls::server_config(&identity, &[ALPN_CHUNKS])?),
        server: Server::new(store.clone(), Some(deposits), start.share),
        connections: AtomicUsize::new(0),
    });
    let mut ticks = interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweeps = interval(DRAFT_IDLE / 4);
    status.ready();
    loop {
        tokio::select! {
            stream = mailbox.take() => match stream {
                Ok(stream) => {
                    tokio::spawn(hall.clone().receive(stream));
                }
                Err(error) => bail!("the mailbox is broken: {error}"),
            },
            order = orders.recv() => match order {
                Some(Order::AttachTransfer(channel)) => attach(channel, replies.clone()),
                Some(Order::Drain) | None => break,
                Some(order) => bail!("an order for another task: {order:?}"),
            },
            _ = ticks.tick() => status.counted(hall.counters()),
            _ = sweeps.tick() => {
                let store = store.clone();
                spawn_blocking(move || store.sweep(DRAFT_IDLE));
            }
        }
    }
    drain(&hall).await;
    status.counted(hall.counters());
    Ok(())
}

/// Reads again what was not flushed when the machine stopped, offers what is good of it, and flushes what is whole. Of the
/// processes that share the store one does it.
async fn recheck(store: Arc<Store>, deposits: mpsc::Sender<Deposit>) {
    let slots = store.slots().into_iter();
    for slot in slots.filter(|slot| slot.in_doubt() || slot.is_unsettled()) {
        let again = slot.clone();
        let mut looking = spawn_blocking(move || again.recheck().and_then(|()| again.settle()));
        let mut is_over = false;
        while !is_over {
            // Of what cannot be marked or flushed the next start makes something.
            is_over = timeout(TELL_EVERY, &mut looking).await.is_ok();
            // Another process may have sealed a draft meanwhile.
            for content in slot.became().into_iter().chain([slot.id()]) {
                let index = None;
                drop(deposits.send(Deposit::Stored { content, index }).await);
            }
        }
    }
}

/// Takes replies from a new life of the manifest process.
fn attach(channel: IpcReceiver<Vec<ToTransfer>>, replies: mpsc::Sender<ToTransfer>) {
    std::thread::spawn(move || {
        // It ends when that life does, or this process.
        while let Ok(batch) = channel.recv() {
            for message in batch {
                if replies.blocking_send(message).is_err() {
                    return;
                }
            }
        }
    });
}

/// Waits until nothing moves any more.
async fn drain(hall: &Hall) {
    let deadline = Instant::now() + DRAIN_PATIENCE;
    let mut moved = (hall.server.traffic(), Instant::now());
    while hall.connections.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
        let traffic = hall.server.traffic();
        if traffic != moved.0 {
            moved = (traffic, Instant::now());
        } else if moved.1.elapsed() >= DRAIN_QUIET {
            return;
        }
    }
}

impl Hall {
    async fn receive(self: Arc<Self>, stream: TcpStream) {
        // Small requests, each of them waited for.
        let _ = stream.set_nodelay(true);
        let accepting = self.acceptor.accept(stream);
        if let Ok(Ok(stream)) = timeout(HANDSHAKE_PATIENCE, accepting).await
            && stream.get_ref().1.alpn_protocol() == Some(ALPN_CHUNKS)
        {
            self.connections.fetch_add(1, Ordering::Relaxed);
            self.server.clone().serve(stream).await;
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn counters(&self) -> Counters {
        let (bytes_in, bytes_out) = self.server.traffic();
        Counters {
            bytes_in,
            bytes_out,
            ..Counters::default()
        }
    }
}
