//! The list of a slot that is a draft's: entries, in memory and in a file that several processes may write.
//!
//! ```text
//! offset  bytes     field
//!      0      4     number of entries, big-endian
//!      4     64     the publisher's signature over all of them
//!     68     32·n   the entries, in order
//! ```
//! Entries are written before the head that counts them, and are always verified before they are written and after
//! they are read. So neither a kill in between nor another process that writes the same can do harm, and a
//! publisher that signs two lists for one draft spoils its own draft and nothing else. While a draft is being sealed, and
//! from then on, it takes no more: what a content begins with is all that chunks were verified by.

use anchorage_manifest::{Content, Draft, Entries, Hash, Signature, codec};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    sync::{
        Arc, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

const HEAD_SIZE: usize = 68;

/// A draft and its entries.
pub(super) struct Growing {
    draft: Draft,
    file: File,
    entries: RwLock<Entries>,
    /// Whether this process is sealing it.
    is_frozen: AtomicBool,
}

/// Keeps a draft as it is while it is being sealed. Other processes wait for the file's lock.
pub(super) struct Frozen(Arc<Growing>);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _alone = self.0.entries_mut();
        // It goes with the process, too.
        drop(self.0.file.unlock());
        self.0.is_frozen.store(false, Ordering::Relaxed);
    }
}

impl Growing {
    /// Keeps a draft in a slot's folder.
    pub(super) fn keep(draft: &Draft, folder: &Path) -> Result<()> {
        fs::write(folder.join("draft"), codec::encode(draft)).context("cannot write the draft")
    }

    /// Opens what a slot's folder has of a draft.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let bytes = fs::read(folder.join("draft")).context("cannot read the draft")?;
        let draft: Draft = codec::decode(&bytes).context("file on disk is no draft")?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("entries"))
            .context("cannot open the entries")?;
        let entries = RwLock::new(Entries::new(&draft));
        let growing = Self {
            draft,
            file,
            entries,
            is_frozen: AtomicBool::new(false),
        };
        // A file that was spoiled costs the entries, which come again.
        drop(growing.reload());
        Ok(growing)
    }

    /// The draft.
    pub(super) fn draft(&self) -> &Draft {
        &self.draft
    }

    /// The entries.
    pub(super) fn entries(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().expect("no holder of this lock panics")
    }

    /// Takes no more entries, if a content begins with those that there are in any process. Blocks.
    pub(super) fn freeze(self: Arc<Self>, content: &Content) -> io::Result<Option<Frozen>> {
        let is_begun = {
            // The file's lock is one for the whole process: unless it is frozen, whoever has this has that, too.
            let mut entries = self.entries_mut();
            self.file.lock()?;
            self.is_frozen.store(true, Ordering::Relaxed);
            drop(self.read(&mut entries));
            entries.begin(content)
        };
        let frozen = Frozen(self);
        Ok(is_begun.then_some(frozen))
    }

    /// Adds entries, unless it is sealed or about to be; whether any was new. An error whose root is an
    /// [`anchorage_manifest::EntriesError`] means that they are not the publisher's. Blocks.
    pub(super) fn extend(&self, first: u32, hashes: &[Hash], signature: Signature) -> Result<bool> {
        let mut entries = self.entries_mut();
        if self.is_frozen.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.file.lock().context("cannot lock the entries")?;
        let extended = self.extend_locked(&mut entries, first, hashes, signature);
        self.file.unlock().context("cannot unlock the entries")?;
        extended
    }

    fn extend_locked(
        &self,
        entries: &mut Entries,
        first: u32,
        hashes: &[Hash],
        signature: Signature,
    ) -> Result<bool> {
        // The file goes when it is sealed.
        if self.file.metadata().is_ok_and(|file| file.nlink() == 0) {
            return Ok(false);
        }
        // Another process may be further: its head must not be written over.
        drop(self.read(entries));
        let known = entries.count();
        entries.extend(first, hashes, signature)?;
        self.write(entries, known)?;
        Ok(entries.count() > known)
    }

    /// Adds entries that the publisher, this node, signs with `sign`. Blocks.
    pub(super) fn grow(
        &self,
        hashes: &[Hash],
        sign: impl FnOnce(&[u8]) -> Signature,
    ) -> Result<()> {
        let mut entries = self.entries_mut();
        let known = entries.count();
        let signature = sign(&entries.to_sign(hashes));
        entries.extend(known, hashes, signature)?;
        self.write(&entries, known)
    }

    /// Learns which entries another process has written; whether any was new. Blocks.
    pub(super) fn reload(&self) -> Result<bool> {
        self.read(&mut self.entries_mut())
    }

    fn read(&self, entries: &mut Entries) -> Result<bool> {
        let mut head = [0; HEAD_SIZE];
        self.file.read_exact_at(&mut head, 0)?;
        let (count, signature) = head.split_first_chunk::<4>().expect("68 bytes");
        let (count, known) = (u32::from_be_bytes(*count), entries.count());
        if count <= known {
            return Ok(false);
        }
        ensure!(
            count <= self.draft.geometry.chunks(),
            "file on disk has {count} entries"
        );
        let mut bytes = vec![0; 32 * (count - known) as usize];
        self.file.read_exact_at(&mut bytes, offset(known))?;
        let (hashes, _) = bytes.as_chunks::<32>();
        let hashes: Vec<Hash> = hashes.iter().copied().map(Hash).collect();
        let signature = Signature::from_bytes(signature.first_chunk().expect("64 bytes"));
        entries.extend(known, &hashes, signature)?;
        Ok(true)
    }

    fn write(&self, entries: &Entries, known: u32) -> Result<()> {
        let Some((new, signature)) = entries.since(known) else {
            return Ok(());
        };
        let mut head = entries.count().to_be_bytes().to_vec();
        head.extend_from_slice(&signature.to_bytes());
        let bytes: Vec<u8> = new.iter().flat_map(|hash| hash.0).collect();
        self.file
            .write_all_at(&bytes, offset(known))
            .and_then(|()| self.file.write_all_at(&head, 0))
            .context("cannot write the entries")
    }

    fn entries_mut(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().expect("no holder of this lock panics")
    }
}

fn offset(index: u32) -> u64 {
    HEAD_SIZE as u64 + 32 * u64::from(index)
}
