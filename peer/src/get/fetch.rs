//! The driver of one fetch: connections, scheduler, verifier and anchors, brought together. Dull on purpose.

use super::{
    connection::{self, Command, Report, Shared},
    gathering::Gathering,
    verifier::{Verifier, Writer},
};
use crate::{
    buffers::Buffers,
    event::{Event as Told, Events, Phase, Progress, Share},
    failure::{Exit, Failure},
    framed,
    node::Node,
    scheduler::{Action, Event, Scheduler, SourceId},
    store::Slot,
    time::Time,
};
use anchorage_manifest::{EntriesError, NodeId, Source, limits::CHUNKS_PER_MESSAGE_MAX};
use anyhow::{Context as _, Result, anyhow};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::{
    sync::{
        mpsc,
        oneshot::{self, error::RecvError},
    },
    task::{JoinSet, spawn_blocking},
    time::sleep_until,
};

/// Time between two events of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// How long what is stored may wait for more, before the sources that choose are told.
const HAVE_BATCH: Duration = Duration::from_millis(20);

/// Reports that are taken together, at most.
const REPORTS_MAX: usize = 64;

/// One fetch.
pub(super) struct Fetch {
    node: Arc<Node>,
    slot: Arc<Slot>,
    name: String,
    events: Events,
    scheduler: Scheduler,
    gathering: Gathering,
    links: BTreeMap<SourceId, Link>,
    tasks: JoinSet<()>,
    actions: Vec<Action>,
    meter: Meter,
    progressed: Instant,
    /// Stored chunks that the sources that choose have not been told of, and when the first was.
    news: Vec<u32>,
    news_since: Option<Instant>,
    /// Chunks for which something else came.
    corrupt: BTreeSet<u32>,
    /// Why the connection before this one ended, for whoever asks why nothing comes.
    last_down: Option<anyhow::Error>,
    /// Where the slot of the content comes that a draft becomes.
    sealed: Option<oneshot::Receiver<Arc<Slot>>>,
}

struct Link {
    source: Source,
    is_anchor: bool,
    /// Whether the source has been asked to choose chunks for this node, and so wants to know what it has.
    chooses: bool,
    /// Chunks that it was asked to choose before it was known what there is to ask for.
    any_ahead: u32,
    commands: mpsc::UnboundedSender<Command>,
}

/// Bytes a second, smoothed over about a second.
struct Meter {
    bytes: u64,
    since: Instant,
    rate: f64,
}

/// What the driver waited for.
enum Wake {
    Reports,
    /// Who else has something is known.
    Gathered,
    Sealed(Result<Arc<Slot>, RecvError>),
    Time,
}

impl Fetch {
    /// Fetches what the slot lacks from whoever was gathered and will be.
    pub(super) fn new(gathering: Gathering, slot: Arc<Slot>, name: &str, events: Events) -> Self {
        let geometry = slot.geometry();
        Self {
            scheduler: Scheduler::new(geometry, slot.have(), fastrand::u64(..)),
            node: gathering.node().clone(),
            gathering,
            slot,
            name: name.to_owned(),
            events,
            links: BTreeMap::new(),
            tasks: JoinSet::new(),
            actions: Vec::new(),
            meter: Meter {
                bytes: 0,
                since: Instant::now(),
                rate: 0.0,
            },
            progressed: Instant::now(),
            news: Vec::new(),
            news_since: None,
            corrupt: BTreeSet::new(),
            last_down: None,
            sealed: None,
        }
    }

    /// The slot is a draft's; the one of the content that it becomes will come from `sealed`.
    pub(super) fn expect_seal(&mut self, sealed: oneshot::Receiver<Arc<Slot>>) {
        self.sealed = Some(sealed);
    }

