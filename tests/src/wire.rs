//! One end of a connection by hand: blocking TLS, frames, and bytes that no node would send.

use anchorage_manifest::{
    Bitmap, ContentId, NodeId,
    codec::{self, PREFIX_SIZE},
    limits::{FRAME_SIZE_MAX, PROTOCOL_VERSION},
    wire::{ALPN_CHUNKS, ALPN_CONTROL, Answer, Ask, Reply, Request, ToAnchor, ToPeer},
};
use anchorage_peer::{identity::Identity, tls};
use anyhow::{Context as _, Result, bail, ensure};
use rustls::{ClientConnection, ConnectionCommon, SideData, StreamOwned};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How long one read may take before the deadline and the stop are looked at.
const TICK: Duration = Duration::from_millis(100);

/// A TLS connection that sends and receives frames, and anything else.
pub struct Wire<C> {
    stream: StreamOwned<C, TcpStream>,
    limit: Duration,
    stop: Arc<AtomicBool>,
}

/// A peer's end of a control connection.
pub struct Control {
    wire: Wire<ClientConnection>,
    id: u32,
}

/// An asker's end of a chunk connection.
pub struct Chunks {
    wire: Wire<ClientConnection>,
}

impl Wire<ClientConnection> {
    /// Dials with a TLS config of the caller's.
    pub fn dial(address: SocketAddr, config: Arc<rustls::ClientConfig>) -> Result<Self> {
        let connection = ClientConnection::new(config, tls::server_name())?;
        let socket =
            TcpStream::connect(address).with_context(|| format!("cannot dial {address}"))?;
        Self::new(connection, socket, Arc::default())
    }
}

impl<C, S> Wire<C>
where
    C: DerefMut + Deref<Target = ConnectionCommon<S>>,
    S: SideData + 'static,
{
    /// Puts TLS on a socket; `stop` ends every wait.
    pub fn new(connection: C, socket: TcpStream, stop: Arc<AtomicBool>) -> Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TICK))?;
        Ok(Self {
            stream: StreamOwned {
                conn: connection,
                sock: socket,
            },
            limit: Duration::from_secs(30),
            stop,
        })
    }

    /// Completes the handshake; sending and receiving do it by themselves.
    pub fn handshake(&mut self) -> Result<()> {
        let deadline = Instant::now() + self.limit;
        while self.stream.conn.is_handshaking() {
            match self.stream.conn.complete_io(&mut self.stream.sock) {
                Ok(_) => {}
                Err(error) if again(&error) => {}
                Err(error) => return Err(error).context("the handshake failed"),
            }
            ensure!(Instant::now() < deadline, "the handshake takes too long");
        }
        Ok(())
    }

    /// How long a message may take to come.
    pub fn patience(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Sends a message.
    pub fn send(&mut self, message: &impl Serialize) -> Result<()> {
        self.send_raw(&codec::frame(message))
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.handshake()?;
        self.stream.write_all(bytes).context("cannot send")?;
        self.stream.flush().context("cannot send")
    }

    /// The next message; `None` where the other side has hung up.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let mut prefix = [0; PREFIX_SIZE];
        if !self.fill(&mut prefix)? {
            return Ok(None);
        }
        let mut body = vec![0; codec::body_size(prefix, FRAME_SIZE_MAX)?];
        if !self.fill(&mut body)? {
            return Ok(None);
        }
        Ok(Some(codec::decode(&body)?))
    }

    /// So many raw bytes.
    pub fn receive_raw(&mut self, size: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; size as usize];
        ensure!(self.fill(&mut bytes)?, "the other side hung up");
        Ok(bytes)
    }

    /// Waits until the other side hangs up, whatever it says before.
    pub fn is_hung_up_on(&mut self) -> Result<()> {
        let mut block = [0; 4096];
        while self.fill(&mut block[..1])? {}
        Ok(())
    }

    /// The protocol that the handshake agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.conn.alpn_protocol()
    }

    /// Whose key the other side has proved.
    pub fn node(&self) -> Result<NodeId> {
        tls::node_of(&self.stream.conn)
    }

    /// Where the other side is.
    pub fn remote(&self) -> Result<SocketAddr> {
        self.stream.sock.peer_addr().context("a socket")
    }

    /// Where this side is.
    pub fn local(&self) -> Result<SocketAddr> {
        self.stream.sock.local_addr().context("a socket")
    }

    /// Fills `buffer`; false where the stream ends or breaks before.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let deadline = Instant::now() + self.limit;
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(false),
                Ok(count) => filled += count,
                Err(error) if again(&error) => {
                    if self.stop.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                    ensure!(
                        Instant::now() < deadline,
                        "nothing came within {} s",
                        self.limit.as_secs()
                    );
                }
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }
}

