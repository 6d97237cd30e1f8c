//! One control connection, from `Hello` to its end: a reader and a writer that never wait for each other.

use super::desk::{Desk, Question, Seat};
use anchorage_manifest::{
    NodeId, codec,
    limits::{HEARTBEATS_MISSED_MAX, PROTOCOL_VERSION, REQUEST_SIZE_MAX},
    wire::{Push, Refusal, Reply, Request, ToAnchor, ToPeer},
};
use anchorage_peer::framed;
use anyhow::Result;
use serde::Serialize;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::server::TlsStream;

/// Most requests of one session without a reply; then its next one is not read.
const IN_FLIGHT_MAX: usize = 64;

/// Most messages that wait for a peer to read them; then it is hung up on.
const OUTGOING_MAX: usize = 512;

/// Longest time for a peer to take one message.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Longest silence of a peer that has not joined.
const IDLE_STRANGER: Duration = Duration::from_secs(60);

/// Longest silence of a peer that has joined, on top of its missed heartbeats.
const IDLE_MEMBER: Duration = Duration::from_secs(10);

/// Longest wait, and most bytes, for a peer to read a refusal before its connection is closed.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 64 << 10);

/// A session of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(pub(super) u64);

/// What a session's writer gets. A queue of messages has room for some dozens from the start, so they are small.
pub(super) enum Outgoing {
    /// The answer to a request, or something that the peer should know.
    Frame {
        /// Its bytes.
        frame: Vec<u8>,
        /// The request is in flight until the answer is written: who reads nothing is read no further.
        permit: Option<OwnedSemaphorePermit>,
    },
    /// Nothing more will be sent: say good-bye.
    End,
}

impl Outgoing {
    /// Something that the peer should know.
    pub(super) fn push(push: &Push) -> Self {
        let frame = codec::frame(&ToPeer::Push(push.clone()));
        let permit = None;
        Self::Frame { frame, permit }
    }
}

/// The answer to the request that the peer has given this number.
pub(super) fn frame(id: u32, reply: Reply) -> Vec<u8> {
    codec::frame(&ToPeer::Reply { id, reply })
}

/// The same of a reply that is encoded already.
pub(super) fn frame_of_encoded(id: u32, reply: &[u8]) -> Vec<u8> {
    /// All of [`ToPeer::Reply`] but the reply.
    #[derive(Serialize)]
    enum Head {
        Reply { id: u32 },
    }
    codec::frame_of(&Head::Reply { id }, reply)
}

/// Why reading has ended.
enum End {
    /// The peer has gone, or is hung up on: nothing more to say.
    Gone,
    /// The peer is told why.
    Refused { id: u32, refusal: Refusal },
}

/// Serves one connection to its end.
pub(super) async fn run(
    stream: TlsStream<TcpStream>,
    node: NodeId,
    observed: SocketAddr,
    desk: Arc<Desk>,
) {
    let (mut reader, writer) = tokio::io::split(stream);
    let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
    let (alive, ended) = oneshot::channel();
    let seat = Seat {
        outgoing: outgoing.clone(),
        _alive: alive,
    };
    let Some(session) = desk.sit(seat) else {
        return;
    };
    let mut writing = tokio::spawn(write(writer, queue));
    let talk = Talk {
        session,
        node,
        observed,
        desk: &desk,
        outgoing: &outgoing,
    };
    let end = tokio::select! {
        end = talk.read(&mut reader) => end,
        _ = ended => End::Gone,
        _ = &mut writing => {
            desk.leave(session);
            linger(&mut reader).await;
            return;
        }
    };
    desk.leave(session);
    if let End::Refused { id, refusal } = end {
        let reply = Reply::Refused { refusal };
        // A peer that reads nothing misses it.
        let _ = outgoing.try_send(Outgoing::Frame {
            frame: frame(id, reply),
            permit: None,
        });
        drop(outgoing);
        let _ = writing.await;
        linger(&mut reader).await;
        return;
    }
    drop(outgoing);
    // Ends at the latest when a write takes too long.
    let _ = writing.await;
}

