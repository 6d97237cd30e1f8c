//! Entries: the list of a draft, the states of the file's SHA-256 after its chunks, as far as its publisher has signed
//! them. They only grow, at the end.
//!
//! Each signature (Ed25519, RFC 8032) is over everything so far, and not over what it adds alone: so the latest one
//! is all that a node needs to keep and to pass on, and whoever comes late gets the whole list with one signature.
//!
//! ```text
//! "anchorage entries 2\0" · draft id 32 · number of entries 4, big-endian · SHA-256 of all of them, in order
//! ```

use crate::{Content, ContentId, Draft, Geometry, Hash, Link, NodeId, Signature};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const PREFIX: &[u8] = b"anchorage entries 2\0";

/// The signed beginning of a draft's list.
#[derive(Clone)]
pub struct Entries {
    draft: ContentId,
    publisher: NodeId,
    geometry: Geometry,
    states: Vec<Hash>,
    /// Of all the states.
    digest: Sha256,
    /// Over all the states; none while there are none.
    signature: Option<Signature>,
}

/// Why entries are not taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EntriesError {
    /// They do not begin where the known ones end.
    #[error("entries from {first} on leave a gap behind the {known} that are known")]
    Gap {
        /// Entries known.
        known: u32,
        /// Where these begin.
        first: u32,
    },
    /// There are more than the file has chunks.
    #[error("{0} entries are more than the file has chunks")]
    PastEnd(u64),
    /// One is not what it was before.
    #[error("the entry of chunk {0} was another one before")]
    Changed(u32),
    /// The signature is not the publisher's.
    #[error("the signature of {0} entries is not the publisher's")]
    BadSignature(u32),
}

impl Entries {
    /// No entry yet.
    pub fn new(draft: &Draft) -> Self {
        Self {
            draft: draft.id(),
            publisher: draft.publisher,
            geometry: draft.geometry,
            states: Vec::new(),
            digest: Sha256::new(),
            signature: None,
        }
    }

    /// Number of entries.
    pub fn count(&self) -> u32 {
        u32::try_from(self.states.len()).expect("at most as many as chunks")
    }

    /// The entry of chunk `index`, once it is known.
    pub fn get(&self, index: u32) -> Option<Hash> {
        self.states.get(index as usize).copied()
    }

    /// What chunk `index` is verified by, once its entry is known.
    pub fn link(&self, index: u32) -> Option<Link> {
        Link::of(index, &self.states, self.geometry)
    }

    /// What the publisher signs to add `more`.
    pub fn to_sign(&self, more: &[Hash]) -> Vec<u8> {
        let mut digest = self.digest.clone();
        more.iter().for_each(|hash| digest.update(hash.0));
        let count = self.states.len() + more.len();
        self.signed_bytes(count as u64, digest)
    }

    /// Takes the entries of the chunks from `first` on, whose signature covers all before them too. Those that are
    /// known already are compared. Either all are good, or nothing changes.
    pub fn extend(
        &mut self,
        first: u32,
        hashes: &[Hash],
        signature: Signature,
    ) -> Result<(), EntriesError> {
        let known = self.count();
        let overlap = known
            .checked_sub(first)
            .ok_or(EntriesError::Gap { known, first })?;
        let end = u64::from(first) + hashes.len() as u64;
        if end > u64::from(self.geometry.chunks()) {
            return Err(EntriesError::PastEnd(end));
        }
        let (old, new) = hashes.split_at(hashes.len().min(overlap as usize));
        for (index, hash) in (first..).zip(old) {
            if self.get(index) != Some(*hash) {
                return Err(EntriesError::Changed(index));
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let mut digest = self.digest.clone();
        new.iter().for_each(|hash| digest.update(hash.0));
        let signed = self.signed_bytes(end, digest.clone());
        let count = known + u32::try_from(new.len()).expect("at most as many as chunks");
        UnparsedPublicKey::new(&ED25519, &self.publisher.0)
            .verify(&signed, &signature.to_bytes())
            .map_err(|_| EntriesError::BadSignature(count))?;
        self.states.extend_from_slice(new);
        self.digest = digest;
        self.signature = Some(signature);
        Ok(())
    }

    /// The entries from `first` on, and the signature that covers them and all before; none if there are none.
    pub fn since(&self, first: u32) -> Option<(&[Hash], Signature)> {
        let new = self.states.get(first as usize..)?;
        let signature = self.signature.filter(|_| !new.is_empty())?;
        Some((new, signature))
    }

    /// The content that they make; none while some are missing.
    pub fn seal(&self) -> Option<Content> {
        Content::new(self.geometry, self.states.clone()).ok()
    }

    /// Whether a content begins with these entries.
    pub fn begin(&self, content: &Content) -> bool {
        content.geometry() == self.geometry && content.states().starts_with(&self.states)
    }

    fn signed_bytes(&self, count: u64, digest: Sha256) -> Vec<u8> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut bytes = PREFIX.to_vec();
        bytes.extend_from_slice(&self.draft.0.0);
        bytes.extend_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(&Hash::finish(digest).0);
        bytes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::draft::tests::draft;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use proptest::prelude::*;

    fn key() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[5; 32]).expect("a seed of 32 bytes")
    }

