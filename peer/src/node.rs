//! A node: who it is, what it has, whom it talks to. Commands are run on one.

use crate::{
    config::Config,
    dial,
    event::{AnchorStatus, Event, Events, FileStatus, Status},
    failure::{Exit, Failure},
    file_path::FilePath,
    home::Home,
    identity::Identity,
    idle::Idle,
    known_anchors::KnownAnchors,
    serve::{INCOMING_SIZE_MAX, Server, Share, Traffic},
    session::{Ground, Listen, News, Session, State},
    store::{Slot, Store},
    stragglers::{STRAGGLERS, gather},
    tls,
};
use anchorage_manifest::{ContentId, NodeId, Source, wire::ALPN_CHUNKS, wire::Push, wire::Request};
use anyhow::{Context as _, Result, anyhow};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OnceCell, Semaphore, broadcast, mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// How long a dialler may take for its handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Connections that a peer serves at the same time.
const CONNECTIONS_MAX: usize = 1_024;

/// How long a second attempt to reach an anchor may be away.
const SECOND_ATTEMPT: Duration = Duration::from_millis(250);

/// News that may wait for a reader; one that lags asks the anchors again.
const NEWS_MAX: usize = 1_024;

/// A draft to which nothing was added for so long is not worth its place any more.
const DRAFT_IDLE: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A node.
pub struct Node {
    /// Its key.
    pub identity: Arc<Identity>,
    /// What it has.
    pub store: Arc<Store>,
    /// Its sessions with the anchors of the config.
    pub sessions: Vec<Session>,
    /// Bounds what is on its way from the network to the disk.
    pub incoming: Arc<Semaphore>,
    /// Bytes that it fetched.
    pub fetched: Traffic,
    /// Connections to sources that are not in use.
    pub(crate) idle: Arc<Idle>,
    server: Arc<Server>,
    listen: SocketAddr,
    advertise: Option<SocketAddr>,
    listening: OnceCell<SocketAddr>,
    told_listen: watch::Sender<Option<Listen>>,
    news: broadcast::Sender<News>,
    known: Mutex<BTreeMap<NodeId, SocketAddr>>,
}

impl Node {
    /// A node that lives in `home` and talks to the anchors of `config`; it will listen on `listen`.
    pub fn start(
        home: &Home,
        config: &Config,
        listen: SocketAddr,
        advertise: Option<SocketAddr>,
    ) -> Result<Arc<Self>> {
        let identity = Arc::new(Identity::load_or_create(&home.key())?);
        let store = Store::open(&home.store())?;
        let (told_listen, listen_told) = watch::channel(None);
        let (news, _) = broadcast::channel(NEWS_MAX);
        let ground = Arc::new(Ground {
            identity: identity.clone(),
            store: store.clone(),
            known_anchors: KnownAnchors::new(home.known_anchors()),
            listen: listen_told,
            news: news.clone(),
        });
        let sessions = config
            .anchors
            .iter()
            .map(|anchor| Session::start(anchor.clone(), ground.clone()));
        let node = Arc::new(Self {
            identity,
            sessions: sessions.collect(),
            incoming: Arc::new(Semaphore::new(INCOMING_SIZE_MAX)),
            fetched: Traffic::default(),
            idle: Arc::default(),
            server: Server::new(store.clone(), None, Share::whole()),
            store,
            listen,
            advertise,
            listening: OnceCell::new(),
            told_listen,
            news,
            known: Mutex::default(),
        });
        tokio::spawn(remember(Arc::downgrade(&node), node.news()));
        Ok(node)
    }

    /// What the anchors tell from now on.
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Starts to serve and joins the anchors; where it listens. Only the first call does something.
    pub async fn join(self: &Arc<Self>) -> Result<SocketAddr> {
        let listen = async {
            let operand = || format!("cannot listen on {}", self.listen);
            let listener = TcpListener::bind(self.listen).await.with_context(operand)?;
            let address = listener.local_addr().with_context(operand)?;
            let config = tls::server_config(&self.identity, &[ALPN_CHUNKS])?;
            tokio::spawn(accept(
                listener,
                TlsAcceptor::from(config),
                self.server.clone(),
            ));
            self.told_listen.send_replace(Some(Listen {
                port: address.port(),
                advertise: self.advertise,
            }));
            anyhow::Ok(address)
        };
        self.listening.get_or_try_init(|| listen).await.copied()
    }

