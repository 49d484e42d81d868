//! A client's request head, from HTTP/1.x or HTTP/2, becomes the one that the backend gets.

use std::net::IpAddr;
use std::ops::Range;

use crate::config::{Forwarded, Network};
use crate::labels::{Failure, Method, TunnelProtocol};
use crate::measure::{Rpc, TraceIds};
use crate::proxy::error::Answer;
use crate::proxy::h1::{Framing, content_length};
use crate::proxy::headers::fields::{Field, Known, Room, Survey, is_authority, known, list, write_field, write_number};
use crate::proxy::headers::trace;

pub(super) const MAX_FORWARDS: &[u8] = b"max-forwards";

/// Who is at the other end of a client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client's address; `None`: it came through a socket of the file system and nobody said more.
    pub address: Option<IpAddr>,
    /// Whether it speaks TLS with the sidecar.
    pub secure: bool,
}

/// What building a request for the backend needs to know beside the request.
#[derive(Debug)]
pub struct RequestContext<'a> {
    /// The client.
    pub peer: Peer,
    /// Policy for `X-Forwarded-*`.
    pub forwarded: &'a Forwarded,
    /// Whether `Via` is added.
    pub via: bool,
    /// `Host` for a request of HTTP/1.0 that has none.
    pub default_host: &'a str,
    /// Most fields in a head.
    pub max_fields: usize,
    /// Most bytes of a head; whoever reads HTTP/1.1 keeps to it before.
    pub head_bytes: usize,
    /// Prefixes of `User-Agent` that mark a probe.
    pub probe_agents: &'a [String],
}

/// What is known of a request after its head was read. The head for the backend has been written by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method, as a label.
    pub method: Method,
    /// The path without query, as a part of the head's bytes.
    pub path: Range<usize>,
    /// Whether the client may send another request on this connection.
    pub keep_alive: bool,
    /// HTTP/1.0: no chunked coding, no 1xx, `keep-alive` must be said.
    pub http10: bool,
    /// How the body is delimited.
    pub framing: Framing,
    /// The tunnel that was asked for.
    pub upgrade: Option<TunnelProtocol>,
    /// Whether the client waits for a 100.
    pub expects_continue: bool,
    /// Whether an answer of our own should be JSON.
    pub accepts_json: bool,
    /// Whether the user agent is a prober's.
    pub probe_agent: bool,
    /// The trace that it is a part of, if its sender records that trace.
    pub trace: Option<TraceIds>,
    /// It is a call of gRPC.
    pub rpc: Option<Rpc>,
    /// Whether the client takes trailers (`TE: trailers`).
    pub takes_trailers: bool,
    /// It is an OPTIONS that may go no further: the sidecar answers it (RFC 9110, section 7.6.2).
    pub last_hop: bool,
}

/// A head that is refused: the failure, the status, and a sentence for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `bad_request` or `header_limit`.
    pub failure: Failure,
    /// 400, 414, 431, 501.
    pub status: u16,
    /// What is wrong, for the answer's body.
    pub why: &'static str,
}

impl Refused {
    /// 400 with this reason.
    #[must_use]
    pub const fn bad(why: &'static str) -> Refused {
        Refused { failure: Failure::BadRequest, status: 400, why }
    }

    /// 408 with this reason.
    #[must_use]
    pub const fn late(why: &'static str) -> Refused {
        Refused { failure: Failure::ClientTimeout, status: 408, why }
    }

    /// The answer to it.
    #[must_use]
    pub const fn answer(&self) -> Answer {
        let Refused { failure, status, why } = *self;
        Answer { status, proxy_status: "http_request_error", failure, why }
    }
}

/// Whether a peer's own `X-Forwarded-*` fields are believed.
fn trusts(forwarded: &Forwarded, peer: Peer) -> bool {
    match forwarded {
        Forwarded::Append => true,
        Forwarded::Replace => false,
        Forwarded::Trust(networks) => {
            peer.address.is_some_and(|address| networks.iter().any(|network| contains(network, address)))
        }
    }
}

