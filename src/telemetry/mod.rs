//! The sidecar's own log: JSON lines on standard error, written by a thread of their own, so that a full pipe or a slow
//! disk holds up nobody. What cannot be written in time is dropped and counted (`golden_log_dropped_total`).

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Lines that may wait. The sidecar logs a few lines a minute; a thousand is a very long stall.
const WAITING_LINES: usize = 1024;
/// How long the end of the process waits for the last lines.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// A line, or the wish to know when all before it are written.
enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Where log lines go.
#[derive(Clone, Debug)]
pub struct Log {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Log {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Log> {
        let (sender, receiver) = sync_channel(WAITING_LINES);
        let dropped = Arc::<AtomicU64>::default();
        let lost = Arc::clone(&dropped);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&receiver, out, &lost))?;
        Ok(Log { sender, dropped })
    }

    /// Lines dropped so far; the cell is shared with the metric.
    #[must_use]
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Waits until what has been logged is written, but not for ever.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

impl Write for Log {
    /// Takes one whole line: that is how tracing-subscriber writes an event.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sender.try_send(Message::Line(line.to_vec()))
        {
            self.dropped.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(receiver: &Receiver<Message>, mut out: impl Write, lost: &AtomicU64) {
    for message in receiver {
        match message {
            // A full disk, or a pipe that nobody holds: only the count can tell.
            Message::Line(line) => {
                if out.write_all(&line).is_err() {
                    lost.fetch_add(1, Relaxed);
                }
            }
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Condvar, Mutex};

    /// A pipe that nobody reads until it is opened.
    #[derive(Clone, Default)]
    struct Stuck(Arc<Gate>);

    /// Whether it is open, and what has been written.
    type Gate = (Mutex<(bool, Vec<u8>)>, Condvar);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (state, opened) = &*self.0;
            let mut state = opened.wait_while(state.lock().unwrap(), |(open, _)| !*open).unwrap();
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A disk that is full.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let mut log = Log::start(Full).unwrap();
        for _ in 0..3 {
            log.write_all(b"line\n").unwrap();
        }
        log.flush();
        assert_eq!(log.dropped().load(Relaxed), 3);
    }

    #[test]
    fn a_stuck_log_holds_up_nobody_and_counts_what_it_drops() {
        let pipe = Stuck::default();
        let mut log = Log::start(pipe.clone()).unwrap();
        // One line is in the writer's hands, the others wait, the rest is dropped.
        for _ in 0..WAITING_LINES + 100 {
            log.write_all(b"line\n").unwrap();
        }
        let dropped = log.dropped().load(Relaxed);
        assert!((99..=100).contains(&dropped), "{dropped}");
        let (state, opened) = &*pipe.0;
        state.lock().unwrap().0 = true;
        opened.notify_all();
        loop {
            // The line is full until the writer has caught up.
            log.flush();
            if state.lock().unwrap().1.len() == 5 * (WAITING_LINES + 100 - dropped as usize) {
                break;
            }
        }
    }
}
