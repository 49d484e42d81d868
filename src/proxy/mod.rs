//! The data plane: moves requests. It never sees a metric; it tells an observation what happened.
//!
//! | file | what it holds |
//! |---|---|
//! | `service.rs` | one request, top to bottom: read first |
//! | `exchange.rs` | the same in pieces, where one side speaks HTTP/2 |
//! | `front.rs` | the client's side of that: a connection of HTTP/1.x, or a stream of HTTP/2 |
//! | `h1_back.rs`, `multiplex.rs` | the backend's side of it: a connection of its own, or room on a shared one |
//! | `connection.rs` | a client's connection: detect, serve, park |
//! | `opening.rs` | what comes before its first request: PROXY header, TLS handshake |
//! | `h2.rs` | a client's connection of HTTP/2, a task for each stream |
//! | `headers/` | heads in, heads out; pure |
//! | `h1.rs` | HTTP/1.1 on the wire; pure |
//! | `grpc.rs` | gRPC on the wire, as much as a proxy must read; pure |
//! | `body.rs` | bodies with back-pressure |
//! | `judge.rs`, `pointer.rs` | whether a 2xx answer is an error by a rule of the configuration |
//! | `upstream.rs` | the pool of connections to the backend |
//! | `tunnel.rs` | tunnels, and how a drain closes those that carry a WebSocket |
//! | `websocket.rs` | where the frames of a WebSocket end; pure |
//! | `upgrade.rs` | the handshake of a WebSocket between HTTP/1.1 and HTTP/2 |
//! | `error.rs` | what can go wrong, and its answer |
//! | `worker.rs` | what the requests of a thread share; orders from outside |
//! | `listener.rs`, `timer.rs`, `buffer.rs` | accepting, deadlines, read buffers |
//!
//! Why our own HTTP/1.1 and not hyper's on this path: a proxy must relay interim responses and trailers, keep fields
//! byte for byte, know which side of a body failed and whether a request ever reached the backend, answer unreadable
//! heads itself, and give up its buffers while a connection is idle. hyper's server and client each hide a part of that.
//! One task per client connection, which borrows a backend connection for the time of a request, also needs no channel
//! and no second task, and so fewer instructions. HTTP/2, where framing is the hard part, is the `h2` crate's; hyper would
//! hide its windows, resets, interim responses and pings.

pub mod body;
pub mod buffer;
pub mod connection;
pub mod error;
pub mod exchange;
pub mod front;
pub mod grpc;
pub mod h1;
pub mod h1_back;
pub mod h2;
pub mod headers;
pub mod judge;
pub mod listener;
pub mod multiplex;
pub mod opening;
pub mod pointer;
pub mod service;
pub mod timer;
pub mod tunnel;
pub mod upgrade;
pub mod upstream;
pub mod websocket;
pub mod worker;
