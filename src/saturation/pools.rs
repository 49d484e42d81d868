//! Pools that the backend reports itself.

use std::borrow::Cow;

use crate::config::{Pool, PoolKind};
use crate::saturation::fault::Fault;
use crate::saturation::{Probe, Round};

/// One pool, asked over the network once per interval.
pub(super) struct Reported {
    source: String,
}

/// The pools that are reported.
pub(super) fn reported(pools: &[Pool]) -> impl Iterator<Item = Reported> {
    let reported = pools.iter().filter(|pool| matches!(pool.kind, PoolKind::Reported { .. }));
    reported.map(|pool| Reported { source: format!("pool:{}", pool.name) })
}

impl Probe for Reported {
    fn source(&self) -> Cow<'static, str> {
        self.source.clone().into()
    }

    fn read(&mut self, _round: &mut Round<'_>) -> Result<(), Fault> {
        Ok(())
    }
}
