//! The whole file's SHA-256, computed along the verified prefix while chunks arrive: no second pass at the end.
//!
//! The state is kept beside the marks every now and then, so that a run that continues an earlier one does not
//! read again what that one had hashed:
//!
//! ```text
//! bytes hashed 8, big-endian · state of the hasher · SHA-256 of both
//! ```

use crate::store::Slot;
use anchorage_manifest::Hash;
use anyhow::{Context as _, Result};
use sha2::{
    Digest as _, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};
use std::{
    fs,
    os::unix::fs::FileExt as _,
    sync::{Arc, mpsc},
};

/// Bytes read at a time.
const PIECE_SIZE: usize = 1 << 20;

/// Bytes hashed between two times that the state is kept.
const KEEP_EVERY: u64 = 256 << 20;

/// A hash on its way through a file.
pub(super) struct Prefix {
    slot: Arc<Slot>,
    hasher: Sha256,
    hashed: u64,
    kept: u64,
}

impl Prefix {
    /// Goes on where an earlier run was, or begins.
    pub(super) fn resume(slot: Arc<Slot>) -> Self {
        let limit = verified(&slot);
        let (hasher, hashed) = load(&slot)
            .filter(|&(_, hashed)| hashed <= limit)
            .unwrap_or_default();
        Self {
            slot,
            hasher,
            hashed,
            kept: hashed,
        }
    }

    /// Hashes along until the file is whole, looking again whenever it is woken. None if nobody wakes it any
    /// more. Blocks.
    pub(super) fn run(mut self, woken: &mpsc::Receiver<()>) -> Result<Option<Hash>> {
        let size = self.slot.content().geometry().size();
        let mut buffer = vec![0; PIECE_SIZE];
        loop {
            let limit = verified(&self.slot);
            while self.hashed < limit {
                let count = usize::try_from(limit - self.hashed)
                    .unwrap_or(PIECE_SIZE)
                    .min(PIECE_SIZE);
                let bytes = &mut buffer[..count];
                self.slot
                    .file()
                    .read_exact_at(bytes, self.hashed)
                    .with_context(|| format!("cannot read {}", self.slot.path().display()))?;
                self.hasher.update(bytes);
                self.hashed += count as u64;
                if self.hashed - self.kept >= KEEP_EVERY {
                    self.keep();
                }
            }
            if self.hashed == size {
                return Ok(Some(Hash::finish(self.hasher)));
            }
            if woken.recv().is_err() {
                self.keep();
                return Ok(None);
            }
        }
    }

    /// Keeps the state; where that fails, the next run begins at the last one kept.
    fn keep(&mut self) {
        self.kept = self.hashed;
        let mut bytes = self.hashed.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.hasher.serialize());
        let check = Hash::of(&bytes);
        bytes.extend_from_slice(&check.0);
        drop(fs::write(self.slot.prefix_path(), bytes));
    }
}

/// Bytes before the first chunk that is missing.
fn verified(slot: &Slot) -> u64 {
    let geometry = slot.content().geometry();
    geometry
        .extent(slot.first_missing())
        .map_or(geometry.size(), |extent| extent.offset)
}

fn load(slot: &Slot) -> Option<(Sha256, u64)> {
    let bytes = fs::read(slot.prefix_path()).ok()?;
    let (bytes, check) = bytes.split_last_chunk::<32>()?;
    if Hash::of(bytes) != Hash(*check) {
        return None;
    }
    let (hashed, state) = bytes.split_first_chunk::<8>()?;
    let state = SerializedState::<Sha256>::try_from(state).ok()?;
    Some((
        Sha256::deserialize(&state).ok()?,
        u64::from_be_bytes(*hashed),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Place, Store};
    use anchorage_manifest::{Content, Geometry};

    #[test]
    fn it_goes_on_where_it_was_and_reads_nothing_twice() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let bytes: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        let geometry = Geometry::new(bytes.len() as u64, 1024)?;
        let chunks = bytes.chunks(1024).map(Hash::of).collect();
        let content = Content::new(geometry, Hash::of(&bytes), chunks)?;
        let slot = Store::open(directory.path())?.create(&content, &Place::inside())?;
        let store =
            |index: u32| slot.store(index, bytes.chunks(1024).nth(index as usize).unwrap_or(&[]));
        for index in (0..20).chain([25]) {
            assert!(store(index)?);
        }
        let (wake, woken) = mpsc::channel();
        drop(wake);
        assert_eq!(Prefix::resume(slot.clone()).run(&woken)?, None);
        let resumed = Prefix::resume(slot.clone());
        assert_eq!(resumed.hashed, 20 * 1024);
        // What was hashed is not read again: damage there does not change the result.
        slot.file().write_all_at(b"damage", 0)?;
        for index in 20..geometry.chunks() {
            assert!(store(index)?);
        }
        assert_eq!(resumed.run(&woken)?, Some(content.sha256()));
        fs::write(slot.prefix_path(), b"damage")?;
        assert_eq!(Prefix::resume(slot).hashed, 0);
        Ok(())
    }
}
