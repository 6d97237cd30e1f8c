//! The chunk store: every content that a node has something of, one folder each.
//!
//! ```text
//! store/<content id>/list    the list, canonical; its SHA-256 is the folder's name
//!                    marks   one byte a chunk, 1 = its bytes are in the file and verified; and one that is written before
//!                            each chunk, so that the file is never newer than its marks unless somebody else wrote to it
//!                    place   JSON: where the file is, under which name, and how it looked when it was complete
//!                    doubt   while the marks were taken away because the file may be another, and not all were put back
//!                    data    the file itself, if it is the store's own (an anchor's); a peer's lies elsewhere
//!                    hashes  the SHA-256 of every chunk alone, as far as it was made; zeros elsewhere
//!      drafts/<id>/  draft   a draft, instead of the list
//!                    entries its list, as far as it is signed
//!                    marks, place, data as above
//! ```
//! When a draft is sealed, its folder gets the list and moves to the content's name, in one rename; a content whose
//! list is learned later finds the draft that it begins with, and goes on from there. What is never sealed is swept.
//!
//! A chunk is marked after its bytes, and its bytes are written only when they are known to match their hash:
//! nothing that failed verification ever reaches a file. One byte a chunk, written alone, needs no lock between
//! processes, so the transfer processes of an anchor share one store.

mod cached;
#[cfg(test)]
mod create_tests;
#[cfg(test)]
mod draft_tests;
mod growing;
mod marks;
mod place;
mod slot;

use marks::Marks;
use place::is_same_file;
pub use place::{Place, Stamp};
pub use slot::{Slot, Watcher};

use anchorage_manifest::{Content, ContentId, Draft};
use anyhow::{Context as _, Result, ensure};
use growing::Growing;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::{Duration, SystemTime},
};
use tokio::sync::{Notify, broadcast};

/// Lost contents that may wait for whoever looks after them.
const LOST_MAX: usize = 64;

/// All contents of a node. Several processes may have the same directory open.
pub struct Store {
    directory: PathBuf,
    slots: Mutex<Table>,
    lost: broadcast::Sender<ContentId>,
    /// Held while a draft becomes a content.
    sealing: Mutex<()>,
    /// Slots were made, or are not to be any more.
    changed: Notify,
}

