//! A node's identity: one Ed25519 key, which signs releases and proves who the node is in every TLS handshake.

use anchorage_manifest::{NodeId, Release, Signature, SignedRelease};
use anyhow::{Context as _, Result, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::sign::CertifiedKey;
use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, OnceLock},
};

/// The key pair of a node.
pub struct Identity {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
    /// The same key in the form that TLS takes; made when it is first needed.
    certified: OnceLock<Arc<CertifiedKey>>,
}

impl Identity {
    /// The identity made of a secret seed (RFC 8032, section 5.1.5).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed");
        let certified = OnceLock::new();
        Self {
            seed,
            pair,
            certified,
        }
    }

    /// A new identity from the system's random numbers.
    pub fn generate() -> Result<Self> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed)
            .ok()
            .context("the system gives no random numbers")?;
        Ok(Self::from_seed(seed))
    }

    /// The identity in the file at `path`, which is made, readable by its owner alone, if there is none.
    pub fn load_or_create(path: &Path) -> Result<Self> {
        let operand = || format!("cannot read the key {}", path.display());
        match fs::read(path) {
            Ok(bytes) => match bytes.try_into() {
                Ok(seed) => Ok(Self::from_seed(seed)),
                Err(_) => bail!(
                    "file on disk is no key: {} does not have 32 bytes",
                    path.display()
                ),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::create(path),
            Err(error) => Err(error).with_context(operand),
        }
    }

    /// Written whole under another name first: a crash leaves no half key behind.
    fn create(path: &Path) -> Result<Self> {
        let operand = || format!("cannot write the key {}", path.display());
        let identity = Self::generate()?;
        let part = path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .with_context(operand)?;
        file.write_all(&identity.seed).with_context(operand)?;
        file.sync_all().with_context(operand)?;
        fs::rename(&part, path).with_context(operand)?;
        Ok(identity)
    }

    /// The secret seed, to hand to a worker process.
    pub fn seed(&self) -> [u8; 32] {
        self.seed
    }

    /// The key in the form that TLS takes, which `make` makes the first time.
    pub(crate) fn certified(
        &self,
        make: impl FnOnce() -> Result<Arc<CertifiedKey>>,
    ) -> Result<Arc<CertifiedKey>> {
        if let Some(certified) = self.certified.get() {
            return Ok(certified.clone());
        }
        let certified = make()?;
        Ok(self.certified.get_or_init(|| certified).clone())
    }

    /// The node's public name.
    pub fn id(&self) -> NodeId {
        NodeId(
            self.pair
                .public_key()
                .as_ref()
                .try_into()
                .expect("an Ed25519 public key has 32 bytes"),
        )
    }

    /// Signs a release, which must name this identity as its publisher.
    pub fn sign(&self, release: Release) -> SignedRelease {
        assert_eq!(
            release.publisher,
            self.id(),
            "BUG: signing for another publisher"
        );
        let signature = self.sign_bytes(&release.signed_bytes());
        SignedRelease::new(release, signature)
    }

    /// Signs what entries of a draft say is to be signed.
    pub fn sign_bytes(&self, bytes: &[u8]) -> Signature {
        let signature = self.pair.sign(bytes);
        let bytes = signature
            .as_ref()
            .try_into()
            .expect("an Ed25519 signature has 64 bytes");
        Signature::from_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_and_private() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("key");
        let first = Identity::load_or_create(&path)?;
        assert_eq!(Identity::load_or_create(&path)?.id(), first.id());
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        fs::write(&path, b"short")?;
        let error = Identity::load_or_create(&path)
            .err()
            .context("half a key")?;
        assert!(
            error.to_string().contains("does not have 32 bytes"),
            "{error}"
        );
        Ok(())
    }
}
