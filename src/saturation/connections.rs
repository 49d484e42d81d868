//! Accept queues, unread bytes, and pools that can be inferred from the backend's connections.
//! Source: the kernel's list of sockets (`sockets.rs`), and whose they are (`ownership.rs`).
//! Units:  connections and bytes.
//! Absent: queues and unread bytes where no listener of the backend is in this network namespace.
//!
//! # Whose sockets
//!
//! Listeners are the backend's if one of its processes has them open. If that cannot be read, or if it is not known
//! which processes the backend is, they are those at the upstream's address, provided that it is one of this machine.
//! Connections of a pool are likewise those that its processes have open; else those of the user that its listener
//! belongs to; else all in the network namespace. In the latter two cases never those of this process.
//!
//! # A pool from outside
//!
//! A connection is in use when data was sent later than received: it waits for an answer. While an answer is
//! arriving, or is worked on by the backend, it seems to be idle; where the backend has the last word, as with a MySQL
//! statement that it closes, it seems to be in use. A pool that nobody uses reads 0, it is not absent.
//!
//! Often both happened within one tick of the kernel's clock: `BEGIN`, its answer, and then a query that takes long. Then
//! the acknowledgement tells. The other end acknowledges a query by itself when it has no answer to send along within
//! some 40 ms, 200 at most (`TCP_DELACK_MAX`); after an answer nothing is left to acknowledge. What was told so is
//! remembered while nothing is said on the connection, as keep-alive probes are acknowledged, too, seconds later.
//!
//! # What it costs
//!
//! Each question waits until its price is a quarter of one per cent of the time ([`Pace`]), that about all clients four times
//! longer: what nobody reads piles up over seconds. Meanwhile its last answer stands.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::config::{Pool, PoolKind};
use crate::labels::{PoolSource, PoolState, Resource, Source, Trouble, UnreadStat};
use crate::saturation::backend::Identity;
use crate::saturation::fault::Fault;
use crate::saturation::ownership::{self, Owned};
use crate::saturation::sockets::{self, Connection, Family, Listener, Pace, Question, Silence, SocketListener};
use crate::saturation::{Probe, Round, Settings};
use crate::signals::families as f;

/// An acknowledgement that comes up to so much later than the last data is that of a query without an answer: the longest
/// delay of one, and a way there and back. Keep-alive probes are a second apart at the least.
const ACKNOWLEDGEMENT_DELAY_MAX_MS: u32 = 400;
/// Ports of the backend that are shown. Most have one or two; who listens on hundreds would get as many series.
const PORTS_MAX: usize = 64;

/// Stands for the port of the upstream if that is a socket of the file system.
const NO_PORT: &str = "unix";

/// Whether the backend's descriptors can be read.
pub(super) struct Descriptors {
    shared: Shared,
}

/// Accept queues of the backend's listeners.
pub(super) struct Listeners {
    shared: Shared,
    upstream: Arc<[SocketAddr]>,
    socket: Option<Arc<Path>>,
}

/// Connections of the backend, to its clients and to others.
pub(super) struct Connections {
    shared: Shared,
    unread: [Asked<Unread>; 2],
    /// Where the backend listened when they were asked for.
    listening: Vec<(Family, SocketAddr)>,
    pools: Vec<Inferred>,
    /// The remote ports of `pools`.
    ports: Vec<u16>,
    members: [Asked<Vec<Member>>; 2],
    /// What was last told of the connections to where the pools lead.
    told: HashMap<u64, Told>,
}

/// What the three of them know together. They run one after the other, so nobody waits.
type Shared = Arc<Mutex<Known>>;

struct Known {
    backend: Owned,
    /// This process.
    itself: Owned,
    listeners: Result<Vec<Listener>, Fault>,
}

/// A question, and its last answer.
struct Asked<T> {
    answer: Result<T, Fault>,
    pace: Pace,
}

