//! One content in the store: its list, its file, and which chunks of it are there.
//!
//! A draft's slot is known by the draft's id. When the draft is sealed, a second slot, known by the content's id,
//! shares everything with it but the name: no chunk is moved or read again, and whoever still asks by the first
//! name is answered by it, until nobody does.

use super::{
    cached,
    growing::{Frozen, Growing},
    marks::{self, Marks},
    place::{Place, Stamp, is_same_file},
};
use crate::{
    buffers::Buffer,
    check::{check, check_and_hash},
    file_path::FilePath,
};
use anchorage_manifest::{Bitmap, Content, ContentId, Draft, Geometry, Hash, Link, Signature};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs::{self, File, OpenOptions},
    io, mem,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, Weak},
};
use tokio::sync::broadcast;

/// Somebody who wants to know of new chunks; a connection, say.
pub trait Watcher: Send + Sync {
    /// These chunks of `content`, one at least, are there from now on; so many watchers are told. Must not block.
    fn marked(&self, content: ContentId, chunks: &[u32], watchers: usize);

    /// The draft `content` has more entries; told before the chunks that need them. Must not block.
    fn grew(&self, content: ContentId);
}

/// One content, or one draft.
pub struct Slot {
    id: ContentId,
    core: Arc<Core>,
    /// The entries, if the name is a draft's; sealed or not.
    growing: Option<Arc<Growing>>,
}

/// What a draft's slot and its content's share.
struct Core {
    geometry: Geometry,
    marks: Marks,
    lost: broadcast::Sender<ContentId>,
    list: RwLock<List>,
    state: Mutex<State>,
    /// Held while the place is kept anew; the state is not, since a disk may take long.
    placing: Mutex<()>,
    /// Whether the file lies in memory.
    is_in_memory: bool,
}

/// Where the entries of chunks are.
enum List {
    Growing(Arc<Growing>),
    Sealed(Arc<Content>),
}

struct State {
    folder: PathBuf,
    place: Place,
    file: Arc<File>,
    have: Bitmap,
    in_doubt: bool,
    /// How often it has been put in doubt.
    doubts: u64,
    /// Chunks that are there and that watchers have not been told of.
    untold: Vec<u32>,
    /// Shared with whoever is telling them something at the moment.
    watchers: Arc<Vec<Watching>>,
}

/// A watcher, and under which name it knows the slot.
#[derive(Clone)]
struct Watching {
    id: ContentId,
    growing: Option<Arc<Growing>>,
    watcher: Weak<dyn Watcher>,
}

impl Slot {
    /// Opens a slot's folder, whose list must hash to `id`.
    ///
    /// Should its file change, `lost` is told.
    pub(super) fn open(
        folder: &Path,
        id: ContentId,
        lost: broadcast::Sender<ContentId>,
    ) -> Result<Arc<Self>> {
        let content = Arc::new(load_list(folder, id)?);
        let geometry = content.geometry();
        Self::assemble(folder, id, lost, geometry, List::Sealed(content), None)
    }

    /// Opens the folder of a draft, which must have the id `id`.
    pub(super) fn open_draft(
        folder: &Path,
        id: ContentId,
        lost: broadcast::Sender<ContentId>,
    ) -> Result<Arc<Self>> {
        let growing = Arc::new(Growing::open(folder)?);
        ensure!(growing.draft().id() == id, "file on disk is another draft");
        let geometry = growing.draft().geometry;
        let list = List::Growing(growing.clone());
        Self::assemble(folder, id, lost, geometry, list, Some(growing))
    }

    fn assemble(
        folder: &Path,
        id: ContentId,
        lost: broadcast::Sender<ContentId>,
        geometry: Geometry,
        list: List,
        growing: Option<Arc<Growing>>,
    ) -> Result<Arc<Self>> {
        let mut place = Place::load(folder)?;
        let is_cut = is_cut(&place, folder, geometry.size());
        let file = open_file(&place, folder, geometry.size())?;
        let marks = Marks::open(folder, geometry.chunks())?;
        if is_cut || place.in_doubt(&file, marks.file()) {
            place = doubt(folder, &file, &marks, is_cut)
                .with_context(|| format!("cannot put {} in doubt", folder.display()))?;
        }
        let in_doubt = doubt_path(folder).exists();
        let is_in_memory = cached::is_in_memory(&file);
        let state = State {
            folder: folder.to_owned(),
            place,
            file: Arc::new(file),
            have: Bitmap::empty(geometry.chunks()),
            in_doubt,
            doubts: 0,
            untold: Vec::new(),
            watchers: Arc::default(),
        };
        let core = Arc::new(Core {
            geometry,
            marks,
            lost,
            list: RwLock::new(list),
            state: Mutex::new(state),
            placing: Mutex::default(),
            is_in_memory,
        });
        let slot = Self { id, core, growing };
        slot.reload_marks();
        Ok(Arc::new(slot))
    }

