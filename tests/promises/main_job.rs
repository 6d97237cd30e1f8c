//! Publish, get, ack, serve: every peer that has a chunk is in the manifest.

use anchorage_manifest::{
    Bitmap, Source,
    limits::PEERS_MAX,
    wire::{Answer, Ask, Reply, Request},
};
use anchorage_peer::{
    identity::Identity,
    rings::{RINGS, Rings},
};
use anchorage_tests::{
    Chunks, Control, Fake, Finished, Holding, Manner, PATIENCE, Serving, Swarm, sha256_of, until,
};
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

const MUSIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/music.txt");

#[test]
fn three_peers_get_music_one_after_another_and_each_is_in_the_manifest() -> Result<()> {
    let swarm = Swarm::start()?;
    let music = PathBuf::from(MUSIC);
    let sha256 = sha256_of(&music)?;
    let publisher = swarm.peer("publisher")?;
    let event = publisher.publish(&music, &[])?;
    assert_eq!(event["name"], "music.txt");
    assert_eq!(event["version"], 1);
    assert_eq!(event["outcome"], "new");
    assert_eq!(event["anchors"], serde_json::json!([1, 2]));
    assert_eq!(event["sha256"], sha256.to_string());
    assert_eq!(event["size"], music.metadata()?.len());

    let mut expected: BTreeSet<SocketAddr> = swarm
        .anchors()
        .iter()
        .map(anchorage_tests::Anchor::address)
        .collect();
    assert_eq!(
        holders(&publisher)?,
        expected,
        "the anchors hold what was uploaded"
    );
    let mut serving = Vec::new();
    for name in ["first", "second", "third"] {
        let peer = swarm.peer(name)?;
        let mut process = peer.spawn(&["get", "music.txt", "--serve", "--json"])?;
        let done = process.event("done", PATIENCE)?;
        assert_eq!(done["name"], "music.txt");
        assert_eq!(done["sha256"], sha256.to_string());
        assert_eq!(done["bytes"], music.metadata()?.len());
        assert!(done["seconds"].is_number(), "{done}");
        let from = done["from"].as_array().context("sources")?;
        let bytes: u64 = from
            .iter()
            .filter_map(|source| source["bytes"].as_u64())
            .sum();
        assert!(bytes >= music.metadata()?.len(), "{done}");
        for source in from {
            let address: SocketAddr = source["address"].as_str().context("an address")?.parse()?;
            assert!(
                expected.contains(&address),
                "a stranger gave chunks: {done}"
            );
        }
        let path = PathBuf::from(done["path"].as_str().context("a path")?);
        assert_eq!(sha256_of(&peer.path("music.txt"))?, sha256);
        assert_eq!(sha256_of(&peer.home().join("..").join(path))?, sha256);
        assert!(!peer.path("music.txt.part").exists());

        let status = peer.status()?;
        assert_eq!(status["serving"], true, "{status}");
        let address = status["address"].as_str().context("an address")?;
        expected.insert(address.parse()?);
        until(PATIENCE, "the new holder in the manifest", || {
            Ok((holders(&publisher)? == expected).then_some(()))
        })?;
        serving.push(process);
    }
    for anchor in swarm.anchors() {
        until(PATIENCE, "the peers in the status", || {
            Ok((anchor.count("peers")? >= 3).then_some(()))
        })?;
        assert_eq!(anchor.count("releases")?, 1);
    }
    Ok(())
}

fn holders(peer: &anchorage_tests::Peer) -> Result<BTreeSet<SocketAddr>> {
    Ok(peer.holders("music.txt")?.into_iter().collect())
}

