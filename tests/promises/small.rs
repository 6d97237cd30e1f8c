//! A small file costs one connection and one round trip to a source; what a source spoils costs no more than that.

use anchorage_peer::identity::Identity;
use anchorage_tests::{Fake, Finished, Holding, Manner, Peer, Swarm, sha256_of};
use anyhow::{Result, bail};

const CHUNKS: u32 = 3;

fn small() -> Result<(Identity, Holding)> {
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("small.bin", 3 * 4_096 - 5, 4_096, &publisher)?;
    Ok((publisher, holding))
}

/// Gets a small file that two nodes hold, one of them a bad one, until the bad one was asked. Which of the two is asked
/// first is left to chance: that it is never the bad one happens once in four billion times.
fn get_beside(manner: Manner) -> Result<()> {
    for round in 0..32 {
        let swarm = Swarm::start_one()?;
        let anchor = swarm.anchor(1).address();
        let (publisher, holding) = small()?;
        holding.register(anchor, &publisher)?;
        let mut honest = Fake::start(publisher, holding.clone(), Manner::Honest)?;
        let mut bad = Fake::start(Identity::from_seed([66; 32]), holding.clone(), manner)?;
        bad.announce(anchor)?;
        honest.announce(anchor)?;
        let getter = swarm.peer(&format!("getter-{round}"))?;
        get(&getter)?;
        assert_eq!(sha256_of(&getter.path("small.bin"))?, holding.sha256());
        if !bad.log().asked.is_empty() {
            return Ok(());
        }
    }
    bail!("the bad source was never asked")
}

fn get(getter: &Peer) -> Result<Finished> {
    getter.run(&["get", "small.bin"])?.exits(0)
}

#[test]
fn a_small_file_costs_one_connection() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let (publisher, holding) = small()?;
    holding.register(anchor, &publisher)?;
    let mut source = Fake::start(publisher, holding.clone(), Manner::Honest)?;
    source.announce(anchor)?;
    let getter = swarm.peer("getter")?;
    let finished = get(&getter)?;
    assert_eq!(sha256_of(&getter.path("small.bin"))?, holding.sha256());
    let log = source.log();
    let asked: Vec<u32> = log.asked.iter().map(|&(_, index)| index).collect();
    assert_eq!(log.hellos.len(), 1, "{finished}");
    assert_eq!(asked, (0..CHUNKS).collect::<Vec<_>>(), "{finished}");
    Ok(())
}

#[test]
fn who_gets_a_small_file_is_in_the_manifest() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let (publisher, holding) = small()?;
    holding.register(anchor, &publisher)?;
    let mut source = Fake::start(publisher, holding, Manner::Honest)?;
    source.announce(anchor)?;
    let getter = swarm.peer("getter")?;
    let _node = getter.serve(&[])?;
    get(&getter)?;
    let holders = getter.holders("small.bin")?;
    assert_eq!(holders.len(), 2, "{holders:?}");
    Ok(())
}

/// Over a connection that is kept from the file before, the anchor is asked before it is known who has the file.
#[test]
fn an_anchor_without_a_small_file_costs_one_more_request() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let (path, sha256) = swarm.file("before.bin", 10_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    let _node = getter.serve(&[])?;
    getter.get("before.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("before.bin"))?, sha256);
    let (publisher, holding) = small()?;
    holding.register(anchor, &publisher)?;
    let mut source = Fake::start(publisher, holding.clone(), Manner::Honest)?;
    source.announce(anchor)?;
    let finished = get(&getter)?;
    assert_eq!(sha256_of(&getter.path("small.bin"))?, holding.sha256());
    let log = source.log();
    let asked: Vec<u32> = log.asked.iter().map(|&(_, index)| index).collect();
    assert_eq!(asked, (0..CHUNKS).collect::<Vec<_>>(), "{finished}");
    Ok(())
}

#[test]
fn a_source_that_lies_about_a_small_file_costs_one_more_request() -> Result<()> {
    get_beside(Manner::WrongBytes)
}

#[test]
fn a_source_that_hangs_up_on_a_small_file_costs_one_more_request() -> Result<()> {
    get_beside(Manner::HangUp)
}

#[test]
fn a_source_without_what_it_announced_costs_one_more_request() -> Result<()> {
    get_beside(Manner::Missing)
}
