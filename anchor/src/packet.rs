//! What travels up: packets in pipes, written by the less trusted side and judged as input by the other.
//!
//! A packet holds one message or more, one behind the other.

use anchorage_manifest::{ContentId, NodeId, bitmap::Segment, wire::Request};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Most bytes of a text in a packet.
const TEXT_SIZE_MAX: usize = 1_024;

/// What every worker tells the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    /// The bootstrap is under way: accepting it will not block.
    Wired,
    /// The worker does its task.
    Ready,
    /// How much it has done; at least once a second.
    Counted(Counters),
    /// A line of talk.
    Said(String),
    /// The worker cannot do its task, and starting it again will not help.
    Fatal(String),
}

/// What a worker counts, each one only what concerns it. Totals count from the worker's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Live peers, now.
    pub(crate) peers: u64,
    /// Releases known, now.
    pub(crate) releases: u64,
    /// Bytes received, in total.
    pub(crate) bytes_in: u64,
    /// Bytes sent, in total.
    pub(crate) bytes_out: u64,
    /// Chunks that peers got from an anchor, in total.
    pub(crate) acks_from_anchors: u64,
    /// Chunks that peers got from a peer, in total.
    pub(crate) acks_from_peers: u64,
}

/// What the connection process asks of the manifest process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Numbers the request; comes back with the reply.
    pub(crate) sequence: u64,
    /// Who asks: the key that it has proved.
    pub(crate) node: NodeId,
    /// From where.
    pub(crate) observed: SocketAddr,
    /// What.
    pub(crate) request: Request,
}

/// What a transfer process tells the manifest process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deposited {
    /// Asks whether a content may be stored.
    Admit {
        /// Which.
        content: ContentId,
    },
    /// Has just stored these chunks, at most [`anchorage_manifest::limits::CHUNKS_PER_MESSAGE_MAX`]; none means the
    /// list.
    Stored {
        /// Of which content.
        content: ContentId,
        /// Which.
        chunks: Vec<u32>,
    },
    /// Has had these chunks for a while.
    Has {
        /// Of which content.
        content: ContentId,
        /// Which; none is a segment without bits.
        segment: Segment,
    },
}

/// A text that fits a packet.
pub(crate) fn text(text: impl Into<String>) -> String {
    let mut text = text.into();
    let end = (0..=TEXT_SIZE_MAX.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pipe;
    use anchorage_manifest::{
        Hash,
        limits::{CHUNKS_PER_MESSAGE_MAX, PACKET_SIZE_MAX, REQUEST_SIZE_MAX, SEGMENT_SIZE_MAX},
        wire::{Delivery, ToAnchor},
    };

    fn content() -> ContentId {
        ContentId(Hash([0xff; 32]))
    }

    #[test]
    fn the_largest_request_fits_a_packet() {
        // Ids of requests take up to five bytes on the wire, so this is more than any peer can send.
        let mut request = Request::Ack {
            content: content(),
            deliveries: vec![Delivery {
                from: NodeId([0xff; 32]),
                chunks: Vec::new(),
            }],
        };
        let mut size = 0;
        while size < REQUEST_SIZE_MAX {
            if let Request::Ack { deliveries, .. } = &mut request {
                deliveries[0].chunks.push(0);
            }
            let request = request.clone();
            size = anchorage_manifest::codec::encode(&ToAnchor { id: 0, request }).len();
        }
        let packet = pipe::pack(&Asked {
            sequence: u64::MAX,
            node: NodeId([0xff; 32]),
            observed: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"
                .parse()
                .expect("an address"),
            request,
        });
        assert!(packet.len() <= PACKET_SIZE_MAX);
    }

    #[test]
    fn the_largest_deposits_fit_a_packet() {
        pipe::pack(&Deposited::Stored {
            content: content(),
            chunks: vec![u32::MAX; CHUNKS_PER_MESSAGE_MAX],
        });
        pipe::pack(&Deposited::Has {
            content: content(),
            segment: Segment {
                first: u32::MAX,
                bits: vec![0xff; SEGMENT_SIZE_MAX],
            },
        });
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(text("short"), "short");
        let cut = text("é".repeat(TEXT_SIZE_MAX));
        assert_eq!(cut.len(), TEXT_SIZE_MAX);
        let odd = text(format!("x{}", "é".repeat(TEXT_SIZE_MAX)));
        assert_eq!(odd.len(), TEXT_SIZE_MAX - 1);
        pipe::pack(&Status::Fatal(cut));
    }
}
