//! `get`: a name becomes a file.
//!
//! resolve → list → place → `fetch` → whole-file hash → the file gets its name. Every step can be repeated:
//! what an earlier run stored is marked, and only the rest is fetched. A name that is still being published is
//! fetched along with that, by `stream`.

mod connection;
mod fetch;
mod gathering;
mod list;
mod small;
mod sources;
mod stream;
mod verifier;

use crate::{
    buffers::Buffer,
    check::check,
    event::{Done, Event, Events, Share},
    failure::{Exit, Failure},
    file_path::FilePath,
    lookup::{self, Search},
    node::Node,
    store::{Place, Slot, Stamp},
};
use anchorage_manifest::{Content, ContentId, Name, Release, SignedRelease};
use anyhow::{Context as _, Result, anyhow};
use fetch::Fetch;
use gathering::Gathering;
use list::list;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use stream::Stream;
use tokio::{task::spawn_blocking, time::timeout};

/// How long the anchors may take to hear that all is there.
const TELLING_DEADLINE: Duration = Duration::from_secs(3);

/// What is to be fetched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Get {
    /// The release's name.
    pub name: String,
    /// The file or directory to write to; absolute.
    pub output: FilePath,
    /// Whether a file with other content may be replaced.
    pub force: bool,
    /// Seconds without progress after which it gives up.
    pub timeout_s: u64,
}

/// Fetches a file.
pub async fn get(node: &Arc<Node>, request: &Get, events: &Events) -> Result<(), Failure> {
    let started = Instant::now();
    let name: Name = request
        .name
        .parse()
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let path = if request.output.is_dir() {
        request.output.join(name.as_str())
    } else {
        request.output.to_path_buf()
    };
    node.join().await?;
    let search = Search::begin(&node.sessions, &name);
    let anchors = node.anchors(events).await?;
    let (released, drafts) = search.end(&anchors, events).await?;
    let old = released.as_ref().map(SignedRelease::unverified);
    let draft = drafts.into_iter().flatten().find(|draft| {
        let is_others = draft.publisher != node.identity.id();
        let continues = old.is_none_or(|old| old.publisher == draft.publisher);
        // A file that is there can be compared with a release alone.
        let is_wanted = old.is_none() || request.force || !path.exists();
        is_others && continues && is_wanted
    });
    if let Some(draft) = draft {
        let stream = Stream {
            node,
            draft: &draft,
            version: old.map_or(0, |old| old.version),
            request,
            path: &path,
            events,
        };
        let (signed, slot, shares) = stream.run().await?;
        complete(node, &slot, &path).await?;
        events.tell(done(
            &slot,
            signed.unverified(),
            &path,
            started,
            false,
            shares,
        )?);
        return Ok(());
    }
    let signed = released.ok_or_else(|| lookup::unknown(&name))?;
    let release = signed.unverified();
    let _claim = Claim::take(node, release.content, &release.name)?;
    if let Some(slot) = node.store.slot(release.content)
        && is_complete_at(&slot, &path)
    {
        finish(node, &slot).await;
        events.tell(done(&slot, release, &path, started, true, Vec::new())?);
        return Ok(());
    }
    let small = small::fetch(node, &anchors, release).await;
    let mut gathering = Gathering::begin(node, release.content);
    let content = match &small {
        Some(small) => small.list(),
        None => {
            let found = gathering.found();
            let ahead = list::ahead(node, release, &path);
            let listed = tokio::select! {
                listed = list(node, &anchors, release, request.timeout_s, found, &ahead) => listed?,
                never = gathering.run() => match never {},
            };
            if let Some(giver) = listed.giver {
                gathering.bring(giver);
            }
            listed.content
        }
    };
    let (slot, adopted) = {
        let (node, path, name, force) = (node.clone(), path.clone(), name.clone(), request.force);
        let content = content.clone();
        spawn_blocking(move || place(&node, &content, &path, name, force))
            .await
            .context("BUG: placing the file panicked")??
    };
    let mut shares = Vec::new();
    if adopted {
        finish(node, &slot).await;
    } else {
        shares = match small {
            Some(small) => {
                let (node, same) = (node.clone(), slot.clone());
                spawn_blocking(move || small.store(&node, &same))
                    .await
                    .context("BUG: storing panicked")?
                    .map_err(|error| unwritable(error, &slot))?
            }
            None => fetch_missing(gathering, &slot, request, events).await?,
        };
        complete(node, &slot, &path).await?;
    }
    events.tell(done(&slot, release, &path, started, adopted, shares)?);
    Ok(())
}

/// A file that is whole and verified gets its name.
async fn complete(node: &Arc<Node>, slot: &Arc<Slot>, path: &Path) -> Result<()> {
    let (whole, path) = (slot.clone(), path.to_owned());
    spawn_blocking(move || whole.complete_as(&path))
        .await
        .context("BUG: renaming panicked")??;
    finish(node, slot).await;
    Ok(())
}

/// Fetches what is missing of a file; who sent what.
async fn fetch_missing(
    gathering: Gathering,
    slot: &Arc<Slot>,
    request: &Get,
    events: &Events,
) -> Result<Vec<Share>, Failure> {
    let mut shares = Vec::new();
    let fetch = Fetch::new(gathering, slot.clone(), &request.name, events.clone());
    let timeout = Duration::from_secs(request.timeout_s);
    fetch.run(timeout, &mut shares).await?;
    Ok(shares)
}

