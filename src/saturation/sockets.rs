//! Questions to the kernel about sockets, of TCP and of the file system: NETLINK_SOCK_DIAG. Any user may ask, about the own network namespace.
//!
//! Source: sock_diag(7); the kernel's net/ipv4/inet_diag.c, net/ipv4/tcp_diag.c and linux/inet_diag.h; of sockets of the
//!         file system net/unix/diag.c and linux/unix_diag.h.
//! Shape:  a request (`inet_diag_req_v2`, then attributes), answered by datagrams of messages up to NLMSG_DONE; each
//!         message is one socket: 72 bytes (`inet_diag_msg`), then attributes. Native byte order, ports in network
//!         order.
//! Units:  bytes and connections in the queues, milliseconds in TCP_INFO with the kernel's tick as resolution.
//! Absent: a kernel without tcp_diag, or one without IPv6, says ENOENT; without IPv6 there are just no such sockets.
//!
//! # The filter
//!
//! INET_DIAG_REQ_BYTECODE is a little program that the kernel runs on each socket (`inet_diag_bc_run`): instructions
//! of four bytes, `code: u8, yes: u8, no: u16`, where `yes` and `no` say how many bytes to go on by. A socket is
//! taken by a program that ends exactly at its end, and left by one that jumps four bytes past it. A comparison of
//! ports is followed by four bytes with the port in the last two. Comparing for equality came later; a pair
//! of at-least and at-most says the same to every kernel, and measured no slower.
//!
//! # What it costs
//!
//! Measured on one core, 20,000 connections over loopback (so 40,000 sockets), Linux 6.18, 262,144 hash buckets:
//!
//! | question | 2,000 | 20,000 connections |
//! |---|---|---|
//! | listeners, one family | 0.02 ms | 0.02 ms |
//! | nothing matches: the walk over all buckets (0.17 ms if they are empty) | 0.3 ms | 2 to 4 ms |
//! | all connections at one port | 1.0 ms | 17 ms |
//! | the same with TCP_INFO | 1.4 ms | 22 ms |
//!
//! The walk passes the sockets of all network namespaces of the host: 34,000 of others made it 2 ms for us too. So a
//! question is asked no more often than its price allows ([`Pace`]), and of a family only if there can be an answer.
//! TCP_INFO is asked for pools only, and pools are a question of their own: few sockets are in its answer, so that it
//! can be asked in each round while that about 20,000 clients cannot.
//!
//! Reading the answer about 20,000 sockets takes 4.0 ms by the crate's `SockDiagMessage`, which allocates for each
//! message and attribute, 0.5 ms by the crate's parts that do not (frame, header, iterator over attributes), and 0.15
//! ms by hand (as released; without link-time optimisation 13, 4 and 0.2 ms). Beside 17 ms in the kernel the second
//! is good enough, and has no offsets of its own to be wrong about.

use std::io::{self, ErrorKind, Read as _};
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_OVERRUN, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NlasIterator, Parseable as _,
};
use netlink_packet_sock_diag::constants::IPPROTO_TCP;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use netlink_packet_sock_diag::unix::{self, UnixRequest, UnixResponseHeader};
use netlink_packet_sock_diag::{SOCK_DIAG_BY_FAMILY, SockDiagMessage};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Instant;

use crate::labels::Trouble;
use crate::saturation::fault::Fault;

/// What errors call it.
const WHAT: &str = "NETLINK_SOCK_DIAG";
/// The kernel makes no datagram of a dump larger than 32 KiB (`netlink_recvmsg`), its own overhead included. A datagram
/// that fills the buffer was cut.
const DATAGRAM_MAX: usize = 32 * 1024;
/// The kernel holds one datagram ready while we read another, so four are plenty. The default is more, unless somebody
/// has set net.core.rmem_default to next to nothing.
const RECEIVE_BUFFER_BYTES: usize = 4 * DATAGRAM_MAX;
/// Numbers the one request of a socket.
const SEQUENCE: u32 = 1;
/// Most ports of a question. Each costs the kernel a few nanoseconds per socket and 20 bytes of a program whose jumps
/// have 16 bits.
const PORTS_MAX: usize = 1024;

