//! The vocabulary: every label value that is not a route comes from a closed set in this file.
//! No error text, header, path or other input of a client ever becomes a label value.
//!
//! Names and values are those of the metric catalogue (`README.md`); where OpenTelemetry or RFC 9110 has a word,
//! that word is used.

/// A closed set of label values: an enum whose variants are dense array indexes with one text each.
macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $(#[doc = concat!("The label value `", $text, "`.")] $(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in index order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// How many values there are: the length of an array indexed by this set.
            pub const COUNT: usize = Self::ALL.len();

            /// The label value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// The dense index of this value, from 0 to `COUNT - 1`.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The value with this index. Indexes come from [`Self::index`] only, so one out of range is a defect.
            #[must_use]
            pub const fn from_index(index: usize) -> Self {
                Self::ALL[index]
            }
        }
    };
}

closed_set! {
    /// The request method: OpenTelemetry's known set (RFC 9110, PATCH, QUERY), everything else `_OTHER`.
    Method {
        Get = "GET", Head = "HEAD", Post = "POST", Put = "PUT", Delete = "DELETE", Connect = "CONNECT",
        Options = "OPTIONS", Trace = "TRACE", Patch = "PATCH", Query = "QUERY", Other = "_OTHER",
    }
}

impl Method {
    /// Reads a method token. Methods are case-sensitive (RFC 9110, section 9.1), so `get` is `_OTHER`.
    #[must_use]
    pub fn from_token(token: &[u8]) -> Method {
        match token {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            b"QUERY" => Method::Query,
            _ => Method::Other,
        }
    }
}

closed_set! {
    /// Where a route label comes from.
    RouteKind {
        /// The configuration.
        Declared = "declared",
        /// An OpenAPI or Swagger document.
        OpenApi = "openapi",
        /// Traffic.
        Learned = "learned",
    }
}

closed_set! {
    /// Who made the status, or the end, of a request.
    Origin { Backend = "backend", Proxy = "proxy", Client = "client" }
}

closed_set! {
    /// Whether a request counts as a user's or as a health probe's (configured paths and user agents).
    Traffic { User = "user", Probe = "probe" }
}

closed_set! {
    /// Who is to blame for a failed request.
    Fault { Client = "client", Proxy = "proxy", Network = "network", Backend = "backend", Policy = "policy" }
}

closed_set! {
    /// Where in its life a request failed, and the phases that the time of a request is split into.
    /// `head` (the client's head) appears in errors only.
    Phase {
        Head = "head", Queue = "queue", Connect = "connect", Tls = "tls", Send = "send", Wait = "wait", Body = "body",
    }
}

closed_set! {
    /// How the wait for the first byte ended.
    FirstByte {
        Success = "success", ClientError = "client_error", ServerError = "server_error", Aborted = "aborted",
    }
}

impl FirstByte {
    /// 1xx (a tunnel's 101), 2xx and 3xx are successes.
    #[must_use]
    pub fn from_status(status: u16) -> FirstByte {
        match status {
            500.. => FirstByte::ServerError,
            400..=499 => FirstByte::ClientError,
            _ => FirstByte::Success,
        }
    }

    /// Of a gRPC call whose head tells its status, or whose answer is this sidecar's.
    #[must_use]
    pub const fn from_rpc(status: RpcStatus) -> FirstByte {
        match status {
            RpcStatus::Ok => FirstByte::Success,
            failed if failed.is_server_error() => FirstByte::ServerError,
            _ => FirstByte::ClientError,
        }
    }
}

closed_set! {
    /// What a request is to a service level objective that covers it.
    SloResult {
        /// It did not fail and took no longer than it may.
        Good = "good",
        /// It did not fail and took longer.
        Slow = "slow",
        /// It failed, and not by its client's fault.
        Error = "error",
        /// Nothing was promised of it.
        Excluded = "excluded",
    }
}

closed_set! {
    /// When a client left: before it had a response head, or while a body was under way.
    AbortPhase { BeforeHead = "before_head", DuringBody = "during_body" }
}

