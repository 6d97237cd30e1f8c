//! What verifies and writes what the connections of a fetch receive.
//!
//! ```text
//! connections ── arrivals ──► verifier ── what it has no time for ──► writer
//!                     hashes chunk and file, writes             writes
//! ```
//! One thread hashes: whatever is to be hashed is hashed side by side. Writing takes as long again, so while much has
//! arrived another thread does that.

use super::{
    connection::{Report, Reports},
    prefix::Prefix,
};
use crate::{
    buffers::{Buffer, Buffers},
    scheduler::SourceId,
    store::Slot,
};
use anchorage_manifest::Hash;
use anyhow::Result;
use std::{
    sync::{Arc, mpsc},
    thread,
};
use tokio::sync::{
    OwnedSemaphorePermit,
    mpsc::{UnboundedReceiver, error::TryRecvError},
};

/// Bytes that have arrived and wait to be verified, from which on another thread writes. Below, what has just been hashed
/// is written while it is in the processor's cache, and nobody is woken for it.
const HELP_SIZE: usize = 512 << 10;

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
    pub(super) prefix: Prefix,
    pub(super) arrivals: UnboundedReceiver<Arrival>,
    pub(super) writer: Writer,
}

/// What writes.
pub(super) struct Writer {
    pub(super) slot: Arc<Slot>,
    pub(super) buffers: Arc<Buffers>,
    pub(super) reports: Reports,
}

/// What the writer does.
enum Job {
    Write(Arrival),
    /// Says when all before is written.
    Tell(mpsc::Sender<()>),
}

/// An error that was reported, which ends the work.
struct Failed;

impl Verifier {
    /// Works until nothing can arrive any more; then the hash of the file, if it is whole. Of each chunk is told what
    /// becomes of it, and of an error, which ends the work, what it is. Blocks.
    pub(super) fn run(mut self) -> Option<Hash> {
        thread::scope(|scope| {
            let (verified, to_write) = mpsc::channel();
            let writer = &self.writer;
            let write = move || {
                let mut to_write = to_write.into_iter();
                // Who has failed has said so, and what is verified from now on meets the same error.
                let _ = to_write.try_for_each(|job| match job {
                    Job::Write(arrival) => writer.write(arrival),
                    // Who asks may have failed, too.
                    Job::Tell(done) => {
                        let _ = done.send(());
                        Ok(())
                    }
                });
            };
            // Where there is no thread for it, nobody takes what is sent, and it is written here.
            let _ = thread::Builder::new().spawn_scoped(scope, write);
            work(&mut self.prefix, &mut self.arrivals, writer, &verified)
        })
        .ok()?;
        // An error of the disk is none of any connection's.
        let hash = self.prefix.finish();
        self.writer.check(SourceId::default(), hash).ok()?
    }
}

/// Verifies what arrives, and writes it if nobody waits meanwhile.
fn work(
    prefix: &mut Prefix,
    arrivals: &mut UnboundedReceiver<Arrival>,
    writer: &Writer,
    verified: &mpsc::Sender<Job>,
) -> Result<(), Failed> {
    loop {
        let arrival = match arrivals.try_recv() {
            Ok(arrival) => arrival,
            Err(TryRecvError::Empty) if prefix.is_late() => {
                writer.check(SourceId::default(), prefix.advance())?;
                continue;
            }
            Err(_) => match arrivals.blocking_recv() {
                Some(arrival) => arrival,
                None => return Ok(()),
            },
        };
        let (from, index) = (arrival.from, arrival.index);
        if prefix.comes(index) {
            let (done, is_done) = mpsc::channel();
            // Where nobody writes but this thread, all is written.
            if verified.send(Job::Tell(done)).is_ok() {
                let _ = is_done.recv();
            }
            writer.check(SourceId::default(), prefix.catch_up(index))?;
        }
        if !writer.check(from, prefix.verify(index, &arrival.bytes))? {
            writer.finish(arrival, Report::Corrupt(index));
        } else if arrivals.len() * arrival.bytes.len() < HELP_SIZE {
            writer.write(arrival)?;
        } else if let Err(mpsc::SendError(Job::Write(arrival))) = verified.send(Job::Write(arrival))
        {
            writer.write(arrival)?;
        }
    }
}

impl Writer {
    /// Writes a chunk that matches its hash.
    fn write(&self, arrival: Arrival) -> Result<(), Failed> {
        let Arrival { from, index, .. } = arrival;
        self.check(from, self.slot.write(index, &arrival.bytes))?;
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

    /// Says what is wrong, if anything is.
    fn check<T>(&self, from: SourceId, result: Result<T>) -> Result<T, Failed> {
        result.map_err(|error| {
            self.tell(from, Report::Unwritable(error));
            Failed
        })
    }

    fn tell(&self, from: SourceId, report: Report) {
        // When the fetch is over, nobody wants to know.
        drop(self.reports.send((from, report)));
    }
}
