//! The supervisor: binds and keeps the listener and all mailboxes; starts, watches, restarts and drains the workers.
//!
//! It reads no byte of the network. One thread, one loop over poll(2): signals, the workers' status pipes, and the
//! socket of `anchor status`. What to do about a death is decided in [`policy`]; here it is done.

mod mailboxes;
mod policy;
mod status_socket;
mod worker;

use crate::{
    home::Home,
    order::Order,
    packet::{Counters, Status},
    report::{Process, Report, Serving},
    sys::descriptors::TRANSFERS_MAX,
    task::Task,
    time::{Clock, Time},
};
use anchorage_peer::serve::Share;
use anchorage_peer::{
    config::Config,
    failure::{Exit, Failure},
    identity::Identity,
    output,
};
use anyhow::{Context as _, Result};
use mailboxes::Mailboxes;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use policy::{Action, Event, Policy};
use status_socket::StatusSocket;
use std::{
    net::{SocketAddr, TcpListener},
    os::fd::AsFd as _,
    path::PathBuf,
};
use worker::Worker;

/// What the supervisor works with.
pub(crate) struct Settings {
    /// The anchor's number.
    pub(crate) id: u32,
    /// The config's file, to read it again.
    pub(crate) config: Option<PathBuf>,
    /// Milliseconds between a peer's heartbeats.
    pub(crate) heartbeat_ms: u32,
    /// Which part of every content this anchor gives out first.
    pub(crate) share: Share,
    /// The state directory, locked.
    pub(crate) home: Home,
    /// The anchor's key.
    pub(crate) identity: Identity,
    /// The port.
    pub(crate) listener: TcpListener,
    /// Whether talk is suppressed.
    pub(crate) quiet: bool,
    /// Whether stdout is JSON.
    pub(crate) json: bool,
}

/// Supervises until a signal or a fatal error ends the tree; then no worker is left.
pub(crate) fn run(settings: Settings) -> Result<(), Failure> {
    let mut supervisor = Supervisor::new(settings)?;
    supervisor.handle(Event::Begun);
    while !supervisor.finished {
        supervisor.wait()?;
    }
    supervisor.status_socket.remove();
    supervisor.failure.map_or(Ok(()), Err)
}

struct Supervisor {
    settings: Settings,
    address: SocketAddr,
    clock: Clock,
    signals: SignalFd,
    status_socket: StatusSocket,
    mailboxes: Mailboxes,
    workers: Vec<Worker>,
    policy: Policy,
    failure: Option<Failure>,
    finished: bool,
}

impl Supervisor {
    fn new(settings: Settings) -> Result<Self> {
        let address = settings
            .listener
            .local_addr()
            .context("cannot find the address of the port")?;
        let transfers = std::thread::available_parallelism()
            .ok()
            .and_then(|cores| u8::try_from(cores.get()).ok())
            .unwrap_or(1)
            .clamp(1, TRANSFERS_MAX);
        let tasks: Vec<Task> = [Task::Connection, Task::Manifest]
            .into_iter()
            .chain((0..transfers).map(Task::Transfer))
            .collect();
        let signals: SigSet = [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGCHLD,
        ]
        .into_iter()
        .collect();
        signals.thread_block().context("cannot block signals")?;
        Ok(Self {
            address,
            clock: Clock::start(),
            signals: SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
                .context("cannot receive signals")?,
            status_socket: StatusSocket::bind(&settings.home)?,
            mailboxes: Mailboxes::new(settings.listener.try_clone()?, transfers)
                .context("cannot make the mailboxes")?,
            policy: Policy::new(&tasks),
            workers: tasks.into_iter().map(Worker::new).collect(),
            settings,
            failure: None,
            finished: false,
        })
    }

