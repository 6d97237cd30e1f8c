//! One connection of the chunk plane, seen from the node that was dialled: the reader.

use super::{
    Deposit, Server,
    audience::AskerId,
    outbox::{self, Item, Outbox},
    sender,
};
use crate::{
    buffers::Buffer,
    framed,
    store::{Place, Slot, Store},
    tls::{Reader, Stream},
};
use anchorage_manifest::{
    Bitmap, Content, ContentId, Draft, EntriesError, Geometry, Hash, Signature,
    content::list_size,
    limits::{FRAME_SIZE_MAX, PROTOCOL_VERSION},
    wire::{Answer, Ask, Refusal},
};
use anyhow::{Context as _, Result};
use socket2::SockRef;
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::server::TlsStream;

/// How long a connection may say nothing.
const IDLE_DEADLINE: Duration = Duration::from_secs(300);

/// How long the bytes of a frame's body or of a chunk may take; slower than any line worth having.
const BODY_DEADLINE: Duration = Duration::from_secs(120);

/// Bytes that may wait in the kernel to be sent. What waits there can neither be cancelled nor overtaken, and would
/// hide from the sender how fast its line is.
const UNSENT_SIZE: u32 = 128 << 10;

/// How long somebody who is interested waits for a content that is about to be fetched.
const SLOT_PATIENCE: Duration = Duration::from_secs(1);

/// How long who asks for a list that is on its way here waits for it: if this node's line is slow, others have it sooner.
const LIST_PATIENCE: Duration = Duration::from_millis(100);

/// Contents that one connection may be interested in.
const INTERESTS_MAX: usize = 256;

/// Why the reader stops: the other side has earned an explanation, or is gone.
enum End {
    Refused(Refusal),
    Gone,
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<anyhow::Error> for End {
    fn from(error: anyhow::Error) -> Self {
        match framed::nonsense(&error) {
            Some(why) => Self::Refused(Refusal::Malformed(why)),
            None => Self::Gone,
        }
    }
}

struct Connection {
    server: Arc<Server>,
    asker: AskerId,
    stream: Reader,
    silence: Silence,
    outbox: Arc<Outbox>,
    interests: BTreeSet<ContentId>,
    admitted: BTreeMap<ContentId, Geometry>,
}

/// Serves a connection to its end.
pub(super) async fn run(server: Arc<Server>, mut stream: TlsStream<TcpStream>) {
    let socket = SockRef::from(stream.get_ref().0);
    // Options that a kernel does not know cost speed, nothing else.
    drop(socket.set_tcp_nodelay(true));
    drop(socket.set_tcp_notsent_lowat(UNSENT_SIZE));
    let mut silence = Silence::at_most(IDLE_DEADLINE);
    if let Err(end) = greet(&mut stream, &mut silence).await {
        if let End::Refused(refusal) = end {
            let answer = Answer::Refused { refusal };
            let explain = framed::write(&mut stream, &answer);
            // Whoever does not take the explanation goes without.
            if let Ok(Ok(())) = timeout(BODY_DEADLINE, explain).await {
                drop(timeout(BODY_DEADLINE, stream.shutdown()).await);
            }
        }
        return;
    }
    let (socket, connection) = stream.into_inner();
    let Ok(stream) = Stream::take_over(socket, connection) else {
        return;
    };
    let (reader, writer) = stream.split();
    let outbox = Arc::new(Outbox::default());
    let asker = server.asker();
    let mut connection = Connection {
        server: server.clone(),
        asker,
        stream: reader,
        silence,
        outbox: outbox.clone(),
        interests: BTreeSet::new(),
        admitted: BTreeMap::new(),
    };
    let reading = async {
        match connection.read().await {
            Err(End::Refused(refusal)) => {
                outbox.close(refusal);
                // The last words are the sender's.
                std::future::pending::<()>().await;
            }
            // Nobody takes what is still to be sent, and what was chosen for this asker is in nobody's hands.
            Ok(()) | Err(End::Gone) => {}
        }
    };
    tokio::select! {
        // What has been asked is answered at once.
        biased;
        () = reading => {}
        // Whether all was said or the other side is gone: this is the end.
        _ = sender::send(server.clone(), asker, outbox.clone(), writer) => {}
    }
    server.leave(asker);
}

/// The first words: which protocol it is. Neither side says more before the other has answered.
async fn greet(stream: &mut TlsStream<TcpStream>, silence: &mut Silence) -> Result<(), End> {
    let reading = framed::read(stream, FRAME_SIZE_MAX);
    match silence.until(reading).await?? {
        Some(Ask::Hello {
            version: PROTOCOL_VERSION,
        }) => {
            let version = PROTOCOL_VERSION;
            Ok(framed::write(stream, &Answer::Welcome { version }).await?)
        }
        Some(Ask::Hello { .. }) => {
            let supported = PROTOCOL_VERSION;
            Err(Refusal::Version { supported }.into())
        }
        Some(_) => Err(Refusal::Malformed("the first message is not Hello".to_owned()).into()),
        None => Err(End::Gone),
    }
}

/// How long nothing has been said. The timer is set anew when it goes off, not for every message.
struct Silence {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    fn at_most(limit: Duration) -> Self {
        let timer = Box::pin(sleep(limit));
        Self { limit, timer }
    }

