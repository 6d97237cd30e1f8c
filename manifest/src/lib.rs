//! What every node of Anchorage must agree on: content, releases, holders, wire messages, limits.
//!
//! No sockets, no files, no clock and no `unsafe` in here; whatever comes off a network or a disk is
//! decoded and validated by this crate before anything else looks at it.
//!
//! | module | what it fixes |
//! | --- | --- |
//! | [`content`], [`geometry`] | how a file is cut into chunks, and the canonical list that names it |
//! | [`link`] | how a chunk is verified by the list, and the whole file with it |
//! | [`release`], [`name`] | a name and a version for a content, signed by its publisher |
//! | [`draft`], [`entries`] | a release in the making: chunks that are offered while the rest is hashed |
//! | [`bitmap`], [`holder`] | who has which chunks |
//! | [`wire`], [`codec`] | the messages, and their bytes |
//! | [`document`] | the manifest as a user sees it: one JSON document |
//! | [`limits`] | how large anything may be |

pub mod bitmap;
pub mod codec;
pub mod content;
pub mod document;
pub mod draft;
pub mod entries;
pub mod geometry;
pub mod hash;
mod hex;
pub mod holder;
pub mod limits;
pub mod link;
pub mod name;
pub mod node_id;
pub mod release;
pub mod wire;

pub use bitmap::Bitmap;
pub use content::{Content, ContentId};
pub use document::Manifest;
pub use draft::Draft;
pub use entries::{Entries, EntriesError};
pub use geometry::Geometry;
pub use hash::Hash;
pub use holder::{Have, Holder, Source};
pub use link::Link;
pub use name::Name;
pub use node_id::NodeId;
pub use release::{Release, Signature, SignedRelease};
