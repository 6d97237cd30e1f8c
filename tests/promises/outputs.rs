//! Output paths where nothing can or may be written.

use anchorage_tests::{PATIENCE, Process, Program, Swarm, sha256_of};
use anyhow::{Context as _, Result};
use nix::unistd::{Uid, geteuid};
use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    process::Command,
};

/// A user without rights, whatever the system calls it.
const NOBODY: u32 = 65_534;

#[test]
fn an_existing_file_with_other_content_is_replaced_only_by_force() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, sha256) = swarm.file("new.bin", 300_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    let output = getter.path("new.bin");
    fs::write(&output, b"dear to somebody")?;
    getter
        .run(&["get", "new.bin"])?
        .exits(1)?
        .fails_clearly()?
        .says(&["new.bin", "--force"])?;
    assert_eq!(fs::read(&output)?, b"dear to somebody");
    getter.get("new.bin", &["--force"])?;
    assert_eq!(sha256_of(&output)?, sha256);
    Ok(())
}

#[test]
fn an_existing_file_with_the_same_content_is_complete() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, _) = swarm.file("same.bin", 300_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    fs::copy(&path, getter.path("same.bin"))?;
    let done = getter.get("same.bin", &[])?;
    assert_eq!(done["from"], serde_json::json!([]));
    Ok(())
}

#[test]
fn the_output_may_be_named() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, sha256) = swarm.file("named.bin", 300_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    let output = swarm.path("elsewhere.bin");
    let text = output.to_str().context("a path")?;
    let done = getter.get("named.bin", &["-o", text])?;
    assert_eq!(done["path"], text);
    assert_eq!(sha256_of(&output)?, sha256);
    assert!(!getter.path("named.bin").exists());
    Ok(())
}

#[test]
fn the_output_may_be_a_directory() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, sha256) = swarm.file("named.bin", 300_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    let directory = swarm.path("downloads");
    fs::create_dir(&directory)?;
    getter.get("named.bin", &["-o", directory.to_str().context("a path")?])?;
    assert_eq!(sha256_of(&directory.join("named.bin"))?, sha256);
    Ok(())
}

#[test]
fn an_output_in_no_directory_is_said() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, _) = swarm.file("lost.bin", 300_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    getter
        .run(&["get", "lost.bin", "-o", "/nowhere/at/all.bin"])?
        .exits(1)?
        .fails_clearly()?
        .says(&["/nowhere/at"])?;
    Ok(())
}

#[test]
fn a_read_only_directory_is_said() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, _) = swarm.file("stuck.bin", 300_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    let directory = getter.path("read-only");
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, Permissions::from_mode(0o555))?;
    // For root no directory is read-only: it hands over to a user for whom this one is.
    let program = swarm.path("peer-of-nobody");
    fs::copy(Program::Peer.path()?, &program)?;
    let mut command = Command::new(&program);
    command
        .args(["get", "stuck.bin", "-o", "read-only/stuck.bin", "--config"])
        .arg(swarm.config())
        .arg("--home")
        .arg(getter.home())
        .current_dir(getter.path(""));
    if geteuid() == Uid::from_raw(0) {
        chown(getter.path(""), Some(NOBODY), Some(NOBODY))?;
        command.uid(NOBODY).gid(NOBODY);
    }
    Process::spawn(&mut command)?
        .wait(PATIENCE)?
        .exits(1)?
        .fails_clearly()?
        .says(&["read-only/stuck.bin", "permission denied"])?;
    assert_eq!(fs::read_dir(&directory)?.count(), 0);
    Ok(())
}

#[test]
fn a_home_that_cannot_be_made_is_said() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let file = swarm.path("a-file");
    fs::write(&file, b"not a directory")?;
    let mut command = Command::new(Program::Peer.path()?);
    command
        .args(["list", "--config"])
        .arg(swarm.config())
        .arg("--home")
        .arg(&file);
    Process::spawn(&mut command)?
        .wait(PATIENCE)?
        .exits(1)?
        .fails_clearly()?
        .says(&["a-file"])?;
    Ok(())
}