#[test]
fn the_manifest_says_what_each_chunk_is() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let publisher = swarm.peer("publisher")?;
    let (path, sha256) = swarm.file("a.bin", 100_000)?;
    publisher.publish(&path, &["--chunk-size", "16KiB", "--name", "music.txt"])?;
    let manifest = until(PATIENCE, "the anchor as a holder of everything", || {
        let manifest = publisher.manifest("music.txt")?;
        let mut chunks = manifest.chunks.iter();
        Ok(chunks
            .all(|chunk| !chunk.peers.is_empty())
            .then_some(manifest))
    })?;
    assert_eq!((manifest.name.as_str(), manifest.version), ("music.txt", 1));
    assert_eq!((manifest.size, manifest.chunk_size), (100_000, 16_384));
    assert_eq!(manifest.sha256, sha256);
    assert_eq!(manifest.chunks.len(), 7);
    let bytes = std::fs::read(&path)?;
    for (chunk, part) in manifest.chunks.iter().zip(bytes.chunks(16_384)) {
        assert_eq!(chunk.name, format!("music{}.txt", chunk.index + 1));
        assert_eq!(chunk.offset, u64::from(chunk.index) * 16_384);
        assert_eq!(chunk.size as usize, part.len());
        assert_eq!(chunk.sha256, Some(anchorage_tests::sha256(part)));
        assert_eq!(chunk.peers, [swarm.anchor(1).address()]);
    }
    let people = publisher.run(&["manifest", "music.txt"])?.exits(0)?;
    assert!(people.stdout.contains("music.txt"), "{people}");
    Ok(())
}

