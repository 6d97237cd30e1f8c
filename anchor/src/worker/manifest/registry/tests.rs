//! The registry's promises, one test each.

use super::*;
use anchorage_manifest::{
    Draft, Hash, Release, Signature, bitmap::Segment, limits::DRAFTS_PER_PUBLISHER_MAX,
};
use anchorage_peer::identity::Identity;
use proptest::prelude::*;

const HEARTBEAT_MS: u32 = 1_000;
const LEASE: Duration = Duration::from_millis(3_500);

/// A release by the key made of `seed`, whose content hangs on name, version and seed.
pub(in crate::worker::manifest) fn signed(name: &str, version: u64, seed: u8) -> SignedRelease {
    let identity = Identity::from_seed([seed; 32]);
    identity.sign(Release {
        name: name.parse().expect("a good name"),
        version,
        content: ContentId(Hash::of(format!("{name} {version} {seed}").as_bytes())),
        geometry: Geometry::new(20 * 16_384, 16_384).expect("within limits"),
        publisher: identity.id(),
    })
}

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

/// A registry, its clock, and a driver that commits at once.
struct Bench {
    registry: Registry,
    now: Time,
    pushes: Vec<Push>,
}

impl Bench {
    fn new() -> Self {
        let settings = Settings {
            node: node(200),
            address: ([127, 0, 0, 1], 7001).into(),
            heartbeat_ms: HEARTBEAT_MS,
            seed: 1,
        };
        Self {
            registry: Registry::new(settings, Known::default()),
            now: Time(0),
            pushes: Vec::new(),
        }
    }

    fn event(&mut self, event: Event) -> Option<Reply> {
        let (mut out, mut answer) = (Vec::new(), None);
        self.registry.handle(self.now, event, &mut out);
        for action in out {
            match action {
                Action::Reply { reply, .. } => answer = Some(reply),
                Action::Push(push) => self.pushes.push(push),
                Action::Commit { release, .. } => {
                    self.event(Event::Committed { release });
                    answer = Some(Reply::Published {
                        outcome: Outcome::New,
                    });
                }
            }
        }
        answer
    }

    fn ask(&mut self, who: u8, request: Request) -> Reply {
        self.ask_as(node(who), ([10, 0, 0, who], 5_000).into(), request)
    }

    fn ask_as(&mut self, node: NodeId, observed: SocketAddr, request: Request) -> Reply {
        let asked = Asked {
            sequence: 0,
            node,
            observed,
            request,
        };
        self.event(Event::Asked(asked))
            .expect("every request has an answer")
    }

    fn refusal(&mut self, who: u8, request: Request) -> Refusal {
        match self.ask(who, request) {
            Reply::Refused { refusal } => refusal,
            reply => panic!("not refused: {reply:?}"),
        }
    }

    fn join(&mut self, who: u8) -> Reply {
        self.ask(
            who,
            Request::Join {
                port: 4_000,
                advertise: None,
            },
        )
    }

    fn publish(&mut self, release: SignedRelease) -> ContentId {
        let content = release.unverified().content;
        let outcome = Outcome::New;
        assert_eq!(
            self.ask(1, Request::Publish { release }),
            Reply::Published { outcome }
        );
        content
    }

    fn ack(&mut self, who: u8, content: ContentId, from: NodeId, chunks: &[u32]) -> Reply {
        self.ask(who, ack(content, from, chunks))
    }

    fn holders(&mut self, content: ContentId) -> Vec<(NodeId, Vec<u32>)> {
        match self.ask(
            99,
            Request::Holders {
                content,
                after: None,
            },
        ) {
            Reply::Holding { holders, .. } => holders
                .into_iter()
                .map(|holder| match holder.have {
                    Have::Chunks(chunks) => (holder.source.node, chunks.unpack().iter().collect()),
                    Have::Count(count) => panic!("only that it has {count}"),
                })
                .collect(),
            reply => panic!("no holders: {reply:?}"),
        }
    }

    fn pass(&mut self, duration: Duration) {
        self.now = self.now.plus(duration);
        self.event(Event::Tick);
    }
}