    /// Fetches what is missing. Who sent what is added to `shares`.
    pub(super) async fn run(
        mut self,
        timeout: Duration,
        shares: &mut Vec<Share>,
    ) -> Result<(), Failure> {
        let (reports, mut told) = mpsc::unbounded_channel();
        let (arriving, arrivals) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            node: self.node.clone(),
            slot: self.slot.clone(),
            reports: reports.clone(),
            buffers: Arc::new(Buffers::default()),
            arrivals: arriving.downgrade(),
            sealed: OnceLock::new(),
        });
        let verifier = Verifier {
            arrivals,
            writer: Writer {
                slot: self.slot.clone(),
                buffers: shared.buffers.clone(),
                reports,
            },
        };
        let verifying = spawn_blocking(|| verifier.run());
        let mut progress_at = Instant::now();
        let mut reports = Vec::new();
        while !self.scheduler.is_done() {
            self.dial(&shared);
            let wake_at = self.deadline(progress_at);
            let woke = tokio::select! {
                // This fetch can report as well: there is no end.
                _ = told.recv_many(&mut reports, REPORTS_MAX) => Wake::Reports,
                () = self.gathering.hear() => Wake::Gathered,
                slot = seal(&mut self.sealed), if self.sealed.is_some() => Wake::Sealed(slot),
                () = sleep_until(wake_at.into()) => Wake::Time,
            };
            match woke {
                Wake::Reports => {
                    for (id, report) in reports.drain(..) {
                        self.report(id, report, shares)?;
                    }
                }
                Wake::Gathered => {}
                Wake::Sealed(slot) => {
                    self.sealed = None;
                    if let Ok(slot) = slot {
                        // There is one seal.
                        let _ = shared.sealed.set(slot.id());
                        self.gathering.rename(slot.id());
                        self.slot = slot;
                    }
                }
                Wake::Time => {
                    let now = self.now();
                    if self
                        .scheduler
                        .deadline()
                        .is_some_and(|deadline| deadline <= now)
                    {
                        self.handle(Event::Tick);
                    }
                }
            }
            let now = Instant::now();
            if self
                .news_since
                .is_some_and(|since| now >= since + HAVE_BATCH)
            {
                self.tell_have();
            }
            if now >= progress_at {
                self.tell_progress();
                progress_at = now + PROGRESS_EVERY;
            }
            if self.progressed.elapsed() >= timeout {
                return Err(self.nothing_comes(timeout));
            }
        }
        self.tell_progress();
        drop(arriving);
        verifying.await.context("BUG: hashing panicked")?;
        Ok(())
    }

    fn report(
        &mut self,
        id: SourceId,
        report: Report,
        shares: &mut Vec<Share>,
    ) -> Result<(), Failure> {
        match report {
            Report::Up(have) => {
                self.handle(Event::Bitmap(id, have));
            }
            Report::Have(chunks) => self.handle(Event::Have(id, chunks)),
            Report::Begun(index) => self.handle(Event::Chosen(id, index)),
            Report::Exhausted => self.handle(Event::Exhausted(id)),
            Report::Received(bytes) => {
                self.meter.count(bytes);
                self.handle(Event::Received(id, bytes));
            }
            Report::Stored(index, size) => {
                self.stored(id, index, size, shares);
                self.handle(Event::Stored(id, index));
            }
            Report::Missing(index) => self.handle(Event::Missing(id, index)),
            Report::Corrupt(index) => {
                self.corrupt.insert(index);
                self.handle(Event::Corrupt(id, index));
            }
            Report::Unwritable(error) => {
                return Err(super::unwritable(error, &self.slot));
            }
            Report::Down(error) => {
                self.handle(Event::Gone(id));
                if let Some(link) = self.links.remove(&id) {
                    if framed::nonsense(&error).is_some() {
                        self.gathering.sources.ban(link.source.node);
                    } else if error.is::<EntriesError>()
                        && self.gathering.sources.ban(link.source.node)
                    {
                        self.events
                            .warn(format!("{error:#}; it is not asked again"));
                    }
                    self.gathering
                        .sources
                        .down(id, link.source.node, self.now());
                }
                self.last_down = Some(error);
            }
        }
        Ok(())
    }

    fn stored(&mut self, id: SourceId, index: u32, size: u64, shares: &mut Vec<Share>) {
        self.progressed = Instant::now();
        self.news.push(index);
        self.news_since.get_or_insert(self.progressed);
        let Some(link) = self.links.get(&id) else {
            return;
        };
        self.gathering.sources.delivered(link.source.node);
        for session in &self.node.sessions {
            session.ack(self.slot.id(), index, link.source.node);
        }
        let address = link.source.address;
        let share = match shares.iter_mut().find(|share| share.address == address) {
            Some(share) => share,
            None => {
                shares.push(Share {
                    address,
                    anchor: link.is_anchor,
                    bytes: 0,
                    chunks: 0,
                });
                shares.last_mut().expect("pushed just now")
            }
        };
        share.bytes += size;
        share.chunks += 1;
    }

    /// Gives the scheduler an event and does what it says.
    fn handle(&mut self, event: Event) {
        let now = self.now();
        self.scheduler.handle(now, event, &mut self.actions);
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Get(id, index) => self.order(id, Command::Get(index)),
                Action::Any(id) => {
                    if let Some(link) = self.links.get_mut(&id) {
                        link.chooses = true;
                        if link.any_ahead > 0 {
                            link.any_ahead -= 1;
                            continue;
                        }
                    }
                    self.order(id, Command::Any);
                }
                Action::Cancel(id, index) => self.order(id, Command::Cancel(index)),
                Action::Again(id) => {
                    if let Some(link) = self.links.get(&id) {
                        self.gathering.sources.again(id, link.source.node);
                    }
                }
                Action::Drop(id) => self.hang_up(id),
                Action::Blame(id, chunk) => {
                    if let Some(Source { node, address }) =
                        self.links.get(&id).map(|link| link.source)
                    {
                        if self.gathering.sources.ban(node) {
                            self.events.tell(Told::Liar {
                                address,
                                node,
                                chunk,
                            });
                        }
                        let same: Vec<SourceId> = self.links_of(node);
                        same.into_iter().for_each(|id| self.hang_up(id));
                    }
                }
            }
        }
    }

    /// Tells the sources that choose what is stored, so that they choose something else.
    fn tell_have(&mut self) {
        self.news_since = None;
        let news = std::mem::take(&mut self.news);
        for chunks in news.chunks(CHUNKS_PER_MESSAGE_MAX) {
            for link in self.links.values().filter(|link| link.chooses) {
                // A connection that has just ended reports that itself.
                drop(link.commands.send(Command::Have(chunks.to_vec())));
            }
        }
    }

    fn links_of(&self, node: NodeId) -> Vec<SourceId> {
        self.links
            .iter()
            .filter(|(_, link)| link.source.node == node)
            .map(|(&id, _)| id)
            .collect()
    }

    fn order(&self, id: SourceId, command: Command) {
        if let Some(link) = self.links.get(&id) {
            // A connection that has just ended reports that itself.
            drop(link.commands.send(command));
        }
    }

    /// A connection without commands ends, and reports that it is down; until then it keeps its place.
    fn hang_up(&mut self, id: SourceId) {
        if let Some(link) = self.links.get_mut(&id) {
            (link.commands, _) = mpsc::unbounded_channel();
        }
    }

    fn dial(&mut self, shared: &Arc<Shared>) {
        let (dialled, ended) = self.gathering.dial();
        ended.into_iter().for_each(|id| self.hang_up(id));
        for dialled in dialled {
            let (commands, orders) = mpsc::unbounded_channel();
            let (id, source) = (dialled.id, dialled.source);
            self.links.insert(
                id,
                Link {
                    source,
                    is_anchor: self.node.is_anchor(source.node),
                    chooses: false,
                    any_ahead: dialled.asked.any,
                    commands,
                },
            );
            self.tasks
                .spawn(connection::run(shared.clone(), dialled, orders));
        }
        while self.tasks.try_join_next().is_some() {}
    }

    fn now(&self) -> Time {
        self.gathering.now()
    }

    fn deadline(&self, otherwise: Instant) -> Instant {
        let otherwise = otherwise.min(self.gathering.deadline());
        let otherwise = match self.news_since {
            Some(since) => otherwise.min(since + HAVE_BATCH),
            None => otherwise,
        };
        match self.scheduler.deadline() {
            Some(at) => otherwise.min(self.gathering.instant(at)),
            None => otherwise,
        }
    }

    fn tell_progress(&mut self) {
        let geometry = self.slot.geometry();
        let missing = self.scheduler.missing_count();
        let bytes = geometry
            .size()
            .saturating_sub(u64::from(missing) * u64::from(geometry.chunk_size()));
        self.events.tell(Told::Progress(Progress {
            name: self.name.clone(),
            phase: Phase::Fetching,
            bytes,
            size: geometry.size(),
            bytes_per_second: self.meter.read(),
            sources: self.scheduler.sources(),
        }));
    }

    /// Why it gives up.
    fn nothing_comes(&mut self, timeout: Duration) -> Failure {
        let mut what = format!(
            "nothing of {} has come for {} s; {} of {} chunks are missing ({})",
            self.name,
            timeout.as_secs(),
            self.scheduler.missing_count(),
            self.slot.geometry().chunks(),
            ranges(self.scheduler.missing()),
        );
        let sourceless = self.scheduler.sourceless();
        if sourceless > 0 {
            write!(what, "; nobody who can be reached has {sourceless} of them")
                .expect("a string grows");
        }
        let wrong = self
            .scheduler
            .missing()
            .find(|index| self.corrupt.contains(index));
        if let Some(index) = wrong {
            let number = u64::from(index) + 1;
            let error = anyhow!("{what}; what came for chunk {number} does not match its hash");
            return Failure::new(Exit::Mismatch, error).hint(
                "those who were asked lie, or the publisher has made a release that contradicts itself",
            );
        }
        let error = match self.last_down.take() {
            Some(down) => anyhow!("{what}; last: {down:#}"),
            None => anyhow!(what),
        };
        Failure::new(Exit::Incomplete, error).hint(format!(
            "what is there stays in {}: run the same command again to continue",
            self.slot.path().display()
        ))
    }
}

