//! The command line as clap sees it. Values stay text here: they are checked where those of the file and of the
//! environment are, by the same code and with the same sentences.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::Question;
use super::error::{ConfigError, Failure, Source, Stream, redact};

const AFTER_HELP: &str = "Every key of the file is also an environment variable: GOLDEN_ and its path in capitals, \
for example GOLDEN_TIMEOUTS_CONNECT=1s. A flag wins over the environment, the environment over the file.\n\
Durations have a unit (250ms, 5s, 2m), sizes too (64KiB, 1MB).";

/// clap's own line would call both the program behind the dashes and ours a command.
const USAGE: &str = "golden-sidecar --upstream URL [OPTIONS] [-- COMMAND ARGS...]\n       \
golden-sidecar demo|check|doctor|routes|pack|healthcheck [OPTIONS]";

/// A reverse proxy beside any HTTP service that measures the four golden signals per route.
#[derive(Debug, Parser)]
#[command(name = "golden-sidecar", bin_name = "golden-sidecar", version, after_help = AFTER_HELP, override_usage = USAGE)]
struct CommandLine {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Embedded backend, traffic and sidecar on loopback; prints what to look at, runs until Ctrl-C
    Demo(DemoFlags),
    /// Check the configuration and print the effective one, with the source of each value
    Check(Box<Flags>),
    /// Say what can be measured here and what cannot, and why
    Doctor(Box<Flags>),
    /// Ask a running sidecar which routes it knows, or why a path falls under one
    Routes(RoutesFlags),
    /// Write dashboards, alerts and their tests for an objective to a folder
    Pack(PackFlags),
    /// Exit 0 when /readyz of the local sidecar says ready
    Healthcheck(HealthcheckFlags),
}

/// The flags of the sidecar itself, before or after `check`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// Backend that all traffic goes to, for example http://127.0.0.1:8080 [required, here or elsewhere]
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Address of the proxy; port 0 lets the kernel choose [default: 0.0.0.0:8000]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Address of the admin endpoints such as /metrics [default: 0.0.0.0:9900]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// YAML file with any of the keys [environment: GOLDEN_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Worker threads, or auto: the cores that the container may use [default: auto]
    #[arg(long, value_name = "N|auto")]
    workers: Option<String>,
    /// Client connections at once [default: 10000]
    #[arg(long, value_name = "N")]
    connections: Option<String>,
    /// Requests at once, or none; above it 503 [default: none]
    #[arg(long, value_name = "N|none")]
    inflight: Option<String>,
    /// Connections to the backend, over all workers [default: 512]
    #[arg(long, value_name = "N")]
    upstream_connections: Option<String>,
    /// Wait for a free backend connection [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pool_wait: Option<String>,
    /// Time to connect to the backend [default: 1s]
    #[arg(long, value_name = "DURATION")]
    connect_timeout: Option<String>,
    /// Time from the request sent to the response head [default: 60s]
    #[arg(long, value_name = "DURATION")]
    head_timeout: Option<String>,
    /// After SIGTERM: not ready, but still accepting [default: 5s]
    #[arg(long, value_name = "DURATION")]
    drain_grace: Option<String>,
    /// Then: time for requests in flight, before they are cut [default: 30s]
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// Route labels that are learned or imported; above it _other [default: 100]
    #[arg(long, value_name = "N")]
    routes_limit: Option<String>,
    /// Process id of the backend [default: whoever listens on the upstream's port, or COMMAND]
    #[arg(long, value_name = "PID|none")]
    backend_pid: Option<String>,
    /// File that holds that process id
    #[arg(long, value_name = "FILE|none")]
    backend_pid_file: Option<String>,
    /// Folder of the backend's cgroup
    #[arg(long, value_name = "FOLDER|none")]
    backend_cgroup: Option<String>,
    /// CPUs that the backend may use, such as 1.5 or 1500m [default: what its cgroup says]
    #[arg(long, value_name = "CORES|none")]
    backend_cpu_limit: Option<String>,
    /// Memory that the backend may use, such as 512MiB, or bytes [default: what its cgroup says]
    #[arg(long, value_name = "SIZE|none")]
    backend_memory_limit: Option<String>,
    /// When COMMAND ends: never, on-failure or always start it again [default: never]
    #[arg(long, value_name = "WHEN")]
    restart: Option<String>,
    /// The backend as a child of the sidecar: what to start, after two dashes
    #[arg(last = true, value_name = "COMMAND ARGS")]
    pub command: Vec<OsString>,
}

