//! The manifest process: the only one that touches the database; it knows releases, holders and members.
//!
//! Requests come up pipes, one thread reading each, into one inbox; the main loop applies them to the [`Registry`],
//! a plain struct, and sends what comes out down to the clients. All releases of a batch become durable in one
//! commit before any of them is answered. It has no socket.

mod database;
mod inbox;
mod outbox;
mod registry;

use super::{StatusPipe, forward_orders, next_order};
use crate::{
    order::{ManifestStart, Order, ToConnection, ToTransfer},
    packet::{Asked, Counters, Deposited},
    sys::descriptors::{self, FIRST},
    time::{Clock, Time},
};
use anchorage_manifest::{
    SignedRelease, codec,
    wire::{Outcome, Refusal, Reply},
};
use anyhow::{Result, bail};
use database::{Database, Known};
use inbox::{Inbox, Mail};
use ipc_channel::ipc::IpcReceiver;
use outbox::Outbox;
use registry::{Action, Event, Registry};
use std::time::Duration;

/// Longest time between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Shortest time between two reports.
const REPORT_PAUSE: Duration = Duration::from_millis(100);

/// Most mail that is applied before one commit, and before it is answered.
const BATCH_MAX: usize = 32;

/// Is the manifest process until it is drained.
pub(super) fn run(status: &StatusPipe, orders: IpcReceiver<Order>) -> Result<()> {
    let Order::StartManifest(start) = next_order(&orders) else {
        bail!("the first order is no start");
    };
    let inbox = Inbox::new();
    inbox.read_requests::<Asked>(descriptors::take(FIRST + 1)?, Mail::Asked);
    for index in 0..start.transfers {
        let pipe = descriptors::take(FIRST + 2 + i32::from(index))?;
        inbox.read_requests::<Deposited>(pipe, move |deposited| Mail::Deposited(index, deposited));
    }
    let sender = inbox.sender();
    forward_orders(orders, move |order| {
        // The inbox lives as long as the process.
        let _ = sender.send(Mail::Ordered(order));
    });
    let (database, known) = Database::open(&start.database)?;
    let mut keeper = Keeper::new(&start, database, known, status.clone());
    status.ready();
    keeper.keep(&inbox)
}

/// The registry with everything around it.
struct Keeper {
    registry: Registry,
    database: Database,
    /// Releases whose commit and reply are due.
    staged: Vec<(u64, SignedRelease)>,
    /// Empty; kept for its room.
    actions: Vec<Action>,
    connection: Option<Outbox<ToConnection>>,
    transfers: Vec<Option<Outbox<ToTransfer>>>,
    clock: Clock,
    status: StatusPipe,
    reported: Counters,
    reported_at: Time,
    draining: bool,
    /// Whether the last commit failed.
    refusing: bool,
}

impl Keeper {
    fn new(start: &ManifestStart, database: Database, known: Known, status: StatusPipe) -> Self {
        let settings = registry::Settings {
            node: start.node,
            address: start.address,
            heartbeat_ms: start.heartbeat_ms,
            seed: fastrand::u64(..),
        };
        Self {
            registry: Registry::new(settings, known),
            database,
            staged: Vec::new(),
            actions: Vec::new(),
            connection: None,
            transfers: (0..start.transfers).map(|_| None).collect(),
            clock: Clock::start(),
            status,
            reported: Counters::default(),
            reported_at: Time::default(),
            draining: false,
            refusing: false,
        }
    }

    fn keep(&mut self, inbox: &Inbox) -> Result<()> {
        self.report(true);
        loop {
            let now = self.clock.now();
            let due = self
                .registry
                .deadline()
                .map_or(REPORT_EVERY, |due| due.since(now));
            let patience = if self.draining {
                Duration::ZERO
            } else {
                due.min(self.next_report(now))
            };
            let batch = inbox.batch(patience, BATCH_MAX);
            if batch.is_empty() && self.draining {
                return Ok(());
            }
            for mail in batch {
                self.take(mail)?;
            }
            self.commit();
            self.registry_event(Event::Tick);
            self.flush();
            self.report(false);
        }
    }

