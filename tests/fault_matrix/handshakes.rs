//! TLS on both sides, and the PROXY protocol: before a request can be read or sent, and where they end inside one.

use crate::row::{
    Act, Do, ENDED, Expect, Front, KEPT, LOST, Phase, Row, Series, aborted, accepted, acts, answered, cut, get,
    get_in_two_parts, post, refused, say, send,
};
use crate::tls::Tls;

/// To the backend by TLS. Clients of the others come by TLS, or with a header.
const TO_BACKEND: &str = "upstream_tls:\n  ca: {certificates}/ca.pem\ntimeouts:\n  connect: 20s\n";
const TO_BACKEND_SOON: &str = "upstream_tls:\n  ca: {certificates}/ca.pem\ntimeouts:\n  connect: 400ms\n";
const TO_CLIENTS: &str = "tls:\n  certificate: {certificates}/server.pem\n  key: {certificates}/server.key\n";
const WITH_HEADER: &str = "proxy_protocol: true\n";
const WITH_HEADER_SOON: &str = "proxy_protocol: true\ntimeouts:\n  client_head: 400ms\n";

const ONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none";
const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!";
const OPEN: &str = "HTTP/1.1 200 OK\r\n\r\nall of it, or not?";
/// The beginning of a ClientHello: its record and message would be longer.
const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
/// Nobody's answer to one.
const NO_TLS: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";

/// A request that is refused because there is no TLS to be had with the backend.
fn no_tls(backend: Vec<Do>, reason: &'static str, seen: &'static str) -> Row {
    Row {
        phase: Phase::Connect,
        config: TO_BACKEND,
        scheme: "https",
        backend: vec![backend],
        client: acts([get_in_two_parts(), vec![Act::Refused(502, "tls_failure")]]),
        expect: refused(
            "GET",
            "502",
            ("tls_failure", "network", "tls"),
            vec![seen],
            &[Series::Handshake("backend", reason)],
        ),
        ..Row::default()
    }
}

/// A request and what the backend makes of it inside TLS.
fn inside(how: Tls, steps: Vec<Do>, client: Vec<Act>, expect: Expect) -> Row {
    let mut script = vec![Do::TlsAccept(how)];
    script.extend(steps);
    Row {
        phase: Phase::Body,
        config: TO_BACKEND,
        scheme: "https",
        backend: vec![script],
        client: acts([vec![get()], client]),
        expect,
        ..Row::default()
    }
}

/// A client that comes by TLS, or with a header, as far as that.
fn coming(front: Front, config: &'static str, acts_of_client: Vec<Act>) -> Row {
    Row { phase: Phase::Head, config, front, client: acts_of_client, ..Row::default() }
}

/// What is no PROXY header.
fn no_header(text: &str) -> Row {
    Row {
        expect: refused("_OTHER", "400", ("bad_request", "client", "head"), vec![], &[]),
        ..coming(
            Front::ProxyHeader,
            WITH_HEADER,
            vec![say(text), Act::Refused(400, "bad_request"), Act::Middle, Act::End],
        )
    }
}

