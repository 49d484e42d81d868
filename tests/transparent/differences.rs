//! What may differ between the two ways, as data, and the comparison that finds every difference there is.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::answer::Seen;
use crate::common::wire::{Body, Framing, Head};
use crate::message::{Field, shown};
use crate::request::{Protocol, Request};

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The client, at the answer.
    Client,
    /// The backend, at the request.
    Backend,
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `HTTP/1.0` or `HTTP/1.1` in the first line.
    Version,
    /// `Connection`, what it nominates, and the fields that belong to one connection.
    ConnectionFields,
    /// How the end of the body is told, and how it is cut into chunks.
    Framing,
    /// `Content-Length` in another place, another spelling or without leading zeros; its number is the same.
    LengthField,
    /// `Content-Length: 0` where the end of an empty body was told otherwise.
    LengthAdded,
    /// `Host` in another place or spelling.
    HostField,
    /// `Host` where a request of HTTP/1.0 had none.
    HostAdded,
    /// A target in absolute form is in origin form, and `Host` says what it said.
    Target,
    /// `X-Forwarded-For`, `-Proto`, `-Host`.
    ForwardedFields,
    /// `Expect` in HTTP/1.0 is gone.
    Expectation,
    /// The order of fields of different names.
    FieldOrder,
    /// Field names in lower case.
    FieldNames,
    /// Several `Cookie` fields are one.
    Cookies,
    /// The reason phrase is gone.
    Reason,
    /// Anything else.
    Other,
}

/// Every difference that is allowed, where, over what, and by which rule. [`every_one_occurs`] keeps it honest: what no run
/// shows is no difference, and goes.
///
/// [`every_one_occurs`]: crate::every_one_occurs
pub const ALLOWED: &[(Side, &[Protocol], Kind, &str)] = {
    use Kind::{
        ConnectionFields, Cookies, Expectation, FieldNames, FieldOrder, ForwardedFields, Framing, HostAdded, HostField,
        LengthAdded, LengthField, Reason, Target, Version,
    };
    use Protocol::{Http1, Http1ToHttp2, Http2, Http2ToHttp2};
    use Side::{Backend, Client};
    const ALL: &[Protocol] = &[Http1, Http2, Http1ToHttp2, Http2ToHttp2];
    const ONE_HTTP2: &[Protocol] = &[Http2, Http1ToHttp2, Http2ToHttp2];
    const FROM_HTTP2: &[Protocol] = &[Http2, Http2ToHttp2];
    const TO_HTTP2: &[Protocol] = &[Http1ToHttp2, Http2ToHttp2];
    &[
        (Client, ALL, Version, "RFC 9110, section 2.5: an intermediary sends its own version"),
        (Client, ALL, ConnectionFields, "RFC 9110, section 7.6.1; RFC 9113, section 8.2.2"),
        (Client, ALL, Framing, "RFC 9112, sections 6.1 and 7.1; RFC 9113, section 8.1: it belongs to one connection"),
        (Client, ALL, LengthField, "RFC 9110, section 5.3: order of different names; section 8.6: a number"),
        (Client, TO_HTTP2, LengthAdded, "RFC 9112, section 6.3; RFC 9113, section 8.1: it ended with its head"),
        (Client, ONE_HTTP2, FieldOrder, "RFC 9110, section 5.3"),
        (Client, ONE_HTTP2, FieldNames, "RFC 9113, section 8.2"),
        (Client, ONE_HTTP2, Reason, "RFC 9113, section 8.3.2: there is none"),
        (Backend, &[Http1], Version, "RFC 9110, section 2.5"),
        (Backend, TO_HTTP2, Version, "RFC 9110, section 2.5"),
        (Backend, ALL, ConnectionFields, "RFC 9110, sections 7.6.1 and 10.1.4"),
        (Backend, ALL, Framing, "RFC 9112, section 7.1; RFC 9113, section 8.1"),
        (Backend, ALL, LengthField, "RFC 9110, sections 5.3 and 8.6"),
        (Backend, ALL, HostField, "RFC 9110, section 7.2: Host goes first; RFC 9113, section 8.3.1: `:authority`"),
        (Backend, &[Http1], HostAdded, "RFC 9112, section 3.2: a request of HTTP/1.1 has Host"),
        (Backend, &[Http1], Target, "RFC 9112, sections 3.2.1 and 3.2.2"),
        (Backend, ALL, ForwardedFields, "documented: the key `forwarded`"),
        (Backend, &[Http1], Expectation, "RFC 9110, section 10.1.1: ignored in HTTP/1.0"),
        (Backend, ONE_HTTP2, FieldOrder, "RFC 9110, section 5.3"),
        (Backend, ONE_HTTP2, FieldNames, "RFC 9113, section 8.2"),
        (Backend, FROM_HTTP2, Cookies, "RFC 9113, section 8.2.3"),
    ]
};

