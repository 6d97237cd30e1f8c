//! Making a file's list in one pass on two threads: one reads, the other one hashes.
//!
//! The states of the file's SHA-256 between its chunks are its list, so nothing else is hashed.

use super::geometry;
use crate::{
    buffers::{Buffer, Buffers},
    failure::{Exit, Failure},
    sha256::Running,
    store::Stamp,
};
use anchorage_manifest::{Content, Geometry, Hash};
use anyhow::{Context as _, Result, anyhow};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::mpsc,
    thread,
};
use tokio::sync::mpsc::UnboundedSender;

/// Bytes read at a time, at most: few enough for what is on its way to stay in the second cache of both threads.
const PIECE_SIZE: usize = 256 << 10;

/// Pieces between the disk and the hashes.
const PIECES_MAX: usize = 2;

/// Reads a file whole and makes its content; how the file looked meanwhile. `tell` is told of bytes done and bytes to do,
/// `found` of the states after its chunks in order. Blocks.
pub(super) fn hash(
    path: &Path,
    chunk_size: Option<u32>,
    tell: impl Fn(u64, u64),
    found: &UnboundedSender<Hash>,
) -> Result<(Content, Stamp), Failure> {
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
    let tell = |done| tell(done, before.len().max(done));
    let states = hash_all(file, geometry, tell, found).with_context(operand)?;
    let after = std::fs::metadata(path).with_context(operand)?;
    let stamp = Stamp::of(&before);
    match Content::new(geometry, states) {
        Ok(content) if Stamp::of(&after) == stamp => Ok((content, stamp)),
        _ => Err(changed(path)),
    }
}

/// The file is not what was hashed.
pub(super) fn changed(path: &Path) -> Failure {
    let error = anyhow!("{} changed while it was published", path.display());
    Failure::new(Exit::Failed, error).hint("publish it again when nobody writes to it")
}

/// The states after the chunks of all that can be read, of which `found` is told in order. `tell` is told of the bytes that
/// were read.
fn hash_all(
    mut file: impl Read,
    geometry: Geometry,
    tell: impl Fn(u64),
    found: &UnboundedSender<Hash>,
) -> Result<Vec<Hash>> {
    let buffers = Buffers::default();
    thread::scope(|scope| {
        let (pieces, to_hash) = mpsc::sync_channel(PIECES_MAX);
        let buffers = &buffers;
        let hashing = scope.spawn(move || hash_pieces(to_hash, geometry, buffers, found));
        let mut done = 0;
        loop {
            let mut bytes = buffers.take(PIECE_SIZE);
            let count = read_all(&mut file, &mut bytes)?;
            if count == 0 {
                break;
            }
            bytes.resize(count);
            // The thread lives until its channel closes.
            drop(pieces.send(bytes));
            done += count as u64;
            tell(done);
        }
        drop(pieces);
        hashing.join().map_err(|_| anyhow!("BUG: hashing panicked"))
    })
}

/// Fills `bytes` as far as there is something to read; how far.
fn read_all(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < bytes.len() {
        match file.read(&mut bytes[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Hashes a file, and notes where it stands after each chunk.
fn hash_pieces(
    pieces: mpsc::Receiver<Buffer>,
    geometry: Geometry,
    buffers: &Buffers,
    found: &UnboundedSender<Hash>,
) -> Vec<Hash> {
    let chunk_size = geometry.chunk_size() as usize;
    let mut hash = Running::default();
    let mut missing = chunk_size;
    let mut states = Vec::new();
    let mut add = |hash: &Running| {
        let is_last = states.len() + 1 >= geometry.chunks() as usize;
        // Only the last chunk ends within a block, unless the file has changed.
        let state = hash.state().filter(|_| !is_last);
        let state = state.unwrap_or_else(|| hash.clone().finish());
        states.push(state);
        // Nobody listens where no draft is made.
        let _ = found.send(state);
    };
    for bytes in pieces {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (part, later) = rest.split_at(rest.len().min(missing));
            hash.update(part);
            rest = later;
            missing -= part.len();
            if missing == 0 {
                add(&hash);
                missing = chunk_size;
            }
        }
        buffers.give_back(bytes);
    }
    if missing < chunk_size {
        add(&hash);
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;
    use anchorage_manifest::link;
    use tokio::sync::mpsc::unbounded_channel;

    #[test]
    fn the_list_is_that_of_the_bytes() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("file");
        for size in [0, 1, 1023, 1024, 1025, 3 << 20, (3 << 20) + 7] {
            let bytes: Vec<u8> = (0..size).map(|i: u32| (i % 253).to_le_bytes()[0]).collect();
            std::fs::write(&path, &bytes)?;
            let (found, mut told) = unbounded_channel();
            let hashed = hash(&path, Some(1024), |_, _| (), &found);
            let (content, _) = hashed.map_err(|failure| failure.error)?;
            assert_eq!(content.sha256(), Hash::of(&bytes));
            assert_eq!(content, Content::of(&bytes, 1024)?);
            for state in content.states() {
                assert_eq!(told.try_recv().as_ref(), Ok(state));
            }
            assert!(told.is_empty());
        }
        Ok(())
    }

    #[test]
    fn it_does_not_matter_where_pieces_end() -> Result<()> {
        let bytes: Vec<u8> = (0..5_000_000u32)
            .map(|i| (i % 251).to_le_bytes()[0])
            .collect();
        for chunk_size in [1024, 1536, 1 << 20, 1_500_032, 3 << 20] {
            let geometry = Geometry::new(bytes.len() as u64, chunk_size)?;
            let (found, _) = unbounded_channel();
            let states = hash_all(&bytes[..], geometry, |_| (), &found)?;
            assert_eq!(states, link::states(&bytes, geometry), "{chunk_size}");
        }
        Ok(())
    }

    /// Whoever compares will find that it has another size.
    #[test]
    fn a_file_that_shrinks_or_grows_has_another_number_of_chunks() -> Result<()> {
        let geometry = Geometry::new(3_000, 1024)?;
        for (size, chunks) in [(1_000, 1), (2_048, 2), (3_000, 3), (3_100, 4)] {
            let (found, _) = unbounded_channel();
            let states = hash_all(&vec![7; size][..], geometry, |_| (), &found)?;
            assert_eq!(states.len(), chunks, "{size}");
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
