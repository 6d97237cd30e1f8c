//! What happens to a registry, and what it wants done.

use crate::packet::Asked;
use anchorage_manifest::{
    ContentId, SignedRelease,
    bitmap::Segment,
    wire::{Push, Reply},
};

/// What has happened.
#[derive(Clone, Debug)]
pub(in crate::worker::manifest) enum Event {
    /// A peer asks.
    Asked(Asked),
    /// The anchor has had chunks for a while.
    Has {
        /// Of which content.
        content: ContentId,
        /// Which.
        segment: Segment,
    },
    /// The anchor has stored chunks, or the list if there are none.
    Stored {
        /// Of which content.
        content: ContentId,
        /// Which.
        chunks: Vec<u32>,
    },
    /// A release is durable.
    Committed {
        /// The release.
        release: SignedRelease,
    },
    /// A release of the same name was committed meanwhile: judge this one again.
    Retried {
        /// The request's number.
        sequence: u64,
        /// The release, verified before.
        release: SignedRelease,
    },
    /// The configuration has changed.
    Reloaded {
        /// Milliseconds between heartbeats.
        heartbeat_ms: u32,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::worker::manifest) enum Action {
    /// Answer a request.
    Reply {
        /// The request's number.
        sequence: u64,
        /// The answer.
        reply: Reply,
    },
    /// Tell those who watch the content.
    Push(Push),
    /// Make a release durable, then answer the request.
    Commit {
        /// The request's number.
        sequence: u64,
        /// The release.
        release: SignedRelease,
    },
}
