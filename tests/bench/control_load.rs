//! The load of `tests/bench/control`: many peers at one anchor, with the real protocol, in one process.
//!
//! ```text
//!  1  join       N sessions: TLS, Hello, Join; each with a key and, N being large, a source address of its own
//!  2  paced      for some seconds all sessions together get so many chunks a second, and ack them as peers do: what
//!                came in the time for which the anchor has them collect, in one message, when the last is answered;
//!                a few other sessions ask Resolve at a fixed pace, and every answer's delay is noted
//!  3  flat out   the same, but every session always has so many full messages without an answer
//!  4  holders    some sessions announce all, half (a prefix), a mix, or a random half of a content's chunks; then
//!                another session asks for all Holders, page by page
//! ```
//! Prints one line of JSON, also of what was refused. Hash lists are not needed: an anchor judges acks by the sizes
//! that a release names.

mod control_peer;

use anchorage_manifest::{
    Bitmap, ContentId, Geometry, Hash, Have, Holder, Name, Release,
    limits::CHUNKS_PER_MESSAGE_MAX,
    wire::{Delivery, Reply, Request},
};
use anchorage_peer::identity::Identity;
use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use control_peer::{Peer, expect_done};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

/// Handshakes under way at the same time.
const DIALS_MAX: usize = 64;

/// How long a session that resolves pauses between two questions.
const RESOLVE_PAUSE: Duration = Duration::from_millis(5);

/// Time before what is acked and resolved counts: peers start all at once here, and get into their pace first.
const WARM_UP: Duration = Duration::from_secs(2);

/// Bytes of a chunk; nobody ever sees one.
const CHUNK_SIZE: u32 = 1 << 20;

#[derive(Clone, Parser)]
#[command(about = "Many peers at one anchor, with the real protocol; tests/bench/control runs it")]
struct Arguments {
    /// Where the anchor serves
    #[arg(long)]
    anchor: SocketAddr,
    /// Sessions that join and ack
    #[arg(long, default_value_t = 2_000)]
    peers: u32,
    /// Seconds of acks
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Chunks in one ack message of part 3
    #[arg(long, default_value_t = 64)]
    batch: u32,
    /// Ack messages without an answer, of each session in part 3
    #[arg(long, default_value_t = 1)]
    window: u32,
    /// Chunks a second of all sessions together in part 2
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Sessions that resolve
    #[arg(long, default_value_t = 4)]
    resolvers: u32,
    /// Chunks of the content that is acked
    #[arg(long, default_value_t = 1_000_000)]
    chunks: u32,
    /// Holders of the contents of part 4; 0 leaves it out
    #[arg(long, default_value_t = 1_000)]
    holders: u32,
    /// Chunks of those contents
    #[arg(long, default_value_t = 100_000)]
    holder_chunks: u32,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        (1..=CHUNKS_PER_MESSAGE_MAX).contains(&(arguments.batch as usize)),
        "an ack has 1 to {CHUNKS_PER_MESSAGE_MAX} chunks"
    );
    ensure!(
        arguments.holders <= arguments.peers,
        "holders are peers: at most {}",
        arguments.peers
    );
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(arguments))?;
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}

async fn run(arguments: Arguments) -> Result<Value> {
    let publisher = Identity::from_seed([0xff; 32]);
    let mut control = Peer::dial(arguments.anchor, publisher, 0).await?;
    control.join(1).await?;
    let names = ["acked", "all", "prefix", "mix", "random"];
    let mut contents = Vec::new();
    for name in names {
        let chunks = if name == "acked" {
            arguments.chunks
        } else {
            arguments.holder_chunks
        };
        contents.push(publish(&mut control, name, chunks).await?);
    }
    let started = Instant::now();
    let mut peers = join_all(&arguments).await?;
    let joined = started.elapsed().as_secs_f64();
    let paced = ack_all(&arguments, Pace::Collected, contents[0], &mut peers).await?;
    let full = ack_all(&arguments, Pace::FlatOut, contents[0], &mut peers).await?;
    let mut answers = Vec::new();
    if arguments.holders > 0 {
        for (name, &content) in names.iter().zip(&contents).skip(1) {
            announce_all(&arguments, name, content, &mut peers).await?;
            answers.push(holders(&mut control, name, content).await?);
        }
    }
    Ok(
        json!({"join_seconds": joined, "joined": arguments.peers, "paced": paced, "full": full,
              "holders": answers}),
    )
}

/// Registers a release of a content that nobody has.
async fn publish(control: &mut Peer, name: &str, chunks: u32) -> Result<ContentId> {
    let publisher = Identity::from_seed([0xff; 32]);
    let content = ContentId(Hash::of(name.as_bytes()));
    let size = u64::from(chunks) * u64::from(CHUNK_SIZE);
    let release = Release {
        name: name.parse()?,
        version: 1,
        content,
        geometry: Geometry::new(size, CHUNK_SIZE)?,
        publisher: publisher.id(),
    };
    let release = publisher.sign(release);
    match control.ask(Request::Publish { release }).await? {
        Reply::Published { .. } => Ok(content),
        other => bail!("publishing {name} was answered by {other:?}"),
    }
}