#[test]
fn the_publisher_may_leave_and_each_chunk_is_acknowledged_to_both_anchors() -> Result<()> {
    let swarm = Swarm::start()?;
    let (path, sha256) = swarm.file("left.bin", 3_000_000)?;
    let event = swarm
        .peer("publisher")?
        .publish(&path, &["--chunk-size", "64KiB"])?;
    let chunks = event["chunks"].as_u64().context("a number of chunks")?;
    assert_eq!(chunks, 46);
    let getter = swarm.peer("getter")?;
    getter.get("left.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("left.bin"))?, sha256);
    for anchor in swarm.anchors() {
        until(PATIENCE, "an ack for each chunk", || {
            let acks = anchor.count("acks_from_anchors")? + anchor.count("acks_from_peers")?;
            Ok((acks == chunks).then_some(()))
        })?;
        assert_eq!(
            anchor.count("acks_from_peers")?,
            0,
            "no peer had anything to give"
        );
        // Transfer processes report once a second.
        until(PATIENCE, "each anchor's own copy", || {
            Ok((anchor.count("bytes_in")? >= 3_000_000).then_some(()))
        })?;
    }
    until(PATIENCE, "a file's worth of bytes sent", || {
        let mut sent = 0;
        for anchor in swarm.anchors() {
            sent += anchor.count("bytes_out")?;
        }
        Ok((sent >= 3_000_000).then_some(()))
    })?;
    Ok(())
}

#[test]
fn chunks_come_from_several_sources_at_the_same_time() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("many.bin", 200 << 15, 1 << 15, &publisher)?;
    holding.register(anchor, &publisher)?;
    let mut sources = Vec::new();
    for seed in 10..13 {
        let slow = Manner::Slow(Duration::from_millis(15));
        let mut fake = Fake::start(Identity::from_seed([seed; 32]), holding.clone(), slow)?;
        fake.announce(anchor)?;
        sources.push(fake);
    }
    let getter = swarm.peer("getter")?;
    let done = getter.get("many.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("many.bin"))?, holding.sha256());
    let from = done["from"].as_array().context("sources")?;
    assert_eq!(from.len(), 3, "{done}");
    for fake in &sources {
        let source = from
            .iter()
            .find(|source| source["address"] == fake.address().to_string())
            .with_context(|| format!("{} gave nothing: {done}", fake.address()))?;
        assert!(source["chunks"].as_u64() >= Some(5), "{done}");
    }
    // While one of them was between its first and its last chunk, so were the others.
    let spans: Vec<_> = sources
        .iter()
        .filter_map(|fake| {
            let given = fake.log().given;
            Some((given.first()?.0, given.last()?.0))
        })
        .collect();
    let start = spans.iter().map(|span| span.0).max().context("a span")?;
    let end = spans.iter().map(|span| span.1).min().context("a span")?;
    ensure!(start < end, "the sources were asked one after another");
    Ok(())
}

#[test]
fn of_many_sources_those_next_to_a_getter_are_asked_and_one_stands_in_for_who_fails() -> Result<()>
{
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("ring.bin", 400 << 15, 1 << 15, &publisher)?;
    holding.register(anchor, &publisher)?;
    let getter = swarm.peer("getter")?;
    let own = getter.status()?["id"].as_str().context("an id")?.parse()?;
    let mut rings = Rings::default();
    let identities = (10..40).map(|seed| Identity::from_seed([seed; 32]));
    let identities: Vec<_> = identities.inspect(|one| rings.insert(one.id())).collect();
    let failing = rings.neighbours(own, |_| true)[0];
    let reliable = rings.neighbours(own, |node| node != failing);
    assert_eq!(reliable.len(), RINGS);
    let mut sources = Vec::new();
    for identity in identities {
        let slow = Manner::Slow(Duration::from_millis(15));
        let manner = if identity.id() == failing {
            Manner::HangUp
        } else {
            slow
        };
        let mut fake = Fake::start(identity, holding.clone(), manner)?;
        fake.announce(anchor)?;
        sources.push(fake);
    }
    getter.get("ring.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("ring.bin"))?, holding.sha256());
    let mut others = 0;
    for fake in &sources {
        let (node, log) = (fake.id(), fake.log());
        if node == failing {
            assert!(log.hellos.len() > 1, "it is dialled again and again");
        } else if reliable.contains(&node) {
            assert!(!log.given.is_empty(), "{} gave nothing", fake.address());
            // Once for the place of who gives the list, perhaps, and not whenever the failing one is tried.
            assert!(log.hellos.len() <= 2, "{log:?}");
        } else {
            others += usize::from(!log.hellos.is_empty());
        }
    }
    // Who gives the list, and who has the places of that one and of the failing one until the list is there.
    assert!(others <= 3, "{others} that are no neighbours");
    Ok(())
}

#[test]
fn nodes_meet_while_the_list_is_on_its_way() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("met.bin", 100_000, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    // Not so late that another source is asked for it.
    let late = Manner::LateList(Duration::from_millis(400));
    let mut sources = Vec::new();
    for seed in [10, 11] {
        let mut fake = Fake::start(Identity::from_seed([seed; 32]), holding.clone(), late)?;
        fake.announce(anchor)?;
        sources.push(fake);
    }
    let mut getter = swarm.peer("getter")?.spawn(&["get", "met.bin", "--json"])?;
    // A third node has heard of the getter, is interested before that knows what to say, and asks it for the list.
    let content = holding.release.unverified().content;
    let own: Vec<_> = sources.iter().map(Fake::id).collect();
    let mut control = Control::dial(anchor, &publisher)?;
    control.join(30_000)?;
    let getter_address = until(PATIENCE, "a third holder", || {
        let Reply::Watching { sources } = control.ask(Request::Watch { content })? else {
            anyhow::bail!("no sources");
        };
        let of_others = |source: &&Source| {
            !own.contains(&source.node) && ![30_000, anchor.port()].contains(&source.address.port())
        };
        Ok(sources.iter().find(of_others).map(|source| source.address))
    })?;
    let have = Bitmap::empty(holding.release.unverified().geometry.chunks());
    let asked = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let interested = scope.spawn(|| {
            Chunks::dial(getter_address, &publisher)?.ask(&Ask::Interested { content, have })
        });
        let mut chunks = Chunks::dial(getter_address, &publisher)?;
        let mut answers = (0..20).map(|_| chunks.ask(&Ask::GetList { content }));
        let waits = answers.position(|answer| matches!(answer, Ok(Answer::List { .. })));
        assert!(
            waits.is_some_and(|waits| waits <= 5),
            "{waits:?}: it waits for its own list"
        );
        let answer = interested.join().expect("no panic")?;
        assert!(matches!(answer, Answer::Bitmap { .. }), "{answer:?}");
        Ok(())
    })?;
    getter.wait(PATIENCE)?.exits(0)?;
    let logs: Vec<_> = sources.iter().map(Fake::log).collect();
    let listed: Vec<_> = logs.iter().flat_map(|log| &log.listed).collect();
    assert_eq!(listed.len(), 1, "one source is enough for the list");
    assert!(
        asked < *listed[0],
        "the list was there before anybody asked"
    );
    for log in &logs {
        let first = log.hellos.first().context("it was not dialled")?;
        assert!(first < listed[0], "it was dialled after the list had come");
    }
    Ok(())
}