/// Fields of one connection, whether `Connection` names them or not (RFC 9110, section 7.6.1; RFC 9113, section 3.1 for
/// `HTTP2-Settings`).
const CONNECTION_FIELDS: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "http2-settings"];

/// Fields that the sidecar adds to or writes anew.
const FORWARDED_FIELDS: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

/// What a client got.
#[derive(Clone, Debug)]
pub struct Got {
    /// Interim responses.
    pub interim: Vec<Head>,
    /// The status line (`HTTP/2 200 ` there) and fields.
    pub head: Head,
    /// How the end of the body was told.
    pub framing: Framing,
    /// Content and trailers.
    pub body: Body,
}

/// The differences that were found.
#[derive(Debug, Default)]
pub struct Differences(pub Vec<(Side, Kind, String)>);

impl Differences {
    fn note(&mut self, side: Side, kind: Kind, different: bool, what: impl FnOnce() -> String) {
        if different {
            self.0.push((side, kind, what()));
        }
    }

    /// All that the client and the backend can tell the two ways by.
    pub fn between(
        request: &Request,
        protocol: Protocol,
        direct: (&Got, &Seen),
        via: (&Got, &Seen),
        backend: SocketAddr,
    ) -> Differences {
        let mut found = Differences::default();
        found.at_the_client(protocol, direct.0, via.0);
        found.at_the_backend(request, protocol, direct.1, via.1, backend);
        found
    }

    fn at_the_client(&mut self, protocol: Protocol, direct: &Got, via: &Got) {
        let side = Side::Client;
        let (direct_line, via_line) = (StatusLine::of(&direct.head), StatusLine::of(&via.head));
        self.note(side, Kind::Version, direct_line.version != via_line.version, || via.head.line.clone());
        self.note(side, Kind::Other, direct_line.status != via_line.status, || {
            format!("status {} became {}", direct_line.status, via_line.status)
        });
        let reason = if protocol != Protocol::Http1 { Kind::Reason } else { Kind::Other };
        self.note(side, reason, direct_line.reason != via_line.reason, || {
            format!("reason {:?} became {:?}", direct_line.reason, via_line.reason)
        });
        let mut fields = via.head.fields.clone();
        // Directly the length of an empty body went without saying: by a last chunk alone, or by the connection's end.
        let to_http2 = matches!(protocol, Protocol::Http1ToHttp2 | Protocol::Http2ToHttp2);
        let unsaid = matches!(direct.framing, Framing::Chunked | Framing::Close) && direct.body.content.is_empty();
        if to_http2 && unsaid && direct.body.trailers.is_empty() {
            fields.retain(|(name, value)| !(name.eq_ignore_ascii_case("content-length") && value == b"0"));
        }
        let added = fields.len() != via.head.fields.len();
        self.note(side, Kind::LengthAdded, added, || "Content-Length: 0".into());
        self.fields(side, protocol, &direct.head.fields, &fields);
        self.note(side, Kind::Framing, framing_differs(direct.framing, &direct.body, via.framing, &via.body), || {
            format!("{:?} became {:?}", direct.framing, via.framing)
        });
        self.bodies(side, protocol, &direct.body, &via.body);

        // Over HTTP/2 there is but the status.
        let whole = protocol == Protocol::Http1;
        let lines = |got: &Got| -> Vec<String> {
            let line = |head: &Head| if whole { head.line.clone() } else { head.status().to_string() };
            got.interim.iter().map(line).collect()
        };
        self.note(side, Kind::Other, lines(direct) != lines(via), || {
            format!("interim responses {:?} became {:?}", lines(direct), lines(via))
        });
        for (one, other) in direct.interim.iter().zip(&via.interim) {
            self.fields(side, protocol, &one.fields, &other.fields);
        }
    }

