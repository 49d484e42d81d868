//! Golden Sidecar.
pub mod config;
pub mod exposition;
pub mod labels;
pub mod measure;
pub mod proxy;
pub mod routes;
pub mod signals;
