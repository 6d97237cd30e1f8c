//! A session with one anchor: kept up for as long as the node lives, connected again whenever it breaks.
//!
//! ```text
//!  Connecting ──► Connected ──► (broken) ──► Connecting …
//!       │                                        ▲
//!       └──────► Failed: why, and what to do ────┘   after 50 ms, 100 ms … 5 s
//! ```
//! Requests outlive connections: what has no answer when one breaks is asked again on the next, which is why
//! every request is idempotent. Acks need not be: the next connection announces all that the node has.

mod acks;
mod link;

use crate::{
    config::AnchorConfig, failure::Failure, identity::Identity, known_anchors::KnownAnchors,
    store::Slot, store::Store, stragglers::STRAGGLERS,
};
use acks::Acks;
use anchorage_manifest::{
    ContentId, NodeId, Source,
    wire::{Push, Refusal, Reply, Request},
};
use anyhow::{Context as _, Result, anyhow, bail};
use link::{Frame, Link};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

/// How long an answer may take, a broken connection included; an anchor that owes some and says nothing for so long is
/// not there, whatever its kernel says.
const REPLY_DEADLINE: Duration = Duration::from_secs(15);

/// Pause between heartbeats of a node that has not joined: it only keeps the connection from idling.
const NO_HEARTBEAT: Duration = Duration::from_secs(20);

/// What an anchor answers that does not list this node.
const NOT_JOINED: Reply = Reply::Refused {
    refusal: Refusal::NotJoined,
};

/// How long saying good-bye may take.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);

/// First and longest pause before another attempt to connect.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(5);

/// What sessions share.
pub struct Ground {
    /// Who the node is.
    pub identity: Arc<Identity>,
    /// What it has, to be announced.
    pub store: Arc<Store>,
    /// The anchors' keys.
    pub known_anchors: KnownAnchors,
    /// Where the node serves chunks, once it does.
    pub listen: watch::Receiver<Option<Listen>>,
    /// What anchors told, for whoever wants to know.
    pub news: broadcast::Sender<News>,
}

/// Where a node serves chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The port it listens on.
    pub port: u16,
    /// The address under which others reach it, if it was told.
    pub advertise: Option<SocketAddr>,
}

/// What an anchor told.
#[derive(Clone, Debug)]
pub enum News {
    /// A session begins, or the anchor has lost its memory: watch again.
    Connected {
        /// The anchor's number.
        anchor: u32,
    },
    /// The node is listed there, among these.
    Joined {
        /// Others that are alive.
        peers: Vec<Source>,
    },
    /// A push about a content.
    Push(Push),
}

/// How a session stands.
#[derive(Clone, Debug)]
pub enum State {
    /// The first attempt is not over yet.
    Connecting,
    /// It is up.
    Connected {
        /// The anchor's key and address.
        anchor: Source,
        /// The node's address as the anchor lists it, once it has joined.
        listed: Option<SocketAddr>,
    },
    /// The last attempt failed, or the connection broke; another attempt will be made.
    Failed(Arc<Failure>),
}

/// A handle on a session.
#[derive(Clone)]
pub struct Session {
    /// Which anchor.
    pub anchor: AnchorConfig,
    commands: mpsc::UnboundedSender<Command>,
    state: watch::Receiver<State>,
    silent_since: watch::Receiver<Option<Instant>>,
    listen: watch::Receiver<Option<Listen>>,
}

enum Command {
    Request {
        request: Request,
        reply: oneshot::Sender<Reply>,
    },
    Ack {
        content: ContentId,
        index: u32,
        from: NodeId,
    },
    Flush {
        done: oneshot::Sender<()>,
    },
    Leave {
        done: oneshot::Sender<()>,
    },
}

impl Session {
    /// Starts a session with an anchor.
    pub fn start(anchor: AnchorConfig, ground: Arc<Ground>) -> Self {
        let (commands, orders) = mpsc::unbounded_channel();
        let (told, state) = watch::channel(State::Connecting);
        let (silent_since, silence) = watch::channel(None);
        let listen = ground.listen.clone();
        let driver = Driver {
            anchor: anchor.clone(),
            listen: ground.listen.clone(),
            ground,
            state: told,
            requests: BTreeMap::new(),
            silent_since,
            next_id: 1,
            acks: Acks::default(),
        };
        tokio::spawn(driver.run(orders));
        Self {
            anchor,
            commands,
            state,
            silent_since: silence,
            listen,
        }
    }