#[derive(Default)]
struct Table {
    /// Slots of contents.
    slots: BTreeMap<ContentId, Arc<Slot>>,
    /// Slots of drafts that are not sealed, as far as is known here: few, however many contents there are.
    drafts: BTreeMap<ContentId, Arc<Slot>>,
    /// Slots of drafts that are sealed, for as long as somebody uses them.
    sealed: BTreeMap<ContentId, Weak<Slot>>,
    /// What is being fetched: it will have a slot soon, if it has none.
    expected: BTreeSet<ContentId>,
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
            sealing: Mutex::default(),
            changed: Notify::new(),
        };
        for id in ids(directory).with_context(operand)? {
            store.refresh(id);
        }
        for id in store.drafts() {
            store.refresh(id);
        }
        Ok(Arc::new(store))
    }

    /// The slot of a content or a draft, if the node has something of it.
    pub fn slot(&self, content: ContentId) -> Option<Arc<Slot>> {
        let table = self.table();
        let sealed = || table.sealed.get(&content).and_then(Weak::upgrade);
        let draft = || table.drafts.get(&content);
        let slot = table.slots.get(&content).or_else(draft);
        slot.cloned().or_else(sealed)
    }

    /// A content or a draft will have a slot soon; false if that is known already.
    pub fn expect(&self, content: ContentId) -> bool {
        self.table().expected.insert(content)
    }

    /// It has one, or will have none.
    pub fn expect_no_more(&self, content: ContentId) {
        self.table().expected.remove(&content);
        self.changed.notify_waiters();
    }

    /// [`Store::slot`], once it has been made if it is expected.
    pub async fn slot_soon(&self, content: ContentId) -> Option<Arc<Slot>> {
        loop {
            let changed = self.changed.notified();
            if let Some(slot) = self.slot(content) {
                return Some(slot);
            }
            if !self.table().expected.contains(&content) {
                return None;
            }
            changed.await;
        }
    }

    /// All slots, but those of sealed drafts.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        let table = self.table();
        let slots = table.slots.values().chain(table.drafts.values());
        slots.cloned().collect()
    }

    /// Slots of drafts that are not sealed, as far as is known here.
    pub fn draft_slots(&self) -> Vec<Arc<Slot>> {
        self.table().drafts.values().cloned().collect()
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
        let is_spoiled = is_spoiled(&folder);
        write_list(&folder, content).with_context(operand)?;
        place.save(&folder).with_context(operand)?;
        let opened = Slot::open(&folder, id, self.lost.clone()).with_context(operand)?;
        let slot = {
            let mut table = self.table();
            let slot = match table.slots.get(&id) {
                // Whoever looked for it meanwhile may have opened it, and watches that one.
                Some(there)
                    if there.is_in(&folder)
                        && there.place() == *place
                        && is_same_file(there.file().metadata(), opened.file().metadata()) =>
                {
                    there.clone()
                }
                Some(old) => {
                    opened.take_watchers(old);
                    opened
                }
                None => opened,
            };
            if is_spoiled {
                slot.reset();
            }
            table.slots.insert(id, slot.clone());
            slot
        };
        self.changed.notify_waiters();
        Ok(slot)
    }

    /// Makes the slot of a draft whose file is at `place`; the one there is if there is one. Blocks.
    pub fn draft(&self, draft: &Draft, place: &Place) -> Result<Arc<Slot>> {
        let id = draft.id();
        self.refresh(id);
        if let Some(slot) = self.slot(id) {
            return Ok(slot);
        }
        let folder = self.draft_folder(id);
        let operand = || format!("cannot make room for draft {}", id.0.short());
        fs::create_dir_all(&folder).with_context(operand)?;
        let is_spoiled = is_spoiled(&folder);
        Growing::keep(draft, &folder).with_context(operand)?;
        place.save(&folder).with_context(operand)?;
        let slot = Slot::open_draft(&folder, id, self.lost.clone()).with_context(operand)?;
        if is_spoiled {
            slot.reset();
        }
        let slot = self.table().drafts.entry(id).or_insert(slot).clone();
        self.changed.notify_waiters();
        Ok(slot)
    }

    /// The slot of a content that begins with a draft that this node has chunks of: the draft's slot, under the
    /// content's name. None if there is no such draft. Blocks.
    pub fn adopt(&self, content: &Content) -> Result<Option<Arc<Slot>>> {
        for draft in self.drafts() {
            self.refresh(draft);
        }
        let mut fitting = self.draft_slots();
        fitting.retain(|slot| slot.begins(content) && !slot.have().is_empty());
        fitting.sort_by_key(|slot| Reverse(slot.have().count()));
        match fitting.first() {
            Some(slot) => self.seal(slot, content),
            None => Ok(None),
        }
    }

    /// The slot of the content that a draft has become, with all that the draft's has. None if the content does not
    /// begin with the draft's entries. Blocks.
    pub fn seal(&self, draft: &Arc<Slot>, content: &Content) -> Result<Option<Arc<Slot>>> {
        let _one_at_a_time = self.sealing.lock().expect("no holder of this lock panics");
        let id = content.id();
        let (from, folder) = (self.draft_folder(draft.id()), self.folder(id));
        let operand = || format!("cannot keep what draft {} became", draft.id().0.short());
        let Some(_frozen) = draft.freeze(content).with_context(operand)? else {
            // Unless that has been done already.
            return Ok(self.slot(id).filter(|_| draft.draft().is_none()));
        };
        if folder.join("list").exists() && !draft.is_in(&folder) {
            if draft.place().path.is_none() {
                // What is there already is as good; its chunks are the store's own.
                self.remove(draft.id())?;
                self.refresh(id);
                return Ok(self.slot(id));
            }
            self.remove(id)?;
        }
        match write_list(&from, content).and_then(|()| fs::rename(&from, &folder)) {
            Ok(()) => {
                drop(fs::remove_file(folder.join("draft")));
                drop(fs::remove_file(folder.join("entries")));
            }
            // Another process of this node was first.
            Err(error) if error.kind() == ErrorKind::NotFound && draft.is_in(&folder) => {}
            Err(error) => return Err(error).with_context(operand),
        }
        Ok(Some(self.rename(draft, content.clone())))
    }

    /// Learns what another process of this node has stored of a content or a draft; whether a draft that is open here
    /// turns out to be the content. Blocks.
    pub fn refresh(&self, content: ContentId) -> bool {
        if let Some(slot) = self.slot(content) {
            slot.reload();
            return false;
        }
        let folder = self.folder(content);
        let opened = if let Ok(list) = slot::load_list(&folder, content) {
            // Another process may have sealed it.
            let mut drafts = self.draft_slots().into_iter();
            if let Some(draft) = drafts.find(|slot| slot.is_in(&folder)) {
                self.rename(&draft, list).reload();
                return true;
            }
            Slot::open(&folder, content, self.lost.clone())
        } else {
            Slot::open_draft(&self.draft_folder(content), content, self.lost.clone())
        };
        if let Ok(opened) = opened {
            let slot = {
                let mut table = self.table();
                let slots = if opened.is_draft() {
                    &mut table.drafts
                } else {
                    &mut table.slots
                };
                slots
                    .entry(content)
                    .or_insert_with(|| opened.clone())
                    .clone()
            };
            if !Arc::ptr_eq(&slot, &opened) {
                // Another thread's was opened earlier, and may know less.
                slot.reload();
            }
        }
        false
    }

    /// Removes drafts to which nothing was added for so long. Blocks.
    pub fn sweep(&self, idle: Duration) {
        let now = SystemTime::now();
        for id in self.drafts() {
            let folder = self.draft_folder(id);
            let touched = ["", "entries", "marks"].into_iter().filter_map(|name| {
                let metadata = fs::metadata(folder.join(name)).ok()?;
                metadata.modified().ok()
            });
            let is_idle = touched
                .max()
                .and_then(|touched| now.duration_since(touched).ok())
                .is_some_and(|since| since >= idle);
            if is_idle {
                // Another process may be sweeping, too.
                drop(self.remove(id));
            }
        }
        // What another process removed takes room as long as it is open here.
        let mut removed = self.draft_slots();
        removed.retain(|slot| slot.is_removed());
        for slot in &removed {
            self.table().drafts.remove(&slot.id());
        }
    }

    /// Forgets a content or a draft: the folder goes, a file elsewhere stays. Blocks.
    pub fn remove(&self, content: ContentId) -> Result<()> {
        {
            let mut table = self.table();
            table.slots.remove(&content);
            table.drafts.remove(&content);
        }
        let folder = match self.draft_folder(content) {
            draft if draft.exists() => draft,
            _ => self.folder(content),
        };
        ensure!(
            folder.starts_with(&self.directory),
            "BUG: a folder outside the store"
        );
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
    }

    fn folder(&self, content: ContentId) -> PathBuf {
        self.directory.join(content.to_string())
    }

    fn draft_folder(&self, draft: ContentId) -> PathBuf {
        self.directory.join("drafts").join(draft.to_string())
    }

    /// The drafts that have a folder.
    fn drafts(&self) -> Vec<ContentId> {
        // Without any there is no directory.
        ids(&self.directory.join("drafts")).unwrap_or_default()
    }

    /// Gives a draft's slot, whose folder has moved, the content's name.
    fn rename(&self, draft: &Arc<Slot>, content: Content) -> Arc<Slot> {
        let folder = self.folder(content.id());
        let slot = draft.seal(Arc::new(content), &folder);
        let mut table = self.table();
        table.drafts.remove(&draft.id());
        table.sealed.retain(|_, slot| slot.strong_count() > 0);
        table.sealed.insert(draft.id(), Arc::downgrade(draft));
        table.slots.insert(slot.id(), slot.clone());
        self.changed.notify_waiters();
        slot
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.slots.lock().expect("no holder of this lock panics")
    }
}

