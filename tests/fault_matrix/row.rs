//! What a scenario is: data. Two scripts, and what all three sides must say of it afterwards.

use crate::common::Page;
use crate::tls::Tls;

/// Where in the life of a request it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The client's head.
    Head,
    /// Waiting for a backend connection.
    Queue,
    /// Connecting.
    Connect,
    /// The request on its way to the backend.
    Send,
    /// Until the response head.
    Wait,
    /// The response body.
    Body,
    /// A tunnel after its 101, or an event stream.
    Stream,
    /// Between requests.
    Idle,
    /// Not a request at all: descriptors, log, names.
    System,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 9] = [
        Phase::Head,
        Phase::Queue,
        Phase::Connect,
        Phase::Send,
        Phase::Wait,
        Phase::Body,
        Phase::Stream,
        Phase::Idle,
        Phase::System,
    ];
}

/// Who listens on the backend's port while the scenario is played. Afterwards it is always somebody who serves well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// The scripts.
    Scripted,
    /// Nobody: connects are refused.
    Refusing,
    /// A queue that is full: connects are not answered.
    Deaf,
}

/// What a client does before its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// Nothing.
    Plain,
    /// It speaks TLS.
    Tls,
    /// It says who it speaks for.
    ProxyHeader,
}

impl Front {
    /// That, as it should be done.
    pub fn begin(self) -> Vec<Act> {
        match self {
            Front::Plain => vec![],
            Front::Tls => vec![Act::TlsBegin],
            Front::ProxyHeader => vec![say("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n")],
        }
    }
}

/// A scenario and its expectations. `SIGHUP` in its middle changes none of them. `SIGTERM` changes what follows from the
/// drain for every scenario (see `run.rs`), and what `term` says.
pub struct Row {
    /// Where it goes wrong.
    pub phase: Phase,
    /// The configuration file, besides upstream, ports and drain.
    pub config: &'static str,
    /// `http`, `https`, or `h2c` for a backend of HTTP/2.
    pub scheme: &'static str,
    /// The backend is reached by a name; where it may lead to, somebody who serves well is at another address, too.
    pub named: bool,
    /// What clients do before their first request. The scripts say it; this is for the good request afterwards.
    pub front: Front,
    /// Who is there.
    pub upstream: Upstream,
    /// Its log cannot be written.
    pub mute: bool,
    /// Played as it is and without signals: another row has the same middle, and all that differs comes after it.
    pub plain: bool,
    /// One script for each connection that brings a byte, in that order. Later connections are served well.
    pub backend: Vec<Vec<Do>>,
    /// What the client does and sees.
    pub client: Vec<Act>,
    /// What the others say.
    pub expect: Expect,
    /// What is different when the drain begins in the middle.
    pub term: Option<Term>,
}

/// What backend and metrics say of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// Requests that the client has sent and that the sidecar has taken for one.
    pub requests: usize,
    /// For each backend connection in order: its requests, each with what became of its body, and how it ended.
    /// `kept`: it is still open. `let go`: the sidecar ended it. `ended`: the backend did. Those to the other address of a
    /// name come last.
    pub seen: Vec<&'static str>,
    /// Every series of the compared families that moved.
    pub moved: Vec<Series>,
}

/// What a `SIGTERM` in the middle changes.
#[derive(Default)]
pub struct Term {
    /// Somebody is still there when the drain's time is over.
    pub cuts: bool,
    /// Instead of the usual script, from its first act.
    pub client: Option<Vec<Act>>,
    /// Instead of the usual scripts.
    pub backend: Option<Vec<Vec<Do>>>,
    /// Instead of the usual expectation.
    pub expect: Option<Expect>,
}