#[derive(Args, Debug)]
struct DemoFlags {
    /// Stop after this time, for example 30s [default: run until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION")]
    run_for: Option<String>,
    /// Address of the proxy [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Address of the admin endpoints [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Taken only to be refused with a sentence.
    #[arg(last = true, hide = true)]
    command: Vec<OsString>,
}

#[derive(Args, Debug)]
struct HealthcheckFlags {
    /// Address of the admin endpoints [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// YAML file that names the address [environment: GOLDEN_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Taken only to be refused with a sentence.
    #[arg(last = true, hide = true)]
    command: Vec<OsString>,
}

#[derive(Args, Debug)]
struct PackFlags {
    /// Percentage of the requests that is to be good [default: 99.9]
    #[arg(long, value_name = "PERCENT")]
    objective: Option<String>,
    /// What takes longer is not good [default: no latency is promised]
    #[arg(long, value_name = "DURATION")]
    latency: Option<String>,
    /// Folder to write to; what is there under the same names is replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Taken only to be refused with a sentence.
    #[arg(last = true, hide = true)]
    command: Vec<OsString>,
}

#[derive(Args, Debug)]
struct RoutesFlags {
    #[command(subcommand)]
    question: RoutesQuestion,
}

#[derive(Debug, Subcommand)]
enum RoutesQuestion {
    /// Every route: where its label comes from, its requests, what was folded into it
    List {
        #[command(flatten)]
        running: RunningFlags,
    },
    /// Which route a path falls under, and why
    Explain {
        /// The path as a request has it, without query
        path: String,
        /// The request's method
        #[arg(long, default_value = "GET")]
        method: String,
        #[command(flatten)]
        running: RunningFlags,
    },
}

/// Where a running sidecar is.
#[derive(Args, Debug)]
struct RunningFlags {
    /// Address of the admin endpoints [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// YAML file that names the address [environment: GOLDEN_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What the command line asks for. Every command carries the flags that hold for it.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Run(Flags),
    Check(Flags),
    Doctor(Flags),
    Demo { run_for: Option<String>, flags: Flags },
    Healthcheck(Flags),
    Routes { question: Question, flags: Flags },
    Pack { objective: Option<String>, latency: Option<String>, out: PathBuf },
}