    fn at_the_backend(
        &mut self,
        request: &Request,
        protocol: Protocol,
        direct: &Seen,
        via: &Seen,
        backend: SocketAddr,
    ) {
        let side = Side::Backend;
        assert_eq!(direct.head.target(), request.target, "the direct way shows what was sent");
        self.note(side, Kind::Other, direct.head.method() != via.head.method(), || {
            format!("method {:?} became {:?}", direct.head.method(), via.head.method())
        });
        let version = |seen: &Seen| seen.head.line.rsplit(' ').next().unwrap_or_default().to_owned();
        self.note(side, Kind::Version, version(direct) != version(via), || version(via));

        let (authority, target) = origin_form(&request.method, &request.target);
        self.note(side, Kind::Target, target != request.target, || via.head.target().to_owned());
        self.note(side, Kind::Other, target != via.head.target(), || {
            format!("target {target:?} became {:?}", via.head.target())
        });
        let sent = request.all("host").next().map(<[u8]>::to_vec);
        let fallback = backend.to_string().into_bytes();
        let expected = authority.map(Into::into).or(sent.clone()).unwrap_or(fallback);
        let hosts = via.head.all_bytes("host");
        self.note(side, Kind::Other, hosts != [expected.clone()], || {
            format!("Host {} became {hosts:?}", shown(&expected))
        });
        self.note(side, Kind::HostAdded, sent.is_none(), || "Host".into());
        let place = |seen: &Seen| {
            let at = seen.head.fields.iter().position(|(name, _)| name.eq_ignore_ascii_case("host"));
            at.map(|at| (at, seen.head.fields[at].0.clone()))
        };
        self.note(side, Kind::HostField, sent.is_some() && place(direct) != place(via), || format!("{:?}", place(via)));

        let forwarded = expected_forwarded(request, &expected);
        let have: Vec<_> = FORWARDED_FIELDS.iter().map(|name| via.head.all_bytes(name)).collect();
        self.note(side, Kind::Other, forwarded != have, || format!("X-Forwarded-*: {have:?}, expected {forwarded:?}"));
        self.note(side, Kind::ForwardedFields, true, || "X-Forwarded-*".into());

        let expectation = request.http10 && request.all("expect").next().is_some();
        self.note(side, Kind::Expectation, expectation, || "Expect".into());
        let own = |name: &str| {
            name.eq_ignore_ascii_case("host")
                || FORWARDED_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own))
                || (expectation && name.eq_ignore_ascii_case("expect"))
        };
        let without_own =
            |seen: &Seen| -> Vec<Field> { seen.head.fields.iter().filter(|(name, _)| !own(name)).cloned().collect() };
        self.fields(side, protocol, &without_own(direct), &without_own(via));

        let framing = |seen: &Seen| crate::common::Peer::framing(&seen.head);
        let (one, other) = (framing(direct), framing(via));
        self.note(side, Kind::Framing, framing_differs(one, &direct.body, other, &via.body), || {
            format!("{one:?} became {other:?}")
        });
        self.bodies(side, protocol, &direct.body, &via.body);
    }

    fn fields(&mut self, side: Side, protocol: Protocol, direct: &[Field], via: &[Field]) {
        let (one, other) = (Fields::of(direct), Fields::of(via));
        self.note(side, Kind::ConnectionFields, one.connection != other.connection, || {
            format!("{:?} became {:?}", one.connection, other.connection)
        });
        self.note(side, Kind::Other, one.length.as_ref().map(number) != other.length.as_ref().map(number), || {
            format!("Content-Length {:?} became {:?}", one.length, other.length)
        });
        self.note(side, Kind::LengthField, one.length != other.length, || format!("{:?}", other.length));
        self.end_to_end(side, protocol, &one.end_to_end, &other.end_to_end);
    }

    fn bodies(&mut self, side: Side, protocol: Protocol, direct: &Body, via: &Body) {
        self.note(side, Kind::Other, (direct.complete, via.complete) != (true, true), || {
            format!("complete: {} and {}", direct.complete, via.complete)
        });
        self.note(side, Kind::Other, direct.content != via.content, || {
            let at = direct.content.iter().zip(&via.content).position(|(a, b)| a != b);
            format!("a body of {} bytes became {}, first difference at {at:?}", direct.content.len(), via.content.len())
        });
        self.end_to_end(side, protocol, &direct.trailers, &via.trailers);
    }

    fn end_to_end(&mut self, side: Side, protocol: Protocol, direct: &[Field], via: &[Field]) {
        if direct == via {
            return;
        }
        let text = |fields: &[Field]| {
            let lines = fields.iter().map(|(name, value)| format!("    {name}: {}", shown(value)));
            lines.collect::<Vec<_>>().join("\n")
        };
        let other = || format!("fields\n{}\n  became\n{}", text(direct), text(via));
        if protocol == Protocol::Http1 {
            return self.note(side, Kind::Other, true, other);
        }
        let lower = |fields: &[Field]| -> Vec<Field> {
            fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
        };
        let (direct_lower, via_lower) = (lower(direct), lower(via));
        self.note(side, Kind::FieldNames, direct_lower != direct, || "lower case".into());
        let (mut one, two) = (by_name(&direct_lower), by_name(&via_lower));
        let order = |fields: &[Field]| fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        self.note(side, Kind::FieldOrder, order(&direct_lower) != order(&via_lower), || "order".into());
        if side == Side::Backend
            && two.get("cookie").is_some_and(|crumbs| crumbs.len() == 1)
            && let Some(crumbs) = one.get_mut("cookie").filter(|crumbs| crumbs.len() > 1)
        {
            *crumbs = vec![crumbs.join(&b"; "[..])];
            self.note(side, Kind::Cookies, true, || "cookies".into());
        }
        self.note(side, Kind::Other, one != two, other);
    }
}

