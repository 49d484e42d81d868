//! The backend as a command of ours (`golden-sidecar … -- COMMAND`): started, signalled, waited for, started again.
//!
//! * It has a process group of its own: a Ctrl-C of the terminal reaches the sidecar alone, which drains first and passes
//!   the signal on then.
//! * It gets what it would have without us: standard streams, environment (our own secrets excepted), and the limit of
//!   open files as it was before the sidecar raised its own. On a terminal it may write and set modes, but not read: the terminal is the sidecar's.
//! * When the sidecar dies without a word, the kernel sends the command SIGTERM.
//! * What loses its parent below the command is handed to the sidecar, which waits for it when it ends.

use std::ffi::OsString;
use std::fmt;
use std::future::pending;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::CommandExt as _;
use std::process;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::{Restart, SECRET_VARIABLES};

/// First pause before the command is started again. Short: most crashes are single ones.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause: half a minute between two tries is no load, and no long wait once the cause is mended.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// A command that ran for so long was well; its next end begins with a short pause again.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// Workers of a command that has ended have so long to end too.
const WORKERS_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether they have.
const WORKERS_LOOK: Duration = Duration::from_millis(20);
/// What shells add to the number of the signal that ended a command.
const SIGNAL_CODE: i32 = 128;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// What happens to the command, for whoever wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It runs, for the first time or again.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// It ended.
    Ended(End),
}

/// Why the command does not run.
#[derive(Debug)]
pub struct CannotStart {
    command: OsString,
    source: io::Error,
}

/// Keeps the command.
pub struct Keeper<R> {
    argv: Vec<OsString>,
    restart: Restart,
    open_files: libc::rlimit,
    report: R,
    children: Signal,
    running: Option<Running>,
    back_off: Duration,
    again_at: Option<Instant>,
    /// How it ended last.
    last_end: End,
    /// A signal that ends it was passed on.
    asked_to_end: bool,
    /// The process group of the one that ended last, while it has members: workers that have until then to end too.
    workers: Option<(libc::pid_t, Instant)>,
}

struct Running {
    pid: libc::pid_t,
    since: Instant,
}

impl fmt::Display for CannotStart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = self.command.to_string_lossy();
        match self.source.kind() {
            io::ErrorKind::NotFound => write!(
                out,
                "command: {command:?} is not found; expected a program, for example -- ./server --port 8080"
            ),
            io::ErrorKind::PermissionDenied => {
                write!(out, "command: {command:?} may not be executed; expected a program")
            }
            _ => write!(out, "command: {command:?} cannot be started: {}", self.source),
        }
    }
}

// === impl End ===

impl End {
    /// The exit status that says the same: the command's own, or 128 and the signal's number.
    #[must_use]
    pub fn code(self) -> u8 {
        let code = match self {
            End::Exited(code) => code,
            End::Killed(signal) => SIGNAL_CODE + signal,
        };
        u8::try_from(code & 0xff).unwrap_or(u8::MAX)
    }

    fn from_status(status: libc::c_int) -> Option<End> {
        if libc::WIFEXITED(status) {
            Some(End::Exited(libc::WEXITSTATUS(status)))
        } else if libc::WIFSIGNALED(status) {
            Some(End::Killed(libc::WTERMSIG(status)))
        } else {
            None
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exited(code) => write!(out, "status {code}"),
            End::Killed(signal) => write!(out, "signal {signal}"),
        }
    }
}

// === impl Keeper ===

