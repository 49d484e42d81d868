//! Pressure stall information.

use std::borrow::Cow;

use crate::labels::Source;
use crate::saturation::fault::Fault;
use crate::saturation::{Probe, Round};

/// Of the backend's cgroup.
pub(super) struct OfBackend;

/// Of the host.
pub(super) struct OfHost;

impl Probe for OfBackend {
    fn source(&self) -> Cow<'static, str> {
        Source::BackendPressure.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        round.backend.cgroup().map(drop)
    }
}

impl Probe for OfHost {
    fn source(&self) -> Cow<'static, str> {
        Source::HostPressure.as_str().into()
    }

    fn read(&mut self, _round: &mut Round<'_>) -> Result<(), Fault> {
        Ok(())
    }
}