    /// Waits for something to be said.
    async fn until<T>(&mut self, said: impl Future<Output = T>) -> Result<T, Refusal> {
        let deadline = Instant::now() + self.limit;
        let mut said = pin!(said);
        loop {
            tokio::select! {
                biased;
                said = &mut said => return Ok(said),
                () = &mut self.timer => {}
            }
            if Instant::now() >= deadline {
                return Err(Refusal::Malformed(
                    "nothing was said for too long".to_owned(),
                ));
            }
            self.timer.as_mut().reset(deadline);
        }
    }
}

impl Connection {
    async fn read(&mut self) -> Result<(), End> {
        while let Some(ask) = self
            .silence
            .until(framed::read_buffered(&mut self.stream, FRAME_SIZE_MAX))
            .await??
        {
            match ask {
                Ask::Hello { .. } => {
                    return Err(Refusal::Malformed("Hello a second time".to_owned()).into());
                }
                Ask::GetList { content } => match self.list(content).await {
                    Some(list) => self.push(Item::List(content, list))?,
                    None => self.answer(Answer::Missing {
                        content,
                        index: None,
                    })?,
                },
                Ask::GetHashes { content } => {
                    self.push_of(content, None, Item::Hashes).await?;
                }
                Ask::Interested { content, have } => self.interested(content, &have).await?,
                Ask::Have { content, chunks } => {
                    chunks
                        .into_iter()
                        .for_each(|index| self.server.has(self.asker, content, index));
                }
                Ask::Any { content } => self.push_of(content, None, Item::Any).await?,
                Ask::Get { content, index } => {
                    let chunk = |slot| Item::Chunk(slot, index);
                    self.push_of(content, Some(index), chunk).await?;
                }
                Ask::Cancel { content, index } => self.outbox.cancel(content, index),
                Ask::Offer { content } => self.offer(content).await?,
                Ask::PutList { content, size } => self.put_list(content, size).await?,
                Ask::Put {
                    content,
                    index,
                    size,
                } => self.put(content, index, size).await?,
                Ask::PutDraft { draft } => self.put_draft(draft).await?,
                Ask::PutEntries {
                    content,
                    first,
                    count,
                    signature,
                } => self.put_entries(content, first, count, signature).await?,
            }
        }
        Ok(())
    }

    /// Queues what is asked of a content, or word that it is not here.
    async fn push_of(
        &mut self,
        content: ContentId,
        index: Option<u32>,
        item: impl FnOnce(Arc<Slot>) -> Item,
    ) -> Result<(), End> {
        match self.slot(content).await {
            Some(slot) => self.push(item(slot)),
            None => self.answer(Answer::Missing { content, index }),
        }
    }

