//! Fetching a draft: along while its publisher hashes it, through the seal, to the end.
//!
//! ```text
//! fetch by the draft's id ───────────────┬───────────────────► whole
//!      the anchors say: sealed ─► list ──┴─► by the content's id
//! ```
//! The chunks are verified by signed entries, and the entries are those of the release that the draft has become.
//! Whichever comes first, the last chunk or the seal, nothing is fetched or read twice.

use super::{Claim, Get, fetch::Fetch, gathering::Gathering, is_same, list, part_of};
use crate::{
    dial::Ahead,
    event::{Events, Share},
    failure::{Exit, Failure},
    lookup,
    node::Node,
    session::{News, Session},
    store::{Place, Slot},
};
use anchorage_manifest::{Content, Draft, SignedRelease, wire::Push};
use anyhow::{Context as _, Result, anyhow};
use std::{
    fs,
    path::Path,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        mpsc, oneshot,
    },
    task::spawn_blocking,
    time::interval,
};

/// Time between two times that the anchors are asked what has become of the draft, should a push have been lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long no anchor may know the draft before its publisher is given up. One that has lost its connection, or whose
/// anchor has lost its memory, is back sooner.
const GONE_AFTER: Duration = Duration::from_secs(4);

/// A draft that is fetched.
pub(super) struct Stream<'a> {
    /// Who fetches.
    pub(super) node: &'a Arc<Node>,
    /// The draft.
    pub(super) draft: &'a Draft,
    /// The version of the release that its name had before; 0 if it had none.
    pub(super) version: u64,
    /// What was asked for.
    pub(super) request: &'a Get,
    /// The file that it will be.
    pub(super) path: &'a Path,
    /// Who is told.
    pub(super) events: &'a Events,
}

/// What a draft has become.
struct Sealed {
    release: SignedRelease,
    /// Whether an anchor says so; else it may be another release of the same name.
    is_certain: bool,
}

