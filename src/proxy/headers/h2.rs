//! Heads of HTTP/2. What is between a client and a backend has one form, that of HTTP/1.1; here it is made of HTTP/2 and
//! HTTP/2 of it, so that one policy holds whatever the two speak (RFC 9113, section 8).

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, Method as Verb, Request, Response, StatusCode, Uri, Version};

use crate::labels::{Failure, Method};
use crate::measure::Rpc;
use crate::proxy::grpc;
use crate::proxy::h1::{Framing, content_length};
use crate::proxy::headers::fields::{
    Field, Known, Room, Survey, is_authority, is_token, known, write_field, write_number,
};
use crate::proxy::headers::request::{
    MAX_FORWARDS, Outgoing, hops, is_h2c, is_probe, split_target, tunnel_protocol, write_request,
};
use crate::proxy::headers::response::BadResponse;
use crate::proxy::headers::{Refused, RequestContext, RequestHead, ResponseContext, ResponseHead, trace};

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// A request that came over HTTP/2: the parts that [`request_from_h2`] needs.
#[derive(Debug)]
pub struct H2Request<'a> {
    /// The method's token.
    pub method: &'a [u8],
    /// `:protocol` of an extended CONNECT (RFC 8441).
    pub protocol: Option<&'a [u8]>,
    /// `:authority`, or else `Host`.
    pub authority: Option<&'a [u8]>,
    /// `:path`.
    pub target: &'a [u8],
    /// Whether the stream ended with the head.
    pub ended: bool,
    /// The fields.
    pub fields: &'a HeaderMap,
}

/// Writes the head for the backend of a request that came over HTTP/2 (RFC 9113, section 8.2.3 for cookies). An extended
/// CONNECT becomes the GET with `Upgrade` that it stands for (RFC 8441, section 5); the key of a WebSocket handshake is
/// the caller's, since nothing here is random.
///
/// # Errors
/// When the request is malformed.
pub fn request_from_h2(
    request: &H2Request<'_>,
    websocket_key: &[u8],
    context: &RequestContext<'_>,
    out: &mut Vec<u8>,
) -> Result<RequestHead, Refused> {
    let H2Request { method, protocol, authority, target, ended, fields: map } = *request;
    let label = Method::from_token(method);
    if label == Method::Connect && protocol.is_none() {
        return Err(Refused::bad("CONNECT is not accepted here"));
    }
    // Nobody has checked this one yet, and it becomes a field's value. A tunnel in which a backend speaks HTTP/2 with the
    // client would pass by everything that is done here.
    if protocol.is_some_and(|protocol| !is_token(protocol) || is_h2c(protocol)) {
        return Err(Refused::bad("the protocol of CONNECT is malformed"));
    }
    if map.len() > context.max_fields {
        return Err(Refused { failure: Failure::HeaderLimit, status: 431, why: "too many header fields" });
    }
    // As RFC 9113 counts them, section 6.5.2.
    let size: usize = map.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    if size + target.len() > context.head_bytes {
        return Err(Refused { failure: Failure::HeaderLimit, status: 431, why: "the request head is too large" });
    }
    // Crumbs of a cookie are one field again in HTTP/1.1.
    let cookie: Vec<&[u8]> = map.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let cookie = cookie.join(&b"; "[..]);
    let mut fields: Vec<Field<'_>> = map
        .iter()
        .filter(|(name, _)| *name != COOKIE && (protocol.is_none() || *name != SEC_WEBSOCKET_KEY))
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
        .collect();
    if map.contains_key(COOKIE) {
        fields.push((b"cookie", &cookie));
    }
    if protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket")) {
        fields.push((b"sec-websocket-key", websocket_key));
    }
    let fields = fields.into_iter();
    let mut seen = Survey::of(fields.clone());
    if seen.codings > 0 {
        return Err(Refused::bad("Transfer-Encoding in an HTTP/2 request"));
    }
    if seen.bad_length || seen.lengths > 1 || (protocol.is_some() && seen.lengths > 0) {
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
    // The type of targets lets them pass, HTTP/1.1 does not.
    if target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(Refused::bad("the request target is malformed"));
    }
    let (_, target) = split_target(label, target)?;
    let framing = match (ended, seen.length) {
        _ if protocol.is_some() => Framing::None,
        (true, None) => Framing::None,
        // Said by the client, so the backend hears it too: some ask for a length with every POST.
        (true, Some(0)) => Framing::Length(0),
        (true, Some(_)) => return Err(Refused::bad("Content-Length without a body")),
        (false, Some(n)) => Framing::Length(n),
        (false, None) => Framing::Chunked,
    };
    let host = authority.or(seen.host).unwrap_or(context.default_host.as_bytes());
    let method = if protocol.is_some() { b"GET" } else { method };
    let hops = hops(label, fields.clone())?;
    // It is written anew.
    seen.nominated.extend(hops.map(|_| MAX_FORWARDS));
    let left = hops.map(|hops| hops.saturating_sub(1));
    let outgoing = Outgoing { method, target, host, framing, upgrade: protocol, received_version: "2.0", hops: left };
    write_request(out, &outgoing, &seen, fields, context);
    let is_rpc = label == Method::Post && seen.content_type.is_some_and(grpc::is_grpc);
    Ok(RequestHead {
        method: label,
        path: 0..memchr::memchr(b'?', target).unwrap_or(target.len()),
        keep_alive: true,
        http10: false,
        framing,
        upgrade: protocol.map(tunnel_protocol),
        expects_continue: seen.expects_continue,
        accepts_json: seen.prefers_json(),
        probe_agent: is_probe(seen.user_agent, context),
        trace: seen.trace_parent.filter(|_| seen.trace_parents == 1).and_then(trace::sampled),
        rpc: is_rpc.then(|| Rpc { deadline: seen.grpc_timeout.and_then(grpc::parse_timeout) }),
        takes_trailers: seen.takes_trailers,
        last_hop: hops == Some(0),
    })
}