/// Whether a folder has marks that cannot be trusted any more: a power cut has spoiled what else is there.
fn is_spoiled(folder: &Path) -> bool {
    let is_good = |place: Place| !place.is_unflushed();
    Marks::exist(folder) && !Place::load(folder).is_ok_and(is_good)
}

/// The ids that name folders in a directory.
fn ids(directory: &Path) -> std::io::Result<Vec<ContentId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        ids.extend(
            name.to_str()
                .and_then(|name| name.parse::<ContentId>().ok()),
        );
    }
    Ok(ids)
}

/// Writes a list into a folder. Two processes may do this at once: each writes its own file, and the last one is as
/// good as the first.
fn write_list(folder: &Path, content: &Content) -> std::io::Result<()> {
    let part = folder.join(format!("list.{}", std::process::id()));
    fs::write(&part, content.encode())
        .and_then(|()| fs::rename(&part, folder.join("list")))
        .inspect_err(|_| drop(fs::remove_file(&part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anchorage_manifest::Hash;
    use nix::time::{ClockId, clock_gettime};
    use std::os::unix::fs::FileExt as _;

    pub(super) const CHUNK: usize = 1024;

    pub(super) fn sample(chunks: usize) -> (Vec<u8>, Content) {
        let bytes: Vec<u8> = (0..chunks * CHUNK - 5)
            .map(|i| u8::try_from(i / 7 % 251).expect("below 256") ^ 1)
            .collect();
        let content = Content::of(&bytes, 1024).expect("within limits");
        (bytes, content)
    }

    pub(super) fn read(slot: &Slot, index: u32) -> Result<Vec<u8>> {
        let extent = slot.geometry().extent(index).context("a chunk")?;
        let mut bytes = vec![0; extent.size as usize];
        slot.read(index, 0, &mut bytes)?;
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_slot_that_is_expected_is_waited_for() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (_, content) = sample(5);
        let id = content.id();
        let store = Store::open(directory.path())?;
        assert!(store.slot_soon(id).await.is_none(), "nobody expects it");
        assert!(store.expect(id) && !store.expect(id));
        let wait = || {
            let store = store.clone();
            tokio::spawn(async move { store.slot_soon(id).await.map(|slot| slot.id()) })
        };
        let given_up = wait();
        tokio::task::yield_now().await;
        assert!(!given_up.is_finished());
        store.expect_no_more(id);
        assert_eq!(given_up.await?, None);
        assert!(store.expect(id));
        let made = wait();
        tokio::task::yield_now().await;
        assert!(!made.is_finished());
        store.create(&content, &Place::inside())?;
        assert_eq!(made.await?, Some(id));
        Ok(())
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
        // Looking once more finds nothing else, unless it has changed once more.
        slot.recheck()?;
        assert_eq!(slot.have().count(), 2);
        bytes[0] ^= 1;
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, &bytes)?;
        assert!(read(&slot, 2).is_err() && slot.in_doubt());
        slot.recheck()?;
        assert_eq!(slot.have().iter().collect::<Vec<_>>(), [2]);
        Ok(())
    }

    /// What this thread has had of a processor.
    fn cpu_time() -> Result<Duration> {
        Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
    }

    /// Least processor time of three to open a store of so many contents.
    fn opening(count: u32) -> Result<Duration> {
        let directory = tempfile::tempdir()?;
        let store = Store::open(directory.path())?;
        for number in 0..count {
            let content = Content::of(&number.to_be_bytes(), 1024)?;
            store.create(&content, &Place::inside())?;
        }
        // Its files are open.
        drop(store);
        let once = |_| {
            let before = cpu_time()?;
            let opened = Store::open(directory.path())?;
            let spent = cpu_time()?.saturating_sub(before);
            assert_eq!(opened.slots().len(), count as usize);
            anyhow::Ok(spent)
        };
        let times: Result<Vec<Duration>> = (0..3).map(once).collect();
        times?.into_iter().min().context("three")
    }

    #[test]
    fn many_contents_are_opened_in_as_little_time_each_as_few() -> Result<()> {
        let (few, many) = (opening(15)?, opening(300)?);
        // Were each looked at for each, it would be a hundred times as long.
        assert!(many < 60 * few, "{few:?}, {many:?}");
        Ok(())
    }

    #[test]
    fn hashes_of_chunks_are_made_once_of_what_is_there() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (bytes, content) = sample(4);
        let chunks: Vec<&[u8]> = bytes.chunks(CHUNK).collect();
        let slot = Store::open(directory.path())?.create(&content, &Place::inside())?;
        let hashes = |there: [bool; 4]| -> Vec<u8> {
            let hash =
                |(chunk, there): (&&[u8], bool)| if there { Hash::of(chunk).0 } else { [0; 32] };
            chunks.iter().zip(there).flat_map(hash).collect()
        };
        assert_eq!(slot.hashes()?, hashes([false; 4]));
        // One that comes with its hash, and one without.
        assert!(slot.store(1, chunks[1])?);
        slot.write(3, chunks[3])?;
        assert_eq!(slot.hashes()?, hashes([false, true, false, true]));
        // What was made is not read again, not even by the next process.
        slot.file().write_all_at(b"damage", 3 * CHUNK as u64)?;
        drop(slot);
        let slot = Store::open(directory.path())?.slot(content.id());
        let slot = slot.context("still there")?;
        slot.write(0, chunks[0])?;
        slot.write(2, chunks[1])?;
        assert_eq!(
            slot.hashes()?,
            hashes([true, true, false, true]),
            "2 is not good"
        );
        Ok(())
    }

    #[test]
    fn a_file_in_the_making_that_somebody_else_wrote_to_is_in_doubt() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (bytes, content) = sample(3);
        let place = Place::of_part(&directory.path().join("file.part"), "file".parse()?);
        let slot = Store::open(&directory.path().join("store"))?.create(&content, &place)?;
        let chunk = |index: usize| bytes.chunks(CHUNK).nth(index).unwrap_or_default();
        for index in [0, 1] {
            assert!(slot.store(index, chunk(index as usize))?);
        }
        let again = || {
            Store::open(&directory.path().join("store"))?
                .slot(content.id())
                .context("there")
        };
        assert!(!again()?.in_doubt());
        std::thread::sleep(Duration::from_millis(50));
        fs::write(slot.path(), vec![7; bytes.len()])?;
        // As often as it is opened, until it has been read again.
        assert!(again()?.in_doubt());
        let opened = again()?;
        assert!(opened.in_doubt() && opened.have().is_empty());
        slot.file().write_all_at(chunk(1), CHUNK as u64)?;
        opened.recheck()?;
        assert_eq!(opened.have().iter().collect::<Vec<_>>(), [1]);
        assert!(!again()?.in_doubt());
        Ok(())
    }

    #[test]
    fn a_chunk_that_another_process_writes_just_now_puts_nothing_in_doubt() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (bytes, content) = sample(2);
        let (one, two) = (&bytes[..CHUNK], &bytes[CHUNK..]);
        let slot = Store::open(directory.path())?.create(&content, &Place::inside())?;
        assert!(slot.store(0, one)?);
        std::thread::sleep(Duration::from_millis(50));
        // It is not marked yet when the other process opens the store, and is when that is asked for it.
        slot.file().write_all_at(two, CHUNK as u64)?;
        let other = Store::open(directory.path())?;
        let opened = other.slot(content.id()).context("there")?;
        assert_eq!(opened.have().iter().collect::<Vec<_>>(), [0]);
        assert!(slot.store(1, two)?);
        other.refresh(content.id());
        assert!(opened.have().is_full());
        Ok(())
    }

    /// What a power cut leaves of a content: its place is of another boot of the machine.
    fn cut_power(directory: &Path, content: &Content) -> Result<()> {
        let place = directory.join(content.id().to_string()).join("place");
        let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(&place)?)?;
        kept["boot"] = "an earlier boot".into();
        Ok(fs::write(place, kept.to_string())?)
    }

    #[test]
    fn what_was_not_flushed_is_found_again_while_another_process_stores() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (bytes, content) = sample(5);
        let chunk = |index: u32| bytes.chunks(CHUNK).nth(index as usize).unwrap_or_default();
        let have = |slot: &Slot| slot.have().iter().collect::<Vec<u32>>();
        let open = || -> Result<_> {
            let store = Store::open(directory.path())?;
            let slot = store.slot(content.id()).context("there")?;
            Ok((store, slot))
        };
        {
            let slot = Store::open(directory.path())?.create(&content, &Place::inside())?;
            for index in 0..4 {
                assert!(slot.store(index, chunk(index))?);
            }
            // Two that never reached the disk.
            slot.file().write_all_at(&[0; 2 * CHUNK], CHUNK as u64)?;
        }
        cut_power(directory.path(), &content)?;
        let ((_, one), (other, two)) = (open()?, open()?);
        assert!(one.in_doubt() && two.in_doubt() && one.have().is_empty());
        // A publisher brings one of the two, and one process dies before it has looked at anything.
        assert!(two.store(1, chunk(1))?);
        drop(one);
        let (_, one) = open()?;
        assert_eq!((one.in_doubt(), have(&one)), (true, vec![1]));
        one.recheck()?;
        assert_eq!((one.in_doubt(), have(&one)), (false, vec![0, 1, 3]));
        other.refresh(content.id());
        assert_eq!((two.in_doubt(), have(&two)), (false, vec![0, 1, 3]));
        assert_eq!(have(&open()?.1), [0, 1, 3]);
        Ok(())
    }

    #[test]
    fn what_was_flushed_is_not_in_doubt_after_a_power_cut() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (bytes, content) = sample(2);
        let slot = Store::open(directory.path())?.create(&content, &Place::inside())?;
        assert!(slot.store(0, &bytes[..CHUNK])? && !slot.is_unsettled());
        assert!(slot.store(1, &bytes[CHUNK..])? && slot.is_unsettled());
        slot.settle()?;
        assert!(!slot.is_unsettled());
        cut_power(directory.path(), &content)?;
        let again = Store::open(directory.path())?.slot(content.id());
        let again = again.context("there")?;
        assert!(!again.in_doubt() && again.have().is_full());
        Ok(())
    }

    #[test]
    fn marks_of_what_is_cut_or_spoiled_are_not_believed() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (bytes, content) = sample(2);
        let fill = |slot: &Slot| -> Result<()> {
            assert!(slot.have().is_empty());
            assert!(slot.store(0, &bytes[..CHUNK])? && slot.store(1, &bytes[CHUNK..])?);
            Ok(())
        };
        let slot = Store::open(directory.path())?.create(&content, &Place::inside())?;
        fill(&slot)?;
        slot.settle()?;
        slot.file().set_len(CHUNK as u64)?;
        let again = Store::open(directory.path())?.slot(content.id());
        let again = again.context("there")?;
        assert!(again.in_doubt() && again.have().is_empty());
        again.recheck()?;
        assert_eq!(again.have().iter().collect::<Vec<_>>(), [0]);
        for spoiled in ["place", "list"] {
            cut_power(directory.path(), &content)?;
            let folder = directory.path().join(content.id().to_string());
            fs::write(folder.join(spoiled), b"")?;
            let store = Store::open(directory.path())?;
            assert!(store.slot(content.id()).is_none());
            let made = store.create(&content, &Place::inside())?;
            assert!(!made.in_doubt());
            fill(&made)?;
        }
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