    /// The id: the content's, or the draft's if this is its slot, sealed or not.
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// The sizes of file and chunks.
    pub fn geometry(&self) -> Geometry {
        self.core.geometry
    }

    /// The list; none while it is a draft that is not sealed.
    pub fn content(&self) -> Option<Arc<Content>> {
        match &*self.list() {
            List::Growing(_) => None,
            List::Sealed(content) => Some(content.clone()),
        }
    }

    /// Whether it is known by a draft's id, sealed or not.
    pub fn is_draft(&self) -> bool {
        self.growing.is_some()
    }

    /// The content that this draft has become.
    pub fn became(&self) -> Option<ContentId> {
        let content = self.content().filter(|_| self.is_draft());
        content.map(|content| content.id())
    }

    /// The draft whose slot this is, if it is not sealed.
    pub fn draft(&self) -> Option<Draft> {
        self.draft_list().map(|growing| growing.draft().clone())
    }

    /// Entries of the draft from `first` on, and the signature that covers them and all before; none if there are
    /// none.
    pub fn entries_since(&self, first: u32) -> Option<(Vec<Hash>, Signature)> {
        let entries = self.growing.as_ref()?.entries();
        let (new, signature) = entries.since(first)?;
        Some((new.to_vec(), signature))
    }

    /// Adds entries to the draft, once their signature is found good. An error whose root is an
    /// [`anchorage_manifest::EntriesError`] means that they are not the publisher's. Blocks.
    pub fn extend(&self, first: u32, entries: &[Hash], signature: Signature) -> Result<()> {
        let growing = self.growing.as_ref().context("it is no draft")?;
        if growing.extend(first, entries, signature)? {
            self.tell_grown();
        }
        Ok(())
    }

    /// Adds entries of a draft of this node's own, which `sign` signs, and marks their chunks: they were read just
    /// now. Blocks.
    pub fn grow(&self, entries: &[Hash], sign: impl FnOnce(&[u8]) -> Signature) -> Result<()> {
        let growing = self.growing.as_ref().context("it is no draft")?;
        let first = growing.entries().count();
        growing.grow(entries, sign)?;
        self.tell_grown();
        self.core.marks.set_many(first, entries.len())?;
        let new: Vec<u32> = (first..growing.entries().count()).collect();
        self.learn(&new);
        Ok(())
    }

    /// The content that the draft's entries make; none while some are missing.
    pub fn sealed(&self) -> Option<Content> {
        self.growing.as_ref()?.entries().seal()
    }

    /// Keeps an unsealed draft as it is, if `content` begins with it. Blocks.
    pub(super) fn freeze(&self, content: &Content) -> io::Result<Option<Frozen>> {
        match self.draft_list() {
            Some(growing) => growing.freeze(content),
            None => Ok(None),
        }
    }

    fn draft_list(&self) -> Option<Arc<Growing>> {
        match &*self.list() {
            List::Growing(growing) => Some(growing.clone()),
            List::Sealed(_) => None,
        }
    }

    /// Whether this is an unsealed draft with which `content` begins.
    pub(super) fn begins(&self, content: &Content) -> bool {
        let growing = self.draft_list();
        growing.is_some_and(|growing| growing.entries().begin(content))
    }

    /// Whether the folder is the slot's own, under whatever name.
    pub(super) fn is_in(&self, folder: &Path) -> bool {
        let ours = self.core.marks.file().metadata();
        let theirs = fs::metadata(folder.join("marks"));
        is_same_file(ours, theirs)
    }

    /// Whether another process has removed its folder.
    pub(super) fn is_removed(&self) -> bool {
        let marks = self.core.marks.file().metadata();
        marks.is_ok_and(|marks| marks.nlink() == 0)
    }