#[test]
fn a_chunk_is_served_while_the_rest_is_still_downloaded() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("half.bin", 40 * 4_096, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    let mut gate = Fake::start(publisher, holding.clone(), Manner::Gate(20))?;
    gate.announce(anchor)?;
    let first = swarm.peer("first")?;
    let _downloading = first.spawn(&["get", "half.bin", "--json"])?;
    // Else another command might own the home first, and the download leave with it.
    until(PATIENCE, "the gate to shut", || {
        Ok((gate.log().asked.len() > 20).then_some(()))
    })?;
    until(PATIENCE, "20 acknowledged chunks", || {
        let manifest = first.manifest("half.bin")?;
        let count = manifest
            .chunks
            .iter()
            .filter(|chunk| chunk.peers.len() == 2)
            .count();
        Ok((count == 20).then_some(()))
    })?;
    drop(gate);
    let second = swarm.peer("second")?;
    let finished = second
        .run(&["get", "half.bin", "--timeout", "3"])?
        .exits(4)?
        .fails_clearly()?
        .says(&["20 of 40 chunks"])?;
    assert!(!second.path("half.bin").exists(), "{finished}");
    until(PATIENCE, "20 chunks at the second peer", || {
        let status = swarm.anchor(1).status()?;
        Ok((status["acks_from_peers"].as_u64() >= Some(40)).then_some(()))
    })?;
    Ok(())
}

#[test]
fn publishing_in_place_serves_without_a_copy() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let publisher = swarm.peer("publisher")?;
    let (path, sha256) = swarm.file("in-place.bin", 20_000_000)?;
    let text = path.to_str().context("a path")?;
    let mut process = publisher.spawn(&["publish", text, "--no-upload", "--json"])?;
    let event = process.event("published", PATIENCE)?;
    assert_eq!(event["outcome"], "new");
    let serving = Serving::of(process)?;
    assert_eq!(
        publisher.holders("in-place.bin")?,
        [serving.address],
        "the anchor holds nothing"
    );
    let getter = swarm.peer("getter")?;
    let done = getter.get("in-place.bin", &[])?;
    assert_eq!(
        done["from"][0]["address"],
        serving.address.to_string(),
        "{done}"
    );
    assert_eq!(sha256_of(&getter.path("in-place.bin"))?, sha256);
    // Nobody has made the hashes of its chunks before somebody asks.
    let manifest = swarm.peer("onlooker")?.manifest("in-place.bin")?;
    let bytes = std::fs::read(&path)?;
    let parts = bytes.chunks(usize::try_from(manifest.chunk_size)?);
    assert!(
        parts
            .map(|part| Some(anchorage_tests::sha256(part)))
            .eq(manifest.chunks.iter().map(|chunk| chunk.sha256))
    );
    assert!(
        size_below(&publisher.home())? < 5_000_000,
        "the home holds a second copy"
    );
    let mut process = serving.process;
    process.terminate(PATIENCE)?.exits(0)?;
    Ok(())
}

/// Bytes on disk below a directory.
fn size_below(directory: &std::path::Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut size = 0;
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            size += 512 * metadata.blocks();
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(size)
}

