//! What the nodes of `yardstick relay` and `yardstick mesh` have in common: when they start, and their connections, which
//! are the TLS stream of Anchorage and take any key.

use anchorage_peer::{
    identity::Identity,
    tls::{self, Stream},
};
use anyhow::{Context as _, Result};
use std::{
    io::{Write as _, stdin, stdout},
    net::SocketAddr,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const ALPN: &[u8] = b"anchorage-relay";

/// How long it is tried to reach a node, which starts at the same moment.
const PATIENCE: (u32, Duration) = (200, Duration::from_millis(10));

/// Makes a node's connections, all with one key.
#[derive(Clone)]
pub(crate) struct Linker {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl Linker {
    pub(crate) fn new() -> Result<Self> {
        let identity = Identity::generate()?;
        Ok(Self {
            connector: tls::client_config(&identity, ALPN, None)?.into(),
            acceptor: tls::server_config(&identity, &[ALPN])?.into(),
        })
    }

    /// Connects to a node that listens, or is about to.
    pub(crate) async fn dial(&self, address: SocketAddr) -> Result<Stream> {
        let (tries, pause) = PATIENCE;
        let mut connected = TcpStream::connect(address).await;
        for _ in 1..tries {
            if connected.is_ok() {
                break;
            }
            sleep(pause).await;
            connected = TcpStream::connect(address).await;
        }
        let socket = connected.with_context(|| format!("cannot dial {address}"))?;
        socket.set_nodelay(true)?;
        let connecting = self.connector.connect(tls::server_name(), socket);
        let mut stream = connecting.await?;
        // A word from each side, so that nothing is on its way when the stream is taken over; the next is this side's.
        stream.write_u8(0).await?;
        stream.flush().await?;
        stream.read_u8().await?;
        let (socket, connection) = stream.into_inner();
        let mut stream = Stream::take_over(socket, connection)?;
        stream.write_u8(0).await?;
        stream.flush().await?;
        Ok(stream)
    }

    /// [`Linker::dial`], if there is somebody.
    pub(crate) async fn dial_if(&self, address: Option<SocketAddr>) -> Result<Option<Stream>> {
        match address {
            Some(address) => self.dial(address).await.map(Some),
            None => Ok(None),
        }
    }

    /// The other side of a dial.
    pub(crate) async fn answer(&self, socket: TcpStream) -> Result<Stream> {
        socket.set_nodelay(true)?;
        let mut stream = self.acceptor.accept(socket).await?;
        stream.read_u8().await?;
        stream.write_u8(0).await?;
        stream.flush().await?;
        let (socket, connection) = stream.into_inner();
        let mut stream = Stream::take_over(socket, connection)?;
        stream.read_u8().await?;
        Ok(stream)
    }
}

/// Says `ready`, and waits for a line.
pub(crate) fn wait_to_start() -> Result<()> {
    say("ready")?;
    stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Says a word to whoever started this node.
pub(crate) fn say(word: &str) -> Result<()> {
    let mut out = stdout();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}
