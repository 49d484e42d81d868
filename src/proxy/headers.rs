//! Heads in, heads out. Pure: what the client sent becomes what the backend gets, and back.
//!
//! Removed both ways: `Connection` and every field it nominates, `Keep-Alive`, `Proxy-Connection`, `TE`,
//! `Transfer-Encoding`, `Upgrade` (RFC 9110, section 7.6.1). Framing fields are written anew from what was understood.
//! Everything else passes byte for byte, in order, duplicates included. Added: `X-Forwarded-*`, and `Via` if asked for.

use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::ops::Range;

use crate::config::{Forwarded, Network};
use crate::labels::{Failure, Method, TunnelProtocol};
use crate::proxy::error::Answer;
use crate::proxy::h1::{Framing, content_length};

/// A field as it came: name and value without surrounding white space.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// What building a request for the backend needs to know beside the request.
#[derive(Debug)]
pub struct RequestContext<'a> {
    /// The client's address.
    pub peer: IpAddr,
    /// Policy for `X-Forwarded-*`.
    pub forwarded: &'a Forwarded,
    /// Whether `Via` is added.
    pub via: bool,
    /// `Host` for a request of HTTP/1.0 that has none.
    pub default_host: &'a str,
    /// Most fields in a head.
    pub max_fields: usize,
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

    /// The answer to it.
    #[must_use]
    pub const fn answer(&self) -> Answer {
        let Refused { failure, status, why } = *self;
        Answer { status, proxy_status: "http_request_error", failure, why }
    }
}

/// Fields that this file looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Accept,
    Connection,
    ContentLength,
    ContentType,
    Expect,
    ForwardedFor,
    ForwardedHost,
    ForwardedProto,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyConnection,
    Te,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
}

/// Whether a name is `candidate`, which is in lower case, in any case. Setting one bit lowers a letter and leaves `-` and
/// digits as they are; what else it maps onto them is no token. Without a branch, so a few vector instructions.
fn is<const N: usize>(name: &[u8], candidate: &[u8; N]) -> bool {
    let Ok(name): Result<&[u8; N], _> = name.try_into() else { return false };
    (0..N).fold(0, |differ, at| differ | ((name[at] | 0x20) ^ candidate[at])) == 0
}

fn known(name: &[u8]) -> Option<Known> {
    let first = *name.first()? | 0x20;
    let (same, known) = match (name.len(), first) {
        (2, b't') => (is(name, b"te"), Known::Te),
        (3, b'v') => (is(name, b"via"), Known::Via),
        (4, b'h') => (is(name, b"host"), Known::Host),
        (6, b'a') => (is(name, b"accept"), Known::Accept),
        (6, b'e') => (is(name, b"expect"), Known::Expect),
        (7, b'u') => (is(name, b"upgrade"), Known::Upgrade),
        (10, b'c') => (is(name, b"connection"), Known::Connection),
        (10, b'k') => (is(name, b"keep-alive"), Known::KeepAlive),
        (10, b'u') => (is(name, b"user-agent"), Known::UserAgent),
        (12, b'c') => (is(name, b"content-type"), Known::ContentType),
        (14, b'c') => (is(name, b"content-length"), Known::ContentLength),
        (14, b'h') => (is(name, b"http2-settings"), Known::Http2Settings),
        (15, b'x') => (is(name, b"x-forwarded-for"), Known::ForwardedFor),
        (16, b'p') => (is(name, b"proxy-connection"), Known::ProxyConnection),
        (16, b'x') => (is(name, b"x-forwarded-host"), Known::ForwardedHost),
        (17, b't') => (is(name, b"transfer-encoding"), Known::TransferEncoding),
        (17, b'x') => (is(name, b"x-forwarded-proto"), Known::ForwardedProto),
        _ => return None,
    };
    same.then_some(known)
}

