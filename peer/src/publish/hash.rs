//! Hashing a file in one pass on two threads.
//!
//! ```text
//! disk: reads; chunks, while the other is behind ── pieces ──► hashes: the whole file, and beside it the chunks
//! ```
//! The file's hash takes its pieces one after the other, but any thread may hash any chunk. So the disk's thread takes
//! over chunks whenever it is ahead, as many as leave both with as much to do, whatever the processor gains by two
//! hashes side by side.

use super::geometry;
use crate::{
    buffers::{Buffer, Buffers},
    failure::{Exit, Failure},
    sha256::{Running, update_both_with},
    store::Stamp,
};
use anchorage_manifest::{Content, Hash};
use anyhow::{Context as _, Result, anyhow};
use std::{
    fs::File,
    io::{self, Read},
    mem,
    path::Path,
    sync::mpsc::{self, TrySendError},
    thread,
};
use tokio::sync::mpsc::UnboundedSender;

/// Bytes read at a time, at most: few enough for what is on its way to stay in the second cache of both threads.
const PIECE_SIZE: u64 = 256 << 10;

/// Pieces between the disk and the hashes.
const PIECES_MAX: usize = 2;

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
    let tell = |done| tell(done, before.len().max(done));
    let hashed = hash_both(file, geometry.chunk_size(), tell, found);
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

/// Bytes on their way from the disk.
struct Piece {
    bytes: Buffer,
    /// The hashes of the chunks that end in it, if the disk's thread has made them.
    ended: Option<Vec<Hash>>,
}

