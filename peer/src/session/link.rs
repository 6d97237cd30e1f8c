//! One connection to an anchor: dialled, verified, and greeted.

use super::Ground;
use crate::{
    config::AnchorConfig,
    failure::{Exit, Failure},
    framed, tls,
};
use anchorage_manifest::{
    NodeId,
    limits::{FRAME_SIZE_MAX, PROTOCOL_VERSION},
    wire::{ALPN_CONTROL, Push, Refusal, Reply, Request, ToAnchor, ToPeer},
};
use anyhow::{Context as _, Result, anyhow};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{ReadHalf, WriteHalf},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long a TCP connection may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// How long the handshake and the greeting may take.
const GREETING_DEADLINE: Duration = Duration::from_secs(5);

/// How long the anchor may refuse to take a request.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);

/// Frames that were read and not looked at yet.
const FRAMES_MAX: usize = 256;

/// What an anchor sent.
pub(super) enum Frame {
    Reply { id: u32, reply: Reply },
    Push(Push),
}

/// A connection that is up.
pub(super) struct Link {
    pub(super) node: NodeId,
    pub(super) address: SocketAddr,
    writer: WriteHalf<TlsStream<TcpStream>>,
    frames: mpsc::Receiver<Result<ToPeer>>,
    reading: tokio::task::AbortHandle,
}

impl Link {
    /// Connects to an anchor, checks its key and says hello. What is to be said first need not wait for the answer.
    pub(super) async fn dial(anchor: &AnchorConfig, ground: &Ground) -> Result<Self, Failure> {
        let name = name_of(anchor);
        let known = match anchor.key {
            Some(key) => Some(key),
            None => ground.known_anchors.key(&anchor.address)?,
        };
        let (stream, address) = connect(anchor)
            .await
            .with_context(|| format!("cannot connect to {name}"))?;
        let config = tls::client_config(&ground.identity, ALPN_CONTROL, known)?;
        let handshake = TlsConnector::from(config).connect(tls::server_name(), stream);
        let stream = match timeout(GREETING_DEADLINE, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.to_string().contains(tls::WRONG_KEY) => {
                return Err(wrong_key(anchor, ground, &name));
            }
            Ok(Err(error)) => {
                return Err(anyhow!(error)
                    .context(format!("{name} is not an anchor"))
                    .into());
            }
            Err(_) => {
                return Err(anyhow!("{name} takes the connection and then says nothing").into());
            }
        };
        let node = tls::node_of(stream.get_ref().1)?;
        let (reader, writer) = tokio::io::split(stream);
        let (read, frames) = mpsc::channel(FRAMES_MAX);
        let reading = tokio::spawn(receive(reader, read)).abort_handle();
        let mut link = Self {
            node,
            address,
            writer,
            frames,
            reading,
        };
        let version = PROTOCOL_VERSION;
        let greeted = link.send(0, Request::Hello { version }).await;
        greeted.with_context(|| format!("cannot talk to {name}"))?;
        Ok(link)
    }

    /// Waits for the anchor's hello, and remembers its key.
    pub(super) async fn greeted(
        &mut self,
        anchor: &AnchorConfig,
        ground: &Ground,
    ) -> Result<(), Failure> {
        let name = name_of(anchor);
        match timeout(GREETING_DEADLINE, self.welcome()).await {
            Ok(welcome) => welcome.with_context(|| format!("{name} does not want to talk"))?,
            Err(_) => return Err(anyhow!("{name} does not answer").into()),
        }
        if anchor.key.is_none() {
            ground
                .known_anchors
                .remember(anchor.id, &anchor.address, self.node)?;
        }
        Ok(())
    }

    /// Sends a request.
    pub(super) async fn send(&mut self, id: u32, request: Request) -> Result<()> {
        let frame = ToAnchor { id, request };
        timeout(WRITE_DEADLINE, framed::write(&mut self.writer, &frame))
            .await
            .context("the anchor reads nothing")?
    }

    /// Waits for the next frame. Cancel safe.
    pub(super) async fn receive(&mut self) -> Result<Frame> {
        match self.frames.recv().await.context("the anchor hung up")?? {
            ToPeer::Reply { id, reply } => Ok(Frame::Reply { id, reply }),
            ToPeer::Push(push) => Ok(Frame::Push(push)),
        }
    }

    async fn welcome(&mut self) -> Result<()> {
        match self.receive().await? {
            Frame::Reply {
                reply:
                    Reply::Welcome {
                        version: PROTOCOL_VERSION,
                    },
                ..
            } => Ok(()),
            Frame::Reply {
                reply:
                    Reply::Refused {
                        refusal: Refusal::Version { supported },
                    },
                ..
            } => Err(anyhow!(
                "it speaks version {supported} of the protocol, this is version {PROTOCOL_VERSION}"
            )),
            Frame::Reply { reply, .. } => Err(super::unexpected(&reply)),
            Frame::Push(_) => Err(anyhow!("it pushes before it greets")),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn name_of(anchor: &AnchorConfig) -> String {
    format!("anchor {} at {}", anchor.id, anchor.address)
}

async fn receive(mut reader: ReadHalf<TlsStream<TcpStream>>, read: mpsc::Sender<Result<ToPeer>>) {
    loop {
        let frame = framed::expect(&mut reader, FRAME_SIZE_MAX).await;
        let is_last = frame.is_err();
        if read.send(frame).await.is_err() || is_last {
            return;
        }
    }
}

async fn connect(anchor: &AnchorConfig) -> Result<(TcpStream, SocketAddr)> {
    let config = anchor.clone();
    let addresses = tokio::task::spawn_blocking(move || config.resolve()).await??;
    let mut last = anyhow!("the name has no address");
    for address in addresses {
        match timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                drop(stream.set_nodelay(true));
                return Ok((stream, address));
            }
            Ok(Err(error)) => last = error.into(),
            Err(_) => last = anyhow!("no answer for {} s", CONNECT_DEADLINE.as_secs()),
        }
    }
    Err(last)
}

fn wrong_key(anchor: &AnchorConfig, ground: &Ground, name: &str) -> Failure {
    let path = ground.known_anchors.path().display();
    let (what, hint) = match anchor.key {
        Some(_) => (
            "the config says",
            "ask whoever runs the anchor for its key".to_owned(),
        ),
        None => (
            "it had before",
            format!(
                "if the anchor was set up anew, remove its line from {path}; \
                 if not, somebody is in between"
            ),
        ),
    };
    Failure::new(Exit::Failed, anyhow!("{name} has another key than {what}")).hint(hint)
}
