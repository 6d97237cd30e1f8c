//! A download that was killed continues, and gets nothing twice.

use anchorage_peer::identity::Identity;
use anchorage_tests::{Fake, Holding, Manner, PATIENCE, Swarm, proc, sha256_of, until};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::{collections::BTreeSet, time::Instant};

#[test]
fn what_was_acknowledged_is_not_downloaded_again() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("resume.bin", 60 * 4_096, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    let mut gate = Fake::start(publisher, holding.clone(), Manner::Gate(25))?;
    gate.announce(anchor)?;
    let getter = swarm.peer("getter")?;
    let mut process = getter.spawn(&["get", "resume.bin", "--json"])?;
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
    honest.announce(anchor)?;
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
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("stop.bin", 30 * 4_096, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    let mut gate = Fake::start(publisher, holding, Manner::Gate(10))?;
    gate.announce(anchor)?;
    let getter = swarm.peer("getter")?;
    let mut process = getter.spawn(&["get", "stop.bin", "--json"])?;
    until(PATIENCE, "the gate to shut", || {
        Ok((gate.log().asked.len() > 10).then_some(()))
    })?;
    process.signal(Signal::SIGINT)?;
    process.wait(PATIENCE)?.exits(130)?;
    assert!(getter.path("stop.bin.part").exists());
    assert!(!getter.path("stop.bin").exists());
    Ok(())
}

#[test]
fn a_part_that_was_damaged_is_found_and_fetched_again() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("hurt.bin", 40 * 4_096, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    let mut gate = Fake::start(publisher, holding.clone(), Manner::Gate(20))?;
    gate.announce(anchor)?;
    let getter = swarm.peer("getter")?;
    let mut process = getter.spawn(&["get", "hurt.bin", "--json"])?;
    until(PATIENCE, "the gate to shut", || {
        Ok((gate.log().asked.len() > 20).then_some(()))
    })?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    process.signal(Signal::SIGKILL)?;
    process.wait(PATIENCE)?;
    drop(gate);
    let part = getter.path("hurt.bin.part");
    let bytes = std::fs::read(&part)?;
    std::fs::write(&part, vec![0; bytes.len()])?;

    let mut honest = Fake::start(
        Identity::from_seed([2; 32]),
        holding.clone(),
        Manner::Honest,
    )?;
    honest.announce(anchor)?;
    getter.get("hurt.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("hurt.bin"))?, holding.sha256());
    Ok(())
}

#[test]
fn what_was_removed_under_a_running_node_is_fetched_again() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("gone.bin", 40 * 4_096, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    let mut gate = Fake::start(publisher, holding.clone(), Manner::Gate(20))?;
    gate.announce(anchor)?;
    let getter = swarm.peer("getter")?;
    let mut serving = getter.serve(&[])?;
    let mut process = getter.spawn(&["get", "gone.bin", "--json"])?;
    until(PATIENCE, "the gate to shut", || {
        Ok((gate.log().asked.len() > 20).then_some(()))
    })?;
    process.signal(Signal::SIGINT)?;
    process.wait(PATIENCE)?.exits(130)?;
    drop(gate);
    std::fs::remove_file(getter.path("gone.bin.part"))?;

    let mut honest = Fake::start(
        Identity::from_seed([2; 32]),
        holding.clone(),
        Manner::Honest,
    )?;
    honest.announce(anchor)?;
    getter.get("gone.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("gone.bin"))?, holding.sha256());
    std::fs::remove_file(getter.path("gone.bin"))?;
    getter.get("gone.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("gone.bin"))?, holding.sha256());
    ensure!(!serving.process.has_ended()?);
    Ok(())
}