/// The hashes of all that can be read, and of its chunks, of which `found` is told in order. `tell` is told of the bytes
/// that were read.
fn hash_both(
    mut file: impl Read,
    chunk_size: u32,
    tell: impl Fn(u64),
    found: &UnboundedSender<Hash>,
) -> Result<(Hash, Vec<Hash>)> {
    let chunk_size = chunk_size as usize;
    let buffers = Buffers::default();
    thread::scope(|scope| {
        let (pieces, to_hash) = mpsc::sync_channel(PIECES_MAX);
        let buffers = &buffers;
        let hashing = scope.spawn(move || hash_pieces(to_hash, chunk_size, buffers, found));
        // What this thread hashes of the chunks: all of one, or nothing.
        let mut own = Chunks::new(chunk_size);
        let mut done = 0;
        loop {
            let size = usize::try_from(piece_size(done, chunk_size as u64));
            let mut bytes = buffers.take(size.expect("a piece is small"));
            let count = read_all(&mut file, &mut bytes)?;
            if count == 0 {
                break;
            }
            bytes.resize(count);
            let begins_chunk = done.is_multiple_of(chunk_size as u64);
            hand_over(bytes, begins_chunk, &pieces, &mut own);
            done += count as u64;
            tell(done);
        }
        if let Some(hash) = own.end_chunk() {
            let ended = Some(vec![hash]);
            let bytes = Buffer::default();
            drop(pieces.send(Piece { bytes, ended }));
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

/// Bytes of the piece that begins at `done`: it ends with a chunk, if it reaches the end of one.
fn piece_size(done: u64, chunk_size: u64) -> u64 {
    let of_chunk = chunk_size - done % chunk_size;
    match PIECE_SIZE.checked_sub(of_chunk) {
        Some(further) => of_chunk + further / chunk_size * chunk_size,
        None => PIECE_SIZE,
    }
}

/// Gives the other thread a piece; if that thread is behind when a chunk begins, all of the chunk is hashed before.
fn hand_over(
    bytes: Buffer,
    begins_chunk: bool,
    pieces: &mpsc::SyncSender<Piece>,
    own: &mut Chunks,
) {
    let mut piece = Piece { bytes, ended: None };
    if own.is_between() {
        let sent = if begins_chunk {
            pieces.try_send(piece)
        } else {
            pieces.send(piece).map_err(TrySendError::from)
        };
        match sent {
            Err(TrySendError::Full(back)) => piece = back,
            // The thread lives until its channel closes.
            Ok(()) | Err(TrySendError::Disconnected(_)) => return,
        }
    }
    let mut ended = Vec::new();
    own.update(&piece.bytes, None, |hash| ended.push(hash));
    piece.ended = Some(ended);
    drop(pieces.send(piece));
}

/// Hashes the whole file, and those chunks that are not hashed yet.
fn hash_pieces(
    pieces: mpsc::Receiver<Piece>,
    chunk_size: usize,
    buffers: &Buffers,
    found: &UnboundedSender<Hash>,
) -> (Hash, Vec<Hash>) {
    let mut whole = Running::default();
    let mut chunks = Chunks::new(chunk_size);
    let mut hashes = Vec::new();
    let mut add = |hash| {
        hashes.push(hash);
        // Nobody listens where no draft is made.
        let _ = found.send(hash);
    };
    for Piece { bytes, ended } in pieces {
        if let Some(ended) = ended {
            whole.update(&bytes);
            ended.into_iter().for_each(&mut add);
        } else {
            chunks.update(&bytes, Some(&mut whole), &mut add);
        }
        buffers.give_back(bytes);
    }
    chunks.end_chunk().into_iter().for_each(&mut add);
    (whole.finish(), hashes)
}

/// Hashes chunk after chunk, as their bytes come.
struct Chunks {
    size: usize,
    /// The chunk that has begun, of which so many bytes are missing.
    running: Running,
    missing: usize,
}

impl Chunks {
    fn new(size: usize) -> Self {
        Self {
            size,
            running: Running::default(),
            missing: size,
        }
    }

    /// Whether no chunk has begun.
    fn is_between(&self) -> bool {
        self.missing == self.size
    }

    /// Goes on with `bytes`, and beside it with what else they are to be hashed into. `add` is given the hashes of the
    /// chunks that end.
    fn update(
        &mut self,
        mut bytes: &[u8],
        mut beside: Option<&mut Running>,
        mut add: impl FnMut(Hash),
    ) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.missing));
            match &mut beside {
                Some(beside) => update_both_with(now, &mut self.running, beside),
                None => self.running.update(now),
            }
            bytes = later;
            self.missing -= now.len();
            if self.missing == 0 {
                self.end_chunk().into_iter().for_each(&mut add);
            }
        }
    }

    /// Ends the chunk that has begun, if one has.
    fn end_chunk(&mut self) -> Option<Hash> {
        let has_begun = !self.is_between();
        self.missing = self.size;
        has_begun.then(|| mem::take(&mut self.running).finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Cursor, time::Duration};
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

    /// A file of which every read takes so long.
    struct Slow(Cursor<Vec<u8>>, Duration);

    impl Read for Slow {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            thread::sleep(self.1);
            self.0.read(bytes)
        }
    }

    /// The disk's thread takes chunks over where it is quick, and none where it is slow.
    #[test]
    fn the_hashes_are_the_same_whoever_makes_them() -> Result<()> {
        let bytes: Vec<u8> = (0..5_000_000u32)
            .map(|i| (i % 251).to_le_bytes()[0])
            .collect();
        for chunk_size in [1024, 1500, 1 << 20, 1_500_000, 3 << 20] {
            let expected: Vec<Hash> = bytes.chunks(chunk_size).map(Hash::of).collect();
            for pause in [0, 2] {
                let pause = Duration::from_millis(pause);
                let (found, mut told) = unbounded_channel();
                let file = Slow(Cursor::new(bytes.clone()), pause);
                let chunk_size = u32::try_from(chunk_size)?;
                let (sha256, chunks) = hash_both(file, chunk_size, |_| (), &found)?;
                assert_eq!(sha256, Hash::of(&bytes));
                assert_eq!(chunks, expected);
                for chunk in &expected {
                    assert_eq!(told.try_recv().as_ref(), Ok(chunk));
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_piece_ends_with_a_chunk_where_it_can() {
        assert_eq!(piece_size(0, 1024), PIECE_SIZE);
        assert_eq!(piece_size(0, 1500), 1500 * (PIECE_SIZE / 1500));
        assert_eq!(piece_size(0, 3 * PIECE_SIZE), PIECE_SIZE);
        assert_eq!(piece_size(PIECE_SIZE, PIECE_SIZE + 7), 7);
        assert_eq!(piece_size(0, PIECE_SIZE), PIECE_SIZE);
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
