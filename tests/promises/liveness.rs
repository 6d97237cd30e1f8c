//! Who is gone is in no manifest; who is alive is found.

use anchorage_manifest::{
    Bitmap, Source,
    wire::{Push, Reply, Request, ToAnchor, ToPeer},
};
use anchorage_peer::identity::Identity;
use anchorage_tests::{Control, Fake, Holding, Manner, PATIENCE, Serving, Swarm, until};
use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use std::{net::SocketAddr, time::Duration};

/// Two anchors with quick heartbeats, and a peer that serves a file of theirs.
fn swarm() -> Result<(Swarm, Serving)> {
    let swarm = Swarm::builder().heartbeat_ms(300).start()?;
    let (path, _) = swarm.file("held.bin", 400_000)?;
    let peer = swarm.peer("holder")?;
    peer.publish(&path, &[])?;
    peer.get("held.bin", &[])?;
    let serving = peer.serve(&[])?;
    is_listed(&swarm, serving.address, true)?;
    Ok((swarm, serving))
}

/// Waits until both anchors list an address as a holder, or do not.
fn is_listed(swarm: &Swarm, address: SocketAddr, listed: bool) -> Result<()> {
    let content = swarm.peer("reader")?.manifest("held.bin")?.content;
    for anchor in swarm.anchors() {
        until(PATIENCE, &format!("{address} listed: {listed}"), || {
            let mut control = Control::dial(anchor.address(), &Identity::from_seed([50; 32]))?;
            let reply = control.ask(Request::Holders {
                content,
                after: None,
            })?;
            let Reply::Holding { holders, .. } = reply else {
                bail!("holders were answered by {reply:?}");
            };
            let found = holders
                .iter()
                .any(|holder| holder.source.address == address);
            Ok((found == listed).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_serving_peer_stays_listed() -> Result<()> {
    let (swarm, serving) = swarm()?;
    std::thread::sleep(Duration::from_secs(3));
    is_listed(&swarm, serving.address, true)
}

#[test]
fn a_killed_peer_is_taken_out() -> Result<()> {
    let (swarm, mut serving) = swarm()?;
    serving.process.signal(Signal::SIGKILL)?;
    is_listed(&swarm, serving.address, false)?;
    // And the file is still to be had.
    swarm.peer("getter")?.get("held.bin", &[])?;
    serving.process.wait(PATIENCE)?;
    Ok(())
}

#[test]
fn a_stopped_peer_is_taken_out_and_put_back() -> Result<()> {
    let (swarm, serving) = swarm()?;
    serving.process.signal(Signal::SIGSTOP)?;
    is_listed(&swarm, serving.address, false)?;
    serving.process.signal(Signal::SIGCONT)?;
    is_listed(&swarm, serving.address, true)
}

#[test]
fn a_peer_that_is_ended_leaves() -> Result<()> {
    let swarm = Swarm::builder().heartbeat_ms(600_000).start()?;
    let (path, _) = swarm.file("held.bin", 400_000)?;
    let peer = swarm.peer("holder")?;
    peer.publish(&path, &[])?;
    peer.get("held.bin", &[])?;
    let mut serving = peer.serve(&[])?;
    is_listed(&swarm, serving.address, true)?;
    serving.process.terminate(PATIENCE)?.exits(0)?;
    // No heartbeat is due yet: it must have said good-bye.
    is_listed(&swarm, serving.address, false)
}

#[test]
fn three_missed_heartbeats_and_no_two() -> Result<()> {
    let swarm = Swarm::builder().anchors(1).heartbeat_ms(500).start()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("held.bin", 100_000, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    let release = holding.release.unverified();
    let (content, count) = (release.content, release.geometry.chunks());
    let mut silent = Control::dial(anchor, &Identity::from_seed([2; 32]))?;
    silent.join(30_002)?;
    silent.announce(content, &Bitmap::full(count))?;
    let last = std::time::Instant::now();
    let mut reader = Control::dial(anchor, &Identity::from_seed([3; 32]))?;
    let gone = until(PATIENCE, "the silent peer taken out", || {
        let reply = reader.ask(Request::Holders {
            content,
            after: None,
        })?;
        let Reply::Holding { holders, .. } = reply else {
            bail!("holders were answered by {reply:?}");
        };
        Ok(holders.is_empty().then(|| last.elapsed()))
    })?;
    assert!(
        gone > Duration::from_secs(1),
        "after {gone:?}, two heartbeats were missed"
    );
    assert!(gone < Duration::from_secs(10), "after {gone:?}");
    Ok(())
}

#[test]
fn those_who_watch_are_told_who_comes_and_goes() -> Result<()> {
    let swarm = Swarm::builder().anchors(1).heartbeat_ms(300).start()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("held.bin", 100_000, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    let mut watcher = Control::dial(anchor, &Identity::from_seed([2; 32]))?;
    watcher.join(30_003)?;
    let content = holding.release.unverified().content;
    let reply = watcher.ask(Request::Watch { content })?;
    assert_eq!(reply, Reply::Watching { sources: vec![] });
    let mut fake = Fake::start(publisher, holding, Manner::Honest)?;
    fake.announce(anchor)?;
    let source = Source {
        node: fake.id(),
        address: fake.address(),
    };
    is_told(&mut watcher, &Push::Came { content, source })?;
    // It goes without a word; its connection breaks.
    drop(fake);
    let node = source.node;
    is_told(&mut watcher, &Push::Gone { content, node })
}

/// Sends heartbeats until a push comes that is `wanted`.
fn is_told(watcher: &mut Control, wanted: &Push) -> Result<()> {
    let mut told = Vec::new();
    let mut id = 1_000;
    until(PATIENCE, &format!("{wanted:?}"), || {
        id += 1;
        let request = Request::Heartbeat;
        watcher.wire().send(&ToAnchor { id, request })?;
        loop {
            match watcher.wire().receive()? {
                Some(ToPeer::Push(push)) => told.push(push),
                Some(ToPeer::Reply { id: of, .. }) if of == id => break,
                Some(ToPeer::Reply { .. }) => {}
                None => bail!("the anchor hung up"),
            }
        }
        Ok(told.contains(wanted).then_some(()))
    })
}
