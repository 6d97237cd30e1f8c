//! A small file in one round trip: its list and its chunks are asked for together, over a connection that is kept for
//! the next one. An anchor to which there is one is asked before it is known who else has the file.
//!
//! Whatever goes wrong here is left to the ordinary way, which finds out whose fault it is.

use crate::{
    check::check, dial, event::Share, framed, lookup, node::Node, session::Session, store::Slot,
    tls,
};
use anchorage_manifest::{
    Content, Release, Source, codec,
    content::LIST_SIZE_MAX,
    limits::FRAME_SIZE_MAX,
    wire::{Answer, Ask},
};
use anyhow::{Context as _, Result, ensure};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::timeout,
};

/// Most bytes of a small file.
const SIZE_MAX: u64 = 64 << 10;

/// Sources that are asked once it is known who has the file, the second if the first is slow or fails.
const TRIES: usize = 2;

/// How long one may take before the next is asked as well.
const IMPATIENCE: Duration = Duration::from_millis(300);

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// A small file that matches its hashes.
pub(super) struct Small {
    content: Arc<Content>,
    bytes: Vec<u8>,
    source: Source,
}

/// Fetches a release's file if it is small and one of the first sources gives it at once.
pub(super) async fn fetch(
    node: &Arc<Node>,
    anchors: &[&Session],
    release: &Release,
) -> Option<Small> {
    let size = release.geometry.size();
    if size == 0 || size > SIZE_MAX || node.store.slot(release.content).is_some() {
        return None;
    }
    let _room = node
        .incoming
        .acquire_many(u32::try_from(size).expect("it is small"))
        .await;
    let fetching = async {
        let mut asked = Asked {
            node,
            release,
            tasks: JoinSet::new(),
        };
        let mut connected = anchors.iter().filter_map(|session| session.connected());
        let near = connected.find(|&anchor| node.idle.has(anchor));
        if let Some(near) = near
            && let Some(small) = asked.ask(near).await
        {
            return Some(small);
        }
        let mut sources = lookup::sources_and_connection(node, anchors, release.content).await;
        sources.retain(|&source| Some(source) != near);
        // To those who have been talked to just now there is a connection.
        sources.sort_by_key(|&source| !node.idle.has(source));
        for source in sources.into_iter().take(TRIES) {
            if let Some(small) = asked.ask(source).await {
                return Some(small);
            }
        }
        asked.wait().await
    };
    timeout(PATIENCE, fetching).await.ok().flatten()
}

/// Sources that have been asked, each a while after the one before.
struct Asked<'a> {
    node: &'a Arc<Node>,
    release: &'a Release,
    tasks: JoinSet<Result<Small>>,
}

impl Asked<'_> {
    /// Asks one more; what any of them gives until it is time to ask the next.
    async fn ask(&mut self, source: Source) -> Option<Small> {
        let (node, release) = (self.node.clone(), self.release.clone());
        let task = async move { fetch_from(&node, source, &release).await };
        self.tasks.spawn(task);
        let first = timeout(IMPATIENCE, self.tasks.join_next()).await;
        first.ok()??.ok()?.ok()
    }

    /// What the first of them gives who gives anything.
    async fn wait(&mut self) -> Option<Small> {
        while let Some(given) = self.tasks.join_next().await {
            if let Ok(Ok(small)) = given {
                return Some(small);
            }
        }
        None
    }
}

async fn fetch_from(node: &Arc<Node>, source: Source, release: &Release) -> Result<Small> {
    let content = release.content;
    let mut stream = node.dial(source).await?;
    let mut asks = codec::frame(&Ask::GetList { content });
    for index in 0..release.geometry.chunks() {
        codec::append_frame(&mut asks, &Ask::Get { content, index });
    }
    stream.write_all(&asks).await?;
    stream.flush().await?;
    let answer = framed::expect(&mut stream, FRAME_SIZE_MAX).await?;
    let list = match answer {
        Answer::List {
            content: same,
            size,
        } if same == content && size as usize <= LIST_SIZE_MAX => {
            body(&mut stream, size as usize).await?
        }
        other => return Err(dial::unexpected(&other)),
    };
    let list = Content::decode_as(&list, content).context("peer sent what is not the list")?;
    ensure!(
        list.geometry() == release.geometry,
        "the release has other sizes"
    );
    let mut bytes = Vec::new();
    for wanted in 0..release.geometry.chunks() {
        let link = list.link(wanted).context("BUG: too few states")?;
        match framed::expect(&mut stream, FRAME_SIZE_MAX).await? {
            Answer::Chunk {
                content: same,
                index,
                size,
            } if same == content && index == wanted && size == link.extent.size => {
                let chunk = body(&mut stream, size as usize).await?;
                ensure!(check(&link, &chunk), "peer sent a wrong chunk");
                bytes.extend(chunk);
            }
            other => return Err(dial::unexpected(&other)),
        }
    }
    node.fetched.count_in(bytes.len());
    node.idle.give(source, stream);
    Ok(Small {
        content: Arc::new(list),
        bytes,
        source,
    })
}

async fn body(stream: &mut tls::Stream, size: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

impl Small {
    /// Its list.
    pub(super) fn list(&self) -> Arc<Content> {
        self.content.clone()
    }

    /// Stores what is not there yet, and acks it; who sent it. Blocks.
    pub(super) fn store(&self, node: &Node, slot: &Slot) -> Result<Vec<Share>> {
        let geometry = self.content.geometry();
        let mut share = Share {
            address: self.source.address,
            anchor: node.is_anchor(self.source.node),
            bytes: 0,
            chunks: 0,
        };
        for index in slot.have().missing().collect::<Vec<_>>() {
            let extent = geometry.extent(index).context("past the end")?;
            let start = usize::try_from(extent.offset)?;
            let chunk = &self.bytes[start..start + extent.size as usize];
            slot.write(index, chunk)?;
            for session in &node.sessions {
                session.ack(slot.id(), index, self.source.node);
            }
            share.bytes += u64::from(extent.size);
            share.chunks += 1;
        }
        slot.tell();
        Ok(vec![share])
    }
}