fn again(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

impl Control {
    /// Dials an anchor and says hello.
    pub fn dial(address: SocketAddr, identity: &Identity) -> Result<Self> {
        let mut control = Self::dial_silently(address, identity)?;
        let hello = Request::Hello {
            version: PROTOCOL_VERSION,
        };
        match control.ask(hello)? {
            Reply::Welcome { .. } => Ok(control),
            other => bail!("hello was answered by {other:?}"),
        }
    }

    /// Dials an anchor and says nothing.
    pub fn dial_silently(address: SocketAddr, identity: &Identity) -> Result<Self> {
        let config = tls::client_config(identity, ALPN_CONTROL, None)?;
        Ok(Self {
            wire: Wire::dial(address, config)?,
            id: 0,
        })
    }

    /// Asks and waits for the answer; pushes that come between are dropped.
    pub fn ask(&mut self, request: Request) -> Result<Reply> {
        self.id += 1;
        let what = format!("{request:?}");
        self.wire.send(&ToAnchor {
            id: self.id,
            request,
        })?;
        loop {
            match self.wire.receive()? {
                Some(ToPeer::Reply { id, reply }) if id == self.id => return Ok(reply),
                Some(_) => {}
                None => bail!("the anchor hung up on {what}"),
            }
        }
    }

    /// Asks, and wants to be told "done".
    pub fn ask_done(&mut self, request: Request) -> Result<()> {
        let what = format!("{request:?}");
        match self.ask(request)? {
            Reply::Done => Ok(()),
            other => bail!("{what} was answered by {other:?}"),
        }
    }

    /// Joins, serving at `port` of this side's address.
    pub fn join(&mut self, port: u16) -> Result<Reply> {
        self.ask(Request::Join {
            port,
            advertise: None,
        })
    }

    /// Announces chunks of a content.
    pub fn announce(&mut self, content: ContentId, have: &Bitmap) -> Result<()> {
        for segment in have.segments() {
            self.ask_done(Request::Announce { content, segment })?;
        }
        Ok(())
    }

    /// The connection itself.
    pub fn wire(&mut self) -> &mut Wire<ClientConnection> {
        &mut self.wire
    }
}

impl Chunks {
    /// Dials a node and says hello.
    pub fn dial(address: SocketAddr, identity: &Identity) -> Result<Self> {
        let mut chunks = Self::dial_silently(address, identity)?;
        chunks.wire.send(&Ask::Hello {
            version: PROTOCOL_VERSION,
        })?;
        match chunks.answer()? {
            Answer::Welcome { .. } => Ok(chunks),
            other => bail!("hello was answered by {other:?}"),
        }
    }

    /// Dials a node and says nothing.
    pub fn dial_silently(address: SocketAddr, identity: &Identity) -> Result<Self> {
        let config = tls::client_config(identity, ALPN_CHUNKS, None)?;
        Ok(Self {
            wire: Wire::dial(address, config)?,
        })
    }

    /// The next answer.
    pub fn answer(&mut self) -> Result<Answer> {
        self.wire.receive()?.context("the source hung up")
    }

    /// Asks, and waits for the next answer that is no `Have`.
    pub fn ask(&mut self, ask: &Ask) -> Result<Answer> {
        self.wire.send(ask)?;
        loop {
            match self.answer()? {
                Answer::Have { .. } => {}
                answer => return Ok(answer),
            }
        }
    }

    /// The connection itself.
    pub fn wire(&mut self) -> &mut Wire<ClientConnection> {
        &mut self.wire
    }
}
