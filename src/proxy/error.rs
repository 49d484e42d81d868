//! What can go wrong with a request, and the one place where that becomes an answer.

use std::io;

use crate::labels::{Failure, Phase};

/// Why an exchange did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The client left. Nobody is there to be answered.
    ClientLeft,
    /// Something failed there.
    Failed(Failure, Phase),
}

impl Trouble {
    /// What failed; a client that left is no failure.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Trouble::ClientLeft => None,
            Trouble::Failed(failure, _) => Some(*failure),
        }
    }
}

/// Why a wait ended before what was waited for came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The client left.
    ClientLeft,
    /// The armed deadline fired.
    Deadline,
    /// The drain deadline fired: everything is cut.
    Cut,
}

impl Stop {
    /// The trouble that this is, given what the deadline stood for.
    #[must_use]
    pub fn or_deadline(self, failure: Failure, phase: Phase) -> Trouble {
        match self {
            Stop::ClientLeft => Trouble::ClientLeft,
            Stop::Deadline => Trouble::Failed(failure, phase),
            Stop::Cut => Trouble::Failed(Failure::DrainDeadline, phase),
        }
    }
}

/// What a failed connect is called.
#[must_use]
pub fn connect_failure(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT) => Failure::ConnectTimeout,
        Some(libc::ECONNRESET) => Failure::ConnectReset,
        // No descriptor or no port left: the sidecar is full, not the backend broken.
        Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM) => Failure::NoCapacity,
        // Refused, or unreachable, which is a refusal by the network.
        _ => Failure::ConnectRefused,
    }
}

/// An answer that the sidecar makes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 4xx or 5xx.
    pub status: u16,
    /// The error type of RFC 9209, section 2.3.
    pub proxy_status: &'static str,
    /// Our own word for it.
    pub failure: Failure,
    /// A sentence for the person who reads the body.
    pub why: &'static str,
}

impl Answer {
    /// The answer to a failure, or `None` when the connection is cut instead.
    #[must_use]
    pub fn to(failure: Failure) -> Option<Answer> {
        let (status, proxy_status, why) = match failure {
            Failure::ConnectRefused => (502, "connection_refused", "the backend refused the connection"),
            Failure::ConnectTimeout => (504, "connection_timeout", "the backend did not accept the connection in time"),
            Failure::ConnectReset => (502, "connection_terminated", "the backend reset the connection"),
            Failure::DnsFailure => (502, "dns_error", "the name of the backend could not be resolved"),
            Failure::TlsFailure => (502, "tls_protocol_error", "the TLS handshake with the backend failed"),
            Failure::NoCapacity => (503, "connection_limit_reached", "too many requests are waiting for the backend"),
            Failure::QueueTimeout => {
                (503, "connection_limit_reached", "no connection to the backend became free in time")
            }
            Failure::Shed => (503, "connection_limit_reached", "too many requests are in flight"),
            Failure::HeadTimeout => (504, "http_response_timeout", "the backend did not answer in time"),
            Failure::ResetBeforeHead => {
                (502, "connection_terminated", "the backend closed the connection before it answered")
            }
            Failure::ProtocolError => (502, "http_protocol_error", "the backend's answer is not valid HTTP"),
            Failure::ResponseTooLarge => {
                (502, "http_response_header_section_size", "the head of the backend's answer is too large")
            }
            Failure::RequestTooLarge => (413, "http_request_error", "the request body is too large"),
            Failure::BadRequest => (400, "http_request_error", "the request is malformed"),
            Failure::HeaderLimit => (431, "http_request_error", "the request head is too large"),
            Failure::ClientTimeout => (408, "http_request_error", "the request did not arrive in time"),
            Failure::Internal => (500, "proxy_internal_error", "the sidecar failed"),
            Failure::BodyTimeout | Failure::ResetAfterHead | Failure::DrainDeadline => return None,
        };
        Some(Answer { status, proxy_status, failure, why })
    }

    /// The value of `Proxy-Status`.
    #[must_use]
    pub fn proxy_status(&self) -> String {
        format!("golden-sidecar; error={}; details=\"{}\"", self.proxy_status, self.failure.as_str())
    }

    /// The body, one line, and its media type.
    #[must_use]
    pub fn body(&self, json: bool) -> (String, &'static str) {
        let Answer { status, failure, why, .. } = self;
        let error = failure.as_str();
        if json {
            // No value needs escaping: all are literals of this file.
            (format!("{{\"status\":{status},\"error\":\"{error}\",\"message\":\"{why}\"}}\n"), "application/json")
        } else {
            (format!("{status} {error}: {why}\n"), "text/plain; charset=utf-8")
        }
    }

    /// The whole answer for an HTTP/1.x client.
    #[must_use]
    pub fn to_bytes(&self, json: bool, to_head: bool, keep_alive: bool, http10: bool) -> Vec<u8> {
        let (body, media) = self.body(json);
        let reason = http::StatusCode::from_u16(self.status).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
        let connection = connection(keep_alive, http10);
        let more = match (self.failure, self.status) {
            (Failure::Shed, _) => "Retry-After: 1\r\n",
            (_, 405) => "Allow: OPTIONS\r\n",
            _ => "",
        };
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        let mut out = format!(
            "HTTP/1.1 {} {reason}\r\nDate: {date}\r\nProxy-Status: {}\r\nContent-Type: {media}\r\n\
             Content-Length: {}\r\n{more}{connection}\r\n",
            self.status,
            self.proxy_status(),
            body.len(),
        );
        if !to_head {
            out.push_str(&body);
        }
        out.into_bytes()
    }
}

/// The field that tells an HTTP/1.x client whether its connection stays.
fn connection(keep_alive: bool, http10: bool) -> &'static str {
    match (keep_alive, http10) {
        (false, _) => "Connection: close\r\n",
        (true, true) => "Connection: keep-alive\r\n",
        (true, false) => "",
    }
}

/// The answer to an OPTIONS that may go no further (RFC 9110, sections 7.6.2 and 9.3.7): somebody is here. What the backend
/// can do is for the backend to say.
#[must_use]
pub fn end_of_the_way(keep_alive: bool, http10: bool) -> Vec<u8> {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let connection = connection(keep_alive, http10);
    format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n{connection}\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_the_status_of_the_catalogue() {
        let table = [
            (Failure::ConnectRefused, 502),
            (Failure::ConnectReset, 502),
            (Failure::ResetBeforeHead, 502),
            (Failure::ProtocolError, 502),
            (Failure::ResponseTooLarge, 502),
            (Failure::ConnectTimeout, 504),
            (Failure::HeadTimeout, 504),
            (Failure::DnsFailure, 502),
            (Failure::TlsFailure, 502),
            (Failure::NoCapacity, 503),
            (Failure::QueueTimeout, 503),
            (Failure::Shed, 503),
            (Failure::BadRequest, 400),
            (Failure::HeaderLimit, 431),
            (Failure::RequestTooLarge, 413),
            (Failure::ClientTimeout, 408),
            (Failure::Internal, 500),
        ];
        for (failure, status) in table {
            assert_eq!(Answer::to(failure).unwrap().status, status);
        }
        let cut = Failure::ALL.iter().filter(|f| Answer::to(**f).is_none()).count();
        assert_eq!(table.len() + cut, Failure::COUNT);
    }
}