/// The elements of a comma-separated list, without empty ones.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// What the first pass over the fields of a message found.
#[derive(Debug, Default)]
struct Survey<'a> {
    host: Option<&'a [u8]>,
    hosts: usize,
    length: Option<u64>,
    lengths_differ: bool,
    lengths: usize,
    bad_length: bool,
    codings: usize,
    chunked: bool,
    only_chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade_nominated: bool,
    upgrade: Option<&'a [u8]>,
    /// Nominated fields other than the ones that are removed anyway. Empty, so without an allocation, nearly always.
    nominated: Vec<&'a [u8]>,
    expects_continue: bool,
    /// Weights of `application/json` and `text/plain` in `Accept`, in thousandths; 0 when not named.
    wants_json: u16,
    wants_text: u16,
    forwarded_for: bool,
    forwarded_host: bool,
    forwarded_proto: bool,
    user_agent: Option<&'a [u8]>,
    event_stream: bool,
}

impl<'a> Survey<'a> {
    fn of(fields: impl Iterator<Item = Field<'a>>) -> Survey<'a> {
        let mut seen = Survey { only_chunked: true, ..Survey::default() };
        for (name, value) in fields {
            match known(name) {
                None | Some(Known::Http2Settings | Known::KeepAlive | Known::ProxyConnection | Known::Te) => {}
                Some(Known::Via) => {}
                Some(Known::Host) => {
                    seen.hosts += 1;
                    seen.host = Some(value);
                }
                Some(Known::ContentLength) => {
                    seen.lengths += 1;
                    match content_length(value) {
                        None => seen.bad_length = true,
                        Some(n) if seen.length.is_some_and(|m| m != n) => seen.lengths_differ = true,
                        n => seen.length = n,
                    }
                }
                Some(Known::TransferEncoding) => {
                    // An empty value counts as a coding that nobody knows, so that it is refused, not skipped.
                    if value.is_empty() {
                        seen.codings += 1;
                        seen.only_chunked = false;
                    }
                    for coding in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                        seen.codings += 1;
                        let chunked = coding.eq_ignore_ascii_case(b"chunked");
                        seen.chunked = chunked;
                        seen.only_chunked &= chunked;
                    }
                }
                Some(Known::Connection) => {
                    for option in list(value) {
                        if option.eq_ignore_ascii_case(b"close") {
                            seen.close = true;
                        } else if option.eq_ignore_ascii_case(b"keep-alive") {
                            seen.keep_alive = true;
                        } else if option.eq_ignore_ascii_case(b"upgrade") {
                            seen.upgrade_nominated = true;
                        } else if known(option).is_none() {
                            // What this file knows is either removed anyway or must not be removed: a client that
                            // nominates Host or Content-Length must not be able to take them away.
                            seen.nominated.push(option);
                        }
                    }
                }
                Some(Known::Upgrade) => seen.upgrade = Some(value),
                Some(Known::Expect) => seen.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
                Some(Known::Accept) => {
                    for range in list(value) {
                        let mut parts = range.split(|b| *b == b';').map(<[u8]>::trim_ascii);
                        let media = parts.next().unwrap_or(range);
                        let wanted = if media.eq_ignore_ascii_case(b"application/json") {
                            &mut seen.wants_json
                        } else if media.eq_ignore_ascii_case(b"text/plain") || media.eq_ignore_ascii_case(b"text/*") {
                            &mut seen.wants_text
                        } else {
                            continue;
                        };
                        *wanted = parts.find_map(weight).unwrap_or(1000).max(*wanted);
                    }
                }
                Some(Known::ContentType) => {
                    let media = value.split(|b| *b == b';').next().unwrap_or(value).trim_ascii();
                    seen.event_stream = media.eq_ignore_ascii_case(b"text/event-stream");
                }
                Some(Known::ForwardedFor) => seen.forwarded_for = true,
                Some(Known::ForwardedHost) => seen.forwarded_host = true,
                Some(Known::ForwardedProto) => seen.forwarded_proto = true,
                Some(Known::UserAgent) => seen.user_agent = Some(value),
            }
        }
        seen
    }

    /// Whether an answer of our own should be JSON: it was asked for by name, and not less than plain text.
    fn prefers_json(&self) -> bool {
        self.wants_json > 0 && self.wants_json >= self.wants_text
    }

    fn nominates(&self, name: &[u8]) -> bool {
        self.nominated.iter().any(|option| option.eq_ignore_ascii_case(name))
    }
}

