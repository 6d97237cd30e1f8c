//! The messages. TCP, TLS 1.3 always, both sides authenticated by raw public key (RFC 7250): the key *is* the
//! node id. ALPN (RFC 7301) names the plane, and the first message its version.
//!
//! ```text
//!  control  anchorage-control    peer ──ToAnchor──► anchor      requests, numbered by the peer
//!                                peer ◄──ToPeer──── anchor      replies, in any order; pushes, unasked
//!  chunks   anchorage-chunks     any  ────Ask─────► any node    pipelined; the Puts carry raw bytes
//!                                any  ◄──Answer──── any node    in the order of the asks; Have at any time;
//!                                                               Chunk, List and Entries carry raw bytes
//! ```
//! Every message is a frame of [`crate::codec`]. Raw bytes follow their header's frame directly, as many as the
//! header says, so that bulk is neither copied through the codec nor bounded by a frame.
//!
//! A chunk is asked for by content and index: the content's id fixes the list of hashes, so the pair names the
//! same SHA-256 as the hash itself, and no node needs a table from hash to place.

mod chunks;
mod control;

pub use chunks::{Answer, Ask};
pub use control::{Delivery, Outcome, Push, Refusal, Reply, Request, ToAnchor, ToPeer};

/// ALPN of the control plane.
pub const ALPN_CONTROL: &[u8] = b"anchorage-control";

/// ALPN of the chunk plane.
pub const ALPN_CHUNKS: &[u8] = b"anchorage-chunks";

/// One example of every message, for golden vectors and for tests that damage them.
#[cfg(test)]
pub(crate) mod examples {
    use super::*;
    use crate::{
        Bitmap, ContentId, Hash, Have, Holder, NodeId, Source,
        bitmap::{Packed, Segment},
        codec,
        draft::tests::draft,
        entries::tests::sign,
        release::tests::signed,
    };
    use std::net::SocketAddr;

    fn content() -> ContentId {
        ContentId(Hash::of(b"content"))
    }

    fn source() -> Source {
        Source {
            node: NodeId([7; 32]),
            address: address(),
        }
    }

    fn address() -> SocketAddr {
        ([127, 0, 0, 1], 40_001).into()
    }

    fn requests() -> Vec<(&'static str, Request)> {
        let content = content();
        let name = || "music.txt".parse().expect("a good name");
        vec![
            ("hello", Request::Hello { version: 1 }),
            (
                "join",
                Request::Join {
                    port: 40_001,
                    advertise: Some(address()),
                },
            ),
            ("resolve", Request::Resolve { name: name() }),
            (
                "list",
                Request::List {
                    after: Some(name()),
                },
            ),
            ("watch", Request::Watch { content }),
            (
                "holders",
                Request::Holders {
                    content,
                    after: Some(NodeId([7; 32])),
                },
            ),
            ("publish", Request::Publish { release: signed(1) }),
            (
                "announce",
                Request::Announce {
                    content,
                    segment: Segment {
                        first: 8,
                        bits: vec![0xff, 1],
                    },
                },
            ),
            (
                "ack",
                Request::Ack {
                    content,
                    deliveries: vec![
                        Delivery {
                            from: NodeId([7; 32]),
                            chunks: vec![0, 300, 70_000],
                        },
                        Delivery {
                            from: NodeId([8; 32]),
                            chunks: vec![1],
                        },
                    ],
                },
            ),
            ("withdraw", Request::Withdraw { content }),
            ("heartbeat", Request::Heartbeat),
            ("leave", Request::Leave),
            ("draft", Request::Draft { draft: draft(20) }),
            ("find-draft", Request::FindDraft { name: name() }),
        ]
    }

    fn replies() -> Vec<(&'static str, Reply)> {
        let mut have = Bitmap::empty(20);
        have.insert(3);
        let joined = Reply::Joined {
            observed: address(),
            address: address(),
            heartbeat_ms: 5_000,
            collect_ms: 20,
            peers: vec![source()],
        };
        vec![
            ("welcome", Reply::Welcome { version: 1 }),
            ("joined", joined),
            ("resolved", Reply::Resolved { release: signed(1) }),
            (
                "listed",
                Reply::Listed {
                    releases: vec![signed(1)],
                    more: true,
                },
            ),
            (
                "watching",
                Reply::Watching {
                    sources: vec![source()],
                },
            ),
            (
                "holding",
                Reply::Holding {
                    holders: vec![
                        Holder {
                            source: source(),
                            have: Have::Chunks(Packed::of(&have)),
                        },
                        Holder {
                            source: source(),
                            have: Have::Count(7),
                        },
                    ],
                    more: false,
                },
            ),
            (
                "published",
                Reply::Published {
                    outcome: Outcome::New,
                },
            ),
            ("done", Reply::Done),
            (
                "refused",
                Reply::Refused {
                    refusal: Refusal::Conflict { version: 2 },
                },
            ),
            ("acked", Reply::Acked { collect_ms: 20 }),
            ("drafted", Reply::Drafted { draft: draft(20) }),
        ]
    }

