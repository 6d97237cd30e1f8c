//! What the kernel says of processes: /proc.

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, path::PathBuf};

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stat {
    /// Its id.
    pub pid: u32,
    /// When it started, in the kernel's ticks: a pid that came back is another process.
    pub start: u64,
    /// Its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Whether it has ended and waits for its parent to ask.
    pub zombie: bool,
}

/// The process `pid`, if there is one.
pub fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may contain anything, parentheses too.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        pid,
        start: fields.get(19)?.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

/// All processes that have not ended.
pub fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .filter(|stat| !stat.zombie)
        .collect()
}

/// The processes below `pid`, without itself.
pub fn descendants(pid: u32) -> Vec<Stat> {
    let all = all();
    let mut found: Vec<Stat> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for stat in all.iter().filter(|stat| stat.parent == parent) {
            if !found.contains(stat) {
                found.push(*stat);
                parents.push(stat.pid);
            }
        }
    }
    found
}

/// The command line of a process, as `ps` shows it.
pub fn args(pid: u32) -> Result<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline"))
        .with_context(|| format!("process {pid} is gone"))?;
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    Ok(text.trim_end().to_owned())
}

/// The number of open descriptors of a process.
pub fn descriptors(pid: u32) -> Result<usize> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .with_context(|| format!("process {pid} is gone"))?;
    Ok(entries.count())
}

/// Bytes that a process has handed to `write` and its kin.
pub fn written(pid: u32) -> Result<u64> {
    counted(pid, "wchar: ")
}

/// Bytes that a process has got from `read` and its kin.
pub fn read(pid: u32) -> Result<u64> {
    counted(pid, "rchar: ")
}

fn counted(pid: u32, what: &str) -> Result<u64> {
    let path = PathBuf::from(format!("/proc/{pid}/io"));
    let text = fs::read_to_string(&path).with_context(|| format!("process {pid} is gone"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(what)?.parse().ok())
        .context("the kernel does not count bytes")
}

/// Whether this very process is still there and has not ended.
pub fn alive(process: Stat) -> bool {
    stat(process.pid).is_some_and(|now| now.start == process.start && !now.zombie)
}

/// Sends a signal; a process that is gone is no error.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid).context("a pid")?;
    match kill(Pid::from_raw(raw), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot signal process {pid}")),
    }
}
