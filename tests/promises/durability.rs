//! What an anchor has answered survives the death of all of its processes.

use anchorage_tests::{PATIENCE, Swarm, proc, sha256_of, until};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

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