/// The reading side.
struct Talk<'a> {
    session: SessionId,
    node: NodeId,
    observed: SocketAddr,
    desk: &'a Desk,
    outgoing: &'a mpsc::Sender<Outgoing>,
}

impl Talk<'_> {
    async fn read(&self, reader: &mut ReadHalf<TlsStream<TcpStream>>) -> End {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut greeted = false;
        loop {
            let permit = in_flight.clone().acquire_owned().await;
            let permit = permit.expect("it is never closed");
            let message = match timeout(self.patience(), next(reader)).await {
                Ok(Ok(Some(message))) => message,
                Ok(Err(error)) => match framed::nonsense(&error) {
                    Some(text) => {
                        let refusal = Refusal::Malformed(text);
                        return End::Refused { id: 0, refusal };
                    }
                    None => return End::Gone,
                },
                Ok(Ok(None)) | Err(_) => return End::Gone,
            };
            let ToAnchor { id, request } = message;
            match (request, greeted) {
                (Request::Hello { version }, false) if version == PROTOCOL_VERSION => {
                    greeted = true;
                    let reply = Reply::Welcome { version };
                    let permit = Some(permit);
                    let frame = frame(id, reply);
                    let welcome = Outgoing::Frame { frame, permit };
                    if self.outgoing.try_send(welcome).is_err() {
                        return End::Gone;
                    }
                }
                (Request::Hello { .. }, true) => {
                    let refusal = Refusal::Malformed("a second Hello".into());
                    return End::Refused { id, refusal };
                }
                (_, false) => {
                    let supported = PROTOCOL_VERSION;
                    let refusal = Refusal::Version { supported };
                    return End::Refused { id, refusal };
                }
                (request, true) => self.desk.ask(Question {
                    session: self.session,
                    id,
                    node: self.node,
                    observed: self.observed,
                    request,
                    permit,
                }),
            }
        }
    }

    /// How long the peer may say nothing.
    fn patience(&self) -> Duration {
        if self.desk.has_joined(self.session) {
            let heartbeat = Duration::from_millis(self.desk.heartbeat_ms().into());
            heartbeat * HEARTBEATS_MISSED_MAX + IDLE_MEMBER
        } else {
            IDLE_STRANGER
        }
    }
}

async fn next(reader: &mut ReadHalf<TlsStream<TcpStream>>) -> Result<Option<ToAnchor>> {
    framed::read(reader, REQUEST_SIZE_MAX).await
}

/// The writing side: ends with the queue, with the connection, or when the peer does not read.
async fn write(mut writer: WriteHalf<TlsStream<TcpStream>>, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(Outgoing::Frame { frame, permit }) = queue.recv().await {
        let writing = async {
            writer.write_all(&frame).await?;
            // What comes together goes together.
            if queue.is_empty() {
                writer.flush().await?;
            }
            std::io::Result::Ok(())
        };
        if !matches!(timeout(WRITE_PATIENCE, writing).await, Ok(Ok(()))) {
            break;
        }
        drop(permit);
    }
    // A peer that has gone does not need the good-bye.
    let _ = timeout(WRITE_PATIENCE, writer.shutdown()).await;
}

/// Reads on for a moment: closing a socket with unread bytes takes back what was written last.
async fn linger(reader: &mut ReadHalf<TlsStream<TcpStream>>) {
    let (patience, size_max) = LINGER;
    // On the heap: every session would keep room for it.
    let mut scrap = vec![0; 1_024];
    let reading = async {
        let mut left = size_max;
        while let Ok(1..) = reader.read(&mut scrap).await {
            left = left.saturating_sub(scrap.len());
            if left == 0 {
                break;
            }
        }
    };
    // Either way the connection ends now.
    let _ = timeout(patience, reading).await;
}