    /// Waits for whatever comes next, and deals with it.
    fn wait(&mut self) -> Result<()> {
        let timeout = match self.policy.deadline() {
            // Rounded up, so that the deadline has passed when the wait is over.
            Some(due) => due.since(self.clock.now()).as_millis().saturating_add(1),
            None => u128::from(u16::MAX),
        };
        let timeout = PollTimeout::from(u16::try_from(timeout).unwrap_or(u16::MAX));
        let mut watched = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.status_socket.as_fd(), PollFlags::POLLIN),
        ];
        let mut owners = Vec::new();
        for (index, worker) in self.workers.iter().enumerate() {
            if let Some(pipe) = worker.status_pipe() {
                watched.push(PollFd::new(pipe, PollFlags::POLLIN));
                owners.push(index);
            }
        }
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for events"),
        }
        let ready: Vec<bool> = watched
            .iter()
            .map(|entry| entry.any().unwrap_or_default())
            .collect();
        for (index, _) in owners
            .into_iter()
            .zip(&ready[2..])
            .filter(|(_, ready)| **ready)
        {
            self.listen(index);
        }
        if ready[0] {
            self.take_signals()?;
        }
        if ready[1] {
            let report = self.report();
            self.status_socket.answer(&report);
        }
        self.handle(Event::Tick);
        Ok(())
    }

    fn take_signals(&mut self) -> Result<()> {
        while let Some(info) = self.signals.read_signal().context("cannot read signals")? {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            match Signal::try_from(number) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => self.handle(Event::Stopped),
                Ok(Signal::SIGHUP) => self.reload(),
                _ => self.reap(),
            }
        }
        Ok(())
    }

    /// Reads what a worker says.
    fn listen(&mut self, index: usize) {
        for status in self.workers[index].listen() {
            let task = self.workers[index].task();
            match status {
                Status::Wired => self.wire(index),
                Status::Ready => self.handle(Event::Ready(index)),
                Status::Counted(counters) => self.workers[index].count(counters),
                Status::Said(text) => self.talk(format_args!("{task}: {}", output::escaped(&text))),
                Status::Fatal(text) => {
                    let error = anyhow::anyhow!("{task}: {}", output::escaped(&text));
                    self.failure
                        .get_or_insert_with(|| Failure::new(Exit::Failed, error));
                    self.handle(Event::Failed);
                }
            }
        }
    }

    /// Takes the worker's orders channel, tells it what it needs, and links it to its neighbours.
    fn wire(&mut self, index: usize) {
        if !self.workers[index].accept() {
            return;
        }
        let start = self.start_order(self.workers[index].task());
        self.workers[index].order(start);
        self.handle(Event::Wired(index));
        match self.workers[index].task() {
            Task::Manifest => {
                for client in 0..self.workers.len() {
                    self.link(client);
                }
            }
            Task::Connection | Task::Transfer(_) => self.link(index),
        }
    }

    fn start_order(&self, task: Task) -> Order {
        let transfers = self.mailboxes.transfers();
        let settings = &self.settings;
        match task {
            Task::Connection => Order::StartConnection(crate::order::ConnectionStart {
                seed: settings.identity.seed(),
                heartbeat_ms: settings.heartbeat_ms,
                transfers,
            }),
            Task::Manifest => Order::StartManifest(crate::order::ManifestStart {
                database: settings.home.database(),
                node: settings.identity.id(),
                address: self.address,
                heartbeat_ms: settings.heartbeat_ms,
                transfers,
            }),
            Task::Transfer(index) => Order::StartTransfer(crate::order::TransferStart {
                seed: settings.identity.seed(),
                store: settings.home.store(),
                share: settings.share.of_sibling(index.into(), transfers.into()),
            }),
        }
    }

    /// Makes a new channel from the manifest process to a client process, if both can be told.
    fn link(&mut self, client: usize) {
        let manifest = self
            .workers
            .iter()
            .position(|worker| worker.task() == Task::Manifest)
            .expect("there is always one");
        if !self.workers[client].is_wired() || !self.workers[manifest].is_wired() {
            return;
        }
        let ends = match self.workers[client].task() {
            Task::Manifest => return,
            Task::Connection => ipc_channel::ipc::channel().map(|(sender, receiver)| {
                (
                    Order::AttachManifestToConnection(sender),
                    Order::AttachConnection(receiver),
                )
            }),
            Task::Transfer(index) => ipc_channel::ipc::channel().map(|(replies, receiver)| {
                (
                    Order::AttachManifestToTransfer { index, replies },
                    Order::AttachTransfer(receiver),
                )
            }),
        };
        match ends {
            Ok((down, up)) => {
                self.workers[manifest].order(down);
                self.workers[client].order(up);
            }
            Err(error) => {
                self.talk(format_args!("cannot make a channel: {error}"));
                self.workers[client].kill();
            }
        }
    }

    /// Takes note of the workers that have ended.
    fn reap(&mut self) {
        for index in 0..self.workers.len() {
            // Its last words first: they may say why.
            self.listen(index);
            if let Some(cause) = self.workers[index].reap(self.policy.is_draining()) {
                self.handle(Event::Exited(index, cause));
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = Vec::new();
            self.policy.handle(self.clock.now(), event, &mut actions);
            for action in actions {
                events.extend(self.act(action));
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start(index) => return self.start(index),
            Action::Postpone(index, seconds) => {
                let death = self.workers[index].take_death().unwrap_or_default();
                self.talk(format_args!("{death}; to be started again in {seconds} s"));
            }
            Action::Drain(index) => self.workers[index].order(Order::Drain),
            Action::Kill(index) => self.workers[index].kill(),
            Action::GiveUp(index) => {
                let death = self.workers[index].take_death().unwrap_or_default();
                let error = anyhow::anyhow!(
                    "anchor {} gives up: {death}, the fifth time within a minute",
                    self.settings.id
                );
                self.failure
                    .get_or_insert_with(|| Failure::new(Exit::Failed, error));
            }
            Action::Serve => self.announce(),
            Action::Finish => self.finished = true,
        }
        None
    }

    fn start(&mut self, index: usize) -> Option<Event> {
        let now = self.clock.now();
        let worker = &mut self.workers[index];
        match worker.start(now, self.settings.id, &self.mailboxes) {
            Ok(pid) => {
                if worker.restarts() > 0 {
                    let before = match worker.take_death() {
                        Some(death) => format!("{death};"),
                        None => worker.task().to_string(),
                    };
                    self.talk(format_args!("{before} started again as pid {pid}"));
                }
                None
            }
            Err(error) => {
                let task = worker.task();
                worker.note_death(format!("{task} cannot be started: {error:#}"));
                Some(Event::Exited(index, policy::Cause::Faulted))
            }
        }
    }

    fn announce(&self) {
        let serving = Serving {
            event: "serving",
            id: self.settings.id,
            address: self.address,
            key: self.settings.identity.id(),
        };
        if self.settings.json {
            output::data(serde_json::to_string(&serving).expect("plain data always encodes"));
        } else {
            output::data(serving);
        }
    }

    fn reload(&mut self) {
        match Config::load(self.settings.config.as_deref()) {
            Ok(config) => {
                let heartbeat_ms = config.heartbeat_ms;
                self.settings.heartbeat_ms = heartbeat_ms;
                for worker in &mut self.workers {
                    if !matches!(worker.task(), Task::Transfer(_)) {
                        worker.order(Order::Reload { heartbeat_ms });
                    }
                }
                self.talk(format_args!(
                    "config read again, heartbeat {heartbeat_ms} ms"
                ));
            }
            Err(error) => self.talk(format_args!("config as before: {error:#}")),
        }
    }

    fn report(&self) -> Report {
        let now = self.clock.now();
        let supervisor = Process {
            task: "supervisor".into(),
            pid: Some(std::process::id()),
            restarts: 0,
            uptime_s: now.since(Time::default()).as_secs_f64(),
        };
        let workers = self.workers.iter().map(|worker| worker.process(now));
        let sum = |count: fn(&Counters) -> u64| {
            self.workers
                .iter()
                .map(|worker| count(&worker.total()))
                .sum()
        };
        Report {
            id: self.settings.id,
            address: self.address,
            key: self.settings.identity.id(),
            processes: std::iter::once(supervisor).chain(workers).collect(),
            peers: sum(|counters| counters.peers),
            releases: sum(|counters| counters.releases),
            bytes_in: sum(|counters| counters.bytes_in),
            bytes_out: sum(|counters| counters.bytes_out),
            acks_from_anchors: sum(|counters| counters.acks_from_anchors),
            acks_from_peers: sum(|counters| counters.acks_from_peers),
        }
    }

    fn talk(&self, text: impl std::fmt::Display) {
        if !self.settings.quiet {
            output::talk(format_args!("anchor {}: {text}", self.settings.id));
        }
    }
}
