//! Keys are pinned; another key is refused.

use anchorage_tests::{Swarm, sha256_of};
use anyhow::{Context as _, Result};
use std::fs;

/// The lines of a peer's `known_anchors`.
fn known(peer: &anchorage_tests::Peer) -> Result<Vec<String>> {
    let path = peer.home().join("known_anchors");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Writes the key of anchor 1 into the config.
fn put_key(swarm: &Swarm, key: &str) -> Result<()> {
    let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(swarm.config())?)?;
    config["anchors"][0]["key"] = key.into();
    fs::write(swarm.config(), config.to_string())?;
    Ok(())
}

#[test]
fn the_first_key_met_is_remembered() -> Result<()> {
    let swarm = Swarm::start()?;
    let peer = swarm.peer("peer")?;
    peer.run(&["list"])?.exits(0)?;
    let lines = known(&peer)?;
    for anchor in swarm.anchors() {
        let expected = format!("{} {} {}", anchor.id(), anchor.address(), anchor.key());
        assert!(lines.contains(&expected), "{lines:?} without {expected:?}");
    }
    Ok(())
}

#[test]
fn a_changed_key_is_refused_until_the_user_says_so() -> Result<()> {
    let mut swarm = Swarm::start_one()?;
    let peer = swarm.peer("peer")?;
    peer.run(&["list"])?.exits(0)?;
    let old = swarm.anchor(1).key();
    let state = swarm.anchor(1).state();
    swarm.take_anchor(1).kill()?;
    fs::remove_dir_all(&state)?;
    swarm.start_anchor(1)?;
    assert_ne!(swarm.anchor(1).key(), old);
    let pinned = peer.home().join("known_anchors");
    let text = pinned.to_str().context("a path")?;
    peer.run(&["list"])?
        .exits(1)?
        .fails_clearly()?
        .says(&["hint: ", text, "key"])?;
    assert!(
        known(&peer)?
            .iter()
            .any(|line| line.contains(&old.to_string())),
        "it was replaced"
    );
    fs::remove_file(&pinned)?;
    peer.run(&["list"])?.exits(0)?;
    Ok(())
}

#[test]
fn a_changed_key_of_one_anchor_leaves_the_other_one_usable() -> Result<()> {
    let mut swarm = Swarm::start()?;
    let (path, sha256) = swarm.file("two.bin", 100_000)?;
    let peer = swarm.peer("peer")?;
    peer.publish(&path, &[])?;
    let state = swarm.anchor(1).state();
    swarm.take_anchor(1).kill()?;
    fs::remove_dir_all(&state)?;
    swarm.start_anchor(1)?;
    let finished = peer.run(&["get", "two.bin"])?.exits(0)?;
    finished.says(&["warning: ", "known_anchors"])?;
    assert_eq!(sha256_of(&peer.path("two.bin"))?, sha256);
    Ok(())
}

#[test]
fn a_key_in_the_config_is_the_only_one_taken() -> Result<()> {
    let swarm = Swarm::start_one()?;
    put_key(&swarm, &swarm.anchor(1).key().to_string())?;
    swarm.peer("right")?.run(&["list"])?.exits(0)?;
    put_key(&swarm, &"ab".repeat(32))?;
    swarm
        .peer("wrong")?
        .run(&["list"])?
        .exits(1)?
        .fails_clearly()?
        .says(&["key"])?;
    Ok(())
}

#[test]
fn a_peer_keeps_its_key_to_itself() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let swarm = Swarm::start_one()?;
    let peer = swarm.peer("peer")?;
    let (path, _) = swarm.file("a.bin", 1_000)?;
    peer.publish(&path, &[])?;
    let first = peer.manifest("a.bin")?.publisher;
    let status = peer.status()?;
    assert_eq!(
        status["id"],
        first.to_string(),
        "the node's key is the publisher's"
    );
    for home in [peer.home(), swarm.anchor(1).state()] {
        let key = home.join("key");
        let mode = fs::metadata(&key).with_context(|| key.display().to_string())?;
        assert_eq!(mode.permissions().mode() & 0o077, 0, "{}", key.display());
    }
    Ok(())
}
