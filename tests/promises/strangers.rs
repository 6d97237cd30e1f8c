//! Bytes that no node would send harm nobody but their sender.

use anchorage_manifest::{
    ContentId, Hash, Name,
    codec::{self, PREFIX_SIZE},
    limits::PROTOCOL_VERSION,
    wire::{
        ALPN_CHUNKS, ALPN_CONTROL, Answer, Ask, Delivery, Refusal, Reply, Request, ToAnchor, ToPeer,
    },
};
use anchorage_peer::{identity::Identity, tls};
use anchorage_tests::{
    Chunks, Control, PATIENCE, Serving, Swarm, Wire, proc, random_bytes, sha256_of, until,
};
use anyhow::{Context as _, Result, bail, ensure};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::{
    ClientConfig, SignatureScheme,
    client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert},
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

/// An anchor and a serving peer, both with a file, and what they looked like before the strangers came.
struct Harbour {
    swarm: Swarm,
    peer: Serving,
    anchor_before: Vec<(proc::Stat, usize)>,
    peer_before: usize,
    sha256: Hash,
}

impl Harbour {
    fn new() -> Result<Self> {
        let swarm = Swarm::start_one()?;
        let (path, sha256) = swarm.file("cargo.bin", 200_000)?;
        let owner = swarm.peer("owner")?;
        owner.publish(&path, &[])?;
        owner.get("cargo.bin", &[])?;
        let peer = owner.serve(&[])?;
        swarm.peer("first")?.get("cargo.bin", &[])?;
        let anchor_before = swarm.anchor(1).health()?;
        let peer_before = proc::descriptors(peer.process.pid())?;
        Ok(Self {
            swarm,
            peer,
            anchor_before,
            peer_before,
            sha256,
        })
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        [self.swarm.anchor(1).address(), self.peer.address]
    }

    /// Others are served, nothing was restarted, nothing leaks, nothing panicked.
    fn unharmed(mut self) -> Result<()> {
        self.is_served("afterwards")?;
        self.swarm.anchor(1).is_unharmed(&self.anchor_before, 3)?;
        let pid = self.peer.process.pid();
        until(
            Duration::from_secs(30),
            "the peer's descriptors to be closed",
            || Ok((proc::descriptors(pid)? <= self.peer_before + 3).then_some(())),
        )?;
        ensure!(
            !self.peer.process.has_ended()?,
            "{}",
            self.peer.process.so_far()
        );
        let anchor = self.swarm.anchor_mut(1).process().so_far();
        for finished in [self.peer.process.so_far(), anchor] {
            ensure!(!finished.stderr.contains("panicked"), "{finished}");
        }
        Ok(())
    }

    fn is_served(&self, name: &str) -> Result<()> {
        let getter = self.swarm.peer(name)?;
        getter.get("cargo.bin", &[])?;
        assert_eq!(sha256_of(&getter.path("cargo.bin"))?, self.sha256);
        Ok(())
    }
}

fn stranger() -> Identity {
    Identity::from_seed([77; 32])
}

/// Sends plain bytes, and wants to be hung up on; what was answered does not matter.
fn is_hung_up_on(address: SocketAddr, bytes: &[u8]) -> Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // The node may hang up before all of it is sent.
    if socket.write_all(bytes).is_err() {
        return Ok(());
    }
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{address} did not hang up")),
    }
}

#[test]
fn garbage_instead_of_tls() -> Result<()> {
    let harbour = Harbour::new()?;
    for address in harbour.addresses() {
        for seed in 0..4 {
            is_hung_up_on(address, &random_bytes(5_000, seed))?;
        }
        is_hung_up_on(address, &[0; 1_000])?;
        is_hung_up_on(address, &[0xff; 1_000])?;
    }
    harbour.unharmed()
}