/// The values of each name, in order.
fn by_name(fields: &[Field]) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut all: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (name, value) in fields {
        all.entry(name.clone()).or_default().push(value.clone());
    }
    all
}

/// Fields sorted by whom they are for.
struct Fields {
    connection: Vec<Field>,
    /// Place, name and value of `Content-Length`.
    length: Option<(usize, Field)>,
    end_to_end: Vec<Field>,
}

impl Fields {
    fn of(all: &[Field]) -> Fields {
        let nominated: Vec<String> = all
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
            .flat_map(|(_, value)| {
                String::from_utf8_lossy(value)
                    .to_ascii_lowercase()
                    .split(',')
                    .map(str::trim)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect();
        let mut fields = Fields { connection: Vec::new(), length: None, end_to_end: Vec::new() };
        for (at, (name, value)) in all.iter().enumerate() {
            let lower = name.to_ascii_lowercase();
            if CONNECTION_FIELDS.contains(&&*lower) || nominated.contains(&lower) {
                fields.connection.push((name.clone(), value.clone()));
            } else if lower == "content-length" {
                assert!(fields.length.is_none(), "Content-Length twice: {all:?}");
                fields.length = Some((at, (name.clone(), value.clone())));
            } else {
                fields.end_to_end.push((name.clone(), value.clone()));
            }
        }
        fields
    }
}

fn number((_, (_, value)): &(usize, Field)) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).expect("Content-Length is a number")
}

struct StatusLine<'a> {
    version: &'a str,
    status: &'a str,
    reason: &'a str,
}

impl StatusLine<'_> {
    fn of(head: &Head) -> StatusLine<'_> {
        let mut parts = head.line.splitn(3, ' ');
        let mut next = || parts.next().unwrap_or_default();
        StatusLine { version: next(), status: next(), reason: next() }
    }
}

fn framing_differs(direct: Framing, one: &Body, via: Framing, other: &Body) -> bool {
    direct != via || one.chunks != other.chunks
}

/// The authority of a target in absolute form, and the target for an origin server (RFC 9112, sections 3.2.1, 3.2.4).
fn origin_form<'a>(method: &str, target: &'a str) -> (Option<&'a str>, String) {
    let Some((scheme, rest)) = target.split_once("://") else { return (None, target.to_owned()) };
    if scheme.starts_with('/') {
        return (None, target.to_owned());
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = match path.chars().next() {
        None if method == "OPTIONS" => "*".to_owned(),
        None => "/".to_owned(),
        Some('?') => format!("/{path}"),
        Some(_) => path.to_owned(),
    };
    (Some(authority), path)
}

/// What `forwarded: append` makes of the client's own fields.
fn expected_forwarded(request: &Request, host: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let own = |name: &str| request.all(name).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut addresses = own("x-forwarded-for");
    addresses.push(b"127.0.0.1".to_vec());
    let or = |own: Vec<Vec<u8>>, other: &[u8]| if own.is_empty() { vec![other.to_vec()] } else { own };
    vec![vec![addresses.join(&b", "[..])], or(own("x-forwarded-proto"), b"http"), or(own("x-forwarded-host"), host)]
}