/// Waits for the slot of the content that a draft has become.
async fn seal(sealed: &mut Option<oneshot::Receiver<Arc<Slot>>>) -> Result<Arc<Slot>, RecvError> {
    match sealed {
        Some(sealed) => sealed.await,
        None => std::future::pending().await,
    }
}

impl Meter {
    fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    fn read(&mut self) -> f64 {
        let seconds = self.since.elapsed().as_secs_f64();
        if seconds > 0.05 {
            let weight = 1.0 - (-seconds).exp();
            self.rate += weight * (self.bytes as f64 / seconds - self.rate);
            self.bytes = 0;
            self.since = Instant::now();
        }
        self.rate
    }
}

/// Chunk numbers in words, counted from 1: "3, 7–9 and more".
fn ranges(chunks: impl Iterator<Item = u32>) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in chunks.map(|index| u64::from(index) + 1) {
        let is_full = ranges.len() == 8;
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ if is_full => {
                ranges.push((0, 0));
                break;
            }
            _ => ranges.push((number, number)),
        }
    }
    let words: Vec<String> = ranges
        .iter()
        .map(|&(first, last)| match (first, last) {
            (0, _) => "and more".to_owned(),
            _ if first == last => first.to_string(),
            _ => format!("{first}–{last}"),
        })
        .collect();
    words.join(", ")
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn missing_chunks_are_told_in_ranges() {
        assert_eq!(super::ranges([0, 4, 5, 6, 9].into_iter()), "1, 5–7, 10");
        assert_eq!(
            super::ranges((0..40).step_by(2)),
            "1, 3, 5, 7, 9, 11, 13, 15, and more"
        );
        assert_eq!(super::ranges(std::iter::empty()), "");
    }
}
