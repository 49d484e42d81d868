//! Where the backend is, and connecting to it.
//!
//! Of several addresses, each new connection begins with the next one of the family that the resolver put first, so that
//! the pods of a headless service get equal shares. If it does not answer at once, the next attempt goes to the other
//! family (Happy Eyeballs, RFC 8305, section 4 and 5), and the first connection that stands is taken.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use crate::transport::Stream;
use crate::transport::resolve::Name;

/// How long an attempt is alone before the next one begins beside it: RFC 8305, section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Most addresses that are kept of a name: more pods than one sidecar sends to, and a look through them when a connection
/// comes back costs nanoseconds.
const ADDRESSES_MAX: usize = 256;
/// How soon a socket of the file system is tried again whose queue is full. The kernel calls nobody when it has room, and
/// such queues are short: this is soon enough to be served, and seldom enough to cost nothing.
const FULL_QUEUE_WAIT: Duration = Duration::from_millis(10);

/// The backend's addresses, as they are known now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Addresses {
    places: Places,
    /// Connections so far, over all workers: touched when one is opened, never for a request.
    turn: Arc<AtomicUsize>,
    /// Who looks the name up again, if it is one.
    name: Option<Arc<Name>>,
}

#[derive(Clone, Debug)]
enum Places {
    /// At least one. Those of the family that the resolver put first come first: so many.
    Tcp(Arc<[SocketAddr]>, usize),
    Unix(Arc<Path>),
}

/// Where one connection leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A port of TCP.
    Tcp(SocketAddr),
    /// A socket of the file system.
    Unix(Arc<Path>),
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(out),
            Address::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

// === impl Addresses ===

impl Addresses {
    /// A socket of the file system.
    #[must_use]
    pub fn unix(path: &Path) -> Addresses {
        Addresses { places: Places::Unix(path.into()), turn: Arc::default(), name: None }
    }

    /// What a resolver answered, in its order; `None`: nothing.
    #[must_use]
    pub fn of(answer: &[SocketAddr]) -> Option<Addresses> {
        let first = answer.first()?;
        let mut kept = answer.to_vec();
        if kept.len() > ADDRESSES_MAX {
            // The same ones each time, whatever the order of the answer.
            kept.sort_unstable();
            kept.dedup();
            kept.truncate(ADDRESSES_MAX);
        }
        let (mut ordered, others): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|address| address.is_ipv4() == first.is_ipv4());
        let of_first = ordered.len();
        ordered.extend(others);
        Some(Addresses { places: Places::Tcp(ordered.into(), of_first), turn: Arc::default(), name: None })
    }

    /// The same, of a name that is looked up again.
    #[must_use]
    pub(super) fn named(mut self, name: Arc<Name>) -> Addresses {
        self.name = Some(name);
        self
    }

    /// Who looks the name up again.
    pub(super) fn name(&self) -> Option<&Arc<Name>> {
        self.name.as_ref()
    }

    /// What a later answer for the same name makes of them.
    pub(super) fn followed_by(&self, later: Addresses) -> Addresses {
        Addresses { turn: Arc::clone(&self.turn), name: self.name.clone(), ..later }
    }

    /// The addresses of TCP; none for a socket of the file system.
    #[must_use]
    pub fn tcp(&self) -> &[SocketAddr] {
        match &self.places {
            Places::Tcp(addresses, _) => addresses,
            Places::Unix(_) => &[],
        }
    }

    /// The socket of the file system, if it is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Arc<Path>> {
        match &self.places {
            Places::Tcp(..) => None,
            Places::Unix(path) => Some(path),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Address> {
        let unix = self.socket().cloned().map(Address::Unix);
        self.tcp().iter().copied().map(Address::Tcp).chain(unix)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tcp().len().max(1)
    }

    /// Whether new connections may still lead there.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        match (&self.places, address) {
            (Places::Tcp(addresses, _), Address::Tcp(address)) => addresses.contains(address),
            (Places::Unix(path), Address::Unix(other)) => path == other,
            _ => false,
        }
    }

    /// Whether both are the same set. The order is that of the moment: resolvers and name servers turn it round at will.
    #[must_use]
    pub fn same_places(&self, other: &Addresses) -> bool {
        self.iter().all(|address| other.contains(&address)) && other.iter().all(|address| self.contains(&address))
    }

    /// To be told when a connection was refused or not made in time: the name is asked for again. Whether it was already
    /// gone then, which makes its last addresses doubtful and the name the fault.
    #[must_use]
    pub fn connect_failed(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.connect_failed())
    }

    /// Has the name asked for soon, if it is one, for another reason.
    pub fn ask_again(&self) {
        let _ = self.connect_failed();
    }

    /// Whether the last question for the name has failed; never true for addresses that are none of a name.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.is_lost())
    }

    /// A connection to one of them, and to which. It has no limit of its own but that of the system; a caller that has
    /// waited long enough drops it.
    ///
    /// # Errors
    /// That of the attempt that failed last, when all have.
    pub async fn connect(&self) -> io::Result<(Stream, Address)> {
        match &self.places {
            Places::Unix(path) => Ok((Stream::Unix(connect_unix(path).await?), Address::Unix(Arc::clone(path)))),
            Places::Tcp(addresses, of_first) => {
                let (stream, address) = match &**addresses {
                    [address] => (TcpStream::connect(address).await?, *address),
                    _ => race(Order::new(addresses, *of_first, self.turn.fetch_add(1, Relaxed))).await?,
                };
                let stream = Stream::Tcp(stream);
                stream.set_nodelay();
                Ok((stream, Address::Tcp(address)))
            }
        }
    }
}

