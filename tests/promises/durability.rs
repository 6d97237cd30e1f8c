//! What an anchor has answered survives the death of all of its processes.

use anchorage_tests::{PATIENCE, Stream, Swarm, proc, sha256_of, until};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

#[test]
fn a_release_and_its_chunks_survive_the_death_of_the_whole_tree() -> Result<()> {
    let mut swarm = Swarm::start_one()?;
    let publisher = swarm.peer("publisher")?;
    let (path, sha256) = swarm.file("kept.bin", 5_000_000)?;
    for round in 0..3 {
        let name = format!("kept-{round}.bin");
        publisher.publish(&path, &["--name", &name])?;
        swarm.anchor_mut(1).crash_and_restart()?;
        let getter = swarm.peer(&format!("getter-{round}"))?;
        let list = getter.run(&["list", "--json"])?.exits(0)?.json()?;
        assert_eq!(list.as_array().context("an array")?.len(), round + 1);
        getter.get(&name, &[])?;
        assert_eq!(sha256_of(&getter.path(&name))?, sha256);
    }
    Ok(())
}

#[test]
fn an_anchor_keeps_its_key() -> Result<()> {
    let mut swarm = Swarm::start_one()?;
    let key = swarm.anchor(1).key();
    swarm.anchor_mut(1).crash_and_restart()?;
    assert_eq!(swarm.anchor(1).key(), key);
    Ok(())
}

#[test]
fn holders_come_back_to_an_anchor_that_forgot_them() -> Result<()> {
    let mut swarm = Swarm::builder().anchors(1).heartbeat_ms(200).start()?;
    let (path, _) = swarm.file("held.bin", 500_000)?;
    let peer = swarm.peer("peer")?;
    peer.publish(&path, &[])?;
    let mut process = peer.spawn(&["get", "held.bin", "--serve", "--json"])?;
    process.event("done", PATIENCE)?;
    let address = peer.status()?["address"]
        .as_str()
        .context("an address")?
        .parse()?;
    // A command that meets the dying process itself may fail; it is repeated.
    let is_holder = || {
        let holders = peer.holders("held.bin");
        holders.is_ok_and(|holders| holders.contains(&address))
    };
    for kill in [
        "the manifest process",
        "the connection process",
        "the whole tree",
    ] {
        until(
            PATIENCE,
            &format!("the holder in the manifest before {kill} is killed"),
            || Ok(is_holder().then_some(())),
        )?;
        if kill == "the whole tree" {
            swarm.anchor_mut(1).crash_and_restart()?;
        } else {
            let task = kill.split(' ').nth(1).context("a word")?;
            swarm.anchor(1).replace_worker(task, PATIENCE)?;
        }
    }
    until(PATIENCE, "the holder in the manifest again", || {
        Ok(is_holder().then_some(()))
    })?;
    Ok(())
}

#[test]
fn an_upload_goes_on_after_the_death_of_its_anchor() -> Result<()> {
    let mut swarm = Swarm::start_one()?;
    let publisher = swarm.peer("publisher")?;
    let (path, sha256) = swarm.file("broken-off.bin", 128 << 20)?;
    let text = path.to_str().context("a path")?;
    let mut process = publisher.spawn(&["publish", text, "--json"])?;
    let worker = swarm.anchor(1).children();
    until(PATIENCE, "some of the upload", || {
        ensure!(
            !process.has_ended()?,
            "too fast to be caught: {}",
            process.so_far()
        );
        let written = worker
            .iter()
            .filter_map(|stat| proc::written(stat.pid).ok());
        Ok((written.sum::<u64>() > 16 << 20).then_some(()))
    })?;
    process.signal(Signal::SIGKILL)?;
    swarm.anchor_mut(1).crash_and_restart()?;
    publisher.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    getter.get("broken-off.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("broken-off.bin"))?, sha256);
    Ok(())
}

/// The places of an anchor's contents, as they are kept.
fn places(state: &Path) -> Result<Vec<(PathBuf, Value)>> {
    let contents = fs::read_dir(state.join("store"))?.flatten();
    let paths = contents.map(|folder| folder.path().join("place"));
    paths
        .filter(|path| path.exists())
        .map(|path| {
            let place = serde_json::from_slice(&fs::read(&path)?)?;
            Ok((path, place))
        })
        .collect()
}

#[test]
fn what_an_anchor_had_not_flushed_when_its_machine_stopped_is_read_again() -> Result<()> {
    let mut swarm = Swarm::start_one()?;
    let publisher = swarm.peer("publisher")?;
    let (path, sha256) = swarm.file("cut.bin", 5_000_000)?;
    publisher.publish(&path, &[])?;
    let state = swarm.anchor(1).state();
    until(PATIENCE, "all of it on the disk", || {
        let places = places(&state)?;
        ensure!(places.len() == 1, "{places:?}");
        Ok((places[0].1["settled"] == true).then_some(()))
    })?;
    swarm.take_anchor(1).kill()?;
    // As it would be had the power been cut before that: in another boot of the machine, and a chunk is missing.
    for (path, mut place) in places(&state)? {
        place["settled"] = false.into();
        place["boot"] = "an earlier boot".into();
        fs::write(&path, place.to_string())?;
        let data = File::options()
            .write(true)
            .open(path.with_file_name("data"))?;
        data.write_all_at(&[0; 5_000], 1_000_000)?;
    }
    swarm.start_anchor(1)?;
    let getter = swarm.peer("getter")?;
    let mut getting = getter.spawn(&["get", "cut.bin", "--json"])?;
    getting
        .line(Stream::Stdout, PATIENCE, |line| {
            let progress: Value = serde_json::from_str(line).ok()?;
            // One chunk is missing, or two where they meet.
            (progress["bytes"].as_u64()? >= 5_000_000 - 2 * 16_384).then_some(())
        })
        .context("what is good of it does not come")?;
    ensure!(!getting.has_ended()?, "there is nothing to be had of it");
    // What is missing the publisher has, who brings it again.
    publisher.publish(&path, &[])?;
    getting.wait(PATIENCE)?.exits(0)?;
    assert_eq!(sha256_of(&getter.path("cut.bin"))?, sha256);
    Ok(())
}
