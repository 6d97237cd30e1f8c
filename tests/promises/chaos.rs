//! Everything at once, while processes die at random.

use anchorage_tests::{Process, Swarm, proc, sha256_of, until};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

const PEERS: usize = 8;

/// Rounds of chaos; [`ROUNDS`] asks for more.
const ROUNDS_DEFAULT: u64 = 2;
const ROUNDS: &str = "ANCHORAGE_CHAOS_ROUNDS";

/// MiB of the file; [`SIZE`] asks for more.
const SIZE_MIB_DEFAULT: u64 = 48;
const SIZE: &str = "ANCHORAGE_CHAOS_MIB";

fn number(variable: &str, default: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{variable} is {text:?}")),
        Err(_) => Ok(default),
    }
}

#[test]
fn eight_peers_finish_while_workers_die() -> Result<()> {
    for round in 0..number(ROUNDS, ROUNDS_DEFAULT)? {
        run(round).with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

fn run(round: u64) -> Result<()> {
    let mut swarm = Swarm::start()?;
    let mut random = fastrand::Rng::with_seed(round);
    let (path, sha256) = swarm.file("chaos.bin", number(SIZE, SIZE_MIB_DEFAULT)? << 20)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let supervisors: Vec<u32> = (1..=2)
        .map(|id| swarm.anchor_mut(id).process().pid())
        .collect();
    let mut tree = Vec::new();
    let mut getting: Vec<Process> = (0..PEERS)
        .map(|number| {
            let peer = swarm.peer(&format!("getter-{number}"))?;
            peer.spawn(&["get", "chaos.bin", "--json"])
        })
        .collect::<Result<_>>()?;
    let deadline = Instant::now() + Duration::from_secs(180);
    let mut kills = 0;
    loop {
        let mut running = 0;
        for process in &mut getting {
            running += usize::from(!process.has_ended()?);
        }
        if running == 0 {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "{running} peers have not finished"
        );
        let supervisor = supervisors[random.usize(..supervisors.len())];
        let workers = proc::descendants(supervisor);
        tree.extend_from_slice(&workers);
        if let Some(worker) = random.choice(&workers) {
            proc::signal(worker.pid, Signal::SIGKILL)?;
            kills += 1;
        }
        sleep(Duration::from_millis(300));
    }
    ensure!(kills > 0, "nothing was killed");
    for (number, process) in getting.iter_mut().enumerate() {
        let finished = process.wait(Duration::from_secs(5))?.exits(0)?;
        let done = finished.last("done")?;
        assert_eq!(done["sha256"], sha256.to_string());
        let peer = swarm.peer(&format!("getter-{number}"))?;
        assert_eq!(sha256_of(&peer.path("chaos.bin"))?, sha256);
    }
    for id in 1..=2 {
        let mut anchor = swarm.take_anchor(id);
        tree.extend(anchor.process().tree());
        anchor.stop()?.exits(0)?;
    }
    until(Duration::from_secs(5), "the end of every process", || {
        Ok((!tree.iter().any(|stat| proc::alive(*stat))).then_some(()))
    })
}
