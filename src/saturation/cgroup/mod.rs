//! Limits and use of the backend's cgroup, of version 1, version 2, or both at once.
//!
//! | file | what it holds |
//! |---|---|
//! | `place.rs` | where the files are, for each controller and each level |
//! | `files.rs` | reading and parsing them; pure but for one `read` |
//! | `cpu.rs` | probe: quota, use, cpuset, throttling |
//! | `memory.rs` | probe: limit, working set, events |
//! | `pids.rs` | probe: limit of tasks |
//!
//! Every level limits what is below it, so each level's limit stands beside that level's use: a parent that others fill
//! up too may be full long before the backend has reached a limit of its own. The root of a hierarchy is no level: it
//! has no limits, and its use is that of the host.

mod cpu;
mod files;
mod memory;
mod pids;
mod place;

pub(super) use cpu::Cpu;
pub(super) use memory::Memory;
pub(super) use pids::Pids;
pub(super) use place::{Controller, Place};

pub(super) use files::Files;

#[cfg(test)]
mod testing;
