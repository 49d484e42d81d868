//! Parse, load, run, exit code.

use std::io::Write as _;
use std::process::ExitCode;

use golden_sidecar::app;
use golden_sidecar::config::{self, Invocation, Stream};
use golden_sidecar::inspect;
use golden_sidecar::telemetry::Log;

fn main() -> ExitCode {
    let invocation = match config::load(std::env::args_os().collect(), std::env::vars_os().collect()) {
        Ok(invocation) => invocation,
        Err(failure) => {
            // A reader that has left (`--help | head -1`) is no failure of ours.
            let _ = match failure.stream {
                Stream::Out => std::io::stdout().write_all(failure.text.as_bytes()),
                Stream::Error => std::io::stderr().write_all(failure.text.as_bytes()),
            };
            return ExitCode::from(failure.code);
        }
    };
    let result = match invocation {
        Invocation::Run(loaded) => {
            let log = log_to_stderr("info");
            let result = app::run(loaded, log.as_ref().map(Log::dropped));
            log.iter().for_each(Log::flush);
            match result {
                Ok(code) => return ExitCode::from(code),
                Err(error) => Err(error),
            }
        }
        Invocation::Demo { run_for, listen, admin } => {
            log_to_stderr("warn");
            app::run_demo(run_for, listen, admin)
        }
        Invocation::Check(loaded) => app::check(&loaded.config).map(|()| {
            let _ = std::io::stdout().write_all(loaded.to_yaml().as_bytes());
        }),
        Invocation::Doctor { loaded, upstream_given } => app::doctor(&loaded, upstream_given),
        Invocation::Routes { running, question } => {
            return match app::routes_of(&running, &question) {
                Ok(text) => {
                    let _ = std::io::stdout().write_all(text.as_bytes());
                    ExitCode::SUCCESS
                }
                Err(said) => {
                    let _ = writeln!(std::io::stderr(), "{}", inspect::visible(&said));
                    ExitCode::FAILURE
                }
            };
        }
        Invocation::Pack { objective_percent, latency, out } => app::pack(objective_percent, latency, &out),
        Invocation::Healthcheck(running) => {
            return match app::healthcheck(&running) {
                Ok(()) => ExitCode::SUCCESS,
                Err(said) => {
                    let _ = writeln!(std::io::stderr(), "{}", inspect::visible(&said));
                    ExitCode::FAILURE
                }
            };
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Log lines are JSON on standard error. `RUST_LOG` filters them. Without a thread to write them there is no log.
fn log_to_stderr(level: &str) -> Option<Log> {
    let log = Log::start(std::io::stderr()).ok()?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .init();
    Some(log)
}