/// The weight that a parameter of a media range is, in thousandths (RFC 9110, section 12.4.2). A malformed one is 0.
fn weight(parameter: &[u8]) -> Option<u16> {
    let (name, value) = parameter.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let weight = std::str::from_utf8(value).ok().and_then(|text| text.parse::<f32>().ok()).unwrap_or(0.0);
    Some((weight.clamp(0.0, 1.0) * 1000.0) as u16)
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_number(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Whether a peer's own `X-Forwarded-*` fields are believed.
fn trusts(forwarded: &Forwarded, peer: IpAddr) -> bool {
    match forwarded {
        Forwarded::Append => true,
        Forwarded::Replace => false,
        Forwarded::Trust(networks) => networks.iter().any(|network| contains(network, peer)),
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

/// Bytes that a registered name or an IPv4 address may consist of (RFC 3986, section 3.2.2).
const REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"-._~%!$&'()*+,;=";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether this is a host with an optional port, `uri-host [ ":" port ]` (RFC 9110, section 7.2). Empty is allowed.
fn is_authority(value: &[u8]) -> bool {
    let is_port = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
    if let Some(literal) = value.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', literal) else { return false };
        let (address, rest) = (&literal[..end], &literal[end + 1..]);
        let address = address.iter().all(|b| REG_NAME[usize::from(*b)] || *b == b':') && !address.is_empty();
        return address && (rest.is_empty() || rest.strip_prefix(b":").is_some_and(is_port));
    }
    let (host, port) = match memchr::memchr(b':', value) {
        Some(colon) => (&value[..colon], &value[colon + 1..]),
        None => (value, &b""[..]),
    };
    is_port(port) && host.iter().all(|b| REG_NAME[usize::from(*b)])
}

/// A request whose fields come from any protocol version: what [`write_request`] writes for the backend.
#[derive(Debug)]
struct Outgoing<'a> {
    method: &'a [u8],
    target: &'a [u8],
    host: &'a [u8],
    framing: Framing,
    upgrade: Option<&'a [u8]>,
    received_version: &'a str,
}

fn write_request<'a>(
    out: &mut Vec<u8>,
    request: &Outgoing<'_>,
    seen: &Survey<'a>,
    fields: impl Iterator<Item = Field<'a>> + Clone,
    context: &RequestContext<'_>,
) {
    let Outgoing { method, target, host, framing, upgrade, received_version } = *request;
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
            None | Some(Known::Accept | Known::ContentType | Known::UserAgent) => write_field(out, name, value),
            Some(Known::Expect) if received_version != "1.0" => write_field(out, name, value),
            Some(Known::ForwardedHost | Known::ForwardedProto) if trusted => write_field(out, name, value),
            Some(Known::Via) if !context.via => write_field(out, name, value),
            Some(_) => {}
        }
    }
    out.extend_from_slice(b"X-Forwarded-For: ");
    if trusted && seen.forwarded_for {
        for (name, value) in fields.clone() {
            if known(name) == Some(Known::ForwardedFor) && !value.is_empty() {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        }
    }
    write_address(out, context.peer.to_canonical());
    out.extend_from_slice(b"\r\n");
    if !(trusted && seen.forwarded_proto) {
        out.extend_from_slice(b"X-Forwarded-Proto: http\r\n");
    }
    if !(trusted && seen.forwarded_host) {
        write_field(out, b"X-Forwarded-Host", host);
    }
    if context.via {
        write_via(out, fields, received_version);
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

/// Fields that fit on the stack; a larger limit takes the heap.
const STACK_FIELDS: usize = 100;

/// Reads a complete request head of HTTP/1.x and writes the head for the backend to `out`.
///
/// # Errors
/// When the head is ambiguous, malformed or over a limit. `out` may hold half a head then.
pub fn request(head: &[u8], context: &RequestContext<'_>, out: &mut Vec<u8>) -> Result<RequestHead, Refused> {
    let mut stack = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; STACK_FIELDS];
    let mut heap = Vec::new();
    let storage = if context.max_fields <= STACK_FIELDS {
        &mut stack[..context.max_fields]
    } else {
        heap.resize(context.max_fields, MaybeUninit::uninit());
        heap.as_mut_slice()
    };
    let mut parsed = httparse::Request::new(&mut []);
    match httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, head, storage) {
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
    let seen = Survey::of(fields.clone());

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
    let h2c = |value: &[u8]| list(value).any(|p| p.len() >= 3 && p[..3].eq_ignore_ascii_case(b"h2c"));
    let upgrade = seen.upgrade.filter(|value| seen.upgrade_nominated && !http10 && !value.is_empty() && !h2c(value));
    let version = if http10 { "1.0" } else { "1.1" };
    let outgoing = Outgoing { method, target, host, framing, upgrade, received_version: version };
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
    })
}