#[test]
fn a_name_belongs_to_its_first_publisher_and_versions_only_rise() {
    let mut bench = Bench::new();
    let first = signed("a", 1, 1);
    bench.publish(first.clone());
    let unchanged = Reply::Published {
        outcome: Outcome::Unchanged,
    };
    assert_eq!(
        bench.ask(
            1,
            Request::Publish {
                release: first.clone()
            }
        ),
        unchanged
    );
    let release = signed("a", 9, 2);
    let publisher = first.unverified().publisher;
    assert_eq!(
        bench.refusal(1, Request::Publish { release }),
        Refusal::Taken { publisher }
    );
    bench.publish(signed("a", 2, 1));
    let conflict = Refusal::Conflict { version: 2 };
    assert_eq!(
        bench.refusal(1, Request::Publish { release: first }),
        conflict
    );
    let name = "a".parse().expect("a good name");
    assert_eq!(
        bench.ask(1, Request::Resolve { name }),
        Reply::Resolved {
            release: signed("a", 2, 1)
        }
    );
}

#[test]
fn a_release_that_lies_is_refused() {
    let mut bench = Bench::new();
    let honest = signed("a", 1, 1);
    let other = signed("b", 1, 1).unverified().clone();
    let forged = SignedRelease::new(other, Signature::from_bytes(&[1; 64]));
    assert_eq!(
        bench.refusal(1, Request::Publish { release: forged }),
        Refusal::BadSignature
    );
    bench.publish(honest.clone());
    let identity = Identity::from_seed([3; 32]);
    let release = identity.sign(Release {
        name: "c".parse().expect("a good name"),
        geometry: Geometry::new(1, 1_024).expect("within limits"),
        publisher: identity.id(),
        ..honest.unverified().clone()
    });
    assert_eq!(
        bench.refusal(1, Request::Publish { release }),
        Refusal::Mismatch
    );
}

fn delivery(from: NodeId, chunks: &[u32]) -> Delivery {
    let chunks = chunks.to_vec();
    Delivery { from, chunks }
}

fn ack(content: ContentId, from: NodeId, chunks: &[u32]) -> Request {
    let deliveries = vec![delivery(from, chunks)];
    Request::Ack {
        content,
        deliveries,
    }
}

#[test]
fn an_ack_makes_a_member_a_holder_and_is_counted_by_its_source() {
    let mut bench = Bench::new();
    let content = bench.publish(signed("a", 1, 1));
    let ack = ack(content, node(200), &[1]);
    assert_eq!(bench.refusal(5, ack), Refusal::NotJoined);
    bench.join(5);
    bench.join(6);
    let acked = Reply::Acked { collect_ms: 20 };
    assert_eq!(bench.ack(5, content, node(200), &[1, 3]), acked);
    assert_eq!(bench.ack(5, content, node(201), &[4]), acked);
    assert_eq!(bench.ack(5, content, node(6), &[3, 7]), acked);
    let of_both = Request::Ack {
        content,
        deliveries: vec![delivery(node(200), &[8]), delivery(node(6), &[9])],
    };
    assert_eq!(bench.ask(5, of_both), acked);
    assert_eq!(bench.holders(content), [(node(5), vec![1, 3, 4, 7, 8, 9])]);
    let counters = bench.registry.counters();
    assert_eq!(
        (counters.acks_from_anchors, counters.acks_from_peers),
        (4, 2)
    );
    assert!(matches!(
        bench.ack(5, content, node(6), &[20]),
        Reply::Refused {
            refusal: Refusal::Malformed(_)
        }
    ));
    let source = Source {
        node: node(5),
        address: ([10, 0, 0, 5], 4_000).into(),
    };
    assert_eq!(bench.pushes, [Push::Came { content, source }]);
}