#[test]
fn plain_http() -> Result<()> {
    let harbour = Harbour::new()?;
    for address in harbour.addresses() {
        is_hung_up_on(address, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    }
    harbour.unharmed()
}

#[test]
fn a_client_hello_that_is_cut_off() -> Result<()> {
    let harbour = Harbour::new()?;
    for address in harbour.addresses() {
        // The record says 512 bytes, and then half of them come, or one, or a part of its head.
        let mut hello = vec![22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        hello.resize(260, 7);
        for length in [3, 6, 260] {
            let mut socket = TcpStream::connect(address)?;
            socket.write_all(&hello[..length])?;
            socket.shutdown(Shutdown::Write)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let _ = socket.read_to_end(&mut Vec::new());
        }
        // A record that claims more than TLS allows.
        is_hung_up_on(address, &[22, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff])?;
    }
    harbour.unharmed()
}

#[test]
fn an_unknown_protocol_in_alpn() -> Result<()> {
    let harbour = Harbour::new()?;
    for address in harbour.addresses() {
        let config = tls::client_config(&stranger(), b"h2", None)?;
        ensure!(
            Wire::dial(address, config)?.handshake().is_err(),
            "h2 is spoken at {address}"
        );
        // Without any, a node may take it for a chunk connection or hang up.
        let mut config = (*tls::client_config(&stranger(), b"h2", None)?).clone();
        config.alpn_protocols.clear();
        let mut wire = Wire::dial(address, Arc::new(config))?;
        if wire.handshake().is_ok() {
            let version = PROTOCOL_VERSION;
            wire.send(&Ask::Hello { version })?;
            let _ = wire.receive::<Answer>();
        }
    }
    harbour.unharmed()
}

#[test]
fn a_peer_does_not_speak_as_an_anchor() -> Result<()> {
    let harbour = Harbour::new()?;
    let config = tls::client_config(&stranger(), ALPN_CONTROL, None)?;
    let mut wire = Wire::dial(harbour.peer.address, config)?;
    ensure!(
        wire.handshake().is_err(),
        "a peer took a control connection"
    );
    harbour.unharmed()
}

/// Shows no key at all.
#[derive(Debug)]
struct NoKey;

impl ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A key of a kind that no node has.
fn foreign_key() -> Result<Arc<dyn ResolvesClientCert>> {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
        .ok()
        .context("a key")?;
    let der = PrivateKeyDer::Pkcs8(pair.as_ref().to_vec().into());
    let key = default_provider().key_provider.load_private_key(der)?;
    let spki = key.public_key().context("a public key")?;
    let spki = CertificateDer::from(spki.as_ref().to_vec());
    let certified = CertifiedKey::new(vec![spki], key);
    Ok(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(
        certified,
    ))))
}

#[test]
fn tls_without_a_key_or_with_a_foreign_one() -> Result<()> {
    let harbour = Harbour::new()?;
    let addresses = harbour.addresses();
    for (address, alpn) in addresses.into_iter().zip([ALPN_CONTROL, ALPN_CHUNKS]) {
        for keys in [
            Arc::new(NoKey) as Arc<dyn ResolvesClientCert>,
            foreign_key()?,
        ] {
            let base = tls::client_config(&stranger(), alpn, None)?;
            let mut config: ClientConfig = (*base).clone();
            config.client_auth_cert_resolver = keys;
            let mut wire = Wire::dial(address, Arc::new(config))?;
            // In TLS 1.3 the client may be done before the server has looked at its key.
            let said = wire.handshake().is_ok()
                && wire
                    .send(&ToAnchor {
                        id: 1,
                        request: hello(PROTOCOL_VERSION),
                    })
                    .is_ok()
                && matches!(wire.receive::<ToPeer>(), Ok(Some(_)));
            ensure!(!said, "{address} talks to a client without a good key");
        }
    }
    harbour.unharmed()
}

fn hello(version: u16) -> Request {
    Request::Hello { version }
}

#[test]
fn another_version_is_told_which_one_is_spoken() -> Result<()> {
    let harbour = Harbour::new()?;
    let [anchor, peer] = harbour.addresses();
    let version = PROTOCOL_VERSION + 1;
    let mut control = Control::dial_silently(anchor, &stranger())?;
    match control.ask(hello(version))? {
        Reply::Refused {
            refusal: Refusal::Version { supported },
        } => assert_eq!(supported, PROTOCOL_VERSION),
        other => bail!("it was answered by {other:?}"),
    }
    control.wire().is_hung_up_on()?;
    for address in [anchor, peer] {
        let mut chunks = Chunks::dial_silently(address, &stranger())?;
        match chunks.ask(&Ask::Hello { version })? {
            Answer::Refused {
                refusal: Refusal::Version { supported },
            } => assert_eq!(supported, PROTOCOL_VERSION),
            other => bail!("{address} answered {other:?}"),
        }
        chunks.wire().is_hung_up_on()?;
    }
    harbour.unharmed()
}