/// `INET_DIAG_REQ_BYTECODE` and the instructions, linux/inet_diag.h.
const REQUEST_BYTECODE: u16 = 1;
const JUMP: u8 = 1;
const SOURCE_AT_LEAST: u8 = 2;
const SOURCE_AT_MOST: u8 = 3;
const DESTINATION_AT_LEAST: u8 = 4;
const DESTINATION_AT_MOST: u8 = 5;
/// `INET_DIAG_INFO`, the attribute that holds a `struct tcp_info`.
const ATTRIBUTE_TCP_INFO: u16 = 2;

/// `UNIX_DIAG_NAME`, `UNIX_DIAG_VFS` and `UNIX_DIAG_RQLEN`, linux/unix_diag.h: the path that was bound; inode and device
/// of the file, 32 bits of each; how many wait in the accept queue, and how many may.
const ATTRIBUTE_NAME: u16 = 0;
const ATTRIBUTE_VFS: u16 = 1;
const ATTRIBUTE_QUEUE: u16 = 4;
/// Bytes of the answer about a socket of the file system before its attributes (`unix_diag_msg`).
const UNIX_HEADER_BYTES: usize = 16;

/// How many times its own price has to pass before a question is asked again: 400 is a quarter of one per cent of one
/// core. For what changes from one second to the next.
pub(super) const PRICE_TIMES: u32 = 400;
/// The same for what is dear and changes slowly: a sixteenth of one per cent.
pub(super) const PRICE_TIMES_IF_SLOW: u32 = 1600;
/// However dear, an answer should not be older than ten seconds ([`QUIET_MAX`]) as long as that costs one per cent at most.
const PRICE_TIMES_MIN: u32 = 100;
/// The same if the last answer was empty, as one of the two families mostly is, up to [`QUIET_MAX`].
const PRICE_TIMES_IF_EMPTY: u32 = 4000;
/// An answer may be outdated by this much: the time in which a first connection is noticed.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its own, and that of all connections that it takes.
    pub family: Family,
    /// Its inode, as the links below /proc/PID/fd name it.
    pub inode: u64,
    /// The user it belongs to.
    pub uid: u32,
    /// Connections that wait for accept().
    pub waiting: u32,
    /// How many may wait. The kernel lets one more in before it turns the next away.
    pub backlog: u32,
}

/// A socket of the file system that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketListener {
    /// Its inode, as the links below /proc/PID/fd name it.
    pub inode: u64,
    /// The user whose file it is.
    pub uid: u32,
    /// Connections that wait for accept().
    pub waiting: u32,
    /// How many may wait. The kernel lets one more in before it makes the next wait.
    pub backlog: u32,
}

/// An established connection, seen from one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// 0 until it is accepted, and after its last descriptor is closed.
    pub inode: u64,
    pub uid: u32,
    /// Bytes that have arrived and were not read.
    pub unread: u32,
    /// Only if it was asked for.
    pub silence: Option<Silence>,
}

/// How long ago data went each way; connecting counts as both. In milliseconds, but by the kernel's clock, which ticks
/// every 1, 4 or 10 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    pub sent_ms: u32,
    pub received_ms: u32,
    /// An acknowledgement was received, with data or without.
    pub acknowledged_ms: u32,
    /// Segments that were sent and not acknowledged.
    pub unacknowledged: u32,
    /// Bytes received and segments of data sent so far, the lower halves: while they stay the same, nothing was said.
    /// Kernels before 4.6 do not tell.
    pub said: Option<(u32, u32)>,
}

/// The kernel keeps the two apart. A socket of IPv6 may well speak IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

