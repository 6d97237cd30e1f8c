//! A source that stops, and closes nothing, is noticed and replaced within a second.
//!
//! What is stopped by SIGSTOP keeps its connections, and its kernel takes new ones on its behalf. The second is proved in
//! the tests of the scheduler; machines that test have other things to do, so here it is four.

use anchorage_peer::identity::Identity;
use anchorage_tests::{
    Anchor, Fake, Holding, Manner, PATIENCE, Process, Swarm, proc, sha256_of, until,
};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::{
    thread::{available_parallelism, sleep},
    time::{Duration, Instant},
};

/// How long nothing may come.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Less than the chunks of these files have.
const CHUNK_SIZE_MIN: u64 = 64 << 10;

/// Stops all processes of an anchor.
fn stop(anchor: &mut Anchor) -> Result<()> {
    let supervisor = anchor.process().pid();
    let mut pids: Vec<u32> = anchor.children().iter().map(|child| child.pid).collect();
    pids.push(supervisor);
    pids.into_iter()
        .try_for_each(|pid| proc::signal(pid, Signal::SIGSTOP))
}

/// Waits until a getter has written so much; false if it was faster than that.
fn has_written(getter: &mut Process, bytes: u64) -> Result<bool> {
    until(PATIENCE, "a part of the download", || {
        if getter.has_ended()? {
            return Ok(Some(false));
        }
        let written = proc::written(getter.pid()).unwrap_or(0);
        Ok((written > bytes).then_some(true))
    })
}

/// The longest time until the end of a getter in which it wrote nothing.
fn longest_pause(getter: &mut Process) -> Result<Duration> {
    let begin = Instant::now();
    let (mut before, mut since) = (proc::written(getter.pid())?, begin);
    let mut longest = Duration::ZERO;
    while !getter.has_ended()? {
        ensure!(begin.elapsed() < PATIENCE, "it does not end");
        let written = proc::written(getter.pid()).unwrap_or(before);
        longest = longest.max(since.elapsed());
        // Less than that is talk.
        if written >= before + CHUNK_SIZE_MIN {
            (before, since) = (written, Instant::now());
        }
        sleep(Duration::from_millis(5));
    }
    Ok(longest)
}

#[test]
fn an_anchor_that_stops_in_the_middle_costs_less_than_a_second() -> Result<()> {
    let mut swarm = Swarm::start()?;
    let size = 320 << 20;
    let (path, sha256) = swarm.file("big.bin", size)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    let mut process = getter.spawn(&["get", "big.bin", "--json"])?;
    ensure!(
        has_written(&mut process, size / 5)?,
        "too fast to be caught"
    );
    stop(swarm.anchor_mut(2))?;
    let pause = longest_pause(&mut process)?;
    process.wait(PATIENCE)?.exits(0)?.last("done")?;
    assert_eq!(sha256_of(&getter.path("big.bin"))?, sha256);
    assert!(pause < PAUSE_MAX, "nothing came for {pause:?}");
    Ok(())
}

#[test]
fn where_one_of_several_transfer_processes_stops_another_is_found() -> Result<()> {
    if available_parallelism()?.get() < 2 {
        // There is one transfer process a core.
        return Ok(());
    }
    let swarm = Swarm::start_one()?;
    let size = 320 << 20;
    let (path, sha256) = swarm.file("big.bin", size)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let transfers: Vec<u32> = {
        let children = swarm.anchor(1).children().into_iter();
        let is_transfer =
            |pid| proc::args(pid).is_ok_and(|args| args.starts_with("anchor: transfer"));
        let pids = children.map(|child| child.pid);
        pids.filter(|&pid| is_transfer(pid)).collect()
    };
    let before: Vec<u64> = transfers
        .iter()
        .map(|&pid| proc::read(pid))
        .collect::<Result<_>>()?;
    let getter = swarm.peer("getter")?;
    let mut process = getter.spawn(&["get", "big.bin", "--json"])?;
    ensure!(
        has_written(&mut process, size / 5)?,
        "too fast to be caught"
    );
    let sent = |&(pid, before): &(u32, u64)| proc::read(pid).unwrap_or(0).saturating_sub(before);
    let busiest = transfers.into_iter().zip(before).max_by_key(sent);
    let (busiest, _) = busiest.context("an anchor without transfer processes")?;
    proc::signal(busiest, Signal::SIGSTOP)?;
    let pause = longest_pause(&mut process)?;
    process.wait(PATIENCE)?.exits(0)?.last("done")?;
    assert_eq!(sha256_of(&getter.path("big.bin"))?, sha256);
    assert!(pause < PAUSE_MAX, "nothing came for {pause:?}");
    Ok(())
}

#[test]
fn a_download_begins_while_an_anchor_is_stopped() -> Result<()> {
    let mut swarm = Swarm::start()?;
    let publisher = swarm.peer("publisher")?;
    let sizes = [("small.bin", 10_000), ("big.bin", 20 << 20)];
    for (name, size) in sizes {
        publisher.publish(&swarm.file(name, size)?.0, &[])?;
    }
    // Its sessions are up when the anchor stops, those of the other are not.
    let running = swarm.peer("running")?;
    let _node = running.serve(&[])?;
    stop(swarm.anchor_mut(2))?;
    for (name, _) in sizes {
        for (who, getter) in [("new", swarm.peer(name)?), ("running", running.clone())] {
            let begin = Instant::now();
            let mut process = getter.spawn(&["get", name, "--json"])?;
            process.event("done", PATIENCE)?;
            let took = begin.elapsed();
            assert!(took < PAUSE_MAX, "{name}, {who}: it took {took:?}");
            process.wait(PATIENCE)?.exits(0)?;
        }
    }
    Ok(())
}

#[test]
fn a_source_that_does_not_say_what_it_has_is_asked_anew() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("mute.bin", 100_000, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    let mut mute = Fake::start(publisher, holding.clone(), Manner::Mute)?;
    mute.announce(anchor)?;
    let getter = swarm.peer("getter")?;
    getter.get("mute.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("mute.bin"))?, holding.sha256());
    assert_eq!(mute.log().hellos.len(), 2);
    Ok(())
}
