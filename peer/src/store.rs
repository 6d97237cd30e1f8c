//! The chunk store: every content that a node has something of, one folder each.
//!
//! ```text
//! store/<content id>/list    the chunk list, canonical; its SHA-256 is the folder's name
//!                    marks   one byte a chunk, 1 = its bytes are in the file and verified
//!                    place   JSON: where the file is, under which name, and how it looked when it was complete
//!                    data    the file itself, if it is the store's own (an anchor's); a peer's lies elsewhere
//! ```
//! A chunk is marked after its bytes, and its bytes are written only when they are known to match their hash:
//! nothing that failed verification ever reaches a file. One byte a chunk, written alone, needs no lock between
//! processes, so the transfer processes of an anchor share one store.

mod place;
mod slot;

pub use place::{Place, Stamp};
pub use slot::{Slot, Watcher};

use anchorage_manifest::{Content, ContentId};
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::broadcast;

/// Lost contents that may wait for whoever looks after them.
const LOST_MAX: usize = 64;

/// All contents of a node. Several processes may have the same directory open.
pub struct Store {
    directory: PathBuf,
    slots: Mutex<BTreeMap<ContentId, Arc<Slot>>>,
    lost: broadcast::Sender<ContentId>,
}

impl Store {
    /// Opens the store in `directory`, which is made if need be, and loads what is in it. Blocks.
    ///
    /// A folder that cannot be understood is passed over: it costs a new download, not the others.
    pub fn open(directory: &Path) -> Result<Arc<Self>> {
        let operand = || format!("cannot open the store {}", directory.display());
        fs::create_dir_all(directory).with_context(operand)?;
        let store = Self {
            directory: directory.to_owned(),
            slots: Mutex::default(),
            lost: broadcast::Sender::new(LOST_MAX),
        };
        for entry in fs::read_dir(directory).with_context(operand)? {
            let name = entry.with_context(operand)?.file_name();
            if let Some(id) = name.to_str().and_then(|name| name.parse().ok()) {
                store.refresh(id);
            }
        }
        Ok(Arc::new(store))
    }

    /// The slot of a content, if the node has something of it.
    pub fn slot(&self, content: ContentId) -> Option<Arc<Slot>> {
        self.table().get(&content).cloned()
    }

