//! `publish`: a file becomes a release.
//!
//! hash (one pass) → sign → register with every anchor that can be reached → upload,
//! so that the publisher may leave; or not, and serve the file in place. Where hashing takes long, a draft is
//! registered meanwhile, by which others get what is hashed.

mod draft;
mod hash;
mod stream;
mod upload;

use crate::{
    event::{Event, Events, Phase, Progress, PublishOutcome, Published},
    failure::{Exit, Failure},
    file_path::FilePath,
    lookup,
    node::Node,
    session::{Session, unexpected},
    store::{Place, Slot, Stamp},
};
use anchorage_manifest::{
    Content, Geometry, Name, Release, SignedRelease,
    wire::{Outcome, Refusal, Reply, Request},
};
use anyhow::{Context as _, Result, anyhow};
use draft::Drafting;
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

/// Smaller files are hashed sooner than a draft is registered.
const DRAFT_SIZE_MIN: u64 = 16 << 20;

/// What is hashed within this time is published at once, without a draft.
const DRAFT_AFTER: Duration = Duration::from_millis(50);

/// What is to be published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Publish {
    /// The file; absolute.
    pub path: FilePath,
    /// The release's name; the file's if there is none.
    pub name: Option<String>,
    /// Bytes of a chunk; chosen by size if there is none.
    pub chunk_size: Option<u32>,
    /// Whether the anchors get a copy.
    pub upload: bool,
}

/// Publishes a file.
pub async fn publish(node: &Arc<Node>, request: &Publish, events: &Events) -> Result<(), Failure> {
    let name = name(request)?;
    let anchors = node.anchors(events).await?;
    let ((content, stamp), mut drafting) = hash(node, request, &name, events).await?;
    let (signed, known) = sign(node, &anchors, &name, &content, events).await?;
    // From here on the node can be asked for chunks, by those who come before the anchors have them.
    let slot = own(node, &content, stamp, &request.path, name.clone()).await?;
    node.join().await?;
    let (registered, is_new) = register(&anchors, &signed, events).await?;
    for session in &registered {
        session.announce(&slot).await?;
    }
    if let Some(drafting) = &mut drafting {
        drafting.finish_uploads().await;
    }
    if request.upload {
        upload(node, &registered, &slot, name, events).await?;
    }
    let release = signed.unverified();
    events.tell(Event::Published(Published {
        name: release.name.to_string(),
        version: release.version,
        content: release.content,
        size: content.geometry().size(),
        chunks: content.geometry().chunks(),
        sha256: content.sha256(),
        outcome: if is_new && !known {
            PublishOutcome::New
        } else {
            PublishOutcome::Unchanged
        },
        anchors: registered.iter().map(|session| session.anchor.id).collect(),
        uploaded: request.upload,
    }));
    Ok(())
}

/// The content of a file and how the file looked, and the draft by which others get it meanwhile, if hashing takes so long.
async fn hash(
    node: &Arc<Node>,
    request: &Publish,
    name: &Name,
    events: &Events,
) -> Result<((Content, Stamp), Option<Drafting>), Failure> {
    let (found, hashes) = mpsc::unbounded_channel();
    let mut hashing = {
        let (path, chunk_size) = (request.path.clone(), request.chunk_size);
        let tell = progress(name.clone(), Phase::Hashing, events.clone());
        spawn_blocking(move || hash::hash(&path, chunk_size, tell, &found))
    };
    let path = &request.path;
    let size = std::fs::metadata(&**path).map_or(0, |metadata| metadata.len());
    let patience = if size < DRAFT_SIZE_MIN {
        Duration::MAX
    } else {
        DRAFT_AFTER
    };
    if let Ok(hashed) = timeout(patience, &mut hashing).await {
        return Ok((hashed.context("BUG: hashing panicked")??, None));
    }
    let sizes = (name, geometry(size, request.chunk_size)?);
    let started = Drafting::start(node, sizes, path, hashes, request.upload, events).await;
    let mut drafting = started
        .map_err(|error| events.warn(format!("nothing is offered before it is hashed: {error:#}")))
        .ok();
    let hashed = hashing.await.context("BUG: hashing panicked")??;
    if let Some(drafting) = &mut drafting
        && let Err(error) = drafting.grown().await
    {
        events.warn(format!(
            "not all was offered before it was hashed: {error:#}"
        ));
    }
    Ok((hashed, drafting))
}

fn name(request: &Publish) -> Result<Name, Failure> {
    let text = match &request.name {
        Some(name) => name.clone(),
        None => {
            let name = request.path.file_name().context("the path names no file")?;
            name.to_str()
                .context("the file's name is not UTF-8; say --name NAME")?
                .to_owned()
        }
    };
    text.parse().map_err(|error| {
        Failure::new(Exit::Usage, error).hint("--name NAME publishes the file under another name")
    })
}

/// The signed release of a content under a name, and whether the anchors have it already.
async fn sign(
    node: &Node,
    anchors: &[&Session],
    name: &Name,
    content: &Content,
    events: &Events,
) -> Result<(SignedRelease, bool), Failure> {
    let publisher = node.identity.id();
    let mut version = 1;
    if let Some(signed) = lookup::find_anywhere(anchors, name, events).await? {
        let old = signed.unverified();
        if old.publisher != publisher {
            return Err(taken(name, old.publisher));
        }
        if old.content == content.id() {
            return Ok((signed, true));
        }
        version = old.version + 1;
    }
    let (content, geometry) = (content.id(), content.geometry());
    let release = Release {
        name: name.clone(),
        version,
        content,
        geometry,
        publisher,
    };
    Ok((node.identity.sign(release), false))
}

