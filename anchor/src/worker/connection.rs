//! The connection process: accepts every connection and finds out what it is for.
//!
//! ```text
//! accept ─► peek at the ClientHello ─► ALPN anchorage-chunks:  hand the untouched socket to a transfer process
//!                                      ALPN anchorage-control: handshake, then the control protocol
//!                                      no TLS at all:          one sentence of plain text
//! ```
//! What peers ask goes up a pipe to the manifest process, whose replies come down a channel. It opens no file.

mod desk;
mod hello;
mod session;
mod transfers;
mod uplink;

use super::{StatusPipe, forward_orders, next_order};
use crate::{
    order::{ConnectionStart, Order, ToConnection},
    packet::Counters,
    sys::descriptors::{self, FIRST},
};
use anchorage_manifest::wire::ALPN_CONTROL;
use anchorage_peer::{identity::Identity, tls};
use anyhow::{Context as _, Result, bail};
use desk::Desk;
use hello::Purpose;
use ipc_channel::ipc::IpcReceiver;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use transfers::Transfers;

/// Most connections that have not said yet who they are and what they want; more are closed at once.
const STRANGERS_MAX: usize = 4_096;

/// How long a connection may take to say so.
const STRANGER_PATIENCE: Duration = Duration::from_secs(10);

/// Pause when no connection can be accepted, for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Most batches of replies that wait for the thread of the sessions.
const BATCHES_MAX: usize = 16;

/// Time between two looks at deadlines, and between two reports.
const TICK: Duration = Duration::from_millis(500);

/// How long requests under way may take when the process drains.
const DRAIN_PATIENCE: Duration = Duration::from_millis(1_500);

/// How long sessions may take to say good-bye then.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(500);

/// Is the connection process until it is drained.
pub(super) fn run(status: &StatusPipe, orders: IpcReceiver<Order>) -> Result<()> {
    let Order::StartConnection(start) = next_order(&orders) else {
        bail!("the first order is no start");
    };
    let (sender, orders_here) = mpsc::unbounded_channel();
    forward_orders(orders, move |order| {
        // The receiver lives as long as the process.
        let _ = sender.send(order);
    });
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(start, status, orders_here))
}

/// What every connection needs.
struct Front {
    acceptor: TlsAcceptor,
    transfers: Transfers,
    desk: Arc<Desk>,
}

async fn serve(
    start: ConnectionStart,
    status: &StatusPipe,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> Result<()> {
    let listener = std::net::TcpListener::from(descriptors::take(FIRST + 1)?);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener).context("cannot use the listener")?;
    let desk = Arc::new(Desk::new(start.heartbeat_ms));
    tokio::spawn(uplink::run(descriptors::take(FIRST + 2)?, desk.clone()));
    let identity = Identity::from_seed(start.seed);
    let front = Arc::new(Front {
        acceptor: TlsAcceptor::from(tls::server_config(&identity, &[ALPN_CONTROL])?),
        transfers: Transfers::take(start.transfers)?,
        desk: desk.clone(),
    });
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    status.ready();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, observed)) => {
                    if let Ok(permit) = strangers.clone().try_acquire_owned() {
                        tokio::spawn(front.clone().receive(stream, observed, permit));
                    }
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            order = orders.recv() => match order {
                Some(Order::AttachConnection(replies)) => attach(desk.clone(), replies),
                Some(Order::Reload { heartbeat_ms }) => desk.set_heartbeat(heartbeat_ms),
                Some(Order::Drain) | None => break,
                Some(order) => bail!("an order for another task: {order:?}"),
            },
            _ = ticks.tick() => {
                desk.expire(Instant::now());
                status.counted(Counters::default());
            }
        }
    }
    drop(listener);
    drain(&desk).await;
    Ok(())
}

/// Takes replies from a new life of the manifest process.
fn attach(desk: Arc<Desk>, replies: IpcReceiver<Vec<ToConnection>>) {
    let (sender, mut batches) = mpsc::channel(BATCHES_MAX);
    std::thread::spawn(move || {
        // It ends when that life does.
        while let Ok(batch) = replies.recv() {
            if sender.blocking_send(batch).is_err() {
                return;
            }
        }
    });
    // Sessions are woken by the thread that runs them: a whole batch for one wake-up of that thread.
    tokio::spawn(async move {
        while let Some(batch) = batches.recv().await {
            desk.hear(batch);
        }
    });
}

/// Waits for the replies under way, then ends every session.
async fn drain(desk: &Desk) {
    let deadline = Instant::now() + DRAIN_PATIENCE;
    while desk.has_pending() && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    desk.close();
    let deadline = Instant::now() + GOODBYE_PATIENCE;
    while !desk.is_deserted() && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
}

impl Front {
    /// One connection, from its first byte to its end. The permit is for the time before it is known.
    async fn receive(
        self: Arc<Self>,
        stream: TcpStream,
        observed: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        let deadline = Instant::now() + STRANGER_PATIENCE;
        let purpose = tokio::time::timeout_at(deadline, hello::purpose(&stream)).await;
        match purpose {
            Ok(Ok(Purpose::Chunks)) => self.transfers.give(stream),
            Ok(Ok(Purpose::Control)) => {
                // Small messages, each of them waited for.
                let _ = stream.set_nodelay(true);
                let accepting = self.acceptor.accept(stream);
                let Ok(Ok(stream)) = tokio::time::timeout_at(deadline, accepting).await else {
                    return;
                };
                let connection = stream.get_ref().1;
                let Ok(node) = tls::node_of(connection) else {
                    return;
                };
                if connection.alpn_protocol() == Some(ALPN_CONTROL) {
                    drop(permit);
                    // A task of its own, as small as it is: this one has room for a handshake.
                    tokio::spawn(session::run(stream, node, observed, self.desk.clone()));
                }
            }
            Ok(Ok(Purpose::Foreign)) => {
                // Whoever does not read the sentence misses it.
                let _ = timeout(STRANGER_PATIENCE, hello::explain(stream)).await;
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
