//! Connections between the nodes of `yardstick relay` and `yardstick mesh`: the TLS stream of Anchorage, and any key.

use anchorage_peer::{
    identity::Identity,
    tls::{self, Stream},
};
use anyhow::{Context as _, Result};
use std::{
    io::{Write as _, stdout},
    net::SocketAddr,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const ALPN: &[u8] = b"anchorage-relay";

/// How long it is tried to reach a node, which starts at the same moment.
const PATIENCE: (u32, Duration) = (200, Duration::from_millis(10));

/// Connects to a node that listens, or is about to.
pub(crate) async fn dial(address: SocketAddr) -> Result<Stream> {
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
    let config = tls::client_config(&Identity::generate()?, ALPN, None)?;
    let connector = TlsConnector::from(config);
    let mut stream = connector.connect(tls::server_name(), socket).await?;
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

/// [`dial`], if there is somebody.
pub(crate) async fn dial_if(address: Option<SocketAddr>) -> Result<Option<Stream>> {
    match address {
        Some(address) => dial(address).await.map(Some),
        None => Ok(None),
    }
}

/// Waits for a node that connects.
pub(crate) async fn accept(listener: &TcpListener) -> Result<Stream> {
    let (socket, _) = listener.accept().await?;
    socket.set_nodelay(true)?;
    let acceptor = TlsAcceptor::from(tls::server_config(&Identity::generate()?, &[ALPN])?);
    let mut stream = acceptor.accept(socket).await?;
    stream.read_u8().await?;
    stream.write_u8(0).await?;
    stream.flush().await?;
    let (socket, connection) = stream.into_inner();
    let mut stream = Stream::take_over(socket, connection)?;
    stream.read_u8().await?;
    Ok(stream)
}

/// Says a word to whoever started this node.
pub(crate) fn say(word: &str) -> Result<()> {
    let mut out = stdout();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}
