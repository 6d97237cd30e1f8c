//! The other yardstick of `tests/bench/swarm`: what a mesh takes in which nobody chooses and nothing is said.
//!
//! ```text
//! the file ─► origin ── chunk n ──► getter n mod N ── the same chunk ──► every other getter
//!                                      hash, pwrite                         hash, pwrite
//! ```
//! Every getter has a connection from every other one, as the getters of Anchorage have where they are few. The origin
//! gives each chunk to one of them in turn, and that one passes it on, from memory, to all others. It is the least that
//! has every chunk travel two hops at most and every line carry as much as any other: no lists, requests, news, acks,
//! slots or recovery, one thread a node. Of the processors, what a swarm takes beyond this is what choosing costs, and what
//! this takes beyond the chain is what many connections cost. Its makespan is what TCP makes of them by itself.

use crate::link::{Linker, say, wait_to_start};
use anchorage_manifest::{Geometry, geometry::Extent};
use anchorage_peer::{
    sha256::Running,
    tls::{Reader, Stream, Writer},
};
use anyhow::{Context as _, Result};
use clap::Args;
use std::{
    fs::File,
    hint::black_box,
    mem,
    net::SocketAddr,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
};

/// Chunks that the origin has ready for a getter: those who are quicker do not get more.
const AHEAD: usize = 2;

/// A node of the mesh. Without `--origin` it is the origin and sends the file.
#[derive(Args)]
pub(crate) struct Mesh {
    /// Where the origin listens
    #[arg(long)]
    origin: Option<SocketAddr>,
    /// Where the other getters listen
    #[arg(long, value_delimiter = ',')]
    others: Vec<SocketAddr>,
    /// Where to wait for those who are sent to
    #[arg(long)]
    listen: SocketAddr,
    /// How many these are
    #[arg(long)]
    askers: usize,
    /// Bytes in all
    #[arg(long)]
    size: u64,
    /// Bytes of a chunk
    #[arg(long, default_value_t = 32 << 10)]
    chunk_size: u32,
    /// The file to read or to write
    file: PathBuf,
}

/// A chunk and its number.
type Chunk = (u32, Arc<Block>);

/// A chunk's bytes, in memory that is used again.
struct Block(Vec<u8>);

/// Memory that no chunk is in.
static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// What a getter has.
struct Taken {
    file: File,
    geometry: Geometry,
}

