//! Reading what the kernel has in memory: it takes less time than asking another thread to do it.

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::{
    fs::File,
    io::{self, IoSliceMut},
};

/// Whether a file lies in memory altogether; the kernel's way of asking for what is there does not work for these.
pub(super) fn is_in_memory(file: &File) -> bool {
    fstatfs(file).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC)
}

/// Fills `bytes` if the kernel has them in its cache; false, and anything in `bytes`, if somebody would have to wait
/// for them, or the file system cannot tell (`RWF_NOWAIT`, preadv2(2)).
pub(super) fn read(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
    let size = bytes.len();
    let read = preadv2(
        file,
        &mut [IoSliceMut::new(bytes)],
        offset,
        ReadWriteFlags::NOWAIT,
    );
    match read {
        Ok(count) => Ok(count == size),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Result;
    use std::{env, os::unix::fs::FileExt as _};

    #[test]
    fn what_was_written_just_now_is_read_at_once_or_not_at_all() -> Result<()> {
        let places = [env::temp_dir(), "/dev/shm".into(), env::current_dir()?];
        for place in places.iter().filter(|place| place.is_dir()) {
            let file = tempfile::tempfile_in(place)?;
            file.write_all_at(b"0123456789", 0)?;
            let mut bytes = [0; 4];
            if read(&file, &mut bytes, 3)? {
                assert_eq!(&bytes, b"3456");
                assert!(!is_in_memory(&file));
            }
            assert!(!read(&file, &mut bytes, 8)?, "past the end");
        }
        Ok(())
    }
}
