//! Golden Sidecar.
pub mod config;
pub mod labels;