    async fn interested(&mut self, content: ContentId, theirs: &Bitmap) -> Result<(), End> {
        let Some(slot) = self.slot_soon(content, SLOT_PATIENCE).await else {
            return self.answer(Answer::Missing {
                content,
                index: None,
            });
        };
        if self.interests.len() >= INTERESTS_MAX {
            return Err(Refusal::Busy.into());
        }
        self.server.join(self.asker, &slot, theirs);
        if self.interests.insert(content) {
            outbox::interest(&self.outbox, &slot);
        }
        self.push(Item::Bitmap(slot))
    }

    async fn offer(&mut self, content: ContentId) -> Result<(), End> {
        let Some(deposits) = &self.server.deposits else {
            return self.refuse(Refusal::Malformed(
                "nothing is stored for others here".to_owned(),
            ));
        };
        let (reply, geometry) = oneshot::channel();
        let asked = deposits.send(Deposit::Admit { content, reply }).await;
        match (asked, geometry.await) {
            (Ok(()), Ok(Some(geometry))) => {
                self.admitted.insert(content, geometry);
                let have = self.slot(content).await.map(|slot| slot.have());
                self.answer(Answer::Offered { content, have })
            }
            (Ok(()), Ok(None)) => self.refuse(Refusal::UnknownContent),
            _ => self.refuse(Refusal::Busy),
        }
    }

    async fn put_list(&mut self, content: ContentId, size: u32) -> Result<(), End> {
        let Some(&geometry) = self.admitted.get(&content) else {
            return Err(
                Refusal::Malformed("PutList of a content that was not offered".to_owned()).into(),
            );
        };
        // Whatever claims another size is not read.
        if u64::from(size) != list_size(geometry.chunks()) {
            return Err(Refusal::Mismatch.into());
        }
        let bytes = self.body(size).await?;
        let store = self.server.store.clone();
        let made = spawn_blocking(move || {
            let list = Content::decode_as(&bytes, content)
                .ok()
                .filter(|list| list.geometry() == geometry);
            match list {
                Some(list) => {
                    keep(&store, &list).map_err(|error| Refusal::Storage(format!("{error:#}")))
                }
                None => Err(Refusal::Mismatch),
            }
        });
        match made.await.context("BUG: making a slot panicked")? {
            Ok(()) => self.stored(content, None).await,
            Err(refusal) => self.refuse(refusal),
        }
    }

    async fn put_draft(&mut self, draft: Draft) -> Result<(), End> {
        let content = draft.id();
        if self.admitted.get(&content) != Some(&draft.geometry) {
            return Err(Refusal::Malformed("PutDraft of what was not offered".to_owned()).into());
        }
        let store = self.server.store.clone();
        let made = spawn_blocking(move || store.draft(&draft, &Place::inside()).map(drop));
        match made.await.context("BUG: making a slot panicked")? {
            Ok(()) => self.stored(content, None).await,
            Err(error) => self.refuse(Refusal::Storage(format!("{error:#}"))),
        }
    }

    async fn put_entries(
        &mut self,
        content: ContentId,
        first: u32,
        count: u32,
        signature: Signature,
    ) -> Result<(), End> {
        let chunks = self.admitted.get(&content).map(Geometry::chunks);
        let (Some(chunks), Some(slot)) = (chunks, self.slot(content).await) else {
            return Err(Refusal::Malformed("PutEntries of what was not offered".to_owned()).into());
        };
        let end = u64::from(first) + u64::from(count);
        if end > chunks.into() {
            return Err(Refusal::Malformed(EntriesError::PastEnd(end).to_string()).into());
        }
        let bytes = self.body(32 * count).await?;
        let extended = spawn_blocking(move || {
            let (hashes, _) = bytes.as_chunks::<32>();
            let hashes: Vec<Hash> = hashes.iter().copied().map(Hash).collect();
            slot.extend(first, &hashes, signature)
        });
        let extended = extended.await.context("BUG: adding entries panicked")?;
        extended.or_else(|error| match error.downcast_ref() {
            Some(EntriesError::BadSignature(_)) => Err(Refusal::BadSignature.into()),
            Some(EntriesError::Changed(_)) => Err(Refusal::Mismatch.into()),
            Some(lie) => Err(Refusal::Malformed(lie.to_string()).into()),
            None => self.refuse(Refusal::Storage(format!("{error:#}"))),
        })
    }