closed_set! {
    /// How an event stream ended.
    StreamEnd {
        Complete = "complete", ClientAbort = "client_abort", BackendReset = "backend_reset", Timeout = "timeout",
    }
}

closed_set! {
    /// What a connection was upgraded to.
    TunnelProtocol { WebSocket = "websocket", Other = "other" }
}

closed_set! {
    /// Which way bytes go, as the client sees it.
    Direction { Sent = "sent", Received = "received" }
}

closed_set! {
    /// The halves of the sidecar's own share of a request.
    OverheadDirection { Request = "request", Response = "response" }
}

closed_set! {
    /// Why a connection to the backend was closed.
    CloseReason { Idle = "idle", Peer = "peer", Error = "error", Drain = "drain", MaxAge = "max_age" }
}

closed_set! {
    /// What became of a replayed request.
    RetryResult { Success = "success", Failure = "failure" }
}

closed_set! {
    /// Why a client connection was turned away before a request was read.
    RejectReason { Limit = "limit", Descriptors = "descriptors" }
}

closed_set! {
    /// With whom a TLS handshake was.
    TlsSide { Client = "client", Backend = "backend" }
}

closed_set! {
    /// Why a TLS handshake failed.
    TlsFailure {
        /// The peer showed no certificate although one is required.
        NoCertificate = "no_certificate",
        /// The peer's certificate is not one that is accepted here: expired, of another name, of an unknown issuer.
        BadCertificate = "bad_certificate",
        /// The peer refused, mostly because of our certificate: it sent an alert.
        Alert = "alert",
        /// The peer speaks another version, or no TLS at all.
        Protocol = "protocol",
        /// It took too long.
        Timeout = "timeout",
        /// The connection ended or failed before the handshake was complete.
        Closed = "closed",
    }
}

closed_set! {
    /// Why the admin port refused a request before it looked at its path.
    Refusal {
        /// Credentials are asked for, and there were none, or wrong ones.
        Credentials = "credentials",
        /// It was asked for under a name that it does not answer to.
        Host = "host",
    }
}

closed_set! {
    /// What a certificate of ours is for.
    CertificateUse { Listener = "listener", Upstream = "upstream", Admin = "admin" }
}

closed_set! {
    /// Why a client connection ended.
    ConnectionEnd {
        /// The client closed it.
        Client = "client",
        /// It had no request for too long.
        Idle = "idle",
        /// The sidecar closed it: after an error, or because the response was the last one.
        Proxy = "proxy",
        /// The sidecar stops.
        Drain = "drain",
        /// It sent much that nothing came of: resets, empty frames, continuations (HTTP/2).
        Flood = "flood",
    }
}

closed_set! {
    /// What can be full. The connection pools of the backend are resources too, named `pool:NAME` after the configuration.
    Resource {
        /// CPU time that the backend may use.
        Cpu = "cpu",
        /// Memory of the backend.
        Memory = "memory",
        /// File descriptors of the backend: its fullest process.
        Fds = "fds",
        /// Threads of the backend.
        Threads = "threads",
        /// Connections that wait for the backend's accept(): its fullest listener.
        AcceptQueue = "accept_queue",
        /// Requests in flight in the sidecar.
        Inflight = "inflight",
        /// The sidecar's connections to the backend.
        UpstreamPool = "upstream_pool",
        /// The sidecar's client connections.
        ServerConnections = "server_connections",
        /// CPU of the whole host.
        HostCpu = "host_cpu",
        /// Memory of the whole host.
        HostMemory = "host_memory",
    }
}

closed_set! {
    /// Where CPU time was spent.
    CpuMode { User = "user", System = "system" }
}

closed_set! {
    /// Who sets a limit of the backend. Of several, the smallest is in force.
    LimitSource { Config = "config", Cgroup = "cgroup", Rlimit = "rlimit", Host = "host" }
}

closed_set! {
    /// What a figure of the backend's memory counts.
    MemoryKind {
        Resident = "resident", Virtual = "virtual", WorkingSet = "working_set", Anon = "anon", File = "file",
    }
}

