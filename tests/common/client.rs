//! A client that sends exactly the bytes it is told to.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;
use super::wire::{Body, End, Framing, Head, Wire};

/// A connection to the sidecar.
#[derive(Debug)]
pub struct Client {
    /// The socket.
    pub wire: Wire,
}

/// A response as the client saw it.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status line and fields.
    pub head: Head,
    /// Content and trailers.
    pub body: Body,
    /// How it was delimited.
    pub framing: Framing,
}

impl Response {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The content as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.content).into_owned()
    }
}

/// The error types of RFC 9209, section 2.3, that a proxy may name.
const PROXY_STATUS_TYPES: [&str; 30] = [
    "dns_timeout",
    "dns_error",
    "destination_not_found",
    "destination_unavailable",
    "destination_ip_prohibited",
    "destination_ip_unroutable",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_read_timeout",
    "connection_write_timeout",
    "connection_limit_reached",
    "tls_protocol_error",
    "tls_certificate_error",
    "tls_alert_received",
    "http_request_error",
    "http_request_denied",
    "http_response_incomplete",
    "http_response_header_section_size",
    "http_response_header_size",
    "http_response_body_size",
    "http_response_trailer_section_size",
    "http_response_trailer_size",
    "http_response_transfer_coding",
    "http_response_content_coding",
    "http_response_timeout",
    "http_upgrade_failed",
    "http_protocol_error",
    "proxy_internal_response",
    "proxy_internal_error",
];

impl Response {
    /// Checks the form of an answer that the sidecar made itself: `Proxy-Status` with a registered error and our word,
    /// and one line of text. Gives the registered error.
    pub fn proxy_made(&self, word: &str) -> Result<String, String> {
        let field = self.head.list("proxy-status");
        let mut parts = field.split(';').map(str::trim);
        if parts.next() != Some("golden-sidecar") {
            return Err(format!("Proxy-Status is {field:?}"));
        }
        let parts: Vec<_> = parts.collect();
        let error = parts.iter().find_map(|part| part.strip_prefix("error=")).unwrap_or("");
        if !PROXY_STATUS_TYPES.contains(&error)
            && error != "proxy_configuration_error"
            && error != "proxy_loop_detected"
        {
            return Err(format!("{error:?} is no error type of RFC 9209: {field:?}"));
        }
        if !parts.contains(&format!("details=\"{word}\"").as_str()) {
            return Err(format!("Proxy-Status lacks details=\"{word}\": {field:?}"));
        }
        let text = self.text();
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.is_empty() || line.contains(['\r', '\n']) || !self.body.complete {
            return Err(format!("the body is not one line: {text:?}"));
        }
        Ok(error.to_owned())
    }
}

impl Client {
    /// Connects.
    #[must_use]
    #[track_caller]
    pub fn to(address: SocketAddr) -> Client {
        Client::try_to(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// Connects, or says why not.
    pub fn try_to(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        Ok(Client { wire: Wire::new(stream, PATIENCE) })
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.wire.stream.write_all(bytes.as_ref()).expect("send");
        self
    }

    /// Sends bytes; the sidecar may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.stream.write_all(bytes.as_ref())
    }

    /// The next head, 1xx included.
    #[track_caller]
    pub fn read_head(&mut self) -> Head {
        self.wire.read_head().expect("a response head").expect("a response, but the connection was closed")
    }

    /// The framing of a response to `method`, by RFC 9112, section 6.3.
    #[must_use]
    pub fn framing(method: &str, head: &Head) -> Framing {
        let status = head.status();
        if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
            return Framing::None;
        }
        if head.has("transfer-encoding") {
            assert!(!head.has("content-length"), "Content-Length beside Transfer-Encoding: {:?}", head.fields);
            assert_eq!(head.list("transfer-encoding").to_ascii_lowercase(), "chunked");
            return Framing::Chunked;
        }
        match head.one("content-length") {
            Some(length) => Framing::Length(length.parse().expect("a number")),
            None => Framing::Close,
        }
    }

    /// The body that belongs to this head.
    #[track_caller]
    pub fn read_body(&mut self, method: &str, head: Head) -> Response {
        let framing = Client::framing(method, &head);
        let body = self.wire.read_body(framing).expect("a response body");
        Response { head, body, framing }
    }

    /// The next message, head and body; a 1xx is a message of its own.
    #[track_caller]
    pub fn read_response(&mut self, method: &str) -> Response {
        let head = self.read_head();
        self.read_body(method, head)
    }

    /// Sends a request and reads the answer; the method is taken from the first word.
    #[track_caller]
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> Response {
        let request = request.as_ref();
        let end = request.iter().position(|b| *b == b' ').unwrap_or(0);
        let method = String::from_utf8_lossy(&request[..end]).into_owned();
        self.send(request);
        self.read_response(&method)
    }

    /// `GET path` on this connection.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// Expects the sidecar to close, having sent nothing more.
    #[track_caller]
    pub fn expect_end(&mut self) -> End {
        assert!(self.wire.buffer.is_empty(), "unread: {:?}", String::from_utf8_lossy(&self.wire.buffer));
        match self.wire.fill() {
            Ok(0) => End::Closed,
            Ok(_) => panic!("more came: {:?}", String::from_utf8_lossy(&self.wire.buffer)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => End::Reset,
            Err(error) => panic!("the connection stays open: {error}"),
        }
    }

    /// Ends our side, keeps reading.
    pub fn half_close(&self) {
        self.wire.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Leaves with RST.
    pub fn reset(self) {
        self.wire.reset();
    }

    /// Bytes that come within `window`, left in the buffer.
    pub fn peek_for(&mut self, window: Duration) -> Vec<u8> {
        self.wire.peek_for(window)
    }
}