/// Frames that are none, and a word that the refusal must have in it, if there can be a refusal.
fn bad_frames(good: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let mut tag = good.to_vec();
    // Behind the length; a control frame has the request's id before the tag.
    let at = if good[PREFIX_SIZE] == 1 {
        PREFIX_SIZE + 1
    } else {
        PREFIX_SIZE
    };
    tag[at] = 99;
    let mut trailing = good.to_vec();
    trailing.push(0);
    trailing[3] += 1;
    vec![
        ("a frame that claims 4 GiB", vec![0xff; 64], "4294967295"),
        ("an unknown tag", tag, "99"),
        ("a frame with something behind", trailing, ""),
        ("a frame without a body", vec![0; 4], ""),
    ]
}

#[test]
fn bad_frames_on_the_control_plane() -> Result<()> {
    let harbour = Harbour::new()?;
    let [anchor, _] = harbour.addresses();
    let good = codec::frame(&ToAnchor {
        id: 1,
        request: Request::Heartbeat,
    });
    for (what, bytes, word) in bad_frames(&good) {
        let mut control = Control::dial(anchor, &stranger())?;
        control.wire().send_raw(&bytes)?;
        let mut told = String::new();
        while let Ok(Some(message)) = control.wire().receive::<ToPeer>() {
            told = format!("{message:?}");
        }
        ensure!(
            told.contains("Malformed") && told.contains(word),
            "{what}: {told:?}"
        );
    }
    // Cut off in the middle, and then nothing more.
    let mut control = Control::dial(anchor, &stranger())?;
    control.wire().send_raw(&good[..good.len() - 1])?;
    drop(control);
    // Something else than hello first.
    let mut control = Control::dial_silently(anchor, &stranger())?;
    if let Ok(reply) = control.ask(Request::Heartbeat) {
        ensure!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
    }
    harbour.unharmed()
}

#[test]
fn bad_frames_on_the_chunk_plane() -> Result<()> {
    let harbour = Harbour::new()?;
    let content = harbour.swarm.peer("owner")?.manifest("cargo.bin")?.content;
    let good = codec::frame(&Ask::Get { content, index: 0 });
    for address in harbour.addresses() {
        for (what, bytes, word) in bad_frames(&good) {
            let mut chunks = Chunks::dial(address, &stranger())?;
            chunks.wire().send_raw(&bytes)?;
            let mut told = String::new();
            while let Ok(Some(message)) = chunks.wire().receive::<Answer>() {
                told = format!("{message:?}");
            }
            ensure!(
                told.contains("Malformed") && told.contains(word),
                "{what} to {address}: {told:?}"
            );
        }
        let mut chunks = Chunks::dial(address, &stranger())?;
        chunks.wire().send_raw(&good[..good.len() - 1])?;
        drop(chunks);
        // Something else than hello first.
        let mut chunks = Chunks::dial_silently(address, &stranger())?;
        if let Ok(answer) = chunks.ask(&Ask::Get { content, index: 0 }) {
            ensure!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
        }
    }
    harbour.unharmed()
}

#[test]
fn asks_for_what_is_not_there() -> Result<()> {
    let harbour = Harbour::new()?;
    let content = harbour.swarm.peer("owner")?.manifest("cargo.bin")?.content;
    let unknown = ContentId(Hash::of(b"nobody's"));
    for address in harbour.addresses() {
        let mut chunks = Chunks::dial(address, &stranger())?;
        let answer = chunks.ask(&Ask::GetList { content: unknown })?;
        assert_eq!(
            answer,
            Answer::Missing {
                content: unknown,
                index: None
            }
        );
        let answer = chunks.ask(&Ask::Get {
            content: unknown,
            index: 3,
        })?;
        assert_eq!(
            answer,
            Answer::Missing {
                content: unknown,
                index: Some(3)
            }
        );
        let answer = chunks.ask(&Ask::Get {
            content,
            index: u32::MAX,
        })?;
        assert_eq!(
            answer,
            Answer::Missing {
                content,
                index: Some(u32::MAX)
            }
        );
        // The connection is as good as before.
        let Answer::Chunk { size, .. } = chunks.ask(&Ask::Get { content, index: 0 })? else {
            bail!("no chunk from {address}");
        };
        chunks.wire().receive_raw(size)?;
    }
    harbour.unharmed()
}