    /// How the session stands.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// The anchor's key and address while the session is up.
    pub fn connected(&self) -> Option<Source> {
        match *self.state.borrow() {
            State::Connected { anchor, .. } => Some(anchor),
            State::Connecting | State::Failed(_) => None,
        }
    }

    /// Whether the anchor owes answers and says nothing for longer than it is worth waiting for, if there are others.
    pub fn is_silent(&self) -> bool {
        let since = *self.silent_since.borrow();
        since.is_some_and(|since| since.elapsed() >= STRAGGLERS)
    }

    /// Waits until the session is up, and has joined if the node serves; or until an attempt failed.
    pub async fn settled(&self) -> State {
        let mut state = self.state.clone();
        let is_settled = |state: &State| match state {
            State::Connecting => false,
            State::Connected { listed, .. } => listed.is_some() || self.listen.borrow().is_none(),
            State::Failed(_) => true,
        };
        match state.wait_for(is_settled).await {
            Ok(state) => state.clone(),
            Err(_) => self.state(),
        }
    }

    /// Waits for the next change; none if the session has ended.
    pub async fn changed(&mut self) -> Option<State> {
        self.state.changed().await.ok()?;
        Some(self.state.borrow_and_update().clone())
    }

    /// Asks the anchor; a refusal is an answer.
    pub async fn request(&self, request: Request) -> Result<Reply> {
        let operand = || {
            format!(
                "anchor {} at {} does not answer",
                self.anchor.id, self.anchor.address
            )
        };
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Request { request, reply })
            .ok()
            .with_context(operand)?;
        timeout(REPLY_DEADLINE, answer)
            .await
            .with_context(operand)?
            .with_context(operand)
    }

    /// Tells the anchor that a chunk is verified and stored, soon.
    pub fn ack(&self, content: ContentId, index: u32, from: NodeId) {
        // A session that has ended has nobody to tell.
        drop(self.commands.send(Command::Ack {
            content,
            index,
            from,
        }));
    }

    /// Waits until the acks so far are answered, or the session is down.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.commands.send(Command::Flush { done }).is_ok() {
            drop(flushed.await);
        }
    }

    /// Ends the session: the anchor need not wait for heartbeats that will not come.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.commands.send(Command::Leave { done }).is_ok() {
            drop(timeout(LEAVE_DEADLINE, left).await);
        }
    }

    /// Tells the anchor all that the node has of a content.
    pub async fn announce(&self, slot: &Slot) -> Result<()> {
        for request in announcement(slot) {
            match self.request(request).await? {
                Reply::Done
                | Reply::Refused {
                    refusal: Refusal::UnknownContent,
                } => {}
                other => return Err(unexpected(&other)),
            }
        }
        Ok(())
    }
}

/// An answer that fits no question that was asked.
pub fn unexpected(reply: &Reply) -> anyhow::Error {
    match reply {
        Reply::Refused { refusal } => anyhow!("the anchor refuses: {refusal}"),
        other => anyhow!("the anchor sent an answer that does not fit: {other:?}"),
    }
}

fn announcement(slot: &Slot) -> Vec<Request> {
    let content = slot.id();
    let segments = slot.have().segments().into_iter();
    segments
        .map(|segment| Request::Announce { content, segment })
        .collect()
}

/// What waits for an answer.
enum Waiting {
    Caller {
        request: Request,
        reply: oneshot::Sender<Reply>,
    },
    Ack,
    Nobody,
}

impl Waiting {
    /// Whether somebody waits for the answer, whatever connection it comes over.
    fn is_for_caller(&self) -> bool {
        matches!(self, Self::Caller { reply, .. } if !reply.is_closed())
    }
}

struct Driver {
    anchor: AnchorConfig,
    ground: Arc<Ground>,
    listen: watch::Receiver<Option<Listen>>,
    state: watch::Sender<State>,
    requests: BTreeMap<u32, Waiting>,
    /// Since when the anchor owes answers and has said nothing.
    silent_since: watch::Sender<Option<Instant>>,
    next_id: u32,
    acks: Acks,
}

