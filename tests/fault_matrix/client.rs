//! The client's side of a scenario: plays its script and checks what it gets.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use crate::common::frames::{self, Frame, kind};
use crate::common::wire::Wire;
use crate::common::{Client, End, Head, Names, PATIENCE, Page, Sidecar, wait_until};
use crate::looks::{look, wait_for_page};
use crate::row::Act;
use crate::stage::Stage;
use crate::tls::Certificates;

/// How long a write may take nothing until that is a stall. Only a stall that lasts much longer changes a scenario.
const STALL: Duration = Duration::from_millis(200);
/// Between two bytes of a slow client: so many that a deadline of silence would never fire.
const DRIP: Duration = Duration::from_millis(50);
/// How long the sidecar is watched for being busy with nothing, and how much processor time it may use meanwhile: a loop
/// would use all of it.
const WATCHED: Duration = Duration::from_millis(400);
const CALM: Duration = Duration::from_millis(120);

/// The name of a backend that has one.
pub const NAME: &str = "app.test";

/// What a client has around it.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// Whom it talks to.
    pub sidecar: &'a Sidecar,
    /// Where it meets the others.
    pub stage: &'a Stage,
    /// Whom it trusts.
    pub certificates: Option<&'a Certificates>,
    /// What the sidecar's resolver knows.
    pub names: Option<&'a Names>,
}

/// A client while it plays.
pub struct Player<'a> {
    sidecar: &'a Sidecar,
    stage: &'a Stage,
    certificates: Option<&'a Certificates>,
    names: Option<&'a Names>,
    /// Whether each head from the middle on must say that its connection ends.
    closing: bool,
    connections: Vec<Connection>,
    current: usize,
}

struct Connection {
    /// Nobody, when the client has left.
    client: Option<Client>,
    method: String,
    head: Option<Head>,
    /// Frames of HTTP/2 that nobody has asked for yet.
    frames: Vec<Frame>,
    h2: bool,
}

