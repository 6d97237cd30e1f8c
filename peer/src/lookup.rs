//! Looking things up: the release of a name, who has its content, and the list of its chunks.

use crate::{
    dial::{self, Ahead},
    event::Events,
    failure::{Exit, Failure},
    node::Node,
    session::{Session, unexpected},
    stragglers::{STRAGGLERS, gather},
    tls::Stream,
};
use anchorage_manifest::{
    Content, ContentId, Draft, Hash, Have, Holder, Name, Release, SignedRelease, Source,
    content::ContentError,
    wire::{Refusal, Reply, Request},
};
use anyhow::{Context as _, Result, anyhow};
use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet, spawn_blocking},
    time::{Instant, timeout, timeout_at},
};

/// How long the other anchors are waited for once one has said that it does not know.
const OTHERS: Duration = Duration::from_secs(2);

/// How long one source may take to say a word before the next is asked for the list as well.
const IMPATIENCE: Duration = Duration::from_millis(500);

/// How long one that has said a word may take for a list.
const LIST_IMPATIENCE: Duration = Duration::from_secs(2);

/// Sources that are asked for the hashes of chunks, at most: what none of these knows is left out.
const HASHES_SOURCES_MAX: usize = 8;

/// How long all of them together may take.
const HASHES_DEADLINE: Duration = Duration::from_secs(60);

/// How long one of them may take to be there: some that are listed may be gone.
const HASHES_DIAL_DEADLINE: Duration = Duration::from_secs(2);

/// What there is to say of a publisher whose release does not hold together.
pub const SELF_CONTRADICTION: &str = "the publisher has made a release that contradicts itself";

/// Asks several anchors the same; what each answered, in the order of the answers.
pub async fn ask(anchors: &[&Session], request: &Request) -> Vec<(Session, Result<Reply>)> {
    let mut asking = JoinSet::new();
    for &session in anchors {
        ask_one(&mut asking, session, request);
    }
    asking.join_all().await
}

fn ask_one(
    asking: &mut JoinSet<(Session, Result<Reply>)>,
    session: &Session,
    request: &Request,
) -> AbortHandle {
    let (session, request) = (session.clone(), request.clone());
    asking.spawn(async move {
        let reply = session.request(request).await;
        (session, reply)
    })
}

/// A question that anchors are being asked.
struct Asking {
    replies: JoinSet<(Session, Result<Reply>)>,
    tasks: Vec<(u32, AbortHandle)>,
}

impl Asking {
    /// Asks; of sessions that are not up yet, as soon as they are. One that is silent anyway is asked if there is no other.
    fn begin(sessions: &[&Session], request: &Request) -> Self {
        let mut replies = JoinSet::new();
        let is_live = |session: &&Session| session.connected().is_some() && !session.is_silent();
        let is_any_live = sessions.iter().any(is_live);
        let asked = sessions
            .iter()
            .filter(|session| !is_any_live || !session.is_silent());
        let tasks = asked
            .map(|session| (session.anchor.id, ask_one(&mut replies, session, request)))
            .collect();
        Self { replies, tasks }
    }

    /// What each of `anchors` answered who did so soon enough. An anchor that knows an answer lets the others be waited
    /// for a little; one that does not, a little more.
    async fn answers(
        self,
        anchors: &[&Session],
        is_answer: impl Fn(&Reply) -> bool,
    ) -> Vec<(Session, Result<Reply>)> {
        for (id, task) in self.tasks {
            if anchors.iter().all(|session| session.anchor.id != id) {
                task.abort();
            }
        }
        let mut replies = gather(self.replies, |(_, reply)| match reply {
            Ok(reply) if is_answer(reply) => Some(STRAGGLERS),
            Ok(_) => Some(OTHERS),
            Err(_) => None,
        })
        .await;
        for &session in anchors {
            let id = session.anchor.id;
            if replies.iter().all(|(other, _)| other.anchor.id != id) {
                let address = &session.anchor.address;
                let silent = anyhow!("anchor {id} at {address} does not answer");
                replies.push((session.clone(), Err(silent)));
            }
        }
        replies
    }
}

/// A name that is looked up at all anchors, before it is known which of them are there: a far one is asked together with
/// the first word.
pub struct Search {
    name: Name,
    release: Asking,
    draft: Asking,
}