fn is_probe(agent: Option<&[u8]>, context: &RequestContext<'_>) -> bool {
    agent.is_some_and(|agent| context.probe_agents.iter().any(|prefix| agent.starts_with(prefix.as_bytes())))
}

fn tunnel_protocol(value: &[u8]) -> TunnelProtocol {
    if list(value).any(|p| p.eq_ignore_ascii_case(b"websocket")) {
        TunnelProtocol::WebSocket
    } else {
        TunnelProtocol::Other
    }
}

/// Takes a request target apart: the authority of an absolute one, and the part for the backend.
fn split_target(method: Method, target: &[u8]) -> Result<(Option<&[u8]>, &[u8]), Refused> {
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

/// What is known of a response after its head was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// How the backend delimits the body.
    pub framing: Framing,
    /// How the body is delimited for an HTTP/1.x client.
    pub out_framing: Framing,
    /// Whether the backend's connection can be used again after the body.
    pub reusable: bool,
    /// Whether the client's connection stays open after the body.
    pub keep_alive: bool,
    /// `text/event-stream`.
    pub event_stream: bool,
}

/// What building a response for the client needs to know beside the response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseContext {
    /// The request was HEAD.
    pub to_head: bool,
    /// The client speaks HTTP/1.0.
    pub http10: bool,
    /// The client's connection may stay open.
    pub keep_alive: bool,
    /// The tunnel that was asked for.
    pub upgrade: bool,
    /// Most fields in a head.
    pub max_fields: usize,
    /// Whether `Via` is added.
    pub via: bool,
}

/// The response head is refused: `protocol_error` or `response_too_large`.
pub type BadResponse = Failure;

/// A sink for response fields: bytes of HTTP/1.1 or a header map of HTTP/2.
pub trait ResponseSink {
    /// The status and the reason phrase as it came.
    fn status(&mut self, status: u16, reason: &[u8]);
    /// An end-to-end field.
    fn field(&mut self, name: &[u8], value: &[u8]);
}

impl ResponseSink for Vec<u8> {
    fn status(&mut self, status: u16, reason: &[u8]) {
        self.extend_from_slice(b"HTTP/1.1 ");
        write_number(self, u64::from(status));
        self.push(b' ');
        self.extend_from_slice(reason);
        self.extend_from_slice(b"\r\n");
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        write_field(self, name, value);
    }
}

