//! Who is let in: first the host that was asked for, against DNS rebinding, then the credentials. What is asked for is
//! looked at only afterwards, so that a stranger does not learn what there is.
//!
//! Source: RFC 9110, sections 7.4 (misdirected requests), 11.6 (authentication) and 15.5.20 (421); RFC 9112, section 3.2
//! (`Host`); RFC 6750 and RFC 7617 (the schemes).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, StatusCode};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{AdminHost, Secret};
use crate::labels::Refusal;

/// Refused requests come at the pace of whoever asks; one line in so many seconds says what a thousand would.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What has to be shown. Nothing: everybody may read.
#[derive(Clone, Default)]
pub struct Credentials {
    /// What may follow each scheme's name in `Authorization`.
    bearer: Option<String>,
    basic: Option<String>,
}

/// What the port asks for, from the configuration. Replaced as a whole by a reload.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    /// Who may read.
    pub credentials: Credentials,
    /// The hosts that may be asked for; empty: any.
    pub hosts: Vec<AdminHost>,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The address that the peer connected to.
    pub local: SocketAddr,
    /// The peer.
    pub peer: SocketAddr,
}

/// Lets requests in or not, and tells whoever counts.
pub struct Guard {
    protection: watch::Receiver<Protection>,
    refused: Box<dyn Fn(Refusal) + Send + Sync>,
    log: Pace,
}

/// Why a request is not let in, as its answer needs it.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub status: StatusCode,
    pub sentence: &'static str,
    pub challenges: Vec<HeaderValue>,
    reason: Refusal,
}

// === impl Credentials ===

impl Credentials {
    /// What opens the port: a bearer token, or a name with its password, whichever comes.
    #[must_use]
    pub fn new(token: Option<&Secret>, basic: Option<(&str, &Secret)>) -> Credentials {
        Credentials {
            bearer: token.map(|token| token.reveal().to_owned()),
            // Both sides encode alike (RFC 7617 asks for padding), so nothing has to be decoded to compare.
            basic: basic.map(|(name, password)| base64(format!("{name}:{}", password.reveal()).as_bytes())),
        }
    }

    /// The value of `Authorization` that opens a port with these; `None`: it is open.
    #[must_use]
    pub fn authorization(&self) -> Option<String> {
        let bearer = self.bearer.as_ref().map(|token| format!("Bearer {token}"));
        bearer.or_else(|| self.basic.as_ref().map(|basic| format!("Basic {basic}")))
    }

    /// Whether nothing has to be shown.
    fn is_open(&self) -> bool {
        self.bearer.is_none() && self.basic.is_none()
    }

    /// Whether this value of `Authorization` opens the port. How long it takes tells nothing but lengths.
    fn open_to(&self, authorization: &[u8]) -> bool {
        let space = authorization.iter().position(|byte| *byte == b' ').unwrap_or(authorization.len());
        let (scheme, told) = authorization.split_at(space);
        let told = told.trim_ascii_start();
        let shown =
            |wanted: &Option<String>| wanted.as_ref().is_some_and(|wanted| bool::from(wanted.as_bytes().ct_eq(told)));
        (scheme.eq_ignore_ascii_case(b"bearer") && shown(&self.bearer))
            || (scheme.eq_ignore_ascii_case(b"basic") && shown(&self.basic))
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        let bearer = self.bearer.as_ref().map(|_| "Bearer realm=\"golden-sidecar\"");
        let basic = self.basic.as_ref().map(|_| "Basic realm=\"golden-sidecar\", charset=\"UTF-8\"");
        bearer.into_iter().chain(basic).map(HeaderValue::from_static).collect()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Credentials(bearer: {}, basic: {})", self.bearer.is_some(), self.basic.is_some())
    }
}

// === impl Guard ===

impl Guard {
    /// Guards what `protection` asks for at that moment; `refused` is called for each request that is not let in.
    pub fn new(protection: watch::Receiver<Protection>, refused: impl Fn(Refusal) + Send + Sync + 'static) -> Guard {
        Guard { protection, refused: Box::new(refused), log: Pace::default() }
    }

    /// Whether there is nothing to check.
    pub(super) fn is_open(&self) -> bool {
        let protection = self.protection.borrow();
        protection.hosts.is_empty() && protection.credentials.is_open()
    }

