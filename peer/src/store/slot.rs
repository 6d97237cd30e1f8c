//! One content in the store: its list, its file, and which chunks of it are there.

use super::place::{Place, Stamp};
use crate::file_path::FilePath;
use anchorage_manifest::{Bitmap, Content, ContentId, Hash};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, Weak},
};
use tokio::sync::broadcast;

/// Somebody who wants to know of new chunks; a connection, say.
pub trait Watcher: Send + Sync {
    /// Chunk `index` of `content` is there from now on. Must not block.
    fn marked(&self, content: ContentId, index: u32);
}

/// One content.
pub struct Slot {
    id: ContentId,
    content: Arc<Content>,
    folder: PathBuf,
    marks: File,
    lost: broadcast::Sender<ContentId>,
    state: Mutex<State>,
}

struct State {
    place: Place,
    file: Arc<File>,
    have: Bitmap,
    in_doubt: bool,
    watchers: Vec<Weak<dyn Watcher>>,
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
        let list = fs::read(folder.join("list")).context("cannot read the list")?;
        let content = Content::decode_as(&list, id).context("file on disk is not the list")?;
        let place = Place::load(folder)?;
        let file = open_file(&place, folder, content.geometry().size())?;
        let marks = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("marks"))
            .context("cannot open the marks")?;
        marks
            .set_len(content.geometry().chunks().into())
            .context("cannot size the marks")?;
        let in_doubt = place.in_doubt(&file);
        let have = Bitmap::empty(content.geometry().chunks());
        let state = State {
            place,
            file: Arc::new(file),
            have,
            in_doubt,
            watchers: Vec::new(),
        };
        let slot = Self {
            id,
            content: Arc::new(content),
            folder: folder.to_owned(),
            marks,
            lost,
            state: Mutex::new(state),
        };
        slot.reload_marks();
        Ok(Arc::new(slot))
    }

    /// The content's id.
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// The content's list.
    pub fn content(&self) -> &Arc<Content> {
        &self.content
    }

    /// Which chunks are there.
    pub fn have(&self) -> Bitmap {
        self.state().have.clone()
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
        file_path(&self.state().place, &self.folder)
    }

    /// Whether the file may not be what the marks say; nothing of it is served until [`Slot::recheck`].
    pub fn in_doubt(&self) -> bool {
        self.state().in_doubt
    }

    /// Tells `watcher` of every new chunk from now on.
    pub fn watch(&self, watcher: Weak<dyn Watcher>) {
        let mut state = self.state();
        state.watchers.retain(|old| old.strong_count() > 0);
        state.watchers.push(watcher);
    }

    /// Reads bytes of chunk `index` from `within` on. Fails if the chunk is not there, or the file changed. Blocks.
    pub fn read(&self, index: u32, within: u32, bytes: &mut [u8]) -> Result<()> {
        let file = {
            let state = self.state();
            ensure!(state.have.contains(index), "chunk {index} is not there");
            state.file.clone()
        };
        let extent = self
            .content
            .geometry()
            .extent(index)
            .context("chunk past the end")?;
        let operand = || format!("cannot read chunk {index} of {}", self.path().display());
        file.read_exact_at(bytes, extent.offset + u64::from(within))
            .with_context(operand)?;
        let stamp = self.state().place.stamp;
        if let Some(stamp) = stamp
            && Stamp::of(&file.metadata().with_context(operand)?) != stamp
        {
            self.lose();
            bail!("{} has changed on disk", self.path().display());
        }
        Ok(())
    }

    /// Verifies a chunk, writes it to its place and marks it; false if it does not match its hash. Blocks.
    pub fn store(&self, index: u32, bytes: &[u8]) -> Result<bool> {
        self.store_hashed(index, bytes, Hash::of(bytes))
    }

    /// [`Slot::store`] for a caller who has hashed the bytes already. Blocks.
    pub(crate) fn store_hashed(&self, index: u32, bytes: &[u8], hash: Hash) -> Result<bool> {
        if !self.matches(index, bytes.len(), hash) {
            return Ok(false);
        }
        if self.has(index) {
            return Ok(true);
        }
        let extent = self
            .content
            .geometry()
            .extent(index)
            .context("chunk past the end")?;
        let file = self.state().file.clone();
        file.write_all_at(bytes, extent.offset)
            .and_then(|()| self.marks.write_all_at(&[1], index.into()))
            .with_context(|| format!("cannot write chunk {index} of {}", self.path().display()))?;
        self.learn(index);
        Ok(true)
    }

    /// Marks every chunk: the file was read whole just now, and it matched. Blocks.
    pub fn mark_all(&self) -> Result<()> {
        let all = vec![1; self.content.chunks().len()];
        self.marks
            .write_all_at(&all, 0)
            .context("cannot write the marks")?;
        let new: Vec<u32> = {
            let mut state = self.state();
            state.in_doubt = false;
            state.have.missing().collect()
        };
        for index in new {
            self.learn(index);
        }
        Ok(())
    }

    /// Reads the file again and marks what matches, nothing else. Blocks for as long as that takes.
    pub fn recheck(&self) -> Result<()> {
        let file = self.state().file.clone();
        let mut buffer = vec![0; self.content.geometry().chunk_size() as usize];
        let mut good = Vec::new();
        for index in 0..self.content.geometry().chunks() {
            let extent = self
                .content
                .geometry()
                .extent(index)
                .context("chunk past the end")?;
            let bytes = &mut buffer[..extent.size as usize];
            if file.read_exact_at(bytes, extent.offset).is_ok()
                && self.matches(index, bytes.len(), Hash::of(bytes))
            {
                good.push(index);
            }
        }
        self.clear();
        self.set_place(self.place().rechecked(&file)?)?;
        self.state().in_doubt = false;
        for index in good {
            self.marks
                .write_all_at(&[1], index.into())
                .context("cannot write the marks")?;
            self.learn(index);
        }
        Ok(())
    }

    /// Begins anew: the file holds nothing yet.
    pub fn reset(&self) {
        self.clear();
        self.state().in_doubt = false;
    }

    /// The first chunk that is not there; their number if all are.
    pub fn first_missing(&self) -> u32 {
        self.state().have.first_missing()
    }

    /// The file is not what it was: nothing of it is served any more, and whoever looks after lost contents is told.
    fn lose(&self) {
        self.clear();
        self.state().in_doubt = true;
        // Nobody looks after them in a process that only stores.
        drop(self.lost.send(self.id));
    }

    /// Takes every mark away. What cannot be written down is at least not served.
    fn clear(&self) {
        let mut state = self.state();
        state.have = Bitmap::empty(self.content.geometry().chunks());
        let cleared = self.marks.set_len(0);
        drop(cleared.and_then(|()| self.marks.set_len(state.have.len().into())));
        drop(fs::remove_file(self.prefix_path()));
    }

    /// The file is complete: it gets its final name, over whatever has it, and its stamp. Blocks.
    pub fn complete_as(&self, path: &Path) -> Result<()> {
        let part = self.path();
        let operand = || format!("cannot rename {} to {}", part.display(), path.display());
        fs::rename(&part, path).with_context(operand)?;
        let metadata = self.state().file.metadata().with_context(operand)?;
        let place = Place {
            path: Some(path.into()),
            stamp: Some(Stamp::of(&metadata)),
            ..self.place()
        };
        self.set_place(place)?;
        drop(fs::remove_file(self.prefix_path()));
        Ok(())
    }

    /// Moves the unfinished file to another path. Blocks.
    pub fn move_part(&self, path: &Path) -> Result<()> {
        let part = self.path();
        fs::rename(&part, path)
            .with_context(|| format!("cannot rename {} to {}", part.display(), path.display()))?;
        self.set_place(Place {
            path: Some(path.into()),
            ..self.place()
        })
    }

    /// Flushes the file to the disk, so that even a power cut does not put it in doubt. Blocks.
    pub fn settle(&self) -> Result<()> {
        let file = self.state().file.clone();
        file.sync_data().context("cannot flush the file")?;
        self.marks.sync_data().context("cannot flush the marks")?;
        self.set_place(self.place().settle())
    }

    /// Learns which chunks another process has marked.
    pub(super) fn reload_marks(&self) {
        if self.in_doubt() {
            return;
        }
        let mut marks = vec![0; self.content.chunks().len()];
        if self.marks.read_exact_at(&mut marks, 0).is_ok() {
            (0..)
                .zip(marks)
                .filter(|&(_, mark)| mark == 1)
                .for_each(|(index, _)| self.learn(index));
        }
    }

    /// Where a file hash that was interrupted may be kept.
    pub fn prefix_path(&self) -> PathBuf {
        self.folder.join("prefix")
    }

    /// The open file, to be read whole.
    pub fn file(&self) -> Arc<File> {
        self.state().file.clone()
    }

    fn matches(&self, index: u32, size: usize, hash: Hash) -> bool {
        let extent = self.content.geometry().extent(index);
        extent.is_some_and(|extent| extent.size as usize == size)
            && self.content.chunks()[index as usize] == hash
    }

    fn learn(&self, index: u32) {
        let watchers = {
            let mut state = self.state();
            if !state.have.insert(index) {
                return;
            }
            state.watchers.clone()
        };
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            watcher.marked(self.id, index);
        }
    }

    fn set_place(&self, place: Place) -> Result<()> {
        place.save(&self.folder)?;
        self.state().place = place;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
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
    file.set_len(size)
        .with_context(|| format!("cannot make {} as long as it will be", path.display()))?;
    Ok(file)
}
