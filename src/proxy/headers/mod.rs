//! Heads in, heads out. Pure: what the client sent becomes what the backend gets, and back.
//!
//! Removed both ways: `Connection` and every field it nominates, `Keep-Alive`, `Proxy-Connection`, `TE`,
//! `Transfer-Encoding`, `Upgrade` (RFC 9110, section 7.6.1). Framing fields are written anew from what was understood.
//! Everything else passes byte for byte, in order, duplicates included. Added: `X-Forwarded-*`, and `Via` if asked for.

mod fields;
mod request;
mod response;
mod trace;

pub use fields::{Field, for_each_trailer, trailers};
pub use request::{H2Request, Peer, Refused, RequestContext, RequestHead, request, request_from_h2};
pub use response::{
    BadResponse, ResponseContext, ResponseHead, ResponseSink, fields, response, write_response_framing,
};