    fn take(&mut self, mail: Mail) -> Result<()> {
        match mail {
            Mail::Asked(asked) => asked
                .into_iter()
                .for_each(|asked| self.registry_event(Event::Asked(asked))),
            Mail::Deposited(index, deposited) => deposited
                .into_iter()
                .for_each(|deposited| self.deposited(index, deposited)),
            Mail::Ordered(order) => self.obey(order)?,
            Mail::Nonsense(text) => self.status.said(&text),
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<()> {
        match order {
            Order::AttachManifestToConnection(sender) => {
                self.connection = Some(Outbox::new(sender));
                self.tell_connection(ToConnection::Listening);
            }
            Order::AttachManifestToTransfer { index, replies } => {
                if let Some(slot) = self.transfers.get_mut(usize::from(index)) {
                    *slot = Some(Outbox::new(replies));
                    self.tell_transfer(index, ToTransfer::Listening);
                }
            }
            Order::Reload { heartbeat_ms } => {
                self.registry_event(Event::Reloaded { heartbeat_ms });
            }
            Order::Drain => self.draining = true,
            order => bail!("an order for another task: {order:?}"),
        }
        Ok(())
    }

    fn deposited(&mut self, index: u8, deposited: Deposited) {
        match deposited {
            Deposited::Admit { content } => {
                let geometry = self.registry.geometry(content);
                self.tell_transfer(index, ToTransfer::Admitted { content, geometry });
            }
            Deposited::Has { content, segment } => {
                self.registry_event(Event::Has { content, segment });
            }
            Deposited::Stored { content, chunks } => {
                self.registry_event(Event::Stored { content, chunks });
                for other in (0u8..)
                    .take(self.transfers.len())
                    .filter(|&other| other != index)
                {
                    self.tell_transfer(other, ToTransfer::Stored { content });
                }
            }
        }
    }

    fn registry_event(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.registry.handle(self.clock.now(), event, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Reply { sequence, reply } => self.reply(sequence, reply),
                Action::Push(push) => self.tell_connection(ToConnection::Push(push)),
                Action::Commit { sequence, release } => {
                    // The registry judged it by what is committed; of two at once, the second must wait.
                    let name = &release.unverified().name;
                    if self
                        .staged
                        .iter()
                        .any(|(_, other)| other.unverified().name == *name)
                    {
                        self.commit();
                        self.registry_event(Event::Retried { sequence, release });
                    } else {
                        self.staged.push((sequence, release));
                    }
                }
            }
        }
        self.actions = actions;
    }

    /// Makes what is staged durable, then answers.
    fn commit(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        if staged.is_empty() {
            return;
        }
        let result = self
            .database
            .insert(staged.iter().map(|(_, release)| release));
        for (sequence, release) in staged {
            let reply = match &result {
                Ok(()) => {
                    self.registry_event(Event::Committed { release });
                    Reply::Published {
                        outcome: Outcome::New,
                    }
                }
                Err(error) => Reply::Refused {
                    refusal: Refusal::Storage(format!("{error:#}")),
                },
            };
            self.reply(sequence, reply);
        }
        match result {
            Ok(()) => self.refusing = false,
            Err(error) if !std::mem::replace(&mut self.refusing, true) => {
                self.status
                    .said(&format!("releases are refused for now: {error:#}"));
            }
            Err(_) => {}
        }
    }

    fn reply(&mut self, sequence: u64, reply: Reply) {
        self.tell_connection(match reply {
            Reply::Holding { .. } | Reply::Listed { .. } => ToConnection::Encoded {
                sequence,
                reply: codec::encode(&reply),
            },
            reply => ToConnection::Reply { sequence, reply },
        });
    }

    fn flush(&mut self) {
        self.connection.iter_mut().for_each(Outbox::flush);
        self.transfers.iter_mut().flatten().for_each(Outbox::flush);
    }

    fn tell_connection(&mut self, message: ToConnection) {
        if let Some(outbox) = &mut self.connection {
            outbox.put(message);
        }
    }

    fn tell_transfer(&mut self, index: u8, message: ToTransfer) {
        if let Some(Some(outbox)) = self.transfers.get_mut(usize::from(index)) {
            outbox.put(message);
        }
    }

    /// How long until the next report is due.
    fn next_report(&self, now: Time) -> Duration {
        let changed = self.registry.counters() != self.reported;
        let every = if changed { REPORT_PAUSE } else { REPORT_EVERY };
        every.saturating_sub(now.since(self.reported_at))
    }

    fn report(&mut self, at_once: bool) {
        let now = self.clock.now();
        if at_once || self.next_report(now).is_zero() {
            self.reported = self.registry.counters();
            self.reported_at = now;
            self.status.counted(self.reported);
        }
    }
}

/// Errors of the database name the file once.
fn cannot_use(path: &std::path::Path) -> impl Fn() -> String {
    let path = path.display().to_string();
    move || format!("cannot use the database {path}")
}
