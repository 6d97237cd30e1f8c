//! Where the file of a content lies, and how to tell that it is still the file it was.

use crate::file_path::FilePath;
use anchorage_manifest::Name;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::LazyLock,
};

/// Where a file lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The file; none means `data` in the slot's own folder.
    pub path: Option<FilePath>,
    /// The name under which it was published or fetched.
    pub name: Option<Name>,
    /// How the file looked when it was complete; none while it is not.
    pub stamp: Option<Stamp>,
    /// The boot of the machine in which the file was last written.
    pub(super) boot: String,
    /// Whether all of it was flushed to the disk since.
    pub(super) settled: bool,
}

/// What changes when somebody else writes to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    inode: u64,
    size: u64,
    modified_ns: i64,
}

impl Stamp {
    /// The stamp of a file as it is now.
    pub fn of(metadata: &Metadata) -> Self {
        let modified_ns = metadata
            .mtime()
            .wrapping_mul(1_000_000_000)
            .wrapping_add(metadata.mtime_nsec());
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified_ns,
        }
    }
}

/// Whether two files that are there are one, by whatever name.
pub(super) fn is_same_file(one: io::Result<Metadata>, two: io::Result<Metadata>) -> bool {
    matches!((one, two), (Ok(one), Ok(two)) if (one.dev(), one.ino()) == (two.dev(), two.ino()))
}

impl Place {
    /// A file of the store's own.
    pub fn inside() -> Self {
        Self {
            path: None,
            name: None,
            stamp: None,
            boot: boot(),
            settled: false,
        }
    }

    /// A file that is being fetched.
    pub fn of_part(path: &Path, name: Name) -> Self {
        Self {
            path: Some(path.into()),
            name: Some(name),
            ..Self::inside()
        }
    }

    /// A file that is complete as it stands.
    pub fn of_complete(path: &Path, name: Name) -> Result<Self> {
        let metadata =
            fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            stamp: Some(Stamp::of(&metadata)),
            ..Self::of_part(path, name)
        })
    }

    /// Reads the place kept in a slot's folder.
    pub(super) fn load(folder: &Path) -> Result<Self> {
        let text = fs::read(folder.join("place")).context("cannot read the place")?;
        serde_json::from_slice(&text).context("file on disk is no place")
    }

    /// Keeps the place in a slot's folder; whole or not at all.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let part = folder.join(format!("place.{}", std::process::id()));
        let text = serde_json::to_vec(self).context("cannot write the place")?;
        fs::write(&part, text)
            .and_then(|()| fs::rename(&part, folder.join("place")))
            .inspect_err(|_| drop(fs::remove_file(&part)))
            .context("cannot write the place")
    }

    /// The same place, flushed to the disk.
    pub(super) fn settle(self) -> Self {
        Self {
            settled: true,
            ..self
        }
    }

    /// The same place, of the file as it is now, of which nothing is known.
    pub(super) fn doubted(self, file: &File) -> Result<Self> {
        let stamp = match self.stamp {
            Some(_) => Some(Stamp::of(
                &file.metadata().context("cannot look at the file")?,
            )),
            None => None,
        };
        Ok(Self {
            stamp,
            boot: boot(),
            settled: false,
            ..self
        })
    }

    /// Whether the bytes may differ from what the marks say: the file was written in another boot of the machine
    /// and never flushed, or it was complete and looks different now, or it is in the making, where others can write to
    /// it, and was written to since the marks. That was somebody else, or, seldom, a process that was killed just then;
    /// where another machine's clock stamps the file it may be nobody, and costs only time. To a file in the store nobody
    /// writes but the store's processes, one of which may be between a chunk and its mark at this moment.
    pub(super) fn in_doubt(&self, file: &File, marks: &File) -> bool {
        let changed = || {
            let now = Stamp::of(&file.metadata()?);
            io::Result::Ok(match self.stamp {
                Some(stamp) => now != stamp,
                None if self.path.is_none() => false,
                None => now.modified_ns > Stamp::of(&marks.metadata()?).modified_ns,
            })
        };
        self.is_unflushed() || changed().unwrap_or(true)
    }

    /// Whether the file was written in another boot of the machine, and never flushed.
    pub(super) fn is_unflushed(&self) -> bool {
        !self.settled && self.boot != boot()
    }
}

/// The kernel's name for this boot of the machine.
fn boot() -> String {
    static BOOT: LazyLock<String> = LazyLock::new(|| {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        boot.unwrap_or_default().trim().to_owned()
    });
    BOOT.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_puts_what_was_not_flushed_in_doubt() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let [file, marks] = ["data", "marks"].map(|name| File::create(directory.path().join(name)));
        let (file, marks) = (file?, marks?);
        let place = Place::inside();
        assert!(!place.in_doubt(&file, &marks));
        let before = Place {
            boot: "an earlier boot".to_owned(),
            ..place
        };
        assert!(before.in_doubt(&file, &marks));
        assert!(!before.clone().settle().in_doubt(&file, &marks));
        before.save(directory.path())?;
        assert_eq!(Place::load(directory.path())?, before);
        Ok(())
    }
}
