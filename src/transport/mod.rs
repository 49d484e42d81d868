//! What carries bytes: sockets of TCP and of the file system, and where they lead. Nothing here knows HTTP.
//!
//! | file | what it holds |
//! |---|---|
//! | `stream.rs` | a connection, whatever it is made of |
//! | `connect.rs` | where the backend is, and connecting to it |

mod connect;
mod stream;

pub use connect::Addresses;
pub use stream::Stream;