#[test]
fn the_same_bytes_again_change_nothing_and_other_bytes_make_version_2() -> Result<()> {
    let swarm = Swarm::start()?;
    let publisher = swarm.peer("publisher")?;
    let (path, _) = swarm.file("again.bin", 50_000)?;
    publisher.publish(&path, &[])?;
    let again = publisher.publish(&path, &[])?;
    assert_eq!(
        (&again["outcome"], &again["version"]),
        (&"unchanged".into(), &1.into())
    );
    let text = path.to_str().context("a path")?;
    let people: Finished = publisher.run(&["publish", text])?.exits(0)?;
    let said = format!("{}{}", people.stdout, people.stderr);
    assert!(
        said.contains("unchanged") || said.contains("already"),
        "{people}"
    );

    let (other, sha256) = swarm.file("other.bin", 60_000)?;
    let second = publisher.publish(&other, &["--name", "again.bin"])?;
    assert_eq!(
        (&second["outcome"], &second["version"]),
        (&"new".into(), &2.into())
    );
    let manifest = publisher.manifest("again.bin")?;
    assert_eq!((manifest.version, manifest.sha256), (2, sha256));
    let getter = swarm.peer("getter")?;
    getter.get("again.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("again.bin"))?, sha256);
    Ok(())
}

#[test]
fn the_name_of_another_publisher_is_refused() -> Result<()> {
    let swarm = Swarm::start()?;
    let (path, sha256) = swarm.file("mine.bin", 50_000)?;
    let owner = swarm.peer("owner")?;
    owner.publish(&path, &[])?;
    let publisher = owner.manifest("mine.bin")?.publisher;
    let (other, _) = swarm.file("other.bin", 60_000)?;
    let thief = swarm.peer("thief")?;
    let text = other.to_str().context("a path")?;
    thief
        .run(&["publish", text, "--name", "mine.bin"])?
        .exits(1)?
        .fails_clearly()?
        .says(&[&publisher.short()])?;
    assert_eq!(owner.manifest("mine.bin")?.sha256, sha256);
    Ok(())
}

#[test]
fn the_list_names_every_release() -> Result<()> {
    let swarm = Swarm::start()?;
    let publisher = swarm.peer("publisher")?;
    for (name, size) in [("b.bin", 2_000), ("a.bin", 1_000), ("c.bin", 3_000)] {
        let (path, _) = swarm.file(name, size)?;
        publisher.publish(&path, &[])?;
    }
    let reader = swarm.peer("reader")?;
    let list = reader.run(&["list", "--json"])?.exits(0)?.json()?;
    let list = list.as_array().context("an array")?;
    let names: Vec<_> = list
        .iter()
        .filter_map(|release| release["name"].as_str())
        .collect();
    assert_eq!(names, ["a.bin", "b.bin", "c.bin"]);
    assert_eq!(list[1]["size"], 2_000);
    assert_eq!(list[1]["version"], 1);
    let manifest = reader.manifest("b.bin")?;
    assert_eq!(list[1]["content"], manifest.content.to_string());
    assert_eq!(list[1]["publisher"], manifest.publisher.to_string());
    let people = reader.run(&["list"])?.exits(0)?;
    for name in names {
        assert!(people.stdout.contains(name), "{people}");
    }
    Ok(())
}

#[test]
fn a_file_that_is_complete_is_not_downloaded_again() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, _) = swarm.file("once.bin", 500_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    getter.get("once.bin", &[])?;
    let again = getter.run(&["get", "once.bin", "--json"])?.exits(0)?;
    let done = again.last("done")?;
    assert_eq!(
        (&done["bytes"], &done["from"]),
        (&500_000.into(), &serde_json::json!([]))
    );
    let people = getter.run(&["get", "once.bin"])?.exits(0)?;
    let said = format!("{}{}", people.stdout, people.stderr);
    assert!(said.contains("already complete"), "{people}");
    ensure!(
        swarm.anchor(1).count("bytes_out")? < 2 * 500_000,
        "it was downloaded again"
    );
    Ok(())
}

#[test]
fn one_of_two_anchors_down_costs_one_warning() -> Result<()> {
    let mut swarm = Swarm::start()?;
    let down = swarm.anchor(2).address().to_string();
    swarm.take_anchor(2).kill()?;
    let (path, sha256) = swarm.file("half.bin", 500_000)?;
    let text = path.to_str().context("a path")?;
    let publisher = swarm.peer("publisher")?;
    let told = publisher.run(&["publish", text])?.exits(0)?;
    let getter = swarm.peer("getter")?;
    let got = getter.run(&["get", "half.bin"])?.exits(0)?;
    for finished in [&told, &got] {
        let warnings: Vec<_> = finished
            .stderr
            .lines()
            .filter(|line| line.starts_with("warning: "))
            .collect();
        assert!(
            warnings.len() == 1 && warnings[0].contains(&down),
            "{finished}"
        );
    }
    assert_eq!(sha256_of(&getter.path("half.bin"))?, sha256);
    Ok(())
}

#[test]
fn no_anchor_at_all_is_said_with_each_address() -> Result<()> {
    let swarm = Swarm::builder().lay_out()?;
    let text = std::fs::read_to_string(swarm.config())?;
    let config: serde_json::Value = serde_json::from_str(&text)?;
    let finished = swarm
        .peer("lonely")?
        .run(&["get", "anything", "--timeout", "5"])?;
    let finished = finished
        .exits(4)?
        .fails_clearly()?
        .says(&["hint: ", "refused"])?;
    for anchor in config["anchors"].as_array().context("anchors")? {
        let address = anchor["address"].as_str().context("an address")?;
        assert!(finished.stderr.contains(address), "{finished}");
    }
    Ok(())
}

