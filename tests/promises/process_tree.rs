//! An anchor is a tree of processes; the death of one is no one else's trouble.

use anchorage_tests::{Anchor, PATIENCE, Process, Swarm, proc, sha256_of, until};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::{collections::BTreeMap, process::Command, time::Duration};

/// Each of them has at least one process.
const TASKS: [&str; 3] = ["connection", "manifest", "transfer"];

/// "Back within a second"; measured from outside on a busy machine, it may look a little longer.
const BACK: Duration = Duration::from_millis(1_500);

#[test]
fn ps_shows_one_process_a_task_and_a_transfer_a_core() -> Result<()> {
    let mut swarm = Swarm::start_one()?;
    let anchor = swarm.anchor_mut(1);
    let supervisor = proc::args(anchor.process().pid())?;
    assert!(supervisor.starts_with("anchor: supervisor"), "{supervisor}");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for child in anchor.children() {
        assert_eq!(child.parent, anchor.process().pid());
        let args = proc::args(child.pid)?;
        let task = args
            .strip_prefix("anchor: ")
            .with_context(|| format!("{args:?}"))?;
        let task = task
            .split([' ', ':', ','])
            .next()
            .context("a word")?
            .to_owned();
        *counts.entry(task).or_default() += 1;
    }
    let cores = std::thread::available_parallelism()?.get();
    let expected = [("connection", 1), ("manifest", 1), ("transfer", cores)];
    assert_eq!(
        counts,
        expected
            .map(|(task, count)| (task.to_owned(), count))
            .into()
    );
    Ok(())
}

#[test]
fn the_status_names_every_process() -> Result<()> {
    let mut swarm = Swarm::start_one()?;
    let anchor = swarm.anchor_mut(1);
    let mut seen: Vec<u32> = anchor.children().iter().map(|child| child.pid).collect();
    seen.push(anchor.process().pid());
    seen.sort_unstable();
    let workers = anchor.workers()?;
    let mut told: Vec<u32> = workers.iter().map(|worker| worker.pid).collect();
    told.sort_unstable();
    assert_eq!(told, seen);
    assert!(
        workers.iter().all(|worker| worker.restarts == 0),
        "{workers:?}"
    );
    let status = anchor.status()?;
    assert_eq!(status["id"], 1);
    assert_eq!(status["address"], anchor.address().to_string());
    assert_eq!(status["key"], anchor.key().to_string());
    let people = anchor.ask_status(&[])?.exits(0)?;
    for task in TASKS {
        assert!(people.stdout.contains(task), "{people}");
    }
    Ok(())
}

#[test]
fn a_killed_worker_is_back_and_the_others_do_not_restart() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1);
    let (path, sha256) = swarm.file("before.bin", 300_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    for (round, task) in TASKS.into_iter().enumerate() {
        let before: Vec<u32> = anchor.children().iter().map(|child| child.pid).collect();
        let old = anchor.worker(task)?.pid;
        let new = anchor.replace_worker(task, BACK)?.pid;
        let mut expected = before;
        expected.retain(|&pid| pid != old);
        expected.push(new);
        expected.sort_unstable();
        let mut after: Vec<u32> = anchor.children().iter().map(|child| child.pid).collect();
        after.sort_unstable();
        assert_eq!(after, expected, "only the {task} process is another one");
        until(PATIENCE, "the restart in the status", || {
            let told = anchor.workers()?;
            Ok(told
                .iter()
                .any(|worker| worker.pid == new && worker.restarts == 1)
                .then_some(()))
        })?;
        let getter = swarm.peer(&format!("getter-{round}"))?;
        getter.get("before.bin", &[])?;
        assert_eq!(sha256_of(&getter.path("before.bin"))?, sha256);
        let (path, _) = swarm.file(&format!("after-{task}.bin"), 100_000)?;
        swarm.peer("publisher")?.publish(&path, &[])?;
    }
    Ok(())
}

#[test]
fn a_download_in_progress_survives_the_death_of_any_worker() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1);
    let (path, sha256) = swarm.file("long.bin", 96 << 20)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    for task in TASKS {
        let getter = swarm.peer(task)?;
        let mut process = getter.spawn(&["get", "long.bin", "--json"])?;
        let pid = process.pid();
        until(PATIENCE, "some of the download", || {
            ensure!(
                !process.has_ended()?,
                "too fast to be caught: {}",
                process.so_far()
            );
            Ok((proc::written(pid)? > 8 << 20).then_some(()))
        })?;
        anchor.replace_worker(task, BACK)?;
        process.wait(PATIENCE)?.exits(0)?;
        assert_eq!(
            sha256_of(&getter.path("long.bin"))?,
            sha256,
            "{task} was killed"
        );
    }
    Ok(())
}

