//! Files that are the same in every run, and their hashes.

use anchorage_manifest::Hash;
use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
};

const BLOCK: usize = 1 << 20;

/// `size` bytes that follow from `seed` and do not compress.
pub fn random_bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; size];
    random.fill(&mut bytes);
    bytes
}

/// Writes a file of [`random_bytes`], a block at a time; gives its SHA-256.
pub fn random_file(path: &Path, size: u64, seed: u64) -> Result<Hash> {
    let what = || format!("cannot write {}", path.display());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut file = File::create(path).with_context(what)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left.min(BLOCK as u64)).context("a block")?;
        random.fill(&mut block[..part]);
        hasher.update(&block[..part]);
        file.write_all(&block[..part]).with_context(what)?;
        left -= part as u64;
    }
    Ok(Hash::finish(hasher))
}

/// SHA-256 of a file.
pub fn sha256_of(path: &Path) -> Result<Hash> {
    let what = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(what)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        let count = file.read(&mut block).with_context(what)?;
        if count == 0 {
            return Ok(Hash::finish(hasher));
        }
        hasher.update(&block[..count]);
    }
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> Hash {
    Hash::of(bytes)
}