    /// The sessions that are up, once the first is and the others had their chance; one warning for each that
    /// is not. Fails if none is.
    pub async fn anchors(&self, events: &Events) -> Result<Vec<&Session>, Failure> {
        if !self.settle().await {
            // An anchor whose process was being replaced is there at the second attempt.
            for mut session in self.sessions.clone() {
                drop(timeout(SECOND_ATTEMPT, session.changed()).await);
            }
            if !self.settle().await {
                return Err(self.no_anchor());
            }
        }
        for session in &self.sessions {
            match session.state() {
                State::Failed(failure) => {
                    let hint = failure.hint.as_ref().map(|hint| format!(" ({hint})"));
                    events.warn(format!("{:#}{}", failure.error, hint.unwrap_or_default()));
                }
                State::Connecting => events.warn(format!(
                    "anchor {} at {} has not answered yet; going on without it",
                    session.anchor.id, session.anchor.address
                )),
                State::Connected { .. } => {}
            }
        }
        Ok(self
            .sessions
            .iter()
            .filter(|session| session.connected().is_some())
            .collect())
    }

    /// Waits for the first session that is up, and a little for the others; false if none is.
    async fn settle(&self) -> bool {
        let mut settling = JoinSet::new();
        for session in self.sessions.clone() {
            settling.spawn(async move { session.settled().await });
        }
        let is_up = |state: &State| matches!(state, State::Connected { .. });
        let settled = gather(settling, |state| is_up(state).then_some(STRAGGLERS)).await;
        settled.iter().any(is_up)
    }