/// Reads the command line; the first argument is the program's name.
///
/// # Errors
/// With the text of `--help` and `--version` (code 0), or clap's words on a mistake (code 2), without secrets.
pub(super) fn parse(args: &[OsString]) -> Result<Asked, Failure> {
    let CommandLine { flags, command } = CommandLine::try_parse_from(args).map_err(|error| {
        let mut text = error.render().to_string();
        // clap quotes what it does not understand: a whole argument, or what stands behind its `=`.
        for arg in args.iter().map(|arg| arg.to_string_lossy()) {
            for part in [&*arg, arg.split_once('=').map_or("", |(_, value)| value)] {
                let redacted = redact(part);
                if redacted != part {
                    text = text.replace(part, &redacted);
                }
            }
        }
        Failure {
            text,
            code: u8::try_from(error.exit_code()).unwrap_or(2),
            stream: if error.use_stderr() { Stream::Error } else { Stream::Out },
        }
    })?;
    let asked = match command {
        None => Asked::Run(flags),
        Some(Command::Check(after)) => Asked::Check(flags.and(*after)?),
        Some(Command::Doctor(after)) => Asked::Doctor(flags.and(*after)?),
        Some(Command::Demo(DemoFlags { run_for, listen, admin, command })) => {
            let flags = flags.and(Flags { listen, admin, command, ..Flags::default() })?;
            flags.only(&["listen", "admin"], "demo")?;
            flags.without_command("demo")?;
            Asked::Demo { run_for, flags }
        }
        Some(Command::Healthcheck(HealthcheckFlags { admin, config, command })) => {
            let flags = flags.and(Flags { admin, config, command, ..Flags::default() })?;
            flags.only(&["admin"], "healthcheck")?;
            flags.without_command("healthcheck")?;
            Asked::Healthcheck(flags)
        }
        Some(Command::Pack(PackFlags { objective, latency, out, command })) => {
            let flags = flags.and(Flags { command, ..Flags::default() })?;
            flags.only(&[], "pack")?;
            flags.without_command("pack")?;
            Asked::Pack { objective, latency, out }
        }
        Some(Command::Routes(RoutesFlags { question })) => {
            let (question, RunningFlags { admin, config }) = match question {
                RoutesQuestion::List { running } => (Question::List, running),
                RoutesQuestion::Explain { path, method, running } => {
                    if !path.starts_with('/') {
                        let problem = format!("found \"{}\"; expected a path that begins with /", redact(&path));
                        return Err(ConfigError::new("PATH", problem, None).into());
                    }
                    (Question::Explain { path, method }, running)
                }
            };
            let flags = flags.and(Flags { admin, config, ..Flags::default() })?;
            flags.only(&["admin"], "routes")?;
            flags.without_command("routes")?;
            Asked::Routes { question, flags }
        }
    };
    let (Asked::Run(flags) | Asked::Check(flags) | Asked::Doctor(flags)) = &asked else { return Ok(asked) };
    let dashes = args.iter().any(|arg| arg == "--");
    if dashes && flags.command.first().is_none_or(|program| program.is_empty()) {
        // A variable of the caller's that is empty, most likely.
        return Err(ConfigError::new("--", "found no command after it; expected COMMAND ARGS, or no --", None).into());
    }
    Ok(asked)
}

// === impl Flags ===

impl Flags {
    /// The key that each flag sets, the flag, and its value. `--config` is no key, and the command is none either.
    pub fn values(&self) -> [(&'static str, &'static str, Option<&str>); 19] {
        let Flags {
            upstream,
            listen,
            admin,
            config: _,
            workers,
            connections,
            inflight,
            upstream_connections,
            pool_wait,
            connect_timeout,
            head_timeout,
            drain_grace,
            drain_timeout,
            routes_limit,
            backend_pid,
            backend_pid_file,
            backend_cgroup,
            backend_cpu_limit,
            backend_memory_limit,
            restart,
            command: _,
        } = self;
        [
            ("upstream", "--upstream", upstream.as_deref()),
            ("listen", "--listen", listen.as_deref()),
            ("admin", "--admin", admin.as_deref()),
            ("workers", "--workers", workers.as_deref()),
            ("limits.connections", "--connections", connections.as_deref()),
            ("limits.inflight", "--inflight", inflight.as_deref()),
            ("limits.upstream_connections", "--upstream-connections", upstream_connections.as_deref()),
            ("timeouts.pool_wait", "--pool-wait", pool_wait.as_deref()),
            ("timeouts.connect", "--connect-timeout", connect_timeout.as_deref()),
            ("timeouts.head", "--head-timeout", head_timeout.as_deref()),
            ("drain.grace", "--drain-grace", drain_grace.as_deref()),
            ("drain.timeout", "--drain-timeout", drain_timeout.as_deref()),
            ("learn.limit", "--routes-limit", routes_limit.as_deref()),
            ("saturation.backend.pid", "--backend-pid", backend_pid.as_deref()),
            ("saturation.backend.pid_file", "--backend-pid-file", backend_pid_file.as_deref()),
            ("saturation.backend.cgroup", "--backend-cgroup", backend_cgroup.as_deref()),
            ("saturation.backend.cpu_limit", "--backend-cpu-limit", backend_cpu_limit.as_deref()),
            ("saturation.backend.memory_limit", "--backend-memory-limit", backend_memory_limit.as_deref()),
            ("command.restart", "--restart", restart.as_deref()),
        ]
    }