/// What is said to an HTTP/2 backend beside what the head for the backend says.
#[derive(Clone, Copy, Debug)]
pub struct ToH2 {
    /// `:scheme` is https.
    pub secure: bool,
    /// The client takes trailers.
    pub takes_trailers: bool,
    /// The backend takes extended CONNECT; else an upgrade is left out, which a client must bear (RFC 9110, section 7.8).
    pub connects: bool,
    /// Most fields that the head had when it came.
    pub max_fields: usize,
}

/// Fields that the proxy may have added to a head.
const ADDED_FIELDS: usize = 16;

/// The head for an HTTP/2 backend, made of the one that was written for the backend. `None` for a target that HTTP/2
/// cannot carry: it is stricter than what HTTP/1.1 clients may send.
#[must_use]
pub fn request_to_h2(head: &[u8], to: ToH2) -> Option<Request<()>> {
    let mut room = Room::new();
    let room = room.of(to.max_fields + ADDED_FIELDS);
    let mut parsed = httparse::Request::new(&mut []);
    match httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, head, room) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return None,
    }
    let (method, target) = (parsed.method?, parsed.path?);
    let mut fields = HeaderMap::with_capacity(parsed.headers.len());
    let mut authority = None;
    let mut protocol = None;
    for field in parsed.headers.iter() {
        match known(field.name.as_bytes()) {
            Some(Known::Host) => authority = Some(field.value),
            Some(Known::Upgrade) if is_token(field.value) => protocol = std::str::from_utf8(field.value).ok(),
            // A choice of several cannot be said.
            Some(Known::Upgrade) => {}
            Some(Known::Connection | Known::TransferEncoding) => {}
            _ => {
                fields.append(
                    HeaderName::from_bytes(field.name.as_bytes()).ok()?,
                    HeaderValue::from_bytes(field.value).ok()?,
                );
            }
        }
    }
    if to.takes_trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
    }
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Verb::from_bytes(method.as_bytes()).ok()?;
    if let Some(protocol) = protocol.filter(|_| to.connects) {
        *request.method_mut() = Verb::CONNECT;
        fields.remove(SEC_WEBSOCKET_KEY);
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    let mut uri = Uri::builder().scheme(if to.secure { "https" } else { "http" }).path_and_query(target);
    if let Some(authority) = authority.filter(|authority| !authority.is_empty()) {
        uri = uri.authority(authority);
    }
    *request.uri_mut() = uri.build().ok()?;
    *request.headers_mut() = fields;
    Some(request)
}

