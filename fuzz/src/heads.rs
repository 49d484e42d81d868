//! Heads, chunks and trailers by themselves: what the sidecar understood is what a second reader understands, and what
//! it writes is in proper form.
//!
//! Shape: a letter (`q` request, `p` response, `c` chunks, `t` trailers, `g` gRPC), a byte whose bits are options, then the
//! bytes.

use golden_sidecar::config::Forwarded;
use golden_sidecar::proxy::grpc;
use golden_sidecar::proxy::h1::{ChunkReader, ChunkStep, Framing, HeadScan};
use golden_sidecar::proxy::headers::{self, Peer, RequestContext, ResponseContext};

use super::wire::{self, shown};

const LINE_LIMIT: usize = 1024;
const HEAD_LIMIT: usize = 4096;
/// As the default.
const MAX_FIELDS: usize = 100;

/// One input.
///
/// # Panics
/// When a promise is broken.
pub fn run(input: &[u8]) {
    let Some(([kind, options], bytes)) = input.split_first_chunk() else { return };
    match kind {
        b'q' => request(*options, bytes),
        b'p' => response(*options, bytes),
        b'c' => chunks(*options, bytes),
        b't' => trailers(bytes),
        b'g' => grpc_values(*options, bytes),
        _ => {}
    }
}

/// The complete head at the beginning, found however the bytes arrive.
fn scanned(bytes: &[u8]) -> Option<&[u8]> {
    let whole = HeadScan::default().scan(bytes, LINE_LIMIT, HEAD_LIMIT);
    let mut drip = HeadScan::default();
    let dripped =
        (1..=bytes.len()).map(|end| drip.scan(&bytes[..end], LINE_LIMIT, HEAD_LIMIT)).find(|found| *found != Ok(None));
    match (whole, dripped) {
        (Ok(Some(len)), Some(Ok(Some(same)))) => {
            assert_eq!(len, same, "a head has two ends");
            Some(&bytes[..len])
        }
        (Ok(None), None) => None,
        // Which limit or line is met first may depend on how much is there at once.
        (Ok(Some(_)), found) => panic!("found at once, but byte by byte {found:?}"),
        _ => None,
    }
}

fn same(framing: Framing) -> wire::Framing {
    match framing {
        Framing::None => wire::Framing::None,
        Framing::Length(n) => wire::Framing::Length(n),
        Framing::Chunked => wire::Framing::Chunked,
        Framing::Close => wire::Framing::Close,
    }
}

fn request(options: u8, bytes: &[u8]) {
    let Some(bytes) = scanned(bytes) else { return };
    let context = RequestContext {
        peer: Peer { address: Some([192, 0, 2, 1].into()), secure: options & 4 != 0 },
        forwarded: if options & 1 == 0 { &Forwarded::Append } else { &Forwarded::Replace },
        via: options & 2 != 0,
        default_host: "backend:80",
        max_fields: MAX_FIELDS,
        head_bytes: 64 * 1024,
        probe_agents: &["kube-probe/".to_owned()],
    };
    let mut out = Vec::new();
    let Ok(head) = headers::request(bytes, &context, &mut out) else { return };

    // What came can be read in one way only, and was read in that way.
    let came = wire::request(bytes).unwrap_or_else(|why| panic!("taken, although {why}")).expect("it has an end");
    let framing = |message: &wire::Message<'_>| match message.head.all("content-length").next() {
        Some(length) => std::str::from_utf8(length).ok().and_then(|n| n.parse().ok()).map(wire::Framing::Length),
        None if message.head.all("transfer-encoding").next().is_some() => Some(wire::Framing::Chunked),
        None => Some(wire::Framing::None),
    };
    let understood = same(head.framing);
    assert!(
        framing(&came) == Some(understood)
            || (framing(&came) == Some(wire::Framing::Length(0)) && understood == wire::Framing::None),
        "read as {understood:?}"
    );
    let (method, target, version) = came.head.request_line().expect("read before");
    assert_eq!(head.http10, version == b"HTTP/1.0");
    let path = &bytes[head.path.clone()];
    assert!(
        path.is_empty() || path == b"*" || (path[0] == b'/' && !path.contains(&b'?')),
        "the path is {}",
        shown(path)
    );

    // What goes to the backend is one head in proper form that says the same.
    let sent = wire::request(&out).unwrap_or_else(|why| panic!("{why} in {}", shown(&out))).expect("it has an end");
    assert_eq!(sent.head.len, out.len(), "bytes behind the head");
    let (sent_method, sent_target, sent_version) = sent.head.request_line().expect("read before");
    assert_eq!((sent_method, sent_version), (method, &b"HTTP/1.1"[..]));
    assert!(
        target == sent_target || is_absolute_form_of(target, sent_target),
        "{} became {}",
        shown(target),
        shown(sent_target)
    );
    assert_eq!(framing(&sent).map(|sent| sent == understood), Some(true), "written as another framing");
    assert_eq!(sent.head.all("host").count(), 1);
    assert_eq!(sent.head.all("x-forwarded-for").count(), 1);
    for hop in ["keep-alive", "proxy-connection", "te", "http2-settings"] {
        assert_eq!(sent.head.all(hop).count(), 0, "{hop} went through");
    }
    let upgrade = head.upgrade.is_some();
    assert_eq!(sent.head.all("upgrade").count(), usize::from(upgrade));
    assert_eq!(sent.head.all("connection").collect::<Vec<_>>(), vec![&b"upgrade"[..]; usize::from(upgrade)]);

    // And the sidecar behind this one understands it in the same way; it has two or three fields more.
    let mut again = Vec::new();
    let wider = RequestContext { max_fields: MAX_FIELDS + 10, ..context };
    let second = headers::request(&out, &wider, &mut again).unwrap_or_else(|why| panic!("{why:?}: {}", shown(&out)));
    assert_eq!((second.method, second.framing, second.upgrade), (head.method, head.framing, head.upgrade));
}