impl Search {
    /// Begins to look for the release of a name, and for one in the making.
    pub fn begin(sessions: &[Session], name: &Name) -> Self {
        let sessions: Vec<&Session> = sessions.iter().collect();
        let (release, draft) = (resolve_of(name), draft_of(name));
        Self {
            name: name.clone(),
            release: Asking::begin(&sessions, &release),
            draft: Asking::begin(&sessions, &draft),
        }
    }

    /// What those anchors that are there say: see [`find`] and [`drafts`].
    pub async fn end(
        self,
        anchors: &[&Session],
        events: &Events,
    ) -> Result<(Option<SignedRelease>, Option<Vec<Draft>>), Failure> {
        let (released, drafts) = tokio::join!(
            self.release.answers(anchors, is_resolved),
            self.draft.answers(anchors, |_| true)
        );
        Ok((
            newest(released, &self.name, events)?,
            drafts_of(drafts, &self.name),
        ))
    }
}

fn resolve_of(name: &Name) -> Request {
    Request::Resolve { name: name.clone() }
}

fn is_resolved(reply: &Reply) -> bool {
    matches!(reply, Reply::Resolved { .. })
}

fn draft_of(name: &Name) -> Request {
    Request::FindDraft { name: name.clone() }
}

/// The newest release of a name, its signature verified; none if no anchor knows the name. An anchor that is much
/// slower than the others is not waited for.
pub async fn find(
    anchors: &[&Session],
    name: &Name,
    events: &Events,
) -> Result<Option<SignedRelease>, Failure> {
    let asking = Asking::begin(anchors, &resolve_of(name));
    newest(asking.answers(anchors, is_resolved).await, name, events)
}

/// The same, whoever of the anchors knows it: for the publisher, whose next release is to be newer.
pub async fn find_anywhere(
    anchors: &[&Session],
    name: &Name,
    events: &Events,
) -> Result<Option<SignedRelease>, Failure> {
    newest(ask(anchors, &resolve_of(name)).await, name, events)
}

fn newest(
    replies: Vec<(Session, Result<Reply>)>,
    name: &Name,
    events: &Events,
) -> Result<Option<SignedRelease>, Failure> {
    let mut newest: Option<SignedRelease> = None;
    let mut forged = None;
    let mut silent = None;
    for (session, reply) in replies {
        let at = |error: anyhow::Error| {
            error.context(format!(
                "anchor {} at {}",
                session.anchor.id, session.anchor.address
            ))
        };
        match reply {
            Ok(Reply::Resolved { release }) => match release.verify() {
                Ok(verified) if verified.name == *name => {
                    if newest
                        .as_ref()
                        .is_none_or(|old| old.unverified().version < verified.version)
                    {
                        newest = Some(release);
                    }
                }
                Ok(verified) => {
                    forged = Some(at(anyhow!("it answers with the release {}", verified.name)));
                }
                Err(error) => forged = Some(at(error.into())),
            },
            Ok(Reply::Refused {
                refusal: Refusal::UnknownName,
            }) => {}
            Ok(other) => silent = Some(at(unexpected(&other))),
            Err(error) => silent = Some(error),
        }
    }
    match (newest, forged, silent) {
        (Some(release), forged, _) => {
            if let Some(error) = forged {
                events.warn(format!("{error:#}"));
            }
            Ok(Some(release))
        }
        (None, Some(forged), _) => Err(Failure::new(Exit::Mismatch, forged)
            .hint("the anchor is broken or hostile; nothing was fetched")),
        (None, None, Some(silent)) => Err(Failure::new(Exit::Incomplete, silent)),
        (None, None, None) => Ok(None),
    }
}

/// The newest release of a name that must be known.
pub async fn resolve(
    anchors: &[&Session],
    name: &Name,
    events: &Events,
) -> Result<SignedRelease, Failure> {
    let found = find(anchors, name, events).await?;
    found.ok_or_else(|| unknown(name))
}

/// No anchor has a release of that name.
pub fn unknown(name: &Name) -> Failure {
    Failure::new(Exit::Failed, anyhow!("no anchor knows {name}"))
        .hint("`peer list` shows the names that they know")
}

