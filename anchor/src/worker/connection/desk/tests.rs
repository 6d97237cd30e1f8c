//! The desk's promises, one test each.

use super::*;
use anchorage_manifest::{
    Geometry, Hash, Release, Source, codec, limits::PACKET_SIZE_MAX, wire::ToPeer,
};
use anchorage_peer::identity::Identity;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// A session with the far ends of its seat.
struct Guest {
    id: SessionId,
    inbox: mpsc::Receiver<Outgoing>,
    ended: oneshot::Receiver<()>,
    in_flight: Arc<Semaphore>,
}

impl Guest {
    fn sit(desk: &Desk, room: usize) -> Self {
        let (outgoing, inbox) = mpsc::channel(room);
        let (alive, ended) = oneshot::channel();
        let seat = Seat {
            outgoing,
            _alive: alive,
        };
        Self {
            id: desk.sit(seat).expect("room for a guest"),
            inbox,
            ended,
            in_flight: Arc::new(Semaphore::new(8)),
        }
    }

    fn ask(&self, desk: &Desk, id: u32, request: Request) {
        let permit = self.in_flight.clone().try_acquire_owned();
        desk.ask(Question {
            session: self.id,
            id,
            node: NodeId([1; 32]),
            observed: ([127, 0, 0, 1], 1).into(),
            request,
            permit: permit.expect("few requests"),
        });
    }

    fn join(&mut self, desk: &Desk) {
        let (port, advertise) = (1, None);
        self.ask(desk, 0, Request::Join { port, advertise });
        let asked = forwarded(desk).remove(0);
        let address = asked.observed;
        let joined = Reply::Joined {
            observed: address,
            address,
            heartbeat_ms: 1,
            collect_ms: 20,
            peers: vec![],
        };
        reply(desk, asked.sequence, joined.clone());
        assert_eq!(self.reply(), Some((0, joined)));
    }

    fn heard(&mut self) -> Option<ToPeer> {
        match self.inbox.try_recv() {
            Ok(Outgoing::Frame { frame, .. }) => {
                let body = &frame[codec::PREFIX_SIZE..];
                Some(codec::decode(body).expect("encoded just now"))
            }
            _ => None,
        }
    }

    fn reply(&mut self) -> Option<(u32, Reply)> {
        match self.heard() {
            Some(ToPeer::Reply { id, reply }) => Some((id, reply)),
            _ => None,
        }
    }

    fn push(&mut self) -> Option<Push> {
        match self.heard() {
            Some(ToPeer::Push(push)) => Some(push),
            _ => None,
        }
    }
}

/// All that is to be forwarded now.
fn forwarded(desk: &Desk) -> Vec<Asked> {
    let mut all = Vec::new();
    loop {
        let mut packet = Vec::new();
        desk.forward(&mut packet);
        if packet.is_empty() {
            return all;
        }
        assert!(packet.len() <= PACKET_SIZE_MAX);
        all.extend(codec::decode_all::<Asked>(&packet).expect("encoded just now"));
    }
}

fn attached(desk: &Desk) {
    desk.hear(vec![ToConnection::Listening]);
}

fn reply(desk: &Desk, sequence: u64, reply: Reply) {
    desk.hear(vec![ToConnection::Reply { sequence, reply }]);
}

fn push(desk: &Desk) {
    desk.hear(vec![ToConnection::Push(came())]);
}

fn content() -> ContentId {
    ContentId(Hash([7; 32]))
}

fn came() -> Push {
    let (node, address) = (NodeId([2; 32]), ([127, 0, 0, 1], 2).into());
    Push::Came {
        content: content(),
        source: Source { node, address },
    }
}

#[test]
fn what_has_no_reply_is_forwarded_again_and_answered_once() {
    let desk = Desk::new(1_000);
    let mut guest = Guest::sit(&desk, 8);
    attached(&desk);
    guest.ask(&desk, 5, Request::Heartbeat);
    guest.ask(&desk, 6, Request::Heartbeat);
    let both = forwarded(&desk);
    let [first, second] = &both[..] else {
        panic!("two were asked: {both:?}");
    };
    reply(&desk, first.sequence, Reply::Done);
    attached(&desk);
    assert_eq!(forwarded(&desk), std::slice::from_ref(second));
    reply(&desk, second.sequence, Reply::Done);
    reply(&desk, second.sequence, Reply::Done);
    assert_eq!(guest.reply(), Some((5, Reply::Done)));
    assert_eq!(guest.reply(), Some((6, Reply::Done)));
    assert_eq!(guest.reply(), None);
    assert!(!desk.has_pending());
}

#[test]
fn a_request_is_in_flight_until_its_reply_is_written() {
    let desk = Desk::new(1_000);
    let mut guest = Guest::sit(&desk, 8);
    guest.ask(&desk, 5, Request::Heartbeat);
    let asked = forwarded(&desk).remove(0);
    reply(&desk, asked.sequence, Reply::Done);
    assert_eq!(guest.in_flight.available_permits(), 7);
    assert!(guest.reply().is_some());
    assert_eq!(guest.in_flight.available_permits(), 8);
}

#[test]
fn a_request_without_a_reply_is_answered_in_the_end() {
    let desk = Desk::new(1_000);
    let mut guest = Guest::sit(&desk, 8);
    guest.ask(&desk, 5, Request::Heartbeat);
    desk.expire(Instant::now());
    assert_eq!(guest.reply(), None);
    desk.expire(Instant::now() + REPLY_PATIENCE);
    let refusal = Refusal::Busy;
    assert_eq!(guest.reply(), Some((5, Reply::Refused { refusal })));
    assert!(forwarded(&desk).is_empty());
}