/// Whether the second is the origin form of the first: what is behind its authority.
#[must_use]
pub fn is_absolute_form_of(absolute: &[u8], origin: &[u8]) -> bool {
    let Some(scheme) = wire::find(absolute, b"://") else {
        return false;
    };
    let rest = &absolute[scheme + 3..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    match &rest[end..] {
        b"" => matches!(origin, b"/" | b"*"),
        path if path[0] == b'?' => origin.strip_prefix(b"/") == Some(path),
        path => path == origin,
    }
}

fn response(options: u8, bytes: &[u8]) {
    let Some(bytes) = scanned(bytes) else { return };
    let context = ResponseContext {
        to_head: options & 1 != 0,
        http10: options & 2 != 0,
        keep_alive: options & 4 == 0,
        upgrade: options & 8 != 0,
        max_fields: MAX_FIELDS,
        via: options & 16 != 0,
    };
    let mut out = Vec::new();
    let Ok(head) = headers::response(bytes, &context, &mut out) else { return };
    headers::write_response_framing(&mut out, &head, context.to_head, context.http10);
    let method: &[u8] = if context.to_head { b"HEAD" } else { b"GET" };

    let came =
        wire::response(bytes, method).unwrap_or_else(|why| panic!("taken, although {why}")).expect("it has an end");
    assert_eq!(came.head.status().expect("read before").0, head.status);
    let sent =
        wire::response(&out, method).unwrap_or_else(|why| panic!("{why} in {}", shown(&out))).expect("it has an end");
    assert_eq!(sent.head.status(), Ok((head.status, false)));
    assert_eq!(sent.head.len, out.len(), "bytes behind the head");
    assert!(sent.head.framing_fields() <= 1, "a length twice");
    let told = (sent.head.all("content-length").next().is_some(), sent.head.all("transfer-encoding").next().is_some());
    match head.out_framing {
        Framing::Length(_) => assert_eq!(told, (true, false)),
        Framing::Chunked => {
            assert_eq!(told, (false, !context.to_head));
            assert!(!context.http10, "chunked for HTTP/1.0");
        }
        Framing::Close => {
            assert_eq!(told, (false, false));
            assert!(!head.keep_alive, "nobody could tell the end");
        }
        Framing::None => assert!(!told.1, "a coding without a body"),
    }
    if head.status >= 200 {
        assert_eq!(sent.head.lists("connection", "close"), !head.keep_alive);
    }
    let length = came.head.all("content-length").next();
    if let (Some(length), Some(sent)) = (length, sent.head.all("content-length").next()) {
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
        assert_eq!(number(length), number(sent), "another length");
    }
    let fields = headers::fields(bytes, MAX_FIELDS);
    assert_eq!(fields.len(), came.head.fields.len(), "other fields for the judge");
}

fn read(reader: &mut ChunkReader, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), ()> {
    let (mut body, mut used_up) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, step) = reader.step(rest).map_err(drop)?;
            assert!(used <= rest.len());
            used_up += used;
            match step {
                ChunkStep::End => return Ok((body, used_up, true)),
                ChunkStep::More => {
                    assert_eq!(used, rest.len(), "more is wanted, but not all was used");
                    break;
                }
                ChunkStep::Data { start, end } => {
                    assert!(start < end && end <= used);
                    body.extend_from_slice(&rest[start..end]);
                }
            }
            rest = &rest[used..];
        }
    }
    Ok((body, used_up, false))
}