/// Bytes in receive queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Unread {
    sockets: u64,
    sum: u64,
    max: u32,
}

/// A pool of the configuration.
struct Inferred {
    name: String,
    address: Option<IpAddr>,
    port: u16,
    limit: Option<u64>,
}

/// A connection to where a pool leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    /// Its place in the list of pools.
    pool: usize,
    inode: u64,
    uid: u32,
    told: Told,
}

/// Whether a connection waits for an answer, and what had been said on it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    in_use: bool,
    said: Option<(u32, u32)>,
}

/// The probes of this file, in the order in which they have to run.
pub(super) fn probes(settings: &Settings) -> [Box<dyn Probe>; 3] {
    let unknown = Fault::new(Trouble::Unknown, "the listeners have not been read yet");
    let known = Known { backend: Owned::default(), itself: Owned::default(), listeners: Err(unknown) };
    let shared = Arc::new(Mutex::new(known));
    let pools: Vec<Inferred> = settings.saturation.pools.iter().filter_map(Inferred::of).collect();
    let mut ports: Vec<u16> = pools.iter().map(|pool| pool.port).collect();
    ports.sort_unstable();
    ports.dedup();
    let connections = Connections {
        shared: Arc::clone(&shared),
        unread: Default::default(),
        listening: Vec::new(),
        pools,
        ports,
        members: Default::default(),
        told: HashMap::new(),
    };
    let listeners = Listeners {
        shared: Arc::clone(&shared),
        upstream: Arc::clone(&settings.upstream),
        socket: settings.socket.clone(),
    };
    [Box::new(Descriptors { shared }), Box::new(listeners), Box::new(connections)]
}

/// Where the backend's connections lead, and how many of them are in use and idle, the busiest address first: what a
/// person needs to know to configure pools.
///
/// # Errors
/// When the kernel or the backend's descriptors cannot be read.
pub(super) fn outgoing(processes: &[Identity], deadline: Instant) -> Result<Vec<(SocketAddr, [u64; 2])>, Fault> {
    let mut owned = Owned::default();
    owned.look_for(processes, std::iter::empty(), Instant::now(), deadline);
    owned.is_known()?;
    let listeners = sockets::listeners(deadline)?;
    let listening: Vec<SocketAddr> =
        listeners.iter().filter(|listener| owned.has(listener.inode)).map(|listener| listener.address).collect();
    let mut found: BTreeMap<SocketAddr, [u64; 2]> = BTreeMap::new();
    for family in Family::ALL {
        sockets::connections(Question::All, family, deadline, |connection| {
            let came_in = listening.iter().any(|listener| ownership::takes(*listener, connection.local));
            if owned.has(connection.inode) && !came_in {
                let in_use = connection.silence.is_some_and(|silence| is_waiting(&silence, None));
                found.entry(connection.remote).or_default()[usize::from(!in_use)] += 1;
            }
        })?;
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(_, [in_use, idle])| std::cmp::Reverse(in_use + idle));
    Ok(found)
}

// === Descriptors ===

impl Probe for Descriptors {
    fn source(&self) -> Cow<'static, str> {
        Source::Descriptors.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let processes = round.backend.known()?;
        let mut known = lock(&self.shared);
        known.backend.look_for(processes, std::iter::empty(), round.now, round.deadline);
        known.backend.is_known()
    }
}

// === Listeners ===

