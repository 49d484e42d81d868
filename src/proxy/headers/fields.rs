//! Fields of a head: the ones that a proxy must know, what a first pass over them finds, and how they are written.

use std::mem::MaybeUninit;

use crate::proxy::h1::content_length;

/// A field as it came: name and value without surrounding white space.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// Fields that this file looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Accept,
    Connection,
    ContentLength,
    ContentType,
    Expect,
    Forwarded,
    ForwardedFor,
    ForwardedHost,
    ForwardedProto,
    GrpcTimeout,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyConnection,
    RealIp,
    Te,
    TraceParent,
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

pub(super) fn known(name: &[u8]) -> Option<Known> {
    let first = *name.first()? | 0x20;
    let (same, known) = match (name.len(), first) {
        (2, b't') => (is(name, b"te"), Known::Te),
        (3, b'v') => (is(name, b"via"), Known::Via),
        (4, b'h') => (is(name, b"host"), Known::Host),
        (6, b'a') => (is(name, b"accept"), Known::Accept),
        (6, b'e') => (is(name, b"expect"), Known::Expect),
        (7, b'u') => (is(name, b"upgrade"), Known::Upgrade),
        (9, b'f') => (is(name, b"forwarded"), Known::Forwarded),
        (9, b'x') => (is(name, b"x-real-ip"), Known::RealIp),
        (10, b'c') => (is(name, b"connection"), Known::Connection),
        (10, b'k') => (is(name, b"keep-alive"), Known::KeepAlive),
        (10, b'u') => (is(name, b"user-agent"), Known::UserAgent),
        (11, b't') => (is(name, b"traceparent"), Known::TraceParent),
        (12, b'c') => (is(name, b"content-type"), Known::ContentType),
        (12, b'g') => (is(name, b"grpc-timeout"), Known::GrpcTimeout),
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
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// What the first pass over the fields of a message found.
#[derive(Debug, Default)]
pub(super) struct Survey<'a> {
    pub(super) host: Option<&'a [u8]>,
    pub(super) hosts: usize,
    pub(super) length: Option<u64>,
    pub(super) lengths_differ: bool,
    pub(super) lengths: usize,
    pub(super) bad_length: bool,
    pub(super) codings: usize,
    pub(super) chunked: bool,
    pub(super) only_chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade_nominated: bool,
    pub(super) upgrade: Option<&'a [u8]>,
    /// Nominated fields other than the ones that are removed anyway. Empty, so without an allocation, nearly always.
    pub(super) nominated: Vec<&'a [u8]>,
    pub(super) expects_continue: bool,
    /// Weights of `application/json` and `text/plain` in `Accept`, in thousandths; 0 when not named.
    pub(super) wants_json: u16,
    pub(super) wants_text: u16,
    pub(super) forwarded_for: bool,
    pub(super) forwarded_host: bool,
    pub(super) forwarded_proto: bool,
    pub(super) user_agent: Option<&'a [u8]>,
    pub(super) event_stream: bool,
    pub(super) content_type: Option<&'a [u8]>,
    pub(super) grpc_timeout: Option<&'a [u8]>,
    pub(super) takes_trailers: bool,
    pub(super) trace_parent: Option<&'a [u8]>,
    pub(super) trace_parents: usize,
}

impl<'a> Survey<'a> {
    pub(super) fn of(fields: impl Iterator<Item = Field<'a>>) -> Survey<'a> {
        let mut seen = Survey { only_chunked: true, ..Survey::default() };
        for (name, value) in fields {
            match known(name) {
                None => {}
                Some(
                    Known::Forwarded | Known::Http2Settings | Known::KeepAlive | Known::ProxyConnection | Known::RealIp,
                ) => {}
                Some(Known::Te) => {
                    seen.takes_trailers |= list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                }
                Some(Known::GrpcTimeout) => seen.grpc_timeout = Some(value),
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
                    seen.content_type = Some(value);
                }
                Some(Known::ForwardedFor) => seen.forwarded_for = true,
                Some(Known::ForwardedHost) => seen.forwarded_host = true,
                Some(Known::ForwardedProto) => seen.forwarded_proto = true,
                Some(Known::UserAgent) => seen.user_agent = Some(value),
                Some(Known::TraceParent) => {
                    seen.trace_parents += 1;
                    seen.trace_parent = Some(value);
                }
            }
        }
        seen
    }

    /// Whether an answer of our own should be JSON: it was asked for by name, and not less than plain text.
    pub(super) fn prefers_json(&self) -> bool {
        self.wants_json > 0 && self.wants_json >= self.wants_text
    }

    pub(super) fn nominates(&self, name: &[u8]) -> bool {
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

pub(super) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_number(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
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

/// Whether this is a token (RFC 9110, section 5.6.2).
pub(super) fn is_token(value: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !value.is_empty() && value.iter().all(is_tchar)
}

/// Whether this is a host with an optional port, `uri-host [ ":" port ]` (RFC 9110, section 7.2). Empty is allowed.
pub(super) fn is_authority(value: &[u8]) -> bool {
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

/// Fields that fit on the stack; a larger limit takes the heap.
const STACK_FIELDS: usize = 100;

/// Room for the fields of one head.
pub(super) struct Room<'a> {
    stack: [MaybeUninit<httparse::Header<'a>>; STACK_FIELDS],
    heap: Vec<MaybeUninit<httparse::Header<'a>>>,
}

impl<'a> Room<'a> {
    /// Room on the stack.
    pub(super) const fn new() -> Room<'a> {
        Room { stack: [const { MaybeUninit::uninit() }; STACK_FIELDS], heap: Vec::new() }
    }

    /// Room for `fields` fields.
    pub(super) fn of(&mut self, fields: usize) -> &mut [MaybeUninit<httparse::Header<'a>>] {
        if fields <= STACK_FIELDS {
            return &mut self.stack[..fields];
        }
        self.heap.resize(fields, MaybeUninit::uninit());
        &mut self.heap
    }
}
