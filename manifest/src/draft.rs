//! Draft: a release in the making. Its chunks are offered while the rest of the file is still being hashed.
//!
//! ```text
//! publisher  Draft ──► Entries ──► Entries ──► … ──► Release        (the seal)
//! getter        Resolve finds it; chunks are taken as their entries come;  the slot gets the content's name
//! ```
//! The size is known from the start, so the geometry is too, and a draft's id stands on the chunk plane wherever a
//! content id does. The id is a hash, so it is bound to publisher, name and sizes without a signature, and can be
//! neither chosen nor mistaken for a content's:
//!
//! ```text
//! SHA-256 of  "anchorage draft 1\0" · publisher 32 · nonce 32 · size 8 · chunk size 4 · name …
//! ```
//! Numbers are big-endian. What is signed are its [`crate::Entries`]. Nothing of a draft is durable: it lives as
//! long as its publisher does, and at the seal an ordinary content and an ordinary release take its place.

use crate::{ContentId, Geometry, Hash, Name, NodeId};
use serde::{Deserialize, Serialize};

const PREFIX: &[u8] = b"anchorage draft 1\0";

/// What a publisher is about to release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// The name that the release will have.
    pub name: Name,
    /// The sizes that the content will have.
    pub geometry: Geometry,
    /// Whose key signs the entries, and will sign the release.
    pub publisher: NodeId,
    /// Random, so that no two attempts are the same draft.
    pub nonce: [u8; 32],
}

impl Draft {
    /// The draft's id, which stands where a content id does until the content has one.
    pub fn id(&self) -> ContentId {
        let mut bytes = PREFIX.to_vec();
        bytes.extend_from_slice(&self.publisher.0);
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.geometry.size().to_be_bytes());
        bytes.extend_from_slice(&self.geometry.chunk_size().to_be_bytes());
        bytes.extend_from_slice(self.name.as_str().as_bytes());
        ContentId(Hash::of(&bytes))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::entries::tests::publisher;

    /// A draft of so many chunks of 1,024 bytes.
    pub(crate) fn draft(chunks: u32) -> Draft {
        Draft {
            name: "music.txt".parse().expect("a good name"),
            geometry: Geometry::new(u64::from(chunks) * 1_024, 1_024).expect("within limits"),
            publisher: publisher(),
            nonce: [3; 32],
        }
    }

    #[test]
    fn the_id_covers_every_field() {
        let good = draft(20);
        let changes: [fn(&mut Draft); 5] = [
            |draft| draft.name = "music.tx".parse().expect("a good name"),
            |draft| draft.geometry = Geometry::new(20 * 1_024 - 1, 1_024).expect("within limits"),
            |draft| draft.geometry = Geometry::new(20 * 1_024, 1_088).expect("within limits"),
            |draft| draft.publisher.0[0] ^= 1,
            |draft| draft.nonce[31] ^= 1,
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut other = good.clone();
            change(&mut other);
            assert_ne!(other.id(), good.id(), "change {index}");
        }
    }
}
