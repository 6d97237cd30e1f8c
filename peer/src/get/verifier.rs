//! The thread of a fetch that verifies and writes what its connections receive.
//!
//! One thread for all of them: the file has one writer, and whatever is to be hashed is hashed side by side.

use super::{
    connection::{Report, Reports},
    prefix::Prefix,
};
use crate::{buffers::Buffers, scheduler::SourceId};
use anchorage_manifest::Hash;
use anyhow::Result;
use std::sync::Arc;
use tokio::sync::{
    OwnedSemaphorePermit,
    mpsc::{UnboundedReceiver, error::TryRecvError},
};

/// A chunk in memory, as it came.
pub(super) struct Arrival {
    pub(super) from: SourceId,
    pub(super) index: u32,
    pub(super) bytes: Vec<u8>,
    /// Its part of the memory for what is on its way to the disk; this is what bounds the queue.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What the thread works with.
pub(super) struct Verifier {
    pub(super) prefix: Prefix,
    pub(super) arrivals: UnboundedReceiver<Arrival>,
    pub(super) buffers: Arc<Buffers>,
    pub(super) reports: Reports,
}

impl Verifier {
    /// Works until nothing can arrive any more; then the hash of the file, if it is whole. Of each chunk is told what
    /// becomes of it, and of an error, which ends the work, what it is. Blocks.
    pub(super) fn run(mut self) -> Option<Hash> {
        // An error of the disk is none of any connection's; whose chunk it met does not matter.
        let mut from = SourceId::default();
        let worked = self.work(&mut from);
        let Self {
            prefix, reports, ..
        } = self;
        match worked.and_then(|()| prefix.finish()) {
            Ok(hash) => hash,
            Err(error) => {
                // When the fetch is over, nobody wants to know.
                drop(reports.send((from, Report::Unwritable(error))));
                None
            }
        }
    }

    fn work(&mut self, from: &mut SourceId) -> Result<()> {
        loop {
            let arrival = match self.arrivals.try_recv() {
                Ok(arrival) => arrival,
                Err(TryRecvError::Empty) if self.prefix.is_late() => {
                    self.prefix.advance()?;
                    continue;
                }
                Err(_) => match self.arrivals.blocking_recv() {
                    Some(arrival) => arrival,
                    None => return Ok(()),
                },
            };
            *from = arrival.from;
            let size = u32::try_from(arrival.bytes.len())?;
            let report = if self.prefix.store(arrival.index, &arrival.bytes)? {
                Report::Stored(arrival.index, size)
            } else {
                Report::Corrupt(arrival.index)
            };
            self.buffers.give_back(arrival.bytes);
            drop(arrival.permit);
            // When the fetch is over, nobody wants to know.
            drop(self.reports.send((*from, report)));
        }
    }
}
