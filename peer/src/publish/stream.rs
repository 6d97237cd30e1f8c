//! Bringing a draft's chunks to an anchor while they are hashed. What fails here is made up for by the ordinary
//! upload at the end.

use super::upload::{answer, offer, put, read};
use crate::{
    buffers::Buffer,
    dial, framed,
    node::Node,
    session::Session,
    store::{Slot, Watcher},
    tls::Writer,
};
use anchorage_manifest::{
    Bitmap, ContentId,
    wire::{Answer, Ask},
};
use anyhow::{Context as _, Result};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

/// Pause before a broken upload is taken up again.
const PAUSE: Duration = Duration::from_millis(250);

/// Uploads a draft's chunks as they come, once it is registered and until it is `sealed`.
pub(super) async fn upload(
    node: Arc<Node>,
    session: Session,
    slot: Arc<Slot>,
    mut registered: watch::Receiver<BTreeSet<u32>>,
    mut sealed: watch::Receiver<bool>,
) {
    tokio::select! {
        _ = registered.wait_for(|nodes| nodes.contains(&session.anchor.id)) => {}
        _ = sealed.wait_for(|&sealed| sealed) => return,
    }
    while !*sealed.borrow() {
        if attempt(&node, &session, &slot, &sealed).await.is_ok() {
            return;
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = sealed.wait_for(|&sealed| sealed) => {}
        }
    }
}

/// Wakes who waits for chunks.
#[derive(Default)]
struct Growth(Notify);

impl Watcher for Growth {
    fn marked(&self, _: ContentId, _: &[u32], _: usize) {
        self.0.notify_one();
    }

    fn grew(&self, _: ContentId) {}
}

async fn attempt(
    node: &Node,
    session: &Session,
    slot: &Arc<Slot>,
    sealed: &watch::Receiver<bool>,
) -> Result<()> {
    let anchor = session.connected().context("the anchor is not connected")?;
    let draft = slot.draft().context("it is sealed")?;
    let content = draft.id();
    let mut stream = dial::dial(&node.identity, anchor).await?;
    let have = offer(&mut stream, content).await?;
    if have.is_none() {
        framed::write(&mut stream, &Ask::PutDraft { draft }).await?;
        match answer(&mut stream).await? {
            Answer::Stored { index: None, .. } => {}
            other => return Err(dial::unexpected(&other)),
        }
    }
    let (mut reader, mut writer) = stream.split();
    let (sent, mut counted) = watch::channel(0_u32);
    let receive = async {
        let mut stored = 0;
        loop {
            while stored == *counted.borrow_and_update() {
                // The sender has ended, and all that it sent is stored.
                if counted.changed().await.is_err() {
                    return Ok(());
                }
            }
            match answer(&mut reader).await? {
                Answer::Stored { index: Some(_), .. } => stored += 1,
                Answer::Have { .. } => {}
                other => return Err(dial::unexpected(&other)),
            }
        }
    };
    let have = have.unwrap_or_else(|| Bitmap::empty(slot.geometry().chunks()));
    // The connection stays whole until the last answer.
    tokio::try_join!(
        receive,
        send(slot, &have, &mut writer, sealed.clone(), sent)
    )
    .map(drop)
}

/// Sends entries, and the chunks that the anchor does not have, in order; counts them in `sent`.
async fn send(
    slot: &Arc<Slot>,
    have: &Bitmap,
    writer: &mut Writer,
    mut sealed: watch::Receiver<bool>,
    sent: watch::Sender<u32>,
) -> Result<()> {
    let growth = Arc::new(Growth::default());
    let watcher: Arc<dyn Watcher> = growth.clone();
    slot.watch(Arc::downgrade(&watcher));
    let content = slot.id();
    let mut told = 0;
    let mut buffer = Buffer::default();
    for index in 0..slot.geometry().chunks() {
        while !slot.has(index) {
            tokio::select! {
                () = growth.0.notified() => {}
                _ = sealed.wait_for(|&sealed| sealed) => return Ok(()),
            }
        }
        if *sealed.borrow() {
            return Ok(());
        }
        if let Some((hashes, signature)) = slot.entries_since(told).filter(|_| told <= index) {
            let count = u32::try_from(hashes.len()).context("BUG: too many entries")?;
            let head = Ask::PutEntries {
                content,
                first: told,
                count,
                signature,
            };
            let body: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
            put(writer, &head, &body).await?;
            told += count;
        }
        if have.contains(index) {
            continue;
        }
        buffer = read(slot, index, buffer).await?;
        let size = u32::try_from(buffer.len()).context("BUG: a chunk over 4 GiB")?;
        let head = Ask::Put {
            content,
            index,
            size,
        };
        put(writer, &head, &buffer).await?;
        sent.send_modify(|sent| *sent += 1);
    }
    Ok(())
}