/// Reads a complete response head of HTTP/1.x and gives its end-to-end parts to `out`. Connection and framing fields are
/// left to the caller ([`write_response_framing`]), since they differ between HTTP/1.1 and HTTP/2.
///
/// # Errors
/// When the head is malformed, ambiguous or over a limit. `out` may hold half a head then.
pub fn response(
    head: &[u8],
    context: &ResponseContext,
    out: &mut impl ResponseSink,
) -> Result<ResponseHead, BadResponse> {
    let mut stack = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; STACK_FIELDS];
    let mut heap = Vec::new();
    let storage = if context.max_fields <= STACK_FIELDS {
        &mut stack[..context.max_fields]
    } else {
        heap.resize(context.max_fields, MaybeUninit::uninit());
        heap.as_mut_slice()
    };
    let mut parsed = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, storage) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Failure::ResponseTooLarge),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Failure::ProtocolError),
    }
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else { return Err(Failure::ProtocolError) };
    if !(100..=999).contains(&status) {
        return Err(Failure::ProtocolError);
    }
    let http10 = minor == 0;
    let fields = parsed.headers.iter().map(|field| (field.name.as_bytes(), field.value));
    let seen = Survey::of(fields.clone());

    if seen.nominated.len() > context.max_fields {
        return Err(Failure::ResponseTooLarge);
    }
    if status == 101 && !(context.upgrade && seen.upgrade.is_some() && seen.upgrade_nominated) {
        return Err(Failure::ProtocolError);
    }
    let bodyless = context.to_head || status < 200 || status == 204 || status == 304;
    let framing = response_framing(&seen, bodyless, http10)?;

    out.status(status, reason(head));
    for (name, value) in fields.clone() {
        match known(name) {
            None if seen.nominates(name) => {}
            Some(
                Known::Connection
                | Known::ContentLength
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::TransferEncoding,
            ) => {}
            Some(Known::Upgrade) if status != 101 && status != 426 => {}
            Some(Known::Via) if context.via => {}
            _ => out.field(name, value),
        }
    }
    if context.via {
        let mut via = Vec::new();
        for (name, value) in fields {
            if known(name) == Some(Known::Via) && !value.is_empty() {
                via.extend_from_slice(value);
                via.extend_from_slice(b", ");
            }
        }
        via.extend_from_slice(if http10 { b"1.0 golden-sidecar" } else { b"1.1 golden-sidecar" });
        out.field(b"Via", &via);
    }
    // HEAD and 304 tell the length that a body would have; 1xx and 204 must not have the field.
    if let Some(n) = seen.length
        && (context.to_head || status == 304 || !bodyless)
        && seen.codings == 0
        && status >= 200
        && status != 204
    {
        out.field(b"Content-Length", itoa::Buffer::new().format(n).as_bytes());
    }

    let out_framing = match framing {
        Framing::Chunked | Framing::Close if context.http10 => Framing::Close,
        Framing::Close => Framing::Chunked,
        other => other,
    };
    let backend_persists = !seen.close && (!http10 || seen.keep_alive);
    Ok(ResponseHead {
        status,
        framing,
        out_framing,
        reusable: backend_persists && framing != Framing::Close,
        keep_alive: context.keep_alive && out_framing != Framing::Close,
        event_stream: seen.event_stream && !bodyless,
    })
}

/// The reason phrase between the status and the end of the first line.
fn reason(head: &[u8]) -> &[u8] {
    let start = head.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    let line = &head[start..];
    let end = memchr::memchr(b'\r', line).unwrap_or(line.len());
    // "HTTP/1.1 200 " is 13 bytes.
    line.get(13..end).unwrap_or_default()
}

fn response_framing(seen: &Survey<'_>, bodyless: bool, http10: bool) -> Result<Framing, BadResponse> {
    if seen.bad_length || seen.lengths_differ {
        return Err(Failure::ProtocolError);
    }
    if seen.codings > 0 {
        // A response that has both was framed differently by somebody: RFC 9112, section 6.3, lets us refuse it.
        if seen.lengths > 0 || http10 || seen.codings != 1 || !seen.chunked {
            return Err(Failure::ProtocolError);
        }
    }
    if bodyless {
        return Ok(Framing::None);
    }
    Ok(match (seen.codings, seen.length) {
        (1.., _) => Framing::Chunked,
        (0, Some(0)) => Framing::None,
        (0, Some(n)) => Framing::Length(n),
        (0, None) => Framing::Close,
    })
}