impl Probe for Listeners {
    fn source(&self) -> Cow<'static, str> {
        Source::Listeners.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let mut known = lock(&self.shared);
        known.listeners = self.of_backend(&mut known.backend, round);
        for (port, queue) in queues(known.listeners.as_ref().map_err(Fault::clone)?) {
            let label = || [port.to_string()];
            round.notes.gauge(&f::BACKEND_ACCEPT_QUEUE, label(), queue.waiting as f64);
            round.notes.gauge(&f::BACKEND_ACCEPT_QUEUE_LIMIT, label(), queue.backlog as f64);
            // Each socket of a port has a queue of its own, and the fullest one is where connections fail.
            let (waiting, backlog) = queue.fullest;
            round.notes.usage(Resource::AcceptQueue.as_str(), f64::from(waiting), f64::from(backlog));
        }
        if let Some(path) = &self.socket {
            let SocketListener { waiting, backlog, .. } = sockets::at_path(path, round.deadline)?;
            let label = || [NO_PORT];
            round.notes.gauge(&f::BACKEND_ACCEPT_QUEUE, label(), f64::from(waiting));
            round.notes.gauge(&f::BACKEND_ACCEPT_QUEUE_LIMIT, label(), f64::from(backlog));
            round.notes.usage(Resource::AcceptQueue.as_str(), f64::from(waiting), f64::from(backlog));
        }
        Ok(())
    }
}

impl Listeners {
    /// The backend's listeners, those of the upstream's ports first, of at most 64 ports.
    fn of_backend(&self, backend: &mut Owned, round: &Round<'_>) -> Result<Vec<Listener>, Fault> {
        let all = sockets::listeners(round.deadline)?;
        let inodes = all.iter().map(|listener| listener.inode);
        let processes = round.backend.known();
        if let Ok(processes) = &processes {
            backend.look_for(processes, inodes, round.now, round.deadline);
        }
        let mut own: Vec<Listener> = match (processes, backend.is_known()) {
            (Ok(_), Ok(())) => all.into_iter().filter(|listener| backend.has(listener.inode)).collect(),
            _ => ownership::at_address(&all, &self.upstream),
        };
        let is_upstream = |port| self.upstream.iter().any(|upstream| upstream.port() == port);
        own.sort_by_key(|listener| (!is_upstream(listener.address.port()), listener.address.port()));
        let mut ports: Vec<u16> = own.iter().map(|listener| listener.address.port()).collect();
        ports.dedup();
        ports.truncate(PORTS_MAX);
        own.retain(|listener| ports.contains(&listener.address.port()));
        if own.is_empty() && self.socket.is_none() {
            return Err(Fault::new(Trouble::Absent, "no listener of the backend is in this network namespace"));
        }
        Ok(own)
    }
}

/// All queues of one port.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Queue {
    waiting: u64,
    backlog: u64,
    /// Of one socket.
    fullest: (u32, u32),
}

fn queues(listeners: &[Listener]) -> BTreeMap<u16, Queue> {
    let mut queues: BTreeMap<u16, Queue> = BTreeMap::new();
    for Listener { address, waiting, backlog, .. } in listeners {
        let queue = queues.entry(address.port()).or_default();
        queue.waiting += u64::from(*waiting);
        queue.backlog += u64::from(*backlog);
        let ratio = |(waiting, backlog): (u32, u32)| f64::from(waiting) / f64::from(backlog.max(1));
        if queue.fullest.1 == 0 || ratio((*waiting, *backlog)) > ratio(queue.fullest) {
            queue.fullest = (*waiting, *backlog);
        }
    }
    queues
}

// === Connections ===

impl Probe for Connections {
    fn source(&self) -> Cow<'static, str> {
        Source::Connections.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let known = &mut *lock(&shared);
        // Pools first: few sockets, so they are not what takes the time.
        let pools = if self.pools.is_empty() { None } else { Some(self.pools(known, round)) };
        let unread = known.listeners.clone().map(|listeners| self.unread(&listeners, round));
        if let Some(Ok(counts)) = &pools {
            self.note_pools(counts, round);
        }
        if let Ok(Ok(Unread { sum, max, .. })) = unread {
            round.notes.gauge(&f::BACKEND_UNREAD, [UnreadStat::Sum.as_str()], sum as f64);
            round.notes.gauge(&f::BACKEND_UNREAD, [UnreadStat::Max.as_str()], f64::from(max));
        }
        match (pools, unread) {
            (Some(Err(fault)), _) | (_, Ok(Err(fault))) | (None, Err(fault)) => Err(fault),
            // Who listens nowhere here may have pools all the same.
            (Some(Ok(_)), Err(_)) | (_, Ok(Ok(_))) => Ok(()),
        }
    }
}

