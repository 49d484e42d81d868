//! Read buffers and their reuse. A connection holds one only while it has something to read; a worker keeps a few for
//! the next.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use crate::transport::Stream;

/// A read buffer holds a usual head, and with it a usual small body, in one read.
pub const SMALL: usize = 16 * 1024;
/// Once a body has filled a small buffer it gets a large one: a quarter of the system calls.
pub const LARGE: usize = 64 * 1024;
/// Free buffers that a worker keeps; 64 of 16 KiB are 1 MiB, so what a burst needed is given back to the system.
const KEPT: usize = 64;

/// Free buffers of a worker.
#[derive(Debug, Default)]
pub struct Buffers {
    small: RefCell<Vec<Box<[u8]>>>,
}

impl Buffers {
    fn take(&self) -> Box<[u8]> {
        self.small.borrow_mut().pop().unwrap_or_else(|| vec![0; SMALL].into_boxed_slice())
    }

    fn give(&self, buffer: Box<[u8]>) {
        let mut small = self.small.borrow_mut();
        if buffer.len() == SMALL && small.len() < KEPT {
            small.push(buffer);
        }
    }
}

/// Bytes that were read and not yet used: a window in a buffer that is taken when needed.
#[derive(Debug)]
pub struct Window {
    buffers: Rc<Buffers>,
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// This many bytes.
    Bytes(usize),
    /// The peer will send no more.
    Eof,
    /// No room: the bytes must be used first.
    Full,
}

impl Window {
    /// An empty window without a buffer.
    #[must_use]
    pub fn new(buffers: &Rc<Buffers>) -> Window {
        Window { buffers: Rc::clone(buffers), bytes: Box::default(), start: 0, end: 0 }
    }

    /// The unused bytes.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Uses up the first `n` bytes.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Gives the buffer back if nothing is in it.
    pub fn release(&mut self) {
        if self.is_empty() && !self.bytes.is_empty() {
            self.buffers.give(std::mem::take(&mut self.bytes));
        }
    }

    /// Takes a buffer of `capacity` bytes for what comes next, if this one is smaller and nothing is in it.
    pub fn enlarge(&mut self, capacity: usize) {
        if self.is_empty() && self.bytes.len() < capacity {
            self.buffers.give(std::mem::replace(&mut self.bytes, vec![0; capacity].into_boxed_slice()));
        }
    }

    /// Makes room for more: moves the unread bytes to the front, and grows the buffer up to `capacity` if they fill it.
    pub fn reserve(&mut self, capacity: usize) {
        if self.bytes.is_empty() {
            self.bytes = self.buffers.take();
        }
        if self.start > 0 && self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.bytes.len() && self.bytes.len() < capacity {
            let mut larger = vec![0; (self.bytes.len() * 2).min(capacity.max(SMALL))].into_boxed_slice();
            larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
            self.buffers.give(std::mem::replace(&mut self.bytes, larger));
        }
    }

    /// Reads once from `stream` into the free part, which grows up to `capacity`.
    /// When the kernel had less than the free part, the next call costs no system call until more has arrived.
    ///
    /// # Errors
    /// As the read does.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        capacity: usize,
    ) -> Poll<io::Result<Filled>> {
        self.reserve(capacity);
        let free = &mut self.bytes[self.end..];
        if free.is_empty() {
            return Poll::Ready(Ok(Filled::Full));
        }
        let mut free = ReadBuf::new(free);
        let Poll::Ready(read) = Pin::new(stream).poll_read(cx, &mut free) else {
            // Whoever waits holds no buffer: the next one to read finds it warm.
            self.release();
            return Poll::Pending;
        };
        read?;
        let n = free.filled().len();
        self.end += n;
        Poll::Ready(Ok(if n == 0 { Filled::Eof } else { Filled::Bytes(n) }))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.start = 0;
        self.end = 0;
        self.release();
    }
}