    /// The flags before and after a command together.
    fn and(self, after: Flags) -> Result<Flags, ConfigError> {
        let twice =
            |flag: &'static str| ConfigError::new(flag, "given before and after the command; expected once", None);
        for ((_, flag, before), (_, _, after)) in self.values().into_iter().zip(after.values()) {
            if before.is_some() && after.is_some() {
                return Err(twice(flag));
            }
        }
        if self.config.is_some() && after.config.is_some() {
            return Err(twice("--config"));
        }
        Ok(Flags {
            upstream: self.upstream.or(after.upstream),
            listen: self.listen.or(after.listen),
            admin: self.admin.or(after.admin),
            config: self.config.or(after.config),
            workers: self.workers.or(after.workers),
            connections: self.connections.or(after.connections),
            inflight: self.inflight.or(after.inflight),
            upstream_connections: self.upstream_connections.or(after.upstream_connections),
            pool_wait: self.pool_wait.or(after.pool_wait),
            connect_timeout: self.connect_timeout.or(after.connect_timeout),
            head_timeout: self.head_timeout.or(after.head_timeout),
            drain_grace: self.drain_grace.or(after.drain_grace),
            drain_timeout: self.drain_timeout.or(after.drain_timeout),
            routes_limit: self.routes_limit.or(after.routes_limit),
            backend_pid: self.backend_pid.or(after.backend_pid),
            backend_pid_file: self.backend_pid_file.or(after.backend_pid_file),
            backend_cgroup: self.backend_cgroup.or(after.backend_cgroup),
            backend_cpu_limit: self.backend_cpu_limit.or(after.backend_cpu_limit),
            backend_memory_limit: self.backend_memory_limit.or(after.backend_memory_limit),
            restart: self.restart.or(after.restart),
            // Nothing can follow the command, so it stands after.
            command: if after.command.is_empty() { self.command } else { after.command },
        })
    }

    /// Refuses flags that a command would ignore.
    fn only(&self, keys: &[&str], command: &str) -> Result<(), ConfigError> {
        match self.values().into_iter().find(|(key, _, value)| value.is_some() && !keys.contains(key)) {
            Some((_, flag, _)) => Err(ConfigError::new(flag, format!("has no meaning for {command}; remove it"), None)),
            None if self.config.is_some() && ["demo", "pack"].contains(&command) => {
                Err(ConfigError::new("--config", format!("has no meaning for {command}; remove it"), None))
            }
            None => Ok(()),
        }
    }

    /// Refuses a command for what starts none.
    fn without_command(&self, what: &str) -> Result<(), ConfigError> {
        if self.command.is_empty() {
            return Ok(());
        }
        Err(ConfigError::new("--", format!("a command after it has no meaning for {what}; remove it"), None))
    }

    /// The value of one flag and its source.
    pub fn value(&self, key: &str) -> Option<(&str, Source)> {
        self.values()
            .into_iter()
            .find(|(path, _, _)| *path == key)
            .and_then(|(_, flag, value)| Some((value?, Source::Flag(flag))))
    }
}

#[cfg(test)]
mod tests {
    use super::{CommandLine, Flags};
    use crate::config::raw::Raw;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_free_of_contradictions() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_flag_sets_a_key() {
        let keys = Raw::all_keys();
        let flags = Flags::default();
        for (path, flag, _) in flags.values() {
            assert!(keys.iter().any(|key| key.path == path && key.variable), "{flag} sets {path}");
            assert!(CommandLine::command().get_arguments().any(|arg| arg.get_long() == flag.strip_prefix("--")));
        }
    }
}