/// Which connections are asked for: those with one of these ports at one end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question<'a> {
    /// At the local end.
    To(&'a [u16]),
    /// At the remote end, and with [`Silence`].
    From(&'a [u16]),
    /// Whatever the ports, and with [`Silence`]: for a person, once.
    All,
}

/// When a question may be asked again, so that all of them together cost less than one per cent of one core.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    next: Option<Instant>,
}

/// All TCP sockets of this network namespace that listen. IPv4 in the clothes of IPv6 is IPv4; what listens for both
/// listens at `[::]`.
///
/// # Errors
/// When the kernel does not answer, or not in time.
pub(super) fn listeners(deadline: Instant) -> Result<Vec<Listener>, Fault> {
    let mut listeners = Vec::new();
    for family in Family::ALL {
        let request = request(family, StateFlags::LISTEN, ExtensionFlags::empty(), Vec::new());
        family.or_nothing(ask(&request, deadline, |socket| {
            let InetResponseHeader { socket_id, recv_queue, send_queue, uid, inode, .. } = header(socket)?;
            listeners.push(Listener {
                address: address(socket_id.source_address, socket_id.source_port),
                family,
                inode: inode.into(),
                uid,
                waiting: recv_queue,
                backlog: send_queue,
            });
            Ok(())
        }))?;
    }
    Ok(listeners)
}

/// Who listens at a path. Of a file that somebody has bound anew, only the new one; the same file may have other names in
/// the containers of a pod, so the file itself counts before its name, which overlay file systems make necessary.
///
/// # Errors
/// When there is no such file, or nobody listens there, or the kernel does not answer in time.
pub(super) fn at_path(path: &Path, deadline: Instant) -> Result<SocketListener, Fault> {
    let file = std::fs::metadata(path).map_err(|error| Fault::io(path.display(), &error))?;
    // As the kernel itself writes a device: twelve bits of major, twenty of minor number.
    let device = (libc::major(file.dev()) << 20) | (libc::minor(file.dev()) & 0xf_ffff);
    // As much of it as the answer has.
    let inode = file.ino() as u32;
    let question = UnixRequest {
        state_flags: unix::StateFlags::LISTEN,
        inode: 0,
        show_flags: unix::ShowFlags::NAME | unix::ShowFlags::VFS | unix::ShowFlags::RQLEN,
        cookie: [0xff; 8],
    };
    let (mut by_file, mut by_name) = (None, None);
    ask(&message(SockDiagMessage::UnixRequest(question)), deadline, |socket| {
        let header = UnixResponseHeader::parse(socket).map_err(|error| malformed(&error))?;
        let (mut is_file, mut has_name, mut queue) = (false, false, None);
        for attribute in NlasIterator::new(socket.get(UNIX_HEADER_BYTES..).unwrap_or_default()) {
            let attribute = attribute.map_err(|error| malformed(&error))?;
            let value = attribute.value();
            match attribute.kind() {
                ATTRIBUTE_NAME => {
                    has_name = value.strip_suffix(b"\0").unwrap_or(value) == path.as_os_str().as_bytes();
                }
                ATTRIBUTE_VFS => is_file = pair(value) == Some((inode, device)),
                ATTRIBUTE_QUEUE => queue = pair(value),
                _ => {}
            }
        }
        if let Some((waiting, backlog)) = queue.filter(|_| is_file || has_name) {
            let found = SocketListener { inode: header.inode.into(), uid: file.uid(), waiting, backlog };
            *(if is_file { &mut by_file } else { &mut by_name }) = Some(found);
        }
        Ok(())
    })?;
    let nobody = || Fault::new(Trouble::Absent, format!("nobody listens on {}", path.display()));
    by_file.or(by_name).ok_or_else(nobody)
}

/// Two numbers of 32 bits.
fn pair(bytes: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    number(0).zip(number(4))
}