matrix! {
    // --- to the backend ---

    a_backend_with_a_certificate_that_nobody_trusts => no_tls(
        vec![Do::TlsAccept(Tls::Stranger), Do::WaitEnd],
        "bad_certificate",
        "; let go",
    ),
    a_backend_that_speaks_plain_http_on_the_port_of_tls => no_tls(vec![send(NO_TLS), Do::WaitEnd], "protocol", "; let go"),
    a_backend_that_closes_in_the_handshake => no_tls(vec![Do::Close], "closed", "; ended"),
    a_backend_that_resets_in_the_handshake => no_tls(vec![Do::Reset], "closed", "; ended"),

    a_backend_that_stalls_in_the_handshake => Row {
        phase: Phase::Connect,
        config: TO_BACKEND_SOON,
        scheme: "https",
        backend: vec![vec![Do::WaitEnd]],
        client: acts([get_in_two_parts(), vec![Act::Refused(504, "connect_timeout")]]),
        expect: refused(
            "GET",
            "504",
            ("connect_timeout", "backend", "tls"),
            vec!["; let go"],
            &[Series::Handshake("backend", "timeout")],
        ),
        ..Row::default()
    },

    a_client_that_leaves_while_the_backend_stalls_in_the_handshake => Row {
        phase: Phase::Connect,
        config: TO_BACKEND,
        scheme: "https",
        backend: vec![vec![Do::Mark("begun"), Do::WaitEnd]],
        client: vec![get(), Act::Wait("begun"), Act::Middle, Act::Leave],
        expect: aborted("GET", "", "before_head", vec!["; let go"], &[]),
        ..Row::default()
    },

    an_answer_over_tls => inside(
        Tls::Right,
        vec![Do::Read, Do::Middle, send(ONE), Do::Serve],
        vec![Act::Head(200), Act::Whole("one")],
        answered("GET", "200", vec!["GET / whole; kept"], KEPT),
    ),
    an_answer_without_length_that_ends_well_over_tls => inside(
        Tls::Right,
        vec![Do::Read, send(OPEN), Do::Middle, Do::Close],
        vec![Act::Head(200), Act::Whole("all of it, or not?")],
        answered("GET", "200", vec!["GET / whole; ended"], ENDED),
    ),
    an_answer_without_length_that_ends_without_a_closure_alert => inside(
        Tls::WithoutGoodbye,
        vec![Do::Read, send(OPEN), Do::Middle, Do::Close],
        vec![Act::Head(200), Act::Cut("all of it, or not?")],
        cut("reset_after_head", vec!["GET / whole; ended"]),
    ),
    an_answer_with_length_that_is_cut_over_tls => inside(
        Tls::Right,
        vec![Do::Read, send(HALF), Do::Middle, Do::Close],
        vec![Act::Head(200), Act::Cut("half!")],
        cut("reset_after_head", vec!["GET / whole; ended"]),
    ),
    an_answer_that_is_reset_under_tls => inside(
        Tls::Right,
        vec![Do::Read, send(HALF), Do::Wait("seen"), Do::Reset],
        vec![Act::Head(200), Act::Take("half!"), Act::Middle, Act::Mark("seen"), Act::Cut("")],
        cut("reset_after_head", vec!["GET / whole; ended"]),
    ),
    a_client_that_leaves_in_the_body_over_tls_to_the_backend => inside(
        Tls::Right,
        vec![Do::Read, send(HALF), Do::WaitEnd],
        vec![Act::Head(200), Act::Take("half!"), Act::Middle, Act::Leave],
        aborted("GET", "200", "during_body", vec!["GET / whole; let go"], LOST),
    ),

    // --- from clients ---

    a_client_that_leaves_in_the_handshake => Row {
        expect: Expect { moved: vec![Series::Handshake("client", "closed")], ..Expect::default() },
        ..coming(
            Front::Tls,
            TO_CLIENTS,
            vec![Act::Send(HELLO.to_vec()), accepted(), Act::Middle, Act::Leave],
        )
    },
    a_client_that_resets_in_the_handshake => Row {
        expect: Expect { moved: vec![Series::Handshake("client", "closed")], ..Expect::default() },
        ..coming(
            Front::Tls,
            TO_CLIENTS,
            vec![Act::Send(HELLO.to_vec()), accepted(), Act::Middle, Act::Reset],
        )
    },
    a_client_that_leaves_before_the_handshake => coming(
        Front::Tls,
        TO_CLIENTS,
        vec![accepted(), Act::Middle, Act::Leave],
    ),
    a_request_over_tls => Row {
        expect: answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        ..coming(
            Front::Tls,
            TO_CLIENTS,
            acts([vec![Act::TlsBegin], get_in_two_parts(), vec![Act::Head(200), Act::Whole("good")]]),
        )
    },
    a_client_that_leaves_before_the_head_over_tls => Row {
        phase: Phase::Wait,
        backend: vec![vec![Do::Read, Do::Mark("asked"), Do::WaitEnd]],
        expect: aborted("GET", "", "before_head", vec!["GET / whole; let go"], LOST),
        ..coming(Front::Tls, TO_CLIENTS, vec![Act::TlsBegin, get(), Act::Wait("asked"), Act::Middle, Act::Leave])
    },
    a_client_that_leaves_in_the_body_over_tls => Row {
        phase: Phase::Body,
        backend: vec![vec![Do::Read, send(HALF), Do::WaitEnd]],
        expect: aborted("GET", "200", "during_body", vec!["GET / whole; let go"], LOST),
        ..coming(
            Front::Tls,
            TO_CLIENTS,
            vec![Act::TlsBegin, get(), Act::Head(200), Act::Take("half!"), Act::Middle, Act::Leave],
        )
    },
    a_client_that_resets_in_the_body_over_tls => Row {
        phase: Phase::Body,
        backend: vec![vec![Do::Read, send(HALF), Do::WaitEnd]],
        expect: aborted("GET", "200", "during_body", vec!["GET / whole; let go"], LOST),
        ..coming(
            Front::Tls,
            TO_CLIENTS,
            vec![Act::TlsBegin, get(), Act::Head(200), Act::Take("half!"), Act::Middle, Act::Reset],
        )
    },
    a_client_that_leaves_in_its_upload_over_tls => Row {
        phase: Phase::Send,
        backend: vec![vec![Do::ReadHead, Do::ReadBytes("begin"), Do::Mark("begun"), Do::WaitEnd]],
        expect: aborted("POST", "", "before_head", vec!["POST / unread; let go"], LOST),
        ..coming(
            Front::Tls,
            TO_CLIENTS,
            vec![Act::TlsBegin, post(10, "begin"), Act::Wait("begun"), Act::Middle, Act::Leave],
        )
    },
    an_answer_that_is_cut_for_a_client_of_tls => Row {
        phase: Phase::Body,
        backend: vec![vec![Do::Read, send(HALF), Do::Middle, Do::Close]],
        expect: cut("reset_after_head", vec!["GET / whole; ended"]),
        ..coming(Front::Tls, TO_CLIENTS, vec![Act::TlsBegin, get(), Act::Head(200), Act::Cut("half!")])
    },

    // --- the PROXY protocol ---

    a_request_behind_a_proxy_header => Row {
        expect: answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        ..coming(
            Front::ProxyHeader,
            WITH_HEADER,
            acts([Front::ProxyHeader.begin(), get_in_two_parts(), vec![Act::Head(200), Act::Whole("good")]]),
        )
    },
    a_request_without_a_proxy_header => no_header("GET / HTTP/1.1\r\nHost: test\r\n\r\n"),
    a_proxy_header_that_is_garbage => no_header("PROXY TCP4 not an address\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n"),
    a_proxy_header_of_version_2_that_is_garbage => no_header("\r\n\r\n\0\r\nQUIT\n\x7f\x7f\0\0"),
    a_proxy_header_that_does_not_end => Row {
        expect: refused("_OTHER", "408", ("client_timeout", "client", "head"), vec![], &[]),
        ..coming(
            Front::ProxyHeader,
            WITH_HEADER_SOON,
            vec![say("PROXY TCP4 192.0.2.7 "), Act::Refused(408, "client_timeout"), Act::Middle, Act::End],
        )
    },
    a_client_that_leaves_in_its_proxy_header => coming(
        Front::ProxyHeader,
        WITH_HEADER,
        vec![say("PROXY TCP4 192.0.2.7 "), accepted(), Act::Middle, Act::Leave],
    ),
}
