//! What is fuzzed: one function per target, from any bytes to "nothing" or a panic that says which promise was broken.
//!
//! The same bodies run twice: under libFuzzer, guided by coverage, for as long as one likes (`make fuzz`), and in `make
//! test` on the committed seeds and a bounded number of their mutations (`tests/fuzzing.rs` takes this file in). So they
//! use nothing but what both sides can name, and no state survives an input.

pub mod config_file;
pub mod exposition;
pub mod heads;
pub mod json_pointer;
pub mod learned_routes;
pub mod openapi;
pub mod proxy_header;
pub mod request_path;
#[path = "../../src/exposition/strict.rs"]
pub mod strict;
pub mod wire;

/// A target: its name, which is that of its corpus and of its binary, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. A new one gets its line here, a file in `targets/`, an entry in `Cargo.toml` and seeds in `corpus/`.
pub const TARGETS: &[Target] = &[
    ("request_path", request_path::run),
    ("heads", heads::run),
    ("proxy_header", proxy_header::run),
    ("openapi", openapi::run),
    ("config_file", config_file::run),
    ("learned_routes", learned_routes::run),
    ("exposition", exposition::run),
    ("json_pointer", json_pointer::run),
];

/// A part of an input up to this byte, and what is behind it.
#[must_use]
pub fn part(input: &[u8], end: u8) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == end) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}