closed_set! {
    /// Why the backend is another process than before.
    RestartReason {
        /// It ended by itself.
        Exit = "exit",
        /// A signal ended it.
        Signal = "signal",
        /// The kernel killed it for want of memory.
        Oom = "oom",
        /// Another process took its place; how the old one ended cannot be known from outside.
        Replaced = "replaced",
    }
}

closed_set! {
    /// What tasks waited for (pressure stall information).
    PressureResource { Cpu = "cpu", Memory = "memory", Io = "io" }
}

closed_set! {
    /// Whose tasks waited.
    PressureScope { Backend = "backend", Host = "host" }
}

closed_set! {
    /// What happened at a memory limit of the cgroup.
    MemoryEvent { High = "high", Max = "max", Oom = "oom", OomKill = "oom_kill" }
}

closed_set! {
    /// A statistic over the backend's sockets.
    UnreadStat { Sum = "sum", Max = "max" }
}

closed_set! {
    /// What a connection of a pool does, or that somebody waits for one.
    PoolState { InUse = "in_use", Idle = "idle", Waiting = "waiting" }
}

closed_set! {
    /// How the numbers of a pool became known.
    PoolSource {
        /// By the backend's own metrics.
        Reported = "reported",
        /// By the kernel's view of the backend's connections.
        Inferred = "inferred",
    }
}

closed_set! {
    /// What the sampler reads. Each pool that the backend reports is a source too, named `pool:NAME`.
    Source {
        /// Which processes the backend is.
        Backend = "backend",
        /// Their CPU time, memory, threads and number of descriptors.
        Process = "process",
        /// Which sockets are theirs.
        Descriptors = "descriptors",
        /// How long their threads waited for a CPU.
        Runqueue = "runqueue",
        /// CPU quota and throttling.
        CgroupCpu = "cgroup_cpu",
        /// Memory limit, working set and events.
        CgroupMemory = "cgroup_memory",
        /// Limit of tasks.
        CgroupPids = "cgroup_pids",
        /// Pressure stall information of the backend's cgroup.
        BackendPressure = "backend_pressure",
        /// Pressure stall information of the host.
        HostPressure = "host_pressure",
        /// Accept queues of the backend's listeners.
        Listeners = "listeners",
        /// The backend's connections, both ways.
        Connections = "connections",
        /// Overflows of accept queues in the network namespace.
        Netstat = "netstat",
        /// CPU and memory of the whole host.
        Host = "host",
    }
}

closed_set! {
    /// Why a source could not be read.
    Trouble {
        /// It does not exist here.
        Absent = "absent",
        /// The system refuses it to this user.
        Permission = "permission",
        /// It was there and vanished while it was read.
        Gone = "gone",
        /// Its content is not what it should be.
        Malformed = "malformed",
        /// It took too long.
        Timeout = "timeout",
        /// It is larger than is read.
        TooLarge = "too_large",
        /// Nobody answers there.
        Unreachable = "unreachable",
        /// It answered with another status than 200.
        Status = "status",
        /// A counter of the kernel went back; the value was not used.
        WentBack = "went_back",
        /// What it needs is not known: mostly which process the backend is.
        Unknown = "unknown",
        /// A defect of the sidecar.
        Internal = "internal",
    }
}

closed_set! {
    /// Failures that have a name of their own; see [`ErrorType`].
    Failure {
        ConnectRefused = "connect_refused", ConnectTimeout = "connect_timeout", ConnectReset = "connect_reset",
        DnsFailure = "dns_failure", TlsFailure = "tls_failure", NoCapacity = "no_capacity",
        QueueTimeout = "queue_timeout", Shed = "shed", HeadTimeout = "head_timeout", BodyTimeout = "body_timeout",
        ResetBeforeHead = "reset_before_head", ResetAfterHead = "reset_after_head",
        ProtocolError = "protocol_error", ResponseTooLarge = "response_too_large",
        RequestTooLarge = "request_too_large", BadRequest = "bad_request", HeaderLimit = "header_limit",
        ClientTimeout = "client_timeout", DrainDeadline = "drain_deadline", Internal = "internal",
    }
}