impl Connections {
    fn unread(&mut self, listeners: &[Listener], round: &Round<'_>) -> Result<Unread, Fault> {
        let mut listening: Vec<_> = listeners.iter().map(|listener| (listener.family, listener.address)).collect();
        listening.sort_unstable();
        listening.dedup();
        if listening != self.listening {
            // What was heard of others says nothing about these.
            (self.unread, self.listening) = (Default::default(), listening);
        }
        let mut ports: Vec<u16> = self.listening.iter().map(|(_, address)| address.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        let mut both = Unread::default();
        for (family, asked) in Family::ALL.into_iter().zip(&mut self.unread) {
            let listening = &self.listening;
            if listening.iter().all(|(of, _)| *of != family) {
                continue;
            }
            let answer = asked.ask(round.now, sockets::PRICE_TIMES_IF_SLOW, |unread: &mut Unread| {
                sockets::connections(Question::To(&ports), family, round.deadline, |connection| {
                    // Somebody else may listen on the same port at another address.
                    if listening.iter().any(|(_, listener)| ownership::takes(*listener, connection.local)) {
                        unread.add(Unread { sockets: 1, sum: connection.unread.into(), max: connection.unread });
                    }
                })?;
                Ok(unread.sockets == 0)
            })?;
            both.add(*answer);
        }
        Ok(both)
    }

    /// How many connections of each pool are in use, and how many are not.
    fn pools(&mut self, known: &mut Known, round: &Round<'_>) -> Result<Vec<[u64; 2]>, Fault> {
        let mut members: Vec<Member> = Vec::new();
        for (family, asked) in Family::ALL.into_iter().zip(&mut self.members) {
            let (pools, told) = (&self.pools, &self.told);
            let answer = asked.ask(round.now, sockets::PRICE_TIMES, |members: &mut Vec<Member>| {
                let mut unsaid = false;
                sockets::connections(Question::From(&self.ports), family, round.deadline, |connection| {
                    unsaid |= connection.silence.is_none();
                    members.extend(
                        pools.iter().enumerate().filter_map(|(index, pool)| pool.member(index, connection, told)),
                    );
                })?;
                if unsaid { Err(Fault::malformed("TCP_INFO of a socket")) } else { Ok(members.is_empty()) }
            })?;
            members.extend(answer);
        }
        self.told = members.iter().map(|member| (member.inode, member.told)).collect();
        let mut counts = vec![[0; 2]; self.pools.len()];
        let is_own = known.ownership(&members, round);
        for member in members.iter().filter(|member| is_own(member)) {
            counts[member.pool][usize::from(!member.told.in_use)] += 1;
        }
        Ok(counts)
    }

    fn note_pools(&self, counts: &[[u64; 2]], round: &mut Round<'_>) {
        for (Inferred { name, limit, .. }, [in_use, idle]) in self.pools.iter().zip(counts) {
            for (state, count) in [(PoolState::InUse, *in_use), (PoolState::Idle, *idle)] {
                let labels = [name.clone(), state.as_str().to_owned(), PoolSource::Inferred.as_str().to_owned()];
                round.notes.gauge(&f::POOL_CONNECTIONS, labels, count as f64);
            }
            if let Some(limit) = limit {
                round.notes.gauge(&f::POOL_SIZE_LIMIT, [name.clone()], *limit as f64);
                round.notes.usage(format!("pool:{name}"), *in_use as f64, *limit as f64);
            }
        }
    }
}

// === impl Known ===

fn lock(shared: &Shared) -> MutexGuard<'_, Known> {
    // What a panic left behind is a cache.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    /// Which connections are the backend's.
    fn ownership(&mut self, members: &[Member], round: &Round<'_>) -> impl Fn(&Member) -> bool {
        let Known { backend, itself, listeners } = self;
        let inodes = members.iter().map(|member| member.inode);
        let processes = round.backend.known();
        if let Ok(processes) = processes {
            backend.look_for(processes, inodes.clone(), round.now, round.deadline);
        }
        let by_descriptor = round.backend.known().is_ok() && backend.is_known().is_ok();
        if !by_descriptor {
            // It is one and the same as long as we ask, so its start says nothing.
            let this = Identity { pid: std::process::id() as i32, start_ticks: 0 };
            itself.look_for(&[this], inodes, round.now, round.deadline);
        }
        let uid = listeners.as_ref().ok().and_then(|listeners| listeners.first()).map(|listener| listener.uid);
        move |Member { inode, uid: user, .. }| {
            if by_descriptor { backend.has(*inode) } else { !itself.has(*inode) && uid.is_none_or(|uid| uid == *user) }
        }
    }
}

