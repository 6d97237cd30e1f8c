//! One anchor: its process tree, its status, and ways to hurt it.

use crate::{Finished, PATIENCE, Process, Program, proc, until};
use anchorage_manifest::NodeId;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A running anchor.
pub struct Anchor {
    id: u32,
    config: PathBuf,
    home: PathBuf,
    address: SocketAddr,
    key: NodeId,
    process: Process,
}

/// One process of an anchor, as `anchor status` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// What it does.
    pub task: String,
    /// Its id.
    pub pid: u32,
    /// How often it has been started again.
    pub restarts: u64,
}

impl Anchor {
    /// The command that starts anchor `id`.
    pub fn command(id: u32, config: &Path, home: &Path) -> Result<Command> {
        let mut command = Command::new(Program::Anchor.path()?);
        command
            .args(["serve", &id.to_string(), "--json"])
            .arg("--config")
            .arg(config)
            .arg("--home")
            .arg(home);
        Ok(command)
    }

    /// Starts anchor `id` and waits until it serves.
    pub fn start(id: u32, config: &Path, home: &Path) -> Result<Self> {
        Self::from_process(
            id,
            config,
            home,
            Process::spawn(&mut Self::command(id, config, home)?)?,
        )
    }

    /// Takes over an anchor that was just spawned, and waits until it serves.
    pub fn from_process(id: u32, config: &Path, home: &Path, mut process: Process) -> Result<Self> {
        let serving = process.event("serving", PATIENCE)?;
        let text = |field: &str| serving[field].as_str().context("a text").map(str::to_owned);
        ensure!(serving["id"] == id, "another anchor serves: {serving}");
        Ok(Self {
            id,
            config: config.to_owned(),
            home: home.to_owned(),
            address: text("address")?.parse().context("an address")?,
            key: text("key")?.parse().context("a key")?,
            process,
        })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its key.
    pub fn key(&self) -> NodeId {
        self.key
    }

    /// Its directory.
    pub fn state(&self) -> PathBuf {
        self.home.join(format!("anchor-{}", self.id))
    }

    /// Its supervisor.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks `anchor status`, with arguments of the caller's.
    pub fn ask_status(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new(Program::Anchor.path()?);
        command
            .args(["status", &self.id.to_string()])
            .arg("--config")
            .arg(&self.config)
            .arg("--home")
            .arg(&self.home)
            .args(arguments);
        Process::spawn(&mut command)?.wait(PATIENCE)
    }

    /// Its status.
    pub fn status(&self) -> Result<Value> {
        self.ask_status(&["--json"])?.exits(0)?.json()
    }

    /// A number of its status.
    pub fn count(&self, field: &str) -> Result<u64> {
        let status = self.status()?;
        status[field]
            .as_u64()
            .with_context(|| format!("the status has no number {field}: {status}"))
    }

    /// Its processes, as it tells.
    pub fn workers(&self) -> Result<Vec<Worker>> {
        let status = self.status()?;
        let processes = status["processes"].as_array().context("processes")?;
        processes
            .iter()
            .map(|process| {
                let number = |field: &str| {
                    process[field]
                        .as_u64()
                        .with_context(|| format!("a process without {field}: {process}"))
                };
                Ok(Worker {
                    task: process["task"].as_str().context("a task")?.to_owned(),
                    pid: u32::try_from(number("pid")?).context("a pid")?,
                    restarts: number("restarts")?,
                })
            })
            .collect()
    }

    /// Its worker processes, as the kernel tells.
    pub fn children(&self) -> Vec<proc::Stat> {
        proc::descendants(self.process.pid())
    }

    /// A worker of a task, as the kernel tells.
    pub fn worker(&self, task: &str) -> Result<proc::Stat> {
        let found = self.workers_of(task).into_iter().next();
        found.with_context(|| format!("anchor {} has no process of task {task}", self.id))
    }

    fn workers_of(&self, task: &str) -> Vec<proc::Stat> {
        let wanted = format!("anchor: {task}");
        let is_one =
            |child: &proc::Stat| proc::args(child.pid).is_ok_and(|args| args.starts_with(&wanted));
        self.children().into_iter().filter(is_one).collect()
    }

    /// Kills every process of it, the supervisor too, without a warning.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill_tree()
    }

    /// SIGTERM, then its end.
    pub fn stop(mut self) -> Result<Finished> {
        self.process.terminate(PATIENCE)
    }

    /// Kills it without a warning and starts it again on the same directory.
    pub fn crash_and_restart(&mut self) -> Result<()> {
        self.process.kill_tree()?;
        *self = Self::start(self.id, &self.config, &self.home)?;
        Ok(())
    }

    /// What strangers must not change: that the same processes live, and that none of them leaks descriptors.
    pub fn health(&self) -> Result<Vec<(proc::Stat, usize)>> {
        let mut all = self.children();
        all.extend(proc::stat(self.process.pid()));
        all.sort();
        all.into_iter()
            .map(|stat| Ok((stat, proc::descriptors(stat.pid)?)))
            .collect()
    }

    /// Waits until its health is again what it was `before`, give or take `slack` descriptors a process.
    pub fn is_unharmed(&self, before: &[(proc::Stat, usize)], slack: usize) -> Result<()> {
        let mut seen = String::new();
        let back = until(Duration::from_secs(30), "an unharmed anchor", || {
            let now = self.health()?;
            let same = now.len() == before.len()
                && now
                    .iter()
                    .zip(before)
                    .all(|(now, then)| now.0.pid == then.0.pid && now.1 <= then.1 + slack);
            seen = format!("{now:?}");
            Ok(same.then_some(()))
        });
        back.with_context(|| format!("before {before:?}, now {seen}"))
    }

    /// Kills one worker of a task and waits until another has taken its place; gives the new one.
    pub fn replace_worker(&self, task: &str, limit: Duration) -> Result<proc::Stat> {
        let before = self.workers_of(task);
        let old = self.worker(task)?;
        proc::signal(old.pid, Signal::SIGKILL)?;
        until(limit, &format!("a new process of task {task}"), || {
            // Another one of the task may have been there all the time.
            let is_new = |worker: &proc::Stat| before.iter().all(|old| old.pid != worker.pid);
            let new = self.workers_of(task).into_iter().find(is_new);
            Ok(new.filter(|_| !proc::alive(old)))
        })
    }
}