fn contains(network: &Network, peer: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let (ours, width) = bits(network.address.to_canonical());
    let (theirs, peer_width) = bits(peer.to_canonical());
    let prefix = u32::from(network.prefix).min(width);
    width == peer_width && (prefix == 0 || (ours ^ theirs) >> (128 - prefix) == 0)
}

/// A request whose fields come from any protocol version: what [`write_request`] writes for the backend.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) host: &'a [u8],
    pub(super) framing: Framing,
    pub(super) upgrade: Option<&'a [u8]>,
    pub(super) received_version: &'a str,
    /// How many hops the backend may send it on, if that is limited.
    pub(super) hops: Option<u64>,
}

pub(super) fn write_request<'a>(
    out: &mut Vec<u8>,
    request: &Outgoing<'_>,
    seen: &Survey<'a>,
    fields: impl Iterator<Item = Field<'a>> + Clone,
    context: &RequestContext<'_>,
) {
    let Outgoing { method, target, host, framing, upgrade, received_version, hops } = *request;
    let trusted = trusts(context.forwarded, context.peer);
    out.extend_from_slice(method);
    out.push(b' ');
    if target.first() == Some(&b'?') {
        out.push(b'/');
    }
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_field(out, b"Host", host);
    for (name, value) in fields.clone() {
        match known(name) {
            None if seen.nominates(name) => {}
            None
            | Some(Known::Accept | Known::ContentType | Known::GrpcTimeout | Known::TraceParent | Known::UserAgent) => {
                write_field(out, name, value)
            }
            Some(Known::Expect) if received_version != "1.0" => write_field(out, name, value),
            Some(Known::Forwarded | Known::ForwardedHost | Known::ForwardedProto | Known::RealIp) if trusted => {
                write_field(out, name, value)
            }
            Some(Known::Via) if !context.via => write_field(out, name, value),
            Some(_) => {}
        }
    }
    write_forwarded_for(out, fields.clone().filter(|_| trusted && seen.forwarded_for), context.peer.address);
    if !(trusted && seen.forwarded_proto) {
        let line: &[u8] =
            if context.peer.secure { b"X-Forwarded-Proto: https\r\n" } else { b"X-Forwarded-Proto: http\r\n" };
        out.extend_from_slice(line);
    }
    if !(trusted && seen.forwarded_host) {
        write_field(out, b"X-Forwarded-Host", host);
    }
    if context.via {
        write_via(out, fields, received_version);
    }
    if let Some(hops) = hops {
        out.extend_from_slice(b"Max-Forwards: ");
        write_number(out, hops);
        out.extend_from_slice(b"\r\n");
    }
    match framing {
        Framing::Length(n) => {
            out.extend_from_slice(b"Content-Length: ");
            write_number(out, n);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::Close => {}
    }
    if let Some(protocol) = upgrade {
        out.extend_from_slice(b"Connection: upgrade\r\n");
        write_field(out, b"Upgrade", protocol);
    }
    out.extend_from_slice(b"\r\n");
}

/// How many more hops a request may take (RFC 9110, section 7.6.2). Only OPTIONS and TRACE say so, so other methods do not
/// pay for looking; a value that is no number is passed on like any field. TRACE that may go no further is refused: an
/// answer would show the fields that others have added on the way, secrets too (section 9.3.8).
///
/// # Errors
/// When it is TRACE and this is the last hop.
pub(super) fn hops<'a>(method: Method, mut fields: impl Iterator<Item = Field<'a>>) -> Result<Option<u64>, Refused> {
    if !matches!(method, Method::Options | Method::Trace) {
        return Ok(None);
    }
    let hops = fields.find(|(name, _)| name.eq_ignore_ascii_case(MAX_FORWARDS));
    match hops.and_then(|(_, value)| content_length(value)) {
        Some(0) if method == Method::Trace => {
            let why = "TRACE may go no further, and is not answered here";
            Err(Refused { failure: Failure::BadRequest, status: 405, why })
        }
        hops => Ok(hops),
    }
}

