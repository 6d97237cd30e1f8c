//! Hashing a file in one pass: the whole file and its chunks side by side on one thread, the disk on another.
//!
//! Where two hashes side by side take as long as one after the other, the disk's thread takes over the whole file.

use super::geometry;
use crate::{
    buffers::Buffers,
    failure::{Exit, Failure},
    sha256::{self, BLOCK_SIZE, Running, update_both_with},
    store::Stamp,
};
use anchorage_manifest::{Content, Hash};
use anyhow::{Context as _, Result, anyhow};
use std::{fs::File, io::Read, mem, path::Path, sync::mpsc, thread};
use tokio::sync::mpsc::UnboundedSender;

/// Bytes read at a time.
const PIECE_SIZE: usize = 1 << 20;

/// Pieces between the disk and the hashes.
const PIECES_MAX: usize = 4;

/// Reads a file whole and makes its content. `tell` is told of bytes done and bytes to do, `found` of the chunks'
/// hashes in order. Blocks.
pub(super) fn hash(
    path: &Path,
    chunk_size: Option<u32>,
    tell: impl Fn(u64, u64),
    found: &UnboundedSender<Hash>,
) -> Result<Content, Failure> {
    let operand = || format!("cannot publish {}", path.display());
    let file = File::open(path).with_context(operand)?;
    let before = file.metadata().with_context(operand)?;
    if !before.is_file() {
        return Err(anyhow!(
            "cannot publish {}: it is not a regular file",
            path.display()
        )
        .into());
    }
    let geometry = geometry(before.len(), chunk_size)?;
    let chunk_size = geometry.chunk_size() as usize;
    // Only where the blocks of both end together.
    let side_by_side = sha256::has_pairs() && chunk_size.is_multiple_of(BLOCK_SIZE);
    let chunks = Chunks::new(chunk_size, found);
    let tell = |done| tell(done, before.len().max(done));
    let hashed = hash_both(file, chunks, side_by_side, tell);
    let (sha256, chunks) = hashed.with_context(operand)?;
    let changed = || {
        let error = anyhow!("{} changed while it was read", path.display());
        Failure::new(Exit::Failed, error).hint("publish it again when nobody writes to it")
    };
    let after = std::fs::metadata(path).with_context(operand)?;
    if Stamp::of(&after) != Stamp::of(&before) {
        return Err(changed());
    }
    Content::new(geometry, sha256, chunks).map_err(|_| changed())
}

/// The hashes of all that can be read, and of its chunks; if `side_by_side`, on one thread. `tell` is told of the bytes
/// that were read.
fn hash_both(
    mut file: impl Read,
    mut chunks: Chunks,
    side_by_side: bool,
    tell: impl Fn(u64),
) -> Result<(Hash, Vec<Hash>)> {
    let mut whole = Running::default();
    let (mut beside_disk, mut beside_chunks) = (None, None);
    if side_by_side {
        beside_chunks = Some(&mut whole);
    } else {
        beside_disk = Some(&mut whole);
    }
    let buffers = Buffers::default();
    let chunks = thread::scope(|scope| {
        let (pieces, to_hash) = mpsc::sync_channel::<Vec<u8>>(PIECES_MAX);
        let buffers = &buffers;
        let hashing = scope.spawn(move || {
            for piece in to_hash {
                chunks.update(&piece, beside_chunks.as_deref_mut());
                buffers.give_back(piece);
            }
            chunks.finish()
        });
        let mut done = 0;
        loop {
            let mut piece = buffers.take(0);
            let count = file
                .by_ref()
                .take(PIECE_SIZE as u64)
                .read_to_end(&mut piece)?;
            if count == 0 {
                break;
            }
            if let Some(whole) = &mut beside_disk {
                whole.update(&piece);
            }
            // The thread lives until its channel closes.
            drop(pieces.send(piece));
            done += count as u64;
            tell(done);
        }
        drop(pieces);
        hashing.join().map_err(|_| anyhow!("BUG: hashing panicked"))
    })?;
    Ok((whole.finish(), chunks))
}

/// The hashes of a file's chunks, as its bytes come.
struct Chunks<'a> {
    size: usize,
    /// The chunk that has begun, of which so many bytes are missing.
    running: Running,
    missing: usize,
    hashes: Vec<Hash>,
    found: &'a UnboundedSender<Hash>,
}

impl<'a> Chunks<'a> {
    fn new(size: usize, found: &'a UnboundedSender<Hash>) -> Self {
        Self {
            size,
            running: Running::default(),
            missing: size,
            hashes: Vec::new(),
            found,
        }
    }

    /// Goes on with `bytes`, and beside it with what else they are to be hashed into.
    fn update(&mut self, mut bytes: &[u8], mut beside: Option<&mut Running>) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.missing));
            match &mut beside {
                Some(beside) => update_both_with(now, &mut self.running, beside),
                None => self.running.update(now),
            }
            bytes = later;
            self.missing -= now.len();
            if self.missing == 0 {
                self.end_chunk();
            }
        }
    }

    /// The hashes, the last one of what has come of its chunk.
    fn finish(mut self) -> Vec<Hash> {
        if self.missing < self.size {
            self.end_chunk();
        }
        self.hashes
    }

    fn end_chunk(&mut self) {
        let hash = mem::take(&mut self.running).finish();
        self.missing = self.size;
        self.hashes.push(hash);
        // Nobody listens where no draft is made.
        let _ = self.found.send(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::unbounded_channel;

    #[test]
    fn both_hashes_are_those_of_the_bytes() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("file");
        for size in [0, 1, 1023, 1024, 1025, 3 << 20, (3 << 20) + 7] {
            let bytes: Vec<u8> = (0..size).map(|i: u32| (i % 253).to_le_bytes()[0]).collect();
            std::fs::write(&path, &bytes)?;
            let (found, mut told) = unbounded_channel();
            let content = hash(&path, Some(1024), |_, _| (), &found);
            let content = content.map_err(|failure| failure.error)?;
            assert_eq!(content.sha256(), Hash::of(&bytes));
            let chunks: Vec<Hash> = bytes.chunks(1024).map(Hash::of).collect();
            assert_eq!(content.chunks(), chunks);
            for chunk in chunks {
                assert_eq!(told.try_recv(), Ok(chunk));
            }
            assert!(told.is_empty());
        }
        Ok(())
    }

    #[test]
    fn both_hashes_are_the_same_on_one_thread_and_on_two() -> Result<()> {
        let bytes: Vec<u8> = (0..3_000_000u32)
            .map(|i| (i % 251).to_le_bytes()[0])
            .collect();
        for chunk_size in [1024, 1500, 1 << 20] {
            for side_by_side in [false, true] {
                let (found, _told) = unbounded_channel();
                let chunks = Chunks::new(chunk_size, &found);
                let (sha256, chunks) = hash_both(&bytes[..], chunks, side_by_side, |_| ())?;
                assert_eq!(sha256, Hash::of(&bytes));
                let expected: Vec<Hash> = bytes.chunks(chunk_size).map(Hash::of).collect();
                assert_eq!(chunks, expected);
            }
        }
        Ok(())
    }

    #[test]
    fn a_directory_is_not_a_file() {
        let (found, _) = unbounded_channel();
        let failure = hash(Path::new("/"), None, |_, _| (), &found).expect_err("a directory");
        assert!(
            failure.to_string().contains("not a regular file"),
            "{failure}"
        );
    }
}