/// A series that moves by one, or by what it says. Route and traffic are always `_unmatched` and `user`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Series {
    /// `golden_requests_total`: method, status, origin.
    Request(&'static str, &'static str, &'static str),
    /// `golden_errors_total`: error type, fault, phase.
    Error(&'static str, &'static str, &'static str),
    /// `golden_client_aborts_total`: phase.
    Abort(&'static str),
    /// `golden_truncated_responses_total`.
    Truncated,
    /// `golden_upstream_retries_total`: result.
    Retry(&'static str),
    /// `golden_upstream_connections_opened_total`.
    Opened,
    /// `golden_upstream_connections_closed_total`: reason.
    Closed(&'static str),
    /// `golden_upstream_pool_timeouts_total`.
    PoolTimeout,
    /// `golden_stream_duration_seconds_count`: end.
    Stream(&'static str),
    /// `golden_upgraded_connections_opened_total` of WebSockets.
    Upgraded,
    /// `golden_upgraded_bytes_total` of WebSockets: direction, bytes.
    UpgradedBytes(&'static str, u32),
    /// `golden_server_connections_rejected_total`: reason.
    Rejected(&'static str),
    /// `golden_tls_handshake_failures_total`: side, reason.
    Handshake(&'static str, &'static str),
}

/// A step of the backend's script for one connection, whose first byte has come.
#[derive(Clone)]
pub enum Do {
    /// Reads a request with its body.
    Read,
    /// Reads a request's head.
    ReadHead,
    /// Reads exactly this much of what follows, as it is on the wire.
    ReadBytes(&'static str),
    /// Reads exactly this many bytes of what follows.
    ReadCount(usize),
    /// Reads the body of the head before.
    ReadBody,
    /// Sends this.
    Send(Vec<u8>),
    /// Sends this again and again until the sidecar takes no more and ends the connection.
    Push(Vec<u8>),
    /// Takes the handshake; what follows is inside.
    TlsAccept(Tls),
    /// Answers HTTP/2's preface and SETTINGS with these SETTINGS.
    H2Accept(Vec<u8>),
    /// Reads an HTTP/2 request to the end of its stream.
    H2Read,
    /// Reads the head of an HTTP/2 request.
    H2ReadHead,
    /// Waits for the sidecar's RST_STREAM.
    H2Reset,
    /// Serves well from here on, by HTTP/2.
    H2Serve,
    /// Somebody may wait for this.
    Mark(&'static str),
    /// Waits for somebody.
    Wait(&'static str),
    /// The middle of the scenario.
    Middle,
    /// Ends the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Reads until the sidecar ends its side, and goes on.
    ReadEnd,
    /// Waits until the sidecar ends the connection.
    WaitEnd,
    /// Serves well from here on.
    Serve,
}

/// A step of the client's script.
#[derive(Clone)]
pub enum Act {
    /// Another connection, which is the current one from now on. The first is there from the beginning.
    Connect,
    /// Back to this connection.
    Use(usize),
    /// Sends this.
    Send(Vec<u8>),
    /// Sends this again and again until nothing more is taken for a while, or the sidecar ends the connection.
    Push(Vec<u8>),
    /// Sends this byte by byte, slowly, until something comes back.
    Drip(&'static str),
    /// Reads an interim response.
    Interim(u16),
    /// Reads the final response's head, whatever comes before.
    Head(u16),
    /// Reads exactly this much of what follows, as it is on the wire.
    Take(&'static str),
    /// Reads exactly these bytes.
    TakeBytes(&'static [u8]),
    /// Reads one chunk.
    Chunk(&'static str),
    /// Reads the rest of the body, which is this and complete.
    Whole(&'static str),
    /// Reads the rest of the body, which begins so and is visibly cut.
    Cut(&'static str),
    /// Reads an answer of the sidecar's own: status and error type.
    Refused(u16, &'static str),
    /// The sidecar ends the connection without another byte.
    End,
    /// Ends our side and reads on.
    HalfClose,
    /// Leaves.
    Leave,
    /// Leaves with a reset.
    Reset,
    /// Begins TLS; what follows is inside.
    TlsBegin,
    /// The backend's name leads there from now on, and the sidecar has asked since.
    Names(&'static [&'static str]),
    /// Begins HTTP/2 with this window for each stream.
    H2Begin(u32),
    /// Reads the response head of a stream.
    H2Head(u32, u16),
    /// Reads DATA of a stream that is this altogether.
    H2Take(u32, &'static str),
    /// Reads the rest of a stream, which is this and complete.
    H2Whole(u32, &'static str),
    /// Reads an answer of the sidecar's own on a stream.
    H2Refused(u32, u16),
    /// The sidecar resets the stream, after any DATA.
    H2Reset(u32),
    /// The sidecar says that it takes no more streams.
    H2GoAway,
    /// Somebody may wait for this.
    Mark(&'static str),
    /// Waits for somebody.
    Wait(&'static str),
    /// Waits until the metrics page shows this.
    Page(&'static str, fn(&Page) -> bool),
    /// The sidecar may have no more descriptors than it has now, and this many.
    Descriptors(u64),
    /// The sidecar uses next to no processor while this goes on.
    Calm,
    /// The middle of the scenario.
    Middle,
}

impl Default for Row {
    fn default() -> Row {
        Row {
            phase: Phase::Wait,
            config: "",
            scheme: "http",
            named: false,
            front: Front::Plain,
            upstream: Upstream::Scripted,
            mute: false,
            plain: false,
            backend: Vec::new(),
            client: Vec::new(),
            expect: Expect::default(),
            term: None,
        }
    }
}

/// A step that sends text.
pub fn send(text: &str) -> Do {
    Do::Send(text.into())
}

/// A step that sends frames.
pub fn frames(list: &[Vec<u8>]) -> Do {
    Do::Send(list.concat())
}

/// An act that sends text.
pub fn say(text: &str) -> Act {
    Act::Send(text.into())
}

/// A request in two parts, the middle between them: for exchanges that have no middle of their own. The page tells when
/// the first part has an owner: a connection that nobody serves yet is closed by a drain.
pub fn in_two_parts(first: &str, second: &str) -> Vec<Act> {
    vec![say(first), accepted(), Act::Middle, say(second)]
}

/// The usual request, so.
pub fn get_in_two_parts() -> Vec<Act> {
    in_two_parts("GET / HTTP/1.1\r\nHo", "st: test\r\n\r\n")
}

/// Waits until the sidecar has the client's connection.
pub fn accepted() -> Act {
    Act::Page("the connection is accepted", |page| page.sum("golden_server_connections", &[]) >= 1.0)
}

/// Waits until a request is in flight.
pub fn in_flight() -> Act {
    Act::Page("a request is in flight", |page| page.sum("http_server_active_requests", &[]) >= 1.0)
}

/// The usual request.
pub fn get() -> Act {
    say("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// The head of an upload of this many bytes, and its beginning.
pub fn post(length: usize, beginning: &str) -> Act {
    say(&format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{beginning}"))
}

/// One after the other.
pub fn acts(parts: impl IntoIterator<Item = Vec<Act>>) -> Vec<Act> {
    parts.into_iter().flatten().collect()
}

/// What a scenario of one request comes to that the sidecar answers with an error of its own.
pub fn refused(
    method: &'static str,
    status: &'static str,
    error: (&'static str, &'static str, &'static str),
    seen: Vec<&'static str>,
    connection: &[Series],
) -> Expect {
    let mut moved = vec![Series::Request(method, status, "proxy"), Series::Error(error.0, error.1, error.2)];
    moved.extend(connection);
    Expect { requests: 1, seen, moved }
}

/// The same of a request whose answer the backend cut.
pub fn cut(error: &'static str, seen: Vec<&'static str>) -> Expect {
    let moved = vec![
        Series::Request("GET", "200", "backend"),
        Series::Error(error, "backend", "body"),
        Series::Truncated,
        Series::Opened,
        Series::Closed("error"),
    ];
    Expect { requests: 1, seen, moved }
}

/// The same of a request that the backend answered, whatever the status, as long as it is no 5xx.
pub fn answered(method: &'static str, status: &'static str, seen: Vec<&'static str>, connection: &[Series]) -> Expect {
    let mut moved = vec![Series::Request(method, status, "backend")];
    moved.extend(connection);
    Expect { requests: 1, seen, moved }
}

/// The same of a request that its client left.
pub fn aborted(
    method: &'static str,
    status: &'static str,
    phase: &'static str,
    seen: Vec<&'static str>,
    connection: &[Series],
) -> Expect {
    let mut moved = vec![Series::Request(method, status, "client"), Series::Abort(phase)];
    moved.extend(connection);
    Expect { requests: 1, seen, moved }
}

/// A connection to the backend that was opened and lost in the exchange.
pub const LOST: &[Series] = &[Series::Opened, Series::Closed("error")];
/// One that the backend ended after a whole exchange, as it had said.
pub const ENDED: &[Series] = &[Series::Opened, Series::Closed("peer")];
/// One that is still there.
pub const KEPT: &[Series] = &[Series::Opened];
