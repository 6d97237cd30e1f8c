//! The yardstick of `tests/bench/swarm`: a relay chain whose links are encrypted and whose nodes verify, and nothing else.
//!
//! ```text
//! the file ─► first ──── TLS ────► relay ──── TLS ────► relay ──── TLS ────► … last
//!                                     hash, pwrite            hash, pwrite
//! ```
//! Every node has one thread and takes a chunk at a time: it opens the chunk's records, goes on with the hash of the file,
//! by whose state after a chunk Anchorage verifies it, writes the chunk, and passes it on from memory. Nobody chooses,
//! nobody tells who has what, nothing
//! is read again, and nothing would go on without a node that has failed. TLS stream and hashes are those of Anchorage:
//! what a swarm takes beyond this is what sharing costs.

use crate::link::{Linker, say, wait_to_start};
use anchorage_manifest::Hash;
use anchorage_peer::{
    sha256::Running,
    tls::{Reader, Stream, Writer},
};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use std::{
    fs::{File, OpenOptions},
    hint::black_box,
    net::SocketAddr,
    os::unix::fs::FileExt as _,
    path::PathBuf,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// A node of the chain. Without `--from` it is the first and sends the file, without `--listen` it is the last.
#[derive(Args)]
pub(crate) struct Relay {
    /// Where the node before listens
    #[arg(long)]
    from: Option<SocketAddr>,
    /// Where to wait for the node behind
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Bytes in all
    #[arg(long)]
    size: u64,
    /// Bytes of a chunk
    #[arg(long, default_value_t = 32 << 10)]
    chunk_size: usize,
    /// The file to read or to write
    file: PathBuf,
}

impl Relay {
    /// Prints `ready`, waits for a line on stdin, prints `done` when all is there and gone, and stays until it is killed.
    pub(crate) fn run(&self) -> Result<()> {
        ensure!(self.chunk_size > 0, "chunks of no bytes");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = match self.listen {
                Some(address) => Some(TcpListener::bind(address).await?),
                None => None,
            };
            wait_to_start()?;
            let linker = Linker::new()?;
            let accepting = async {
                match &listener {
                    Some(listener) => linker.answer(listener.accept().await?.0).await.map(Some),
                    None => Ok(None),
                }
            };
            // Both at once: the node before waits for this one as this one for the node behind.
            let (before, behind) = tokio::try_join!(linker.dial_if(self.from), accepting)?;
            let (mut before, mut behind) = (before.map(Stream::split), behind.map(Stream::split));
            let before = before.as_mut().map(|(reader, _)| reader);
            let behind = behind.as_mut().map(|(_, writer)| writer);
            let hash = self.pass_on(before, behind).await?;
            say(&format!("{hash:?}"))?;
            say("done")?;
            std::future::pending().await
        })
    }

    /// The hash of all that has come.
    async fn pass_on(
        &self,
        mut before: Option<&mut Reader>,
        mut behind: Option<&mut Writer>,
    ) -> Result<Hash> {
        let is_first = before.is_none();
        let file = OpenOptions::new()
            .read(is_first)
            .write(!is_first)
            .create(!is_first)
            .open(&self.file)
            .with_context(|| format!("cannot open {}", self.file.display()))?;
        let mut whole = Running::default();
        let mut block = vec![0; self.chunk_size];
        for offset in (0..self.size).step_by(self.chunk_size) {
            let left = usize::try_from(self.size - offset).unwrap_or(usize::MAX);
            let chunk = &mut block[..left.min(self.chunk_size)];
            match &mut before {
                Some(reader) => take(reader, chunk, &mut whole, &file, offset).await?,
                None => file.read_exact_at(chunk, offset)?,
            }
            if let Some(writer) = &mut behind {
                writer.write_all(chunk).await?;
                writer.flush().await?;
            }
        }
        Ok(whole.finish())
    }
}

/// Receives a chunk, hashes it, and writes it.
async fn take(
    reader: &mut Reader,
    chunk: &mut [u8],
    whole: &mut Running,
    file: &File,
    offset: u64,
) -> Result<()> {
    reader.expect(chunk.len());
    reader.read_exact(chunk).await?;
    whole.update(chunk);
    // There is no list to compare with.
    black_box(whole.state());
    file.write_all_at(chunk, offset)?;
    Ok(())
}
