//! The backend's side of a scenario: plays its scripts and keeps a log of what it saw.

use std::sync::{Arc, Mutex};

use crate::common::frames::{self, kind};
use crate::common::wire::Wire;
use crate::common::{Head, PATIENCE, Peer, ok};
use crate::row::Do;
use crate::stage::Stage;
use crate::tls::{Certificates, Tls};

/// What a well-served request is answered with.
pub const GOOD: &str = "good";

/// Somebody may wait for this: the script of a backend connection has ended.
pub const ENDED: &str = "a backend connection has ended";

/// What the backend saw of each connection, in the order of their first bytes.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Seen>>>);

#[derive(Clone)]
struct Seen {
    requests: Vec<String>,
    end: &'static str,
}

impl Log {
    /// One line for each connection.
    pub fn lines(&self) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        seen.iter().map(|Seen { requests, end }| format!("{}; {end}", requests.join(", "))).collect()
    }

    fn with(&self, connection: usize, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.0.lock().unwrap();
        if seen.len() <= connection {
            seen.resize(connection + 1, Seen { requests: Vec::new(), end: "kept" });
        }
        change(&mut seen[connection]);
    }

    fn request(&self, connection: usize, text: String) {
        self.with(connection, |seen| seen.requests.push(text));
    }

    /// The request that was noted last became this.
    fn became(&self, connection: usize, text: String) {
        self.with(connection, |seen| *seen.requests.last_mut().expect("a request was noted") = text);
    }

    fn end(&self, connection: usize, end: &'static str) {
        self.with(connection, |seen| seen.end = end);
    }
}

/// Why a script goes no further: the sidecar ended the connection.
struct LetGo;

/// A backend: what it says to whom.
#[derive(Clone)]
pub struct Server {
    /// `http`, `https` or `h2c`: how connections without a script are served.
    pub scheme: &'static str,
    /// What it shows, if there is TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// Where it meets the others.
    pub stage: Stage,
    /// What it saw.
    pub log: Log,
}

impl Server {
    /// The script of each connection; connections without one are served well.
    pub fn script(&self, scripts: Vec<Vec<Do>>) -> impl Fn(&mut Peer) + Send + Sync + 'static {
        let server = self.clone();
        let serve = match self.scheme {
            "h2c" => vec![Do::H2Accept(frames::settings(&[])), Do::H2Serve],
            "https" => vec![Do::TlsAccept(Tls::Right), Do::Serve],
            _ => vec![Do::Serve],
        };
        move |peer| {
            let Server { stage, log, certificates, .. } = &server;
            let _presence = stage.enter();
            let steps = scripts.get(peer.index).unwrap_or(&serve);
            log.with(peer.index, |_| {});
            let end = if play(steps, peer, stage, log, certificates.as_deref()).is_ok() { "ended" } else { "let go" };
            log.end(peer.index, end);
            stage.mark(ENDED);
        }
    }
}

