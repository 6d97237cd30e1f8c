//! A swarm in virtual time: the real scheduler on simulated lines. `tests/bench/sim` runs it.
//!
//! N getters start at once and fetch a file of M chunks that one origin has; getters go on serving. Time is virtual and
//! a heap of events is all there is, so the same seed gives the same trace, of which a digest is printed.
//!
//! The makespan is compared with Kumar and Ross's minimum (2006) `T* = max(F/u_origin, F/d_min,
//! N·F/(u_origin + Σ u_i))`, and stands beside 1 + ⌊log2 N⌋/M, what M chunks need among N equal lines at least
//! (Mundinger, Weber and Weiss, 2008).

/// The memory behind `Any`: the very file that peers are built from.
#[path = "../../peer/src/serve/audience.rs"]
mod audience;
mod sim_model;
mod sim_world;

use anchorage_manifest::Geometry;
use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use sim_model::{Outcome, Scenario};
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
    tests/bench/sim --getters 16 --chunks 512 --slow-half"
)]
struct Arguments {
    /// Numbers of getters
    #[arg(long, short, value_delimiter = ',', default_values_t = [8, 16, 32, 64])]
    getters: Vec<u32>,
    /// Numbers of chunks
    #[arg(long, short, value_delimiter = ',', default_values_t = [100, 512, 1_000])]
    chunks: Vec<u32>,
    /// MiB of the file
    #[arg(long, default_value_t = 64)]
    size: u64,
    /// Payload of every line both ways, in Mbit/s
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Every other getter has a fifth of the uplink
    #[arg(long)]
    slow_half: bool,
    /// Microseconds from one node to another
    #[arg(long, default_value_t = 200)]
    latency: u64,
    /// Seeds of each swarm, from 1 on; the median is shown
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Writes every single run there, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Arguments {
    fn scenario(&self, getters: u32, chunks: u32, seed: u64) -> Result<Scenario> {
        let chunk_size = u32::try_from((self.size << 20).div_ceil(u64::from(chunks.max(1))))?;
        let geometry = Geometry::new(u64::from(chunks) * u64::from(chunk_size), chunk_size)?;
        let line = self.rate * 1_000_000 / 8;
        let slow = |number: u32| self.slow_half && number % 2 == 1;
        let up = (0..=getters).map(|number| if slow(number) { line / 5 } else { line });
        Ok(Scenario {
            geometry,
            up: up.collect(),
            down: vec![line; getters as usize + 1],
            latency: self.latency * 1_000,
            seed,
        })
    }
}

/// Kumar and Ross's minimum in seconds.
fn minimum(scenario: &Scenario) -> f64 {
    let size = scenario.geometry.size() as f64;
    let up: u64 = scenario.up.iter().sum();
    let getters = (scenario.up.len() - 1) as f64;
    let down = scenario.down[1..].iter().min().copied().unwrap_or(1);
    (size / scenario.up[0] as f64)
        .max(size / down as f64)
        .max(getters * size / up as f64)
}

/// Seconds until the last had everything.
fn makespan(outcome: &Outcome) -> Result<f64> {
    let all: Option<Vec<f64>> = outcome.finished.iter().copied().collect();
    let all = all.context("a getter never finished")?;
    Ok(all.into_iter().fold(0.0, f64::max))
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Simulates one swarm with every seed; its row of the table. Every single run is added to `runs`.
fn row(arguments: &Arguments, getters: u32, chunks: u32, runs: &mut Vec<Value>) -> Result<String> {
    let (mut ratios, mut origin, mut events, mut digest) = (Vec::new(), Vec::new(), 0, None);
    let started = Instant::now();
    for seed in 1..=u64::from(arguments.runs) {
        let scenario = arguments.scenario(getters, chunks, seed)?;
        let outcome = sim_world::run(&scenario);
        ratios.push(makespan(&outcome)? / minimum(&scenario));
        origin.push(outcome.origin_bytes as f64 / scenario.geometry.size() as f64);
        events += outcome.events;
        runs.push(json!({
            "getters": getters, "chunks": chunks, "seed": seed,
            "ratio": ratios.last(), "origin": origin.last(), "events": outcome.events,
            "finished": outcome.finished, "digest": outcome.digest,
        }));
        digest.get_or_insert(outcome.digest);
    }
    let bound = 1.0 + f64::from(getters.ilog2()) / f64::from(chunks);
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
    Ok(format!(
        "{getters:>5} | {chunks:>6} | {:>11.3} | {bound:>12.3} | {worst:>6.3} | {:>8.3} | {events:>9} | {:>6.2} \
         | {digest:.12}",
        median(ratios),
        median(origin),
        started.elapsed().as_secs_f64(),
    ))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.runs > 0 && arguments.rate > 0,
        "nothing to simulate"
    );
    ensure!(
        arguments.getters.iter().all(|&getters| getters > 0),
        "a swarm needs a getter"
    );
    let mut out = stdout();
    writeln!(
        out,
        "benchmark: simulated swarms, all getters start within 20 ms and serve to the end\n\
         size: {} MiB\nrate: {} Mbit/s of payload both ways{}\nlatency: {} µs\nruns: seeds 1 to {}, medians\n",
        arguments.size,
        arguments.rate,
        if arguments.slow_half {
            ", half with a fifth up"
        } else {
            ""
        },
        arguments.latency,
        arguments.runs,
    )?;
    writeln!(
        out,
        "    N |      M | makespan/T* | 1+⌊log2 N⌋/M |  worst | origin/F |    events | wall s | digest"
    )?;
    let mut runs = Vec::new();
    for &getters in &arguments.getters {
        for &chunks in &arguments.chunks {
            writeln!(out, "{}", row(&arguments, getters, chunks, &mut runs)?)?;
            out.flush()?;
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

    fn outcome(getters: u32, chunks: u32, seed: u64) -> (Scenario, Outcome) {
        let arguments = Arguments::parse_from(["sim", "--size", "8"]);
        let scenario = arguments
            .scenario(getters, chunks, seed)
            .expect("within limits");
        let outcome = sim_world::run(&scenario);
        (scenario, outcome)
    }

    #[test]
    fn the_same_scenario_gives_the_same_trace() {
        let [one, two, other] = [1, 1, 2].map(|seed| outcome(5, 40, seed).1.digest);
        assert_eq!(one, two);
        assert_ne!(one, other);
    }

    #[test]
    fn all_finish_and_nobody_beats_the_minimum() {
        for (getters, chunks) in [(1, 1), (1, 50), (2, 1), (3, 7), (9, 100), (40, 64)] {
            let (scenario, outcome) = outcome(getters, chunks, 3);
            let makespan = makespan(&outcome).expect("all finish");
            let least = minimum(&scenario);
            assert!(
                makespan >= least,
                "{getters} × {chunks}: {makespan} < {least}"
            );
            assert!(outcome.origin_bytes >= scenario.geometry.size());
        }
    }
}