/// Tells the anchors that the node has all of it, and flushes the file to the disk when there is time.
async fn finish(node: &Arc<Node>, slot: &Arc<Slot>) {
    // The next connection tells what this one could not.
    drop(timeout(TELLING_DEADLINE, node.tell_whole(slot)).await);
    let slot = slot.clone();
    // A file that could not be flushed stays in doubt until it was: that is what the doubt is for.
    spawn_blocking(move || drop(slot.settle()));
}

fn done(
    slot: &Slot,
    release: &Release,
    path: &Path,
    started: Instant,
    already_complete: bool,
    from: Vec<Share>,
) -> Result<Event> {
    let content = slot.content().context("BUG: a draft is complete")?;
    Ok(Event::Done(Done {
        name: release.name.to_string(),
        path: path.into(),
        bytes: slot.geometry().size(),
        seconds: started.elapsed().as_secs_f64(),
        sha256: content.sha256(),
        already_complete,
        from,
    }))
}

/// The right to fetch a content; two at once would write to the same file.
struct Claim {
    node: Arc<Node>,
    content: ContentId,
}

impl Claim {
    fn take(node: &Arc<Node>, content: ContentId, name: &Name) -> Result<Self, Failure> {
        if node.store.expect(content) {
            return Ok(Self {
                node: node.clone(),
                content,
            });
        }
        Err(anyhow!("{name} is being fetched by this node already").into())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.node.store.expect_no_more(self.content);
    }
}

/// A verified chunk cannot be written: nothing that another source could mend.
fn unwritable(error: anyhow::Error, slot: &Slot) -> Failure {
    Failure::from(error).hint(format!(
        "what is there stays in {}: make room and run the same command again",
        slot.path().display()
    ))
}

/// Whether the node has the content, whole, as the file at `path`, and nobody has touched it since.
fn is_complete_at(slot: &Slot, path: &Path) -> bool {
    let place = slot.place();
    let unchanged = fs::metadata(path).is_ok_and(|now| place.stamp == Some(Stamp::of(&now)));
    slot.have().is_full() && !slot.in_doubt() && unchanged && is_same(&slot.path(), path)
}

fn is_same(one: &Path, two: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(two)) {
        (Ok(one), Ok(two)) => one == two,
        _ => one == two,
    }
}

/// The slot whose file will become `path`, and whether a file that is there already is the right one. Blocks.
fn place(
    node: &Node,
    content: &Content,
    path: &Path,
    name: Name,
    force: bool,
) -> Result<(Arc<Slot>, bool), Failure> {
    let part = part_of(path)?;
    if path.exists() {
        if holds(path, content).with_context(|| format!("cannot read {}", path.display()))? {
            let slot = node
                .store
                .create(content, &Place::of_complete(path, name)?)?;
            slot.mark_all()?;
            return Ok((slot, true));
        }
        if !force {
            let error = anyhow!("{} exists and has other content", path.display());
            return Err(Failure::new(Exit::Failed, error)
                .hint("--force replaces it, -o PATH writes elsewhere"));
        }
    }
    let known = match node.store.slot(content.id()) {
        Some(slot) => Some(slot),
        None => node.store.adopt(content)?,
    };
    let was_draft = stream::drop_drafts(node, &part);
    if let Some(slot) = &known {
        if slot.in_doubt() {
            slot.recheck()?;
        }
        if slot.place().stamp.is_none() && slot.path().exists() {
            if !is_same(&slot.path(), &part) {
                slot.move_part(&part)?;
            }
            return Ok((slot.clone(), false));
        }
        // Whoever removed it is not known to have done so until it is read.
        if slot.have().is_full() && slot.path().exists() {
            let operand = || {
                format!(
                    "cannot copy {} to {}",
                    slot.path().display(),
                    part.display()
                )
            };
            fs::copy(slot.path(), &part).with_context(operand)?;
        }
    } else if part.exists() && !force && !was_draft {
        return Err(foreign(&part));
    }
    let existed = part.exists();
    let slot = node.store.create(content, &Place::of_part(&part, name))?;
    if existed {
        slot.doubt();
        slot.recheck()?;
    } else {
        slot.reset();
    }
    Ok((slot, false))
}

/// Where the file is while it is fetched.
fn part_of(path: &Path) -> Result<PathBuf, Failure> {
    let directory = path.parent().context("the output has no directory")?;
    if !directory.is_dir() {
        return Err(anyhow!("the directory {} does not exist", directory.display()).into());
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    Ok(part.into())
}

fn foreign(part: &Path) -> Failure {
    let error = anyhow!("{} exists and is not of this node's making", part.display());
    Failure::new(Exit::Failed, error).hint("--force replaces it, -o PATH writes elsewhere")
}

/// Whether the file at `path` is the content, whole.
fn holds(path: &Path, content: &Content) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size != content.geometry().size() {
        return Ok(false);
    }
    let mut buffer = Buffer::new(content.geometry().chunk_size() as usize);
    for index in 0..content.geometry().chunks() {
        let link = content.link(index).expect("as many states as chunks");
        let bytes = &mut buffer[..link.extent.size as usize];
        file.read_exact(bytes)?;
        if !check(&link, bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}
