//! Progress for people, and silence for scripts.

use anchorage_peer::identity::Identity;
use anchorage_tests::{Fake, Finished, Holding, Manner, PATIENCE, Process, Swarm};
use anyhow::{Context as _, Result, ensure};
use std::{process::Command, time::Duration};

/// Gets a file that takes some seconds, on a terminal made by `script`; everything that it shows.
fn get_on_a_terminal(options: &[&str]) -> Result<Finished> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1).address();
    let publisher = Identity::from_seed([1; 32]);
    let holding = Holding::random("shown.bin", 60 * 4_096, 4_096, &publisher)?;
    holding.register(anchor, &publisher)?;
    let slow = Manner::Slow(Duration::from_millis(40));
    let mut fake = Fake::start(publisher, holding, slow)?;
    fake.announce(anchor)?;
    let getter = swarm.peer("getter")?;
    let command = getter.command(&[&["get", "shown.bin"], options].concat())?;
    let mut line = command.get_program().to_str().context("a path")?.to_owned();
    for argument in command.get_args() {
        line.push_str(" '");
        line.push_str(argument.to_str().context("an argument")?);
        line.push('\'');
    }
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .current_dir(getter.path(""));
    Process::spawn(&mut script)?.wait(PATIENCE)?.exits(0)
}

#[test]
fn a_terminal_shows_progress_and_one_final_line() -> Result<()> {
    let finished = get_on_a_terminal(&[])?;
    let shown = &finished.stdout;
    ensure!(
        shown.contains('\r') || shown.contains('\u{1b}'),
        "nothing moves: {finished}"
    );
    ensure!(shown.contains("/s"), "no rate: {finished}");
    ensure!(shown.contains('%') || shown.contains("ETA"), "{finished}");
    let last = shown.lines().rfind(|line| line.contains("verified"));
    let last = last.with_context(|| format!("no final line: {finished}"))?;
    ensure!(last.contains("from 1 peer"), "{finished}");
    Ok(())
}

#[test]
fn quiet_is_quiet_on_a_terminal_too() -> Result<()> {
    let finished = get_on_a_terminal(&["--quiet"])?;
    let shown = finished.stdout.trim();
    ensure!(
        !shown.contains("verified") && !shown.contains('%'),
        "{finished}"
    );
    Ok(())
}