    fn pushes() -> Vec<(&'static str, Push)> {
        let (content, node) = (content(), NodeId([7; 32]));
        vec![
            (
                "came",
                Push::Came {
                    content,
                    source: source(),
                },
            ),
            ("gone", Push::Gone { content, node }),
            ("reannounce", Push::Reannounce),
            (
                "sealed",
                Push::Sealed {
                    draft: draft(20).id(),
                    release: signed(1),
                },
            ),
        ]
    }

    fn asks() -> Vec<(&'static str, Ask)> {
        let content = content();
        vec![
            ("hello", Ask::Hello { version: 1 }),
            ("get-list", Ask::GetList { content }),
            (
                "interested",
                Ask::Interested {
                    content,
                    have: Bitmap::empty(20),
                },
            ),
            (
                "have",
                Ask::Have {
                    content,
                    chunks: vec![0, 300],
                },
            ),
            ("any", Ask::Any { content }),
            (
                "get",
                Ask::Get {
                    content,
                    index: 300,
                },
            ),
            (
                "cancel",
                Ask::Cancel {
                    content,
                    index: 300,
                },
            ),
            ("offer", Ask::Offer { content }),
            ("put-list", Ask::PutList { content, size: 696 }),
            (
                "put",
                Ask::Put {
                    content,
                    index: 300,
                    size: 16_384,
                },
            ),
            ("put-draft", Ask::PutDraft { draft: draft(20) }),
            (
                "put-entries",
                Ask::PutEntries {
                    content: draft(20).id(),
                    first: 3,
                    count: 2,
                    signature: sign(b"entries"),
                },
            ),
            ("get-hashes", Ask::GetHashes { content }),
        ]
    }

    fn answers() -> Vec<(&'static str, Answer)> {
        let content = content();
        vec![
            ("welcome", Answer::Welcome { version: 1 }),
            ("list", Answer::List { content, size: 696 }),
            (
                "bitmap",
                Answer::Bitmap {
                    content,
                    have: Bitmap::full(20),
                },
            ),
            (
                "have",
                Answer::Have {
                    content,
                    chunks: vec![0, 300],
                },
            ),
            (
                "chunk",
                Answer::Chunk {
                    content,
                    index: 300,
                    size: 16_384,
                },
            ),
            (
                "missing",
                Answer::Missing {
                    content,
                    index: Some(300),
                },
            ),
            ("exhausted", Answer::Exhausted { content }),
            (
                "offered",
                Answer::Offered {
                    content,
                    have: None,
                },
            ),
            (
                "stored",
                Answer::Stored {
                    content,
                    index: None,
                },
            ),
            (
                "refused",
                Answer::Refused {
                    refusal: Refusal::UnknownContent,
                },
            ),
            (
                "entries",
                Answer::Entries {
                    content: draft(20).id(),
                    first: 3,
                    count: 2,
                    signature: sign(b"entries"),
                },
            ),
            ("hashes", Answer::Hashes { content, size: 640 }),
        ]
    }

    /// Name and body of every example.
    pub(crate) fn all() -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        let mut add = |plane: &str, kind: &str, name: &str, body: Vec<u8>| {
            all.push((format!("{plane} {kind} {name}"), body));
        };
        for (name, request) in requests() {
            add(
                "control",
                "request",
                name,
                codec::encode(&ToAnchor { id: 9, request }),
            );
        }
        for (name, reply) in replies() {
            add(
                "control",
                "reply",
                name,
                codec::encode(&ToPeer::Reply { id: 9, reply }),
            );
        }
        for (name, push) in pushes() {
            add("control", "push", name, codec::encode(&ToPeer::Push(push)));
        }
        for (name, ask) in asks() {
            add("chunks", "ask", name, codec::encode(&ask));
        }
        for (name, answer) in answers() {
            add("chunks", "answer", name, codec::encode(&answer));
        }
        all
    }

    #[test]
    fn examples_round_trip() {
        for (name, body) in all() {
            let again = match name.split(' ').take(2).collect::<Vec<_>>()[..] {
                ["control", "request"] => {
                    codec::encode(&codec::decode::<ToAnchor>(&body).expect("ours"))
                }
                ["control", _] => codec::encode(&codec::decode::<ToPeer>(&body).expect("ours")),
                ["chunks", "ask"] => codec::encode(&codec::decode::<Ask>(&body).expect("ours")),
                _ => codec::encode(&codec::decode::<Answer>(&body).expect("ours")),
            };
            assert_eq!(again, body, "{name}");
        }
    }

    #[test]
    fn the_bytes_never_change() {
        let mut text = String::new();
        for (name, body) in all() {
            use std::fmt::Write as _;
            write!(text, "{name} ").expect("a string grows");
            for byte in body {
                write!(text, "{byte:02x}").expect("a string grows");
            }
            text.push('\n');
        }
        assert_eq!(
            text,
            include_str!("../../data/golden/wire.txt"),
            "nodes of the last version would not understand this one: raise PROTOCOL_VERSION"
        );
    }
}
