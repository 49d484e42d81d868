//! Accept queues, unread bytes, and pools that can be inferred from the backend's connections.

use std::borrow::Cow;

use crate::labels::Source;
use crate::saturation::fault::Fault;
use crate::saturation::{Probe, Round, Settings};

/// Accept queues of the backend's listeners.
#[derive(Default)]
pub(super) struct Listeners {}

/// Connections of the backend, to its clients and to others.
pub(super) struct Connections {}

impl Connections {
    pub fn new(_settings: &Settings) -> Connections {
        Connections {}
    }
}

impl Probe for Listeners {
    fn source(&self) -> Cow<'static, str> {
        Source::Listeners.as_str().into()
    }

    fn read(&mut self, _round: &mut Round<'_>) -> Result<(), Fault> {
        Ok(())
    }
}

impl Probe for Connections {
    fn source(&self) -> Cow<'static, str> {
        Source::Connections.as_str().into()
    }

    fn read(&mut self, _round: &mut Round<'_>) -> Result<(), Fault> {
        Ok(())
    }
}
