//! Commands on a home whose node runs work through it; two nodes never fight over one home.

use anchorage_tests::{PATIENCE, Serving, Swarm, proc, sha256_of, until};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

#[test]
fn commands_work_through_the_node_that_serves() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, sha256) = swarm.file("shared.bin", 400_000)?;
    let other = swarm.peer("other")?;
    other.publish(&path, &[])?;
    let peer = swarm.peer("peer")?;
    let mut serving = peer.serve(&[])?;
    peer.get("shared.bin", &[])?;
    assert_eq!(sha256_of(&peer.path("shared.bin"))?, sha256);
    until(PATIENCE, "the node that serves in the manifest", || {
        Ok(other
            .holders("shared.bin")?
            .contains(&serving.address)
            .then_some(()))
    })?;
    let status = peer.status()?;
    assert_eq!(status["serving"], true, "{status}");
    assert_eq!(status["address"], serving.address.to_string());
    assert_eq!(status["id"], serving.id.to_string());
    let (mine, _) = swarm.file("mine.bin", 300_000)?;
    peer.publish(&mine, &["--no-upload"])?;
    assert_eq!(other.holders("mine.bin")?, [serving.address]);
    other.get("mine.bin", &[])?;
    peer.run(&["list"])?
        .exits(0)?
        .stdout
        .find("mine.bin")
        .context("the list")?;
    ensure!(!serving.process.has_ended()?);
    Ok(())
}

#[test]
fn a_failed_command_leaves_the_node_alone() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let peer = swarm.peer("peer")?;
    let mut serving = peer.serve(&[])?;
    peer.run(&["get", "nothing.bin"])?
        .exits(1)?
        .fails_clearly()?;
    peer.run(&["publish", "/nowhere.bin"])?
        .exits(1)?
        .fails_clearly()?;
    ensure!(!serving.process.has_ended()?);
    serving.process.terminate(PATIENCE)?.exits(0)?;
    Ok(())
}

#[test]
fn a_second_node_on_one_home_is_refused() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let peer = swarm.peer("peer")?;
    let mut serving = peer.serve(&[])?;
    peer.run(&["serve"])?.exits(1)?.fails_clearly()?;
    ensure!(!serving.process.has_ended()?);
    assert_eq!(peer.status()?["serving"], true);
    Ok(())
}

#[test]
fn what_a_killed_node_left_behind_is_in_nobodys_way() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, sha256) = swarm.file("left.bin", 400_000)?;
    swarm.peer("other")?.publish(&path, &[])?;
    let peer = swarm.peer("peer")?;
    let mut serving = peer.serve(&[])?;
    serving.process.signal(Signal::SIGKILL)?;
    serving.process.wait(PATIENCE)?;
    peer.get("left.bin", &[])?;
    assert_eq!(sha256_of(&peer.path("left.bin"))?, sha256);
    let serving = peer.serve(&[])?;
    assert_eq!(peer.status()?["serving"], true);
    drop(serving);
    assert_eq!(peer.status()?["serving"], false);
    Ok(())
}

#[test]
fn several_gets_on_one_home_all_end_right() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let publisher = swarm.peer("publisher")?;
    let peer = swarm.peer("peer")?;
    let mut expected = Vec::new();
    for number in 0..4 {
        let name = format!("together-{number}.bin");
        let (path, sha256) = swarm.file(&name, 4_000_000 + number)?;
        publisher.publish(&path, &[])?;
        expected.push((name, sha256));
    }
    let mut running = Vec::new();
    for (name, _) in &expected {
        running.push(peer.spawn(&["get", name, "--json"])?);
    }
    for mut process in running {
        // One that finds the home taken may say so, but not break anything.
        process.wait(PATIENCE)?.exits_one_of(&[0, 1])?;
    }
    for (name, sha256) in expected {
        peer.get(&name, &[])?;
        assert_eq!(sha256_of(&peer.path(&name))?, sha256);
    }
    Ok(())
}

#[test]
fn a_node_serves_everything_that_its_home_owns() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let publisher = swarm.peer("publisher")?;
    let peer = swarm.peer("peer")?;
    for number in 0..3 {
        let name = format!("owned-{number}.bin");
        let (path, _) = swarm.file(&name, 100_000 + number)?;
        publisher.publish(&path, &[])?;
        peer.get(&name, &[])?;
    }
    let status = peer.status()?;
    let files = status["files"].as_array().context("files")?;
    assert_eq!(files.len(), 3, "{status}");
    assert!(
        files.iter().all(|file| file["complete"] == true),
        "{status}"
    );
    let mut process = peer.spawn(&["serve", "--json"])?;
    assert_eq!(process.event("serving", PATIENCE)?["files"], 3);
    let serving = Serving::of(process)?;
    for number in 0..3 {
        until(PATIENCE, "the node in each manifest", || {
            let holders = publisher.holders(&format!("owned-{number}.bin"))?;
            Ok(holders.contains(&serving.address).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_file_that_was_removed_is_not_served() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, _) = swarm.file("removed.bin", 100_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let peer = swarm.peer("peer")?;
    peer.get("removed.bin", &[])?;
    std::fs::remove_file(peer.path("removed.bin"))?;
    let mut serving = peer.serve(&[])?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    let holders = swarm.peer("publisher")?.holders("removed.bin")?;
    assert_eq!(holders, [swarm.anchor(1).address()]);
    ensure!(proc::descriptors(serving.process.pid())? > 0);
    serving.process.terminate(PATIENCE)?.exits(0)?;
    Ok(())
}

#[test]
fn the_address_may_be_chosen_and_advertised() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, _) = swarm.file("seen.bin", 100_000)?;
    let peer = swarm.peer("peer")?;
    peer.publish(&path, &[])?;
    peer.get("seen.bin", &[])?;
    let listen = anchorage_tests::unused_address();
    let advertise = anchorage_tests::unused_address();
    let serving = peer.serve(&["--listen", &listen.to_string()])?;
    assert_eq!(serving.address, listen);
    drop(serving);
    let listen = anchorage_tests::unused_address();
    let _serving = peer.serve(&[
        "--listen",
        &listen.to_string(),
        "--advertise",
        &advertise.to_string(),
    ])?;
    until(PATIENCE, "the advertised address in the manifest", || {
        let holders = swarm.peer("reader")?.holders("seen.bin")?;
        Ok((holders.contains(&advertise) && !holders.contains(&listen)).then_some(()))
    })?;
    Ok(())
}
