//! Buffers that are used again: fresh memory for every chunk costs more than hashing it.

use std::sync::Mutex;

/// Buffers that are kept at most.
const KEPT_MAX: usize = 8;

/// Buffers for chunks.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// No buffers yet.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// A buffer of so many bytes, whatever they are.
    pub(crate) fn take(&self, size: u32) -> Vec<u8> {
        let spare = self.0.lock().expect("no holder of this lock panics").pop();
        let mut buffer = spare.unwrap_or_default();
        buffer.resize(size as usize, 0);
        buffer
    }

    /// Gives a buffer back; one without memory is not worth keeping.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().expect("no holder of this lock panics");
        if buffer.capacity() > 0 && kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }
}
