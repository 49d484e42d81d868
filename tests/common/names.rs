//! Names that one sidecar resolves as a test says, and nobody else: a mount namespace of its own with another /etc/hosts,
//! and with an /etc/nsswitch.conf by which nobody else is asked. The machine's files are not touched.

use std::io::Write as _;
use std::process::Command;

/// What the sidecar's resolver knows. Changes hold at once.
pub struct Names {
    folder: tempfile::TempDir,
}

impl Names {
    /// The names and their addresses.
    #[must_use]
    pub fn new(names: &[(&str, &[&str])]) -> Names {
        let names_of = Names { folder: tempfile::tempdir().expect("a folder") };
        std::fs::write(names_of.folder.path().join("nsswitch.conf"), "hosts: files\n").expect("write");
        // A child by another user has to read them.
        Command::new("chmod").arg("-R").arg("a+rX").arg(names_of.folder.path()).status().expect("chmod");
        names_of.set(names);
        names_of
    }

    /// Other names and addresses from now on. In one write over the same file, which the mount holds on to: nobody reads half
    /// of it.
    pub fn set(&self, names: &[(&str, &[&str])]) {
        let mut text = String::new();
        for (name, addresses) in names {
            addresses.iter().for_each(|address| text.push_str(&format!("{address} {name}\n")));
        }
        let padded = format!("{text:\n<1024}");
        assert_eq!(padded.len(), 1024, "more names than fit");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.folder.path().join("hosts"))
            .expect("open");
        file.write_all(padded.as_bytes()).expect("write");
    }

    /// The command, where only these names are known.
    #[must_use]
    pub fn only_for(&self, command: &Command) -> Command {
        let mut other = Command::new("unshare");
        // SAFETY: the call has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            other.arg("--map-root-user");
        }
        let mount = "mount --bind \"$1/hosts\" /etc/hosts && mount --bind \"$1/nsswitch.conf\" /etc/nsswitch.conf && \
                     shift && exec \"$@\"";
        other.args(["--mount", "/bin/sh", "-c", mount, "sh"]).arg(self.folder.path());
        other.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => other.env(name, value),
                None => other.env_remove(name),
            };
        }
        other
    }
}
