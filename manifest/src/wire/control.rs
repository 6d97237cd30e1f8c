//! The control plane: what a peer asks an anchor, and what an anchor tells a peer.
//!
//! ```text
//! peer                                 anchor
//!  │ Hello ─────────────────────────────► │  first; Welcome or Refused(Version)
//!  │ Join ──────────────────────────────► │  Joined: how the peer looks from here, and up to 50 others
//!  │ Announce … (all that the peer has) ► │  Done
//!  │ Watch content ─────────────────────► │  Watching: sources now; then Came and Gone as they change
//!  │ Ack content chunks from ───────────► │  Acked: from now on the peer is in the manifest
//!  │ Heartbeat, every heartbeat_ms ─────► │  Done; three missed, and the peer is in no manifest any more
//!  │ ◄─────────────────────── Reannounce  │  the anchor forgot who holds what: Announce again
//!  │ Leave ─────────────────────────────► │  Done; the connection ends
//! ```
//! A publisher that has long to hash registers a [`Draft`] first; getters ask for both:
//!
//! ```text
//!  │ Draft ─────────────────────────────► │  Done: it is known until its publisher is gone
//!  │ FindDraft name ────────────────────► │  Drafted, while there is one that is not sealed
//!  │ Publish release (of the same name) ► │  Published; Sealed to all who watch the draft
//! ```
//! `Hello`, `Resolve`, `FindDraft`, `List`, `Holders` and `Publish` need no `Join`; the others do. Every request is idempotent,
//! so a peer that lost its connection, and an anchor's process that lost its neighbour, just asks again.

use crate::{ContentId, Draft, Holder, Name, NodeId, SignedRelease, Source, bitmap::Segment};
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr};

/// A peer's frame: the reply carries the same `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToAnchor {
    /// Chosen by the peer, unique among its requests without a reply.
    pub id: u32,
    /// What it asks.
    pub request: Request,
}

/// An anchor's frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToPeer {
    /// The answer to the request with this id.
    Reply {
        /// The request's id.
        id: u32,
        /// The answer.
        reply: Reply,
    },
    /// Something the peer should know.
    Push(Push),
}

/// What a peer asks of an anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The version that the peer speaks; the first message of a connection.
    Hello {
        /// [`crate::limits::PROTOCOL_VERSION`].
        version: u16,
    },
    /// Lists the peer among the live ones.
    Join {
        /// Where it serves chunks, at the address that the anchor observes.
        port: u16,
        /// Where it serves chunks, if it knows better than the anchor can.
        advertise: Option<SocketAddr>,
    },
    /// Asks for the release of a name.
    Resolve {
        /// The name.
        name: Name,
    },
    /// Asks for releases, in the order of their names.
    List {
        /// The last name that the peer knows already.
        after: Option<Name>,
    },
    /// Asks for sources of a content now, and to be told when they change.
    Watch {
        /// Which content.
        content: ContentId,
    },
    /// Asks who has what of a content, in the order of node ids. All holders are named; which chunks they have is said
    /// of as many as fit [`crate::limits::HOLDERS_SIZE_MAX`], those first that are said shortest.
    Holders {
        /// Which content.
        content: ContentId,
        /// The last node that the peer knows already.
        after: Option<NodeId>,
    },
    /// Registers a release.
    Publish {
        /// The release, signed.
        release: SignedRelease,
    },
    /// Says that the peer has these chunks, and has had them for a while.
    Announce {
        /// Of which content.
        content: ContentId,
        /// Which chunks; with none the peer is still a holder, of the list.
        segment: Segment,
    },
    /// Says that the peer has verified and stored chunks that it just got.
    Ack {
        /// Of which content.
        content: ContentId,
        /// Which, and who sent them; at most [`crate::limits::DELIVERIES_PER_ACK_MAX`], and in all of them at most
        /// [`crate::limits::CHUNKS_PER_MESSAGE_MAX`] chunks.
        deliveries: Vec<Delivery>,
    },
    /// Says that the peer no longer has a content.
    Withdraw {
        /// Which content.
        content: ContentId,
    },
    /// Says that the peer is alive.
    Heartbeat,
    /// Says that the peer is going.
    Leave,
    /// Registers a draft of the peer's own, until the peer is gone or withdraws it.
    Draft {
        /// The draft.
        draft: Draft,
    },
    /// Asks for the draft of a name.
    FindDraft {
        /// The name.
        name: Name,
    },
}

