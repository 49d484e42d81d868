//! A backend that does what a test tells it, and remembers everything that it got.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::PATIENCE;
pub use super::wire::End;
use super::wire::{Body, Framing, Head, Received, Wire};

/// A whole response with a length.
#[must_use]
pub fn response(status: u16, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status} Reason\r\n{fields}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// `200` with this body.
#[must_use]
pub fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    response(200, "", body)
}

/// A door that is shut until the test opens it; stays open.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A shut door.
    #[must_use]
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }

    /// Waits for [`Gate::open`]; gives up with a panic after three times [`PATIENCE`], so that no thread stays for ever.
    pub fn wait(&self) {
        let guard = self.0.0.lock().unwrap();
        let (open, _) = self.0.1.wait_timeout_while(guard, PATIENCE * 3, |open| !*open).unwrap();
        assert!(*open, "nobody opened the gate");
    }
}

/// A request as the backend got it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which connection it came on, counted from 0 (connections without a byte are not counted).
    pub connection: usize,
    /// Request line and fields.
    pub head: Head,
    /// Content and trailers; `complete` is false when it was cut.
    pub body: Body,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    /// Sockets to shut when the backend goes away; true for those that brought a byte.
    sockets: Mutex<HashMap<u64, (TcpStream, bool)>>,
    next_socket: AtomicU64,
    connections: Mutex<Vec<Arc<Mutex<Received>>>>,
    requests: Mutex<Vec<Request>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// A server on a port of its own, one thread per connection.
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    accepting: Option<thread::JoinHandle<()>>,
}

/// One connection, as the script sees it.
pub struct Peer {
    /// The socket.
    pub wire: Wire,
    /// Its number, from 0.
    pub index: usize,
    state: Arc<State>,
}

// === impl Backend ===