#[test]
fn many_requests_go_in_few_packets_and_in_order() {
    let desk = Desk::new(1_000);
    let guests: Vec<Guest> = (0..100).map(|_| Guest::sit(&desk, 8)).collect();
    for guest in &guests {
        guest.ask(&desk, 1, Request::Watch { content: content() });
    }
    let mut packet = Vec::new();
    desk.forward(&mut packet);
    let first: Vec<Asked> = codec::decode_all(&packet).expect("encoded just now");
    assert!(first.len() > 20, "{}", first.len());
    let all: Vec<Asked> = first.into_iter().chain(forwarded(&desk)).collect();
    assert_eq!(all.len(), guests.len());
    assert!(all.is_sorted_by_key(|asked| asked.sequence));
}

#[test]
fn an_encoded_reply_is_the_same_on_the_wire() {
    let desk = Desk::new(1_000);
    let mut guest = Guest::sit(&desk, 8);
    guest.ask(&desk, 70_000, Request::List { after: None });
    let sequence = forwarded(&desk).remove(0).sequence;
    let listed = Reply::Listed {
        releases: vec![],
        more: true,
    };
    let reply = codec::encode(&listed);
    desk.hear(vec![ToConnection::Encoded { sequence, reply }]);
    assert_eq!(guest.reply(), Some((70_000, listed)));
}

#[test]
fn only_who_joined_announces_again_and_only_when_something_was_lost() {
    let desk = Desk::new(1_000);
    let (mut member, mut stranger) = (Guest::sit(&desk, 8), Guest::sit(&desk, 8));
    attached(&desk);
    member.join(&desk);
    assert_eq!(member.push(), None);
    attached(&desk);
    assert_eq!(member.push(), Some(Push::Reannounce));
    assert_eq!(stranger.push(), None);
}

#[test]
fn changes_are_told_to_who_watches() {
    let desk = Desk::new(1_000);
    let (mut watcher, mut other) = (Guest::sit(&desk, 8), Guest::sit(&desk, 8));
    watcher.ask(&desk, 1, Request::Watch { content: content() });
    push(&desk);
    assert_eq!(watcher.push(), Some(came()));
    assert_eq!(other.push(), None);
    // A refused watch is none.
    let asked = forwarded(&desk).remove(0);
    let refusal = Refusal::UnknownContent;
    reply(&desk, asked.sequence, Reply::Refused { refusal });
    assert!(watcher.reply().is_some());
    push(&desk);
    assert_eq!(watcher.push(), None);
}

#[test]
fn the_oldest_watch_gives_way() {
    let desk = Desk::new(1_000);
    let mut guest = Guest::sit(&desk, 8);
    let numbered = |number: usize| ContentId(Hash::of(&number.to_be_bytes()));
    for number in 0..=WATCHES_MAX {
        let content = numbered(number);
        guest.ask(&desk, 1, Request::Watch { content });
        for asked in forwarded(&desk) {
            reply(&desk, asked.sequence, Reply::Done);
        }
        assert_eq!(guest.reply(), Some((1, Reply::Done)));
    }
    let node = NodeId([2; 32]);
    for (number, is_watched) in [(0, false), (1, true), (WATCHES_MAX, true)] {
        let content = numbered(number);
        let push = Push::Gone { content, node };
        desk.hear(vec![ToConnection::Push(push.clone())]);
        assert_eq!(guest.push(), is_watched.then_some(push));
    }
}

#[test]
fn one_change_is_told_to_some_of_a_crowd() {
    let desk = Desk::new(1_000);
    let mut crowd: Vec<Guest> = (0..3 * TOLD_MAX).map(|_| Guest::sit(&desk, 8)).collect();
    for guest in &crowd {
        guest.ask(&desk, 1, Request::Watch { content: content() });
    }
    push(&desk);
    let told = crowd.iter_mut().filter_map(Guest::push).count();
    assert_eq!(told, TOLD_MAX);
}

#[test]
fn that_a_draft_is_sealed_is_told_to_the_whole_crowd() {
    let desk = Desk::new(1_000);
    let mut crowd: Vec<Guest> = (0..3 * TOLD_MAX).map(|_| Guest::sit(&desk, 8)).collect();
    for guest in &crowd {
        guest.ask(&desk, 1, Request::Watch { content: content() });
    }
    let identity = Identity::from_seed([1; 32]);
    let release = identity.sign(Release {
        name: "a".parse().expect("a good name"),
        version: 1,
        content: content(),
        geometry: Geometry::new(1, 1_024).expect("within limits"),
        publisher: identity.id(),
    });
    let draft = content();
    desk.hear(vec![ToConnection::Push(Push::Sealed { draft, release })]);
    assert_eq!(
        crowd.iter_mut().filter_map(Guest::push).count(),
        3 * TOLD_MAX
    );
}

#[test]
fn who_does_not_read_is_ended_and_forgotten() {
    let desk = Desk::new(1_000);
    let mut deaf = Guest::sit(&desk, 1);
    deaf.ask(&desk, 1, Request::Watch { content: content() });
    push(&desk);
    assert!(matches!(
        deaf.ended.try_recv(),
        Err(oneshot::error::TryRecvError::Empty)
    ));
    push(&desk);
    assert!(matches!(
        deaf.ended.try_recv(),
        Err(oneshot::error::TryRecvError::Closed)
    ));
    assert!(desk.is_deserted());
}

#[test]
fn leaving_ends_the_session_after_its_reply() {
    let desk = Desk::new(1_000);
    let mut guest = Guest::sit(&desk, 8);
    guest.ask(&desk, 9, Request::Leave);
    let asked = forwarded(&desk).remove(0);
    reply(&desk, asked.sequence, Reply::Done);
    assert_eq!(guest.reply(), Some((9, Reply::Done)));
    assert!(matches!(guest.inbox.try_recv(), Ok(Outgoing::End)));
}