#[test]
fn the_more_members_the_longer_they_collect_acks() {
    let mut bench = Bench::new();
    let content = bench.publish(signed("a", 1, 1));
    bench.join(5);
    let address = ([10, 0, 0, 1], 1).into();
    for number in 0..10_000u32 {
        let mut node = [0; 32];
        node[..4].copy_from_slice(&number.to_be_bytes());
        let member = Member {
            address,
            lease_until: bench.now.plus(LEASE),
            holds: BTreeSet::new(),
        };
        bench.registry.members.insert(NodeId(node), member);
    }
    let collect_ms = 500;
    assert_eq!(
        bench.ack(5, content, node(200), &[1]),
        Reply::Acked { collect_ms }
    );
}

#[test]
fn the_anchor_is_a_source_without_a_lease() {
    let mut bench = Bench::new();
    let content = bench.publish(signed("a", 1, 1));
    bench.event(Event::Stored {
        content,
        chunks: vec![],
    });
    bench.event(Event::Stored {
        content,
        chunks: vec![2],
    });
    bench.join(5);
    bench.ack(5, content, node(200), &[2]);
    bench.join(6);
    let Reply::Watching { sources } = bench.ask(6, Request::Watch { content }) else {
        panic!("a member may watch");
    };
    let nodes: BTreeSet<NodeId> = sources.iter().map(|source| source.node).collect();
    assert_eq!(nodes, [node(5), node(200)].into());
    bench.pass(LEASE);
    assert_eq!(bench.holders(content), [(node(200), vec![2])]);
}

#[test]
fn three_missed_heartbeats_and_a_node_is_gone() {
    let mut bench = Bench::new();
    let content = bench.publish(signed("a", 1, 1));
    bench.join(5);
    bench.join(6);
    bench.ack(5, content, node(200), &[0]);
    bench.pass(LEASE / 2);
    assert_eq!(bench.ask(6, Request::Heartbeat), Reply::Done);
    bench.pass(LEASE / 2);
    assert_eq!(bench.holders(content), []);
    assert_eq!(bench.registry.counters().peers, 1);
    assert_eq!(
        bench.pushes.last(),
        Some(&Push::Gone {
            content,
            node: node(5)
        })
    );
    assert_eq!(bench.refusal(5, Request::Heartbeat), Refusal::NotJoined);
    assert!(bench.registry.deadline() > Some(bench.now));
    bench.pass(LEASE);
    assert_eq!(bench.registry.deadline(), None);
}

#[test]
fn leaving_and_withdrawing_take_effect_at_once() {
    let mut bench = Bench::new();
    let content = bench.publish(signed("a", 1, 1));
    for who in [5, 6] {
        bench.join(who);
        bench.ack(who, content, node(200), &[0]);
    }
    assert_eq!(bench.ask(5, Request::Withdraw { content }), Reply::Done);
    assert_eq!(bench.ask(6, Request::Leave), Reply::Done);
    assert_eq!(bench.holders(content), []);
    assert_eq!(bench.registry.counters().peers, 1);
    let gone = |node| Push::Gone { content, node };
    assert_eq!(bench.pushes[2..], [gone(node(5)), gone(node(6))]);
}

#[test]
fn a_join_names_others_and_a_new_address_is_told() {
    let mut bench = Bench::new();
    let content = bench.publish(signed("a", 1, 1));
    for who in 0..100 {
        bench.join(who);
    }
    let Reply::Joined { peers, address, .. } = bench.join(5) else {
        panic!("anybody may join");
    };
    assert_eq!(address, ([10, 0, 0, 5], 4_000).into());
    assert_eq!(peers.len(), PEERS_MAX);
    assert!(peers.iter().all(|peer| peer.node != node(5)));
    bench.ack(5, content, node(200), &[0]);
    let advertise: SocketAddr = ([192, 0, 2, 1], 9).into();
    bench.ask(
        5,
        Request::Join {
            port: 1,
            advertise: Some(advertise),
        },
    );
    let source = Source {
        node: node(5),
        address: advertise,
    };
    assert_eq!(bench.pushes.last(), Some(&Push::Came { content, source }));
}

