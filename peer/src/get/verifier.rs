//! What verifies and writes what the connections of a fetch receive.
//!
//! ```text
//! connections ── arrivals ──► verifier ── what it has no time for ──► writer
//!                     hashes, writes                                 writes
//! ```
//! One thread hashes, two chunks side by side where two have arrived. Writing takes as long again, so while much has
//! arrived another thread does that.

use super::connection::{Report, Reports};
use crate::{
    buffers::{Buffer, Buffers},
    check::{check, check_both},
    scheduler::SourceId,
    store::Slot,
};
use std::{
    sync::{Arc, mpsc},
    thread,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc::UnboundedReceiver};

/// Bytes that have arrived and wait to be verified, from which on another thread writes. Below, what has just been hashed
/// is written while it is in the processor's cache, and nobody is woken for it.
const HELP_SIZE: usize = 512 << 10;

/// So many times something is verified before others are told, while more has arrived.
const TELL_MAX: usize = 8;

/// A chunk in memory, as it came.
pub(super) struct Arrival {
    pub(super) from: SourceId,
    pub(super) index: u32,
    pub(super) bytes: Buffer,
    /// Its part of the memory for what is on its way to the disk; this is what bounds the queues.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What verifies.
pub(super) struct Verifier {
    pub(super) arrivals: UnboundedReceiver<Arrival>,
    pub(super) writer: Writer,
}

/// What writes.
pub(super) struct Writer {
    pub(super) slot: Arc<Slot>,
    pub(super) buffers: Arc<Buffers>,
    pub(super) reports: Reports,
}

/// An error that was reported, which ends the work.
struct Failed;

impl Verifier {
    /// Works until nothing can arrive any more. Of each chunk is told what becomes of it, and of an error, which ends the
    /// work, what it is. Blocks.
    pub(super) fn run(self) {
        let Self {
            mut arrivals,
            writer,
        } = self;
        let writer = &writer;
        thread::scope(|scope| {
            let (verified, to_write) = mpsc::channel();
            let write = move || {
                let mut to_write = to_write.into_iter();
                // Who has failed has said so, and what is verified from now on meets the same error.
                let _ = to_write
                    .try_for_each(|arrival| writer.write(arrival).map(|()| writer.slot.tell()));
            };
            // Where there is no thread for it, nobody takes what is sent, and it is written here.
            let _ = thread::Builder::new().spawn_scoped(scope, write);
            // Who has failed has said so.
            let _ = verify(&mut arrivals, writer, &verified);
        });
    }
}

/// Verifies what arrives, and writes it if little waits meanwhile.
fn verify(
    arrivals: &mut UnboundedReceiver<Arrival>,
    writer: &Writer,
    verified: &mpsc::Sender<Arrival>,
) -> Result<(), Failed> {
    let mut untold = 0;
    while let Some(arrival) = arrivals.blocking_recv() {
        let other = arrivals.try_recv().ok();
        let are_good = writer.check(&arrival, other.as_ref());
        for (arrival, is_good) in [Some(arrival), other].into_iter().flatten().zip(are_good) {
            let waiting = arrivals.len() * arrival.bytes.len();
            if !is_good {
                let report = Report::Corrupt(arrival.index);
                writer.finish(arrival, report);
            } else if waiting < HELP_SIZE {
                writer.write(arrival)?;
            } else if let Err(mpsc::SendError(arrival)) = verified.send(arrival) {
                writer.write(arrival)?;
            }
        }
        untold += 1;
        if untold == TELL_MAX || arrivals.is_empty() {
            writer.slot.tell();
            untold = 0;
        }
    }
    Ok(())
}

impl Writer {
    /// Whether a chunk is good, and another one, if there is one.
    fn check(&self, arrival: &Arrival, other: Option<&Arrival>) -> [bool; 2] {
        let link = |arrival: &Arrival| self.slot.link(arrival.index);
        if let Some(other) = other
            && let (Some(one), Some(two)) = (link(arrival), link(other))
        {
            return check_both([&one, &two], [&arrival.bytes, &other.bytes]);
        }
        // Of what nothing is known nothing was asked for.
        let alone = |one: &Arrival| link(one).is_some_and(|link| check(&link, &one.bytes));
        [alone(arrival), other.is_some_and(alone)]
    }

    /// Writes a chunk that is verified.
    fn write(&self, arrival: Arrival) -> Result<(), Failed> {
        let Arrival { from, index, .. } = arrival;
        if let Err(error) = self.slot.write(index, &arrival.bytes) {
            self.tell(from, Report::Unwritable(error));
            return Err(Failed);
        }
        let size = arrival.bytes.len() as u64;
        self.finish(arrival, Report::Stored(index, size));
        Ok(())
    }

    /// Lets go of a chunk's memory, and says what has become of it.
    fn finish(&self, arrival: Arrival, report: Report) {
        self.buffers.give_back(arrival.bytes);
        drop(arrival.permit);
        self.tell(arrival.from, report);
    }

    fn tell(&self, from: SourceId, report: Report) {
        // When the fetch is over, nobody wants to know.
        drop(self.reports.send((from, report)));
    }
}
