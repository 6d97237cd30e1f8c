//! The whole file's SHA-256, computed along the verified prefix while chunks arrive: no second pass at the end.
//!
//! A chunk that comes next in the file is hashed into the prefix while it is verified, from memory; what came out of
//! turn is read again, beside a later chunk or when nothing else is to be done. Where chunks come in order again, the
//! prefix catches up with them. The state is kept beside the marks
//! every now and then, once all that it has hashed is written, so that a run that continues an earlier one does not
//! read again what that one had hashed:
//!
//! ```text
//! bytes hashed 8 · state of the hash 32, both big-endian · SHA-256 of these 40
//! ```

use crate::{
    buffers::Buffer,
    sha256::{Running, update_both, update_both_with},
    store::Slot,
};
use anchorage_manifest::{Hash, geometry::Extent};
use anyhow::{Context as _, Result};
use std::{array, fs, os::unix::fs::FileExt as _, sync::Arc};

/// Bytes read at a time.
const PIECE_SIZE: usize = 256 << 10;

/// Bytes that wait for a later chunk to be hashed beside it: two side by side cost little more than one.
const PATIENCE: u64 = 16 << 20;

/// Chunks that came in order, after which more are expected to: the prefix catches up with them, and needs to read nothing
/// any more.
const IN_ORDER: u32 = 8;

/// Bytes hashed between two times that the state is kept.
const KEEP_EVERY: u64 = 32 << 20;

/// A hash on its way through a file.
pub(super) struct Prefix {
    slot: Arc<Slot>,
    hash: Running,
    kept: u64,
    /// A state that is to be kept as soon as all of it is written.
    to_keep: Option<Running>,
    buffer: Buffer,
    /// The chunk after the last that came, and how many came in order before it.
    next: u32,
    in_order: u32,
    /// How many must, before it is tried to catch up: more each time that something was missing.
    in_order_min: u32,
}

impl Prefix {
    /// Goes on where an earlier run was, or begins.
    pub(super) fn resume(slot: Arc<Slot>) -> Self {
        let limit = verified(&slot);
        let hash = load(&slot)
            .filter(|hash| hash.size() <= limit)
            .unwrap_or_default();
        Self {
            slot,
            kept: hash.size(),
            to_keep: None,
            hash,
            buffer: Buffer::default(),
            next: 0,
            in_order: 0,
            in_order_min: IN_ORDER,
        }
    }

    /// Whether more is verified and not hashed yet than may wait.
    pub(super) fn is_late(&self) -> bool {
        verified(&self.slot).saturating_sub(self.hash.size()) > PATIENCE
    }

    /// Hashes a piece of what is verified already. Blocks.
    pub(super) fn advance(&mut self) -> Result<()> {
        let count = self.read(PIECE_SIZE)?;
        self.hash.update(&self.buffer[..count]);
        self.keep_sometimes();
        Ok(())
    }

    /// A chunk has come; whether it is worth the while to catch up before it is verified.
    pub(super) fn comes(&mut self, index: u32) -> bool {
        self.in_order = if index == self.next {
            self.in_order + 1
        } else {
            0
        };
        self.next = index + 1;
        let behind = self.start(index).saturating_sub(self.hash.size());
        self.in_order >= self.in_order_min && (1..=2 * PATIENCE).contains(&behind)
    }

    /// Hashes all before the chunk that has come, if nothing is missing; what was verified has been written. Blocks.
    pub(super) fn catch_up(&mut self, index: u32) -> Result<()> {
        let end = self.start(index);
        if verified(&self.slot) < end {
            self.in_order = 0;
            self.in_order_min = self.in_order_min.saturating_mul(2);
            return Ok(());
        }
        while self.hash.size() < end {
            self.advance()?;
        }
        Ok(())
    }

    /// Where a chunk begins; at nothing if there is none.
    fn start(&self, index: u32) -> u64 {
        let extent = self.slot.geometry().extent(index);
        extent.map_or(0, |extent| extent.offset)
    }

    /// Whether a chunk comes next in the file.
    fn is_next(&self, index: u32) -> bool {
        let extent = self.slot.geometry().extent(index);
        extent.is_some_and(|Extent { offset, .. }| offset == self.hash.size())
    }

    /// Whether some of the file would be hashed beside a chunk.
    pub(super) fn goes_on(&self, index: u32) -> bool {
        self.is_next(index) || verified(&self.slot) > self.hash.size()
    }

