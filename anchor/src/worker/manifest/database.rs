//! The anchor's database: releases by name, and the sizes of every content that a release ever had.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `releases` | name | the newest signed release, as [`anchorage_manifest::codec`] encodes it |
//! | `contents` | content id, 32 bytes | its geometry, likewise |
//!
//! It is read once, at the start; from then on memory answers. A commit is durable before it returns. After a write
//! that failed, on a full disk say, redb refuses everything until the file is opened again, so the next commit does
//! that. What the failed one brought may be on the disk all the same; its publisher was told to publish again,
//! which does no harm.

use super::cannot_use;
use anchorage_manifest::{ContentId, Geometry, Hash, SignedRelease, codec};
use anyhow::{Context as _, Result};
use redb::{DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const RELEASES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("releases");
const CONTENTS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("contents");

/// A manifest process whose supervisor was killed may hold the file for a moment longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Memory for pages; the tables are read once and then only written.
const CACHE_SIZE: usize = 16 << 20;

/// What a database knows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The newest release of every name.
    pub(super) releases: Vec<SignedRelease>,
    /// Every content that a release ever had.
    pub(super) contents: Vec<(ContentId, Geometry)>,
}

/// The database's file.
pub(super) struct Database {
    path: PathBuf,
    /// Closed between a failed write and the next commit.
    file: Option<redb::Database>,
}

impl Database {
    /// Opens the file at `path`, or makes it; and what it knows.
    pub(super) fn open(path: &Path) -> Result<(Self, Known)> {
        let deadline = Instant::now() + PATIENCE;
        let file = loop {
            match open(path) {
                Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => break result.with_context(cannot_use(path))?,
            }
        };
        let known = make_tables(&file)
            .and_then(|()| read(&file))
            .with_context(cannot_use(path))?;
        let database = Self {
            path: path.to_owned(),
            file: Some(file),
        };
        Ok((database, known))
    }

    /// Adds releases, each replacing the one of its name. All of them are durable when this returns, or it fails.
    pub(super) fn insert<'a>(
        &mut self,
        releases: impl Iterator<Item = &'a SignedRelease>,
    ) -> Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        insert(&file, releases)?;
        self.file = Some(file);
        Ok(())
    }
}

fn open(path: &Path) -> Result<redb::Database, DatabaseError> {
    redb::Builder::new().set_cache_size(CACHE_SIZE).create(path)
}

fn insert<'a>(
    file: &redb::Database,
    releases: impl Iterator<Item = &'a SignedRelease>,
) -> Result<()> {
    let mut transaction = file.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut by_name = transaction.open_table(RELEASES)?;
        let mut contents = transaction.open_table(CONTENTS)?;
        for signed in releases {
            let release = signed.unverified();
            by_name.insert(release.name.as_str(), &*codec::encode(signed))?;
            contents.insert(&release.content.0.0, &*codec::encode(&release.geometry))?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn make_tables(file: &redb::Database) -> Result<()> {
    let transaction = file.begin_write()?;
    transaction.open_table(RELEASES)?;
    transaction.open_table(CONTENTS)?;
    transaction.commit()?;
    Ok(())
}

fn read(file: &redb::Database) -> Result<Known> {
    let transaction = file.begin_read()?;
    let mut known = Known::default();
    for entry in transaction.open_table(RELEASES)?.iter()? {
        let (name, bytes) = entry?;
        let signed: SignedRelease = codec::decode(bytes.value())
            .with_context(|| format!("file on disk is damaged at release {:?}", name.value()))?;
        known.releases.push(signed);
    }
    for entry in transaction.open_table(CONTENTS)?.iter()? {
        let (id, bytes) = entry?;
        let id = ContentId(Hash(*id.value()));
        let geometry = codec::decode(bytes.value())
            .with_context(|| format!("file on disk is damaged at content {}", id.0.short()))?;
        known.contents.push((id, geometry));
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::{super::registry::tests::signed, *};

    #[test]
    fn what_was_committed_is_there_after_reopening() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("anchor.redb");
        let (mut database, known) = Database::open(&path)?;
        assert_eq!(known, Known::default());
        let (one, two, other) = (signed("a", 1, 1), signed("a", 2, 1), signed("b", 1, 2));
        database.insert([&one, &other].into_iter())?;
        database.insert(std::iter::once(&two))?;
        drop(database);
        let (_, known) = Database::open(&path)?;
        assert_eq!(known.releases, [two.clone(), other.clone()]);
        // The content of the replaced release stays known: peers may still hold it.
        let mut contents: Vec<_> = [one, two, other]
            .map(|signed| (signed.unverified().content, signed.unverified().geometry))
            .into();
        contents.sort_by_key(|(id, _)| *id);
        assert_eq!(known.contents, contents);
        Ok(())
    }

    #[test]
    fn a_foreign_file_is_an_error_that_names_it() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("anchor.redb");
        std::fs::write(&path, vec![b'x'; 10_000])?;
        let error = Database::open(&path).err().context("no database")?;
        assert!(format!("{error:#}").contains("anchor.redb"), "{error:#}");
        Ok(())
    }
}
