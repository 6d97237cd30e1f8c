//! Swarms in virtual time: the real scheduler on simulated lines. `tests/bench/sim` runs it.
//!
//! Getters fetch a file of M chunks that an anchor has; they go on serving. Time is virtual and a heap of events is
//! all there is, so the same seed gives the same trace, of which a digest is printed.
//!
//! The makespan is compared with Kumar and Ross's minimum (2006) `T* = max(F/u_origin, F/d_min,
//! N·F/(u_origin + Σ u_i))`, and stands beside 1 + ⌊log2 N⌋/M, what M chunks need among N equal lines at least
//! (Mundinger, Weber and Weiss, 2008).

mod sim_calendar;
mod sim_lines;
mod sim_node;
mod sim_scenario;
mod sim_world;

use anchorage_manifest::{Geometry, link::BLOCK_SIZE};
use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum as _};
use serde_json::{Value, json};
use sim_scenario::{Case, Outcome, SECOND, STEP, Scenario};
use std::{
    io::{Write as _, stdout},
    path::PathBuf,
    time::Instant,
};

#[derive(Clone, Parser)]
#[command(
    about = "Makespans of simulated swarms around the real scheduler",
    after_help = "Examples:\n  \
    tests/bench/sim\n  \
    tests/bench/sim --getters 8,16,32 --chunks 512      the swarms of tests/bench/swarm\n  \
    tests/bench/sim --getters 16 --chunks 512 --case killed,late\n  \
    tests/bench/sim --getters 10000 --chunks 1000 --runs 1"
)]
struct Arguments {
    /// Numbers of getters
    #[arg(long, short, value_delimiter = ',', default_values_t = [8, 16, 32, 64])]
    getters: Vec<u32>,
    /// Numbers of chunks
    #[arg(long, short, value_delimiter = ',', default_values_t = [512])]
    chunks: Vec<u32>,
    /// What happens; without this, everything
    #[arg(long, value_enum, value_delimiter = ',')]
    case: Vec<Case>,
    /// MiB of the file
    #[arg(long, default_value_t = 64)]
    size: u64,
    /// Payload of every line both ways, in Mbit/s
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Microseconds from one node to another
    #[arg(long, default_value_t = 200)]
    latency: u64,
    /// Milliseconds from a getter's start to its first message
    #[arg(long, default_value_t = 0)]
    setup: u64,
    /// Microseconds of a processor that a chunk costs all its nodes together; none are simulated without this
    #[arg(long, default_value_t = 0)]
    chunk_cpu: u64,
    /// Processors that all nodes share, with --chunk-cpu
    #[arg(long, default_value_t = 2)]
    processors: u16,
    /// Percent of everything that the getters have when what happens "at half" happens
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=100))]
    half: u16,
    /// Seeds of each swarm, from 1 on; the median is shown
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Writes every single run there, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One row of the table.
#[derive(Clone, Copy)]
struct Row {
    case: Case,
    getters: u32,
    chunks: u32,
}

impl Arguments {
    fn scenario(&self, row: Row, seed: u64) -> Result<Scenario> {
        let least = u32::try_from((self.size << 20).div_ceil(u64::from(row.chunks.max(1))))?;
        let chunk_size = least.next_multiple_of(u32::try_from(BLOCK_SIZE)?);
        let geometry = Geometry::new(u64::from(row.chunks) * u64::from(chunk_size), chunk_size)?;
        let line = self.rate * 1_000_000 / 8;
        let mut scenario = Scenario::new(row.case, row.getters, geometry, line, seed);
        scenario.latency = self.latency * 1_000;
        scenario.setup = self.setup * 1_000_000;
        scenario.chunk_cpu = self.chunk_cpu * 1_000;
        scenario.processors = self.processors.into();
        scenario.half = self.half;
        Ok(scenario)
    }
}

