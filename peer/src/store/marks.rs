//! The marks of a slot: which chunks are in its file and verified.
//!
//! One byte a chunk, 1 = it is; and one more, which is written before each chunk. Each is written alone, so several processes
//! need no lock.

use anyhow::{Context as _, Result};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

/// The marks' file.
pub(super) struct Marks {
    file: File,
    chunks: u32,
}

impl Marks {
    /// Opens or makes the marks of so many chunks in a slot's folder.
    pub(super) fn open(folder: &Path, chunks: u32) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("marks"))
            .context("cannot open the marks")?;
        size(&file, u64::from(chunks) + 1).context("cannot size the marks")?;
        Ok(Self { file, chunks })
    }

    /// Whether a slot's folder has marks.
    pub(super) fn exist(folder: &Path) -> bool {
        folder.join("marks").exists()
    }

    /// The file, to be locked, flushed, or asked for its times.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Says that a chunk is about to be written: whenever the process ends, the marks were written to no earlier than the
    /// slot's file was by it.
    pub(super) fn begin(&self) -> io::Result<()> {
        self.file.write_all_at(&[0], self.chunks.into())
    }

    /// Marks a chunk.
    pub(super) fn set(&self, index: u32) -> io::Result<()> {
        self.file.write_all_at(&[1], index.into())
    }

    /// Marks so many chunks from `first` on.
    pub(super) fn set_many(&self, first: u32, count: usize) -> Result<()> {
        let marks = vec![1; count];
        let written = self.file.write_all_at(&marks, first.into());
        written.context("cannot write the marks")
    }

    /// The chunks that are marked.
    pub(super) fn read(&self) -> io::Result<Vec<u32>> {
        let mut marks = vec![0; self.chunks as usize];
        self.file.read_exact_at(&mut marks, 0)?;
        let marked = (0..).zip(marks).filter(|&(_, mark)| mark == 1);
        Ok(marked.map(|(index, _)| index).collect())
    }

    /// Takes every mark away.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.set_len(u64::from(self.chunks) + 1)
    }
}

/// Makes a file so long; one that is so already is not touched, so that it can be told when it was written.
pub(super) fn size(file: &File, size: u64) -> io::Result<()> {
    if file.metadata()?.len() == size {
        return Ok(());
    }
    file.set_len(size)
}
