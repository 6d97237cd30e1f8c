//! What verifies and writes what the connections of a fetch receive.
//!
//! ```text
//! connections ── arrivals ──► verifier ── what it has no time for ──► writer
//!                     hashes chunk and file, writes             writes
//! ```
//! One thread hashes: a chunk and a piece of the file side by side, or two chunks where nothing of the file is there.
//! Writing takes as long again, so while much has arrived another thread does that.

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
                    Job::Write(arrival) => writer.write(arrival).map(|()| writer.slot.tell()),
                    // Who asks may have failed, too.
                    Job::Tell(done) => {
                        let _ = done.send(());
                        Ok(())
                    }
                });
            };
            // Where there is no thread for it, nobody takes what is sent, and it is written here.
            let _ = thread::Builder::new().spawn_scoped(scope, write);
            let work = Work {
                prefix: &mut self.prefix,
                arrivals: &mut self.arrivals,
                writer,
                verified: &verified,
            };
            work.run()
        })
        .ok()?;
        // An error of the disk is none of any connection's.
        let hash = self.prefix.finish();
        self.writer.check(SourceId::default(), hash).ok()?
    }
}

/// What the thread that verifies works with.
struct Work<'a> {
    prefix: &'a mut Prefix,
    arrivals: &'a mut UnboundedReceiver<Arrival>,
    writer: &'a Writer,
    verified: &'a mpsc::Sender<Job>,
}

impl Work<'_> {
    /// Verifies what arrives, and writes it if little waits meanwhile.
    fn run(mut self) -> Result<(), Failed> {
        let mut untold = 0;
        while let Some(arrival) = self.next()? {
            self.catch_up(arrival.index)?;
            if let Some(other) = self.company(&arrival) {
                let chunks = [&arrival, &other].map(|one| (one.index, &one.bytes[..]));
                let [first, second] = self.prefix.verify_both(chunks);
                self.settle(arrival, first)?;
                self.settle(other, second)?;
            } else {
                let matches = self.prefix.verify(arrival.index, &arrival.bytes);
                let matches = self.writer.check(arrival.from, matches)?;
                self.settle(arrival, matches)?;
            }
            untold += 1;
            if untold == TELL_MAX || self.arrivals.is_empty() {
                self.writer.slot.tell();
                untold = 0;
            }
        }
        Ok(())
    }

    /// The next chunk, once it is there; none when nothing can arrive any more.
    fn next(&mut self) -> Result<Option<Arrival>, Failed> {
        loop {
            match self.arrivals.try_recv() {
                Ok(arrival) => return Ok(Some(arrival)),
                Err(TryRecvError::Empty) if self.prefix.is_late() => {
                    let advanced = self.prefix.advance();
                    self.writer.check(SourceId::default(), advanced)?;
                }
                Err(_) => return Ok(self.arrivals.blocking_recv()),
            }
        }
    }

    /// Hashes the file up to a chunk that has come, if that is worth the while.
    fn catch_up(&mut self, index: u32) -> Result<(), Failed> {
        if !self.prefix.comes(index) {
            return Ok(());
        }
        let (done, is_done) = mpsc::channel();
        // Where nobody writes but this thread, all is written.
        if self.verified.send(Job::Tell(done)).is_ok() {
            let _ = is_done.recv();
        }
        let caught_up = self.prefix.catch_up(index);
        self.writer.check(SourceId::default(), caught_up)
    }

    /// Another chunk that has arrived, to be hashed beside one if nothing of the file can be.
    fn company(&mut self, arrival: &Arrival) -> Option<Arrival> {
        if self.prefix.goes_on(arrival.index) {
            return None;
        }
        let other = self.arrivals.try_recv().ok()?;
        self.prefix.comes(other.index);
        Some(other)
    }

    fn settle(&self, arrival: Arrival, matches: bool) -> Result<(), Failed> {
        let (index, size) = (arrival.index, arrival.bytes.len());
        if !matches {
            self.writer.finish(arrival, Report::Corrupt(index));
            return Ok(());
        }
        let arrival = if self.arrivals.len() * size < HELP_SIZE {
            arrival
        } else {
            match self.verified.send(Job::Write(arrival)) {
                Err(mpsc::SendError(Job::Write(arrival))) => arrival,
                _ => return Ok(()),
            }
        };
        self.writer.write(arrival)
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