    async fn put(&mut self, content: ContentId, index: u32, size: u32) -> Result<(), End> {
        let extent = self
            .admitted
            .get(&content)
            .and_then(|geometry| geometry.extent(index));
        let (Some(extent), Some(slot)) = (extent, self.slot(content).await) else {
            return Err(Refusal::Malformed("Put of what was not offered".to_owned()).into());
        };
        if size != extent.size {
            return Err(Refusal::Mismatch.into());
        }
        let permits = self.server.incoming.clone().acquire_many_owned(size).await;
        let permits = permits.context("BUG: the semaphore is never closed")?;
        let bytes = self.body(size).await?;
        let server = self.server.clone();
        let store = spawn_blocking(move || {
            let stored = slot.store(index, &bytes);
            server.buffers.give_back(bytes);
            drop(permits);
            // Another process may have sealed the draft, and told what there was before this chunk.
            let became = slot.became();
            stored.map(|is_good| (is_good, became))
        });
        let (server, outbox) = (self.server.clone(), self.outbox.clone());
        // The next chunk is read while this one is hashed and written.
        tokio::spawn(async move {
            let answer = match store.await {
                Ok(Ok((true, became))) => {
                    for content in became.into_iter().chain([content]) {
                        server.deposited(content, Some(index)).await;
                    }
                    Answer::Stored {
                        content,
                        index: Some(index),
                    }
                }
                Ok(Ok((false, _))) => Answer::Refused {
                    refusal: Refusal::Mismatch,
                },
                Ok(Err(error)) => Answer::Refused {
                    refusal: Refusal::Storage(format!("{error:#}")),
                },
                Err(_) => Answer::Refused {
                    refusal: Refusal::Busy,
                },
            };
            // A publisher that does not read its answers is hung up on by the reader, sooner or later.
            let _ = outbox.push(Item::Answer(answer));
        });
        Ok(())
    }