    /// The slot of the content that the draft has become, whose folder is this one now.
    pub(super) fn seal(&self, content: Arc<Content>, folder: &Path) -> Arc<Self> {
        let id = content.id();
        folder.clone_into(&mut self.state().folder);
        *self
            .core
            .list
            .write()
            .expect("no holder of this lock panics") = List::Sealed(content);
        Arc::new(Self {
            id,
            core: self.core.clone(),
            growing: None,
        })
    }

    /// Which chunks are there.
    pub fn have(&self) -> Bitmap {
        self.tellable(self.state().have.clone())
    }

    /// Whether chunk `index` is there.
    pub fn has(&self, index: u32) -> bool {
        self.state().have.contains(index)
    }

    /// Where the file is.
    pub fn place(&self) -> Place {
        self.state().place.clone()
    }

    /// Path of the file.
    pub fn path(&self) -> PathBuf {
        let state = self.state();
        file_path(&state.place, &state.folder)
    }

    /// Whether the file may have more or other bytes than the marks say: they were taken away, and are put back by
    /// [`Slot::recheck`].
    pub fn in_doubt(&self) -> bool {
        self.state().in_doubt
    }

    /// Tells `watcher` of every new chunk from now on.
    pub fn watch(&self, watcher: Weak<dyn Watcher>) {
        let mut state = self.state();
        let watchers = Arc::make_mut(&mut state.watchers);
        watchers.retain(|old| old.watcher.strong_count() > 0);
        watchers.push(Watching {
            id: self.id,
            growing: self.growing.clone(),
            watcher,
        });
    }

    /// Tells those who watch `old`, in whose place this slot comes, from now on.
    pub(super) fn take_watchers(&self, old: &Self) {
        let watchers = mem::take(&mut old.state().watchers);
        self.state().watchers = watchers;
    }

    /// Reads bytes of chunk `index` from `within` on. Fails if the chunk is not there, or the file changed. Blocks.
    pub fn read(&self, index: u32, within: u32, bytes: &mut [u8]) -> Result<()> {
        self.read_by(index, within, |file, offset| {
            file.read_exact_at(bytes, offset)
        })
    }

    /// [`Slot::read`] of what is in memory; false, and anything in `bytes`, if it would have to wait for a disk.
    pub fn read_now(&self, index: u32, within: u32, bytes: &mut [u8]) -> Result<bool> {
        self.read_by(index, within, |file, offset| {
            if self.core.is_in_memory {
                file.read_exact_at(bytes, offset).map(|()| true)
            } else {
                cached::read(file, bytes, offset)
            }
        })
    }

    /// Reads from chunk `index`, by whatever takes the file and where in it the bytes are.
    fn read_by<T>(
        &self,
        index: u32,
        within: u32,
        read: impl FnOnce(&File, u64) -> io::Result<T>,
    ) -> Result<T> {
        let file = {
            let state = self.state();
            ensure!(state.have.contains(index), "chunk {index} is not there");
            state.file.clone()
        };
        let extent = self
            .geometry()
            .extent(index)
            .context("chunk past the end")?;
        let operand = || format!("cannot read chunk {index} of {}", self.path().display());
        let read = read(&file, extent.offset + u64::from(within)).with_context(operand)?;
        let stamp = self.state().place.stamp;
        if let Some(stamp) = stamp
            && Stamp::of(&file.metadata().with_context(operand)?) != stamp
        {
            self.lose();
            bail!("{} has changed on disk", self.path().display());
        }
        Ok(read)
    }

    /// Verifies a chunk, writes it to its place and marks it; false if it is not the one of the list. Blocks.
    pub fn store(&self, index: u32, bytes: &[u8]) -> Result<bool> {
        let link = self.link(index);
        let Some(hash) = link.and_then(|link| check_and_hash(&link, bytes)) else {
            return Ok(false);
        };
        self.write(index, bytes)?;
        self.tell();
        // Made beside the other hash; what cannot be kept is made again by whoever asks.
        drop(self.keep_hash(index, hash));
        Ok(true)
    }

