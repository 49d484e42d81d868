//! Parse, load, run, exit code.

use std::io::Write;
use std::process::ExitCode;

use golden_sidecar::config::{self, Failure, Invocation, Stream};

fn main() -> ExitCode {
    let outcome = match config::load(std::env::args_os().collect(), std::env::vars_os().collect()) {
        Ok(Invocation::Check(loaded)) => Failure { text: loaded.to_yaml(), code: 0, stream: Stream::Out },
        Ok(_) => Failure { text: "not built yet in this version\n".to_owned(), code: 1, stream: Stream::Error },
        Err(failure) => failure,
    };
    // A reader that has left (`check | head -1`) is no failure of ours.
    let _ = match outcome.stream {
        Stream::Out => std::io::stdout().write_all(outcome.text.as_bytes()),
        Stream::Error => std::io::stderr().write_all(outcome.text.as_bytes()),
    };
    ExitCode::from(outcome.code)
}
