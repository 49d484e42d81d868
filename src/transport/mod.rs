//! What carries bytes: sockets of TCP and of the file system, and where they lead. Nothing here knows HTTP.
//!
//! | file | what it holds |
//! |---|---|
//! | `stream.rs` | a connection, whatever it is made of |
//! | `connect.rs` | where the backend is, and connecting to it |
//! | `resolve.rs` | finding that out by name, again and again |

mod connect;
mod resolve;
mod stream;

pub use connect::{Address, Addresses};
pub use resolve::{Event, follow, resolve};
pub use stream::Stream;
