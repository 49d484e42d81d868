//! What carries bytes: sockets of TCP and of the file system, TLS over them, and where they lead. Nothing here knows
//! HTTP.
//!
//! | file | what it holds |
//! |---|---|
//! | `stream.rs` | a connection, whatever it is made of |
//! | `connect.rs` | where the backend is, and connecting to it |
//! | `resolve.rs` | finding that out by name, again and again |
//! | `tls.rs` | handshakes of both sides, and the files that they need |
//! | `certificate.rs` | when a certificate ends |
//! | `proxy_protocol.rs` | what a load balancer says of the client before its first byte |

pub mod certificate;
mod connect;
pub mod proxy_protocol;
mod resolve;
mod stream;
pub mod tls;

pub use connect::{Address, Addresses};
pub use resolve::{Event, follow, resolve};
pub use stream::Stream;