fn chunks(options: u8, bytes: &[u8]) {
    let mut reader = ChunkReader::new(HEAD_LIMIT);
    let whole = read(&mut reader, &[bytes]);
    let pieces: Vec<_> = bytes.chunks(usize::from(options % 16) + 1).collect();
    let mut other = ChunkReader::new(HEAD_LIMIT);
    assert_eq!(read(&mut other, &pieces), whole, "in pieces it is another body");
    let Ok((body, used, true)) = whole else { return };
    assert_eq!(reader.trailers(), other.trailers());
    let mut out = Vec::new();
    if headers::trailers(reader.trailers(), MAX_FIELDS, &mut out).is_err() {
        return;
    }
    let second = wire::body(bytes, wire::Framing::Chunked);
    assert_eq!(second.fault, None, "taken all the same");
    assert!(second.complete && second.len == used && second.bytes == body, "another reader ends elsewhere");
    checked_trailers(&out);
}

fn trailers(bytes: &[u8]) {
    let mut out = Vec::new();
    if headers::trailers(bytes, MAX_FIELDS, &mut out).is_ok() {
        checked_trailers(&out);
    }
}

fn checked_trailers(out: &[u8]) {
    let fields = wire::fields(out).unwrap_or_else(|why| panic!("{why} in {}", shown(out)));
    for (name, _) in fields {
        let name = name.to_ascii_lowercase();
        let framing: [&[u8]; 6] =
            [b"content-length", b"transfer-encoding", b"host", b"connection", b"trailer", b"upgrade"];
        assert!(!framing.contains(&&name[..]), "{} in a trailer", shown(&name));
    }
}

fn grpc_values(options: u8, bytes: &[u8]) {
    let _ = grpc::is_grpc(bytes);
    let _ = grpc::parse_status(bytes);
    if let Some(timeout) = grpc::parse_timeout(bytes) {
        assert!(timeout.as_secs() <= 99_999_999 * 3600, "{timeout:?}");
        assert!((2..=9).contains(&bytes.len()));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let mut written = Vec::new();
        grpc::write_message(text, &mut written);
        assert!(written.iter().all(|byte| (b' '..=b'~').contains(byte)), "{}", shown(&written));
        let mut read = Vec::new();
        let mut rest = &written[..];
        while let Some((first, after)) = rest.split_first() {
            let digits = (*first == b'%').then(|| std::str::from_utf8(&after[..2]).expect("ASCII"));
            read.push(digits.map_or(*first, |digits| u8::from_str_radix(digits, 16).expect("two digits")));
            rest = if digits.is_some() { &after[2..] } else { after };
        }
        assert_eq!(read, bytes, "percent-encoded as {}", shown(&written));
    }
    // The second message begins where the first ends, in whatever pieces.
    let length = bytes.first_chunk::<5>().map(|[_, a, b, c, d]| u32::from_be_bytes([*a, *b, *c, *d]));
    let expected = length.is_some_and(|length| bytes.len() as u64 > 5 + u64::from(length));
    assert_eq!(grpc::Messages::default().second_begins(bytes), expected);
    let mut dripped = grpc::Messages::default();
    let pieces = bytes.chunks(usize::from(options % 8) + 1);
    assert_eq!(pieces.fold(false, |_, piece| dripped.second_begins(piece)), expected);
}