/// Simulates a scenario; gives up after what would be far too long.
fn simulate(scenario: &Scenario) -> Outcome {
    let slowest = scenario.hosts.iter().filter(|host| host.counts);
    let slowest = slowest
        .map(|host| host.up.min(host.down))
        .min()
        .unwrap_or(1);
    let patience = 60 * SECOND + sim_world::duration(20 * scenario.geometry.size(), slowest);
    sim_world::run(scenario, patience)
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Simulates one swarm with every seed; its row of the table. Every single run is added to `runs`.
fn row(arguments: &Arguments, row: Row, runs: &mut Vec<Value>) -> Result<String> {
    let Row {
        case,
        getters,
        chunks,
    } = row;
    let (mut ratios, mut origin, mut events, mut digest) = (Vec::new(), Vec::new(), 0, None);
    let name = case.to_possible_value().context("a case has a name")?;
    let name = name.get_name().to_owned();
    let started = Instant::now();
    for seed in 1..=u64::from(arguments.runs) {
        let scenario = arguments.scenario(row, seed)?;
        let outcome = simulate(&scenario);
        let (makespan, least) = scenario.makespan(&outcome).with_context(|| {
            format!("{name}, N = {getters}, M = {chunks}, seed {seed}: a getter never finished")
        })?;
        ratios.push(makespan / least);
        let anchors = scenario.hosts.iter().filter(|host| host.is_anchor).count();
        let sent: u64 = outcome.sent[..anchors].iter().sum();
        origin.push(sent as f64 / scenario.geometry.size() as f64);
        events += outcome.events;
        runs.push(json!({
            "case": name, "getters": getters, "chunks": chunks, "seed": seed,
            "ratio": ratios.last(), "origin": origin.last(), "makespan_s": makespan, "least_s": least,
            "events": outcome.events, "finished_ns": outcome.finished, "sent": outcome.sent,
            "step_ns": STEP, "received": outcome.received,
            "digest": outcome.digest,
        }));
        digest.get_or_insert(outcome.digest);
    }
    let bound = 1.0 + f64::from(getters.ilog2()) / f64::from(chunks);
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
    Ok(format!(
        "{name:>11} | {getters:>5} | {chunks:>6} | {:>11.3} | {bound:>12.3} | {worst:>6.3} | {:>8.3} \
         | {events:>10} | {:>6.1} | {digest:.12}",
        median(ratios),
        median(origin),
        started.elapsed().as_secs_f64(),
    ))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.runs > 0 && arguments.rate > 0 && arguments.processors > 0,
        "nothing to simulate"
    );
    ensure!(
        arguments.getters.iter().all(|&getters| getters > 0),
        "a swarm needs a getter"
    );
    let mut out = stdout();
    writeln!(
        out,
        "benchmark: simulated swarms\nsize: {} MiB\nrate: {} Mbit/s of payload both ways\nlatency: {} µs\n\
         setup: {} ms\nprocessors: {}\n\
         runs: seeds 1 to {}, medians\n",
        arguments.size,
        arguments.rate,
        arguments.latency,
        arguments.setup,
        match arguments.chunk_cpu {
            0 => "none are simulated".to_owned(),
            us => format!("{} for all, {us} µs a chunk", arguments.processors),
        },
        arguments.runs,
    )?;
    writeln!(
        out,
        "       case |     N |      M | makespan/T* | 1+⌊log2 N⌋/M |  worst | origin/F |     events | wall s \
         | digest"
    )?;
    let cases = if arguments.case.is_empty() {
        Case::value_variants()
    } else {
        &arguments.case
    };
    let mut runs = Vec::new();
    for &case in cases {
        for &getters in &arguments.getters {
            for &chunks in &arguments.chunks {
                let swarm = Row {
                    case,
                    getters,
                    chunks,
                };
                writeln!(out, "{}", row(&arguments, swarm, &mut runs)?)?;
                out.flush()?;
            }
        }
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&json!({ "runs": runs }))?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(case: Case, getters: u32, chunks: u32, seed: u64) -> (Scenario, Outcome) {
        let arguments = Arguments::parse_from(["sim", "--size", "8"]);
        let row = Row {
            case,
            getters,
            chunks,
        };
        let scenario = arguments.scenario(row, seed).expect("within limits");
        let outcome = simulate(&scenario);
        (scenario, outcome)
    }

    #[test]
    fn the_same_scenario_gives_the_same_trace() {
        for case in Case::value_variants() {
            let [one, two, other] = [1, 1, 2].map(|seed| outcome(*case, 6, 40, seed).1.digest);
            assert_eq!(one, two);
            assert_ne!(one, other);
        }
    }

    #[test]
    fn all_finish_and_nobody_beats_the_minimum() {
        for case in Case::value_variants() {
            for (getters, chunks) in [(3, 7), (9, 100), (40, 64)] {
                let (scenario, outcome) = outcome(*case, getters, chunks, 3);
                let (makespan, least) = scenario.makespan(&outcome).expect("all finish");
                assert!(
                    makespan >= least,
                    "{case:?}, {getters} × {chunks}: {makespan} < {least}"
                );
                assert!(outcome.sent.iter().sum::<u64>() >= scenario.geometry.size());
            }
        }
    }
}