/// The drafts of a name that anchors know; none at all if no anchor answers.
pub async fn drafts(anchors: &[&Session], name: &Name) -> Option<Vec<Draft>> {
    let asking = Asking::begin(anchors, &draft_of(name));
    drafts_of(asking.answers(anchors, |_| true).await, name)
}

fn drafts_of(replies: Vec<(Session, Result<Reply>)>, name: &Name) -> Option<Vec<Draft>> {
    let mut drafts = None;
    for (_, reply) in replies {
        match reply {
            Ok(Reply::Drafted { draft }) if draft.name == *name => {
                drafts.get_or_insert_with(Vec::new).push(draft);
            }
            Ok(Reply::Refused {
                refusal: Refusal::UnknownName,
            }) => {
                drafts.get_or_insert_default();
            }
            Ok(_) | Err(_) => {}
        }
    }
    drafts
}

/// Who has what of a content, in the order of the node ids.
pub async fn holders(anchors: &[&Session], content: ContentId) -> Vec<Holder> {
    let mut all: BTreeMap<_, Holder> = BTreeMap::new();
    for session in anchors {
        let mut after = None;
        loop {
            let request = Request::Holders { content, after };
            let Ok(Reply::Holding { holders, more }) = session.request(request).await else {
                break;
            };
            after = holders.last().map(|holder| holder.source.node);
            for holder in holders {
                let old = all
                    .entry(holder.source.node)
                    .or_insert_with(|| holder.clone());
                let rank = |one: &Holder| (one.have.count(), matches!(one.have, Have::Chunks(_)));
                if rank(old) < rank(&holder) {
                    *old = holder;
                }
            }
            if !more || after.is_none() {
                break;
            }
        }
    }
    all.into_values().collect()
}

/// Other nodes that are said to hold something of a content, now; the anchors tell of changes from then on.
pub async fn sources(node: &Node, anchors: &[&Session], content: ContentId) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    let asking = Asking::begin(anchors, &Request::Watch { content });
    for (_, reply) in asking.answers(anchors, |_| true).await {
        if let Ok(Reply::Watching { sources: more }) = reply {
            for source in more.into_iter().map(|source| node.reachable(source)) {
                if source.node != node.identity.id() && !sources.contains(&source) {
                    sources.push(source);
                }
            }
        }
    }
    sources
}

/// [`sources`], while a connection to one of the anchors comes up: they are likely to be asked for something.
pub async fn sources_and_connection(
    node: &Arc<Node>,
    anchors: &[&Session],
    content: ContentId,
) -> Vec<Source> {
    let addresses = anchors.iter().filter_map(|session| session.connected());
    let connecting = node.connect_to_any(addresses.collect());
    tokio::join!(sources(node, anchors, content), connecting).0
}

/// A list, and who gave it, unless it was there already.
pub struct FoundList {
    /// The list.
    pub content: Arc<Content>,
    /// Who gave it.
    pub giver: Option<Giver>,
}

/// A source that has given a list, and the connection over which it came.
pub struct Giver {
    /// Which source.
    pub source: Source,
    /// The connection.
    pub stream: Stream,
    /// What was asked with the list, and is not answered yet.
    pub ahead: Ahead,
}

/// The list of a release's content: from the store, or from the first of `sources` that has it. What is asked `ahead` is
/// asked of the first of all, together with the list: the others may have been dialled for chunks by then, and a second
/// connection to one of them is not needed.
pub async fn list(
    node: &Arc<Node>,
    release: &Release,
    sources: Vec<Source>,
    ahead: Ahead,
) -> Result<FoundList, Failure> {
    let slot = node.store.slot(release.content);
    if let Some(content) = slot.and_then(|slot| slot.content()) {
        let giver = None;
        return Ok(FoundList { content, giver });
    }
    let (content, giver) = fetch_list(node, release.content, sources, ahead)
        .await
        .map_err(|error| {
            // The right bytes, and no list: nobody can have a better one.
            if matches!(error.downcast_ref(), Some(lie) if !matches!(lie, ContentError::Id { .. }))
            {
                let error =
                    error.context(format!("the list of chunks of {} is no list", release.name));
                return Failure::new(Exit::Mismatch, error).hint(SELF_CONTRADICTION);
            }
            Failure::new(
                Exit::Incomplete,
                error.context(format!(
                    "nobody who can be reached has the list of chunks of {}",
                    release.name
                )),
            )
        })?;
    if content.geometry() == release.geometry {
        return Ok(FoundList {
            content: Arc::new(content),
            giver: Some(giver),
        });
    }
    let (listed, signed) = (content.geometry(), release.geometry);
    let error = anyhow!(
        "the list of {} is of {} bytes in chunks of {}, its release says {} in chunks of {}",
        release.name,
        listed.size(),
        listed.chunk_size(),
        signed.size(),
        signed.chunk_size()
    );
    Err(Failure::new(Exit::Mismatch, error).hint(SELF_CONTRADICTION))
}