    /// Writes a chunk that is verified to its place and marks it, if it is not there yet; watchers are told by
    /// [`tell`](Self::tell). Blocks.
    pub(crate) fn write(&self, index: u32, bytes: &[u8]) -> Result<()> {
        if self.has(index) {
            return Ok(());
        }
        let extent = self
            .geometry()
            .extent(index)
            .context("chunk past the end")?;
        let file = self.state().file.clone();
        let marks = &self.core.marks;
        marks
            .begin()
            .and_then(|()| file.write_all_at(bytes, extent.offset))
            .and_then(|()| marks.set(index))
            .with_context(|| format!("cannot write chunk {index} of {}", self.path().display()))?;
        self.note(&[index]);
        Ok(())
    }

    /// Marks every chunk: the file was read whole just now, and it matched. Blocks.
    pub fn mark_all(&self) -> Result<()> {
        self.core
            .marks
            .set_many(0, self.geometry().chunks() as usize)?;
        self.doubt_no_more();
        let new: Vec<u32> = self.state().have.missing().collect();
        self.learn(&new);
        Ok(())
    }

    /// Takes every mark away until the file has been read again: it may hold anything.
    pub fn doubt(&self) {
        {
            let mut state = self.state();
            state.in_doubt = true;
            state.doubts += 1;
            // Where that cannot be kept, what is marked from now on is good all the same.
            drop(File::create(doubt_path(&state.folder)));
        }
        self.clear();
    }

    /// Reads a file that is in doubt again, and marks what matches as it is found. Blocks for as long as that takes.
    pub fn recheck(&self) -> Result<()> {
        if !self.in_doubt() {
            return Ok(());
        }
        let (file, doubts, stamp) = {
            let state = self.state();
            (state.file.clone(), state.doubts, state.place.stamp)
        };
        // Who writes to a complete file from now on is noticed.
        self.change_place(|place| place.doubted(&file))?;
        if self.place().stamp != stamp {
            self.clear();
        }
        let mut buffer = Buffer::new(self.geometry().chunk_size() as usize);
        for index in 0..self.geometry().chunks() {
            let Some(link) = self.link(index) else {
                break;
            };
            let bytes = &mut buffer[..link.extent.size as usize];
            // What is marked was stored, or found, since the doubt.
            if !self.has(index)
                && file.read_exact_at(bytes, link.extent.offset).is_ok()
                && check(&link, bytes)
            {
                let marked = self.core.marks.set(index);
                marked.context("cannot write the marks")?;
                self.learn(&[index]);
            }
        }
        // Who puts it in doubt meanwhile looks again.
        if self.state().doubts == doubts {
            self.doubt_no_more();
        }
        Ok(())
    }

    /// The SHA-256 of chunks alone, 32 bytes each, as far as they have been made; zeros elsewhere. Blocks.
    pub fn hashes_made(&self) -> Vec<u8> {
        let mut hashes = fs::read(self.hashes_path()).unwrap_or_default();
        hashes.resize(32 * self.geometry().chunks() as usize, 0);
        hashes
    }

    /// The SHA-256 of every chunk alone, 32 bytes each; zeros for what is not there. What has not been made yet is made now,
    /// of chunks that are still good. Blocks for as long as that takes.
    pub fn hashes(&self) -> Result<Vec<u8>> {
        let mut hashes = self.hashes_made();
        let (known, _) = hashes.as_chunks_mut::<32>();
        let mut buffer = Buffer::new(self.geometry().chunk_size() as usize);
        let have = self.have();
        for index in have.iter() {
            let place = &mut known[index as usize];
            if *place != [0; 32] {
                continue;
            }
            let link = self.link(index).context("BUG: a chunk of no list")?;
            let bytes = &mut buffer[..link.extent.size as usize];
            self.read(index, 0, bytes)?;
            if let Some(hash) = check_and_hash(&link, bytes) {
                *place = hash.0;
                // What cannot be kept is made again.
                drop(self.keep_hash(index, hash));
            }
        }
        Ok(hashes)
    }

