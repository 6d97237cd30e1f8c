//! What the connection process remembers: its sessions, what they asked and still wait for, and what they watch.
//!
//! A request that was forwarded stays here until its reply comes. When the manifest process has died meanwhile, all
//! that is pending is forwarded again; requests are idempotent, so asking twice does no harm.

#[cfg(test)]
mod tests;

use super::session::{Outgoing, SessionId};
use crate::packet::Asked;
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
const PENDING_MAX: usize = 4_096;

/// A request that has no reply after this is answered `Busy`.
const REPLY_PATIENCE: Duration = Duration::from_secs(10);

/// Most contents that one session may watch.
const WATCHES_MAX: usize = 1_024;

/// Most watchers that are told of one change, picked at random. If all were, a crowd of N that comes for the same
/// content would get N² messages; a peer needs some sources, not all, and those who are not told now are told of
/// others.
const TOLD_MAX: usize = 64;

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
    watches: BTreeSet<ContentId>,
}

struct Pending {
    question: Question,
    deadline: Instant,
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
            watches: BTreeSet::new(),
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
        let watched = match &question.request {
            Request::Watch { content } => state.watch(question.session, *content),
            _ => true,
        };
        if !watched || state.pending.len() >= PENDING_MAX {
            let refusal = Refusal::Busy;
            state.answer(question, Reply::Refused { refusal });
            return;
        }
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let pending = Pending {
            question,
            deadline: Instant::now() + REPLY_PATIENCE,
        };
        state.pending.insert(sequence, pending);
        state.queue.push_back(sequence);
        self.forwards.notify_one();
    }

    /// The next request to forward.
    pub(super) fn next_forward(&self) -> Option<Asked> {
        let mut state = self.state();
        while let Some(sequence) = state.queue.pop_front() {
            if let Some(Pending { question, .. }) = state.pending.get(&sequence) {
                return Some(Asked {
                    sequence,
                    node: question.node,
                    observed: question.observed,
                    request: question.request.clone(),
                });
            }
        }
        None
    }

    /// Takes a reply. One that nobody waits for is the second to a request that was forwarded twice.
    pub(super) fn reply(&self, sequence: u64, reply: Reply) {
        let mut state = self.state();
        let Some(Pending { question, .. }) = state.pending.remove(&sequence) else {
            return;
        };
        match (&question.request, &reply) {
            (Request::Join { .. }, Reply::Joined { .. }) => {
                if let Some(session) = state.sessions.get_mut(&question.session) {
                    session.joined = true;
                }
            }
            (Request::Watch { content }, Reply::Refused { .. }) => {
                state.unwatch(question.session, *content);
            }
            _ => {}
        }
        state.answer(question, reply);
    }

    /// Tells some of those who watch.
    pub(super) fn push(&self, push: &Push) {
        let (Push::Came { content, .. } | Push::Gone { content, .. }) = push else {
            return;
        };
        let mut state = self.state();
        let watchers = state.watchers.get(content).into_iter().flatten().copied();
        for session in fastrand::Rng::new().choose_multiple(watchers, TOLD_MAX) {
            state.send(session, Outgoing::Push(push.clone()));
        }
    }

    /// The manifest process listens, again if it did before: then it has forgotten who holds what.
    pub(super) fn attached(&self) {
        let mut state = self.state();
        state.queue = state.pending.keys().copied().collect();
        if std::mem::replace(&mut state.attached, true) {
            let joined: Vec<SessionId> = state
                .sessions
                .iter()
                .filter_map(|(&id, session)| session.joined.then_some(id))
                .collect();
            for session in joined {
                state.send(session, Outgoing::Push(Push::Reannounce));
            }
        }
        self.forwards.notify_one();
    }

    /// Answers what has waited too long.
    pub(super) fn expire(&self, now: Instant) {
        let mut state = self.state();
        // Sequence and deadline rise together.
        while let Some(entry) = state.pending.first_entry()
            && entry.get().deadline <= now
        {
            let Pending { question, .. } = entry.remove();
            let refusal = Refusal::Busy;
            state.answer(question, Reply::Refused { refusal });
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
    fn watch(&mut self, id: SessionId, content: ContentId) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else {
            return true;
        };
        if session.watches.len() >= WATCHES_MAX && !session.watches.contains(&content) {
            return false;
        }
        session.watches.insert(content);
        self.watchers.entry(content).or_default().insert(id);
        true
    }

    fn unwatch(&mut self, id: SessionId, content: ContentId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.watches.remove(&content);
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

    fn answer(&mut self, question: Question, reply: Reply) {
        let (session, leaves) = (question.session, question.request == Request::Leave);
        let answer = Outgoing::Reply {
            id: question.id,
            reply,
            permit: Some(question.permit),
        };
        self.send(session, answer);
        if leaves {
            self.send(session, Outgoing::End);
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