#[test]
fn workers_do_not_outlive_their_supervisor() -> Result<()> {
    let mut swarm = Swarm::start_one()?;
    let (path, sha256) = swarm.file("kept.bin", 300_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let mut anchor = swarm.take_anchor(1);
    let tree = anchor.process().tree();
    ensure!(tree.len() >= 4, "{tree:?}");
    proc::signal(anchor.process().pid(), Signal::SIGKILL)?;
    until(Duration::from_secs(5), "the end of all workers", || {
        anchor.process().has_ended()?;
        Ok((!tree.iter().any(|stat| proc::alive(*stat))).then_some(()))
    })?;
    drop(anchor);
    swarm.start_anchor(1)?;
    let getter = swarm.peer("getter")?;
    getter.get("kept.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("kept.bin"))?, sha256);
    Ok(())
}

#[test]
fn sigterm_drains_and_exits_0() -> Result<()> {
    let mut swarm = Swarm::start_one()?;
    let mut anchor = swarm.take_anchor(1);
    let tree = anchor.process().tree();
    anchor.stop()?.exits(0)?;
    let left: Vec<_> = tree.into_iter().filter(|stat| proc::alive(*stat)).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn sighup_ends_nobody() -> Result<()> {
    let mut swarm = Swarm::start_one()?;
    let anchor = swarm.anchor_mut(1);
    let before = anchor.health()?;
    anchor.process().signal(Signal::SIGHUP)?;
    std::thread::sleep(Duration::from_secs(1));
    anchor.is_unharmed(&before, 2)?;
    anchor.status()?;
    Ok(())
}

#[test]
fn sigterm_lets_a_download_finish() -> Result<()> {
    let mut swarm = Swarm::start()?;
    let (path, sha256) = swarm.file("drain.bin", 64 << 20)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    let mut process = getter.spawn(&["get", "drain.bin", "--json"])?;
    until(PATIENCE, "some of the download", || {
        ensure!(
            !process.has_ended()?,
            "too fast to be caught: {}",
            process.so_far()
        );
        Ok((proc::written(process.pid())? > 4 << 20).then_some(()))
    })?;
    swarm.take_anchor(1).stop()?.exits(0)?;
    process.wait(PATIENCE)?.exits(0)?;
    assert_eq!(sha256_of(&getter.path("drain.bin"))?, sha256);
    Ok(())
}

#[test]
fn a_whole_anchor_killed_in_the_middle_costs_at_most_a_warning() -> Result<()> {
    let mut swarm = Swarm::start()?;
    let (path, sha256) = swarm.file("half.bin", 96 << 20)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    let mut process = getter.spawn(&["get", "half.bin"])?;
    until(PATIENCE, "some of the download", || {
        ensure!(
            !process.has_ended()?,
            "too fast to be caught: {}",
            process.so_far()
        );
        Ok((proc::written(process.pid())? > 8 << 20).then_some(()))
    })?;
    swarm.take_anchor(1).kill()?;
    let finished = process.wait(PATIENCE)?.exits(0)?;
    let warnings = finished
        .stderr
        .lines()
        .filter(|line| line.starts_with("warning: "));
    ensure!(warnings.count() <= 1, "{finished}");
    assert_eq!(sha256_of(&getter.path("half.bin"))?, sha256);
    Ok(())
}

/// Starts an anchor that must not come up, with an exit code, and nothing of it left behind.
fn fails_to_start(swarm: &Swarm, command: &mut Command, codes: &[i32]) -> Result<String> {
    let mut process = Process::spawn(command)?;
    let finished = process
        .wait(PATIENCE)?
        .exits_one_of(codes)?
        .fails_clearly()?;
    assert!(!finished.stdout.contains("serving"), "{finished}");
    until(
        Duration::from_secs(5),
        "the end of a half-started tree",
        || Ok(process.tree().is_empty().then_some(())),
    )?;
    // Whoever is there already is not harmed.
    for anchor in swarm.anchors() {
        anchor.status()?;
    }
    Ok(finished.stderr)
}

#[test]
fn a_port_in_use_is_said() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let mut command = Anchor::command(1, swarm.config(), &swarm.path("another-home"))?;
    let said = fails_to_start(&swarm, &mut command, &[1])?;
    let port = swarm.anchor(1).address().port().to_string();
    assert!(said.contains(&port), "{said}");
    Ok(())
}

#[test]
fn a_locked_state_directory_is_said() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let other = Swarm::builder().anchors(1).lay_out()?;
    let mut command = Anchor::command(1, other.config(), &swarm.anchor_home())?;
    let said = fails_to_start(&swarm, &mut command, &[1])?;
    assert!(said.contains("anchor-1"), "{said}");
    Ok(())
}

#[test]
fn an_unknown_anchor_is_said() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let mut command = Anchor::command(7, swarm.config(), &swarm.anchor_home())?;
    let said = fails_to_start(&swarm, &mut command, &[2])?;
    assert!(said.contains('7'), "{said}");
    Ok(())
}

#[test]
fn workers_that_die_again_and_again_do_not_stop_the_others_from_being_served() -> Result<()> {
    let swarm = Swarm::start()?;
    let (path, sha256) = swarm.file("busy.bin", 2_000_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    for _ in 0..2 {
        swarm
            .anchor(1)
            .replace_worker("transfer", Duration::from_secs(5))?;
    }
    let getter = swarm.peer("getter")?;
    getter.get("busy.bin", &[])?;
    assert_eq!(sha256_of(&getter.path("busy.bin"))?, sha256);
    Ok(())
}