    fn keep_hash(&self, index: u32, hash: Hash) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.hashes_path())?;
        file.write_all_at(&hash.0, 32 * u64::from(index))
    }

    fn hashes_path(&self) -> PathBuf {
        self.state().folder.join("hashes")
    }

    /// Begins anew: the file holds nothing yet.
    pub fn reset(&self) {
        self.clear();
        self.doubt_no_more();
    }

    /// The file is not what it was: nothing of it is served any more, and whoever looks after lost contents is told.
    fn lose(&self) {
        self.doubt();
        // Nobody looks after them in a process that only stores.
        drop(self.core.lost.send(self.id));
    }

    /// Takes every mark away. What cannot be written down is at least not served.
    fn clear(&self) {
        let mut state = self.state();
        state.have = Bitmap::empty(self.geometry().chunks());
        state.untold.clear();
        drop(self.core.marks.clear());
    }

    fn doubt_no_more(&self) {
        let mut state = self.state();
        // What cannot be removed costs another look at the file.
        drop(fs::remove_file(doubt_path(&state.folder)));
        state.in_doubt = false;
    }

    /// The file is complete: it gets its final name, over whatever has it, and its stamp. Blocks.
    pub fn complete_as(&self, path: &Path) -> Result<()> {
        let part = self.path();
        let operand = || format!("cannot rename {} to {}", part.display(), path.display());
        fs::rename(&part, path).with_context(operand)?;
        let metadata = self.state().file.metadata().with_context(operand)?;
        self.change_place(|place| {
            Ok(Place {
                path: Some(path.into()),
                stamp: Some(Stamp::of(&metadata)),
                ..place
            })
        })
    }

    /// Moves the unfinished file to another path. Blocks.
    pub fn move_part(&self, path: &Path) -> Result<()> {
        let part = self.path();
        fs::rename(&part, path)
            .with_context(|| format!("cannot rename {} to {}", part.display(), path.display()))?;
        self.change_place(|place| {
            Ok(Place {
                path: Some(path.into()),
                ..place
            })
        })
    }

    /// Whether all is there, the list too, and was not flushed yet.
    pub fn is_unsettled(&self) -> bool {
        let is_due = {
            let state = self.state();
            state.have.is_full() && !state.place.settled
        };
        is_due && self.content().is_some()
    }

    /// Flushes the file to the disk if all of it is there, and what is known of it, so that even a power cut does not put it
    /// in doubt. Blocks.
    pub fn settle(&self) -> Result<()> {
        if !self.is_unsettled() {
            return Ok(());
        }
        let (file, folder) = {
            let state = self.state();
            (state.file.clone(), state.folder.clone())
        };
        let known = |name: &str| File::open(folder.join(name)).and_then(|file| file.sync_all());
        file.sync_data().context("cannot flush the file")?;
        self.core
            .marks
            .file()
            .sync_data()
            .and_then(|()| known("list"))
            .context("cannot flush the marks")?;
        self.change_place(|place| Ok(place.settle()))?;
        ["place", ".", ".."]
            .into_iter()
            .try_for_each(known)
            .context("cannot flush the place")
    }

    /// Learns which entries and chunks another process has written.
    pub(super) fn reload(&self) {
        // Entries that cannot be read are none.
        if self
            .growing
            .as_ref()
            .is_some_and(|growing| growing.reload().unwrap_or(false))
        {
            self.tell_grown();
        }
        {
            let mut state = self.state();
            state.in_doubt &= doubt_path(&state.folder).exists();
        }
        self.reload_marks();
    }

    fn reload_marks(&self) {
        if let Ok(mut marked) = self.core.marks.read() {
            marked.retain(|&index| self.link(index).is_some());
            self.learn(&marked);
        }
    }

    /// Where servers of this store say what they have given out.
    pub fn given_path(&self) -> PathBuf {
        self.state().folder.join("given")
    }

    /// The open file, to be read whole.
    pub fn file(&self) -> Arc<File> {
        self.state().file.clone()
    }

    /// What chunk `index` is verified by, once its entry is known.
    pub(crate) fn link(&self, index: u32) -> Option<Link> {
        match &*self.list() {
            List::Growing(growing) => growing.entries().link(index),
            List::Sealed(content) => content.link(index),
        }
    }

    /// These chunks are there, and watchers are told.
    fn learn(&self, chunks: &[u32]) {
        self.note(chunks);
        self.tell();
    }

    fn note(&self, chunks: &[u32]) {
        let State { have, untold, .. } = &mut *self.state();
        untold.extend(chunks.iter().filter(|&&index| have.insert(index)));
    }

    /// Tells watchers what they have not been told: several chunks in one go, since there may be many watchers.
    pub(crate) fn tell(&self) {
        let (chunks, watchers) = {
            let mut state = self.state();
            (mem::take(&mut state.untold), state.watchers.clone())
        };
        if chunks.is_empty() {
            return;
        }
        for Watching {
            id,
            growing,
            watcher,
        } in watchers.iter()
        {
            let Some(watcher) = watcher.upgrade() else {
                continue;
            };
            match growing {
                None => watcher.marked(*id, &chunks, watchers.len()),
                Some(growing) => {
                    // Who does not know the entry cannot do anything with the chunk.
                    let is_known = |index: &u32| growing.entries().get(*index).is_some();
                    let known: Vec<u32> = chunks.iter().copied().filter(is_known).collect();
                    if !known.is_empty() {
                        watcher.marked(*id, &known, watchers.len());
                    }
                }
            }
        }
    }

    fn tell_grown(&self) {
        let watchers = self.state().watchers.clone();
        for Watching { id, watcher, .. } in watchers.iter().filter(|one| one.id == self.id) {
            if let Some(watcher) = watcher.upgrade() {
                watcher.grew(*id);
            }
        }
    }

    /// What can be told of chunks under this name: those whose entries are known. A draft that was sealed by its
    /// list has chunks beyond the entries that its publisher signed.
    fn tellable(&self, mut have: Bitmap) -> Bitmap {
        if let Some(growing) = &self.growing {
            let known = growing.entries().count();
            while let Some(index) = have.next_from(known) {
                have.remove(index);
            }
        }
        have
    }

    fn list(&self) -> RwLockReadGuard<'_, List> {
        self.core
            .list
            .read()
            .expect("no holder of this lock panics")
    }

    fn change_place(&self, change: impl FnOnce(Place) -> Result<Place>) -> Result<()> {
        let placing = self.core.placing.lock();
        let _one_at_a_time = placing.expect("no holder of this lock panics");
        let (place, folder) = {
            let state = self.state();
            (state.place.clone(), state.folder.clone())
        };
        let place = change(place)?;
        place.save(&folder)?;
        self.state().place = place;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.core
            .state
            .lock()
            .expect("no holder of this lock panics")
    }
}