/// Writes what came, and the client's address behind it. The field has no word for a client without an address, so
/// nothing is added for one.
fn write_forwarded_for<'a>(out: &mut Vec<u8>, came: impl Iterator<Item = Field<'a>>, address: Option<IpAddr>) {
    let begin = out.len();
    let mut separator: &[u8] = b"X-Forwarded-For: ";
    for (name, value) in came {
        if known(name) == Some(Known::ForwardedFor) && !value.is_empty() {
            out.extend_from_slice(separator);
            out.extend_from_slice(value);
            separator = b", ";
        }
    }
    if let Some(address) = address {
        out.extend_from_slice(separator);
        write_address(out, address.to_canonical());
    }
    if out.len() > begin {
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes an address without the formatting machinery of the standard library for the common kind.
fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (at, octet) in v4.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                write_number(out, u64::from(octet));
            }
        }
        IpAddr::V6(v6) => out.extend_from_slice(v6.to_string().as_bytes()),
    }
}

fn write_via<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = Field<'a>>, version: &str) {
    out.extend_from_slice(b"Via: ");
    for (name, value) in fields {
        if known(name) == Some(Known::Via) && !value.is_empty() {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(b" golden-sidecar\r\n");
}

/// Reads a complete request head of HTTP/1.x and writes the head for the backend to `out`.
///
/// # Errors
/// When the head is ambiguous, malformed or over a limit. `out` may hold half a head then.
pub fn request(head: &[u8], context: &RequestContext<'_>, out: &mut Vec<u8>) -> Result<RequestHead, Refused> {
    let mut room = Room::new();
    let room = room.of(context.max_fields);
    let mut parsed = httparse::Request::new(&mut []);
    match httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, head, room) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Refused::bad("the request head is malformed")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refused { failure: Failure::HeaderLimit, status: 431, why: "too many header fields" });
        }
        Err(httparse::Error::Version) => return Err(Refused::bad("the HTTP version is not supported")),
        Err(httparse::Error::HeaderName) => return Err(Refused::bad("a header field name is malformed")),
        Err(httparse::Error::HeaderValue) => return Err(Refused::bad("a header field value is malformed")),
        Err(_) => return Err(Refused::bad("the request line is malformed")),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refused::bad("the request line is malformed"));
    };
    let (method, target) = (method.as_bytes(), target.as_bytes());
    let http10 = minor == 0;
    let fields = parsed.headers.iter().map(|field| (field.name.as_bytes(), field.value));
    let mut seen = Survey::of(fields.clone());

    // Each field is compared with each nominated one, so there must be as few of these.
    if seen.nominated.len() > context.max_fields {
        return Err(Refused {
            failure: Failure::HeaderLimit,
            status: 431,
            why: "Connection nominates too many fields",
        });
    }

    let label = Method::from_token(method);
    if label == Method::Connect {
        return Err(Refused::bad("CONNECT is not accepted here"));
    }
    let (authority, target) = split_target(label, target)?;
    if seen.hosts > 1 {
        return Err(Refused::bad("more than one Host"));
    }
    if seen.hosts == 0 && !http10 {
        return Err(Refused::bad("Host is missing"));
    }
    if !seen.host.is_none_or(is_authority) {
        return Err(Refused::bad("Host is malformed"));
    }
    let host = authority.or(seen.host).unwrap_or(context.default_host.as_bytes());

    let framing = request_framing(&seen, http10)?;
    let upgrade = seen.upgrade.filter(|value| seen.upgrade_nominated && !http10 && !value.is_empty() && !is_h2c(value));
    let version = if http10 { "1.0" } else { "1.1" };
    let hops = hops(label, fields.clone())?;
    // It is written anew.
    seen.nominated.extend(hops.map(|_| MAX_FORWARDS));
    let left = hops.map(|hops| hops.saturating_sub(1));
    let outgoing = Outgoing { method, target, host, framing, upgrade, received_version: version, hops: left };
    write_request(out, &outgoing, &seen, fields, context);

    let query = memchr::memchr(b'?', target).unwrap_or(target.len());
    let start = (target.as_ptr() as usize).checked_sub(head.as_ptr() as usize);
    let path = match start {
        Some(start) if start + query <= head.len() => start..start + query,
        // `*` and the `/` that an absolute target without path stands for are not parts of the head.
        _ => 0..0,
    };
    Ok(RequestHead {
        method: label,
        path,
        keep_alive: !seen.close && (!http10 || seen.keep_alive),
        http10,
        framing,
        upgrade: upgrade.map(tunnel_protocol),
        expects_continue: seen.expects_continue && !http10,
        accepts_json: seen.prefers_json(),
        probe_agent: is_probe(seen.user_agent, context),
        trace: seen.trace_parent.filter(|_| seen.trace_parents == 1).and_then(trace::sampled),
        // gRPC needs HTTP/2.
        rpc: None,
        takes_trailers: seen.takes_trailers,
        last_hop: hops == Some(0),
    })
}

