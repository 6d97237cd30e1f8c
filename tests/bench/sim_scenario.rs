//! What is simulated: who has which lines, when they come, and what becomes of them; and what came of it.

use anchorage_manifest::{Geometry, Hash};
use clap::ValueEnum;

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Within so many nanoseconds all getters start.
const START_SPREAD: u64 = 20_000_000;

/// Nanoseconds of a step in which it is counted what came.
pub(crate) const STEP: u64 = SECOND / 20;

/// The cases of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// All getters start at once, on equal lines
    AllAtOnce,
    /// Every other getter has a fifth of the uplink
    SlowHalf,
    /// One more getter starts when the others are at half
    Late,
    /// A third of the getters is killed when they are at half
    Killed,
    /// One getter has a fiftieth of the downlink
    Thin,
    /// One getter stops sending at half, and closes nothing
    Stalled,
    /// Two anchors have the file, each a share of its own to give out first
    TwoAnchors,
    /// The same, and the second stops sending at half, and closes nothing
    StalledAnchor,
}

/// What happens to a host when the getters are at half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing.
    Stays,
    /// It starts only then.
    Starts,
    /// It is killed; its connections break.
    Dies,
    /// It sends nothing any more; its connections stay.
    Stalls,
}

/// A host with its lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// Bytes a second that it sends at most.
    pub(crate) up: u64,
    /// Bytes a second that it receives at most.
    pub(crate) down: u64,
    /// Whether it has the file from the start.
    pub(crate) is_anchor: bool,
    pub(crate) fate: Fate,
    /// Whether its own end counts in the makespan.
    pub(crate) counts: bool,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Sizes of file and chunks.
    pub(crate) geometry: Geometry,
    /// The anchors first.
    pub(crate) hosts: Vec<Host>,
    /// Nanoseconds from any node to any other.
    pub(crate) latency: u64,
    /// Nanoseconds from a getter's start to its first message.
    pub(crate) setup: u64,
    /// Processors that all nodes share, as on one machine.
    pub(crate) processors: usize,
    /// Nanoseconds of a processor that a chunk costs from the disk of its source to that of its getter.
    pub(crate) chunk_cpu: u64,
    /// Percent of everything that the getters have when they are said to be at half.
    pub(crate) half: u16,
    /// Nanoseconds within which the getters start.
    pub(crate) spread: u64,
    /// Of everything random.
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Nanoseconds at which each host had everything; none if it never did.
    pub(crate) finished: Vec<Option<u64>>,
    /// Nanoseconds at which the getters were at half, and bytes that they lacked then.
    pub(crate) half: Option<(u64, Vec<u64>)>,
    /// Bytes that each host sent.
    pub(crate) sent: Vec<u64>,
    /// Bytes that came to all hosts in each [`STEP`].
    pub(crate) received: Vec<u64>,
    /// Events simulated.
    pub(crate) events: u64,
    /// SHA-256 of all of them in order.
    pub(crate) digest: Hash,
}

impl Scenario {
    /// A case with so many getters on lines of `rate` bytes a second.
    pub(crate) fn new(case: Case, getters: u32, geometry: Geometry, rate: u64, seed: u64) -> Self {
        let anchor = Host {
            up: rate,
            down: rate,
            is_anchor: true,
            fate: Fate::Stays,
            counts: false,
        };
        let getter = Host {
            is_anchor: false,
            counts: true,
            ..anchor
        };
        let anchors = match case {
            Case::TwoAnchors | Case::StalledAnchor => 2,
            _ => 1,
        };
        let mut hosts = vec![anchor; anchors];
        hosts.resize(anchors + getters as usize, getter);
        if case == Case::StalledAnchor {
            hosts[1].fate = Fate::Stalls;
        }
        let (all, last) = (&mut hosts[anchors..], getters as usize - 1);
        match case {
            Case::AllAtOnce | Case::TwoAnchors | Case::StalledAnchor => {}
            Case::SlowHalf => all.iter_mut().step_by(2).for_each(|host| host.up /= 5),
            Case::Late => hosts.push(Host {
                fate: Fate::Starts,
                ..getter
            }),
            Case::Killed => {
                for host in &mut all[..getters as usize / 3] {
                    (host.fate, host.counts) = (Fate::Dies, false);
                }
            }
            Case::Thin => (all[last].down, all[last].counts) = (rate / 50, false),
            Case::Stalled => (all[last].fate, all[last].counts) = (Fate::Stalls, false),
        }
        Self {
            geometry,
            hosts,
            latency: 200_000,
            setup: 0,
            processors: 2,
            chunk_cpu: 0,
            half: 50,
            spread: START_SPREAD,
            seed,
        }
    }

    /// What the makespan is compared with, in seconds: Kumar and Ross's minimum; after half, when somebody comes
    /// or goes then, of what is left. And the makespan itself, both counted from the same moment.
    pub(crate) fn makespan(&self, outcome: &Outcome) -> Option<(f64, f64)> {
        let changes = |host: &Host| matches!(host.fate, Fate::Dies | Fate::Starts);
        let is_late = |host: &Host| host.fate == Fate::Starts;
        let counted = self.hosts.iter().zip(&outcome.finished);
        let counted: Vec<_> = counted.filter(|(host, _)| host.counts).collect();
        let last = |late: bool| {
            let ends = counted.iter().filter(|(host, _)| is_late(host) == late);
            ends.map(|(_, end)| **end)
                .collect::<Option<Vec<u64>>>()
                .map(|ends| ends.into_iter().max().unwrap_or_default() as f64 / SECOND as f64)
        };
        let size = self.geometry.size();
        if !self.hosts.iter().any(changes) {
            let lacking: Vec<u64> = self
                .hosts
                .iter()
                .map(|host| if host.counts { size } else { 0 })
                .collect();
            return Some((last(false)?, self.minimum(&lacking)));
        }
        let (at, lacking) = outcome.half.as_ref()?;
        let at = *at as f64 / SECOND as f64;
        if self.hosts.iter().any(is_late) {
            let late = self.hosts.iter().find(|host| is_late(host))?;
            return Some((last(true)? - at, size as f64 / late.down as f64));
        }
        Some((last(false)?, at + self.minimum(lacking)))
    }

    /// Kumar and Ross's minimum in seconds (2006), where every host lacks so many bytes; who lacks some and does
    /// not count, lacks none.
    fn minimum(&self, lacking: &[u64]) -> f64 {
        let hosts = || self.hosts.iter().zip(lacking);
        let stays = |host: &Host| host.is_anchor && host.fate == Fate::Stays;
        let alive = || hosts().filter(|(host, _)| host.counts || stays(host));
        let anchors: u64 = alive()
            .filter(|(host, _)| host.is_anchor)
            .map(|(host, _)| host.up)
            .sum();
        let up: u64 = alive().map(|(host, _)| host.up).sum();
        let all: u64 = alive().map(|(_, lacks)| lacks).sum();
        let longest = alive().map(|(host, &lacks)| lacks as f64 / host.down as f64);
        // What one of them has, they all can have from each other; what none has, an anchor must send.
        let first = if self.hosts.iter().any(|host| host.fate == Fate::Dies) {
            0.0
        } else {
            self.geometry.size() as f64 / anchors as f64
        };
        longest.fold(first, f64::max).max(all as f64 / up as f64)
    }
}