#[test]
fn a_name_that_nobody_published_is_said() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let peer = swarm.peer("peer")?;
    for command in ["get", "manifest"] {
        peer.run(&[command, "nothing.txt"])?
            .exits(1)?
            .fails_clearly()?
            .says(&["nothing.txt"])?;
    }
    Ok(())
}

#[test]
fn chunks_without_a_source_end_in_exit_code_4() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("gone.bin", 100_000, 4_096, &publisher)?;
    holding.register(swarm.anchor(1).address(), &publisher)?;
    let getter = swarm.peer("getter")?;
    getter
        .run(&["get", "gone.bin", "--timeout", "2"])?
        .exits(4)?
        .fails_clearly()?;
    assert!(!getter.path("gone.bin").exists());
    Ok(())
}

#[test]
fn a_download_that_waits_goes_on_when_a_source_comes() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("late.bin", 100_000, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    let getter = swarm.peer("getter")?;
    let mut waiting = getter.spawn(&["get", "late.bin", "--json"])?;
    std::thread::sleep(Duration::from_secs(1));
    assert!(!waiting.has_ended()?);
    let mut fake = Fake::start(publisher, holding.clone(), Manner::Honest)?;
    fake.announce(anchor)?;
    waiting.wait(PATIENCE)?.exits(0)?;
    assert_eq!(sha256_of(&getter.path("late.bin"))?, holding.sha256());
    Ok(())
}

#[test]
fn a_join_names_at_most_fifty_live_peers_at_random() -> Result<()> {
    let swarm = Swarm::builder().anchors(1).heartbeat_ms(60_000).start()?;
    let anchor = swarm.anchor(1).address();
    let mut joined = Vec::new();
    for seed in 0..60 {
        let mut control = Control::dial(anchor, &Identity::from_seed([seed; 32]))?;
        control.join(20_000 + u16::from(seed))?;
        joined.push(control);
    }
    let mut answers = BTreeSet::new();
    for seed in 100..104 {
        let identity = Identity::from_seed([seed; 32]);
        let mut control = Control::dial(anchor, &identity)?;
        let local = control.wire().local()?;
        let Reply::Joined {
            observed,
            address,
            peers,
            ..
        } = control.join(30_000)?
        else {
            anyhow::bail!("no join");
        };
        assert_eq!(observed, local);
        assert_eq!(address, ([127, 0, 0, 1], 30_000).into());
        assert_eq!(peers.len(), PEERS_MAX);
        let nodes: BTreeSet<_> = peers.iter().map(|peer: &Source| peer.node).collect();
        assert_eq!(nodes.len(), PEERS_MAX, "nobody is named twice");
        assert!(!nodes.contains(&identity.id()), "not the peer itself");
        answers.insert(nodes);
    }
    assert!(
        answers.len() > 1,
        "four times the same fifty of sixty is no chance"
    );
    Ok(())
}

#[test]
fn verify_names_the_wrong_chunks() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let peer = swarm.peer("peer")?;
    let (path, _) = swarm.file("check.bin", 100_000)?;
    peer.publish(&path, &["--chunk-size", "16KiB"])?;
    let text = path.to_str().context("a path")?;
    let good = peer
        .run(&["verify", text, "--json"])?
        .exits(0)?
        .last("verified")?;
    assert_eq!(
        (&good["ok"], &good["bad"]),
        (&true.into(), &serde_json::json!([]))
    );
    assert_eq!(good["chunks"], 7);

    let mut bytes = std::fs::read(&path)?;
    for chunk in [2, 5] {
        bytes[chunk * 16_384 + 7] ^= 1;
    }
    let copy = swarm.path("copy.bin");
    std::fs::write(&copy, &bytes)?;
    let text = copy.to_str().context("a path")?;
    let bad = peer
        .run(&["verify", text, "--name", "check.bin", "--json"])?
        .exits(3)?;
    assert_eq!(bad.last("verified")?["bad"], serde_json::json!([2, 5]));
    assert_eq!(bad.last("verified")?["ok"], false);

    std::fs::write(&copy, &bytes[..50_000])?;
    peer.run(&["verify", text, "--name", "check.bin"])?
        .exits(3)?;
    std::fs::write(&copy, [&bytes[..], b"more"].concat())?;
    peer.run(&["verify", text, "--name", "check.bin"])?
        .exits(3)?;
    Ok(())
}
