//! Release: a name and a version for a content, signed by its publisher.
//!
//! What is signed (Ed25519, RFC 8032), with the prefix so that no other signature of the same key fits:
//!
//! ```text
//! "anchorage release 1\0" · publisher 32 · version 8 · content 32 · size 8 · chunk size 4 · name …
//! ```
//! Numbers are big-endian; the name comes last and needs no length.

use crate::{ContentId, Geometry, Name, NodeId};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

const PREFIX: &[u8] = b"anchorage release 1\0";

/// What a publisher says of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The name that users ask for.
    pub name: Name,
    /// Counts from 1; a higher one replaces a lower one of the same publisher.
    pub version: u64,
    /// The content's id.
    pub content: ContentId,
    /// The content's sizes, so that an anchor can judge an ack without the list.
    pub geometry: Geometry,
    /// Whose key signs.
    pub publisher: NodeId,
}

/// An Ed25519 signature: the point R and the scalar S.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
}

/// A release and its publisher's signature. Decoding does not verify; [`SignedRelease::verify`] does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRelease {
    release: Release,
    signature: Signature,
}

/// The signature is not the publisher's.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the signature of release {name} is not by its publisher {publisher}")]
pub struct BadSignature {
    /// The release's name.
    pub name: Name,
    /// Who was said to have signed.
    pub publisher: NodeId,
}

impl Release {
    /// The bytes that are signed.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = PREFIX.to_vec();
        bytes.extend_from_slice(&self.publisher.0);
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&self.content.0.0);
        bytes.extend_from_slice(&self.geometry.size().to_be_bytes());
        bytes.extend_from_slice(&self.geometry.chunk_size().to_be_bytes());
        bytes.extend_from_slice(self.name.as_str().as_bytes());
        bytes
    }
}

impl SignedRelease {
    /// Puts a release together with what its publisher's key made of [`Release::signed_bytes`].
    pub fn new(release: Release, signature: Signature) -> Self {
        Self { release, signature }
    }

    /// The release, once its signature is found good.
    pub fn verify(&self) -> Result<&Release, BadSignature> {
        UnparsedPublicKey::new(&ED25519, &self.release.publisher.0)
            .verify(&self.release.signed_bytes(), &self.signature.to_bytes())
            .map(|()| &self.release)
            .map_err(|_| BadSignature {
                name: self.release.name.clone(),
                publisher: self.release.publisher,
            })
    }

    /// The release as somebody sent it, perhaps never verified.
    pub fn unverified(&self) -> &Release {
        &self.release
    }
}

impl Signature {
    /// From the 64 bytes R · S.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (r, s) = bytes.split_at(32);
        Self {
            r: r.try_into().expect("half of 64"),
            s: s.try_into().expect("half of 64"),
        }
    }

    /// The 64 bytes R · S.
    pub fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.r);
        bytes[32..].copy_from_slice(&self.s);
        bytes
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::hex::write(f, &self.r[..6])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Hash;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    /// A release signed by the key made of thirty-two times `seed`.
    pub(crate) fn signed(seed: u8) -> SignedRelease {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed of 32 bytes");
        let release = Release {
            name: "music.txt".parse().expect("a good name"),
            version: 1,
            content: ContentId(Hash::of(b"content")),
            geometry: Geometry::new(320_000, 16_384).expect("within limits"),
            publisher: NodeId(key.public_key().as_ref().try_into().expect("32 bytes")),
        };
        let signature = key
            .sign(&release.signed_bytes())
            .as_ref()
            .try_into()
            .expect("64 bytes");
        SignedRelease::new(release, Signature::from_bytes(&signature))
    }

    #[test]
    fn a_signature_covers_every_field() {
        let good = signed(1);
        assert!(good.verify().is_ok());
        let changes: [fn(&mut Release); 5] = [
            |release| release.version += 1,
            |release| release.name = "music.tx".parse().expect("a good name"),
            |release| release.content = ContentId(Hash::of(b"other")),
            |release| release.geometry = Geometry::new(320_001, 16_384).expect("within limits"),
            |release| release.publisher = signed(2).release.publisher,
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut bad = good.clone();
            change(&mut bad.release);
            assert!(bad.verify().is_err(), "change {index}");
        }
        let mut bad = good;
        bad.signature.s[0] ^= 1;
        assert!(bad.verify().is_err());
    }
}
