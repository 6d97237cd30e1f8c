//! The chunk plane: how any node fetches from, and stores at, any other.
//!
//! ```text
//! asker                                source
//!  │ Hello ─────────────────────────────► │  first, and nothing else before Welcome; or Refused(Version)
//!  │ GetList content ───────────────────► │  List + raw bytes, or Missing
//!  │ Interested content, what I have ───► │  Bitmap; then Have as it grows
//!  │ Have content, new chunks ──────────► │  (no answer)
//!  │ Any content, Any content, … ───────► │  Chunk + raw bytes, one that nobody has yet; or Exhausted
//!  │ Get content 5, Get content 9, … ───► │  Chunk + raw bytes, or Missing, in order
//!  │ Cancel content 9 ──────────────────► │  forgets a Get that is not being answered yet; no answer
//!
//! publisher                            anchor
//!  │ Offer content ─────────────────────► │  Offered: what it has; None: not even the list
//!  │ PutList content + raw bytes ───────► │  Stored, or Refused
//!  │ Put content 0 + raw bytes, … ──────► │  Stored, or Refused, in order
//!
//! publisher                            anchor         of a draft, whose id stands where the content's will
//!  │ Offer draft ───────────────────────► │  Offered, None: not even the draft
//!  │ PutDraft ──────────────────────────► │  Stored, or Refused
//!  │ PutEntries + raw bytes, … ─────────► │  (no answer) or Refused
//!  │ Put draft 0 + raw bytes, … ────────► │  Stored, once the entry is known
//! ```
//! Who is interested in a draft is sent `Entries` before the `Bitmap` and before every `Have` that needs them.
//!
//! A `Have` may come between any two answers. Whoever breaks the order is told so in a `Refused` and hung up on.

use super::Refusal;
use crate::{Bitmap, ContentId, Draft, Signature};
use serde::{Deserialize, Serialize};

/// What the dialling side sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// The version that the asker speaks; the first message of a connection.
    Hello {
        /// [`crate::limits::PROTOCOL_VERSION`].
        version: u16,
    },
    /// Asks for a content's list.
    GetList {
        /// Which content.
        content: ContentId,
    },
    /// Asks which chunks the source has, and to be told of new ones.
    Interested {
        /// Which content.
        content: ContentId,
        /// What the asker has of it.
        have: Bitmap,
    },
    /// Says that the asker has new chunks, from whomever.
    Have {
        /// Of which content.
        content: ContentId,
        /// Which chunks, at most [`crate::limits::CHUNKS_PER_MESSAGE_MAX`].
        chunks: Vec<u32>,
    },
    /// Asks for a chunk that the source chooses: one that no asker has yet.
    Any {
        /// Of which content.
        content: ContentId,
    },
    /// Asks for a chunk.
    Get {
        /// Of which content.
        content: ContentId,
        /// Which chunk.
        index: u32,
    },
    /// Takes a `Get` back.
    Cancel {
        /// Of which content.
        content: ContentId,
        /// Which chunk.
        index: u32,
    },
    /// Asks what the anchor lacks of a content.
    Offer {
        /// Which content.
        content: ContentId,
    },
    /// Brings a content's list.
    PutList {
        /// Which content.
        content: ContentId,
        /// Number of raw bytes that follow.
        size: u32,
    },
    /// Brings a chunk.
    Put {
        /// Of which content.
        content: ContentId,
        /// Which chunk.
        index: u32,
        /// Number of raw bytes that follow.
        size: u32,
    },
    /// Brings a draft, without entries.
    PutDraft {
        /// The draft; its id must have been offered.
        draft: Draft,
    },
    /// Brings entries of a draft.
    PutEntries {
        /// The draft's id.
        content: ContentId,
        /// Which chunk the first of them is of.
        first: u32,
        /// How many; 32 raw bytes follow for each.
        count: u32,
        /// Over these and all before them; see [`crate::entries`].
        signature: Signature,
    },
    /// Asks for the SHA-256 of every chunk alone, by which people know them. Nothing is verified by them.
    GetHashes {
        /// Of which content.
        content: ContentId,
    },
}

/// What the dialled side sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Hello`.
    Welcome {
        /// The version that both will speak.
        version: u16,
    },
    /// To `GetList`.
    List {
        /// Which content.
        content: ContentId,
        /// Number of raw bytes that follow.
        size: u32,
    },
    /// To `Interested`; again whenever single `Have`s would be too many.
    Bitmap {
        /// Which content.
        content: ContentId,
        /// The chunks that the source has.
        have: Bitmap,
    },
    /// The source has new chunks.
    Have {
        /// Of which content.
        content: ContentId,
        /// Which chunks, at most [`crate::limits::CHUNKS_PER_MESSAGE_MAX`].
        chunks: Vec<u32>,
    },
    /// To `Get` and `Any`.
    Chunk {
        /// Of which content.
        content: ContentId,
        /// Which chunk.
        index: u32,
        /// Number of raw bytes that follow.
        size: u32,
    },
    /// To `Get`, and without an index to `GetList`, `GetHashes` and `Interested`: the source does not have that.
    Missing {
        /// Of which content.
        content: ContentId,
        /// Which chunk.
        index: Option<u32>,
    },
    /// To `Any`: every chunk of the source is out already; ask the others, or for one by its index.
    Exhausted {
        /// Of which content.
        content: ContentId,
    },
    /// To `Offer`.
    Offered {
        /// Which content.
        content: ContentId,
        /// The chunks that the anchor has; `None` if it lacks the list.
        have: Option<Bitmap>,
    },
    /// To `PutList` (no index) and `Put`: verified and stored.
    Stored {
        /// Of which content.
        content: ContentId,
        /// Which chunk.
        index: Option<u32>,
    },
    /// The source will not go on, or not with this.
    Refused {
        /// Why not.
        refusal: Refusal,
    },
    /// To `Interested` in a draft, and again whenever there are more.
    Entries {
        /// The draft's id.
        content: ContentId,
        /// Which chunk the first of them is of.
        first: u32,
        /// How many; 32 raw bytes follow for each.
        count: u32,
        /// Over these and all before them; see [`crate::entries`].
        signature: Signature,
    },
    /// To `GetHashes`: 32 raw bytes follow for each chunk, zeros where the source does not know.
    Hashes {
        /// Of which content.
        content: ContentId,
        /// Number of raw bytes that follow.
        size: u32,
    },
}