impl Stream<'_> {
    /// Fetches it; the release that it has become, its slot, whole and verified, and who sent what.
    pub(super) async fn run(&self) -> Result<(SignedRelease, Arc<Slot>, Vec<Share>), Failure> {
        let _claim = Claim::take(self.node, self.draft.id(), &self.draft.name)?;
        let slot = {
            let (node, draft) = (self.node.clone(), self.draft.clone());
            let (path, force) = (self.path.to_owned(), self.request.force);
            spawn_blocking(move || place(&node, &draft, &path, force))
                .await
                .context("BUG: placing the file panicked")??
        };
        let mut shares = Vec::new();
        let (release, whole) = self.follow(&slot, &mut shares).await?;
        Ok((release, whole, shares))
    }

    /// Fetches until all is there and sealed; the release, and the slot under the content's name.
    async fn follow(
        &self,
        slot: &Arc<Slot>,
        shares: &mut Vec<Share>,
    ) -> Result<(SignedRelease, Arc<Slot>), Failure> {
        let patience = Duration::from_secs(self.request.timeout_s);
        let (name, events) = (&self.request.name, self.events.clone());
        let gathering = Gathering::watching(self.node, slot.id());
        let mut fetch = Fetch::new(gathering, slot.clone(), name, events);
        let (rename, renamed) = oneshot::channel();
        fetch.expect_seal(renamed);
        let mut fetching = pin!(fetch.run(patience, shares));
        let mut sealing = pin!(self.sealed(self.node.news()));
        let mut is_fetched = false;
        let sealed = loop {
            tokio::select! {
                fetched = &mut fetching, if !is_fetched => {
                    fetched?;
                    is_fetched = true;
                }
                sealed = &mut sealing => break sealed,
            }
        };
        let Some(Sealed {
            release: signed,
            is_certain,
        }) = sealed
        else {
            return Err(self.gone(slot));
        };
        let release = signed.unverified();
        let _claim = Claim::take(self.node, release.content, &release.name)?;
        let anchors = self.anchors();
        // The fetch knows whom to ask.
        let (found, _) = mpsc::unbounded_channel();
        let timeout_s = self.request.timeout_s;
        let ahead = Ahead::default();
        let mut listing = pin!(list(self.node, &anchors, release, timeout_s, found, &ahead));
        let content = loop {
            // With all of its entries there, the list need not come from anybody.
            if let Some(content) = slot
                .sealed()
                .filter(|content| content.id() == release.content)
            {
                break Arc::new(content);
            }
            tokio::select! {
                fetched = &mut fetching, if !is_fetched => {
                    fetched?;
                    is_fetched = true;
                }
                listed = &mut listing => break listed?.content,
            }
        };
        let Some(whole) = self.seal(slot, content).await? else {
            return Err(if is_certain {
                self.contradiction(slot)
            } else {
                self.gone(slot)
            });
        };
        // A fetch that is over need not know.
        drop(rename.send(whole.clone()));
        let announcing = self.node.announce(&whole);
        if is_fetched {
            announcing.await;
        } else {
            tokio::join!(fetching, announcing).0?;
        }
        Ok((signed.clone(), whole))
    }

    async fn seal(&self, slot: &Arc<Slot>, content: Arc<Content>) -> Result<Option<Arc<Slot>>> {
        let (node, slot) = (self.node.clone(), slot.clone());
        spawn_blocking(move || node.store.seal(&slot, &content))
            .await
            .context("BUG: sealing panicked")?
    }

    /// Waits until the draft is sealed; none if its publisher is gone.
    async fn sealed(&self, mut news: Receiver<News>) -> Option<Sealed> {
        let id = self.draft.id();
        let mut known_at = Instant::now();
        let mut ticks = interval(LOOK_EVERY);
        loop {
            tokio::select! {
                told = news.recv() => match told {
                    Ok(News::Push(Push::Sealed { draft, release }))
                        if draft == id && self.may_be(&release) =>
                    {
                        return Some(Sealed { release, is_certain: true });
                    }
                    Ok(_) | Err(RecvError::Closed) => continue,
                    Err(RecvError::Lagged(_)) => {}
                },
                _ = ticks.tick() => {}
            }
            let anchors = self.anchors();
            match lookup::drafts(&anchors, &self.draft.name).await {
                Some(drafts) if !drafts.contains(self.draft) => {}
                // Known, or nobody can be asked.
                _ => known_at = Instant::now(),
            }
            let is_lost = known_at.elapsed() >= GONE_AFTER;
            let newest = lookup::find(&anchors, &self.draft.name, self.events).await;
            let newest = newest.ok().flatten().filter(|signed| self.may_be(signed));
            if let Some(release) = newest
                && (is_lost || release.unverified().version > self.version)
            {
                return Some(Sealed {
                    release,
                    is_certain: false,
                });
            }
            if is_lost {
                return None;
            }
        }
    }

    fn may_be(&self, signed: &SignedRelease) -> bool {
        signed.verify().is_ok_and(|release| {
            release.name == self.draft.name
                && release.publisher == self.draft.publisher
                && release.geometry == self.draft.geometry
        })
    }

    fn anchors(&self) -> Vec<&Session> {
        let sessions = self.node.sessions.iter();
        sessions
            .filter(|session| session.connected().is_some())
            .collect()
    }

    fn gone(&self, slot: &Slot) -> Failure {
        let error = anyhow!(
            "the publisher of {} is gone, and has not released it: {} of {} chunks are here",
            self.draft.name,
            slot.have().count(),
            slot.geometry().chunks()
        );
        Failure::new(Exit::Incomplete, error).hint(format!(
            "what is there stays in {}: run the same command again when it is published again",
            slot.path().display()
        ))
    }

    /// What was signed chunk by chunk is not what was released: nothing of it is worth keeping.
    fn contradiction(&self, slot: &Slot) -> Failure {
        let part = slot.path();
        // What cannot be removed is found not to match by whoever comes next.
        drop(self.node.store.remove(slot.id()));
        drop(fs::remove_file(part));
        let error = anyhow!(
            "{} was released as something else than what was offered while it was hashed",
            self.draft.name
        );
        Failure::new(Exit::Mismatch, error).hint(lookup::SELF_CONTRADICTION)
    }
}

/// The slot of a draft whose file will become `path`. Blocks.
fn place(node: &Node, draft: &Draft, path: &Path, force: bool) -> Result<Arc<Slot>, Failure> {
    let part = part_of(path)?;
    if path.exists() && !force {
        let error = anyhow!(
            "{} exists, and cannot be compared with what is still being published",
            path.display()
        );
        return Err(Failure::new(Exit::Failed, error).hint(
            "run the same command again when it is published; --force replaces it, -o PATH writes elsewhere",
        ));
    }
    node.store.refresh(draft.id());
    if let Some(slot) = node.store.slot(draft.id()) {
        if slot.in_doubt() {
            slot.recheck()?;
        }
        if !is_same(&slot.path(), &part) {
            slot.move_part(&part)?;
        }
        return Ok(slot);
    }
    let is_ours = drop_drafts(node, &part);
    if part.exists() {
        if !force && !is_ours {
            return Err(super::foreign(&part));
        }
        fs::remove_file(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    let place = Place::of_part(&part, draft.name.clone());
    Ok(node.store.draft(draft, &place)?)
}

/// Forgets drafts that were being fetched to `part`; whether there were any. Blocks.
pub(super) fn drop_drafts(node: &Node, part: &Path) -> bool {
    let mut any = false;
    for slot in node.store.draft_slots() {
        if slot.draft().is_some() && is_same(&slot.path(), part) {
            any |= node.store.remove(slot.id()).is_ok();
        }
    }
    any
}
