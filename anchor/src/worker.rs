//! A worker process: what all of them do alike. Their tasks are in the modules below, one file each.
//!
//! A worker takes its descriptors, ignores the signals of the terminal (the supervisor drains it), connects back, and
//! does what it is ordered. When its channel of orders closes, its supervisor is gone, and it ends at once:
//! whatever it was doing was not promised to anybody yet.

mod connection;
mod manifest;
mod status_pipe;
mod transfer;

use crate::{order::Order, task::Task};
use anyhow::{Context as _, Result};
use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use nix::sys::signal::{SigSet, Signal};
use status_pipe::StatusPipe;
use std::process::ExitCode;

/// The environment variable that names the bootstrap.
pub(crate) const BOOTSTRAP: &str = "ANCHORAGE_BOOTSTRAP";

/// Is this worker to its end.
pub(crate) fn run(task: Task) -> ExitCode {
    let status = match StatusPipe::take() {
        Ok(status) => status,
        Err(error) => {
            anchorage_peer::output::talk(format_args!(
                "error: {} is started by `anchor serve` alone: {error:#}",
                task.title()
            ));
            return ExitCode::FAILURE;
        }
    };
    match work(task, &status) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            status.fatal(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn work(task: Task, status: &StatusPipe) -> Result<()> {
    ignore_signals().context("cannot ignore signals")?;
    // What `ps` and `top` show where they do not show the title; without it they show the link that was executed.
    let _ = nix::sys::prctl::set_name(c"anchor");
    let orders = bootstrap(status)?;
    match task {
        Task::Connection => connection::run(status, orders),
        Task::Manifest => manifest::run(status, orders),
        Task::Transfer(_) => transfer::run(status, orders),
    }
}

/// Ctrl-C and the end of a terminal reach the whole group, and a service's SIGTERM often does; the supervisor answers
/// for all. SIGXFSZ would end a process whose disk quota is used up; blocked, the write fails instead.
fn ignore_signals() -> nix::Result<()> {
    [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGXFSZ,
    ]
    .into_iter()
    .collect::<SigSet>()
    .thread_block()
}

/// Sends the supervisor the sending end of a new channel, and keeps the other.
fn bootstrap(status: &StatusPipe) -> Result<IpcReceiver<Order>> {
    let name = std::env::var(BOOTSTRAP).context("no bootstrap is named")?;
    let (sender, receiver) = ipc::channel::<Order>().context("cannot make a channel")?;
    IpcSender::connect(name)
        .context("cannot reach the supervisor")?
        .send(sender)
        .context("cannot send the bootstrap")?;
    status.wired();
    Ok(receiver)
}

/// The next order, or the end of the process when nobody is left to give any.
fn next_order(orders: &IpcReceiver<Order>) -> Order {
    orders.recv().unwrap_or_else(|_| std::process::exit(0))
}

/// Gives every order to `deliver`, from a thread of its own, for as long as the supervisor lives.
fn forward_orders(orders: IpcReceiver<Order>, mut deliver: impl FnMut(Order) + Send + 'static) {
    std::thread::spawn(move || {
        loop {
            deliver(next_order(&orders));
        }
    });
}