    /// Whether a request is let in. Tells nobody: see [`Guard::tell`].
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admit(&self, request: &Parts, ends: Ends) -> Result<(), Refused> {
        let Protection { credentials, hosts } = &*self.protection.borrow();
        let misdirected =
            |status, sentence| Refused { status, sentence, challenges: Vec::new(), reason: Refusal::Host };
        if !hosts.is_empty() {
            match asked_for(request) {
                None => return Err(misdirected(StatusCode::BAD_REQUEST, "one Host field is needed\n")),
                Some(asked) if asked.iter().all(|host| answers_to(hosts, host, ends.local.ip())) => {}
                Some(_) => {
                    let sentence = "this port does not answer to that host; admin_hosts says to which\n";
                    return Err(misdirected(StatusCode::MISDIRECTED_REQUEST, sentence));
                }
            }
        }
        let mut told = request.headers.get_all(AUTHORIZATION).iter();
        let shown = match (told.next(), told.next()) {
            (Some(value), None) => credentials.open_to(value.as_bytes()),
            // Several may be read one way here and another way elsewhere.
            _ => false,
        };
        if credentials.is_open() || shown {
            return Ok(());
        }
        Err(Refused {
            status: StatusCode::UNAUTHORIZED,
            sentence: "credentials are needed; admin_auth says which\n",
            challenges: credentials.challenges(),
            reason: Refusal::Credentials,
        })
    }

    /// Counts a refusal and logs it, unless another one was logged just now. Nothing of the request is in the line.
    pub(super) fn tell(&self, refused: &Refused, ends: Ends) {
        (self.refused)(refused.reason);
        if let Some(unlogged) = self.log.take() {
            let (reason, peer) = (refused.reason.as_str(), ends.peer.ip());
            tracing::warn!(event = "admin_request_refused", reason, %peer, unlogged);
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Guard").field("protection", &self.protection).finish_non_exhaustive()
    }
}

/// The hosts that a request asks for: that of an absolute target, and that of its one `Host`. `None`: none, or one that
/// is no host, or several fields.
fn asked_for(request: &Parts) -> Option<Vec<AdminHost>> {
    let mut fields = request.headers.get_all(HOST).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let field: Authority = field.to_str().ok()?.parse().ok()?;
    [Some(&field), request.uri.authority()].into_iter().flatten().map(host_of).collect()
}

/// User information has no place here, and might be taken for the host by somebody.
fn host_of(authority: &Authority) -> Option<AdminHost> {
    if authority.as_str().contains('@') { None } else { AdminHost::parse(authority.host()) }
}

fn answers_to(hosts: &[AdminHost], asked: &AdminHost, local: IpAddr) -> bool {
    hosts.iter().any(|host| match host {
        AdminHost::OwnAddress => *asked == AdminHost::Address(local.to_canonical()),
        host => host == asked,
    })
}

/// RFC 4648, section 4. By hand: ten lines are less than a dependency.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if digit > group.len() { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    text
}

// === impl Pace ===

/// How often something is logged.
#[derive(Debug)]
pub(super) struct Pace {
    started: Instant,
    /// When the next line may be written, in milliseconds since then.
    next: AtomicU64,
    unlogged: AtomicU64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { started: Instant::now(), next: AtomicU64::new(0), unlogged: AtomicU64::new(0) }
    }
}

impl Pace {
    /// Whether this one is to be logged, and how many were not since the last one.
    pub(super) fn take(&self) -> Option<u64> {
        let now = self.started.elapsed().as_millis() as u64;
        if now < self.next.load(Relaxed) {
            self.unlogged.fetch_add(1, Relaxed);
            return None;
        }
        self.next.store(now + LOG_INTERVAL.as_millis() as u64, Relaxed);
        Some(self.unlogged.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Purpose;

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648, section 10, and RFC 7617, section 2.
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
            ("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("test:123\u{a3}", "dGVzdDoxMjPCow=="),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn credentials_show_no_secret_and_open_to_nothing_else() {
        let token = Secret::new("0123456789abcdef", Purpose::Token).unwrap();
        let password = Secret::new("hunter2", Purpose::Password).unwrap();
        let credentials = Credentials::new(Some(&token), Some(("me", &password)));
        assert_eq!(format!("{credentials:?}"), "Credentials(bearer: true, basic: true)");
        for right in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef", "BASIC bWU6aHVudGVyMg=="] {
            assert!(credentials.open_to(right.as_bytes()), "{right}");
        }
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "0123456789abcdef",
            "Bearer 0123456789abcdeg",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
            "Bearer bWU6aHVudGVyMg==",
            "Basic bWU6aHVudGVyMg",
            "Bearer0123456789abcdef",
        ] {
            assert!(!credentials.open_to(wrong.as_bytes()), "{wrong}");
        }
        assert!(!Credentials::default().open_to(b"Bearer "));
    }
}