    /// All slots.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        self.table().values().cloned().collect()
    }

    /// Contents whose file turns out to have changed, from now on.
    pub fn lost(&self) -> broadcast::Receiver<ContentId> {
        self.lost.subscribe()
    }

    /// Makes the slot of a content whose file is at `place`, or gives the one there is its new place. Blocks.
    pub fn create(&self, content: &Content, place: &Place) -> Result<Arc<Slot>> {
        let id = content.id();
        let folder = self.folder(id);
        let operand = || format!("cannot make room for content {}", id.0.short());
        fs::create_dir_all(&folder).with_context(operand)?;
        // Two processes may do this at once: each writes its own file, and the last one is as good as the first.
        let part = folder.join(format!("list.{}", std::process::id()));
        fs::write(&part, content.encode())
            .and_then(|()| fs::rename(&part, folder.join("list")))
            .inspect_err(|_| drop(fs::remove_file(&part)))
            .with_context(operand)?;
        place.save(&folder).with_context(operand)?;
        let slot = Slot::open(&folder, id, self.lost.clone()).with_context(operand)?;
        Ok(self
            .table()
            .entry(id)
            .and_modify(|old| *old = slot.clone())
            .or_insert(slot)
            .clone())
    }

    /// Learns what another process of this node has stored of a content. Blocks.
    pub fn refresh(&self, content: ContentId) {
        match self.slot(content) {
            Some(slot) => slot.reload_marks(),
            None => {
                if let Ok(slot) = Slot::open(&self.folder(content), content, self.lost.clone()) {
                    self.table().entry(content).or_insert(slot);
                }
            }
        }
    }

    /// Forgets a content: the folder goes, a file elsewhere stays. Blocks.
    pub fn remove(&self, content: ContentId) -> Result<()> {
        self.table().remove(&content);
        let folder = self.folder(content);
        ensure!(
            folder.starts_with(&self.directory),
            "BUG: a folder outside the store"
        );
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
    }

    fn folder(&self, content: ContentId) -> PathBuf {
        self.directory.join(content.to_string())
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<ContentId, Arc<Slot>>> {
        self.slots.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anchorage_manifest::{Geometry, Hash};

    const CHUNK: usize = 1024;

    fn sample(chunks: usize) -> (Vec<u8>, Content) {
        let bytes: Vec<u8> = (0..chunks * CHUNK - 5)
            .map(|i| u8::try_from(i / 7 % 251).expect("below 256") ^ 1)
            .collect();
        let geometry = Geometry::new(bytes.len() as u64, 1024).expect("within limits");
        let hashes = bytes.chunks(CHUNK).map(Hash::of).collect();
        let content = Content::new(geometry, Hash::of(&bytes), hashes).expect("as many");
        (bytes, content)
    }

    fn read(slot: &Slot, index: u32) -> Result<Vec<u8>> {
        let extent = slot.content().geometry().extent(index).context("a chunk")?;
        let mut bytes = vec![0; extent.size as usize];
        slot.read(index, 0, &mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_was_stored_is_there_after_reopening() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (bytes, content) = sample(5);
        let store = Store::open(directory.path())?;
        let slot = store.create(&content, &Place::inside())?;
        for index in [4, 0, 2] {
            let start = index as usize * CHUNK;
            assert!(slot.store(index, &bytes[start..bytes.len().min(start + CHUNK)])?);
        }
        drop((store, slot));
        let store = Store::open(directory.path())?;
        let slot = store.slot(content.id()).context("stored")?;
        assert_eq!(slot.have().iter().collect::<Vec<_>>(), [0, 2, 4]);
        assert_eq!(read(&slot, 4)?, bytes[4 * CHUNK..]);
        assert!(
            read(&slot, 1).is_err(),
            "a chunk that is not there must not be read"
        );
        store.remove(content.id())?;
        assert!(Store::open(directory.path())?.slot(content.id()).is_none());
        Ok(())
    }

    #[test]
    fn bytes_that_do_not_match_never_reach_the_file() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (bytes, content) = sample(2);
        let slot = Store::open(directory.path())?.create(&content, &Place::inside())?;
        assert!(slot.store(0, &bytes[..CHUNK])?);
        assert!(!slot.store(0, &vec![7; CHUNK])?);
        assert!(!slot.store(1, &bytes[..CHUNK])?);
        assert_eq!(read(&slot, 0)?, bytes[..CHUNK]);
        assert_eq!(slot.have().count(), 1);
        Ok(())
    }

    #[test]
    fn two_processes_see_each_others_chunks() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (bytes, content) = sample(2);
        let (one, two) = (
            Store::open(directory.path())?,
            Store::open(directory.path())?,
        );
        one.create(&content, &Place::inside())?
            .store(0, &bytes[..CHUNK])?;
        two.refresh(content.id());
        let slot = two.slot(content.id()).context("refreshed")?;
        assert!(slot.have().contains(0));
        slot.store(1, &bytes[CHUNK..])?;
        one.refresh(content.id());
        assert!(
            one.slot(content.id())
                .context("made here")?
                .have()
                .is_full()
        );
        Ok(())
    }

    #[test]
    fn a_file_that_changed_is_served_no_more_until_it_is_rechecked() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (mut bytes, content) = sample(3);
        let path = directory.path().join("file");
        fs::write(&path, &bytes)?;
        let store = Store::open(&directory.path().join("store"))?;
        let name = "file".parse()?;
        let slot = store.create(&content, &Place::of_complete(&path, name)?)?;
        slot.mark_all()?;
        assert_eq!(read(&slot, 2)?, bytes[2 * CHUNK..]);
        bytes[CHUNK] ^= 1;
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, &bytes)?;
        assert!(read(&slot, 0).is_err());
        let store = Store::open(&directory.path().join("store"))?;
        let slot = store.slot(content.id()).context("still known")?;
        assert!(slot.in_doubt() && slot.have().is_empty());
        slot.recheck()?;
        assert_eq!(slot.have().iter().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(read(&slot, 2)?, bytes[2 * CHUNK..]);
        Ok(())
    }

    #[test]
    fn rubbish_in_the_directory_is_passed_over() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (_, content) = sample(2);
        let folder = directory.path().join(content.id().to_string());
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("list"), b"rubbish")?;
        fs::write(directory.path().join("notes.txt"), b"rubbish")?;
        assert!(Store::open(directory.path())?.slots().is_empty());
        Ok(())
    }
}
