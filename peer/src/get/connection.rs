//! One connection of the chunk plane, seen from the node that fetches.
//!
//! The reader takes a chunk whole into memory, within what all connections together may hold, and gives it to the
//! [`Verifier`](super::verifier::Verifier), while the next one is already being read and decrypted.

use super::{gathering::Dialled, verifier::Arrival};
use crate::{
    buffers::{Buffer, Buffers},
    dial, framed,
    node::Node,
    scheduler::SourceId,
    store::Slot,
    tls::{Reader, Writer},
};
use anchorage_manifest::{
    Bitmap, ContentId, Hash, codec,
    limits::FRAME_SIZE_MAX,
    wire::{Answer, Ask},
};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    task::spawn_blocking,
    time::timeout,
};

/// Bytes between two reports of what came, so that a stall is told from a slow line.
const REPORT_SIZE: usize = 256 << 10;

/// Time between two reports on a slow line.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// How long nothing may be asked of a source of a sealed draft before it is asked by the content's name.
const RENAME_AFTER: Duration = Duration::from_millis(50);

/// How long the source may refuse to take a request.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);

/// How long the source may take to say what it has.
const BITMAP_DEADLINE: Duration = Duration::from_secs(10);

/// How long nothing may come of what it has begun to send.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What the fetch wants of a connection.
#[derive(Debug)]
pub(super) enum Command {
    Get(u32),
    Any,
    Cancel(u32),
    Have(Vec<u32>),
}

/// What a connection tells the fetch.
#[derive(Debug)]
pub(super) enum Report {
    /// It is up, and the source has these chunks.
    Up(Bitmap),
    /// The source has these chunks as well.
    Have(Vec<u32>),
    /// It has begun to send a chunk.
    Begun(u32),
    /// It has no chunk that nobody has.
    Exhausted,
    /// Bytes came.
    Received(u64),
    /// A chunk of so many bytes is verified and stored.
    Stored(u32, u64),
    /// The source does not have a chunk.
    Missing(u32),
    /// What came is not the chunk.
    Corrupt(u32),
    /// A verified chunk cannot be written: nothing that another source could mend.
    Unwritable(anyhow::Error),
    /// The connection has ended.
    Down(anyhow::Error),
}

/// Where connections and verifier tell what happens.
pub(super) type Reports = mpsc::UnboundedSender<(SourceId, Report)>;

/// What the connections of one fetch share.
pub(super) struct Shared {
    pub(super) node: Arc<Node>,
    pub(super) slot: Arc<Slot>,
    pub(super) reports: Reports,
    pub(super) buffers: Arc<Buffers>,
    /// The fetch holds the strong one: when it is over, nothing arrives any more.
    pub(super) arrivals: mpsc::WeakUnboundedSender<Arrival>,
    /// What the slot is called once it is a draft no more.
    pub(super) sealed: OnceLock<ContentId>,
}

/// By which name one connection knows the content. One that began with a draft's goes on with it until the source
/// knows the content's: what the source tells of a draft ends with the entries that it has.
struct Name {
    draft: ContentId,
    /// Whether the source has answered by the content's name.
    is_settled: AtomicBool,
    shared: Arc<Shared>,
}

impl Name {
    fn of(shared: &Arc<Shared>) -> Self {
        let sealed = shared.sealed.get().copied();
        Self {
            draft: sealed.unwrap_or(shared.slot.id()),
            is_settled: AtomicBool::new(sealed.is_some()),
            shared: shared.clone(),
        }
    }

    /// The name to ask by.
    fn id(&self) -> ContentId {
        match self.shared.sealed.get() {
            Some(&content) if self.is_settled.load(Ordering::Relaxed) => content,
            _ => self.draft,
        }
    }

    /// The content's name, which the source may not know yet.
    fn next(&self) -> Option<ContentId> {
        let is_settled = self.is_settled.load(Ordering::Relaxed);
        self.shared.sealed.get().copied().filter(|_| !is_settled)
    }