/// Whether one of these protocols is HTTP/2: who spoke it in a tunnel would pass by everything that is done here.
pub(super) fn is_h2c(protocols: &[u8]) -> bool {
    list(protocols).any(|protocol| protocol.len() >= 3 && protocol[..3].eq_ignore_ascii_case(b"h2c"))
}

pub(super) fn is_probe(agent: Option<&[u8]>, context: &RequestContext<'_>) -> bool {
    agent.is_some_and(|agent| context.probe_agents.iter().any(|prefix| agent.starts_with(prefix.as_bytes())))
}

pub(super) fn tunnel_protocol(value: &[u8]) -> TunnelProtocol {
    if list(value).any(|p| p.eq_ignore_ascii_case(b"websocket")) {
        TunnelProtocol::WebSocket
    } else {
        TunnelProtocol::Other
    }
}

/// Takes a request target apart: the authority of an absolute one, and the part for the backend.
pub(super) fn split_target(method: Method, target: &[u8]) -> Result<(Option<&[u8]>, &[u8]), Refused> {
    if target.contains(&b'#') {
        return Err(Refused::bad("the request target has a fragment"));
    }
    if target.first() == Some(&b'/') {
        return Ok((None, target));
    }
    if target == b"*" && method == Method::Options {
        return Ok((None, target));
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.len() > scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme));
    let Some(scheme) = scheme else {
        return Err(Refused::bad("the request target must be a path or an http URL"));
    };
    let rest = &target[scheme.len()..];
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_authority(authority) {
        return Err(Refused::bad("the authority of the request target is malformed"));
    }
    match path.first() {
        // A query without a path is left so: whoever writes it puts the `/` in front.
        Some(_) => Ok((Some(authority), path)),
        None if method == Method::Options => Ok((Some(authority), b"*")),
        None => Ok((Some(authority), b"/")),
    }
}

fn request_framing(seen: &Survey<'_>, http10: bool) -> Result<Framing, Refused> {
    if seen.bad_length {
        return Err(Refused::bad("Content-Length is malformed"));
    }
    if seen.lengths > 1 {
        return Err(Refused::bad("more than one Content-Length"));
    }
    if seen.codings > 0 {
        if seen.lengths > 0 {
            return Err(Refused::bad("both Content-Length and Transfer-Encoding"));
        }
        if http10 {
            return Err(Refused::bad("Transfer-Encoding in an HTTP/1.0 request"));
        }
        if seen.codings > 1 && seen.chunked && !seen.only_chunked {
            let why = "only the transfer coding chunked is supported";
            return Err(Refused { failure: Failure::BadRequest, status: 501, why });
        }
        if seen.codings != 1 || !seen.chunked {
            return Err(Refused::bad("Transfer-Encoding must be chunked, once"));
        }
        return Ok(Framing::Chunked);
    }
    Ok(match seen.length {
        Some(0) | None if seen.lengths == 0 => Framing::None,
        Some(n) => Framing::Length(n),
        None => Framing::None,
    })
}
