//! A node that serves as told: honestly, slowly, wrongly or not at all; and that speaks as an anchor if asked.

use crate::{Control, PATIENCE, Wire, random_bytes, until};
use anchorage_manifest::{
    Bitmap, Content, ContentId, Draft, Geometry, Hash, Have, Holder, NodeId, Release, Signature,
    SignedRelease, Source,
    bitmap::Packed,
    limits::PROTOCOL_VERSION,
    wire::{
        ALPN_CHUNKS, ALPN_CONTROL, Answer, Ask, Outcome, Refusal, Reply, Request, ToAnchor, ToPeer,
    },
};
use anchorage_peer::{identity::Identity, tls};
use anyhow::{Context as _, Result, bail};
use rustls::ServerConnection;
use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

/// A content, its bytes, and the release that names it.
#[derive(Clone, Debug)]
pub struct Holding {
    /// The release, signed.
    pub release: SignedRelease,
    /// The content's list, encoded.
    pub list: Vec<u8>,
    /// The file.
    pub bytes: Vec<u8>,
}

/// How a fake node answers a `Get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// At once and rightly.
    Honest,
    /// Rightly, but each chunk takes that long.
    Slow(Duration),
    /// Rightly so often, and then not at all.
    Gate(usize),
    /// The right number of other bytes.
    WrongBytes,
    /// Never.
    Stall,
    /// Rightly, but over its first connection it gives the list and says nothing else.
    Mute,
    /// By hanging up.
    HangUp,
    /// That it does not have what it announced.
    Missing,
    /// With fewer bytes than the chunk has.
    WrongSize,
    /// With a frame that claims 4 GiB.
    Garbage,
    /// Rightly, but as an anchor it says no word, not even hello, before it was asked for a name.
    AskedFirst,
    /// Rightly, but the list takes that long.
    LateList(Duration),
    /// Rightly, but with a list of another content.
    WrongList,
    /// Rightly, but with entries of a draft that its publisher did not sign.
    WrongEntries,
}

/// What a fake node has been asked.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Chunk connections that said hello, and when.
    pub hellos: Vec<Instant>,
    /// When the list was given.
    pub listed: Vec<Instant>,
    /// Chunks asked for, and when.
    pub asked: Vec<(Instant, u32)>,
    /// Chunks given in full, right or wrong, and when.
    pub given: Vec<(Instant, u32)>,
    /// Control requests, if it is an anchor.
    pub requests: Vec<Request>,
    /// Chunks that the gate has let through, and those that it has not.
    granted: usize,
    /// Chunks that askers have, or were chosen for them.
    out: BTreeSet<u32>,
}

/// The node. It ends with the value.
pub struct Fake {
    identity: Arc<Identity>,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    source: Source,
    holding: Holding,
    manner: Manner,
    log: Mutex<Log>,
    stop: Arc<AtomicBool>,
}

impl Holding {
    /// A file of `size` random bytes, and version 1 of `name` for it, by `publisher`.
    pub fn random(name: &str, size: usize, chunk_size: u32, publisher: &Identity) -> Result<Self> {
        let bytes = random_bytes(size, size as u64 + 1);
        let content = Content::of(&bytes, chunk_size)?;
        Self::new(name, content.geometry(), content.encode(), bytes, publisher)
    }

    /// Version 1 of `name` for a list that may be anything; the release says `geometry`.
    pub fn new(
        name: &str,
        geometry: Geometry,
        list: Vec<u8>,
        bytes: Vec<u8>,
        publisher: &Identity,
    ) -> Result<Self> {
        let release = publisher.sign(Release {
            name: name.parse()?,
            version: 1,
            content: anchorage_manifest::ContentId(Hash::of(&list)),
            geometry,
            publisher: publisher.id(),
        });
        Ok(Self {
            release,
            list,
            bytes,
        })
    }

    /// SHA-256 of the file.
    pub fn sha256(&self) -> Hash {
        Hash::of(&self.bytes)
    }

    /// Registers the release with an anchor.
    pub fn register(&self, anchor: SocketAddr, publisher: &Identity) -> Result<()> {
        let release = self.release.clone();
        match Control::dial(anchor, publisher)?.ask(Request::Publish { release })? {
            Reply::Published { .. } => Ok(()),
            other => bail!("the release was answered by {other:?}"),
        }
    }
}