#[test]
fn a_peer_stores_nothing_for_strangers() -> Result<()> {
    let harbour = Harbour::new()?;
    let content = harbour.swarm.peer("owner")?.manifest("cargo.bin")?.content;
    let [_, peer] = harbour.addresses();
    let mut chunks = Chunks::dial(peer, &stranger())?;
    chunks.wire().send(&Ask::Put {
        content,
        index: 0,
        size: 4,
    })?;
    chunks.wire().send_raw(b"mine")?;
    match chunks.answer() {
        Ok(Answer::Refused { .. }) | Err(_) => {}
        Ok(other) => bail!("it was answered by {other:?}"),
    }
    harbour.unharmed()
}

#[test]
fn requests_before_a_join_are_refused() -> Result<()> {
    let harbour = Harbour::new()?;
    let content = harbour.swarm.peer("owner")?.manifest("cargo.bin")?.content;
    let mut control = Control::dial(harbour.addresses()[0], &stranger())?;
    let from = stranger().id();
    for request in [
        Request::Ack {
            content,
            deliveries: vec![Delivery {
                from,
                chunks: vec![0],
            }],
        },
        Request::Watch { content },
        Request::Heartbeat,
    ] {
        match control.ask(request)? {
            Reply::Refused {
                refusal: Refusal::NotJoined,
            } => {}
            other => bail!("it was answered by {other:?}"),
        }
    }
    harbour.unharmed()
}

#[test]
fn acks_of_chunks_that_do_not_exist_are_not_listed() -> Result<()> {
    let harbour = Harbour::new()?;
    let owner = harbour.swarm.peer("owner")?;
    let content = owner.manifest("cargo.bin")?.content;
    let from = stranger().id();
    let mut control = Control::dial(harbour.addresses()[0], &stranger())?;
    control.join(30_001)?;
    for request in [
        Request::Ack {
            content,
            deliveries: vec![Delivery {
                from,
                chunks: vec![1 << 20, u32::MAX],
            }],
        },
        Request::Ack {
            content: ContentId(Hash::of(b"nobody's")),
            deliveries: vec![Delivery {
                from,
                chunks: vec![0],
            }],
        },
    ] {
        match control.ask(request)? {
            Reply::Refused { .. } | Reply::Acked { .. } => {}
            other => bail!("it was answered by {other:?}"),
        }
    }
    let claimed: SocketAddr = ([127, 0, 0, 1], 30_001).into();
    let manifest = owner.manifest("cargo.bin")?;
    ensure!(
        manifest
            .chunks
            .iter()
            .all(|chunk| !chunk.peers.contains(&claimed))
    );
    drop(control);
    harbour.unharmed()
}

#[test]
fn a_bad_name_on_the_wire_is_refused() -> Result<()> {
    let harbour = Harbour::new()?;
    let name: Name = "music.txt".parse()?;
    let good = codec::frame(&ToAnchor {
        id: 1,
        request: Request::Resolve { name },
    });
    let at = good
        .windows(5)
        .position(|part| part == b"music")
        .context("the name")?;
    for bad in [b'/', 0, b'\n', 0x1b, 0xff] {
        let mut bytes = good.clone();
        bytes[at + 2] = bad;
        let mut control = Control::dial(harbour.addresses()[0], &stranger())?;
        control.wire().send_raw(&bytes)?;
        let message = control.wire().receive::<ToPeer>()?;
        ensure!(
            format!("{message:?}").contains("Malformed"),
            "{bad}: {message:?}"
        );
    }
    harbour.unharmed()
}

#[test]
fn a_thousand_connections_that_say_nothing() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(20_000), hard)?;
    let harbour = Harbour::new()?;
    let mut silent = Vec::new();
    for address in harbour.addresses() {
        for number in 0..1_000 {
            let socket = TcpStream::connect(address)
                .with_context(|| format!("connection {number} to {address}"))?;
            silent.push(socket);
        }
    }
    // Others are served while these are there.
    harbour.is_served("meanwhile")?;
    drop(silent);
    harbour.unharmed()
}

#[test]
fn silent_connections_are_hung_up_on() -> Result<()> {
    let harbour = Harbour::new()?;
    for address in harbour.addresses() {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut answer = Vec::new();
        match socket.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error).with_context(|| format!("{address} waits for ever")),
        }
    }
    harbour.unharmed()
}
