//! The publisher's draft: what is hashed is offered to others while the rest is still being hashed.
//!
//! Entries are signed in batches, from the moment that hashing turns out to take longer than registering a draft is
//! worth. The draft is known to the anchors until it is withdrawn, which happens when this value is dropped: by
//! then it has become a release, or never will.

use super::stream;
use crate::{
    event::Events,
    node::Node,
    session::{News, Session, unexpected},
    store::{Place, Slot},
};
use anchorage_manifest::{
    Draft, Geometry, Hash, Name,
    wire::{Reply, Request},
};
use anyhow::{Context as _, Result};
use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::sleep,
};

/// How long entries are collected before they are signed.
const BATCH: Duration = Duration::from_millis(25);

/// A draft of this node's that others can get.
pub(super) struct Drafting {
    node: Arc<Node>,
    slot: Arc<Slot>,
    /// Signs entries until all chunks are hashed.
    growing: Option<JoinHandle<Result<()>>>,
    /// Tells the uploads that the rest comes by another name.
    sealed: watch::Sender<bool>,
    uploads: JoinSet<()>,
    registering: JoinHandle<()>,
}

impl Drafting {
    /// Registers a draft of the file at `path`, whose chunks' `hashes` come in order. If `upload`, the anchors get its
    /// chunks along the way.
    pub(super) async fn start(
        node: &Arc<Node>,
        (name, geometry): (&Name, Geometry),
        path: &Path,
        hashes: mpsc::UnboundedReceiver<Hash>,
        upload: bool,
        events: &Events,
    ) -> Result<Self> {
        let mut nonce = [0; 32];
        aws_lc_rs::rand::fill(&mut nonce)
            .ok()
            .context("the system gives no random numbers")?;
        let draft = Draft {
            name: name.clone(),
            geometry,
            publisher: node.identity.id(),
            nonce,
        };
        let slot = {
            let (node, draft) = (node.clone(), draft.clone());
            let place = Place::of_complete(path, name.clone())?;
            spawn_blocking(move || node.store.draft(&draft, &place))
                .await
                .context("BUG: making a slot panicked")??
        };
        node.join().await?;
        let growing = tokio::spawn(grow(node.clone(), slot.clone(), hashes));
        let registered = watch::Sender::default();
        let sealed = watch::Sender::new(false);
        let mut uploads = JoinSet::new();
        for session in node.sessions.iter().filter(|_| upload) {
            uploads.spawn(stream::upload(
                node.clone(),
                session.clone(),
                slot.clone(),
                registered.subscribe(),
                sealed.subscribe(),
            ));
        }
        let registering = tokio::spawn(register(
            node.clone(),
            slot.clone(),
            draft,
            registered,
            events.clone(),
        ));
        Ok(Self {
            node: node.clone(),
            slot,
            growing: Some(growing),
            sealed,
            uploads,
            registering,
        })
    }

    /// Waits until all that was hashed is signed.
    pub(super) async fn grown(&mut self) -> Result<()> {
        match self.growing.take() {
            Some(growing) => growing.await.context("BUG: signing panicked")?,
            None => Ok(()),
        }
    }

    /// Lets the uploads end, once what they have begun is stored.
    pub(super) async fn finish_uploads(&mut self) {
        self.sealed.send_replace(true);
        while self.uploads.join_next().await.is_some() {}
    }
}

impl Drop for Drafting {
    fn drop(&mut self) {
        self.registering.abort();
        if let Some(growing) = self.growing.take() {
            growing.abort();
        }
        let (node, id) = (self.node.clone(), self.slot.id());
        let is_sealed = self.slot.draft().is_none();
        tokio::spawn(async move {
            node.withdraw(id).await;
            if !is_sealed {
                // What cannot be removed now is when the node starts again.
                drop(spawn_blocking(move || node.store.remove(id)).await);
            }
        });
    }
}

/// Signs entries as their chunks are hashed; ends when the last one is.
async fn grow(
    node: Arc<Node>,
    slot: Arc<Slot>,
    mut hashes: mpsc::UnboundedReceiver<Hash>,
) -> Result<()> {
    let max = slot.geometry().chunks() as usize;
    loop {
        let mut batch = Vec::new();
        if hashes.recv_many(&mut batch, max.max(1)).await == 0 {
            return Ok(());
        }
        let (node, slot) = (node.clone(), slot.clone());
        spawn_blocking(move || slot.grow(&batch, |bytes| node.identity.sign_bytes(bytes)))
            .await
            .context("BUG: signing panicked")??;
        sleep(BATCH).await;
    }
}

/// Registers a draft with every anchor, again whenever a connection is made anew; `registered` tells who has it.
async fn register(
    node: Arc<Node>,
    slot: Arc<Slot>,
    draft: Draft,
    registered: watch::Sender<BTreeSet<u32>>,
    events: Events,
) {
    let mut news = node.news();
    let mut registering = JoinSet::new();
    let known = |session: &Session| {
        let (session, slot, events) = (session.clone(), slot.clone(), events.clone());
        let registered = registered.clone();
        let request = Request::Draft {
            draft: draft.clone(),
        };
        async move {
            session.settled().await;
            let id = session.anchor.id;
            let announced = match session.request(request).await {
                Ok(Reply::Done) => {
                    registered.send_if_modified(|nodes| nodes.insert(id));
                    session.announce(&slot).await
                }
                Ok(other) => Err(unexpected(&other)),
                Err(error) => Err(error),
            };
            if let Err(error) = announced {
                events.warn(format!(
                    "anchor {id} does not offer the file before it is hashed: {error:#}"
                ));
            }
        }
    };
    for session in node.sessions.iter().filter(|one| one.connected().is_some()) {
        registering.spawn(known(session));
    }
    loop {
        tokio::select! {
            Some(_) = registering.join_next() => {}
            told = news.recv() => match told {
                Ok(News::Connected { anchor }) => {
                    let sessions = node.sessions.iter();
                    for session in sessions.filter(|session| session.anchor.id == anchor) {
                        registering.spawn(known(session));
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}