impl<'a> Player<'a> {
    /// A client with one connection.
    pub fn new(scene: Scene<'a>, closing: bool) -> Player<'a> {
        let Scene { sidecar, stage, certificates, names } = scene;
        let mut player = Player { sidecar, stage, certificates, names, closing, connections: Vec::new(), current: 0 };
        player.connect();
        player
    }

    /// Plays a script to its end; the connections stay.
    pub fn play(&mut self, acts: &[Act]) {
        for (number, act) in acts.iter().enumerate() {
            // Where it fails, the panic's own text says what; this says where.
            let _where = Where(number);
            self.act(act);
        }
    }

    /// Each connection that is left has been ended by the sidecar, or is now.
    pub fn expect_all_ended(&mut self) {
        for connection in self.connections.iter_mut().filter(|connection| !connection.h2) {
            if let Some(mut client) = connection.client.take() {
                client.expect_end();
            }
        }
    }

    fn connect(&mut self) {
        let client = Some(self.sidecar.client());
        self.connections.push(Connection { client, method: String::new(), head: None, frames: Vec::new(), h2: false });
        self.current = self.connections.len() - 1;
    }

    fn connection(&mut self) -> &mut Connection {
        &mut self.connections[self.current]
    }

    fn client(&mut self) -> &mut Client {
        self.connection().client.as_mut().expect("the client has not left")
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Connect => self.connect(),
            Act::Use(number) => self.current = *number,
            Act::Send(bytes) => self.send(bytes),
            Act::Push(block) => self.push(block),
            Act::Drip(text) => self.drip(text),
            Act::Interim(status) => assert_eq!(self.client().read_head().status(), *status),
            Act::Head(status) => {
                let head = self.final_head();
                assert_eq!(head.status(), *status, "{:?}", head.fields);
                self.connection().head = Some(head);
            }
            Act::Take(text) => {
                let got = self.client().wire.read_exact(text.len());
                assert_eq!(got.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok().as_deref(), Some(*text));
            }
            Act::TakeBytes(bytes) => {
                assert_eq!(self.client().wire.read_exact(bytes.len()).ok().as_deref(), Some(*bytes));
            }
            Act::Chunk(text) => {
                let got = self.client().wire.read_chunk();
                assert_eq!(got.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok().as_deref(), Some(*text));
            }
            Act::Whole(text) => {
                let (content, complete) = self.rest();
                assert_eq!((content.as_str(), complete), (*text, true));
            }
            Act::Cut(text) => {
                let (content, complete) = self.rest();
                assert!(content.starts_with(text), "{:?} is not the beginning of the body", head_of(&content));
                assert!(!complete, "the cut is invisible after {:?}", head_of(&content));
            }
            Act::Refused(status, word) => {
                let head = self.final_head();
                let method = self.connection().method.clone();
                let answer = self.client().read_body(&method, head);
                assert_eq!(answer.status(), *status, "{}", answer.text());
                answer.proxy_made(word).unwrap();
            }
            Act::End => drop(self.client().expect_end()),
            Act::HalfClose => self.client().half_close(),
            Act::Leave => drop(self.connection().client.take()),
            Act::Reset => self.connection().client.take().expect("the client has not left").reset(),
            Act::TlsBegin => {
                let certificates = self.certificates.expect("clients speak TLS");
                let socket = self.client().wire.stream.try_clone().expect("clone");
                let wire = Wire::new(certificates.connect(socket), PATIENCE);
                self.connection().client = Some(Client { wire });
            }
            Act::Names(addresses) => {
                let asked = |page: &Page| page.sum("golden_dns_lookups_total", &[]);
                let before = asked(&look(self.sidecar));
                self.names.expect("the backend has a name").set(&[(NAME, addresses)]);
                // The first may have been on its way.
                wait_for_page(self.sidecar, "the name is asked for", |page| asked(page) >= before + 2.0);
            }
            Act::H2Begin(window) => {
                self.send(&[frames::PREFACE, &frames::settings(&[(4, *window)])].concat());
                self.connection().h2 = true;
            }
            Act::H2Head(stream, status) => self.h2_head(*stream, *status),
            Act::H2Refused(stream, status) => {
                self.h2_head(*stream, *status);
                let text = String::from_utf8_lossy(&self.h2_rest(*stream)).into_owned();
                assert!(text.starts_with(&status.to_string()) && text.ends_with('\n'), "{text:?} is not our answer");
            }
            Act::H2Take(stream, text) => {
                let mut got = Vec::new();
                while got.len() < text.len() {
                    let frame = self.frame(|frame| frame.stream == *stream);
                    assert_eq!(frame.kind, kind::DATA, "after {:?}: {frame:?}", String::from_utf8_lossy(&got));
                    got.extend(frame.payload);
                }
                assert_eq!(String::from_utf8_lossy(&got), *text);
            }
            Act::H2Whole(stream, text) => {
                let got = self.h2_rest(*stream);
                assert_eq!(String::from_utf8_lossy(&got), *text);
            }
            Act::H2Reset(stream) => drop(self.frame(|frame| {
                assert!(frame.stream != *stream || !frame.ends_stream(), "the stream ended well: {frame:?}");
                frame.stream == *stream && frame.kind == kind::RST_STREAM
            })),
            Act::H2GoAway => drop(self.frame(|frame| frame.kind == kind::GOAWAY)),
            Act::Mark(point) => self.stage.mark(point),
            Act::Wait(point) => self.stage.wait(point),
            Act::Page(what, condition) => wait_for_page(self.sidecar, what, condition),
            Act::Descriptors(more) => limit_descriptors(self.sidecar.pid(), *more),
            Act::Calm => {
                let before = processor_time(self.sidecar.pid());
                let came = self.client().peek_for(WATCHED);
                let used = processor_time(self.sidecar.pid()) - before;
                assert!(used < CALM, "the sidecar was busy for {used:?} of {WATCHED:?}; {came:?} came meanwhile");
            }
            Act::Middle => self.stage.middle(),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let word = bytes.iter().position(|byte| *byte == b' ').unwrap_or(0);
        if word > 0 && bytes[..word].iter().all(u8::is_ascii_uppercase) {
            self.connection().method = String::from_utf8_lossy(&bytes[..word]).into_owned();
        }
        // Whether it was taken shows in what comes back.
        let _ = self.client().try_send(bytes);
    }

    fn push(&mut self, block: &[u8]) {
        let stream = &mut self.client().wire.stream;
        stream.set_write_timeout(Some(STALL)).expect("write timeout");
        while stream.write(block).is_ok() {}
        stream.set_write_timeout(None).expect("write timeout");
    }

    fn drip(&mut self, text: &str) {
        for byte in text.bytes().cycle() {
            if self.client().try_send([byte]).is_err() || !self.client().peek_for(DRIP).is_empty() {
                return;
            }
        }
    }

    fn final_head(&mut self) -> Head {
        let closing = self.closing && self.stage.is_beyond();
        loop {
            let read = self.client().wire.read_head();
            let head = match read {
                Ok(Some(head)) => head,
                other => {
                    let shown = self.sidecar.try_scrape().map(|page| page.lines_of("golden_errors_total"));
                    panic!("no answer but {other:?}; {}", shown.unwrap_or_default());
                }
            };
            if head.status() >= 200 || head.status() == 101 {
                assert!(
                    !closing || head.status() == 101 || head.has_token("connection", "close"),
                    "an answer in the drain does not end its connection: {:?}",
                    head.fields
                );
                return head;
            }
        }
    }

    /// What is left of the body, and whether it is complete.
    fn rest(&mut self) -> (String, bool) {
        let method = self.connection().method.clone();
        let head = self.connection().head.take().expect("a head was read");
        let answer = self.client().read_body(&method, head);
        // To the end of the connection there is no other sign of a cut than a reset.
        let reset = self.client().wire.received.lock().unwrap().end == Some(End::Reset);
        let whole = answer.body.complete && !(reset && answer.framing == crate::common::wire::Framing::Close);
        (answer.text(), whole)
    }

    fn h2_head(&mut self, stream: u32, status: u16) {
        let frame = self.frame(|frame| frame.stream == stream && frame.kind == kind::HEADERS);
        let block = &frame.payload;
        assert!(frames::begins_with_status(block, status), "not {status}: {block:02x?}");
        if frame.ends_stream() {
            // The rest of the stream is nothing: said so to whoever asks.
            let frame = Frame { kind: kind::DATA, payload: Vec::new(), ..frame };
            self.connection().frames.insert(0, frame);
        }
    }

    /// The content of a stream to its end.
    fn h2_rest(&mut self, stream: u32) -> Vec<u8> {
        let mut got = Vec::new();
        loop {
            let frame = self.frame(|frame| frame.stream == stream);
            assert_ne!(frame.kind, kind::RST_STREAM, "after {:?}", String::from_utf8_lossy(&got));
            if frame.kind == kind::DATA {
                got.extend(&frame.payload);
            }
            if frame.ends_stream() {
                return got;
            }
        }
    }

    /// The first frame that is meant, those before it kept for others.
    fn frame(&mut self, mut meant: impl FnMut(&Frame) -> bool) -> Frame {
        let connection = self.connection();
        if let Some(at) = connection.frames.iter().position(&mut meant) {
            return connection.frames.remove(at);
        }
        loop {
            let wire = &mut connection.client.as_mut().expect("the client has not left").wire;
            match frames::next(wire) {
                Ok(Some(frame)) if meant(&frame) => return frame,
                Ok(Some(frame)) => connection.frames.push(frame),
                other => panic!("{other:?} instead of a frame; unread are {:?}", connection.frames),
            }
        }
    }
}

/// Tells which act it was when a test fails.
struct Where(usize);

impl Drop for Where {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("that was the client's act {}, counted from 0", self.0);
        }
    }
}

