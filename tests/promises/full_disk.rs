//! A full disk is said, and survived. Here a limit on the size of files is the disk.

use anchorage_tests::{Anchor, PATIENCE, Process, Swarm, sha256_of};
use anyhow::{Context as _, Result, ensure};
use std::process::Command;

/// The command with files limited to so many KiB. Writing past the limit is an error as of a full disk then, as
/// the signal that comes with it is ignored.
fn limited(command: &Command, kib: u32) -> Command {
    let mut limited = Command::new("bash");
    limited
        .arg("-c")
        .arg(format!("trap '' XFSZ; ulimit -f {kib}; exec \"$@\""))
        .arg("bash")
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        limited.current_dir(directory);
    }
    limited
}

#[test]
fn a_peer_says_that_its_disk_is_full() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, sha256) = swarm.file("large.bin", 8 << 20)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    let mut command = limited(
        &getter.command(&["get", "large.bin", "--timeout", "10"])?,
        2 << 10,
    );
    Process::spawn(&mut command)?
        .wait(PATIENCE)?
        .exits(1)?
        .fails_clearly()?
        .says(&["large.bin"])?;
    ensure!(!getter.path("large.bin").exists());
    // With room again, it goes on.
    getter.get("large.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("large.bin"))?, sha256);
    Ok(())
}

#[test]
fn a_full_anchor_says_so_and_the_other_one_takes_the_file() -> Result<()> {
    let mut swarm = Swarm::builder().lay_out()?;
    let (config, home) = (swarm.config().to_owned(), swarm.anchor_home());
    let mut command = limited(&Anchor::command(1, &config, &home)?, 24 << 10);
    let process = Process::spawn(&mut command)?;
    let full = Anchor::from_process(1, &config, &home, process)?;
    swarm.start_anchor(2)?;
    let before: Vec<u32> = full.children().iter().map(|child| child.pid).collect();

    let publisher = swarm.peer("publisher")?;
    let (path, sha256) = swarm.file("large.bin", 48 << 20)?;
    let text = path.to_str().context("a path")?;
    let finished = publisher
        .run(&["publish", text])?
        .exits_one_of(&[0, 1, 4])?
        .says(&["anchor 1", "too large"])?;
    ensure!(
        finished.stderr.contains("warning: ") || finished.stderr.contains("error: "),
        "{finished}"
    );
    let getter = swarm.peer("getter")?;
    getter.get("large.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("large.bin"))?, sha256);

    // The full one still does what needs no room.
    let (path, sha256) = swarm.file("small.bin", 10_000)?;
    swarm.take_anchor(2).kill()?;
    publisher.publish(&path, &[])?;
    getter.get("small.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("small.bin"))?, sha256);
    let after: Vec<u32> = full.children().iter().map(|child| child.pid).collect();
    assert_eq!(after, before, "no process of it died");
    Ok(())
}
