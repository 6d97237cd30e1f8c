//! A source that lies, stalls, breaks off or talks nonsense costs a re-request, and no more.

use anchorage_peer::identity::Identity;
use anchorage_tests::{Fake, Finished, Holding, Log, Manner, PATIENCE, Swarm, sha256_of};
use anyhow::{Result, ensure};
use std::time::Duration;

const CHUNKS: usize = 60;

/// Gets a file from one slow honest source and one bad one; gives what the getter said and what the bad one saw.
fn get_beside(manner: Manner, options: &[&str]) -> Result<(Finished, Fake)> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("true.bin", CHUNKS * 4_096, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    // The honest one is slow, so that there is time to meet the other and to meet it again.
    let slow = Manner::Slow(Duration::from_millis(60));
    let mut honest = Fake::start(publisher, holding.clone(), slow)?;
    let mut bad = Fake::start(Identity::from_seed([66; 32]), holding.clone(), manner)?;
    bad.announce(anchor)?;
    honest.announce(anchor)?;
    let getter = swarm.peer("getter")?;
    let finished = getter.run(&[&["get", "true.bin"], options].concat())?;
    let finished = finished.exits(0)?;
    assert_eq!(sha256_of(&getter.path("true.bin"))?, holding.sha256());
    ensure!(
        !bad.log().hellos.is_empty(),
        "the bad source was never met: {finished}"
    );
    Ok((finished, bad))
}

/// Nobody dials a liar again, once its lie has had time to arrive.
fn is_shunned(log: &Log, since: std::time::Instant) -> Result<()> {
    let late = since + Duration::from_millis(700);
    ensure!(
        log.hellos.iter().all(|when| *when < late) && log.asked_since(late).is_empty(),
        "the liar was asked again: {log:?}"
    );
    Ok(())
}

#[test]
fn a_liar_is_named_and_not_asked_again() -> Result<()> {
    let (finished, bad) = get_beside(Manner::WrongBytes, &[])?;
    let finished = finished.says(&[&bad.address().to_string()])?;
    let log = bad.log();
    ensure!(!log.given.is_empty(), "it gave nothing: {finished}");
    is_shunned(&log, log.given[0].0)?;
    let lies = finished
        .stderr
        .lines()
        .filter(|line| line.contains(&bad.address().to_string()))
        .count();
    assert!(lies <= 3, "once is enough: {finished}");
    Ok(())
}

#[test]
fn a_liar_counts_for_no_bytes() -> Result<()> {
    let (finished, bad) = get_beside(Manner::WrongBytes, &["--json"])?;
    let done = finished.last("done")?;
    let from = done["from"].as_array().into_iter().flatten();
    let address = bad.address().to_string();
    for source in from.filter(|source| source["address"] == address) {
        assert_eq!(source["chunks"], 0, "{done}");
    }
    Ok(())
}

#[test]
fn a_source_that_stalls_holds_nothing_up() -> Result<()> {
    let (_, bad) = get_beside(Manner::Stall, &[])?;
    ensure!(!bad.log().asked.is_empty(), "it was asked nothing");
    Ok(())
}

#[test]
fn a_source_that_hangs_up_holds_nothing_up() -> Result<()> {
    let (finished, bad) = get_beside(Manner::HangUp, &[])?;
    let count = bad.log().hellos.len();
    ensure!(count < CHUNKS, "it was dialled {count} times: {finished}");
    Ok(())
}

#[test]
fn a_source_without_what_it_announced_holds_nothing_up() -> Result<()> {
    get_beside(Manner::Missing, &[])?;
    Ok(())
}

#[test]
fn a_chunk_of_the_wrong_size_is_no_chunk() -> Result<()> {
    let (_, bad) = get_beside(Manner::WrongSize, &[])?;
    let log = bad.log();
    ensure!(!log.given.is_empty(), "it gave nothing");
    is_shunned(&log, log.given[0].0)
}

#[test]
fn a_source_that_talks_nonsense_is_not_asked_again() -> Result<()> {
    let (_, bad) = get_beside(Manner::Garbage, &[])?;
    let log = bad.log();
    ensure!(!log.asked.is_empty(), "it was asked nothing");
    is_shunned(&log, log.asked[0].0)
}

#[test]
fn a_wrong_list_is_not_believed() -> Result<()> {
    get_beside(Manner::WrongList, &[])?;
    Ok(())
}

#[test]
fn a_source_that_dies_in_the_middle_is_replaced() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("true.bin", CHUNKS * 4_096, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    let slow = Manner::Slow(Duration::from_millis(60));
    let mut mortal = Fake::start(publisher, holding.clone(), slow)?;
    mortal.announce(anchor)?;
    let getter = swarm.peer("getter")?;
    let mut process = getter.spawn(&["get", "true.bin", "--json"])?;
    anchorage_tests::until(PATIENCE, "five chunks", || {
        Ok((mortal.log().given.len() >= 5).then_some(()))
    })?;
    let mut heir = Fake::start(
        Identity::from_seed([2; 32]),
        holding.clone(),
        Manner::Honest,
    )?;
    heir.announce(anchor)?;
    drop(mortal);
    process.wait(PATIENCE)?.exits(0)?;
    assert_eq!(sha256_of(&getter.path("true.bin"))?, holding.sha256());
    Ok(())
}

#[test]
fn a_node_at_the_address_of_another_gives_nothing() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("true.bin", CHUNKS * 4_096, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    // The first claims the second's address; who dials it meets another key than announced.
    let victim = Fake::start(
        Identity::from_seed([3; 32]),
        holding.clone(),
        Manner::Honest,
    )?;
    let mut claimant = Fake::start(
        Identity::from_seed([2; 32]),
        holding.clone(),
        Manner::Honest,
    )?;
    claimant.announce_as(anchor, victim.address())?;
    let getter = swarm.peer("getter")?;
    getter
        .run(&["get", "true.bin", "--timeout", "2"])?
        .exits(4)?
        .fails_clearly()?;
    assert!(
        victim.log().hellos.is_empty(),
        "the handshake must fail before the first word"
    );
    let mut honest = Fake::start(publisher, holding.clone(), Manner::Honest)?;
    honest.announce(anchor)?;
    getter.get("true.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("true.bin"))?, holding.sha256());
    Ok(())
}
