//! Whatever a client writes into its request, it stays one record a line in the log, and no label of the metrics page.

use crate::common::{Backend, Sidecar, ok, wait_until};
use crate::request::{Protocol, Request};
use crate::{message, seed};

/// Parts of requests that would be worth something to whoever could write them into a log or a page.
const FORGERIES: [&str; 14] = [
    "\"}evil{a=\"",
    "a\"}%20evil_total%201",
    "%22%7D%0Aevil_total%201",
    "%0d%0a%7B%22event%22:%22evil%22%7D",
    "%1b%5b31mevil",
    "%00evil",
    "\\nevil_total\\x201",
    "{\"event\":\"evil\",\"level\":\"ERROR\"}",
    "evil\u{2028}{\"event\":\"evil\"}",
    "evil\u{202e}\u{85}\u{9b}31m",
    "#%23evil",
    "${jndi:ldap://evil}",
    "{{evil}}",
    "<script>evil</script>",
];

/// The same as bytes that no head may have; the answer is a 400.
const ILLEGAL: [&[u8]; 5] = [b"evil\x1b[31m", b"evil\x00", b"evil\x07", b"evil\x7f", b"evil\rX: y"];

#[test]
fn nothing_of_a_request_shows_raw_in_a_log_line_or_a_label() {
    // The page is learned from answers that are fine, and all that anybody could want to log is logged.
    let backend = Backend::answering(|request| match request.head.method() {
        "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok("ok"),
    });
    let sidecar = Sidecar::before(&backend).learning().env("RUST_LOG", "debug").start();
    let mut sent = 0;
    let mut send = |bytes: Vec<u8>| {
        sidecar.exchange(&bytes);
        sent += 1;
    };
    for forgery in FORGERIES {
        // Often enough to be learned, were it a route.
        for turn in 0..20 {
            send(format!("GET /shop/{forgery}/{turn} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes());
            send(format!("GET /shop/items?q={forgery} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes());
        }
        send(
            format!(
                "EVIL{} /x HTTP/1.1\r\nHost: test\r\nUser-Agent: {forgery}\r\nReferer: {forgery}\r\nCookie: {forgery}\r\n\
                 traceparent: {forgery}\r\nX-Forwarded-For: {forgery}\r\nContent-Type: {forgery}\r\n\r\n",
                "!#$%&'*+-.^_`|~"
            )
            .into_bytes(),
        );
        send(format!("GET /x HTTP/1.1\r\nHost: {forgery}\r\n\r\n").into_bytes());
        send(format!("GET http://{forgery}/x HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes());
    }
    for bytes in ILLEGAL {
        send([b"GET /".as_slice(), bytes, b" HTTP/1.1\r\nHost: test\r\n\r\n"].concat());
        send([b"GET / HTTP/1.1\r\nHost: test\r\nUser-Agent: ", bytes, b"\r\n\r\n"].concat());
        send([bytes, b" / HTTP/1.1\r\nHost: test\r\n\r\n"].concat());
    }
    for case in 0..300 {
        let request = Request::new(seed(), case, Protocol::Http1);
        if request.waits_for_continue {
            continue;
        }
        send([request.head(), request.content.framed()].concat());
    }

    let page = sidecar.settled(sent);
    for sample in &page.samples {
        for (label, value) in &sample.labels {
            let ordinary = value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\<>".contains(&byte));
            assert!(ordinary && !value.contains("evil"), "{label}={value:?} in {}", sample.name);
        }
    }

    // A line that is no text would end the reader: this one comes last.
    sidecar.signal(libc::SIGHUP);
    wait_until("the reload is in the log", || sidecar.logged("reload"));
    let log = sidecar.log();
    assert!(log.len() > 2, "{log:?}");
    for line in &log {
        let record: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {}", message::shown(line.as_bytes())));
        assert!(record.is_object() && record.get("level").is_some(), "not a record: {line}");
        let raw = line.chars().find(|c| c.is_control() || ('\u{2028}'..='\u{202e}').contains(c));
        assert_eq!(raw, None, "raw in {}", message::shown(line.as_bytes()));
        let fields = record.get("fields").unwrap_or(&record);
        assert_ne!(fields.get("event").and_then(serde_json::Value::as_str), Some("evil"), "forged: {line}");
    }
}
