//! One session of the load of `tests/bench/control`: as light as possible, so that the anchor is the bottleneck.

use anchorage_manifest::{
    NodeId,
    codec::{self, PREFIX_SIZE},
    limits::{FRAME_SIZE_MAX, PROTOCOL_VERSION},
    wire::{ALPN_CONTROL, Reply, Request, ToAnchor, ToPeer},
};
use anchorage_peer::{framed, identity::Identity, tls};
use anyhow::{Context as _, Result, bail};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Sessions from one address; each needs a port, and ports are few.
const PEERS_PER_ADDRESS: u32 = 5_000;

/// A session; a peer's heartbeats are its acks.
pub(crate) struct Peer {
    /// Whom it talks to.
    pub(crate) anchor: NodeId,
    /// Milliseconds for which it is to collect acks, once it has joined.
    pub(crate) collect_ms: u32,
    stream: TlsStream<TcpStream>,
    next_id: u32,
    bytes_in: u64,
}

impl Peer {
    /// Connects from an address of loopback that its number says, and says hello.
    pub(crate) async fn dial(anchor: SocketAddr, identity: Identity, number: u32) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if anchor.ip().is_loopback() {
            let [_, _, _, last] = (1 + number / PEERS_PER_ADDRESS).to_be_bytes();
            socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
        }
        let stream = socket.connect(anchor).await;
        let stream = stream.with_context(|| format!("cannot dial {anchor}"))?;
        stream.set_nodelay(true)?;
        let config = tls::client_config(&identity, ALPN_CONTROL, None)?;
        let stream = TlsConnector::from(config)
            .connect(tls::server_name(), stream)
            .await
            .with_context(|| format!("no handshake of peer {number}"))?;
        let mut peer = Self {
            anchor: tls::node_of(stream.get_ref().1)?,
            collect_ms: 0,
            stream,
            next_id: 0,
            bytes_in: 0,
        };
        let version = PROTOCOL_VERSION;
        match peer.ask(Request::Hello { version }).await? {
            Reply::Welcome { .. } => Ok(peer),
            other => bail!("hello was answered by {other:?}"),
        }
    }

    /// Joins, as if it served at a port.
    pub(crate) async fn join(&mut self, port: u16) -> Result<()> {
        let advertise = None;
        match self.ask(Request::Join { port, advertise }).await? {
            Reply::Joined { collect_ms, .. } => {
                self.collect_ms = collect_ms;
                Ok(())
            }
            other => bail!("join was answered by {other:?}"),
        }
    }

    /// Asks and waits for the answer. Nothing else may be under way.
    pub(crate) async fn ask(&mut self, request: Request) -> Result<Reply> {
        self.send(request).await?;
        self.receive().await
    }

    /// Asks.
    pub(crate) async fn send(&mut self, request: Request) -> Result<()> {
        self.next_id += 1;
        let id = self.next_id;
        framed::write(&mut self.stream, &ToAnchor { id, request }).await
    }

    /// The next answer; pushes are dropped.
    pub(crate) async fn receive(&mut self) -> Result<Reply> {
        loop {
            let mut prefix = [0; PREFIX_SIZE];
            let read = self.stream.read_exact(&mut prefix).await;
            read.context("the anchor hung up")?;
            let mut body = vec![0; codec::body_size(prefix, FRAME_SIZE_MAX)?];
            self.stream.read_exact(&mut body).await?;
            self.bytes_in += (PREFIX_SIZE + body.len()) as u64;
            if let ToPeer::Reply { reply, .. } = codec::decode(&body)? {
                return Ok(reply);
            }
        }
    }

    /// Bytes of frames that came so far, before encryption.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in
    }
}

/// Wants to have been told "done".
pub(crate) fn expect_done(reply: &Reply) -> Result<()> {
    match reply {
        Reply::Done => Ok(()),
        other => bail!("answered by {other:?}"),
    }
}