    /// How long nothing may be asked before the source is asked by the content's name, if it ever is.
    fn patience(&self) -> Option<Duration> {
        let is_draft = self.shared.slot.is_draft() && !self.is_settled.load(Ordering::Relaxed);
        is_draft.then_some(RENAME_AFTER)
    }

    /// Whether an answer is about the content.
    fn is(&self, id: ContentId) -> bool {
        id == self.draft || self.shared.sealed.get() == Some(&id)
    }

    fn answered_by(&self, id: ContentId) {
        if self.shared.sealed.get() == Some(&id) {
            self.is_settled.store(true, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn tell(&self, id: SourceId, report: Report) {
        // When the fetch is over, nobody wants to know.
        drop(self.reports.send((id, report)));
    }
}

/// Runs a connection from the first word to the last.
pub(super) async fn run(
    shared: Arc<Shared>,
    dialled: Dialled,
    commands: mpsc::UnboundedReceiver<Command>,
) {
    let (id, address) = (dialled.id, dialled.source.address);
    let ended = match converse(&shared, dialled, commands).await {
        Ok(()) => anyhow!("not needed any more"),
        Err(error) => error.context(address.to_string()),
    };
    shared.tell(id, Report::Down(ended));
}

async fn converse(
    shared: &Arc<Shared>,
    dialled: Dialled,
    commands: mpsc::UnboundedReceiver<Command>,
) -> Result<()> {
    let id = dialled.id;
    let mut stream = dialled.stream.await.context("BUG: dialling panicked")??;
    let name = Name::of(shared);
    if dialled.asked.interested.is_none() {
        let (content, have) = (name.id(), shared.slot.have());
        framed::write(&mut stream, &Ask::Interested { content, have }).await?;
    }
    let (reader, writer) = stream.split();
    tokio::select! {
        read = read(&name, id, reader) => read,
        written = write(&name, writer, commands) => written,
    }
}

/// Turns commands into asks; as many in one go as there are.
async fn write(
    name: &Name,
    mut writer: Writer,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> Result<()> {
    let mut waiting = Vec::new();
    let mut bytes = Vec::new();
    loop {
        let receiving = commands.recv_many(&mut waiting, 256);
        let received = match name.patience() {
            Some(patience) => timeout(patience, receiving).await,
            None => Ok(receiving.await),
        };
        bytes.clear();
        match (received, name.next()) {
            (Ok(0), _) => return Ok(()),
            (Ok(_), _) => {}
            // Nothing is wanted of the source, perhaps for what it cannot tell by the draft's name.
            (Err(_), Some(content)) => {
                let have = name.shared.slot.have();
                codec::append_frame(&mut bytes, &Ask::Interested { content, have });
            }
            (Err(_), None) => continue,
        }
        let content = name.id();
        for command in waiting.drain(..) {
            let ask = match command {
                Command::Get(index) => Ask::Get { content, index },
                Command::Any => Ask::Any { content },
                Command::Have(chunks) => Ask::Have { content, chunks },
                Command::Cancel(index) => Ask::Cancel { content, index },
            };
            codec::append_frame(&mut bytes, &ask);
        }
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        timeout(WRITE_DEADLINE, written)
            .await
            .context("it reads nothing")??;
    }
}

async fn read(name: &Name, id: SourceId, mut reader: Reader) -> Result<()> {
    let shared = &name.shared;
    let geometry = shared.slot.geometry();
    let mut is_up = false;
    loop {
        let expecting = framed::expect_buffered(&mut reader, FRAME_SIZE_MAX);
        let answer = if is_up {
            expecting.await?
        } else {
            let answer = timeout(BITMAP_DEADLINE, expecting).await;
            answer.context("it does not say what it has")??
        };
        match answer {
            Answer::Bitmap {
                content: same,
                have,
            } if name.is(same) => {
                name.answered_by(same);
                ensure!(
                    have.len() == geometry.chunks(),
                    "peer sent a bitmap of {} chunks",
                    have.len()
                );
                is_up = true;
                shared.tell(id, Report::Up(have));
            }
            Answer::Have {
                content: same,
                chunks,
            } if name.is(same) => {
                shared.tell(id, Report::Have(chunks));
            }
            Answer::Missing {
                content: same,
                index,
            } if name.is(same) => match index {
                Some(index) => shared.tell(id, Report::Missing(index)),
                // It will know the content's name when it has heard of the seal.
                None if name.next() == Some(same) => {}
                None => bail!("it does not have the content"),
            },
            Answer::Exhausted { content: same } if name.is(same) => {
                shared.tell(id, Report::Exhausted);
            }
            Answer::Chunk {
                content: same,
                index,
                size,
            } if name.is(same) => {
                if geometry
                    .extent(index)
                    .is_none_or(|extent| extent.size != size)
                {
                    shared.tell(id, Report::Corrupt(index));
                    bail!("peer sent {size} bytes as chunk {index}");
                }
                shared.tell(id, Report::Begun(index));
                let permit = shared.node.incoming.clone().acquire_many_owned(size).await;
                let permit = permit.context("BUG: the semaphore is never closed")?;
                let bytes = receive(shared, id, &mut reader, size).await?;
                let arrival = Arrival {
                    from: id,
                    index,
                    bytes,
                    permit,
                };
                let arrivals = shared.arrivals.upgrade().context("the fetch is over")?;
                arrivals.send(arrival).ok().context("the fetch is over")?;
            }
            Answer::Entries {
                content: same,
                first,
                count,
                signature,
            } if name.is(same) => {
                let end = u64::from(first) + u64::from(count);
                ensure!(
                    end <= geometry.chunks().into(),
                    "peer sent entries of {end} chunks"
                );
                let mut bytes = vec![0; 32 * count as usize];
                fill(&mut reader, &mut bytes).await?;
                let slot = shared.slot.clone();
                let (hashes, _) = bytes.as_chunks::<32>();
                let hashes: Vec<Hash> = hashes.iter().copied().map(Hash).collect();
                // Before the next message, which may be about a chunk that needs them.
                spawn_blocking(move || slot.extend(first, &hashes, signature))
                    .await
                    .context("BUG: adding entries panicked")?
                    .context("peer sent entries that are not the publisher's")?;
            }
            other => return Err(dial::unexpected(&other)),
        }
    }
}

/// Reads what has been announced, as long as some of it comes now and then.
async fn fill(reader: &mut Reader, bytes: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += more(reader, &mut bytes[filled..]).await?;
    }
    Ok(())
}

async fn more(reader: &mut Reader, bytes: &mut [u8]) -> Result<usize> {
    let reading = timeout(SILENCE_MAX, reader.read(bytes)).await;
    let count = reading
        .context("it went silent within what it was sending")?
        .context("the connection broke")?;
    ensure!(count > 0, "it hung up within what it was sending");
    Ok(count)
}

/// Reads a chunk's bytes, telling now and then that they come.
async fn receive(shared: &Shared, id: SourceId, reader: &mut Reader, size: u32) -> Result<Buffer> {
    let mut bytes = shared.buffers.take(size as usize);
    let mut filled = 0;
    let mut told = 0;
    let mut told_at = Instant::now();
    reader.expect(bytes.len());
    while filled < bytes.len() {
        filled += more(reader, &mut bytes[filled..]).await?;
        if filled == bytes.len()
            || filled - told >= REPORT_SIZE
            || told_at.elapsed() >= REPORT_EVERY
        {
            shared.node.fetched.count_in(filled - told);
            shared.tell(id, Report::Received((filled - told) as u64));
            told = filled;
            told_at = Instant::now();
        }
    }
    Ok(bytes)
}