    /// Whether each of two chunks matches its hash; nothing of the file is hashed beside them. Blocks.
    pub(super) fn verify_both(&self, chunks: [(u32, &[u8]); 2]) -> [bool; 2] {
        let [mut one, mut other] = [Running::default(), Running::default()];
        let [(_, bytes), (_, bytes_of_other)] = chunks;
        update_both(&mut one, bytes, &mut other, bytes_of_other);
        let hashes = [one, other].map(Running::finish);
        array::from_fn(|at| {
            let (index, bytes) = chunks[at];
            self.slot.matches(index, bytes.len(), hashes[at])
        })
    }

    /// Whether a chunk matches its hash. As many bytes of the prefix are hashed beside it, if they are there: those of
    /// the chunk itself, where it comes next. Blocks.
    pub(super) fn verify(&mut self, index: u32, bytes: &[u8]) -> Result<bool> {
        let mut chunk = Running::default();
        if self.is_next(index) {
            let mut further = self.hash.clone();
            update_both_with(bytes, &mut chunk, &mut further);
            let matches = self.slot.matches(index, bytes.len(), chunk.finish());
            if matches {
                self.hash = further;
                self.keep_sometimes();
            }
            return Ok(matches);
        }
        let count = self.read(bytes.len())?;
        let piece = &self.buffer[..count];
        update_both(&mut chunk, bytes, &mut self.hash, piece);
        self.keep_sometimes();
        Ok(self.slot.matches(index, bytes.len(), chunk.finish()))
    }

    /// The hash of the whole file, if all of it is written; else the state is kept for a later run. What was verified has
    /// been written. Blocks.
    pub(super) fn finish(mut self) -> Result<Option<Hash>> {
        let size = self.slot.geometry().size();
        if verified(&self.slot) < size {
            self.keep(&self.hash.clone());
            return Ok(None);
        }
        while self.hash.size() < verified(&self.slot) {
            self.advance()?;
        }
        Ok((self.hash.size() == size).then(|| self.hash.finish()))
    }

    /// Reads what comes next of what is verified into the buffer, at most `limit` bytes and perhaps none; how many.
    fn read(&mut self, limit: usize) -> Result<usize> {
        let behind = verified(&self.slot).saturating_sub(self.hash.size());
        let count = usize::try_from(behind).map_or(limit, |behind| behind.min(limit));
        if self.buffer.len() < count {
            self.buffer.resize(count);
        }
        self.slot
            .file()
            .read_exact_at(&mut self.buffer[..count], self.hash.size())
            .with_context(|| format!("cannot read {}", self.slot.path().display()))?;
        Ok(count)
    }

    fn keep_sometimes(&mut self) {
        if self.to_keep.is_none() && self.hash.size() - self.kept >= KEEP_EVERY {
            self.to_keep = Some(self.hash.clone());
        }
        let is_written = |hash: &mut Running| hash.size() <= verified(&self.slot);
        if let Some(hash) = self.to_keep.take_if(is_written) {
            self.keep(&hash);
        }
    }

    /// Keeps a state, if it is one that can be kept; where that fails, the next run begins at the last one kept.
    fn keep(&mut self, hash: &Running) {
        if let Some(state) = hash.to_bytes() {
            self.kept = hash.size();
            let check = Hash::of(&state);
            drop(fs::write(
                self.slot.prefix_path(),
                [&state[..], &check.0].concat(),
            ));
        }
    }
}

/// Bytes before the first chunk that is missing.
fn verified(slot: &Slot) -> u64 {
    let geometry = slot.geometry();
    geometry
        .extent(slot.first_missing())
        .map_or(geometry.size(), |extent| extent.offset)
}