fn taken(name: &Name, publisher: anchorage_manifest::NodeId) -> Failure {
    let error = anyhow!("{name} belongs to another publisher, {publisher}");
    Failure::new(Exit::Failed, error).hint("--name NAME publishes the file under another name")
}

/// The slot of a file that stays where it is.
async fn own(
    node: &Arc<Node>,
    content: &Content,
    stamp: Stamp,
    path: &Path,
    name: Name,
) -> Result<Arc<Slot>, Failure> {
    let (node, content, path) = (node.clone(), content.clone(), path.to_owned());
    spawn_blocking(move || {
        let place = Place::of_complete(&path, name)?;
        // Whoever has to be asked before it is published may have taken long.
        if place.stamp != Some(stamp) {
            return Err(hash::changed(&path));
        }
        let drafted = node.store.adopt(&content)?;
        let slot = match drafted.filter(|slot| slot.place().stamp == place.stamp) {
            Some(slot) => slot,
            None => node.store.create(&content, &place)?,
        };
        slot.mark_all()?;
        // Read just now and never written: what is on the disk is what was hashed.
        slot.settle()?;
        Ok(slot)
    })
    .await
    .context("BUG: opening the slot panicked")?
}

/// Registers a release with the anchors; with which, and whether it was new to one of them.
async fn register<'a>(
    anchors: &[&'a Session],
    signed: &SignedRelease,
    events: &Events,
) -> Result<(Vec<&'a Session>, bool), Failure> {
    let mut registered: Vec<&Session> = Vec::new();
    let mut is_new = false;
    let mut refused = None;
    let request = Request::Publish {
        release: signed.clone(),
    };
    for (session, reply) in lookup::ask(anchors, &request).await {
        let error = match reply {
            Ok(Reply::Published { outcome }) => {
                is_new |= outcome == Outcome::New;
                registered.extend(
                    anchors
                        .iter()
                        .filter(|same| same.anchor.id == session.anchor.id),
                );
                continue;
            }
            Ok(Reply::Refused {
                refusal: Refusal::Taken { publisher },
            }) => {
                return Err(taken(&signed.unverified().name, publisher));
            }
            Ok(other) => unexpected(&other),
            Err(error) => error,
        };
        let error = error.context(format!("cannot register with anchor {}", session.anchor.id));
        events.warn(format!("{error:#}"));
        refused = Some(error);
    }
    registered.sort_by_key(|session| session.anchor.id);
    match refused {
        Some(error) if registered.is_empty() => Err(error.into()),
        _ => Ok((registered, is_new)),
    }
}

/// Brings the chunks to the anchors, all at once; fails if none could be given them.
async fn upload(
    node: &Arc<Node>,
    anchors: &[&Session],
    slot: &Arc<Slot>,
    name: Name,
    events: &Events,
) -> Result<(), Failure> {
    let tell = Arc::new(progress(name, Phase::Uploading, events.clone()));
    let mut uploading = JoinSet::new();
    for &session in anchors {
        let (node, session, slot, tell) =
            (node.clone(), session.clone(), slot.clone(), tell.clone());
        uploading.spawn(async move {
            let sent = upload::upload(&node, &session, &slot, &*tell).await;
            sent.with_context(|| format!("cannot upload to anchor {}", session.anchor.id))
        });
    }
    let mut uploaded = 0;
    let mut failed = None;
    for result in uploading.join_all().await {
        match result {
            Ok(()) => uploaded += 1,
            Err(error) => {
                events.warn(format!("{error:#}"));
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) if uploaded == 0 => Err(Failure::from(error).hint(
            "the release is registered: `peer serve` serves the file from here, or publish again",
        )),
        _ => Ok(()),
    }
}

/// Something that tells how far a step is, as often as is useful.
fn progress(name: Name, phase: Phase, events: Events) -> impl Fn(u64, u64) + Send + Sync + 'static {
    let started = Instant::now();
    let told = std::sync::Mutex::new(None::<Instant>);
    move |bytes, size| {
        let mut told = told.lock().expect("no holder of this lock panics");
        if told.is_some_and(|told| told.elapsed().as_millis() < 100) && bytes < size {
            return;
        }
        *told = Some(Instant::now());
        let bytes_per_second = bytes as f64 / started.elapsed().as_secs_f64().max(0.001);
        let name = name.to_string();
        events.tell(Event::Progress(Progress {
            name,
            phase,
            bytes,
            size,
            bytes_per_second,
            sources: 0,
        }));
    }
}

/// The geometry of a file of `size` bytes.
fn geometry(size: u64, chunk_size: Option<u32>) -> Result<Geometry, Failure> {
    let chosen = chunk_size.unwrap_or_else(|| Geometry::default_chunk_size(size));
    Geometry::new(size, chosen).map_err(|error| {
        Failure::new(Exit::Usage, error).hint("without --chunk-size a good size is chosen")
    })
}