fn head_of(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Lets the process open `more` descriptors beside those that it has. Descriptors are numbers and the limit is the lowest
/// that is forbidden, so gaps count.
fn limit_descriptors(pid: u32, more: u64) {
    let look = || -> BTreeSet<u64> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc");
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    };
    let mut used = look();
    // What is open for a moment only would be free afterwards.
    wait_until("the descriptors stay the same", || {
        let before = std::mem::replace(&mut used, look());
        before == used
    });
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let pid = libc::pid_t::try_from(pid).expect("a pid");
    // SAFETY: the old limit is written to a place that is valid for one rlimit; no new one is given.
    let got = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) };
    assert_eq!(got, 0, "prlimit");
    limit.rlim_cur = match usize::try_from(more) {
        Ok(more) if more < 1 << 16 => {
            (0..).filter(|number| !used.contains(number)).nth(more).expect("numbers have no end")
        }
        _ => limit.rlim_max,
    };
    // SAFETY: the new limit is read from a valid place; the old one is not asked for.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "prlimit");
}

/// Processor time that a process has used (`utime` and `stime`, fields 14 and 15 of its `stat`).
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("/proc");
    let after_name = &stat[stat.rfind(')').expect("a name") + 2..];
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    // 100 ticks a second on every Linux that is not built otherwise.
    Duration::from_millis(ticks * 10)
}
