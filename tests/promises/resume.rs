//! A download that was killed continues, and gets nothing twice.

use anchorage_peer::identity::Identity;
use anchorage_tests::{
    Fake, Holding, Manner, PATIENCE, Peer, Process, Swarm, proc, sha256_of, until,
};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::{collections::BTreeSet, time::Instant};

/// A getter, and a source that gives some chunks of a file and then no more.
struct Halted {
    swarm: Swarm,
    holding: Holding,
    gate: Fake,
    getter: Peer,
    name: &'static str,
    given: usize,
}

impl Halted {
    fn start(name: &'static str, chunks: usize, given: usize) -> Result<Self> {
        let swarm = Swarm::start_one()?;
        let anchor = swarm.anchor(1).address();
        let publisher = Identity::from_seed([1; 32]);
        let holding = Holding::random(name, chunks * 4_096, 4_096, &publisher)?;
        holding.register(anchor, &publisher)?;
        let mut gate = Fake::start(publisher, holding.clone(), Manner::Gate(given))?;
        gate.announce(anchor)?;
        let getter = swarm.peer("getter")?;
        Ok(Self {
            swarm,
            holding,
            gate,
            getter,
            name,
            given,
        })
    }

    /// Begins to download, until the source gives no more.
    fn begin(&self) -> Result<Process> {
        let process = self.getter.spawn(&["get", self.name, "--json"])?;
        until(PATIENCE, "the gate to shut", || {
            Ok((self.gate.log().asked.len() > self.given).then_some(()))
        })?;
        Ok(process)
    }

    /// Downloads it all, from another source and whatever is there already.
    fn end(&self) -> Result<()> {
        let other = Identity::from_seed([2; 32]);
        let mut honest = Fake::start(other, self.holding.clone(), Manner::Honest)?;
        honest.announce(self.swarm.anchor(1).address())?;
        self.getter.get(self.name, &[])?;
        let sha256 = sha256_of(&self.getter.path(self.name))?;
        assert_eq!(sha256, self.holding.sha256());
        Ok(())
    }
}

#[test]
fn what_was_acknowledged_is_not_downloaded_again() -> Result<()> {
    let halted = Halted::start("resume.bin", 60, 25)?;
    let mut process = halted.begin()?;
    let Halted {
        swarm,
        holding,
        gate,
        getter,
        ..
    } = halted;
    let acked = until(PATIENCE, "25 acknowledged chunks", || {
        let manifest = getter.manifest("resume.bin")?;
        let acked = manifest
            .chunks
            .iter()
            .filter(|chunk| chunk.peers.len() == 2);
        let acked: BTreeSet<u32> = acked.map(|chunk| chunk.index).collect();
        Ok((acked.len() == 25).then_some(acked))
    })?;
    process.signal(Signal::SIGKILL)?;
    process.wait(PATIENCE)?;
    assert!(getter.path("resume.bin.part").exists());
    assert!(!getter.path("resume.bin").exists());

    let address = gate.address();
    drop(gate);
    let start = Instant::now();
    let publisher = Identity::from_seed([1; 32]);
    let mut honest = Fake::start_at(address, publisher, holding.clone(), Manner::Honest)?;
    honest.announce(swarm.anchor(1).address())?;
    let done = getter.get("resume.bin", &[])?;
    let wanted = honest.log().asked_since(start);
    let twice: Vec<_> = wanted.intersection(&acked).collect();
    assert!(
        twice.is_empty(),
        "marked chunks were asked for again: {twice:?}"
    );
    assert_eq!(wanted.len(), 35);
    let bytes = done["from"].as_array().context("sources")?.iter();
    let bytes: u64 = bytes.filter_map(|source| source["bytes"].as_u64()).sum();
    assert_eq!(bytes, 35 * 4_096, "{done}");
    assert_eq!(sha256_of(&getter.path("resume.bin"))?, holding.sha256());
    Ok(())
}

#[test]
fn a_big_download_killed_again_and_again_ends_right() -> Result<()> {
    let swarm = Swarm::start()?;
    let size = 160 << 20;
    let (path, sha256) = swarm.file("big.bin", size)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    let mut kills = 0;
    for _ in 0..3 {
        let mut process = getter.spawn(&["get", "big.bin", "--json"])?;
        let caught = until(PATIENCE, "a fifth of the download", || {
            if process.has_ended()? {
                return Ok(Some(false));
            }
            Ok((proc::written(process.pid()).unwrap_or(0) > size / 5).then_some(true))
        })?;
        if !caught {
            break;
        }
        process.signal(Signal::SIGKILL)?;
        process.wait(PATIENCE)?;
        kills += 1;
    }
    ensure!(kills > 0, "too fast to be caught");
    let done = getter.get("big.bin", &[])?;
    let bytes = done["from"].as_array().context("sources")?.iter();
    let bytes: u64 = bytes.filter_map(|source| source["bytes"].as_u64()).sum();
    ensure!(
        bytes < size - size / 10,
        "{bytes} of {size} bytes were downloaded in the last run"
    );
    assert_eq!(sha256_of(&getter.path("big.bin"))?, sha256);
    Ok(())
}

#[test]
fn ctrl_c_ends_with_130_and_keeps_what_is_there() -> Result<()> {
    let halted = Halted::start("stop.bin", 30, 10)?;
    let mut process = halted.begin()?;
    process.signal(Signal::SIGINT)?;
    process.wait(PATIENCE)?.exits(130)?;
    assert!(halted.getter.path("stop.bin.part").exists());
    assert!(!halted.getter.path("stop.bin").exists());
    Ok(())
}

#[test]
fn a_part_that_was_damaged_is_found_and_fetched_again() -> Result<()> {
    let halted = Halted::start("hurt.bin", 40, 20)?;
    let mut process = halted.begin()?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    process.signal(Signal::SIGKILL)?;
    process.wait(PATIENCE)?;
    let part = halted.getter.path("hurt.bin.part");
    let bytes = std::fs::read(&part)?;
    std::fs::write(&part, vec![0; bytes.len()])?;
    halted.end()
}

#[test]
fn what_was_removed_under_a_running_node_is_fetched_again() -> Result<()> {
    let halted = Halted::start("gone.bin", 40, 20)?;
    let mut serving = halted.getter.serve(&[])?;
    let mut process = halted.begin()?;
    process.signal(Signal::SIGINT)?;
    process.wait(PATIENCE)?.exits(130)?;
    std::fs::remove_file(halted.getter.path("gone.bin.part"))?;
    halted.end()?;
    std::fs::remove_file(halted.getter.path("gone.bin"))?;
    halted.end()?;
    ensure!(!serving.process.has_ended()?);
    Ok(())
}
