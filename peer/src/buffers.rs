//! Buffers that are used again, and begin with a page: fresh memory for every chunk costs more than hashing it.

use std::{
    ops::{Deref, DerefMut},
    sync::Mutex,
};

/// Buffers that are kept at most: so many, or small ones of so many bytes.
const KEPT_MAX: (usize, usize) = (8, 1 << 20);

/// Bytes of a page. Where a copy begins 16 bytes after the beginning of a page, as what the allocator maps for itself
/// does, AMD's Zen 3 copies a file's pages into it at 1.4 GB/s, else at 4.5 (`rep movsb`, with which the kernel copies).
const PAGE_SIZE: usize = 4 << 10;

/// Bytes, which begin with a page once they have grown to one. What is made of a vector stays where it lies until it grows.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// So many bytes, whatever they are.
    pub(crate) fn new(size: usize) -> Self {
        let mut buffer = Self::default();
        buffer.resize(size);
        buffer
    }

    /// Makes it longer, by zeros, or shorter.
    pub(crate) fn resize(&mut self, size: usize) {
        if size >= PAGE_SIZE && self.memory.capacity() < self.start + size {
            let mut memory: Vec<u8> = Vec::with_capacity(size + PAGE_SIZE);
            let start = memory.as_ptr().align_offset(PAGE_SIZE).min(PAGE_SIZE);
            memory.resize(start, 0);
            memory.extend_from_slice(self);
            *self = Self { memory, start };
        }
        self.memory.resize(self.start + size, 0);
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(memory: Vec<u8>) -> Self {
        Self { memory, start: 0 }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }
}

/// Buffers for chunks.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Buffer>>);

impl Buffers {
    /// No buffers yet.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// A buffer of so many bytes, whatever they are.
    pub(crate) fn take(&self, size: usize) -> Buffer {
        let spare = self.0.lock().expect("no holder of this lock panics").pop();
        let mut buffer = spare.unwrap_or_default();
        buffer.resize(size);
        buffer
    }

    /// Gives a buffer back; one without memory is not worth keeping.
    pub(crate) fn give_back(&self, buffer: Buffer) {
        let mut kept = self.0.lock().expect("no holder of this lock panics");
        let (count, size) = KEPT_MAX;
        let fitting = size.checked_div(buffer.memory.capacity());
        if fitting.is_some_and(|fitting| kept.len() < fitting.max(count)) {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_its_bytes_and_begins_with_a_page_once_it_is_one() {
        let mut buffer = Buffer::from(vec![7; 100]);
        for size in [200, 5_000, 300_000, 1_000, 40_000, 2 << 20] {
            let kept = buffer.len().min(size).min(100);
            buffer.resize(size);
            assert_eq!(buffer.len(), size);
            assert_eq!(buffer[..kept], vec![7; kept]);
            if size >= 5_000 {
                assert_eq!(buffer.as_ptr().align_offset(PAGE_SIZE), 0);
            }
        }
        assert!(buffer[100..].iter().all(|&byte| byte == 0));
        assert_eq!(Buffer::default().len(), 0);
    }

    #[test]
    fn many_small_ones_are_kept_and_few_large_ones() {
        for (size, kept) in [(0, 0), (32 << 10, 28), (1 << 20, 8)] {
            let buffers = Buffers::new();
            (0..100).for_each(|_| buffers.give_back(Buffer::new(size)));
            assert_eq!(
                buffers.0.lock().expect("no panics").len(),
                kept,
                "{size} bytes"
            );
        }
    }
}