impl Driver {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Command>) {
        let mut backoff = *BACKOFF.start();
        loop {
            let (anchor, ground) = (self.anchor.clone(), self.ground.clone());
            let dialled = tokio::select! {
                dialled = Link::dial(&anchor, &ground) => dialled,
                () = self.offline(&mut orders) => return,
            };
            let begun = match dialled {
                Ok(link) => self.begin(link).await,
                Err(failure) => Err(failure),
            };
            let failure = match begun {
                Ok((link, joining)) => {
                    backoff = *BACKOFF.start();
                    match self.converse(link, joining, &mut orders).await {
                        Ok(()) => return,
                        Err(error) => {
                            let name = format!("lost anchor {} at {}", anchor.id, anchor.address);
                            Failure::from(error.context(name))
                        }
                    }
                }
                Err(failure) => {
                    backoff = (backoff * 2).min(*BACKOFF.end());
                    failure
                }
            };
            self.state.send_replace(State::Failed(Arc::new(failure)));
            tokio::select! {
                () = sleep(backoff.mul_f64(0.5 + 0.5 * fastrand::f64())) => {}
                () = self.offline(&mut orders) => return,
            }
        }
    }

    /// Takes orders while there is no connection; ends when nobody needs the session any more.
    async fn offline(&mut self, orders: &mut mpsc::UnboundedReceiver<Command>) {
        loop {
            match orders.recv().await {
                Some(Command::Leave { .. }) | None => return,
                Some(order) => self.take_offline(order),
            }
        }
    }

    /// A new connection: all that is to be asked at first goes out before the first answer comes, as far anchors are a
    /// long way off. The number of the request to join, if the node serves.
    async fn begin(&mut self, mut link: Link) -> Result<(Link, Option<u32>), Failure> {
        self.heard();
        let joining = self.ask_to_join(&mut link).await?;
        self.resume(&mut link).await?;
        link.greeted(&self.anchor, &self.ground).await?;
        Ok((link, joining))
    }

    /// One connection, from the greeting to the break; `Ok` if nobody needs the session any more.
    async fn converse(
        &mut self,
        mut link: Link,
        joining: Option<u32>,
        orders: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<()> {
        let mut heartbeat = self.enter(&mut link, joining).await?;
        let mut beat = Instant::now() + heartbeat;
        loop {
            let mut joins = false;
            let due = self.acks.due();
            let silent_since = *self.silent_since.borrow();
            let lost = silent_since.map(|since| since + REPLY_DEADLINE);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Command::Leave { done }) => {
                        let left = self.leave(&mut link).await;
                        let _ = done.send(());
                        return left;
                    }
                    None => return self.leave(&mut link).await,
                    Some(order) => self.take(order, &mut link).await?,
                },
                frame = link.receive() => {
                    self.heard();
                    match frame? {
                        Frame::Reply { id, reply } => {
                            // The anchor has given this node up, after a pause perhaps.
                            let is_lost = reply == NOT_JOINED && self.listen.borrow().is_some();
                            joins = is_lost;
                            self.answered(id, reply);
                        }
                        Frame::Push(Push::Reannounce) => joins = true,
                        Frame::Push(push) => self.tell(News::Push(push)),
                    }
                }
                changed = self.listen.changed() => {
                    changed.context("the node is gone")?;
                    joins = true;
                }
                () = sleep_until(beat) => {
                    self.send(&mut link, Request::Heartbeat, Waiting::Nobody).await?;
                    beat = Instant::now() + heartbeat;
                }
                () = async { sleep_until(due.expect("guarded")).await }, if due.is_some() => {
                    self.send_acks(&mut link).await?;
                }
                () = async { sleep_until(lost.expect("guarded")).await }, if lost.is_some() => {
                    bail!("no answer for {} s", REPLY_DEADLINE.as_secs());
                }
            }
            if joins {
                let joining = self.ask_to_join(&mut link).await?;
                heartbeat = self.enter(&mut link, joining).await?;
                beat = Instant::now() + heartbeat;
            }
        }
    }

    /// Asks to be listed, if the node serves.
    async fn ask_to_join(&mut self, link: &mut Link) -> Result<Option<u32>> {
        let Some(Listen { port, advertise }) = *self.listen.borrow_and_update() else {
            return Ok(None);
        };
        let id = self.id();
        link.send(id, Request::Join { port, advertise }).await?;
        Ok(Some(id))
    }

    /// Waits until the node is listed if it has asked for it, announces all that it has then, and says that the session
    /// is up; the time between heartbeats.
    async fn enter(&mut self, link: &mut Link, joining: Option<u32>) -> Result<Duration> {
        let (listed, heartbeat) = match joining {
            Some(id) => {
                let (address, heartbeat) = self.joined(link, id).await?;
                self.announce_all(link).await?;
                (Some(address), heartbeat)
            }
            None => (None, NO_HEARTBEAT),
        };
        let anchor = Source {
            node: link.node,
            address: link.address,
        };
        self.state.send_replace(State::Connected { anchor, listed });
        self.tell(News::Connected {
            anchor: self.anchor.id,
        });
        Ok(heartbeat)
    }

    /// Says good-bye and waits for the answer, lest unread pushes turn the good-bye into a reset.
    async fn leave(&mut self, link: &mut Link) -> Result<()> {
        let id = self.id();
        link.send(id, Request::Leave).await?;
        let answer = async {
            while !matches!(link.receive().await, Ok(Frame::Reply { id: same, .. }) if same == id) {
            }
        };
        drop(timeout(LEAVE_DEADLINE, answer).await);
        Ok(())
    }

    /// Asks again what the last connection left without an answer.
    async fn resume(&mut self, link: &mut Link) -> Result<()> {
        self.requests.retain(|_, waiting| waiting.is_for_caller());
        self.acks.forget_sent();
        for (&id, waiting) in &self.requests {
            if let Waiting::Caller { request, .. } = waiting {
                link.send(id, request.clone()).await?;
            }
        }
        Ok(())
    }

    /// The address under which the anchor lists the node, and the time between heartbeats.
    async fn joined(&mut self, link: &mut Link, id: u32) -> Result<(SocketAddr, Duration)> {
        let deadline = Instant::now() + REPLY_DEADLINE;
        loop {
            let frame = timeout_at(deadline, link.receive())
                .await
                .context("no answer to Join")??;
            match frame {
                Frame::Reply { id: same, reply } if same == id => {
                    let Reply::Joined {
                        address,
                        heartbeat_ms,
                        collect_ms,
                        peers,
                        ..
                    } = reply
                    else {
                        return Err(unexpected(&reply));
                    };
                    self.acks.collect_for(collect_ms);
                    self.tell(News::Joined { peers });
                    return Ok((
                        address,
                        Duration::from_millis(u64::from(heartbeat_ms.max(10))),
                    ));
                }
                Frame::Reply { id, reply } => self.answered(id, reply),
                Frame::Push(push) => self.tell(News::Push(push)),
            }
        }
    }

    async fn announce_all(&mut self, link: &mut Link) -> Result<()> {
        for slot in self.ground.store.slots() {
            if slot.in_doubt() {
                continue;
            }
            for request in announcement(&slot) {
                self.send(link, request, Waiting::Nobody).await?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, order: Command, link: &mut Link) -> Result<()> {
        match order {
            Command::Request { request, reply } => {
                let waiting = Waiting::Caller {
                    request: request.clone(),
                    reply,
                };
                self.send(link, request, waiting).await
            }
            Command::Ack {
                content,
                index,
                from,
            } => {
                self.acks.add(content, from, index);
                Ok(())
            }
            Command::Flush { done } => {
                self.send_acks(link).await?;
                self.acks.when_answered(done);
                Ok(())
            }
            // Taken by the loops that can end.
            Command::Leave { .. } => Ok(()),
        }
    }

    /// An order while there is no connection.
    fn take_offline(&mut self, order: Command) {
        match order {
            Command::Request { request, reply } => {
                let id = self.id();
                self.requests.insert(id, Waiting::Caller { request, reply });
                self.requests.retain(|_, waiting| waiting.is_for_caller());
            }
            // The next connection announces everything; who waits for acks waits no longer.
            Command::Ack { .. } | Command::Flush { .. } | Command::Leave { .. } => {}
        }
    }

    async fn send_acks(&mut self, link: &mut Link) -> Result<()> {
        for request in self.acks.take() {
            self.send(link, request, Waiting::Ack).await?;
        }
        Ok(())
    }

    async fn send(&mut self, link: &mut Link, request: Request, waiting: Waiting) -> Result<()> {
        let id = self.id();
        self.requests.insert(id, waiting);
        self.silent_since
            .send_if_modified(|since| since.replace(since.unwrap_or_else(Instant::now)).is_none());
        link.send(id, request).await
    }

    /// The anchor has said something.
    fn heard(&self) {
        self.silent_since
            .send_if_modified(|since| since.take().is_some());
    }

    fn answered(&mut self, id: u32, reply: Reply) {
        match self.requests.remove(&id) {
            // A caller that gave up waiting has dropped its end.
            Some(Waiting::Caller { reply: caller, .. }) => drop(caller.send(reply)),
            Some(Waiting::Ack) => self.acks.answered(&reply),
            Some(Waiting::Nobody) | None => {}
        }
    }

    fn tell(&self, news: News) {
        // Nobody listening is fine.
        drop(self.ground.news.send(news));
    }

    fn id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        id
    }
}