async fn join_all(arguments: &Arguments) -> Result<Vec<Peer>> {
    let dials = Arc::new(Semaphore::new(DIALS_MAX));
    let mut joining = JoinSet::new();
    for number in 1..=arguments.peers {
        let (dials, anchor) = (dials.clone(), arguments.anchor);
        joining.spawn(async move {
            let _turn = dials.acquire().await.context("it is never closed")?;
            let mut seed = [1; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            let mut peer = Peer::dial(anchor, Identity::from_seed(seed), number).await?;
            peer.join(u16::try_from(1_024 + number % 60_000)?).await?;
            anyhow::Ok(peer)
        });
    }
    joining.join_all().await.into_iter().collect()
}

/// How acks are sent.
#[derive(Clone, Copy)]
enum Pace {
    /// As peers do that get chunks at a given rate.
    Collected,
    /// One after the other.
    FlatOut,
}

/// What one session has done in part 2 or 3.
#[derive(Default)]
struct Acked {
    messages: u64,
    chunks: u64,
    refused: u64,
}

impl Acked {
    /// Counts an answer, if it comes late enough.
    fn count(&mut self, reply: &Reply, chunks: u64, since: Instant) -> Result<()> {
        let is_counted = u64::from(Instant::now() >= since);
        match reply {
            Reply::Acked { .. } => self.chunks += is_counted * chunks,
            Reply::Refused { .. } => self.refused += is_counted,
            other => bail!("an ack was answered by {other:?}"),
        }
        self.messages += is_counted;
        Ok(())
    }
}

async fn ack_all(
    arguments: &Arguments,
    pace: Pace,
    content: ContentId,
    peers: &mut Vec<Peer>,
) -> Result<Value> {
    let started = Instant::now() + WARM_UP;
    let until = started + Duration::from_secs_f64(arguments.seconds);
    let mut resolving = JoinSet::new();
    for number in 0..arguments.resolvers {
        let anchor = arguments.anchor;
        resolving.spawn(async move {
            let seed = [u8::try_from(number % 200)?; 32];
            let mut peer = Peer::dial(anchor, Identity::from_seed(seed), number).await?;
            resolve(&mut peer, started, until).await
        });
    }
    let mut acking = JoinSet::new();
    for peer in peers.drain(..) {
        let arguments = arguments.clone();
        acking.spawn(async move {
            match pace {
                Pace::Collected => ack_collected(&arguments, content, peer, started, until).await,
                Pace::FlatOut => ack(&arguments, content, peer, started, until).await,
            }
        });
    }
    let mut total = Acked::default();
    for acked in acking.join_all().await {
        let (peer, acked) = acked?;
        peers.push(peer);
        total.messages += acked.messages;
        total.chunks += acked.chunks;
        total.refused += acked.refused;
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut delays = Vec::new();
    for one in resolving.join_all().await {
        delays.extend(one?);
    }
    delays.sort_unstable();
    Ok(json!({
        "seconds": seconds,
        "messages_per_second": total.messages as f64 / seconds,
        "chunks_per_second": total.chunks as f64 / seconds,
        "refused": total.refused,
        "resolves": delays.len(),
        "resolve_p50_ms": percentile(&delays, 50),
        "resolve_p99_ms": percentile(&delays, 99),
        "resolve_most_ms": percentile(&delays, 100),
    }))
}

/// Milliseconds of which so many in a hundred delays are no longer.
fn percentile(sorted: &[Duration], part: usize) -> f64 {
    let at = (sorted.len() * part / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, Duration::as_secs_f64) * 1e3
}

/// One session that acks its chunks in order, again from the first when it has acked all.
async fn ack(
    arguments: &Arguments,
    content: ContentId,
    mut peer: Peer,
    since: Instant,
    until: Instant,
) -> Result<(Peer, Acked)> {
    let mut acked = Acked::default();
    let (mut next, mut open) = (0, 0);
    while Instant::now() < until {
        while open < arguments.window {
            let chunks: Vec<u32> = (next..arguments.chunks)
                .take(arguments.batch as usize)
                .collect();
            next += arguments.batch;
            if next >= arguments.chunks {
                next = 0;
            }
            let from = peer.anchor;
            let deliveries = vec![Delivery { from, chunks }];
            peer.send(Request::Ack {
                content,
                deliveries,
            })
            .await?;
            open += 1;
        }
        acked.count(&peer.receive().await?, u64::from(arguments.batch), since)?;
        open -= 1;
    }
    for _ in 0..open {
        peer.receive().await?;
    }
    Ok((peer, acked))
}

/// One session that gets its part of the chunks, in order, and acks them as peers do.
async fn ack_collected(
    arguments: &Arguments,
    content: ContentId,
    mut peer: Peer,
    since: Instant,
    until: Instant,
) -> Result<(Peer, Acked)> {
    let mut acked = Acked::default();
    let mut next = 0;
    let each = Duration::from_secs_f64(f64::from(arguments.peers) / f64::from(arguments.rate));
    // Not all at once; nor does anybody begin to fetch at the same moment as everybody else.
    sleep(WARM_UP.mul_f64(fastrand::f64() / 2.0)).await;
    let started = Instant::now();
    let mut collect = Duration::from_millis(peer.collect_ms.into());
    loop {
        let first = each.mul_f64((next + 1) as f64);
        let due =
            (started + first).max(Instant::now()) + collect.mul_f64(0.5 + fastrand::f64() / 2.0);
        if due >= until {
            break;
        }
        sleep_until(due.into()).await;
        let all = u64::try_from(started.elapsed().as_nanos() / each.as_nanos())?;
        let range = next..all.min(next + CHUNKS_PER_MESSAGE_MAX as u64);
        let from = peer.anchor;
        let chunks: Vec<u32> = range
            .map(|chunk| u32::try_from(chunk % u64::from(arguments.chunks)))
            .collect::<Result<_, _>>()?;
        let count = chunks.len() as u64;
        next += count;
        let request = Request::Ack {
            content,
            deliveries: vec![Delivery { from, chunks }],
        };
        let reply = peer.ask(request).await?;
        acked.count(&reply, count, since)?;
        if let Reply::Acked { collect_ms } = reply {
            collect = Duration::from_millis(collect_ms.into());
        }
    }
    Ok((peer, acked))
}

async fn resolve(peer: &mut Peer, since: Instant, until: Instant) -> Result<Vec<Duration>> {
    let name: Name = "acked".parse()?;
    let mut delays = Vec::new();
    while Instant::now() < until {
        let asked = Instant::now();
        match peer.ask(Request::Resolve { name: name.clone() }).await? {
            Reply::Resolved { .. } if asked < since => {}
            Reply::Resolved { .. } => delays.push(asked.elapsed()),
            // As bad as an answer that never comes: counted as the longest wait there is.
            Reply::Refused { .. } => delays.push(Duration::from_secs(10)),
            other => bail!("resolving was answered by {other:?}"),
        }
        sleep(RESOLVE_PAUSE).await;
    }
    Ok(delays)
}

async fn announce_all(
    arguments: &Arguments,
    name: &str,
    content: ContentId,
    peers: &mut Vec<Peer>,
) -> Result<()> {
    let mut announcing = JoinSet::new();
    let turns = Arc::new(Semaphore::new(DIALS_MAX));
    let others = peers.split_off(arguments.holders as usize);
    for (number, mut peer) in peers.drain(..).enumerate() {
        let have = have(name, arguments.holder_chunks, number as u64);
        let turns = turns.clone();
        announcing.spawn(async move {
            let _turn = turns.acquire().await.context("it is never closed")?;
            for segment in have.segments() {
                let announced = peer.ask(Request::Announce { content, segment }).await?;
                expect_done(&announced)?;
            }
            anyhow::Ok(peer)
        });
    }
    for peer in announcing.join_all().await {
        peers.push(peer?);
    }
    peers.extend(others);
    Ok(())
}

/// What a holder has: everything, the first half, or any half; or, as in a swarm half-way, six in ten everything, two in
/// ten a prefix of any length, and two in ten any part of any size.
fn have(kind: &str, chunks: u32, seed: u64) -> Bitmap {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut have = Bitmap::empty(chunks);
    let any = |part: f64, rng: &mut fastrand::Rng, have: &mut Bitmap| {
        (0..chunks).filter(|_| rng.f64() < part).for_each(|index| {
            have.insert(index);
        });
    };
    match (kind, seed % 10) {
        ("prefix", _) => have.insert_range(0..chunks / 2),
        ("mix", 6 | 7) => have.insert_range(0..rng.u32(1..chunks)),
        ("mix", 8 | 9) => any(rng.f64(), &mut rng, &mut have),
        ("random", _) => any(0.5, &mut rng, &mut have),
        _ => have.insert_range(0..chunks),
    }
    have
}

/// Asks for all holders, page by page.
async fn holders(control: &mut Peer, name: &str, content: ContentId) -> Result<Value> {
    let started = Instant::now();
    let before = control.bytes_in();
    let (mut after, mut pages, mut count, mut exact) = (None, 0, 0, 0);
    loop {
        let asked = control.ask(Request::Holders { content, after });
        let reply = timeout(Duration::from_secs(30), asked).await??;
        let Reply::Holding { holders, more } = reply else {
            bail!("holders were answered by {reply:?}")
        };
        pages += 1;
        count += holders.len();
        let is_exact = |holder: &&Holder| matches!(holder.have, Have::Chunks(_));
        exact += holders.iter().filter(is_exact).count();
        match holders.last() {
            Some(last) if more => after = Some(last.source.node),
            _ => break,
        }
    }
    Ok(json!({
        "have": name, "holders": count, "exact": exact, "pages": pages,
        "milliseconds": started.elapsed().as_secs_f64() * 1e3,
        "bytes": control.bytes_in() - before,
    }))
}
