//! Who has the content: whom the anchors know, now and from now on, and connections to some of them.
//!
//! It begins before the list of chunks is there: while that is on its way, others are dialled already, whose lines and
//! this node's own are idle.

use super::sources::Sources;
use crate::{
    dial::Ahead, lookup::Giver, node::Node, scheduler::SourceId, session::News, time::Time,
    tls::Stream,
};
use anchorage_manifest::{
    ContentId, Source,
    wire::{Push, Reply, Request},
};
use anyhow::Result;
use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        mpsc::{self, UnboundedReceiver, UnboundedSender},
        oneshot,
    },
    task::JoinSet,
    time::sleep_until,
};

/// Time between two times that the anchors are asked for sources, should a push have been lost.
const WATCH_EVERY: Duration = Duration::from_secs(5);

/// Who has something of one content.
pub(super) struct Gathering {
    node: Arc<Node>,
    content: ContentId,
    epoch: Instant,
    /// Not in place: what a fetch waits with is large as it is.
    pub(super) sources: Box<Sources>,
    news: Receiver<News>,
    found: (UnboundedSender<Vec<Source>>, UnboundedReceiver<Vec<Source>>),
    watch_again: Instant,
    /// Whom nobody has taken yet.
    dialled: Vec<Dialled>,
    /// Questions and dials on their way.
    tasks: JoinSet<()>,
}

/// A source that is being dialled, or was.
pub(super) struct Dialled {
    pub(super) id: SourceId,
    pub(super) source: Source,
    /// Where the connection comes, greeted.
    pub(super) stream: oneshot::Receiver<Result<Stream>>,
    /// What it has been asked.
    pub(super) asked: Ahead,
}

impl Gathering {
    /// Nobody yet, but the anchors are asked.
    pub(super) fn watching(node: &Arc<Node>, content: ContentId) -> Self {
        let mut gathering = Self::begin(node, content);
        gathering.watch(None);
        gathering
    }

    /// Nobody yet; whom the anchors know is to be told by whoever has asked them.
    pub(super) fn begin(node: &Arc<Node>, content: ContentId) -> Self {
        Self {
            node: node.clone(),
            content,
            epoch: Instant::now(),
            sources: Box::new(Sources::new(node.identity.id())),
            news: node.news(),
            found: mpsc::unbounded_channel(),
            watch_again: Instant::now() + WATCH_EVERY,
            dialled: Vec::new(),
            tasks: JoinSet::new(),
        }
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Where others tell whom they have found.
    pub(super) fn found(&self) -> UnboundedSender<Vec<Source>> {
        self.found.0.clone()
    }

    pub(super) fn now(&self) -> Time {
        Time::default() + self.epoch.elapsed()
    }

    pub(super) fn instant(&self, Time(us): Time) -> Instant {
        self.epoch + Duration::from_micros(us)
    }

    /// When there may be somebody to dial, or the anchors are to be asked again: see [`Gathering::dial`].
    pub(super) fn deadline(&self) -> Instant {
        let dial_at = self.sources.deadline().map(|at| self.instant(at));
        dial_at.map_or(self.watch_again, |at| at.min(self.watch_again))
    }

    /// Dials whom it is time to dial: those who were dialled since the last call, and which connections to end for
    /// them.
    pub(super) fn dial(&mut self) -> (Vec<Dialled>, Vec<SourceId>) {
        if Instant::now() >= self.watch_again {
            self.watch(None);
        }
        let now = self.now();
        let (picked, mut ended) = self.sources.pick(now);
        for (id, source) in picked {
            let (give, stream) = oneshot::channel();
            let node = self.node.clone();
            self.tasks.spawn(async move {
                // Nobody may want it any more.
                drop(give.send(node.dial(source).await));
            });
            let asked = Ahead::default();
            self.dialled.push(Dialled {
                id,
                source,
                stream,
                asked,
            });
        }
        while self.tasks.try_join_next().is_some() {}
        let mut dialled = std::mem::take(&mut self.dialled);
        // Whom nobody has taken yet ends here.
        dialled.retain(|Dialled { id, source, .. }| {
            let place = ended.iter().position(|ended| ended == id);
            if let Some(place) = place {
                ended.remove(place);
                self.sources.down(*id, source.node, now);
            }
            place.is_none()
        });
        (dialled, ended)
    }

    /// Dials, as long as nobody takes who was dialled.
    pub(super) async fn run(&mut self) -> Infallible {
        loop {
            // Where nobody has taken any, none is left to be ended elsewhere.
            (self.dialled, _) = self.dial();
            let deadline = self.deadline();
            tokio::select! {
                () = self.hear() => {}
                () = sleep_until(deadline.into()) => {}
            }
        }
    }

    /// Waits for what the anchors tell, and keeps it in mind.
    pub(super) async fn hear(&mut self) {
        let found = tokio::select! {
            told = self.news.recv() => match told {
                Ok(News::Push(Push::Came { content, source })) if content == self.content => {
                    vec![source]
                }
                told => {
                    self.note(&told);
                    Vec::new()
                }
            },
            Some(sources) = self.found.1.recv() => sources,
        };
        found.into_iter().for_each(|source| self.learn(source));
    }

    /// Takes news of other things than who has come.
    fn note(&mut self, told: &Result<News, RecvError>) {
        match told {
            &Ok(News::Push(Push::Gone { content, node })) if content == self.content => {
                self.sources.lose(node);
            }
            &Ok(News::Connected { anchor }) => self.watch(Some(anchor)),
            Ok(News::Push(_) | News::Joined { .. }) => {}
            // Some were missed.
            Err(_) => self.watch(None),
        }
    }

    /// A node is said to have something of it.
    fn learn(&mut self, source: Source) {
        if source.node != self.node.identity.id() {
            let is_anchor = self.node.is_anchor(source.node);
            self.sources.learn(self.node.reachable(source), is_anchor);
        }
    }

    /// There is a connection to a source already.
    pub(super) fn bring(&mut self, giver: Giver) {
        let Giver {
            source,
            stream,
            ahead: asked,
        } = giver;
        self.learn(source);
        let Some(id) = self.sources.link(source.node) else {
            return;
        };
        let (give, taken) = oneshot::channel();
        // Its receiver is here.
        drop(give.send(Ok(stream)));
        self.dialled.push(Dialled {
            id,
            source,
            stream: taken,
            asked,
        });
    }

    /// The draft has become a content.
    pub(super) fn rename(&mut self, content: ContentId) {
        self.content = content;
        self.watch(None);
    }

    /// Asks one anchor, or all, who has something; they tell of changes from then on.
    fn watch(&mut self, anchor: Option<u32>) {
        if anchor.is_none() {
            self.watch_again = Instant::now() + WATCH_EVERY;
        }
        let is_asked = |id: u32| anchor.is_none_or(|anchor| anchor == id);
        let sessions = self.node.sessions.iter();
        for session in sessions.filter(|session| is_asked(session.anchor.id)) {
            if session.connected().is_none() {
                continue;
            }
            let (session, found) = (session.clone(), self.found.0.clone());
            let content = self.content;
            self.tasks.spawn(async move {
                let reply = session.request(Request::Watch { content }).await;
                if let Ok(Reply::Watching { sources }) = reply {
                    drop(found.send(sources));
                }
            });
        }
    }
}
