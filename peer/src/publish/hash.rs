//! Hashing a file in one pass: chunks on one thread, the whole file on another, the disk on a third.

use super::geometry;
use crate::{
    failure::{Exit, Failure},
    store::Stamp,
};
use anchorage_manifest::{Content, Hash};
use anyhow::{Context as _, Result, anyhow};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::Path,
    sync::{Arc, mpsc},
    thread,
};
use tokio::sync::mpsc::UnboundedSender;

/// Bytes read at a time.
const PIECE_SIZE: usize = 1 << 20;

/// Pieces between the disk and each hash.
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
    let mut file = File::open(path).with_context(operand)?;
    let before = file.metadata().with_context(operand)?;
    if !before.is_file() {
        return Err(anyhow!(
            "cannot publish {}: it is not a regular file",
            path.display()
        )
        .into());
    }
    let geometry = geometry(before.len(), chunk_size)?;
    let (sha256, chunks) = thread::scope(|scope| {
        let (whole, pieces_of_whole) = mpsc::sync_channel::<Arc<Vec<u8>>>(PIECES_MAX);
        let (parts, pieces_of_parts) = mpsc::sync_channel::<Arc<Vec<u8>>>(PIECES_MAX);
        let sha256 = scope.spawn(move || {
            let mut hasher = Sha256::new();
            pieces_of_whole
                .iter()
                .for_each(|piece| hasher.update(&*piece));
            Hash::finish(hasher)
        });
        let chunks = scope
            .spawn(move || hash_chunks(&pieces_of_parts, geometry.chunk_size() as usize, found));
        let mut done = 0;
        loop {
            let mut piece = vec![0; PIECE_SIZE];
            let count = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(operand),
            };
            piece.truncate(count);
            let piece = Arc::new(piece);
            // The threads live until their channels close.
            drop(whole.send(piece.clone()));
            drop(parts.send(piece));
            done += count as u64;
            tell(done, before.len().max(done));
        }
        drop((whole, parts));
        let sha256 = sha256
            .join()
            .map_err(|_| anyhow!("BUG: hashing panicked"))?;
        let chunks = chunks
            .join()
            .map_err(|_| anyhow!("BUG: hashing panicked"))?;
        Ok((sha256, chunks))
    })?;
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

fn hash_chunks(
    pieces: &mpsc::Receiver<Arc<Vec<u8>>>,
    chunk_size: usize,
    found: &UnboundedSender<Hash>,
) -> Vec<Hash> {
    let mut chunks = Vec::new();
    let mut push = |hash| {
        chunks.push(hash);
        // Nobody listens where no draft is made.
        let _ = found.send(hash);
    };
    let mut hasher = Sha256::new();
    let mut filled = 0;
    for piece in pieces {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(chunk_size - filled));
            hasher.update(now);
            filled += now.len();
            rest = later;
            if filled == chunk_size {
                push(Hash::finish(std::mem::take(&mut hasher)));
                filled = 0;
            }
        }
    }
    if filled > 0 {
        push(Hash::finish(hasher));
    }
    chunks
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
    fn a_directory_is_not_a_file() {
        let (found, _) = unbounded_channel();
        let failure = hash(Path::new("/"), None, |_, _| (), &found).expect_err("a directory");
        assert!(
            failure.to_string().contains("not a regular file"),
            "{failure}"
        );
    }
}