    /// Whose drafts these tests are.
    pub(crate) fn publisher() -> NodeId {
        NodeId(key().public_key().as_ref().try_into().expect("32 bytes"))
    }

    pub(crate) fn sign(bytes: &[u8]) -> Signature {
        Signature::from_bytes(key().sign(bytes).as_ref().try_into().expect("64 bytes"))
    }

    fn hashes(count: u32) -> Vec<Hash> {
        (0..count)
            .map(|index| Hash::of(&index.to_be_bytes()))
            .collect()
    }

    fn grow(entries: &mut Entries, more: &[Hash]) -> (u32, Signature) {
        let (first, signature) = (entries.count(), sign(&entries.to_sign(more)));
        assert_eq!(entries.extend(first, more, signature), Ok(()));
        (first, signature)
    }

    proptest! {
        /// However the publisher cuts the list, and wherever a relay cuts it again, the list is the same.
        #[test]
        fn any_cut_gives_the_same_list(cuts in prop::collection::vec(1usize..8, 1..8), late in 0usize..8) {
            let all = hashes(u32::try_from(cuts.iter().sum::<usize>()).expect("few"));
            let mut publisher = Entries::new(&draft(u32::try_from(all.len()).expect("few")));
            let mut relay = publisher.clone();
            let mut getter = publisher.clone();
            let mut rest = &all[..];
            for (turn, cut) in cuts.into_iter().enumerate() {
                let (now, later) = rest.split_at(cut);
                rest = later;
                let (first, signature) = grow(&mut publisher, now);
                prop_assert_eq!(relay.extend(first, now, signature), Ok(()));
                if turn >= late {
                    // It passes on what it has whole, or from where the other is, or from before.
                    let from = getter.count().saturating_sub(u32::try_from(turn).expect("few"));
                    let (new, signature) = relay.since(from).expect("something is new");
                    let new = new.to_vec();
                    prop_assert_eq!(getter.extend(from, &new, signature), Ok(()));
                    prop_assert_eq!(getter.count(), publisher.count());
                }
            }
            let content = publisher.seal().expect("all are there");
            prop_assert!(getter.begin(&content) && relay.begin(&content));
            prop_assert_eq!(relay.seal(), Some(content));
        }
    }

    #[test]
    fn lies_are_refused_and_change_nothing() {
        let all = hashes(6);
        let mut good = Entries::new(&draft(6));
        grow(&mut good, &all[..3]);
        let next = sign(&good.to_sign(&all[3..5]));
        let known = 3;
        for (first, hashes, error) in [
            (4, &all[4..5], EntriesError::Gap { known, first: 4 }),
            (3, &hashes(4)[..], EntriesError::PastEnd(7)),
            (2, &all[3..5], EntriesError::Changed(2)),
            (3, &all[2..4], EntriesError::BadSignature(5)),
            (3, &all[3..4], EntriesError::BadSignature(4)),
        ] {
            assert_eq!(good.extend(first, hashes, next), Err(error));
            assert_eq!((good.count(), good.get(3)), (3, None));
        }
        assert_eq!(good.seal(), None, "a half list is no content");
        assert_eq!(good.extend(3, &all[3..5], next), Ok(()));
        assert_eq!(good.get(4), Some(all[4]));
    }

    #[test]
    fn a_signature_fits_its_draft_alone() {
        let all = hashes(3);
        let mut one = Entries::new(&draft(3));
        let (_, signature) = grow(&mut one, &all);
        let mut other = draft(3);
        other.nonce = [4; 32];
        assert_eq!(
            Entries::new(&other).extend(0, &all, signature),
            Err(EntriesError::BadSignature(3))
        );
        let content = one.seal().expect("all are there");
        assert!(
            !Entries::new(&draft(4)).begin(&content),
            "another size is another file"
        );
    }
}
