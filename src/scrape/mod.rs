//! Reads somebody else's metrics page: asks for it, and takes it apart. A leaf: of other rooms it names labels only.
//!
//! | file | what it holds |
//! |---|---|
//! | `fetch.rs` | one GET with a deadline and a size |
//! | `text.rs` | text 0.0.4 as families and samples |
//! | `json.rs` | single numbers of a JSON document |
//!
//! Everything here expects the other side to be slow, huge or broken: each way to fail has a name, and none of them
//! costs more time or memory than its bound says.

pub mod fetch;
pub mod json;
pub mod text;
