//! Overflows of accept queues, over all listeners of the network namespace.
//! Source: /proc/net/netstat; Linux documentation, networking/snmp_counter, "TcpExtListenOverflows".
//! Shape:  pairs of lines, `TcpExt: NAME NAME ...` and `TcpExt: NUMBER NUMBER ...`; which names there are and where
//!         is the kernel's business.
//! Units:  connections. What overflows is dropped too, so drops are never fewer.
//! Absent: both, where the kernel does not name them.

use std::borrow::Cow;
use std::fs;

use crate::labels::{Source, Trouble};
use crate::saturation::fault::Fault;
use crate::saturation::{Probe, Round};
use crate::signals::families as f;

const FILE: &str = "/proc/net/netstat";
/// There is one network namespace that we are in, for life.
const WHOSE: u64 = 0;

/// The kernel's counters.
pub(super) struct Netstat;

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    overflows: u64,
    drops: u64,
}

impl Probe for Netstat {
    fn source(&self) -> Cow<'static, str> {
        Source::Netstat.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let text = fs::read(FILE).map_err(|error| Fault::io(FILE, &error))?;
        let Counts { overflows, drops } = parse(&text).ok_or_else(|| Fault::malformed(FILE))?;
        let mut follow = |family, counted: u64| round.notes.follow(family, [""; 0], WHOSE, counted as f64);
        let forward = [follow(&f::NETNS_LISTEN_OVERFLOWS, overflows), follow(&f::NETNS_LISTEN_DROPS, drops)];
        if forward.contains(&false) {
            return Err(Fault::new(Trouble::WentBack, format!("{FILE}: a counter went back")));
        }
        Ok(())
    }
}

fn parse(text: &[u8]) -> Option<Counts> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let number = |wanted: &str| {
        let mut both = names.split_ascii_whitespace().zip(numbers.split_ascii_whitespace());
        both.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some(Counts { overflows: number("ListenOverflows")?, drops: number("ListenDrops")? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIXTURE: &str = "\
TcpExt: SyncookiesSent DelayedACKs ListenOverflows ListenDrops TCPHPHits
TcpExt: 11 12 13 14 15
IpExt: InNoRoutes ListenDrops ListenOverflows
IpExt: 16 17 18
";

    #[test]
    fn numbers_are_found_by_name() {
        assert_eq!(parse(FIXTURE.as_bytes()), Some(Counts { overflows: 13, drops: 14 }));
        let other_order = "TcpExt: ListenDrops X ListenOverflows\nTcpExt: 21 22 23\n";
        assert_eq!(parse(other_order.as_bytes()), Some(Counts { overflows: 23, drops: 21 }));
    }

    #[test]
    fn what_is_not_there_is_not_zero() {
        let broken = [
            "",
            "TcpExt: ListenOverflows ListenDrops\n",
            "TcpExt: ListenOverflows ListenDrops\nTcpExt: 1\n",
            "TcpExt: ListenOverflows\nTcpExt: 1\n",
            "TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 x\n",
            "TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 -2\n",
        ];
        for text in broken {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn this_kernel_is_understood() {
        assert!(parse(&fs::read(FILE).unwrap()).is_some());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&text);
        }
    }
}