/// Tells `each` about the established connections that are asked for. They may be some hundred thousand: the deadline
/// is what bounds them.
///
/// # Errors
/// When the kernel does not answer, or not in time; then `each` has not been told of all.
pub(super) fn connections(
    question: Question<'_>,
    family: Family,
    deadline: Instant,
    mut each: impl FnMut(&Connection),
) -> Result<(), Fault> {
    let (ports, extensions) = match question {
        Question::To(ports) => (ports, ExtensionFlags::empty()),
        Question::From(ports) => (ports, ExtensionFlags::INFO),
        Question::All => (&[][..], ExtensionFlags::INFO),
    };
    if ports.is_empty() && !matches!(question, Question::All) {
        return Ok(());
    }
    if ports.len() > PORTS_MAX {
        return Err(Fault::new(Trouble::TooLarge, format!("{} ports are more than one can ask for", ports.len())));
    }
    let request = request(family, StateFlags::ESTABLISHED, extensions.clone(), bytecode(question));
    family.or_nothing(ask(&request, deadline, |socket| {
        each(&connection(socket, extensions.contains(ExtensionFlags::INFO))?);
        Ok(())
    }))
}

// === impl Family ===

impl Family {
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// Where the kernel has no IPv6, it has no sockets of it.
    fn or_nothing(self, result: Result<(), Fault>) -> Result<(), Fault> {
        result.or_else(|fault| match (self, fault.trouble) {
            (Family::V6, Trouble::Absent) => Ok(()),
            _ => Err(fault),
        })
    }
}

// === impl Pace ===

impl Pace {
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// The question was asked at `now` and cost this much; `times` its price have to pass.
    pub fn paid(&mut self, now: Instant, price: Duration, times: u32, was_empty: bool) {
        let mut wait = (price * times).min(QUIET_MAX.max(price * PRICE_TIMES_MIN));
        if was_empty {
            wait = wait.max((price * PRICE_TIMES_IF_EMPTY).min(QUIET_MAX));
        }
        self.wait(now, wait);
    }

    /// Not again before that, however cheap it was.
    pub fn wait(&mut self, now: Instant, at_least: Duration) {
        self.next = self.next.max(now.checked_add(at_least));
    }
}

// === Asking ===

fn request(family: Family, states: StateFlags, extensions: ExtensionFlags, bytecode: Vec<u8>) -> Vec<u8> {
    let (family, socket_id) = match family {
        Family::V4 => (libc::AF_INET, SocketId::new_v4()),
        Family::V6 => (libc::AF_INET6, SocketId::new_v6()),
    };
    let family = family as u8;
    let question = InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id };
    let mut bytes = message(SockDiagMessage::InetRequest(question));
    if !bytecode.is_empty() {
        let attribute = DefaultNla::new(REQUEST_BYTECODE, bytecode);
        let at = bytes.len();
        bytes.resize(at + attribute.buffer_len(), 0);
        attribute.emit(&mut bytes[at..]);
        let length = bytes.len() as u32;
        NetlinkBuffer::new(&mut bytes).set_length(length);
    }
    bytes
}