/// Waits while the queue of the listener is full, as the kernel does for TCP.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(FULL_QUEUE_WAIT).await,
            result => return result,
        }
    }
}

// === Order ===

/// In which order one connection tries the addresses: each family from the same turn on, one of each by turns.
struct Order<'a> {
    first: &'a [SocketAddr],
    other: &'a [SocketAddr],
    turn: usize,
    next: usize,
}

impl<'a> Order<'a> {
    fn new(addresses: &'a [SocketAddr], of_first: usize, turn: usize) -> Order<'a> {
        let (first, other) = addresses.split_at(of_first);
        Order { first, other, turn, next: 0 }
    }
}

impl Iterator for Order<'_> {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        let index = self.next;
        self.next += 1;
        let pairs = self.first.len().min(self.other.len());
        let (family, place) = if index < 2 * pairs {
            (if index.is_multiple_of(2) { self.first } else { self.other }, index / 2)
        } else {
            let longer = if self.first.len() > self.other.len() { self.first } else { self.other };
            (longer, index - pairs)
        };
        (place < family.len()).then(|| family[(self.turn % family.len() + place) % family.len()])
    }
}

// === Race ===

/// An attempt that goes on.
type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// The first connection that stands. The other attempts end with it.
async fn race(order: Order<'_>) -> io::Result<(TcpStream, SocketAddr)> {
    let mut order = order.peekable();
    let mut running: Vec<(SocketAddr, Attempt)> = Vec::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = order.next() {
            running.push((address, Box::pin(TcpStream::connect(address))));
        } else if running.is_empty() {
            return Err(last);
        }
        let ended = tokio::select! {
            biased;
            ended = poll_fn(|cx| poll_any(&mut running, cx)) => ended,
            () = tokio::time::sleep(ATTEMPT_DELAY), if order.peek().is_some() => continue,
        };
        match ended {
            (address, Ok(stream)) => return Ok((stream, address)),
            // The next one begins at once.
            (_, Err(error)) => last = error,
        }
    }
}

/// The first of them that has ended, which is taken out.
fn poll_any(
    running: &mut Vec<(SocketAddr, Attempt)>,
    cx: &mut Context<'_>,
) -> Poll<(SocketAddr, io::Result<TcpStream>)> {
    for index in 0..running.len() {
        if let Poll::Ready(result) = running[index].1.as_mut().poll(cx) {
            return Poll::Ready((running.swap_remove(index).0, result));
        }
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Addresses {
        Addresses::of(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>()).unwrap()
    }

    fn order(texts: &[&str], turn: usize) -> Vec<String> {
        let Places::Tcp(all, of_first) = addresses(texts).places else { panic!("no TCP") };
        Order::new(&all, of_first, turn).map(|address| address.to_string()).collect()
    }

    #[test]
    fn families_take_turns_and_each_connection_begins_with_the_next_address() {
        let four = ["[::1]:1", "1.1.1.1:1", "1.1.1.2:1", "[::2]:1"];
        assert_eq!(order(&four, 0), ["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1"]);
        assert_eq!(order(&four, 1), ["[::2]:1", "1.1.1.2:1", "[::1]:1", "1.1.1.1:1"]);
        assert_eq!(
            order(&["1.1.1.1:1", "1.1.1.2:1", "[::1]:1", "1.1.1.3:1"], 5),
            ["1.1.1.3:1", "[::1]:1", "1.1.1.1:1", "1.1.1.2:1"]
        );
        assert_eq!(order(&["1.1.1.1:1", "[::1]:1", "[::2]:1"], 1), ["1.1.1.1:1", "[::2]:1", "[::1]:1"]);
        assert_eq!(order(&["1.1.1.1:1", "1.1.1.2:1"], usize::MAX), ["1.1.1.2:1", "1.1.1.1:1"]);
    }

    #[test]
    fn the_order_of_an_answer_is_no_change_and_a_huge_one_is_cut_to_the_same_part() {
        let two = addresses(&["1.1.1.1:1", "[::1]:1"]);
        assert!(two.same_places(&addresses(&["[::1]:1", "1.1.1.1:1"])));
        assert!(!two.same_places(&addresses(&["[::1]:1"])) && !addresses(&["[::1]:1"]).same_places(&two));
        assert!(!two.same_places(&Addresses::unix(Path::new("/x"))));
        assert!(Addresses::unix(Path::new("/x")).same_places(&Addresses::unix(Path::new("/x"))));
        let mut many: Vec<SocketAddr> =
            (0..1000u16).map(|n| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 1))).collect();
        let before = Addresses::of(&many).unwrap();
        many.reverse();
        assert!(before.count() == ADDRESSES_MAX && before.same_places(&Addresses::of(&many).unwrap()));
        assert!(Addresses::of(&[]).is_none());
    }
}