/// The list in a slot's folder, which must hash to `id`.
pub(super) fn load_list(folder: &Path, id: ContentId) -> Result<Content> {
    let list = fs::read(folder.join("list")).context("cannot read the list")?;
    Content::decode_as(&list, id).context("file on disk is not the list")
}

fn file_path(place: &Place, folder: &Path) -> PathBuf {
    match &place.path {
        Some(FilePath(path)) => path.clone(),
        None => folder.join("data"),
    }
}

/// A complete file is only read; one in the making is made if need be, and as long as it will be.
fn open_file(place: &Place, folder: &Path, size: u64) -> Result<File> {
    let path = file_path(place, folder);
    let operand = || format!("cannot open {}", path.display());
    if place.stamp.is_some() {
        return File::open(&path).with_context(operand);
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(operand)?;
    marks::size(&file, size)
        .with_context(|| format!("cannot make {} as long as it will be", path.display()))?;
    Ok(file)
}

/// Takes the marks of a slot away, for its file may not be what they say. Of the processes that share it, the first that
/// opens it does that, before anything is stored again.
fn doubt(folder: &Path, file: &File, marks: &Marks, is_cut: bool) -> Result<Place> {
    marks.file().lock()?;
    let mut place = Place::load(folder)?;
    if is_cut || place.in_doubt(file, marks.file()) {
        // Whoever dies in between leaves it in doubt.
        File::create(doubt_path(folder))?;
        marks.clear()?;
        place = place.doubted(file)?;
        place.save(folder)?;
    }
    marks.file().unlock()?;
    Ok(place)
}

/// Whether a file in the making that has marks is shorter than it was made.
fn is_cut(place: &Place, folder: &Path, size: u64) -> bool {
    let is_whole = |metadata: fs::Metadata| metadata.len() >= size;
    place.stamp.is_none()
        && Marks::exist(folder)
        && !fs::metadata(file_path(place, folder)).is_ok_and(is_whole)
}

/// The file that is there while marks that were taken away have not all been looked for.
fn doubt_path(folder: &Path) -> PathBuf {
    folder.join("doubt")
}
