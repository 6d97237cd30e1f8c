//! The manifest as a user sees it: release, content and holders in one JSON document.

use crate::{Content, Hash, Have, Holder, NodeId, Release, content::ContentId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::SocketAddr};

/// One name, what it stands for, and who has each chunk of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The release's name.
    pub name: String,
    /// The release's version, from 1.
    pub version: u64,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the whole file.
    pub sha256: Hash,
    /// Bytes of every chunk but the last.
    pub chunk_size: u32,
    /// The content's id.
    pub content: ContentId,
    /// Whose key signed the release.
    pub publisher: NodeId,
    /// Every chunk, in order.
    pub chunks: Vec<ManifestChunk>,
    /// Nodes that are not among the peers of the chunks, as there are too many to say which chunks each has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<ManifestHolder>,
}

/// A node of which only the number of chunks is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestHolder {
    /// Its address.
    pub address: SocketAddr,
    /// How many chunks it has.
    pub chunks: u32,
}

/// One chunk of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestChunk {
    /// The file's name with the chunk's number, counted from 1, before the extension.
    pub name: String,
    /// The chunk's index, counted from 0.
    pub index: u32,
    /// First byte in the file.
    pub offset: u64,
    /// Number of bytes.
    pub size: u32,
    /// SHA-256 of those bytes, as somebody says who has them; none if nobody does who was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Hash>,
    /// Addresses of the nodes that have the chunk.
    pub peers: Vec<SocketAddr>,
}

impl Manifest {
    /// Puts a manifest together. The content must be the release's, and `hashes` are those of its chunks, as far as they are
    /// known.
    pub fn new(
        release: &Release,
        content: &Content,
        hashes: &[Option<Hash>],
        holders: &[Holder],
    ) -> Self {
        let geometry = content.geometry();
        let chunk = |index| {
            let extent = geometry.extent(index).expect("a chunk of the file");
            ManifestChunk {
                name: release.name.of_chunk(index),
                index,
                offset: extent.offset,
                size: extent.size,
                sha256: hashes.get(index as usize).copied().flatten(),
                peers: Vec::new(),
            }
        };
        let mut chunks: Vec<ManifestChunk> = (0..geometry.chunks()).map(chunk).collect();
        let mut others = Vec::new();
        let mut addresses = BTreeSet::new();
        for Holder { source, have } in holders {
            let address = source.address;
            match have {
                // One at a time: a thousand of a million bits would be 125 MB.
                Have::Chunks(packed) => {
                    let have = packed.unpack();
                    // Two nodes may be behind one address.
                    let is_new = addresses.insert(address);
                    for index in have.iter() {
                        // Of a holder of a longer content nothing is believed that is not there.
                        if let Some(chunk) = chunks.get_mut(index as usize)
                            && (is_new || !chunk.peers.contains(&address))
                        {
                            chunk.peers.push(address);
                        }
                    }
                }
                &Have::Count(chunks) => others.push(ManifestHolder { address, chunks }),
            }
        }
        Self {
            name: release.name.to_string(),
            version: release.version,
            size: geometry.size(),
            sha256: content.sha256(),
            chunk_size: geometry.chunk_size(),
            content: release.content,
            publisher: release.publisher,
            chunks,
            others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bitmap, Source, bitmap::Packed, release::tests::signed};

    #[test]
    fn the_document_is_as_promised() {
        let content = Content::of(&[7; 2500], 1024).expect("three chunks");
        let hashes: Vec<Option<Hash>> = [1024, 1024, 452]
            .map(|size| Some(Hash::of(&vec![7; size])))
            .into();
        let mut have = Bitmap::empty(3);
        have.insert(2);
        let source = |port| Source {
            node: NodeId([1; 32]),
            address: ([127, 0, 0, 1], port).into(),
        };
        let holders = [
            Holder {
                source: source(7001),
                have: Have::Chunks(Packed::of(&Bitmap::full(3))),
            },
            Holder {
                source: source(40001),
                have: Have::Chunks(Packed::of(&have)),
            },
        ];
        let release = signed(1);
        let manifest = Manifest::new(release.unverified(), &content, &hashes, &holders);
        let json = serde_json::to_string_pretty(&manifest).expect("plain data") + "\n";
        assert_eq!(json, include_str!("../../data/golden/manifest.json"));
        assert_eq!(
            serde_json::from_str::<Manifest>(&json).expect("our own"),
            manifest
        );
        let many = Holder {
            source: source(40002),
            have: Have::Count(2),
        };
        let manifest = Manifest::new(release.unverified(), &content, &[None], &[many]);
        assert!(manifest.chunks.iter().all(|chunk| chunk.sha256.is_none()));
        assert!(manifest.chunks.iter().all(|chunk| chunk.peers.is_empty()));
        let others: Vec<(u16, u32)> = manifest
            .others
            .iter()
            .map(|other| (other.address.port(), other.chunks))
            .collect();
        assert_eq!(others, [(40002, 2)]);
    }
}
