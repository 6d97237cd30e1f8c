//! One worker as the supervisor sees it: its process, its pipe up, its channel down, its counts.

use super::{mailboxes::Mailboxes, policy::Cause};
use crate::{
    order::Order,
    packet::{Counters, Status},
    report::Process,
    sys::{
        pipe::{self, Pipe},
        spawn,
    },
    task::Task,
    time::Time,
    worker::BOOTSTRAP,
};
use anyhow::{Context as _, Result};
use ipc_channel::ipc::{IpcOneShotServer, IpcSender};
use nix::sys::signal::Signal;
use std::{
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::{Child, ExitStatus},
};

/// Most orders that a worker may leave unread between two of its reports. Sending blocks when nobody reads, and the
/// supervisor must not: a worker that is so far behind is ended instead.
const UNREAD_MAX: u32 = 64;

/// A worker, alive or between two lives.
pub(super) struct Worker {
    task: Task,
    child: Option<Child>,
    status: Option<OwnedFd>,
    bootstrap: Option<IpcOneShotServer<IpcSender<Order>>>,
    orders: Option<IpcSender<Order>>,
    unread: u32,
    started: Time,
    starts: u64,
    death: Option<String>,
    /// What this process has counted.
    counters: Counters,
    /// What those before it had counted.
    past: Counters,
}

impl Worker {
    /// A worker that has never lived.
    pub(super) fn new(task: Task) -> Self {
        Self {
            task,
            child: None,
            status: None,
            bootstrap: None,
            orders: None,
            unread: 0,
            started: Time::default(),
            starts: 0,
            death: None,
            counters: Counters::default(),
            past: Counters::default(),
        }
    }

    /// What it is for.
    pub(super) fn task(&self) -> Task {
        self.task
    }

    /// How often it was started again.
    pub(super) fn restarts(&self) -> u64 {
        self.starts.saturating_sub(1)
    }

    /// Starts the process; its pid.
    pub(super) fn start(&mut self, now: Time, id: u32, mailboxes: &Mailboxes) -> Result<u32> {
        self.started = now;
        self.starts += 1;
        let (bootstrap, name) = IpcOneShotServer::new().context("cannot make its bootstrap")?;
        let status = Pipe::new().context("cannot make its status pipe")?;
        pipe::set_nonblocking(&status.reader).context("cannot set up its status pipe")?;
        let mut descriptors = vec![status.writer.as_fd()];
        descriptors.extend(mailboxes.descriptors(self.task));
        let mut arguments = Vec::new();
        if let Task::Transfer(index) = self.task {
            arguments.push(index.to_string());
        }
        arguments.extend(["of".to_owned(), id.to_string()]);
        let child = spawn::spawn(
            self.task.title(),
            arguments,
            (BOOTSTRAP, &name),
            &descriptors,
        )
        .context("cannot fork")?;
        let pid = child.id();
        self.child = Some(child);
        self.status = Some(status.reader);
        self.bootstrap = Some(bootstrap);
        Ok(pid)
    }

    /// Where it says how it is, while it lives.
    pub(super) fn status_pipe(&self) -> Option<BorrowedFd<'_>> {
        self.status.as_ref().map(|pipe| pipe.as_fd())
    }

    /// Reads all that it has said. Nonsense, or a closed pipe, is its end.
    pub(super) fn listen(&mut self) -> Vec<Status> {
        let mut said = Vec::new();
        while let Some(reader) = &self.status {
            match pipe::receive(reader) {
                Ok(statuses) if !statuses.is_empty() => said.extend(statuses),
                Ok(_) if pipe::is_open(reader) => break,
                Ok(_) => {
                    self.status = None;
                    self.kill();
                }
                Err(error) => {
                    said.push(Status::Said(format!("ended, because {error:#}")));
                    self.status = None;
                    self.kill();
                }
            }
        }
        said
    }

    /// Accepts its bootstrap, which is waiting; false if it is not, or was taken before.
    pub(super) fn accept(&mut self) -> bool {
        let Some(bootstrap) = self.bootstrap.take() else {
            self.kill();
            return false;
        };
        if let Ok((_, orders)) = bootstrap.accept() {
            self.orders = Some(orders);
            self.unread = 0;
            true
        } else {
            self.kill();
            false
        }
    }

    /// Whether it can be given orders.
    pub(super) fn is_wired(&self) -> bool {
        self.orders.is_some()
    }

    /// Gives it an order, if it can be given any. If it has just died, its exit will be noticed.
    pub(super) fn order(&mut self, order: Order) {
        let Some(orders) = &self.orders else {
            return;
        };
        self.unread += 1;
        if self.unread > UNREAD_MAX {
            self.kill();
        } else {
            // It fails when the process is gone, and then SIGCHLD is under way.
            let _ = orders.send(order);
        }
    }

    /// Takes note of what it has counted, which also shows that it reads its orders.
    pub(super) fn count(&mut self, counters: Counters) {
        self.counters = counters;
        self.unread = 0;
    }

    /// What it has counted in all its lives.
    pub(super) fn total(&self) -> Counters {
        let (past, now) = (self.past, self.counters);
        Counters {
            bytes_in: past.bytes_in.saturating_add(now.bytes_in),
            bytes_out: past.bytes_out.saturating_add(now.bytes_out),
            acks_from_anchors: past.acks_from_anchors.saturating_add(now.acks_from_anchors),
            acks_from_peers: past.acks_from_peers.saturating_add(now.acks_from_peers),
            ..now
        }
    }

    /// Ends the process.
    pub(super) fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // It fails when the process has ended already.
            let _ = child.kill();
        }
    }

    /// Whether the process has ended, and how.
    pub(super) fn reap(&mut self, expected: bool) -> Option<Cause> {
        let child = self.child.as_mut()?;
        let status = child.try_wait().ok()??;
        if !expected {
            self.death = Some(format!(
                "{} (pid {}) {}",
                self.task,
                child.id(),
                described(status)
            ));
        }
        self.child = None;
        self.status = None;
        self.bootstrap = None;
        self.orders = None;
        self.past = self.total();
        self.counters = Counters::default();
        let killed = status.signal() == Some(Signal::SIGKILL as i32);
        Some(if killed {
            Cause::Killed
        } else {
            Cause::Faulted
        })
    }

    /// Takes note of a death without a process.
    pub(super) fn note_death(&mut self, death: String) {
        self.death = Some(death);
    }

    /// How it died, for a line of talk.
    pub(super) fn take_death(&mut self) -> Option<String> {
        self.death.take()
    }

    /// What `anchor status` says of it.
    pub(super) fn process(&self, now: Time) -> Process {
        let pid = self.child.as_ref().map(Child::id);
        let uptime = pid.map(|_| now.since(self.started)).unwrap_or_default();
        Process {
            task: self.task.name().into(),
            pid,
            restarts: self.restarts(),
            uptime_s: uptime.as_secs_f64(),
        }
    }
}

fn described(status: ExitStatus) -> String {
    let signal = status.signal().map(Signal::try_from);
    match (signal, status.code()) {
        (Some(Ok(signal)), _) => format!("was killed by {signal}"),
        (_, Some(code)) => format!("exited with code {code}"),
        _ => format!("ended: {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_are_told_in_words() {
        assert_eq!(described(ExitStatus::from_raw(9)), "was killed by SIGKILL");
        assert_eq!(
            described(ExitStatus::from_raw(1 << 8)),
            "exited with code 1"
        );
    }
}