fn requests() -> impl Strategy<Value = Request> {
    // Two contents that exist and one that does not.
    let content = (1u8..4).prop_map(|version| signed("a", version.into(), 1).unverified().content);
    let chunks = proptest::collection::vec(0u32..25, 0..5);
    let bits = proptest::collection::vec(any::<u8>(), 0..4);
    let name = || "a".parse::<Name>().expect("a good name");
    prop_oneof![
        any::<u16>().prop_map(|port| Request::Join {
            port,
            advertise: None
        }),
        Just(Request::Resolve { name: name() }),
        Just(Request::List {
            after: Some(name())
        }),
        content
            .clone()
            .prop_map(|content| Request::Watch { content }),
        content.clone().prop_map(|content| Request::Holders {
            content,
            after: None
        }),
        (1u64..3, 1u8..3).prop_map(|(version, seed)| Request::Publish {
            release: signed("a", version, seed)
        }),
        (content.clone(), 0u32..25, bits).prop_map(|(content, first, bits)| Request::Announce {
            content,
            segment: Segment { first, bits }
        }),
        (content.clone(), chunks).prop_map(|(content, chunks)| ack(content, node(200), &chunks)),
        content.prop_map(|content| Request::Withdraw { content }),
        Just(Request::Heartbeat),
        Just(Request::Leave),
        Just(Request::Hello { version: 1 }),
    ]
}

proptest! {
    #[test]
    fn holders_are_members_whatever_is_asked(steps in proptest::collection::vec((0u8..5, requests(), 0u64..2_000), 0..100)) {
        let mut bench = Bench::new();
        for (who, request, wait_ms) in steps {
            bench.now = bench.now.plus(Duration::from_millis(wait_ms));
            bench.ask(who, request);
            let registry = &bench.registry;
            for member in registry.members.values() {
                prop_assert!(member.lease_until > bench.now);
                prop_assert!(registry.deadline() <= Some(member.lease_until));
            }
            for (id, content) in &registry.contents {
                for node in content.holders.keys() {
                    prop_assert!(registry.members.get(node).is_some_and(|member| member.holds.contains(id)));
                }
            }
        }
        bench.pass(LEASE);
        prop_assert!(bench.registry.contents.values().all(|content| content.holders.is_empty()));
    }
}

/// A publisher by key, who has joined.
struct Author(Identity);

impl Author {
    fn join(bench: &mut Bench, seed: u8) -> Self {
        let author = Self(Identity::from_seed([seed; 32]));
        let join = Request::Join {
            port: 1,
            advertise: None,
        };
        assert!(matches!(author.ask(bench, join), Reply::Joined { .. }));
        author
    }

    fn ask(&self, bench: &mut Bench, request: Request) -> Reply {
        bench.ask_as(self.0.id(), ([10, 0, 1, 1], 5_000).into(), request)
    }

    fn draft(&self, name: &str, nonce: u8) -> Draft {
        Draft {
            name: name.parse().expect("a good name"),
            geometry: Geometry::new(20 * 16_384, 16_384).expect("within limits"),
            publisher: self.0.id(),
            nonce: [nonce; 32],
        }
    }

    fn register(&self, bench: &mut Bench, draft: &Draft) -> Reply {
        let draft = draft.clone();
        self.ask(bench, Request::Draft { draft })
    }
}

fn find(bench: &mut Bench, name: &str) -> Option<Draft> {
    let name = name.parse().expect("a good name");
    match bench.ask(99, Request::FindDraft { name }) {
        Reply::Drafted { draft } => Some(draft),
        Reply::Refused {
            refusal: Refusal::UnknownName,
        } => None,
        reply => panic!("neither known nor unknown: {reply:?}"),
    }
}

#[test]
fn a_draft_is_held_like_a_content_until_its_release_seals_it() {
    let mut bench = Bench::new();
    let author = Author::join(&mut bench, 1);
    let draft = author.draft("a", 1);
    let id = draft.id();
    assert_eq!(bench.registry.geometry(id), None, "not to be stored yet");
    assert_eq!(author.register(&mut bench, &draft), Reply::Done);
    assert_eq!(author.register(&mut bench, &draft), Reply::Done, "again");
    assert_eq!(find(&mut bench, "a"), Some(draft.clone()));
    assert_eq!(bench.registry.geometry(id), Some(draft.geometry));
    bench.join(2);
    bench.ack(2, id, author.0.id(), &[3, 4]);
    assert_eq!(bench.holders(id), [(node(2), vec![3, 4])]);
    bench.pushes.clear();
    let release = signed("a", 1, 1);
    bench.publish(release.clone());
    assert_eq!(bench.pushes, [Push::Sealed { draft: id, release }]);
    assert_eq!(find(&mut bench, "a"), None);
    // Those who fetch it by this name still do.
    assert_eq!(bench.holders(id), [(node(2), vec![3, 4])]);
    author.ask(&mut bench, Request::Leave);
    let content = id;
    assert_eq!(
        bench.refusal(2, Request::Watch { content }),
        Refusal::UnknownContent
    );
}