/// Ends a response head for an HTTP/1.x client: framing, connection, empty line.
pub fn write_response_framing(out: &mut Vec<u8>, head: &ResponseHead, to_head: bool, http10: bool) {
    if head.status == 101 {
        out.extend_from_slice(b"Connection: upgrade\r\n\r\n");
        return;
    }
    if head.status >= 200 {
        if head.out_framing == Framing::Chunked && !to_head {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if !head.keep_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if http10 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Copies the fields of a trailer section that may pass: not those that frame, route or steer a message
/// (RFC 9110, section 6.5.1).
///
/// # Errors
/// When the section is malformed or has more than `max_fields` fields.
pub fn trailers(section: &[u8], max_fields: usize, out: &mut Vec<u8>) -> Result<(), httparse::Error> {
    for_each_trailer(section, max_fields, |name, value| write_field(out, name, value))
}

/// Calls `each` for the fields of a trailer section that may pass.
///
/// # Errors
/// When the section is malformed or has more than `max_fields` fields.
pub fn for_each_trailer(
    section: &[u8],
    max_fields: usize,
    mut each: impl FnMut(&[u8], &[u8]),
) -> Result<(), httparse::Error> {
    if section.is_empty() {
        return Ok(());
    }
    let mut whole = section.to_vec();
    whole.extend_from_slice(b"\r\n");
    let mut storage = vec![httparse::EMPTY_HEADER; max_fields];
    let fields = match httparse::parse_headers(&whole, &mut storage)? {
        httparse::Status::Complete((_, fields)) => fields,
        httparse::Status::Partial => return Err(httparse::Error::NewLine),
    };
    for field in fields {
        let name = field.name.as_bytes();
        if known(name).is_none() && !name.eq_ignore_ascii_case(b"trailer") {
            each(name, field.value);
        }
    }
    Ok(())
}

/// A request that came over HTTP/2: the parts that [`request_from_h2`] needs.
#[derive(Debug)]
pub struct H2Request<'a> {
    /// The method's token.
    pub method: &'a [u8],
    /// `:authority`, or else `Host`.
    pub authority: Option<&'a [u8]>,
    /// `:path`.
    pub target: &'a [u8],
    /// Whether the stream ended with the head.
    pub ended: bool,
    /// The fields.
    pub fields: &'a http::HeaderMap,
}

/// Writes the head for the backend of a request that came over HTTP/2 (RFC 9113, section 8.2.3 for cookies).
///
/// # Errors
/// When the request is malformed.
pub fn request_from_h2(
    request: &H2Request<'_>,
    context: &RequestContext<'_>,
    out: &mut Vec<u8>,
) -> Result<RequestHead, Refused> {
    let H2Request { method, authority, target, ended, fields: map } = *request;
    let label = Method::from_token(method);
    if label == Method::Connect {
        return Err(Refused::bad("CONNECT is not accepted here"));
    }
    if map.len() > context.max_fields {
        return Err(Refused { failure: Failure::HeaderLimit, status: 431, why: "too many header fields" });
    }
    // Crumbs of a cookie are one field again in HTTP/1.1.
    let cookie: Vec<&[u8]> = map.get_all(http::header::COOKIE).iter().map(http::HeaderValue::as_bytes).collect();
    let cookie = cookie.join(&b"; "[..]);
    let mut fields: Vec<Field<'_>> = map
        .iter()
        .filter(|(name, _)| *name != http::header::COOKIE)
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
        .collect();
    if map.contains_key(http::header::COOKIE) {
        fields.push((b"cookie", &cookie));
    }
    let fields = fields.into_iter();
    let seen = Survey::of(fields.clone());
    if seen.codings > 0 {
        return Err(Refused::bad("Transfer-Encoding in an HTTP/2 request"));
    }
    if seen.bad_length || seen.lengths > 1 {
        return Err(Refused::bad("Content-Length is malformed"));
    }
    if seen.hosts > 1 || !seen.host.is_none_or(is_authority) || !authority.is_none_or(is_authority) {
        return Err(Refused::bad("Host is malformed"));
    }
    // User information in :authority is refused by `is_authority`, which has no `@`.
    if let (Some(authority), Some(host)) = (authority, seen.host)
        && !authority.eq_ignore_ascii_case(host)
    {
        return Err(Refused::bad("Host and :authority differ"));
    }
    let (_, target) = split_target(label, target)?;
    let framing = match (ended, seen.length) {
        (true, None | Some(0)) => Framing::None,
        (true, Some(_)) => return Err(Refused::bad("Content-Length without a body")),
        (false, Some(n)) => Framing::Length(n),
        (false, None) => Framing::Chunked,
    };
    let host = authority.or(seen.host).unwrap_or(context.default_host.as_bytes());
    let outgoing = Outgoing { method, target, host, framing, upgrade: None, received_version: "2.0" };
    write_request(out, &outgoing, &seen, fields, context);
    Ok(RequestHead {
        method: label,
        path: 0..memchr::memchr(b'?', target).unwrap_or(target.len()),
        keep_alive: true,
        http10: false,
        framing,
        upgrade: None,
        expects_continue: seen.expects_continue,
        accepts_json: seen.prefers_json(),
        probe_agent: is_probe(seen.user_agent, context),
    })
}