// === impl Asked ===

impl<T: Default> Default for Asked<T> {
    fn default() -> Asked<T> {
        Asked { answer: Ok(T::default()), pace: Pace::default() }
    }
}

impl<T: Default> Asked<T> {
    /// Asks if it is time for it. `question` fills in the answer, and says whether it is an empty one.
    fn ask(
        &mut self,
        now: Instant,
        price_times: u32,
        question: impl FnOnce(&mut T) -> Result<bool, Fault>,
    ) -> Result<&T, Fault> {
        if self.pace.is_due(now) {
            let begun = Instant::now();
            let mut answer = T::default();
            let result = question(&mut answer);
            // What failed may have been dear too.
            self.pace.paid(now, begun.elapsed(), price_times, matches!(result, Ok(true)));
            self.answer = result.map(|_| answer);
        }
        self.answer.as_ref().map_err(Fault::clone)
    }
}

// === impl Unread ===

impl Unread {
    fn add(&mut self, Unread { sockets, sum, max }: Unread) {
        self.sockets += sockets;
        self.sum += sum;
        self.max = self.max.max(max);
    }
}

// === impl Inferred ===

impl Inferred {
    fn of(pool: &Pool) -> Option<Inferred> {
        let Pool { name, kind, limit } = pool;
        match kind {
            PoolKind::Inferred { address, port } => Some(Inferred {
                name: name.clone(),
                address: address.map(|address| address.to_canonical()),
                port: *port,
                limit: *limit,
            }),
            PoolKind::Reported { .. } => None,
        }
    }

    /// The connection as one of this pool, if it leads there.
    fn member(&self, pool: usize, connection: &Connection, told: &HashMap<u64, Told>) -> Option<Member> {
        let Connection { remote, inode, uid, silence, .. } = connection;
        let leads_there = remote.port() == self.port && self.address.is_none_or(|address| address == remote.ip());
        let silence = silence.filter(|_| leads_there)?;
        let told = Told { in_use: is_waiting(&silence, told.get(inode)), said: silence.said };
        Some(Member { pool, inode: *inode, uid: *uid, told })
    }
}