/// The SHA-256 of every chunk of a content alone: what this node has made of them, what those say who have it, the first of
/// `sources` in turn, and what this node can make, until all are known.
pub async fn hashes(node: &Arc<Node>, content: &Content, sources: &[Source]) -> Vec<Option<Hash>> {
    let (id, chunks) = (content.id(), content.geometry().chunks());
    let mut hashes = vec![None; chunks as usize];
    let mut add = |told: &[u8]| {
        let (told, _) = told.as_chunks::<32>();
        for (hash, told) in hashes.iter_mut().zip(told) {
            *hash = hash.or((*told != [0; 32]).then_some(Hash(*told)));
        }
        hashes.iter().all(Option::is_some)
    };
    let deadline = Instant::now() + HASHES_DEADLINE;
    let others = sources
        .iter()
        .filter(|source| source.node != node.identity.id());
    let own = node.store.slot(id);
    if let Some(slot) = own.clone()
        && let Ok(made) = spawn_blocking(move || slot.hashes_made()).await
        && add(&made)
    {
        return hashes;
    }
    for &source in others.take(HASHES_SOURCES_MAX) {
        let asking = async {
            let mut stream = timeout(HASHES_DIAL_DEADLINE, node.dial(source)).await??;
            dial::get_hashes(&mut stream, id, chunks).await
        };
        // Who cannot say is not the only one.
        let told = timeout_at(deadline, asking).await;
        if told.is_ok_and(|told| told.is_ok_and(|told| add(&told))) {
            return hashes;
        }
    }
    // To make them it reads its file.
    if let Some(slot) = own
        && let Ok(Ok(own)) = spawn_blocking(move || slot.hashes()).await
    {
        add(&own);
    }
    hashes
}

/// Asks one source after the other, the next whenever the last is slow or fails.
async fn fetch_list(
    node: &Arc<Node>,
    content: ContentId,
    sources: Vec<Source>,
    mut ahead: Ahead,
) -> Result<(Content, Giver)> {
    let mut sources = sources
        .into_iter()
        .filter(|source| source.node != node.identity.id())
        .map(|source| node.reachable(source));
    let mut asking = JoinSet::new();
    let (spoke, mut spoken) = mpsc::unbounded_channel();
    let mut last = anyhow!("no node is known to have it");
    loop {
        let next = sources.next();
        let is_last = next.is_none();
        if let Some(source) = next {
            let (node, spoke) = (node.clone(), spoke.clone());
            let ahead = mem::take(&mut ahead);
            asking.spawn(async move {
                let mut stream = node.dial(source).await?;
                // Whoever has the list already listens no more.
                let _ = spoke.send(());
                let list = dial::get_list(&mut stream, content, &ahead).await;
                let list = list.with_context(|| source.address.to_string())?;
                let giver = Giver {
                    source,
                    stream,
                    ahead,
                };
                anyhow::Ok((list, giver))
            });
        }
        let mut patience = if is_last {
            Duration::from_secs(3600)
        } else {
            IMPATIENCE
        };
        loop {
            let deadline = Instant::now() + patience;
            tokio::select! {
                joined = timeout_at(deadline, asking.join_next()) => match joined {
                    Ok(Some(Ok(Ok(found)))) => return Ok(found),
                    Ok(Some(Ok(Err(error)))) => last = error,
                    Ok(Some(Err(error))) => last = error.into(),
                    Ok(None) if is_last => return Err(last),
                    Ok(None) | Err(_) => {}
                },
                Some(()) = spoken.recv() => {
                    patience = patience.max(LIST_IMPATIENCE);
                    continue;
                }
            }
            break;
        }
    }
}