impl Failure {
    /// The table "`error_type` → fault" of the metric catalogue.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Failure::ConnectRefused
            | Failure::ConnectReset
            | Failure::ResetBeforeHead
            | Failure::ProtocolError
            | Failure::ResponseTooLarge
            | Failure::ConnectTimeout
            | Failure::HeadTimeout
            | Failure::BodyTimeout
            | Failure::ResetAfterHead => Fault::Backend,
            Failure::DnsFailure | Failure::TlsFailure => Fault::Network,
            Failure::NoCapacity | Failure::QueueTimeout | Failure::Internal => Fault::Proxy,
            Failure::Shed | Failure::DrainDeadline => Fault::Policy,
            Failure::BadRequest | Failure::HeaderLimit | Failure::RequestTooLarge | Failure::ClientTimeout => {
                Fault::Client
            }
        }
    }
}

closed_set! {
    /// The status of a gRPC call. Up to the last, a value's index is its code
    /// (gRPC, doc/statuscodes.md).
    RpcStatus {
        Ok = "OK", Cancelled = "CANCELLED", Unknown = "UNKNOWN", InvalidArgument = "INVALID_ARGUMENT",
        DeadlineExceeded = "DEADLINE_EXCEEDED", NotFound = "NOT_FOUND", AlreadyExists = "ALREADY_EXISTS",
        PermissionDenied = "PERMISSION_DENIED", ResourceExhausted = "RESOURCE_EXHAUSTED",
        FailedPrecondition = "FAILED_PRECONDITION", Aborted = "ABORTED", OutOfRange = "OUT_OF_RANGE",
        Unimplemented = "UNIMPLEMENTED", Internal = "INTERNAL", Unavailable = "UNAVAILABLE",
        DataLoss = "DATA_LOSS", Unauthenticated = "UNAUTHENTICATED",
        /// A code that gRPC has not given out.
        Other = "_OTHER",
    }
}

impl RpcStatus {
    /// Reads a code.
    #[must_use]
    pub fn from_code(code: u32) -> RpcStatus {
        // Unknown codes come after all known ones, as `_OTHER` does.
        Self::from_index((code as usize).min(RpcStatus::Other.index()))
    }

    /// The code; that of UNKNOWN for a status that has none, as clients read it.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            RpcStatus::Other => RpcStatus::Unknown as u32,
            known => known as u32,
        }
    }

    /// What a client makes of an answer that tells no status of the call (gRPC, doc/http-grpc-status-mapping.md).
    #[must_use]
    pub const fn from_http(status: u16) -> RpcStatus {
        match status {
            400 => RpcStatus::Internal,
            401 => RpcStatus::Unauthenticated,
            403 => RpcStatus::PermissionDenied,
            404 => RpcStatus::Unimplemented,
            429 | 502..=504 => RpcStatus::Unavailable,
            _ => RpcStatus::Unknown,
        }
    }

    /// What an answer of this sidecar's own says. UNAVAILABLE invites to try again, so it stands for what may be better in a
    /// moment; a call that the backend let wait for too long may have had its effect.
    #[must_use]
    pub const fn from_failure(failure: Failure) -> RpcStatus {
        match failure {
            Failure::ConnectRefused
            | Failure::ConnectTimeout
            | Failure::ConnectReset
            | Failure::DnsFailure
            | Failure::TlsFailure
            | Failure::NoCapacity
            | Failure::QueueTimeout
            | Failure::Shed
            | Failure::ResetBeforeHead
            | Failure::ResetAfterHead
            | Failure::DrainDeadline => RpcStatus::Unavailable,
            Failure::HeadTimeout | Failure::BodyTimeout => RpcStatus::DeadlineExceeded,
            Failure::ProtocolError | Failure::ResponseTooLarge | Failure::Internal => RpcStatus::Internal,
            Failure::RequestTooLarge | Failure::HeaderLimit => RpcStatus::ResourceExhausted,
            Failure::BadRequest => RpcStatus::InvalidArgument,
            Failure::ClientTimeout => RpcStatus::Cancelled,
        }
    }

    /// Whether it tells of a failure of the server and not of its client (OpenTelemetry, semantic conventions for gRPC).
    #[must_use]
    pub const fn is_server_error(self) -> bool {
        matches!(
            self,
            RpcStatus::Unknown
                | RpcStatus::DeadlineExceeded
                | RpcStatus::Unimplemented
                | RpcStatus::Internal
                | RpcStatus::Unavailable
                | RpcStatus::DataLoss
        )
    }
}

