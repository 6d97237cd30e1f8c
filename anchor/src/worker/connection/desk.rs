//! What the connection process remembers: its sessions, what they asked and still wait for, and what they watch.
//!
//! A request that was forwarded stays here until its reply comes. When the manifest process has died meanwhile, all
//! that is pending is forwarded again; requests are idempotent, so asking twice does no harm.

#[cfg(test)]
mod tests;

use super::session::{Outgoing, SessionId, frame, frame_of_encoded};
use crate::{order::ToConnection, packet::Asked, sys::pipe};
use anchorage_manifest::{
    ContentId, NodeId,
    wire::{Push, Refusal, Reply, Request},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

/// Most sessions.
const SESSIONS_MAX: usize = 32_768;

/// Most requests of all sessions without a reply.
const PENDING_MAX: usize = 16_384;

/// A request that has no reply after this is answered `Busy`.
const REPLY_PATIENCE: Duration = Duration::from_secs(10);

/// Most contents that one session may watch; the one that it has watched longest gives way to a new one.
const WATCHES_MAX: usize = 256;

/// Most watchers that are told of one change, picked at random. If all were, a crowd of N that comes for the same
/// content would get N² messages; a peer needs some sources, not all, and those who are not told now are told of
/// others.
const TOLD_MAX: usize = 64;

/// What is answered when nothing else can be.
const BUSY: Reply = Reply::Refused {
    refusal: Refusal::Busy,
};

/// A session's place at the desk.
pub(super) struct Seat {
    /// Where its messages go.
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    /// Dropped when the desk wants the session to end.
    pub(super) _alive: oneshot::Sender<()>,
}

/// A request and whose it is.
pub(super) struct Question {
    /// The session.
    pub(super) session: SessionId,
    /// The peer's number for it.
    pub(super) id: u32,
    /// Who asks.
    pub(super) node: NodeId,
    /// From where.
    pub(super) observed: SocketAddr,
    /// What.
    pub(super) request: Request,
    /// One of the session's requests in flight; given back when the reply is written.
    pub(super) permit: OwnedSemaphorePermit,
}

/// A reply, on its way from the manifest process to a peer.
enum Answer {
    Reply(Reply),
    /// As the codec encodes it.
    Encoded(Vec<u8>),
}

/// The desk. Its lock is held for moments only.
pub(super) struct Desk {
    state: Mutex<State>,
    /// Rings when there is something to forward.
    pub(super) forwards: Notify,
}

#[derive(Default)]
struct State {
    heartbeat_ms: u32,
    sessions: BTreeMap<SessionId, Session>,
    watchers: BTreeMap<ContentId, BTreeSet<SessionId>>,
    pending: BTreeMap<u64, Pending>,
    /// What was not forwarded yet, or is to be again.
    queue: VecDeque<u64>,
    next_session: u64,
    next_sequence: u64,
    attached: bool,
    closed: bool,
}

struct Session {
    seat: Seat,
    joined: bool,
    /// In the order in which it began.
    watches: VecDeque<ContentId>,
}

struct Pending {
    asked: Asked,
    asker: Asker,
    deadline: Instant,
}

/// Whom to answer.
struct Asker {
    session: SessionId,
    id: u32,
    permit: OwnedSemaphorePermit,
    /// Whether the answer is the last thing that the session hears.
    leaves: bool,
}

impl Desk {
    /// An empty desk.
    pub(super) fn new(heartbeat_ms: u32) -> Self {
        // Numbers go on rising over the lives of this process, so that no reply to an earlier life fits.
        let epoch = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let state = State {
            heartbeat_ms,
            next_sequence: u64::try_from(epoch.as_nanos()).unwrap_or_default(),
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            forwards: Notify::new(),
        }
    }

    /// Gives a new session its seat; `None` if there is no room.
    pub(super) fn sit(&self, seat: Seat) -> Option<SessionId> {
        let mut state = self.state();
        if state.closed || state.sessions.len() >= SESSIONS_MAX {
            return None;
        }
        let id = SessionId(state.next_session);
        state.next_session += 1;
        let session = Session {
            seat,
            joined: false,
            watches: VecDeque::new(),
        };
        state.sessions.insert(id, session);
        Some(id)
    }

    /// Forgets a session. What it asked is still answered, to nobody.
    pub(super) fn leave(&self, id: SessionId) {
        self.state().remove(id);
    }

    /// Whether a session has joined.
    pub(super) fn has_joined(&self, id: SessionId) -> bool {
        self.state()
            .sessions
            .get(&id)
            .is_some_and(|session| session.joined)
    }

    /// Milliseconds between heartbeats.
    pub(super) fn heartbeat_ms(&self) -> u32 {
        self.state().heartbeat_ms
    }

    /// The configuration has changed.
    pub(super) fn set_heartbeat(&self, heartbeat_ms: u32) {
        self.state().heartbeat_ms = heartbeat_ms;
    }

    /// Takes a request to forward.
    pub(super) fn ask(&self, question: Question) {
        let mut state = self.state();
        let Question {
            session,
            id,
            node,
            observed,
            request,
            permit,
        } = question;
        let asker = Asker {
            session,
            id,
            permit,
            leaves: request == Request::Leave,
        };
        if state.pending.len() >= PENDING_MAX {
            state.answer(asker, Answer::Reply(BUSY));
            return;
        }
        if let Request::Watch { content } = request {
            state.watch(session, content);
        }
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let asked = Asked {
            sequence,
            node,
            observed,
            request,
        };
        let pending = Pending {
            asked,
            asker,
            deadline: Instant::now() + REPLY_PATIENCE,
        };
        state.pending.insert(sequence, pending);
        state.queue.push_back(sequence);
        self.forwards.notify_one();
    }

    /// Puts the next requests to forward into a packet, as many as it has room for.
    pub(super) fn forward(&self, packet: &mut Vec<u8>) {
        let mut state = self.state();
        while let Some(sequence) = state.queue.front() {
            let pending = state.pending.get(sequence);
            if pending.is_some_and(|pending| !pipe::append(packet, &pending.asked)) {
                return;
            }
            state.queue.pop_front();
        }
    }

    /// Takes what the manifest process tells.
    pub(super) fn hear(&self, batch: Vec<ToConnection>) {
        let mut state = self.state();
        for message in batch {
            match message {
                ToConnection::Listening => {
                    state.attached();
                    self.forwards.notify_one();
                }
                ToConnection::Reply { sequence, reply } => {
                    state.reply(sequence, Answer::Reply(reply));
                }
                ToConnection::Encoded { sequence, reply } => {
                    state.reply(sequence, Answer::Encoded(reply));
                }
                ToConnection::Push(push) => state.push(&push),
            }
        }
    }

    /// Answers what has waited too long.
    pub(super) fn expire(&self, now: Instant) {
        let mut state = self.state();
        // Sequence and deadline rise together.
        while let Some(entry) = state.pending.first_entry()
            && entry.get().deadline <= now
        {
            let Pending { asker, .. } = entry.remove();
            state.answer(asker, Answer::Reply(BUSY));
        }
    }

    /// Whether anybody waits for a reply.
    pub(super) fn has_pending(&self) -> bool {
        !self.state().pending.is_empty()
    }

    /// Ends every session, and lets no new one in.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for session in state.sessions.values() {
            // Without room for it the session is ended the hard way.
            let _ = session.seat.outgoing.try_send(Outgoing::End);
        }
    }

    /// Whether every session has ended.
    pub(super) fn is_deserted(&self) -> bool {
        self.state().sessions.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The manifest process listens, again if it did before: then it has forgotten who holds what.
    fn attached(&mut self) {
        self.queue = self.pending.keys().copied().collect();
        if std::mem::replace(&mut self.attached, true) {
            let joined: Vec<SessionId> = self
                .sessions
                .iter()
                .filter_map(|(&id, session)| session.joined.then_some(id))
                .collect();
            for session in joined {
                self.send(session, Outgoing::push(&Push::Reannounce));
            }
        }
    }

    /// Passes a reply on. One that nobody waits for is the second to a request that was forwarded twice.
    fn reply(&mut self, sequence: u64, answer: Answer) {
        let Some(Pending { asked, asker, .. }) = self.pending.remove(&sequence) else {
            return;
        };
        match (&asked.request, &answer) {
            (Request::Join { .. }, Answer::Reply(Reply::Joined { .. })) => {
                if let Some(session) = self.sessions.get_mut(&asker.session) {
                    session.joined = true;
                }
            }
            (Request::Watch { content }, Answer::Reply(Reply::Refused { .. })) => {
                self.unwatch(asker.session, *content);
            }
            _ => {}
        }
        self.answer(asker, answer);
    }

    /// Tells some of those who watch.
    fn push(&mut self, push: &Push) {
        let (content, told_max) = match push {
            Push::Came { content, .. } | Push::Gone { content, .. } => (content, TOLD_MAX),
            Push::Sealed { draft, .. } => (draft, SESSIONS_MAX),
            Push::Reannounce => return,
        };
        let watchers = self.watchers.get(content).into_iter().flatten().copied();
        for session in fastrand::Rng::new().choose_multiple(watchers, told_max) {
            self.send(session, Outgoing::push(push));
        }
    }

    fn watch(&mut self, id: SessionId, content: ContentId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if !self.watchers.entry(content).or_default().insert(id) {
            return;
        }
        session.watches.push_back(content);
        if session.watches.len() > WATCHES_MAX
            && let Some(&oldest) = session.watches.front()
        {
            self.unwatch(id, oldest);
        }
    }

    fn unwatch(&mut self, id: SessionId, content: ContentId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.watches.retain(|&other| other != content);
        }
        if let Some(watchers) = self.watchers.get_mut(&content) {
            watchers.remove(&id);
            if watchers.is_empty() {
                self.watchers.remove(&content);
            }
        }
    }

    fn remove(&mut self, id: SessionId) {
        let watches = self
            .sessions
            .get(&id)
            .map(|session| session.watches.clone());
        for content in watches.unwrap_or_default() {
            self.unwatch(id, content);
        }
        self.sessions.remove(&id);
    }

    fn answer(&mut self, asker: Asker, answer: Answer) {
        let frame = match answer {
            Answer::Reply(reply) => frame(asker.id, reply),
            Answer::Encoded(reply) => frame_of_encoded(asker.id, &reply),
        };
        let permit = Some(asker.permit);
        self.send(asker.session, Outgoing::Frame { frame, permit });
        if asker.leaves {
            self.send(asker.session, Outgoing::End);
        }
    }

    /// Queues something for a session; one that does not read what it gets is ended.
    fn send(&mut self, id: SessionId, outgoing: Outgoing) {
        if let Some(session) = self.sessions.get(&id)
            && session.seat.outgoing.try_send(outgoing).is_err()
        {
            self.remove(id);
        }
    }
}