/// Chunks that a source has sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The source.
    pub from: NodeId,
    /// Which chunks.
    pub chunks: Vec<u32>,
}

/// What an anchor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Hello`.
    Welcome {
        /// The version that both will speak.
        version: u16,
    },
    /// To `Join`.
    Joined {
        /// The peer's end of this connection as the anchor sees it.
        observed: SocketAddr,
        /// The address under which the anchor lists the peer.
        address: SocketAddr,
        /// Milliseconds between heartbeats.
        heartbeat_ms: u32,
        /// Milliseconds for which the peer is to collect acks, until the answer to one says another time.
        collect_ms: u32,
        /// Other live peers, at most [`crate::limits::PEERS_MAX`], picked at random.
        peers: Vec<Source>,
    },
    /// To `Resolve`.
    Resolved {
        /// The newest release of that name.
        release: SignedRelease,
    },
    /// To `List`.
    Listed {
        /// A page of releases.
        releases: Vec<SignedRelease>,
        /// Whether there are more behind the last.
        more: bool,
    },
    /// To `Watch`.
    Watching {
        /// Nodes that hold something of the content, at most [`crate::limits::PEERS_MAX`], picked at random.
        sources: Vec<Source>,
    },
    /// To `Holders`.
    Holding {
        /// A page of holders.
        holders: Vec<Holder>,
        /// Whether there are more behind the last.
        more: bool,
    },
    /// To `Publish`: the release is durable.
    Published {
        /// What became of it.
        outcome: Outcome,
    },
    /// To everything that has no other answer.
    Done,
    /// To everything that the anchor will not do.
    Refused {
        /// Why not.
        refusal: Refusal,
    },
    /// To `Ack`.
    Acked {
        /// Milliseconds for which the peer is to collect acks from now on. It grows with the number of peers, so that
        /// they keep an anchor busy with acks for a part of its time only, however many they are.
        collect_ms: u32,
    },
    /// To `FindDraft`.
    Drafted {
        /// The draft that will be the next release of that name.
        draft: Draft,
    },
}

/// What became of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The anchor did not know it.
    New,
    /// The anchor had the very same already.
    Unchanged,
}

/// What an anchor tells unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// A node has become a source of a watched content.
    Came {
        /// Which content.
        content: ContentId,
        /// Who, and where.
        source: Source,
    },
    /// A node is no source of a watched content any more.
    Gone {
        /// Which content.
        content: ContentId,
        /// Who.
        node: NodeId,
    },
    /// The anchor has lost its holders: join and announce again.
    Reannounce,
    /// A watched draft is sealed.
    Sealed {
        /// The draft's id.
        draft: ContentId,
        /// What it has become.
        release: SignedRelease,
    },
}

/// Why a request is refused. The text is for users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No release has this name.
    UnknownName,
    /// No release has this content.
    UnknownContent,
    /// The peer must join first.
    NotJoined,
    /// The name belongs to another publisher.
    Taken {
        /// Whose it is.
        publisher: NodeId,
    },
    /// The name has another content at this version, or a newer version.
    Conflict {
        /// The version that the anchor has.
        version: u64,
    },
    /// The signature is not the publisher's.
    BadSignature,
    /// What was sent does not match its hash.
    Mismatch,
    /// The message makes no sense; the text says why.
    Malformed(String),
    /// Another version of the protocol is spoken here.
    Version {
        /// Which.
        supported: u16,
    },
    /// The node cannot store what was sent; the text says why.
    Storage(String),
    /// The node has too much to do; try again later.
    Busy,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownName => f.write_str("no release has this name"),
            Self::UnknownContent => f.write_str("no release has this content"),
            Self::NotJoined => f.write_str("the peer has not joined"),
            Self::Taken { publisher } => {
                write!(
                    f,
                    "the name belongs to another publisher, {}",
                    publisher.short()
                )
            }
            Self::Conflict { version } => write!(f, "the name is at version {version} already"),
            Self::BadSignature => f.write_str("the signature is not the publisher's"),
            Self::Mismatch => f.write_str("the bytes do not match their hash"),
            Self::Malformed(why) => f.write_str(why),
            Self::Version { supported } => {
                write!(f, "version {supported} of the protocol is spoken here")
            }
            Self::Storage(why) => write!(f, "it cannot be stored: {why}"),
            Self::Busy => f.write_str("too much to do; try again later"),
        }
    }
}