fn message(question: SockDiagMessage) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = SEQUENCE;
    let mut message = NetlinkMessage::new(header, question.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// A program that takes a socket if one of the ports is its own. For each port but the last:
///
/// ```text
///  0  at least  yes → 8  no → 20, the next port
///  4            the port
///  8  at most   yes → 16 no → 20
/// 12            the port
/// 16  jump      to the end: taken
/// ```
///
/// The last one needs no jump; its `no` leads four bytes past the end: not taken.
fn bytecode(question: Question<'_>) -> Vec<u8> {
    let (ports, at_least, at_most) = match question {
        Question::To(ports) => (ports, SOURCE_AT_LEAST, SOURCE_AT_MOST),
        Question::From(ports) => (ports, DESTINATION_AT_LEAST, DESTINATION_AT_MOST),
        // No program takes all.
        Question::All => return Vec::new(),
    };
    let end = (ports.len() * 20).saturating_sub(4);
    let mut program = Vec::with_capacity(end);
    let mut instruction = |code: u8, yes: u8, last: u16| {
        program.extend([code, yes]);
        program.extend(last.to_ne_bytes());
    };
    for (index, port) in ports.iter().enumerate() {
        instruction(at_least, 8, 20);
        instruction(0, 0, *port);
        instruction(at_most, 8, 12);
        instruction(0, 0, *port);
        let at = index * 20 + 16;
        if at < end {
            instruction(JUMP, 4, (end - at) as u16);
        }
    }
    program
}

/// One request, and each socket of its answer. A socket of its own for each request: 10 µs, and nothing left over
/// from an answer that was given up.
fn ask(request: &[u8], deadline: Instant, mut each: impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(libc::ENOBUFS) => Fault::new(Trouble::TooLarge, format!("{WHAT}: an answer was lost: {error}")),
        _ => Fault::io(WHAT, &error),
    };
    let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, Some(protocol)).map_err(failed)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).map_err(failed)?;
    socket.send(request).map_err(failed)?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        Fault::after(deadline, WHAT)?;
        // The kernel writes the next part while we read; it has never let us wait. 0 would be for ever.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left)).map_err(failed)?;
        let length = match socket.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result.map_err(failed)?,
        };
        if length == buffer.len() {
            return Err(Fault::new(Trouble::TooLarge, format!("{WHAT}: an answer of more than {DATAGRAM_MAX} bytes")));
        }
        if is_last(&buffer[..length], &mut each)? {
            return Ok(());
        }
    }
}

/// Goes through the messages of a datagram. True: the answer is complete.
fn is_last(mut datagram: &[u8], each: &mut impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<bool, Fault> {
    while !datagram.is_empty() {
        let message = NetlinkBuffer::new_checked(datagram).map_err(|error| malformed(&error))?;
        let next = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(next..).unwrap_or_default();
        if message.sequence_number() != SEQUENCE {
            continue;
        }
        if message.flags() & NLM_F_DUMP_INTR != 0 {
            return Err(Fault::new(Trouble::Gone, format!("{WHAT}: the sockets changed while they were listed")));
        }
        match message.message_type() {
            SOCK_DIAG_BY_FAMILY => each(message.payload())?,
            NLMSG_ERROR => refusal(message.payload()).unwrap_or_else(|| Err(Fault::malformed(WHAT)))?,
            // Old kernels end without a word.
            NLMSG_DONE => return refusal(message.payload()).unwrap_or(Ok(())).map(|()| true),
            NLMSG_OVERRUN => return Err(Fault::new(Trouble::TooLarge, format!("{WHAT}: an answer was lost"))),
            _ => {}
        }
    }
    Ok(false)
}

/// What the kernel thinks of the request: 0, or a negative error number.
fn refusal(payload: &[u8]) -> Option<Result<(), Fault>> {
    let code = i32::from_ne_bytes(*payload.first_chunk()?);
    Some(if code < 0 { Err(Fault::io(WHAT, &io::Error::from_raw_os_error(code.wrapping_neg()))) } else { Ok(()) })
}

// === Reading ===

fn header(socket: &[u8]) -> Result<InetResponseHeader, Fault> {
    InetResponseHeader::parse(socket).map_err(|error| malformed(&error))
}

fn connection(socket: &[u8], with_silence: bool) -> Result<Connection, Fault> {
    let header = header(socket)?;
    let mut silence = None;
    // There are others too, which nobody has asked for.
    let attributes = if with_silence { socket.get(header.buffer_len()..).unwrap_or_default() } else { &[] };
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(|error| malformed(&error))?;
        if attribute.kind() == ATTRIBUTE_TCP_INFO {
            silence = silence_of(attribute.value());
        }
    }
    let InetResponseHeader { socket_id, recv_queue, uid, inode, .. } = header;
    Ok(Connection {
        local: address(socket_id.source_address, socket_id.source_port),
        remote: address(socket_id.destination_address, socket_id.destination_port),
        inode: inode.into(),
        uid,
        unread: recv_queue,
        silence,
    })
}