closed_set! {
    /// What makes an error of a request that was answered: somebody's policy; see [`ErrorType`].
    Policy {
        /// A configured rule says that a 2xx answer is an error.
        Implicit = "implicit",
        /// It took longer than an objective allows, which says that this is an error.
        TooSlow = "too_slow",
    }
}

/// The `error_type` of a request: none, a status that the backend sent, a named failure, the status of a gRPC call, or a
/// policy.
/// One number, so that it can be part of a packed series key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorType(u16);

impl ErrorType {
    /// Success: the label is empty.
    pub const NONE: ErrorType = ErrorType(0);
    /// Named failures start above every status number.
    const FIRST_FAILURE: u16 = 1000;
    /// The statuses of gRPC calls start above every failure that there will ever be.
    const FIRST_RPC: u16 = 1500;
    /// Policies start above those, and end below 2048, which keys have room for.
    const FIRST_POLICY: u16 = 2000;

    /// The backend's own 5xx.
    #[must_use]
    pub const fn from_backend_status(status: u16) -> ErrorType {
        ErrorType(status)
    }

    /// A named failure.
    #[must_use]
    pub const fn from_failure(failure: Failure) -> ErrorType {
        ErrorType(Self::FIRST_FAILURE + failure as u16)
    }

    /// A gRPC call that failed, by its status.
    #[must_use]
    pub const fn from_rpc(status: RpcStatus) -> ErrorType {
        ErrorType(Self::FIRST_RPC + status as u16)
    }

    /// An error by policy.
    #[must_use]
    pub const fn from_policy(policy: Policy) -> ErrorType {
        ErrorType(Self::FIRST_POLICY + policy as u16)
    }

    /// The number, for packing into a key.
    #[must_use]
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// The inverse of [`ErrorType::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u16) -> ErrorType {
        ErrorType(bits)
    }

    /// The label value: empty, the status as text, or the name of the failure, gRPC status or policy.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self.0 {
            status if status < Self::FIRST_FAILURE => status_text(status),
            policy if policy >= Self::FIRST_POLICY => {
                Policy::from_index(usize::from(policy - Self::FIRST_POLICY)).as_str()
            }
            rpc if rpc >= Self::FIRST_RPC => RpcStatus::from_index(usize::from(rpc - Self::FIRST_RPC)).as_str(),
            failure => Failure::from_index(usize::from(failure - Self::FIRST_FAILURE)).as_str(),
        }
    }
}

/// A route's dense index: what the router gives out and what per-route stores are indexed by.
/// An index never changes its meaning while the process lives, so a reload resets no counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u16);

impl RouteId {
    /// Has earned no label: no template matches, or the request could not be read.
    pub const UNMATCHED: RouteId = RouteId(0);
    /// Would have a label of its own, but a limit is reached.
    pub const OTHER: RouteId = RouteId(1);

    /// The dense index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a rule that finds implicit errors, by its name. Like that of a route it never changes its meaning while
/// the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u16);

/// The label value of a status: the exact number, empty when no response head was sent (0). A status has three digits,
/// which every reader of heads sees to.
#[must_use]
pub fn status_text(status: u16) -> &'static str {
    static DIGITS: [[u8; 3]; 1000] = {
        let mut all = [[0; 3]; 1000];
        let mut n = 0;
        while n < 1000 {
            all[n] = [b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
            n += 1;
        }
        all
    };
    match status {
        0 => "",
        _ => std::str::from_utf8(&DIGITS[usize::from(status.min(999))]).expect("digits"),
    }
}