impl Log {
    /// Chunks asked for from `since` on.
    pub fn asked_since(&self, since: Instant) -> BTreeSet<u32> {
        let recent = self.asked.iter().filter(|(when, _)| *when >= since);
        recent.map(|(_, index)| *index).collect()
    }

    /// Chunks given in full before `until`.
    pub fn given_before(&self, until: Instant) -> BTreeSet<u32> {
        let early = self.given.iter().filter(|(when, _)| *when < until);
        early.map(|(_, index)| *index).collect()
    }
}

impl Fake {
    /// Starts a node at any free port of loopback.
    pub fn start(identity: Identity, holding: Holding, manner: Manner) -> Result<Self> {
        Self::start_at(([127, 0, 0, 1], 0).into(), identity, holding, manner)
    }

    /// Starts a node at an address.
    pub fn start_at(
        address: SocketAddr,
        identity: Identity,
        holding: Holding,
        manner: Manner,
    ) -> Result<Self> {
        // A process that was forked when somebody listened there keeps the port until its exec.
        let listener = until(PATIENCE, &format!("a listener at {address}"), || {
            Ok(TcpListener::bind(address).ok())
        })?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let config = tls::server_config(&identity, &[ALPN_CHUNKS, ALPN_CONTROL])?;
        let stop = Arc::new(AtomicBool::new(false));
        let source = Source {
            node: identity.id(),
            address,
        };
        let shared = Arc::new(Shared {
            source,
            holding,
            manner,
            log: Mutex::default(),
            stop: stop.clone(),
        });
        let accepting = {
            let shared = shared.clone();
            spawn(move || shared.accept(&listener, &config))
        };
        Ok(Self {
            identity: Arc::new(identity),
            address,
            stop,
            shared,
            threads: vec![accepting],
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its key.
    pub fn id(&self) -> NodeId {
        self.identity.id()
    }

    /// What it has been asked so far.
    pub fn log(&self) -> Log {
        self.shared.log().clone()
    }

    /// Joins an anchor and announces every chunk, and stays joined by heartbeats.
    pub fn announce(&mut self, anchor: SocketAddr) -> Result<()> {
        self.announce_as(anchor, self.address)
    }

    /// Joins an anchor and announces every chunk of a draft, and stays joined by heartbeats.
    pub fn announce_draft(&mut self, anchor: SocketAddr, draft: &Draft) -> Result<()> {
        self.announce_content(anchor, self.address, draft.id(), draft.geometry)
    }

    /// Announces every chunk of its content under an address that may be another node's.
    pub fn announce_as(&mut self, anchor: SocketAddr, advertise: SocketAddr) -> Result<()> {
        let release = self.shared.holding.release.unverified();
        let (content, geometry) = (release.content, release.geometry);
        self.announce_content(anchor, advertise, content, geometry)
    }

    fn announce_content(
        &mut self,
        anchor: SocketAddr,
        advertise: SocketAddr,
        content: ContentId,
        geometry: Geometry,
    ) -> Result<()> {
        let mut control = Control::dial(anchor, &self.identity)?;
        let joined = control.ask(Request::Join {
            port: self.address.port(),
            advertise: Some(advertise),
        })?;
        let Reply::Joined { heartbeat_ms, .. } = joined else {
            bail!("the join was answered by {joined:?}");
        };
        control.announce(content, &Bitmap::full(geometry.chunks()))?;
        let stop = self.stop.clone();
        let pause = Duration::from_millis(u64::from(heartbeat_ms)).min(Duration::from_secs(1));
        self.threads.push(spawn(move || {
            let mut last = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(20));
                if last.elapsed() < pause {
                    continue;
                }
                last = Instant::now();
                if control.ask(Request::Heartbeat).is_err() {
                    break;
                }
            }
        }));
        Ok(())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What a thread says of its end is for the test's output; it has printed it already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, config: &Arc<rustls::ServerConfig>) {
        while !self.stopped() {
            match listener.accept() {
                Ok((socket, _)) => {
                    let (shared, config) = (self.clone(), config.clone());
                    // A connection that breaks is the business of the node under test.
                    spawn(move || shared.serve(socket, config).err());
                }
                Err(_) => sleep(Duration::from_millis(5)),
            }
        }
    }

    fn serve(&self, socket: TcpStream, config: Arc<rustls::ServerConfig>) -> Result<()> {
        socket.set_nonblocking(false)?;
        let mut wire = Wire::new(ServerConnection::new(config)?, socket, self.stop.clone())?;
        wire.patience(Duration::from_secs(600));
        let mut first = [0; 4];
        first.copy_from_slice(&wire.receive_raw(4)?);
        let body = wire.receive_raw(u32::from_be_bytes(first))?;
        if wire.alpn() == Some(ALPN_CONTROL) {
            let mut next = Some(anchorage_manifest::codec::decode(&body)?);
            let mut held_back = self.manner == Manner::AskedFirst;
            let mut replies = Vec::new();
            while let Some(ToAnchor { id, request }) = next {
                held_back &= !matches!(request, Request::Resolve { .. });
                let reply = self.reply(&wire, &request)?;
                replies.push(ToPeer::Reply { id, reply });
                if !held_back {
                    replies.drain(..).try_for_each(|reply| wire.send(&reply))?;
                }
                next = wire.receive()?;
            }
            return Ok(());
        }
        let mut next = Some(anchorage_manifest::codec::decode(&body)?);
        while let Some(ask) = next {
            if !self.answer(&mut wire, &ask)? {
                return Ok(());
            }
            next = wire.receive()?;
        }
        Ok(())
    }

    /// Answers one ask; false to hang up.
    fn answer(&self, wire: &mut Wire<ServerConnection>, ask: &Ask) -> Result<bool> {
        let release = self.holding.release.unverified();
        let content = release.content;
        let is_mute = self.manner == Manner::Mute && self.log().hellos.len() == 1;
        match *ask {
            Ask::Hello { .. } => {
                self.log().hellos.push(Instant::now());
                let version = PROTOCOL_VERSION;
                wire.send(&Answer::Welcome { version })?;
            }
            Ask::GetList { content } => {
                let mut list = self.holding.list.clone();
                if let Manner::LateList(pause) = self.manner {
                    sleep(pause);
                }
                self.log().listed.push(Instant::now());
                if self.manner == Manner::WrongList {
                    *list.last_mut().context("a list")? ^= 1;
                }
                let size = u32::try_from(list.len())?;
                wire.send(&Answer::List { content, size })?;
                wire.send_raw(&list)?;
            }
            Ask::Interested { .. } | Ask::Get { .. } | Ask::Any { .. } if is_mute => {}
            Ask::Interested { content, .. } if self.manner == Manner::WrongEntries => {
                wire.send(&Answer::Entries {
                    content,
                    first: 0,
                    count: 1,
                    signature: Signature::from_bytes(&[9; 64]),
                })?;
                wire.send_raw(&[9; 32])?;
            }
            Ask::Interested { ref have, .. } => {
                self.log().out.extend(have.iter());
                let have = Bitmap::full(release.geometry.chunks());
                wire.send(&Answer::Bitmap { content, have })?;
            }
            Ask::Get { index, .. } => return self.give(wire, index),
            Ask::Have { ref chunks, .. } => self.log().out.extend(chunks),
            Ask::Any { .. } => {
                let fresh = {
                    let mut log = self.log();
                    let fresh =
                        (0..release.geometry.chunks()).find(|index| !log.out.contains(index));
                    log.out.extend(fresh);
                    fresh
                };
                match fresh {
                    Some(index) => return self.give(wire, index),
                    None => wire.send(&Answer::Exhausted { content })?,
                }
            }
            Ask::GetHashes { .. } => {
                let index = None;
                wire.send(&Answer::Missing { content, index })?;
            }
            Ask::Cancel { .. } => {}
            Ask::Offer { .. } => {
                let have = Some(Bitmap::full(release.geometry.chunks()));
                wire.send(&Answer::Offered { content, have })?;
            }
            Ask::PutDraft { .. } => {
                let refusal = Refusal::Busy;
                wire.send(&Answer::Refused { refusal })?;
            }
            Ask::PutEntries { count, .. } => drop(wire.receive_raw(32 * count)?),
            Ask::PutList { size, .. } | Ask::Put { size, .. } => {
                wire.receive_raw(size)?;
                let refusal = Refusal::Busy;
                wire.send(&Answer::Refused { refusal })?;
            }
        }
        Ok(true)
    }

    fn give(&self, wire: &mut Wire<ServerConnection>, index: u32) -> Result<bool> {
        let release = self.holding.release.unverified();
        let content = release.content;
        self.log().asked.push((Instant::now(), index));
        let extent = release.geometry.extent(index).context("a chunk")?;
        let start = usize::try_from(extent.offset)?;
        let mut bytes = self.holding.bytes[start..][..extent.size as usize].to_vec();
        match self.manner {
            Manner::Honest
            | Manner::AskedFirst
            | Manner::Mute
            | Manner::LateList(_)
            | Manner::WrongList
            | Manner::WrongEntries => {}
            Manner::Slow(pause) => sleep(pause),
            Manner::Gate(count) => {
                let mut log = self.log();
                log.granted += 1;
                let shut = log.granted > count;
                drop(log);
                if shut {
                    return Ok(self.wait_for_the_end());
                }
            }
            Manner::WrongBytes => bytes.iter_mut().for_each(|byte| *byte ^= 0x55),
            Manner::Stall => return Ok(self.wait_for_the_end()),
            Manner::HangUp => return Ok(false),
            Manner::Missing => {
                let index = Some(index);
                wire.send(&Answer::Missing { content, index })?;
                return Ok(true);
            }
            Manner::WrongSize => bytes.truncate(bytes.len() / 2),
            Manner::Garbage => {
                wire.send_raw(&[0xff; 64])?;
                return Ok(true);
            }
        }
        let size = u32::try_from(bytes.len())?;
        wire.send(&Answer::Chunk {
            content,
            index,
            size,
        })?;
        wire.send_raw(&bytes)?;
        self.log().given.push((Instant::now(), index));
        Ok(true)
    }

    /// The connection stays open and silent; then it is hung up.
    fn wait_for_the_end(&self) -> bool {
        while !self.stopped() {
            sleep(Duration::from_millis(20));
        }
        false
    }

    /// What an anchor with this one release would say.
    fn reply(&self, wire: &Wire<ServerConnection>, request: &Request) -> Result<Reply> {
        let release = self.holding.release.clone();
        self.log().requests.push(request.clone());
        Ok(match *request {
            Request::Hello { .. } => Reply::Welcome {
                version: PROTOCOL_VERSION,
            },
            Request::Join { port, advertise } => {
                let observed = wire.remote()?;
                Reply::Joined {
                    observed,
                    address: advertise.unwrap_or(SocketAddr::new(observed.ip(), port)),
                    heartbeat_ms: 5_000,
                    collect_ms: 20,
                    peers: vec![],
                }
            }
            Request::Resolve { .. } => Reply::Resolved { release },
            Request::List { .. } => Reply::Listed {
                releases: vec![release],
                more: false,
            },
            Request::Watch { .. } => Reply::Watching {
                sources: vec![self.source],
            },
            Request::Holders { .. } => Reply::Holding {
                holders: vec![Holder {
                    source: self.source,
                    have: Have::Chunks(Packed::of(&Bitmap::full(
                        release.unverified().geometry.chunks(),
                    ))),
                }],
                more: false,
            },
            Request::Publish { .. } => Reply::Published {
                outcome: Outcome::New,
            },
            _ => Reply::Done,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Chunks;

    #[test]
    fn it_speaks_both_planes_by_hand() -> Result<()> {
        let publisher = Identity::from_seed([1; 32]);
        let holding = Holding::random("a.bin", 10_000, 4_096, &publisher)?;
        let content = holding.release.unverified().content;
        let mut anchor = Fake::start(publisher, holding.clone(), Manner::Gate(1))?;
        anchor.announce(anchor.address())?;
        let stranger = Identity::from_seed([2; 32]);
        let mut chunks = Chunks::dial(anchor.address(), &stranger)?;
        let Answer::List { size, .. } = chunks.ask(&Ask::GetList { content })? else {
            bail!("no list");
        };
        assert_eq!(chunks.wire().receive_raw(size)?, holding.list);
        let Answer::Chunk { size, .. } = chunks.ask(&Ask::Get { content, index: 2 })? else {
            bail!("no chunk");
        };
        assert_eq!(chunks.wire().receive_raw(size)?, holding.bytes[8_192..]);
        chunks.wire().patience(Duration::from_millis(300));
        assert!(chunks.ask(&Ask::Get { content, index: 0 }).is_err());
        let log = anchor.log();
        assert_eq!((log.asked.len(), log.given.len()), (2, 1));
        assert_eq!(log.requests.len(), 3, "{:?}", log.requests);
        Ok(())
    }
}