    /// Where others reach this node: as an anchor lists it, else as it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        let listening = *self.listening.get()?;
        let listed = self
            .sessions
            .iter()
            .find_map(|session| match session.state() {
                State::Connected { listed, .. } => listed,
                State::Connecting | State::Failed(_) => None,
            });
        listed.or(self.advertise).or(Some(listening))
    }

    /// A source at the address where this node reaches it: an anchor is where its session goes, whatever it
    /// thinks its own address is.
    pub fn reachable(&self, source: Source) -> Source {
        let mut anchors = self.sessions.iter().filter_map(Session::connected);
        anchors
            .find(|anchor| anchor.node == source.node)
            .unwrap_or(source)
    }

    /// A connection to a source: one that was used a moment ago, or a new one.
    pub(crate) async fn dial(&self, source: Source) -> Result<tls::Stream> {
        match self.idle.take(source).await {
            Some(stream) => Ok(stream),
            None => dial::dial(&self.identity, source).await,
        }
    }

    /// Sees to it that there is a connection to one of several sources at least, for what is asked next; gives up soon.
    pub(crate) async fn connect_to_any(self: &Arc<Self>, sources: Vec<Source>) {
        if sources.iter().any(|&source| self.idle.has(source)) {
            return;
        }
        let (connected, mut any) = mpsc::unbounded_channel();
        for source in sources {
            let (node, connected) = (self.clone(), connected.clone());
            // The others come up while the first is used.
            tokio::spawn(async move {
                if let Ok(stream) = dial::dial(&node.identity, source).await {
                    node.idle.give(source, stream);
                    // Who was quicker is enough.
                    let _ = connected.send(());
                }
            });
        }
        drop(connected);
        drop(timeout(STRAGGLERS, any.recv()).await);
    }

    /// Whether a node is one of the anchors that this one talks to.
    pub fn is_anchor(&self, node: NodeId) -> bool {
        self.sessions
            .iter()
            .filter_map(Session::connected)
            .any(|anchor| anchor.node == node)
    }

    /// Tells the anchors all that the node has of a content. One that is down now, or stopped, is told when it is
    /// back.
    pub async fn announce(&self, slot: &Arc<Slot>) {
        self.tell(|session| {
            let slot = slot.clone();
            async move { session.announce(&slot).await.is_ok() }
        })
        .await;
    }

    /// Tells the anchors that the node has nothing of a content. One that is down now never hears that it had.
    pub async fn withdraw(&self, content: ContentId) {
        self.tell(|session| async move {
            let told = session.request(Request::Withdraw { content }).await;
            told.is_ok()
        })
        .await;
    }

    /// Tells the anchors all that the node has of a content that is whole now, and waits until the acks of it are
    /// answered.
    pub(crate) async fn tell_whole(&self, slot: &Arc<Slot>) {
        self.tell(|session| {
            let slot = slot.clone();
            // The announcement does not wait for the acks to be answered.
            async move {
                let ((), told) = tokio::join!(session.flush(), session.announce(&slot));
                told.is_ok()
            }
        })
        .await;
    }

    /// Says good-bye to every anchor, once the last acks are answered.
    pub async fn leave(&self) {
        self.tell(|session| async move {
            drop(timeout(Duration::from_secs(2), session.flush()).await);
            session.leave().await;
            true
        })
        .await;
    }

    /// Tells something to all anchors whose sessions are up, and waits until they have heard it: one of them, and those
    /// that take little longer. One that is silent anyway is waited for if there is no other.
    async fn tell<T>(&self, tell: impl Fn(Session) -> T)
    where
        T: Future<Output = bool> + Send + 'static,
    {
        let sessions = self.sessions.iter();
        let up = sessions.filter(|session| session.connected().is_some());
        let (silent, mut awaited): (Vec<Session>, Vec<Session>) =
            up.cloned().partition(Session::is_silent);
        if awaited.is_empty() {
            awaited = silent;
        } else {
            for session in silent {
                tokio::spawn(tell(session));
            }
        }
        let mut telling = JoinSet::new();
        for session in awaited {
            telling.spawn(tell(session));
        }
        gather(telling, |has_heard| has_heard.then_some(STRAGGLERS)).await;
    }

    /// Removes drafts that nobody will seal: those of this node's own, which a process left that is gone, and
    /// those to which nothing was added for long.
    pub fn sweep(&self) {
        let own = |slot: &Arc<Slot>| {
            slot.draft()
                .is_some_and(|draft| draft.publisher == self.identity.id())
        };
        for slot in self.store.draft_slots().into_iter().filter(own) {
            // What cannot be removed now is the next time.
            drop(self.store.remove(slot.id()));
        }
        self.store.sweep(DRAFT_IDLE);
    }

    /// What the node says of itself.
    pub fn status(&self) -> Status {
        let anchors = self.sessions.iter().map(|session| AnchorStatus {
            id: session.anchor.id,
            address: session.anchor.address.clone(),
            connected: session.connected().is_some(),
            error: match session.state() {
                State::Failed(failure) => Some(format!("{:#}", failure.error)),
                State::Connecting | State::Connected { .. } => None,
            },
        });
        let files = self.store.slots().into_iter().map(|slot| FileStatus {
            name: slot.place().name.map(String::from),
            path: FilePath(slot.path()),
            size: slot.geometry().size(),
            complete: slot.have().is_full() && slot.draft().is_none(),
        });
        let (served_in, bytes_out) = self.server.traffic();
        Status {
            id: self.identity.id(),
            address: self.address(),
            anchors: anchors.collect(),
            peers_known: self
                .known
                .lock()
                .expect("no holder of this lock panics")
                .len(),
            files: files.collect(),
            bytes_in: served_in + self.fetched.read().0,
            bytes_out,
            serving: self.listening.initialized(),
        }
    }

    /// The event that says that the node serves.
    pub fn serving(&self) -> Result<Event> {
        let address = self.address().context("BUG: serving without listening")?;
        Ok(Event::Serving {
            id: self.identity.id(),
            address,
            files: self.store.slots().len(),
        })
    }

    fn no_anchor(&self) -> Failure {
        let failures: Vec<Arc<Failure>> = self
            .sessions
            .iter()
            .filter_map(|session| match session.state() {
                State::Failed(failure) => Some(failure),
                State::Connecting | State::Connected { .. } => None,
            })
            .collect();
        let reasons: Vec<String> = failures
            .iter()
            .map(|failure| format!("{:#}", failure.error))
            .collect();
        let error = anyhow!("no anchor can be reached\n  {}", reasons.join("\n  "));
        match failures.iter().find_map(|failure| failure.hint.clone()) {
            Some(hint) => Failure::new(Exit::Failed, error).hint(hint),
            None => Failure::new(Exit::Incomplete, error)
                .hint("start one with `anchor serve 1`, or name others with --config FILE"),
        }
    }

    fn learn(&self, sources: &[Source]) {
        let mut known = self.known.lock().expect("no holder of this lock panics");
        for source in sources
            .iter()
            .filter(|source| source.node != self.identity.id())
        {
            known.insert(source.node, source.address);
        }
    }
}

/// Keeps in mind which other nodes there are.
async fn remember(node: std::sync::Weak<Node>, mut news: broadcast::Receiver<News>) {
    loop {
        let told = match news.recv().await {
            Ok(told) => told,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(node) = node.upgrade() else { return };
        match told {
            News::Joined { peers } => node.learn(&peers),
            News::Push(Push::Came { source, .. }) => node.learn(&[source]),
            News::Push(_) | News::Connected { .. } => {}
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, server: Arc<Server>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    admit(stream, &acceptor, server).await;
                    drop(place);
                });
            }
            // Out of descriptors, most likely: those who are served will give some back.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Whoever makes no handshake, or one that fails, has said nothing worth an answer.
async fn admit(stream: TcpStream, acceptor: &TlsAcceptor, server: Arc<Server>) {
    if let Ok(Ok(stream)) = timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        server.serve(stream).await;
    }
}