impl Mesh {
    /// Prints `ready`, waits for a line on stdin, prints `done` when all is there, and stays until it is killed.
    pub(crate) fn run(&self) -> Result<()> {
        let geometry = Geometry::new(self.size, self.chunk_size)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind(self.listen).await?;
            wait_to_start()?;
            let linker = Linker::new()?;
            // All at once: everybody waits for everybody.
            let (origin, others, askers) = tokio::try_join!(
                linker.dial_if(self.origin),
                self.dial_others(&linker),
                self.accept(&linker, &listener)
            )?;
            match origin {
                Some(origin) => {
                    let origin = origin.split().0;
                    self.take(geometry, origin, others, askers).await?;
                }
                None => self.give(geometry, askers).await?,
            }
            say("done")?;
            std::future::pending().await
        })
    }

    async fn dial_others(&self, linker: &Linker) -> Result<Vec<Reader>> {
        let mut dialling = JoinSet::new();
        for &address in &self.others {
            let linker = linker.clone();
            dialling.spawn(async move { linker.dial(address).await });
        }
        let streams = all(dialling).await?;
        Ok(streams.into_iter().map(|stream| stream.split().0).collect())
    }

    async fn accept(&self, linker: &Linker, listener: &TcpListener) -> Result<Vec<Writer>> {
        let mut answering = JoinSet::new();
        for _ in 0..self.askers {
            let (socket, _) = listener.accept().await?;
            let linker = linker.clone();
            answering.spawn(async move { linker.answer(socket).await });
        }
        let streams = all(answering).await?;
        Ok(streams.into_iter().map(|stream| stream.split().1).collect())
    }

    /// The origin's part: each chunk goes to one getter, in turn.
    async fn give(&self, geometry: Geometry, askers: Vec<Writer>) -> Result<()> {
        let file = File::open(&self.file)?;
        let queues = senders(askers, AHEAD);
        for (queue, index) in queues.iter().cycle().zip(0..geometry.chunks()) {
            let Extent { offset, size } = extent(geometry, index)?;
            let mut bytes = Block::new(size as usize);
            file.read_exact_at(&mut bytes.0, offset)?;
            queue.send((index, Arc::new(bytes))).await?;
        }
        Ok(())
    }

    /// A getter's part: what comes from the origin goes on to all others.
    async fn take(
        &self,
        geometry: Geometry,
        origin: Reader,
        others: Vec<Reader>,
        askers: Vec<Writer>,
    ) -> Result<()> {
        let file = File::create(&self.file)?;
        // Nobody waits for room: what is passed on is in memory once, however many lack it.
        let queues = senders(askers, geometry.chunks() as usize);
        let (arriving, mut arrivals) = mpsc::unbounded_channel();
        let receive = |mut reader: Reader, is_first: bool| {
            let arriving = arriving.clone();
            tokio::spawn(async move {
                while let Ok(index) = reader.read_u32().await {
                    let size = extent(geometry, index)?.size as usize;
                    let mut bytes = Block::new(size);
                    reader.expect(size);
                    reader.read_exact(&mut bytes.0).await?;
                    arriving.send((index, Arc::new(bytes), is_first))?;
                }
                anyhow::Ok(())
            });
        };
        receive(origin, true);
        others.into_iter().for_each(|other| receive(other, false));
        // When the last of them has hung up, nothing comes any more.
        drop(arriving);
        let taken = Taken { file, geometry };
        for _ in 0..geometry.chunks() {
            let arrived = arrivals.recv().await;
            let (index, bytes, is_first) = arrived.context("everybody has hung up")?;
            taken.store(index, &bytes)?;
            if is_first {
                for queue in &queues {
                    queue.try_send((index, bytes.clone()))?;
                }
            }
        }
        Ok(())
    }
}

impl Taken {
    /// Hashes a chunk, as who verifies it does from the state before it, and writes it.
    fn store(&self, index: u32, bytes: &Arc<Block>) -> Result<()> {
        let mut hash = Running::default();
        hash.update(&bytes.0);
        // There is no list to compare with.
        black_box(hash.state());
        let offset = extent(self.geometry, index)?.offset;
        Ok(self.file.write_all_at(&bytes.0, offset)?)
    }
}

impl Block {
    /// So many bytes, whatever they are.
    fn new(size: usize) -> Self {
        let free = FREE.lock().expect("no holder of this lock panics").pop();
        let mut bytes = free.unwrap_or_default();
        bytes.resize(size, 0);
        Self(bytes)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut free = FREE.lock().expect("no holder of this lock panics");
        free.push(mem::take(&mut self.0));
    }
}

/// The connections, once all are there.
async fn all(mut tasks: JoinSet<Result<Stream>>) -> Result<Vec<Stream>> {
    let mut streams = Vec::new();
    while let Some(stream) = tasks.join_next().await {
        streams.push(stream??);
    }
    Ok(streams)
}

/// Where chunks for each of these wait, so many at most, until they are sent.
fn senders(writers: Vec<Writer>, room: usize) -> Vec<mpsc::Sender<Chunk>> {
    let send = |mut writer: Writer| {
        let (queue, mut queued) = mpsc::channel::<Chunk>(room);
        tokio::spawn(async move {
            while let Some((index, bytes)) = queued.recv().await {
                writer.write_u32(index).await?;
                writer.write_all(&bytes.0).await?;
                writer.flush().await?;
            }
            anyhow::Ok(())
        });
        queue
    };
    writers.into_iter().map(send).collect()
}

fn extent(geometry: Geometry, index: u32) -> Result<Extent> {
    geometry.extent(index).context("a chunk past the end")
}