fn load(slot: &Slot) -> Option<Running> {
    let bytes = fs::read(slot.prefix_path()).ok()?;
    let (state, check) = bytes.split_last_chunk::<32>()?;
    if Hash::of(state) != Hash(*check) {
        return None;
    }
    Running::from_bytes(state.try_into().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Place, Store};
    use anchorage_manifest::{Content, Geometry};

    struct File {
        bytes: Vec<u8>,
        content: Content,
        slot: Arc<Slot>,
        _directory: tempfile::TempDir,
    }

    impl File {
        fn new() -> Result<Self> {
            let directory = tempfile::tempdir()?;
            let bytes: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
            let geometry = Geometry::new(bytes.len() as u64, 1024)?;
            let chunks = bytes.chunks(1024).map(Hash::of).collect();
            let content = Content::new(geometry, Hash::of(&bytes), chunks)?;
            let slot = Store::open(directory.path())?.create(&content, &Place::inside())?;
            Ok(Self {
                bytes,
                content,
                slot,
                _directory: directory,
            })
        }

        fn chunk(&self, index: u32) -> &[u8] {
            self.bytes.chunks(1024).nth(index as usize).unwrap_or(&[])
        }

        fn store(&self, prefix: &mut Prefix, index: u32) -> Result<bool> {
            let matches = prefix.verify(index, self.chunk(index))?;
            self.slot.write(index, self.chunk(index))?;
            Ok(matches)
        }
    }

    #[test]
    fn it_goes_on_where_it_was_and_reads_nothing_twice() -> Result<()> {
        let file = File::new()?;
        let mut first = Prefix::resume(file.slot.clone());
        for index in (0..20).chain([25]) {
            assert!(file.store(&mut first, index)?);
        }
        assert_eq!(first.finish()?, None);
        let mut resumed = Prefix::resume(file.slot.clone());
        assert_eq!(resumed.hash.size(), 20 * 1024);
        // What was hashed is not read again: damage there does not change the result.
        file.slot.file().write_all_at(b"damage", 0)?;
        for index in 20..file.content.geometry().chunks() {
            assert!(file.store(&mut resumed, index)?);
        }
        assert_eq!(resumed.finish()?, Some(file.content.sha256()));
        fs::write(file.slot.prefix_path(), b"damage")?;
        assert_eq!(Prefix::resume(file.slot).hash.size(), 0);
        Ok(())
    }

    #[test]
    fn it_catches_up_with_chunks_that_come_in_order() -> Result<()> {
        let file = File::new()?;
        let mut subject = Prefix::resume(file.slot.clone());
        let chunks = file.content.geometry().chunks();
        let mut caught_up = Vec::new();
        for index in [0, 2, 4, 6, 1, 3, 5].into_iter().chain(7..chunks) {
            if subject.comes(index) {
                subject.catch_up(index)?;
                caught_up.push(index);
            }
            assert!(file.store(&mut subject, index)?);
            if !caught_up.is_empty() {
                assert_eq!(
                    subject.hash.size(),
                    file.bytes.len().min(1024 * (index as usize + 1)) as u64
                );
                // What came since then is not read: damage there does not change the result.
                file.slot
                    .file()
                    .write_all_at(b"damage", 1024 * u64::from(index))?;
            }
        }
        assert_eq!(caught_up, [7 + IN_ORDER], "once is enough");
        assert_eq!(subject.finish()?, Some(file.content.sha256()));
        Ok(())
    }

    #[test]
    fn where_something_is_missing_it_is_tried_less_and_less() -> Result<()> {
        let file = File::new()?;
        let mut subject = Prefix::resume(file.slot.clone());
        let mut tried = Vec::new();
        for index in 1..file.content.geometry().chunks() {
            if subject.comes(index) {
                subject.catch_up(index)?;
                tried.push(index);
            }
            assert!(file.store(&mut subject, index)?);
        }
        assert_eq!(subject.hash.size(), 0);
        assert_eq!(tried, [1 + IN_ORDER, 1 + 3 * IN_ORDER]);
        Ok(())
    }

    #[test]
    fn two_side_by_side_are_what_each_is_alone_and_nothing_of_the_file() -> Result<()> {
        let file = File::new()?;
        let mut subject = Prefix::resume(file.slot.clone());
        let last = file.content.geometry().chunks() - 1;
        let mut corrupt = file.chunk(5).to_vec();
        corrupt[7] ^= 1;
        let good = |index| (index, file.chunk(index));
        for (chunks, matches) in [
            ([good(3), good(4)], [true, true]),
            // The last one is shorter.
            ([good(3), good(last)], [true, true]),
            ([(5, &corrupt[..]), good(4)], [false, true]),
            ([good(4), (4, file.chunk(5))], [true, false]),
            ([good(4), (last + 1, file.chunk(4))], [true, false]),
        ] {
            assert_eq!(subject.verify_both(chunks), matches);
        }
        assert_eq!(subject.hash.size(), 0);
        assert!(subject.goes_on(0) && !subject.goes_on(1) && !subject.goes_on(last + 1));
        file.slot.write(0, file.chunk(0))?;
        assert!(subject.goes_on(3), "the first chunk is to be hashed");
        assert!(subject.verify(3, file.chunk(3))?);
        assert!(subject.goes_on(1) && !subject.goes_on(3));
        Ok(())
    }

    #[test]
    fn chunks_in_any_order_and_corrupt_ones_between() -> Result<()> {
        let file = File::new()?;
        let mut subject = Prefix::resume(file.slot.clone());
        let mut order: Vec<u32> = (0..file.content.geometry().chunks()).collect();
        fastrand::Rng::with_seed(7).shuffle(&mut order);
        for index in order {
            let mut corrupt = file.chunk(index).to_vec();
            corrupt[0] ^= 1;
            assert!(!subject.verify(index, &corrupt)?);
            assert!(file.store(&mut subject, index)?);
            if index % 3 == 0 {
                subject.advance()?;
            }
        }
        assert_eq!(subject.finish()?, Some(file.content.sha256()));
        Ok(())
    }
}