fn play(
    steps: &[Do],
    peer: &mut Peer,
    stage: &Stage,
    log: &Log,
    certificates: Option<&Certificates>,
) -> Result<(), LetGo> {
    let mut head = None;
    for step in steps {
        match step {
            Do::Read => {
                let read = read_head(peer, log)?;
                read_body(peer, read, log)?;
            }
            Do::ReadHead => head = Some(read_head(peer, log)?),
            Do::ReadBytes(text) => {
                let bytes = peer.wire.read_exact(text.len()).map_err(|_gone| LetGo)?;
                assert_eq!(String::from_utf8_lossy(&bytes), *text, "what the backend got");
            }
            Do::ReadCount(count) => drop(peer.wire.read_exact(*count).map_err(|_gone| LetGo)?),
            Do::ReadBody => read_body(peer, head.take().expect("a head was read"), log)?,
            Do::Send(bytes) => {
                // One that does not take it all is one that ends; what the script does next tells.
                peer.send(bytes);
            }
            Do::Push(block) => {
                while peer.send(block) {}
                return Err(LetGo);
            }
            Do::TlsAccept(how) => {
                let certificates = certificates.expect("the scheme is https");
                let socket = peer.wire.stream.try_clone().expect("clone");
                peer.wire = Wire::new(certificates.accept(socket, *how), PATIENCE * 3);
            }
            Do::H2Accept(settings) => {
                let preface = peer.wire.read_exact(frames::PREFACE.len()).map_err(|_gone| LetGo)?;
                assert_eq!(preface, frames::PREFACE, "no HTTP/2");
                peer.send(settings);
            }
            Do::H2ReadHead => drop(h2_head(peer, log)?),
            Do::H2Read => {
                let stream = h2_head(peer, log)?;
                h2_rest(peer, stream, log)?;
            }
            Do::H2Reset => loop {
                let frame = h2_next(peer)?;
                if frame.kind == kind::RST_STREAM {
                    log.became(peer.index, format!("stream {} reset", frame.stream));
                    break;
                }
            },
            Do::H2Serve => loop {
                let stream = h2_head(peer, log)?;
                h2_rest(peer, stream, log)?;
                peer.send(frames::headers(stream, false, &[(":status", "200"), ("content-type", "text/plain")]));
                peer.send(frames::data(stream, true, GOOD));
            },
            Do::Mark(point) => stage.mark(point),
            Do::Wait(point) => stage.wait(point),
            Do::Middle => stage.middle(),
            Do::Close => return Ok(()),
            Do::Reset => {
                peer.reset();
                return Ok(());
            }
            Do::ReadEnd => drop(peer.wait_end()),
            Do::WaitEnd => {
                peer.wait_end();
                return Err(LetGo);
            }
            Do::Serve => loop {
                let read = read_head(peer, log)?;
                read_body(peer, read, log)?;
                peer.send(ok(GOOD));
            },
        }
    }
    Ok(())
}

fn read_head(peer: &mut Peer, log: &Log) -> Result<Head, LetGo> {
    let head = peer.read_head().ok_or(LetGo)?;
    log.request(peer.index, describe(&head, "unread"));
    Ok(head)
}

fn read_body(peer: &mut Peer, head: Head, log: &Log) -> Result<(), LetGo> {
    let request = peer.read_body(head);
    let whole = request.body.complete;
    log.became(peer.index, describe(&request.head, if whole { "whole" } else { "cut" }));
    whole.then_some(()).ok_or(LetGo)
}

fn describe(head: &Head, body: &str) -> String {
    format!("{} {} {body}", head.method(), head.target())
}

fn h2_next(peer: &mut Peer) -> Result<frames::Frame, LetGo> {
    match frames::next(&mut peer.wire) {
        Ok(Some(frame)) => Ok(frame),
        Ok(None) | Err(_) => Err(LetGo),
    }
}

/// Reads until a stream begins; its number.
fn h2_head(peer: &mut Peer, log: &Log) -> Result<u32, LetGo> {
    loop {
        let frame = h2_next(peer)?;
        if frame.kind == kind::HEADERS {
            let state = if frame.ends_stream() { "whole" } else { "unread" };
            log.request(peer.index, format!("stream {} {state}", frame.stream));
            return Ok(frame.stream);
        }
    }
}

/// Reads a stream whose head was read to its end.
fn h2_rest(peer: &mut Peer, stream: u32, log: &Log) -> Result<(), LetGo> {
    while !log.ends_with(peer.index, "whole") {
        let frame = h2_next(peer)?;
        if frame.stream == stream && frame.kind == kind::RST_STREAM {
            log.became(peer.index, format!("stream {stream} reset"));
            return Ok(());
        }
        if frame.stream == stream && frame.ends_stream() {
            log.became(peer.index, format!("stream {stream} whole"));
        }
    }
    Ok(())
}

impl Log {
    /// Whether what became of the last request is this.
    fn ends_with(&self, connection: usize, what: &str) -> bool {
        self.0.lock().unwrap()[connection].requests.last().is_some_and(|request| request.ends_with(what))
    }
}
