//! Programs with a known load, as processes: `tests/peers/load.py`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::{PATIENCE, wait_for};

/// A program that is ended when dropped.
pub struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

/// The interpreter: Debian's own, so that no version manager's shim stands in between as a process of its own.
#[must_use]
pub fn python() -> &'static str {
    if std::path::Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

/// The command line of a role of `tests/peers/load.py`.
#[must_use]
pub fn role(role: &str, arguments: &[&str]) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/load.py");
    [python(), script, role].iter().chain(arguments).map(|word| (*word).to_owned()).collect()
}

impl Program {
    /// Starts a role and waits until it says that it is ready.
    #[must_use]
    #[track_caller]
    pub fn start(name: &str, arguments: &[&str]) -> Program {
        let argv = role(name, arguments);
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]);
        let program = Program::spawn(command);
        program.wait_for_line("ready");
        program
    }

    /// Starts any program whose lines on standard output are of interest.
    #[must_use]
    #[track_caller]
    pub fn spawn(mut command: Command) -> Program {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.expect("installed (`make test` does it)");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let output = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn({
            let lines = Arc::clone(&lines);
            move || output.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line))
        });
        Program { child, lines }
    }

    /// Waits for a line that begins so, and returns its words.
    #[track_caller]
    pub fn wait_for_line(&self, start: &str) -> Vec<String> {
        let mut words = None;
        let found = wait_for(PATIENCE * 3, || {
            words = self.lines.lock().unwrap().iter().find(|line| line.starts_with(start)).cloned();
            words.is_some()
        });
        assert!(found, "the program never said {start:?}: {:?}", self.lines.lock().unwrap());
        words.unwrap().split(' ').map(str::to_owned).collect()
    }

    /// The port that it listens on.
    #[must_use]
    #[track_caller]
    pub fn port(&self) -> u16 {
        self.wait_for_line("ready")[1].parse().expect("a port")
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill has no memory effect, and the child is not reaped before `self` is dropped.
        assert_eq!(unsafe { libc::kill(self.child.id().cast_signed(), signal) }, 0, "kill");
    }

    /// Ends it and waits for that.
    pub fn end(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child that is killed when dropped.
pub struct Ended(pub Child);

impl Ended {
    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
