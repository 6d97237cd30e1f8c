//! The desk's promises, one test each.

use super::*;
use anchorage_manifest::{Hash, Source};
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
        let asked = desk.next_forward().expect("a join to forward");
        let address = asked.observed;
        let joined = Reply::Joined {
            observed: address,
            address,
            heartbeat_ms: 1,
            peers: vec![],
        };
        desk.reply(asked.sequence, joined.clone());
        assert_eq!(self.reply(), Some((0, joined)));
    }

    fn reply(&mut self) -> Option<(u32, Reply)> {
        match self.inbox.try_recv() {
            Ok(Outgoing::Reply { id, reply, .. }) => Some((id, reply)),
            _ => None,
        }
    }

    fn push(&mut self) -> Option<Push> {
        match self.inbox.try_recv() {
            Ok(Outgoing::Push(push)) => Some(push),
            _ => None,
        }
    }
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
    desk.attached();
    guest.ask(&desk, 5, Request::Heartbeat);
    guest.ask(&desk, 6, Request::Heartbeat);
    let first = desk.next_forward().expect("to forward");
    desk.reply(first.sequence, Reply::Done);
    let second = desk.next_forward().expect("to forward");
    assert_eq!(desk.next_forward(), None);
    desk.attached();
    assert_eq!(desk.next_forward(), Some(second.clone()));
    assert_eq!(desk.next_forward(), None);
    desk.reply(second.sequence, Reply::Done);
    desk.reply(second.sequence, Reply::Done);
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
    let asked = desk.next_forward().expect("to forward");
    desk.reply(asked.sequence, Reply::Done);
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
    assert_eq!(desk.next_forward(), None);
}

#[test]
fn only_who_joined_announces_again_and_only_when_something_was_lost() {
    let desk = Desk::new(1_000);
    let (mut member, mut stranger) = (Guest::sit(&desk, 8), Guest::sit(&desk, 8));
    desk.attached();
    member.join(&desk);
    assert_eq!(member.push(), None);
    desk.attached();
    assert_eq!(member.push(), Some(Push::Reannounce));
    assert_eq!(stranger.push(), None);
}

#[test]
fn changes_are_told_to_who_watches() {
    let desk = Desk::new(1_000);
    let (mut watcher, mut other) = (Guest::sit(&desk, 8), Guest::sit(&desk, 8));
    watcher.ask(&desk, 1, Request::Watch { content: content() });
    desk.push(&came());
    assert_eq!(watcher.push(), Some(came()));
    assert_eq!(other.push(), None);
    // A refused watch is none.
    let asked = desk.next_forward().expect("a watch to forward");
    let refusal = Refusal::UnknownContent;
    desk.reply(asked.sequence, Reply::Refused { refusal });
    assert!(watcher.reply().is_some());
    desk.push(&came());
    assert_eq!(watcher.push(), None);
}

#[test]
fn one_change_is_told_to_some_of_a_crowd() {
    let desk = Desk::new(1_000);
    let mut crowd: Vec<Guest> = (0..3 * TOLD_MAX).map(|_| Guest::sit(&desk, 8)).collect();
    for guest in &crowd {
        guest.ask(&desk, 1, Request::Watch { content: content() });
    }
    desk.push(&came());
    let told = crowd.iter_mut().filter_map(Guest::push).count();
    assert_eq!(told, TOLD_MAX);
}

#[test]
fn who_does_not_read_is_ended_and_forgotten() {
    let desk = Desk::new(1_000);
    let mut deaf = Guest::sit(&desk, 1);
    deaf.ask(&desk, 1, Request::Watch { content: content() });
    desk.push(&came());
    assert!(matches!(
        deaf.ended.try_recv(),
        Err(oneshot::error::TryRecvError::Empty)
    ));
    desk.push(&came());
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
    let asked = desk.next_forward().expect("to forward");
    desk.reply(asked.sequence, Reply::Done);
    assert_eq!(guest.reply(), Some((9, Reply::Done)));
    assert!(matches!(guest.inbox.try_recv(), Ok(Outgoing::End)));
}