/// The client's response made of the one of an HTTP/2 backend, without fields that belong to a connection. `ended`: the
/// stream ended with the head.
///
/// # Errors
/// When it is ambiguous or over a limit.
pub fn response_from_h2(
    mut response: Response<()>,
    ended: bool,
    context: &ResponseContext,
) -> Result<(Response<()>, ResponseHead), BadResponse> {
    let status = response.status().as_u16();
    let fields = response.headers_mut();
    if fields.len() > context.max_fields {
        return Err(Failure::ResponseTooLarge);
    }
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, TE, KEEP_ALIVE, PROXY_CONNECTION] {
        fields.remove(name);
    }
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let length =
        lengths.next().map(|value| content_length(value.as_bytes()).ok_or(Failure::ProtocolError)).transpose()?;
    if lengths.next().is_some() {
        return Err(Failure::ProtocolError);
    }
    if status < 200 || status == 204 {
        fields.remove(CONTENT_LENGTH);
    }
    if context.via {
        let mut via: Vec<u8> = Vec::new();
        for value in fields.get_all(VIA).iter().filter(|value| !value.is_empty()) {
            via.extend_from_slice(value.as_bytes());
            via.extend_from_slice(b", ");
        }
        via.extend_from_slice(b"2.0 golden-sidecar");
        fields.insert(VIA, HeaderValue::from_bytes(&via).map_err(|_bad| Failure::ProtocolError)?);
    }
    let bodyless = context.to_head || status < 200 || status == 204 || status == 304;
    let framing = match (bodyless || ended, length) {
        (true, _) => Framing::None,
        (false, Some(n)) => Framing::Length(n),
        (false, None) => Framing::Chunked,
    };
    let out_framing = if framing == Framing::Chunked && context.http10 { Framing::Close } else { framing };
    // An empty body without a length has to be told of in HTTP/1.1.
    if ended && !bodyless && length.is_none() {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let media = response.headers().get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let media = media.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let event_stream = !bodyless && !ended && media.eq_ignore_ascii_case(b"text/event-stream");
    let head = ResponseHead {
        status,
        framing,
        out_framing,
        reusable: true,
        keep_alive: context.keep_alive && out_framing != Framing::Close,
        event_stream,
    };
    Ok((response, head))
}

/// Appends status line and fields of a response for an HTTP/1.x client; framing comes after them.
pub fn write_response(response: &Response<()>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_number(out, u64::from(response.status().as_u16()));
    out.push(b' ');
    out.extend_from_slice(response.status().canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        write_field(out, name.as_str().as_bytes(), value.as_bytes());
    }
}

/// Makes the answer to an extended CONNECT of the 101 that a backend has given.
pub fn accept_connect(response: &mut Response<()>) {
    *response.status_mut() = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
        response.headers_mut().remove(name);
    }
}

/// The field of this name in a head of HTTP/1.1 that was written for the backend.
#[must_use]
pub fn field_of<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut fields = vec![httparse::EMPTY_HEADER; head.len() / 4];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(head).ok()?;
    parsed.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// A trailer section as it is written in chunked coding, without what must not stand in one.
#[must_use]
pub fn trailers_to_h1(trailers: &HeaderMap) -> Vec<u8> {
    let mut section = Vec::new();
    for (name, value) in trailers {
        if known(name.as_str().as_bytes()).is_none() && *name != TRAILER && *name != HOST {
            write_field(&mut section, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    section
}

/// A trailer section of HTTP/1.1 for HTTP/2.
///
/// # Errors
/// When the section is malformed or has more than `max_fields` fields.
pub fn trailers_to_h2(section: &[u8], max_fields: usize) -> Result<HeaderMap, httparse::Error> {
    let mut map = HeaderMap::new();
    super::for_each_trailer(section, max_fields, |name, value| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    })?;
    Ok(map)
}