    async fn body(&mut self, size: u32) -> Result<Buffer, End> {
        let mut bytes = self.server.buffers.take(size as usize);
        self.stream.expect(bytes.len());
        match timeout(BODY_DEADLINE, self.stream.read_exact(&mut bytes)).await {
            Ok(Ok(_)) => {
                self.server.traffic.count_in(bytes.len());
                Ok(bytes)
            }
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    async fn stored(&mut self, content: ContentId, index: Option<u32>) -> Result<(), End> {
        self.server.deposited(content, index).await;
        self.answer(Answer::Stored { content, index })
    }

    /// The slot of a content; what another process of this node has just made is looked for too.
    async fn slot(&self, content: ContentId) -> Option<Arc<Slot>> {
        if let Some(slot) = self.server.store.slot(content) {
            return Some(slot);
        }
        let store = self.server.store.clone();
        let looked = spawn_blocking(move || (store.refresh(content), store.slot(content))).await;
        let (is_sealed, slot) = looked.ok()?;
        if is_sealed {
            self.server.deposited(content, None).await;
        }
        slot
    }

    /// The same, or that of a content whose list is on its way to this node: whoever fetches it as well may ask before it
    /// is there.
    async fn slot_soon(&self, content: ContentId, patience: Duration) -> Option<Arc<Slot>> {
        match self.slot(content).await {
            Some(slot) => Some(slot),
            None => timeout(patience, self.server.store.slot_soon(content))
                .await
                .ok()?,
        }
    }

    /// The list of a content, once it is there if it is on its way to this node. A draft has none, even when it is
    /// sealed: its id is not the list's.
    async fn list(&self, content: ContentId) -> Option<Arc<Content>> {
        let slot = self.slot_soon(content, LIST_PATIENCE).await;
        slot.filter(|slot| !slot.is_draft())?.content()
    }

    fn refuse(&self, refusal: Refusal) -> Result<(), End> {
        self.answer(Answer::Refused { refusal })
    }

    fn answer(&self, answer: Answer) -> Result<(), End> {
        self.push(Item::Answer(answer))
    }

    fn push(&self, item: Item) -> Result<(), End> {
        if self.outbox.push(item) {
            Ok(())
        } else {
            Err(Refusal::Busy.into())
        }
    }
}

/// Makes room for a content, if there is none: the draft that it was has some of it already, perhaps.
fn keep(store: &Store, content: &Content) -> Result<()> {
    store.refresh(content.id());
    if store.slot(content.id()).is_none() && store.adopt(content)?.is_none() {
        store.create(content, &Place::inside())?;
    }
    Ok(())
}

impl Server {
    async fn deposited(&self, content: ContentId, index: Option<u32>) {
        if let Some(deposits) = &self.deposits {
            // Nobody listens any more when the process is on its way out.
            drop(deposits.send(Deposit::Stored { content, index }).await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dial::dial, identity::Identity, serve::Share, tls};
    use anchorage_manifest::{Source, codec, wire::ALPN_CHUNKS};
    use tokio::{net::TcpListener, time::sleep};
    use tokio_rustls::TlsAcceptor;

    #[tokio::test]
    async fn who_says_something_in_time_may_go_on() {
        let limit = Duration::from_millis(200);
        let mut silence = Silence::at_most(limit);
        // The timer goes off in between, and is set anew.
        for _ in 0..5 {
            assert!(silence.until(sleep(limit * 2 / 5)).await.is_ok());
        }
        let begun = Instant::now();
        assert!(silence.until(std::future::pending::<()>()).await.is_err());
        assert!(begun.elapsed() >= limit);
    }

    #[tokio::test]
    async fn who_hangs_up_while_a_chunk_waits_for_its_turn_is_no_asker_any_more() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let store = Store::open(directory.path())?;
        let bytes = [7; 1_024];
        let content = Content::of(&bytes, 1_024)?;
        store.create(&content, &Place::inside())?.store(0, &bytes)?;
        let content = content.id();
        let server = Server::new(store, None, Share::whole());
        let mut grants = Vec::new();
        let at_once = Duration::from_millis(50);
        while let Ok(grant) = timeout(at_once, server.line_up(server.asker(), content, None)).await
        {
            grants.push(grant?);
        }
        let (own, theirs) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let source = Source {
            node: own.id(),
            address: listener.local_addr()?,
        };
        let acceptor = TlsAcceptor::from(tls::server_config(&own, &[ALPN_CHUNKS])?);
        let serving = server.clone();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await?;
            serving.serve(acceptor.accept(socket).await?).await;
            anyhow::Ok(())
        });
        let (mut reader, mut writer) = dial(&theirs, source).await?.split();
        let have = Bitmap::empty(1);
        let mut asks = codec::frame(&Ask::Interested { content, have });
        codec::append_frame(&mut asks, &Ask::Any { content });
        writer.write_all(&asks).await?;
        writer.flush().await?;
        let answer = framed::expect(&mut reader, FRAME_SIZE_MAX).await?;
        assert!(matches!(answer, Answer::Bitmap { .. }), "{answer:?}");
        assert!(!server.audiences().is_empty());
        drop((reader, writer));
        let gone = async {
            while !server.audiences().is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), gone)
            .await
            .context("the asker is still there")
    }
}