impl Backend {
    /// Runs the script for each connection **once its first byte has come**, so that readiness probes (which connect and
    /// send nothing) are neither answered nor counted.
    #[must_use]
    pub fn start(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Backend {
        Backend::launch(bind("127.0.0.1:0".parse().unwrap()), true, script)
    }

    /// The same at an address that was in use before: a backend that comes back.
    #[must_use]
    pub fn start_at(address: SocketAddr, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Backend {
        Backend::launch(bind(address), true, script)
    }

    /// The same on a socket that somebody has prepared.
    #[must_use]
    pub fn start_on(listener: TcpListener, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Backend {
        Backend::launch(listener, true, script)
    }

    /// Runs the script as soon as a connection is accepted, probes included.
    #[must_use]
    pub fn on_accept(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Backend {
        Backend::launch(bind("127.0.0.1:0".parse().unwrap()), false, script)
    }

    /// Answers every request with what the function returns, and keeps the connection.
    #[must_use]
    pub fn answering(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Backend {
        Backend::start(move |peer| {
            while let Some(request) = peer.read_request() {
                let bytes = answer(&request);
                if !peer.send(bytes) {
                    return;
                }
            }
        })
    }

    /// Answers every request with `200` and this body.
    #[must_use]
    pub fn always(body: &'static str) -> Backend {
        Backend::answering(move |_| ok(body))
    }

    /// A backend whose answers come to every kind of end, by path: `/events` (an event stream), `/chat` (a tunnel), `/cut`
    /// (half a body), `/silent` (nothing), `…/error` (500), `/missing` (404); anything else is fine.
    #[must_use]
    pub fn of_all_ends() -> Backend {
        Backend::start(|peer| {
            while let Some(request) = peer.read_request() {
                match request.head.target() {
                    "/events" => {
                        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
                        return;
                    }
                    "/chat" => {
                        peer.send(
                            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi",
                        );
                        peer.wait_end();
                        return;
                    }
                    "/cut" => {
                        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!");
                        return;
                    }
                    "/silent" => {
                        peer.wait_end();
                        return;
                    }
                    "/missing" => peer.send(response(404, "", "no")),
                    path if path.ends_with("/error") => peer.send(response(500, "", "no")),
                    _ => peer.send(ok("ok")),
                };
            }
        })
    }

    fn launch(
        listener: TcpListener,
        wait_for_byte: bool,
        script: impl Fn(&mut Peer) + Send + Sync + 'static,
    ) -> Backend {
        let address = listener.local_addr().expect("address");
        let state = Arc::new(State::default());
        let script: Arc<dyn Fn(&mut Peer) + Send + Sync> = Arc::new(script);
        let accepting = thread::spawn({
            let state = Arc::clone(&state);
            move || {
                for stream in listener.incoming() {
                    if state.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let (state, script) = (Arc::clone(&state), Arc::clone(&script));
                    thread::spawn(move || serve(stream, wait_for_byte, &state, &*script));
                }
            }
        });
        Backend { address, state, accepting: Some(accepting) }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request whose head arrived, in order of completion.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The only request; panics when there was none or another.
    #[must_use]
    #[track_caller]
    pub fn request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.into_iter().next().unwrap()
    }

    /// How many connections brought at least one byte (all, with [`Backend::on_accept`]).
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.connections.lock().unwrap().len()
    }

    /// The raw bytes of a connection.
    #[must_use]
    pub fn raw(&self, connection: usize) -> Vec<u8> {
        self.state.connections.lock().unwrap()[connection].lock().unwrap().bytes.clone()
    }

    /// The raw bytes of all connections, one after the other.
    #[must_use]
    pub fn all_raw(&self) -> Vec<u8> {
        (0..self.connections()).flat_map(|index| self.raw(index)).collect()
    }

    /// How the sidecar ended this connection, as far as the script has read.
    #[must_use]
    pub fn end(&self, connection: usize) -> Option<End> {
        self.state.connections.lock().unwrap().get(connection).and_then(|c| c.lock().unwrap().end)
    }

    /// Whether no client's socket still takes its connection to this backend for established: every end has been
    /// delivered. Asked of the kernel (`/proc/net/tcp`: remote address in hexadecimal, state 01), because a close() may
    /// return before the other side has its FIN.
    #[must_use]
    pub fn every_end_is_delivered(&self) -> bool {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
        let port = format!(":{:04X}", self.address.port());
        !table.lines().skip(1).any(|line| {
            let mut columns = line.split_whitespace().skip(2);
            columns.next().is_some_and(|remote| remote.ends_with(&port)) && columns.next() == Some("01")
        })
    }

    /// Connections whose script has not ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// The most connections that were open at the same time.
    #[must_use]
    pub fn most_open(&self) -> usize {
        self.state.most_open.load(Ordering::SeqCst)
    }

    /// Closes the listener and every connection; the port is free afterwards.
    pub fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            self.state.stop.store(true, Ordering::SeqCst);
            // Wakes the thread out of accept().
            let _ = TcpStream::connect(self.address);
            let _ = accepting.join();
            for (_, (socket, _)) in self.state.sockets.lock().unwrap().drain() {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
    }
}

fn bind(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).expect("bind")
}

fn serve(stream: TcpStream, wait_for_byte: bool, state: &Arc<State>, script: &(dyn Fn(&mut Peer) + Send + Sync)) {
    let id = state.next_socket.fetch_add(1, Ordering::SeqCst);
    state.sockets.lock().unwrap().insert(id, (stream.try_clone().expect("clone"), false));
    if wait_for_byte && !matches!(stream.peek(&mut [0]), Ok(1)) {
        state.sockets.lock().unwrap().remove(&id);
        return;
    }
    let wire = Wire::new(stream, PATIENCE * 3);
    let index = {
        let mut connections = state.connections.lock().unwrap();
        connections.push(Arc::clone(&wire.received));
        connections.len() - 1
    };
    state.open.fetch_add(1, Ordering::SeqCst);
    {
        // Those that the sidecar has ended already are not open, even if their threads have not noticed.
        let mut sockets = state.sockets.lock().unwrap();
        sockets.get_mut(&id).expect("inserted above").1 = true;
        let alive = sockets.values().filter(|(socket, used)| *used && !has_ended(socket)).count();
        state.most_open.fetch_max(alive, Ordering::SeqCst);
    }
    let mut peer = Peer { wire, index, state: Arc::clone(state) };
    script(&mut peer);
    // The clone that is kept for stop() goes first, so that the connection ends (with RST, if asked) when `peer` does.
    state.sockets.lock().unwrap().remove(&id);
    drop(peer);
    state.open.fetch_sub(1, Ordering::SeqCst);
}

/// Whether the other side has closed and nothing is left to read.
fn has_ended(socket: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    match socket2::SockRef::from(socket).recv_with_flags(&mut byte, flags) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

// === impl Peer ===

impl Peer {
    /// The next request head; `None` when the sidecar closed or cut.
    pub fn read_head(&mut self) -> Option<Head> {
        self.wire.read_head().ok().flatten()
    }

    /// How the body of a request is delimited. Panics on what a proxy must never send.
    #[must_use]
    pub fn framing(head: &Head) -> Framing {
        let length = head.one("content-length");
        if head.has("transfer-encoding") {
            assert!(length.is_none(), "the sidecar sent both lengths: {head:?}");
            assert_eq!(head.list("transfer-encoding").to_ascii_lowercase(), "chunked");
            return Framing::Chunked;
        }
        length.map_or(Framing::None, |length| Framing::Length(length.parse().expect("a number")))
    }

    /// The body of a request whose head was read; noted among the requests of the backend.
    pub fn read_body(&mut self, head: Head) -> Request {
        let framing = Peer::framing(&head);
        let body = self.wire.read_body(framing).unwrap_or(Body {
            content: Vec::new(),
            chunks: Vec::new(),
            trailers: Vec::new(),
            complete: false,
        });
        let request = Request { connection: self.index, head, body };
        self.state.requests.lock().unwrap().push(request.clone());
        request
    }

    /// The next whole request; `None` when the sidecar closed, or cut the body (the cut request is noted all the same).
    pub fn read_request(&mut self) -> Option<Request> {
        let head = self.read_head()?;
        let request = self.read_body(head);
        request.body.complete.then_some(request)
    }

    /// Sends bytes; false when the sidecar has gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends bytes and waits until the other side's kernel has them all (Linux: nothing left unacknowledged).
    pub fn deliver(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        use std::os::fd::AsRawFd;
        self.send(bytes)
            && super::wait_for(PATIENCE, || {
                let mut unacknowledged: libc::c_int = 0;
                // SAFETY: the descriptor is open as long as `self`, and TIOCOUTQ writes one int to the given address.
                let result = unsafe { libc::ioctl(self.wire.stream.as_raw_fd(), libc::TIOCOUTQ, &mut unacknowledged) };
                result == 0 && unacknowledged == 0
            })
    }

    /// Waits until the sidecar closes or resets.
    pub fn wait_end(&mut self) -> Option<End> {
        self.wire.wait_end().ok()
    }

    /// Ends our side, keeps reading.
    pub fn half_close(&self) {
        let _ = self.wire.stream.shutdown(Shutdown::Write);
    }

    /// The connection will end with RST when the script returns.
    pub fn reset(&self) {
        self.wire.reset();
    }

    /// Writes until the other side takes no more for `window`, or `limit` is reached; bytes taken.
    pub fn push_until_stalled(&mut self, limit: u64, window: Duration) -> u64 {
        use std::io::ErrorKind;
        self.wire.stream.set_write_timeout(Some(window)).expect("write timeout");
        let block = vec![b'x'; 64 * 1024];
        let mut taken = 0;
        while taken < limit {
            let size = (limit - taken).min(block.len() as u64) as usize;
            match self.wire.stream.write(&block[..size]) {
                Ok(n) => taken += n as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.wire.stream.set_write_timeout(None).expect("write timeout");
        taken
    }
}

/// An address where connects are never answered: a listener whose queue is full.
pub struct Unreachable {
    /// The address.
    pub address: SocketAddr,
    listener: socket2::Socket,
    _fill: Vec<TcpStream>,
}

impl Unreachable {
    /// Fills the accept queue of a listener that nobody serves.
    #[must_use]
    pub fn new() -> Unreachable {
        Unreachable::at("127.0.0.1:0".parse().unwrap())
    }

    /// The same at a certain address.
    #[must_use]
    pub fn at(address: SocketAddr) -> Unreachable {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
        listener.bind(&address.into()).expect("bind");
        listener.listen(0).expect("listen");
        let address = listener.local_addr().expect("address").as_socket().expect("an internet address");
        let mut fill = Vec::new();
        // Linux queues backlog + 1 connections; the first connect that is not answered says that the queue is full.
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            fill.push(stream);
            assert!(fill.len() < 100, "the accept queue does not fill");
        }
        Unreachable { address, listener, _fill: fill }
    }

    /// Somebody is there at last: the listener, with those that fill its queue gone.
    #[must_use]
    pub fn into_listener(self) -> TcpListener {
        self.listener.listen(128).expect("listen");
        self.listener.into()
    }
}
