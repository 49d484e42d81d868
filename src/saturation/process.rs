//! The backend's processes.

use std::borrow::Cow;

use crate::labels::Source;
use crate::saturation::fault::Fault;
use crate::saturation::{Probe, Round};

/// CPU time, memory, descriptors and threads.
#[derive(Default)]
pub(super) struct Processes {}

/// Run-queue wait.
#[derive(Default)]
pub(super) struct Runqueue {}

impl Probe for Processes {
    fn source(&self) -> Cow<'static, str> {
        Source::Process.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        round.backend.known().map(drop)
    }
}

impl Probe for Runqueue {
    fn source(&self) -> Cow<'static, str> {
        Source::Runqueue.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        round.backend.known().map(drop)
    }
}