fn silence_of(tcp_info: &[u8]) -> Option<Silence> {
    let number = |at: usize| Some(u32::from_ne_bytes(*tcp_info.get(at..)?.first_chunk()?));
    // The C library's struct ends before these two; their places in the kernel's are part of its interface.
    const BYTES_RECEIVED: usize = 128;
    const DATA_SEGMENTS_OUT: usize = 156;
    Some(Silence {
        sent_ms: number(offset_of!(libc::tcp_info, tcpi_last_data_sent))?,
        received_ms: number(offset_of!(libc::tcp_info, tcpi_last_data_recv))?,
        acknowledged_ms: number(offset_of!(libc::tcp_info, tcpi_last_ack_recv))?,
        unacknowledged: number(offset_of!(libc::tcp_info, tcpi_unacked))?,
        said: number(BYTES_RECEIVED).zip(number(DATA_SEGMENTS_OUT)),
    })
}

fn address(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

fn malformed(error: &DecodeError) -> Fault {
    Fault::new(Trouble::Malformed, format!("{WHAT}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// A message, padded to four bytes.
    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((16 + payload.len() as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(9u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// `inet_diag_msg`, each field with a number of its own.
    fn socket(family: u8, local: &[u8], remote: &[u8]) -> Vec<u8> {
        let mut bytes = vec![family, 1, 2, 3];
        bytes.extend(8080u16.to_be_bytes());
        bytes.extend(40404u16.to_be_bytes());
        for address in [local, remote] {
            bytes.extend(address);
            bytes.resize(bytes.len() + 16 - address.len(), 0);
        }
        for number in [21u32, 22, 23, 24, 25, 26, 27, 28] {
            bytes.extend(number.to_ne_bytes());
        }
        assert_eq!(bytes.len(), 72);
        bytes
    }

    /// An attribute with 240 bytes of `tcp_info`, each u32 of them its offset.
    fn tcp_info() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(244u16.to_ne_bytes());
        bytes.extend(ATTRIBUTE_TCP_INFO.to_ne_bytes());
        bytes.extend((0..60u32).flat_map(|index| (index * 4).to_ne_bytes()));
        bytes
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let mut bytes = socket(2, &[10, 0, 0, 1], &[10, 0, 0, 2]);
        // An attribute of one byte and its padding comes before.
        bytes.extend([5, 0, 8, 0, 3, 0, 0, 0]);
        bytes.extend(tcp_info());
        let expected = Connection {
            local: "10.0.0.1:8080".parse().unwrap(),
            remote: "10.0.0.2:40404".parse().unwrap(),
            inode: 28,
            uid: 27,
            unread: 25,
            silence: Some(Silence {
                sent_ms: 44,
                received_ms: 52,
                acknowledged_ms: 56,
                unacknowledged: 24,
                said: Some((128, 156)),
            }),
        };
        assert_eq!(connection(&bytes, true), Ok(expected));
        assert_eq!(connection(&bytes, false), Ok(Connection { silence: None, ..expected }));
        assert_eq!(header(&bytes).unwrap().send_queue, 26);
    }

    #[test]
    fn ipv4_in_the_clothes_of_ipv6_is_ipv4() {
        let mapped = "::ffff:10.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let other = "2001:db8::2".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let connection = connection(&socket(10, &mapped, &other), true).unwrap();
        assert_eq!(connection.local, "10.0.0.1:8080".parse().unwrap());
        assert_eq!(connection.remote, "[2001:db8::2]:40404".parse().unwrap());
        assert_eq!(connection.silence, None);
        let all = address("::".parse().unwrap(), 1);
        assert_eq!(all, "[::]:1".parse().unwrap(), "what listens for both stays what it is");
    }

    #[test]
    fn a_message_that_was_cut_is_an_error() {
        let bytes = socket(2, &[10, 0, 0, 1], &[10, 0, 0, 2]);
        assert_eq!(connection(&bytes[..71], true).unwrap_err().trouble, Trouble::Malformed);
        let whole = message(SOCK_DIAG_BY_FAMILY, 2, SEQUENCE, &bytes);
        let result = is_last(&whole[..whole.len() - 4], &mut |_| Ok(()));
        assert_eq!(result.unwrap_err().trouble, Trouble::Malformed);
    }

    #[test]
    fn messages_of_other_requests_are_passed_over() {
        let mut datagram = message(SOCK_DIAG_BY_FAMILY, 2, SEQUENCE + 1, &[1]);
        datagram.extend(message(NLMSG_DONE, 2, SEQUENCE + 1, &[]));
        datagram.extend(message(SOCK_DIAG_BY_FAMILY, 2, SEQUENCE, &[2]));
        let mut seen: Vec<u8> = Vec::new();
        let mut each = |payload: &[u8]| {
            seen.extend(payload);
            Ok(())
        };
        assert_eq!(is_last(&datagram, &mut each), Ok(false));
        datagram.extend(message(NLMSG_DONE, 2, SEQUENCE, &0i32.to_ne_bytes()));
        assert_eq!(is_last(&datagram, &mut each), Ok(true));
        assert_eq!(is_last(&message(NLMSG_DONE, 2, SEQUENCE, &[]), &mut each), Ok(true));
        assert_eq!(seen, [2, 2]);
    }

    #[test]
    fn what_the_kernel_says_no_to_has_its_reason() {
        let end = |kind, flags, code: i32| {
            is_last(&message(kind, flags, SEQUENCE, &code.to_ne_bytes()), &mut |_| Ok(())).map_err(|f| f.trouble)
        };
        assert_eq!(end(NLMSG_ERROR, 0, -libc::EPERM), Err(Trouble::Permission));
        assert_eq!(end(NLMSG_ERROR, 0, -libc::ENOENT), Err(Trouble::Absent));
        assert_eq!(end(NLMSG_DONE, 2, -libc::ENOENT), Err(Trouble::Absent));
        assert_eq!(end(NLMSG_ERROR, 0, 0), Ok(false), "that is a yes");
        assert_eq!(end(NLMSG_ERROR, 0, i32::MIN), Err(Trouble::Malformed));
        assert_eq!(end(NLMSG_DONE, NLM_F_DUMP_INTR, 0), Err(Trouble::Gone));
        assert_eq!(end(NLMSG_OVERRUN, 0, 0), Err(Trouble::TooLarge));
    }

    #[test]
    fn a_kernel_without_ipv6_has_no_such_sockets() {
        let absent = || Err(Fault::new(Trouble::Absent, "x"));
        assert_eq!(Family::V6.or_nothing(absent()), Ok(()));
        assert!(Family::V4.or_nothing(absent()).is_err());
    }

    #[test]
    fn the_filter_is_a_chain_of_comparisons() {
        let one = bytecode(Question::To(&[0x1234]));
        let expected = [2, 8, 20, 0, 0, 0, 0x34, 0x12, 3, 8, 12, 0, 0, 0, 0x34, 0x12];
        if cfg!(target_endian = "little") {
            assert_eq!(one, expected);
        }
        let three = bytecode(Question::From(&[1, 2, 3]));
        assert_eq!(three.len(), 56);
        assert_eq!([three[0], three[8], three[16], three[36]], [4, 5, JUMP, JUMP]);
        assert_eq!(u16::from_ne_bytes([three[18], three[19]]), 40, "from the first jump to the end");
        assert_eq!(u16::from_ne_bytes([three[38], three[39]]), 20, "from the second one");
    }

    #[test]
    fn a_question_waits_until_it_is_paid_for() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let due = |pace: Pace, after| pace.is_due(start + ms(after));
        let mut pace = Pace::default();
        assert!(pace.is_due(start));
        pace.paid(start, ms(25), PRICE_TIMES, false);
        assert_eq!((due(pace, 9_999), due(pace, 10_000)), (false, true));
        let mut pace = Pace::default();
        pace.paid(start, ms(1), PRICE_TIMES, true);
        assert_eq!((due(pace, 3_999), due(pace, 4_000)), (false, true));
        let mut pace = Pace::default();
        pace.paid(start, ms(50), PRICE_TIMES, true);
        assert_eq!((due(pace, 9_999), due(pace, 10_000)), (false, true));
        let mut pace = Pace::default();
        pace.paid(start, ms(200), PRICE_TIMES, true);
        assert_eq!((due(pace, 19_999), due(pace, 20_000)), (false, true));
    }

    #[test]
    fn the_kernel_tells_of_a_listener_of_each_kind() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(socket) = TcpListener::bind(address) else { continue };
            let address = socket.local_addr().unwrap();
            let found = listeners(soon()).unwrap();
            let found = found.iter().find(|listener| listener.address == address);
            assert!(found.is_some_and(|found| found.inode > 0 && found.backlog > 0 && found.waiting == 0), "{found:?}");
        }
    }

    #[test]
    fn the_kernel_leaves_out_what_was_not_asked_for() {
        let near = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = near.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let _other = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        client.write_all(b"four").unwrap();
        let ask = |question| {
            let mut all = Vec::new();
            connections(question, Family::V4, soon(), |connection| all.push(*connection)).unwrap();
            // Ports are what was asked for; somebody else may have the same one at another address of the loopback.
            all.retain(|connection| connection.local.ip() == address.ip());
            all
        };
        // Ports before and behind it exercise all jumps.
        let ports = [1, address.port(), 2];
        let to = ask(Question::To(&ports));
        assert_eq!(to.len(), 1, "{to:?}");
        assert_eq!((to[0].remote, to[0].unread, to[0].silence), (client.local_addr().unwrap(), 4, None));
        let from = ask(Question::From(&ports));
        assert_eq!(from.len(), 1, "{from:?}");
        assert_eq!((from[0].local, from[0].unread), (client.local_addr().unwrap(), 0));
        assert!(from[0].inode > 0 && from[0].silence.is_some());
        assert_eq!(ask(Question::To(&[])), []);
    }

    #[test]
    fn more_ports_than_one_can_ask_for_are_an_error() {
        let ports = vec![1; PORTS_MAX + 1];
        let result = connections(Question::To(&ports), Family::V4, soon(), |_| {});
        assert_eq!(result.unwrap_err().trouble, Trouble::TooLarge);
        let ports = vec![1; PORTS_MAX];
        assert_eq!(connections(Question::To(&ports), Family::V4, soon(), |_| {}), Ok(()));
    }

    #[test]
    fn nothing_is_asked_for_after_the_deadline() {
        let past = Instant::now() - Duration::from_millis(1);
        assert_eq!(listeners(past).unwrap_err().trouble, Trouble::Timeout);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            kind in prop_oneof![Just(SOCK_DIAG_BY_FAMILY), Just(NLMSG_ERROR), Just(NLMSG_DONE), any::<u16>()],
        ) {
            let mut each = |payload: &[u8]| connection(payload, true).map(drop);
            let _ = is_last(&noise, &mut each);
            let _ = is_last(&message(kind, 2, SEQUENCE, &noise), &mut each);
            let mut socket = socket(2, &[1; 4], &[2; 4]);
            socket.extend(&noise);
            let _ = is_last(&message(kind, 2, SEQUENCE, &socket), &mut each);
        }
    }
}
