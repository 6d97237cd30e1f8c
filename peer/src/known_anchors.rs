//! The anchors' keys as first met, in the file `known_anchors` of the home: trust on first use, as ssh does.
//!
//! One line an anchor: its id, its address, its key. A user who knows that an anchor was set up anew removes
//! its line.

use anchorage_manifest::NodeId;
use anyhow::{Context as _, Result};
use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// The file, and a lock so that two sessions do not write at once.
pub struct KnownAnchors {
    path: PathBuf,
    writing: Mutex<()>,
}

impl KnownAnchors {
    /// The file at `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            writing: Mutex::new(()),
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key remembered for `address`.
    pub fn key(&self, address: &str) -> Result<Option<NodeId>> {
        let operand = || format!("cannot read {}", self.path.display());
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(operand),
        };
        for (number, line) in (1..).zip(text.lines()) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields[..] {
                [_, there, key] if there == address => {
                    let at = || format!("line {number} of {} is damaged", self.path.display());
                    return key.parse().map(Some).with_context(at);
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Remembers the key that anchor `id` showed at `address`.
    pub fn remember(&self, id: u32, address: &str, key: NodeId) -> Result<()> {
        let _writing = self.writing.lock().expect("no holder of this lock panics");
        if self.key(address)?.is_some() {
            return Ok(());
        }
        let operand = || format!("cannot write {}", self.path.display());
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)
            .with_context(operand)?;
        file.write_all(format!("{id} {address} {key}\n").as_bytes())
            .with_context(operand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_stays() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let known = KnownAnchors::new(directory.path().join("known_anchors"));
        assert_eq!(known.key("a:1")?, None);
        known.remember(1, "a:1", NodeId([1; 32]))?;
        known.remember(2, "b:1", NodeId([2; 32]))?;
        known.remember(1, "a:1", NodeId([3; 32]))?;
        assert_eq!(known.key("a:1")?, Some(NodeId([1; 32])));
        assert_eq!(known.key("b:1")?, Some(NodeId([2; 32])));
        fs::write(known.path(), "1 a:1 rubbish\n")?;
        assert!(known.key("a:1").is_err());
        Ok(())
    }
}
