//! Valid requests out of a seed: every part of the grammar that a client may use.

use crate::common::random::Random;
use crate::message::{self, Content, Field, chunking, insert, odd_field, value, write_fields};

/// The field that says which request of the run it is.
pub const CASE: &str = "X-Case";

/// What the client speaks to the sidecar, and the sidecar to the backend: HTTP/1.1 where nothing is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2: nothing that only HTTP/1 has.
    Http2,
    /// The same requests over HTTP/1.1; the backend behind the sidecar speaks HTTP/2.
    Http1ToHttp2,
    /// Over HTTP/2 from end to end.
    Http2ToHttp2,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number.
    pub case: u64,
    /// Any token.
    pub method: String,
    /// As it stands in the request line.
    pub target: String,
    /// HTTP/1.0.
    pub http10: bool,
    /// In order, those of the framing included.
    pub fields: Vec<Field>,
    /// The body.
    pub content: Content,
    /// The client sends the body only when it is told to go on.
    pub waits_for_continue: bool,
    /// Sizes of the pieces in which it is written; what is left goes at once.
    pub cuts: Vec<usize>,
}

impl Request {
    /// The request of this number.
    pub fn new(seed: u64, case: u64, protocol: Protocol) -> Request {
        let random = &mut Random::new(seed ^ case.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let over_h1 = protocol == Protocol::Http1;
        let http10 = over_h1 && random.percent(15);
        let method = method(random);
        let mut authority = authority(random, protocol);
        let absolute = over_h1 && random.percent(8);
        let target = match (&*method, random.below(3)) {
            ("OPTIONS", 0) if over_h1 => "*".into(),
            _ if absolute => {
                let scheme = random.word(&["http", "HTTP", "https"]);
                // An empty path is legal here: it stands for `/`, and with OPTIONS for `*`.
                let rest = if random.percent(20) {
                    random.word(&["", "?a=b", "?"]).into()
                } else {
                    path_and_query(random, protocol)
                };
                format!("{scheme}://{authority}{rest}")
            }
            _ => path_and_query(random, protocol),
        };
        if absolute && random.percent(50) {
            // The target wins over it (RFC 9112, section 3.2.2).
            authority = "other.example".into();
        }
        let content = content(random, &method, http10);
        let waits_for_continue = over_h1 && !http10 && !content.bytes().is_empty() && random.percent(10);

        let mut fields = fields(random, protocol);
        if over_h1 {
            connection_fields(random, http10, &mut fields);
            forwarded_fields(random, &mut fields);
        }
        // A server must ignore it in HTTP/1.0 (RFC 9110, section 10.1.1).
        if waits_for_continue || (http10 && random.percent(5)) {
            let spelled = random.word(&["100-continue", "100-Continue"]);
            insert(random, &mut fields, ("Expect".into(), spelled.into()));
        }
        if !http10 || random.percent(50) {
            let host = random.word(&["Host", "host", "HOST"]);
            insert(random, &mut fields, (host.into(), authority.into_bytes()));
        }
        if let Some(field) = content.field(random) {
            insert(random, &mut fields, field);
        }
        insert(random, &mut fields, (CASE.into(), case.to_string().into_bytes()));
        let cuts = match random.below(4) {
            0 => (0..random.between(1, 6)).map(|_| random.between(1, 200)).collect(),
            _ => Vec::new(),
        };
        Request { case, method, target, http10, fields, content, waits_for_continue, cuts }
    }

    /// The head as bytes.
    pub fn head(&self) -> Vec<u8> {
        let version = if self.http10 { "HTTP/1.0" } else { "HTTP/1.1" };
        let mut out = format!("{} {} {version}\r\n", self.method, self.target).into_bytes();
        write_fields(&mut Random::new(self.case), &mut out, &self.fields);
        out
    }

    /// Whether the client means to send another request on the connection.
    pub fn keeps_alive(&self) -> bool {
        let options: Vec<u8> = self
            .fields
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
            .flat_map(|(_, value)| [value.as_slice(), b","].concat())
            .collect();
        let has = |option: &str| {
            options.split(|b| *b == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
        };
        if self.http10 { has("keep-alive") } else { !has("close") }
    }

    /// All values of a field.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }
}

fn method(random: &mut Random) -> String {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "QUERY"];
    // Case matters, and a method is any token.
    const ODD: [&str; 10] =
        ["PROPFIND", "get", "Post", "M-SEARCH", "BREW", "_", "!#$%&'*+-.^`|~", "X", "PRI", "CONNECTED"];
    match random.below(20) {
        0..8 => "GET".into(),
        8..11 => "POST".into(),
        11..17 => random.word(&KNOWN).into(),
        17..19 => random.word(&ODD).into(),
        _ => {
            let length = random.between(1, 60);
            String::from_utf8(random.of(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-_", length)).expect("ASCII")
        }
    }
}

fn authority(random: &mut Random, protocol: Protocol) -> String {
    const ALL: [&str; 8] = [
        "test",
        "api.example:8080",
        "EXAMPLE.com",
        "127.0.0.1:80",
        "[::1]:8000",
        "xn--bcher-kva.example",
        // Legal, but the HTTP/2 client of these tests does not send them.
        "a_b~c!d.example:",
        "%65xample.com",
    ];
    let end = if protocol == Protocol::Http1 { ALL.len() } else { 6 };
    random.word(&ALL[..end]).into()
}

/// Everything that RFC 3986, sections 3.3 and 3.4, lets stand in a path and a query.
fn path_and_query(random: &mut Random, protocol: Protocol) -> String {
    const SEGMENT: &[u8] = b"abcxyzABCXYZ0189-._~!$&'()*+,;=:@";
    const QUERY: &[u8] = b"abcXYZ09-._~!$&'()*+,;=:@/?";
    const ESCAPES: [&str; 12] =
        ["%20", "%2F", "%2f", "%00", "%0d%0a", "%25", "%C3%A9", "%ff", "%3F", "%23", "%2e%2e", "%E2%80%A8"];
    // No URI has them, but browsers and scripts send them, and servers take them.
    const FOREIGN: [&str; 8] = ["{", "}", "|", "\"", "^", "`", "\\", "<x>"];
    let mut path = String::new();
    if random.percent(3) {
        path.push('/');
    } else {
        for _ in 0..random.between(1, 6) {
            path.push('/');
            match random.below(14) {
                // Two slashes in a row, and at the end.
                0 => {}
                1 => path.push('.'),
                2 => path.push_str(".."),
                3 => path.push_str(random.word(&["users", "v1", "a;b=c;d", "~me", "index.html", "*"])),
                4 => path.push_str(random.word(&ESCAPES)),
                5 => path.push_str(&random.next().to_string()),
                6 if protocol == Protocol::Http1 => path.push_str(random.word(&FOREIGN)),
                _ => {
                    let length = random.between(1, 20);
                    path.push_str(&String::from_utf8(random.of(SEGMENT, length)).expect("ASCII"));
                    if random.percent(20) {
                        path.push_str(random.word(&ESCAPES));
                    }
                }
            }
        }
    }
    if random.percent(2) {
        let length = random.between(1_000, 7_000);
        path.push_str(&String::from_utf8(random.of(SEGMENT, length)).expect("ASCII"));
    }
    if random.percent(35) {
        path.push('?');
        let length = random.below(40);
        path.push_str(&String::from_utf8(random.of(QUERY, length)).expect("ASCII"));
        if random.percent(30) {
            path.push_str(random.word(&ESCAPES));
        }
    }
    path
}

fn content(random: &mut Random, method: &str, http10: bool) -> Content {
    // TRACE must not have a body (RFC 9110, section 9.3.8).
    let likely = match method {
        "TRACE" => 0,
        "GET" | "HEAD" | "DELETE" | "OPTIONS" => 10,
        _ => 80,
    };
    if !random.percent(likely) {
        return Content::None;
    }
    let size = message::size(random);
    let bytes = random.bytes(size);
    if http10 || random.percent(50) {
        let zeros = if random.percent(5) { random.between(1, 4) } else { 0 };
        return Content::Length(bytes, zeros);
    }
    let chunks = chunking(random, size);
    Content::Chunked(bytes, chunks)
}

/// End-to-end fields.
fn fields(random: &mut Random, protocol: Protocol) -> Vec<Field> {
    const ORDINARY: [(&str, &str); 30] = [
        ("Accept", "text/html, application/json;q=0.9, */*;q=0.1"),
        ("Accept", "application/json"),
        ("accept", ""),
        ("Accept-Encoding", "gzip, br;q=0.5, identity;q=0"),
        ("Accept-Encoding", "identity"),
        ("Accept-Language", "de-CH, de;q=0.9"),
        ("Range", "bytes=0-10,-5"),
        ("If-Range", "\"etag\""),
        ("If-None-Match", "W/\"a\", \"b\""),
        ("If-Match", "*"),
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("If-Unmodified-Since", "Sunday, 06-Nov-94 08:49:37 GMT"),
        ("Authorization", "Bearer abc.def-ghi"),
        ("Proxy-Authorization", "Basic YTpi"),
        ("Cookie", "a=1; b=\"2\"; c="),
        ("Cookie", "sid=31d4d96e407aad42"),
        ("Content-Type", "multipart/form-data; boundary=\"--x y\""),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Encoding", "gzip"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) \u{201c}nasty\u{201d} {\"level\":\"ERROR\"}"),
        ("User-Agent", "curl/8"),
        ("Referer", "http://a.example/?x={\"a\":1}"),
        ("Origin", "null"),
        ("Via", "1.0 fred, 1.1 p.example.com (Apache/1.1)"),
        ("Forwarded", "for=\"[2001:db8::1]\";proto=https, for=unknown"),
        ("Cache-Control", "no-cache, max-age=0"),
        ("Pragma", "no-cache"),
        ("Date", "Tue, 15 Nov 1994 08:12:31 GMT"),
        ("Priority", "u=1, i"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let mut fields = Vec::new();
    for _ in 0..random.below(12) {
        let field = match random.below(10) {
            0..6 => {
                let (name, value) = *random.pick(&ORDINARY);
                (name.into(), value.into())
            }
            6 => {
                // Several lines of one field, whose order matters.
                for _ in 0..random.between(1, 3) {
                    let one = ("X-Several".into(), value(random));
                    insert(random, &mut fields, one);
                }
                ("x-several".into(), value(random))
            }
            _ => odd_field(random),
        };
        insert(random, &mut fields, field);
    }
    if random.percent(3) {
        for number in 0..random.between(40, 70) {
            insert(random, &mut fields, (format!("X-Many-{number}"), number.to_string().into_bytes()));
        }
    }
    if protocol != Protocol::Http1 && random.percent(20) {
        fields.push(("TE".into(), "trailers".into()));
    }
    fields
}

/// Fields for the next hop only (RFC 9110, section 7.6.1), the ones that they nominate included.
fn connection_fields(random: &mut Random, http10: bool, fields: &mut Vec<Field>) {
    let mut options: Vec<&str> = Vec::new();
    if http10 {
        if random.percent(60) {
            options.push(random.word(&["keep-alive", "Keep-Alive"]));
        }
    } else {
        match random.below(20) {
            0..2 => options.push("close"),
            2..6 => options.push("keep-alive"),
            _ => {}
        }
    }
    if random.percent(8) {
        options.push("X-Private");
        let private = ("X-Private".into(), value(random));
        insert(random, fields, private);
        insert(random, fields, ("x-private".into(), b"twice".to_vec()));
    }
    if random.percent(8) {
        options.push("TE");
        insert(random, fields, ("TE".into(), b"trailers, deflate;q=0.5".to_vec()));
    }
    match random.below(40) {
        0 => {
            options.push("Upgrade");
            insert(random, fields, ("Upgrade".into(), b"websocket".to_vec()));
        }
        1 => {
            options.extend(["Upgrade", "HTTP2-Settings"]);
            insert(random, fields, ("Upgrade".into(), b"h2c".to_vec()));
            insert(random, fields, ("HTTP2-Settings".into(), b"AAMAAABkAARAAAAAAAIAAAAA".to_vec()));
        }
        2 => insert(random, fields, ("Proxy-Connection".into(), b"keep-alive".to_vec())),
        3 => insert(random, fields, ("Keep-Alive".into(), b"timeout=5, max=10".to_vec())),
        _ => {}
    }
    if options.is_empty() {
        return;
    }
    // One line or several; empty elements of a list are legal (RFC 9110, section 5.6.1).
    if random.percent(50) {
        for option in options {
            insert(random, fields, ("Connection".into(), option.into()));
        }
    } else {
        let list = options.join(random.word(&[", ", ",", " ,, "]));
        insert(random, fields, ("connection".into(), list.into_bytes()));
    }
}

fn forwarded_fields(random: &mut Random, fields: &mut Vec<Field>) {
    for (name, value) in [
        ("X-Forwarded-For", "10.1.2.3"),
        ("x-forwarded-for", "unknown, 192.0.2.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "shop.example"),
        ("X-Forwarded-Port", "443"),
    ] {
        if random.percent(4) {
            insert(random, fields, (name.into(), value.into()));
        }
    }
}
