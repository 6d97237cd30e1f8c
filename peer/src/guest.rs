//! Commands for the node that lives in a home already: over a Unix socket, one JSON object a line.
//!
//! ```text
//! guest                        host
//!  │ command ───────────────────► │
//!  │ ◄──────────────── event … ── │
//!  │ ◄──────────────────── end ── │
//! ```
//! A guest that hangs up takes its command back.

use crate::{
    command::Command,
    event::{Ended, Event, Events},
    failure::Failure,
    home::Home,
    node::Node,
};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::{fs, io::ErrorKind, os::unix::fs::PermissionsExt as _, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
};

/// Longest command in bytes.
const COMMAND_SIZE_MAX: u64 = 64 << 10;

/// A line from the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Event(Event),
    End(Ended),
}

/// The host's side.
pub struct Host {
    guests: watch::Sender<usize>,
}

impl Host {
    /// Takes commands for `node`, which lives in `home`, from now on.
    pub fn open(home: &Home, node: &Arc<Node>) -> Result<Arc<Self>> {
        let operand = || format!("cannot take commands in {}", home.path().display());
        // Nobody else lives here, so a socket that is left is nobody's.
        match fs::remove_file(home.socket()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(operand);
            }
            _ => {}
        }
        let listener = UnixListener::bind(home.socket()).with_context(operand)?;
        fs::set_permissions(home.socket(), fs::Permissions::from_mode(0o600))
            .with_context(operand)?;
        let host = Arc::new(Self {
            guests: watch::Sender::new(0),
        });
        tokio::spawn(host.clone().accept(listener, node.clone()));
        Ok(host)
    }

    /// Waits until no guest is left.
    pub async fn empty(&self) {
        // The sender is this host itself.
        drop(
            self.guests
                .subscribe()
                .wait_for(|&guests| guests == 0)
                .await,
        );
    }

    async fn accept(self: Arc<Self>, listener: UnixListener, node: Arc<Node>) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            self.guests.send_modify(|guests| *guests += 1);
            let (host, node) = (self.clone(), node.clone());
            tokio::spawn(async move {
                // A guest that is gone needs no answer.
                drop(serve(stream, &node).await);
                host.guests.send_modify(|guests| *guests -= 1);
            });
        }
    }
}

async fn serve(stream: UnixStream, node: &Arc<Node>) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(COMMAND_SIZE_MAX));
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let (events, mut told) = Events::channel();
    let running = async {
        let command: Command = serde_json::from_str(&line)
            .context("the node that lives here does not know this command")?;
        let result = command.run(node, &events).await;
        drop(events);
        result
    };
    let writing = async {
        while let Some(event) = told.recv().await {
            write(&mut writer, &Line::Event(event)).await?;
        }
        anyhow::Ok(())
    };
    let both = async { tokio::join!(running, writing) };
    let mut rest = [0];
    let (result, written) = tokio::select! {
        ended = both => ended,
        // The guest has nothing more to say, so whatever comes is its end.
        _ = reader.read(&mut rest) => return Ok(()),
    };
    written?;
    write(&mut writer, &Line::End(Ended::from(result))).await
}

async fn write(writer: &mut (impl tokio::io::AsyncWrite + Unpin), line: &Line) -> Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    Ok(())
}

/// Has the node that lives in `home` run a command. None if nobody answers there, or it leaves before it says a word.
pub async fn ask(home: &Home, command: &Command, events: &Events) -> Option<Result<(), Failure>> {
    let stream = UnixStream::connect(home.socket()).await.ok()?;
    let mut is_heard = false;
    let result = converse(stream, command, events, &mut is_heard).await;
    is_heard.then_some(result)
}

async fn converse(
    stream: UnixStream,
    command: &Command,
    events: &Events,
    is_heard: &mut bool,
) -> Result<(), Failure> {
    let (reader, mut writer) = stream.into_split();
    let mut text = serde_json::to_vec(command)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        *is_heard = true;
        let line =
            serde_json::from_str(&line).context("the node that lives here answers nonsense")?;
        match line {
            Line::Event(event) => events.tell(event),
            Line::End(ended) => return ended.into(),
        }
    }
    Err(anyhow::anyhow!("the node that lives in this home ended before the command did").into())
}