#[test]
fn a_release_that_was_there_before_seals_a_draft_too() {
    let mut bench = Bench::new();
    let author = Author::join(&mut bench, 1);
    let release = signed("a", 1, 1);
    bench.publish(release.clone());
    let draft = author.draft("a", 1);
    author.register(&mut bench, &draft);
    let unchanged = Reply::Published {
        outcome: Outcome::Unchanged,
    };
    let again = Request::Publish {
        release: release.clone(),
    };
    assert_eq!(author.ask(&mut bench, again), unchanged);
    let draft = draft.id();
    assert!(bench.pushes.contains(&Push::Sealed { draft, release }));
}

#[test]
fn a_draft_goes_with_its_publisher_and_with_the_next_one() {
    let mut bench = Bench::new();
    let author = Author::join(&mut bench, 1);
    let (first, second) = (author.draft("a", 1), author.draft("a", 2));
    author.register(&mut bench, &first);
    bench.join(2);
    bench.ack(2, first.id(), author.0.id(), &[3]);
    author.register(&mut bench, &second);
    assert_eq!(find(&mut bench, "a"), Some(second.clone()));
    let gone = Push::Gone {
        content: first.id(),
        node: node(2),
    };
    assert!(bench.pushes.contains(&gone), "{:?}", bench.pushes);
    let content = second.id();
    assert_eq!(bench.ask(2, Request::Withdraw { content }), Reply::Done);
    assert_eq!(find(&mut bench, "a"), Some(second.clone()), "not theirs");
    author.ask(&mut bench, Request::Withdraw { content });
    assert_eq!(find(&mut bench, "a"), None);
    author.register(&mut bench, &second);
    bench.pass(LEASE);
    assert_eq!(find(&mut bench, "a"), None);
    // The holder is not burdened with what is gone.
    bench.pass(LEASE);
}

#[test]
fn drafts_that_are_too_many_or_not_ones_own_are_refused() {
    let mut bench = Bench::new();
    let (author, other) = (Author::join(&mut bench, 1), Author::join(&mut bench, 2));
    let draft = author.draft("a", 1);
    assert!(matches!(
        other.register(&mut bench, &draft),
        Reply::Refused {
            refusal: Refusal::Malformed(_)
        }
    ));
    author.register(&mut bench, &draft);
    let taken = Reply::Refused {
        refusal: Refusal::Taken {
            publisher: author.0.id(),
        },
    };
    let theirs = other.draft("a", 1);
    assert_eq!(other.register(&mut bench, &theirs), taken);
    bench.publish(signed("b", 1, 1));
    let theirs = other.draft("b", 1);
    assert_eq!(other.register(&mut bench, &theirs), taken);
    for number in 1..DRAFTS_PER_PUBLISHER_MAX {
        let draft = author.draft(&format!("a{number}"), 1);
        assert_eq!(author.register(&mut bench, &draft), Reply::Done);
    }
    let busy = Reply::Refused {
        refusal: Refusal::Busy,
    };
    let last = author.draft("z", 1);
    assert_eq!(author.register(&mut bench, &last), busy);
    let theirs = other.draft("c", 1);
    assert_eq!(other.register(&mut bench, &theirs), Reply::Done);
    // One that is sealed makes room.
    bench.publish(signed("a3", 1, 1));
    assert_eq!(author.register(&mut bench, &last), Reply::Done);
    assert_eq!(author.register(&mut bench, &author.draft("y", 1)), busy);
}