/// Whether data was sent later than received. `before`: what was told of this connection last.
fn is_waiting(silence: &Silence, before: Option<&Told>) -> bool {
    let Silence { sent_ms, received_ms, acknowledged_ms, unacknowledged, said } = *silence;
    match sent_ms.cmp(&received_ms) {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal => {
            let acknowledged_alone =
                acknowledged_ms < received_ms && received_ms - acknowledged_ms <= ACKNOWLEDGEMENT_DELAY_MAX_MS;
            let never_answered = matches!(said, Some((0, 1..)));
            let still = before.is_some_and(|before| before.in_use && said.is_some() && before.said == said);
            unacknowledged > 0 || never_answered || acknowledged_alone || still
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::config;
    use crate::saturation::backend::Backend;
    use crate::saturation::limits::Facts;
    use crate::saturation::notes::Notes;
    use crate::signals::families::Family as Metric;

    /// The probes of this file, beside a backend that is this process or is not known.
    struct Bench {
        probes: [Box<dyn Probe>; 3],
        backend: Backend,
        now: Instant,
    }

    impl Bench {
        fn new(is_known: bool, upstream: SocketAddr, pools: Vec<Pool>) -> Bench {
            let saturation =
                config::Saturation { interval: Duration::from_secs(1), backend: Default::default(), pools };
            let settings = Settings { saturation, upstream: Arc::new([upstream]), socket: None, wrapped: false };
            let this = Identity { pid: std::process::id() as i32, start_ticks: 1 };
            let processes = if is_known { vec![this] } else { Vec::new() };
            let backend = Backend { processes, ..Backend::default() };
            Bench { probes: probes(&settings), backend, now: Instant::now() }
        }

        /// A round, long enough after the last one for every question to be paid for.
        fn round(&mut self) -> (Notes, Vec<Result<(), Fault>>) {
            self.now += Duration::from_secs(3600);
            self.round_at(self.now)
        }

        fn round_at(&mut self, now: Instant) -> (Notes, Vec<Result<(), Fault>>) {
            let (mut facts, mut notes) = (Facts::default(), Notes::default());
            let each = self.probes.iter_mut().map(|probe| {
                let deadline = Instant::now() + Duration::from_secs(5);
                let (facts, notes) = (&mut facts, &mut notes);
                probe.read(&mut Round { now, deadline, backend: &self.backend, facts, notes })
            });
            let results = each.collect();
            (notes, results)
        }

        /// Rounds until they say what is expected; the kernel takes a moment to deliver.
        fn round_until(&mut self, expected: impl Fn(&Notes) -> bool) -> Notes {
            let end = Instant::now() + Duration::from_secs(10);
            loop {
                let (notes, _) = self.round();
                if expected(&notes) || Instant::now() > end {
                    return notes;
                }
            }
        }
    }

    fn value(notes: &Notes, family: &'static Metric, labels: &[&str]) -> Option<f64> {
        let points = notes.points();
        points.iter().find(|p| std::ptr::eq(p.family, family) && p.labels.iter().eq(labels)).map(|p| p.value)
    }

    fn listen(backlog: i32) -> (TcpListener, SocketAddr) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(backlog).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn pool(name: &str, address: SocketAddr, limit: Option<u64>) -> Pool {
        let kind = PoolKind::Inferred { address: Some(address.ip()), port: address.port() };
        Pool { name: name.to_owned(), kind, limit }
    }

    #[test]
    fn five_connections_that_nobody_accepts_are_five_of_eight() {
        for is_known in [true, false] {
            let (_listener, address) = listen(8);
            let _clients: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
            let port = address.port().to_string();
            let mut bench = Bench::new(is_known, address, Vec::new());
            let notes = bench.round_until(|notes| value(notes, &f::BACKEND_ACCEPT_QUEUE, &[&port]) == Some(5.0));
            assert_eq!(value(&notes, &f::BACKEND_ACCEPT_QUEUE, &[&port]), Some(5.0));
            assert_eq!(value(&notes, &f::BACKEND_ACCEPT_QUEUE_LIMIT, &[&port]), Some(8.0));
            assert!(notes.usages().iter().any(|usage| (usage.used, usage.limit) == (5.0, 8.0)));
            let (_, results) = bench.round();
            assert_eq!(results[0].is_ok(), is_known, "{:?}", results[0]);
            assert_eq!(results[1..], [Ok(()), Ok(())]);
        }
    }

    #[test]
    fn several_sockets_of_one_port_are_one_series_and_the_fullest_of_them_is_the_ratio() {
        let address = "127.0.0.1:80".parse().unwrap();
        let listener = |waiting, backlog| Listener { address, family: Family::V4, inode: 1, uid: 2, waiting, backlog };
        let queues = queues(&[listener(3, 16), listener(4, 8), listener(5, 32)]);
        assert_eq!(queues[&80], Queue { waiting: 12, backlog: 56, fullest: (4, 8) });
        assert_eq!(queues.len(), 1);
    }

    #[test]
    fn a_backend_elsewhere_has_no_queue_and_no_unread_bytes() {
        let (_listener, _) = listen(8);
        // An address for documentation, which nobody has.
        let (notes, results) = Bench::new(false, "192.0.2.1:80".parse().unwrap(), Vec::new()).round();
        let troubles: Vec<_> = results.into_iter().map(|result| result.unwrap_err().trouble).collect();
        assert_eq!(troubles, [Trouble::Unknown, Trouble::Absent, Trouble::Absent]);
        assert!(notes.points().is_empty());
    }

    #[test]
    fn bytes_that_the_backend_has_not_read_are_summed_up() {
        // What listens for both families has connections of IPv4 in the clothes of IPv6.
        for at in ["127.0.0.1:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(at) else { continue };
            let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
            let mut clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
            let mut served: Vec<TcpStream> = clients.iter().map(|_| listener.accept().unwrap().0).collect();
            let (sizes, mut buffer) = ([100, 2000, 30], [7; 2000]);
            for (client, size) in clients.iter_mut().zip(sizes) {
                client.write_all(&buffer[..size]).unwrap();
            }
            let mut bench = Bench::new(false, address, Vec::new());
            let unread = |notes: &Notes| ["sum", "max"].map(|stat| value(notes, &f::BACKEND_UNREAD, &[stat]));
            let notes = bench.round_until(|notes| unread(notes) == [Some(2130.0), Some(2000.0)]);
            assert_eq!(unread(&notes), [Some(2130.0), Some(2000.0)], "{at}");
            // Whatever order they came in.
            served.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
            for socket in &mut served {
                while socket.read(&mut buffer).is_ok_and(|length| length > 0) {}
            }
            let (notes, _) = bench.round();
            assert_eq!(unread(&notes), [Some(0.0), Some(0.0)], "{at}");
        }
    }

    #[test]
    fn within_one_tick_the_acknowledgement_tells_who_spoke_last() {
        let silence = |sent_ms, received_ms, acknowledged_ms, unacknowledged| Silence {
            sent_ms,
            received_ms,
            acknowledged_ms,
            unacknowledged,
            said: Some((1, 1)),
        };
        assert!(is_waiting(&silence(348, 356, 304, 0), None), "sent later");
        assert!(!is_waiting(&silence(356, 348, 348, 0), None), "received later");
        assert!(!is_waiting(&silence(348, 348, 348, 0), None), "the answer came with the acknowledgement");
        assert!(is_waiting(&silence(348, 348, 304, 0), None), "acknowledged by itself, 44 ms later");
        assert!(is_waiting(&silence(4, 4, 4, 1), None), "not acknowledged yet");
        assert!(!is_waiting(&silence(90_000, 90_000, 30_000, 0), None), "a keep-alive probe, a minute later");
        let first = Silence { said: Some((0, 1)), ..silence(90_000, 90_000, 90_000, 0) };
        assert!(is_waiting(&first, None), "the first query on a new connection");
        let new = Silence { said: Some((0, 0)), ..first };
        assert!(!is_waiting(&new, None), "a new connection");
        let waiting = Told { in_use: true, said: Some((1, 1)) };
        assert!(is_waiting(&silence(90_000, 90_000, 30_000, 0), Some(&waiting)), "the same while a query takes long");
        let other = Told { in_use: true, said: Some((1, 2)) };
        assert!(!is_waiting(&silence(90_000, 90_000, 30_000, 0), Some(&other)), "something was said since");
    }

    #[test]
    fn connections_that_wait_for_an_answer_are_the_ones_in_use() {
        let (listener, database) = listen(64);
        let mut connections: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(database).unwrap()).collect();
        let mut served: Vec<TcpStream> = connections.iter().map(|_| listener.accept().unwrap().0).collect();
        // Three get an answer.
        for (connection, server) in connections.iter_mut().zip(&mut served).take(3) {
            connection.write_all(b"?").unwrap();
            server.read_exact(&mut [0]).unwrap();
            server.write_all(b"!").unwrap();
            connection.read_exact(&mut [0]).unwrap();
        }
        let (_upstream, upstream) = listen(8);
        let mut other = database;
        other.set_ip([127, 0, 0, 2].into());
        let pools = vec![pool("db", database, Some(14)), pool("unused", other, None)];
        let mut bench = Bench::new(true, upstream, pools);
        let state = |notes: &Notes, pool: &str| {
            let value = |state| value(notes, &f::POOL_CONNECTIONS, &[pool, state, "inferred"]);
            (value("in_use"), value("idle"))
        };
        let notes = bench.round_until(|notes| state(notes, "db") == (Some(0.0), Some(10.0)));
        assert_eq!(state(&notes, "db"), (Some(0.0), Some(10.0)));

        let end = Instant::now() + Duration::from_secs(10);
        let notes = loop {
            // Again and again: what is sent within the tick of connecting is not later.
            for connection in connections.iter_mut().skip(3) {
                connection.write_all(b"?").unwrap();
            }
            let (notes, results) = bench.round();
            assert_eq!(results, [Ok(()), Ok(()), Ok(())]);
            if state(&notes, "db") == (Some(7.0), Some(3.0)) || Instant::now() > end {
                break notes;
            }
        };
        assert_eq!(state(&notes, "db"), (Some(7.0), Some(3.0)));
        assert_eq!(value(&notes, &f::POOL_SIZE_LIMIT, &["db"]), Some(14.0));
        let usage = notes.usages().iter().find(|usage| usage.resource == "pool:db").unwrap();
        assert_eq!((usage.used, usage.limit), (7.0, 14.0));
        assert_eq!(state(&notes, "unused"), (Some(0.0), Some(0.0)), "nobody leads there, which is not unknown");
        assert_eq!(value(&notes, &f::POOL_SIZE_LIMIT, &["unused"]), None);
    }

    #[test]
    fn connections_of_this_process_are_not_a_backends() {
        let (listener, database) = listen(8);
        let _connection = TcpStream::connect(database).unwrap();
        let _served = listener.accept().unwrap();
        let (_upstream, upstream) = listen(8);
        let mut bench = Bench::new(false, upstream, vec![pool("db", database, None)]);
        let (notes, results) = bench.round();
        assert_eq!(results[2], Ok(()));
        assert_eq!(value(&notes, &f::POOL_CONNECTIONS, &["db", "idle", "inferred"]), Some(0.0));
    }

    #[test]
    fn an_answer_stands_until_the_next_one_is_paid_for() {
        let mut asked = Asked::default();
        let start = Instant::now();
        let price = Duration::from_millis(20);
        let mut ask = |after, number: u32| {
            let question = |answer: &mut u32| {
                let end = Instant::now() + price;
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
                *answer = number;
                if number == 2 { Err(Fault::malformed("two")) } else { Ok(false) }
            };
            asked
                .ask(start + Duration::from_secs(after), sockets::PRICE_TIMES, question)
                .cloned()
                .map_err(|fault| fault.trouble)
        };
        assert_eq!(ask(0, 1), Ok(1));
        assert_eq!(ask(1, 2), Ok(1), "a hundred times 20 ms is more than a second");
        assert_eq!(ask(100, 2), Err(Trouble::Malformed));
        assert_eq!(ask(101, 3), Err(Trouble::Malformed), "a failure was not for free either");
        assert_eq!(ask(200, 3), Ok(3));
    }
}
