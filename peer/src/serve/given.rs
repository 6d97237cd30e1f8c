//! What of a content is out, in a file that all servers of one store read and write.
//!
//! A byte a chunk: who has given it out, or heard of somebody who has it, counted from one. Nothing waits for anything: if
//! two claim a chunk in the same moment, it goes out twice. Marks of a server that died are its successor's.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

/// What servers with one store have given out of a content, or know to be out. A server takes its marks back when nobody
/// asks it any more.
#[derive(Debug)]
pub(super) struct Given {
    file: File,
    mark: u8,
}

impl Given {
    /// Opens or makes the file at `path`, for one of the servers.
    pub(super) fn open(path: &Path, sibling: u32) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mark = u8::try_from(sibling + 1).map_err(io::Error::other)?;
        Ok(Self {
            file: options.open(path)?,
            mark,
        })
    }

    /// Whether a chunk is this server's to give out, because nobody else has; from now on nobody else does. Where the file
    /// cannot be used, everybody may.
    pub(super) fn claim(&self, index: u32) -> bool {
        let mut mark = [0];
        // Behind the end nothing was given out.
        let _ = self.file.read_at(&mut mark, index.into());
        let is_free = mark == [0];
        if is_free {
            let _ = self.file.write_all_at(&[self.mark], index.into());
        }
        is_free || mark == [self.mark]
    }

    /// Takes back everything that this server gave out.
    fn clear(&self) -> io::Result<()> {
        let size = self.file.metadata()?.len();
        let mut marks = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut marks, 0)?;
        for mark in marks.iter_mut().filter(|mark| **mark == self.mark) {
            *mark = 0;
        }
        self.file.write_all_at(&marks, 0)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // What stays is only not given out by others.
        let _ = self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_has_given_out_is_not_given_out_by_another_until_nobody_asks_the_one()
    -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("given");
        let (one, two) = (Given::open(&path, 0)?, Given::open(&path, 1)?);
        assert!(one.claim(3) && one.claim(3), "its own stays its own");
        assert!(!two.claim(3));
        assert!(two.claim(9) && !one.claim(9));
        // One that died left its marks.
        std::mem::forget(one);
        assert!(!two.claim(3));
        let again = Given::open(&path, 0)?;
        assert!(again.claim(3) && !again.claim(9));
        drop(again);
        assert!(two.claim(3));
        assert!(Given::open(&path, 300).is_err());
        Ok(())
    }
}