impl<R: FnMut(Event)> Keeper<R> {
    /// Starts the command. `open_files`: the limit that it gets. Must be called on the thread that lives longest, since
    /// the kernel tells the command when that thread ends. Needs a runtime.
    ///
    /// # Errors
    /// When it cannot be started, or the system refuses to tell of its end.
    pub fn start(
        argv: Vec<OsString>,
        restart: Restart,
        open_files: libc::rlimit,
        report: R,
    ) -> Result<Keeper<R>, CannotStart> {
        let failed = |source| CannotStart { command: argv.first().cloned().unwrap_or_default(), source };
        // Before the first child, or its end could be missed.
        let children = signal(SignalKind::child()).map_err(failed)?;
        // SAFETY: this option takes a number and changes who waits for orphans, nothing else.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        let mut keeper = Keeper {
            argv,
            restart,
            open_files,
            report,
            children,
            running: None,
            back_off: BACK_OFF_MIN,
            again_at: None,
            last_end: End::Exited(0),
            asked_to_end: false,
            workers: None,
        };
        keeper.spawn()?;
        Ok(keeper)
    }

    /// Waits until the command has ended for good. Starts it again where that is asked for. May be dropped and called
    /// again.
    pub async fn ended(&mut self) -> End {
        loop {
            let again_at = self.again_at;
            if self.running.is_none() && again_at.is_none() {
                return self.last_end;
            }
            let has_workers = self.workers.is_some();
            tokio::select! {
                () = sleep(WORKERS_LOOK), if has_workers => self.look_after_workers(),
                _ = self.children.recv() => if let Some(end) = self.reap() {
                    self.last_end = end;
                    if self.is_to_run_again(end) {
                        self.start_later();
                    }
                },
                () = async { match again_at { Some(at) => sleep_until(at).await, None => pending().await } } => {
                    self.again_at = None;
                    if let Err(error) = self.spawn() {
                        // It was there before and may be again: a deployment replaces it just now.
                        tracing::error!(event = "command_failed", %error);
                        self.start_later();
                    }
                }
            }
        }
    }

    /// What happens at the next end. Without a restart one that is due is called off.
    pub fn set_restart(&mut self, restart: Restart) {
        self.restart = restart;
        if restart == Restart::Never {
            self.again_at = None;
        }
    }

    /// Passes a signal on, if there is somebody to get it.
    pub fn signal(&mut self, number: i32) {
        self.asked_to_end |= matches!(number, libc::SIGTERM | libc::SIGINT);
        if let Some(Running { pid, .. }) = self.running {
            // SAFETY: kill has no memory effect. The id is the command's until it was waited for, which only `reap` does.
            // One that is stopped would only get the signal when it goes on.
            unsafe {
                libc::kill(pid, number);
                if self.asked_to_end {
                    libc::kill(pid, libc::SIGCONT);
                }
            }
        }
    }

    /// Ends the command and what belongs to its process group at once.
    pub fn kill(&self) {
        let group = self.running.as_ref().map(|running| running.pid);
        for group in group.into_iter().chain(self.workers.map(|(group, _)| group)) {
            signal_group(group, libc::SIGKILL);
        }
    }

    /// Waits for the workers of a command that has ended: until they have ended too, or were made to.
    pub async fn workers_ended(&mut self) {
        while self.workers.is_some() {
            sleep(WORKERS_LOOK).await;
            self.reap();
            self.look_after_workers();
        }
    }

    /// Kills workers whose time is over. Often enough that the id of an empty group is not somebody else's meanwhile.
    fn look_after_workers(&mut self) {
        let Some((group, until)) = self.workers else { return };
        let over = Instant::now() >= until;
        if !signal_group(group, if over { libc::SIGKILL } else { 0 }) || over {
            self.workers = None;
        }
    }

    fn spawn(&mut self) -> Result<(), CannotStart> {
        // Those that are left would keep the port from the next one.
        if let Some((group, _)) = self.workers.take() {
            signal_group(group, libc::SIGKILL);
        }
        let mut command = process::Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).process_group(0);
        // Many a program shows its environment when it fails.
        for name in SECRET_VARIABLES {
            command.env_remove(name);
        }
        let open_files = self.open_files;
        let on_terminal = io::stdin().is_terminal();
        let prepare = move || {
            // SAFETY: all calls are async-signal-safe system calls; `open_files` is a valid rlimit.
            unsafe {
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const open_files);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                // A process group in the background is stopped, silently and for good, when it touches the terminal.
                if on_terminal {
                    libc::signal(libc::SIGTTIN, libc::SIG_IGN);
                    libc::signal(libc::SIGTTOU, libc::SIG_IGN);
                }
            }
            Ok(())
        };
        // SAFETY: `prepare` allocates nothing and takes no lock.
        let child = unsafe { command.pre_exec(prepare) }.spawn();
        let child = child.map_err(|source| CannotStart { command: self.argv[0].clone(), source })?;
        // Waiting is ours: the handle would wait for one child and leave orphans behind.
        let pid = child.id();
        self.running = Some(Running { pid: pid.cast_signed(), since: Instant::now() });
        tracing::info!(event = "command_started", pid);
        (self.report)(Event::Started { pid });
        Ok(())
    }

    /// Waits for everybody who has ended. Tells how the command did, if it was among them.
    fn reap(&mut self) -> Option<End> {
        let mut ended = None;
        loop {
            let mut status = 0;
            // SAFETY: `status` is a valid place for one number. Nobody else in this process waits for children.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return ended;
            }
            if self.running.as_ref().is_some_and(|running| running.pid == pid)
                && let Some(end) = End::from_status(status)
                && let Some(running) = self.running.take()
            {
                // Workers that are left are asked to end too; a little later they are made to.
                let left = signal_group(pid, libc::SIGTERM);
                self.workers = left.then(|| (pid, Instant::now() + WORKERS_PATIENCE));
                if running.since.elapsed() >= WELL_AFTER {
                    self.back_off = BACK_OFF_MIN;
                }
                if self.asked_to_end {
                    tracing::info!(event = "command_ended", pid, how = %end);
                } else {
                    tracing::warn!(event = "command_ended", pid, how = %end);
                }
                (self.report)(Event::Ended(end));
                ended = Some(end);
            }
        }
    }

    fn is_to_run_again(&self, end: End) -> bool {
        match self.restart {
            Restart::Never => false,
            Restart::OnFailure => end != End::Exited(0),
            Restart::Always => true,
        }
    }

    fn start_later(&mut self) {
        tracing::info!(event = "command_restarts", after = ?self.back_off);
        self.again_at = Some(Instant::now() + self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
    }
}

/// Signals a process group; false when it has no member. 0 only asks.
fn signal_group(group: libc::pid_t, number: i32) -> bool {
    // SAFETY: kill has no memory effect. The kernel gives the id of a group to nobody else while it has a member.
    unsafe { libc::kill(-group, number) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_commands_or_128_and_the_signal() {
        assert_eq!(End::Exited(0).code(), 0);
        assert_eq!(End::Exited(3).code(), 3);
        assert_eq!(End::Exited(255).code(), 255);
        assert_eq!(End::Killed(libc::SIGTERM).code(), 143);
        assert_eq!(End::Killed(libc::SIGKILL).code(), 137);
    }
}
