//! The backend's response head becomes the one that the client gets.

use crate::labels::Failure;
use crate::proxy::h1::Framing;
use crate::proxy::headers::fields::{Field, Known, Room, Survey, known, write_field, write_number};

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
    let mut room = Room::new();
    let room = room.of(context.max_fields);
    let mut parsed = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, room) {
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

/// The fields of a complete head that [`response`] accepts under the same limit, as they came; none of one that it refuses.
#[must_use]
pub fn fields(head: &[u8], max_fields: usize) -> Vec<Field<'_>> {
    let mut room = Room::new();
    let room = room.of(max_fields);
    let mut parsed = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, room) {
        Ok(httparse::Status::Complete(_)) => {
            parsed.headers.iter().map(|field| (field.name.as_bytes(), field.value.trim_ascii())).collect()
        }
        Ok(httparse::Status::Partial) | Err(_) => Vec::new(),
    }
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
