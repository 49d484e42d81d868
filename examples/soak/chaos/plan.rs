//! What may happen to a request, decided by its client beforehand and written into its path: `/GROUP/KIND/NUMBER`.

use super::random::Random;

/// Declares the kinds with their names in paths.
macro_rules! kinds {
    ($($kind:ident $name:literal $group:ident $what:literal;)*) => {
        /// What backend and client do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $(#[doc = $what] $kind,)* }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// As it stands in a path.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }

            /// The group that it belongs to.
            pub const fn group(self) -> Group {
                match self { $(Kind::$kind => Group::$group,)* }
            }

            /// In words.
            pub const fn what(self) -> &'static str {
                match self { $(Kind::$kind => $what,)* }
            }
        }
    };
}

kinds! {
    Fine "fine" Fine "an answer with a length";
    Chunked "chunked" Fine "an answer in chunks";
    UntilClose "until-close" Fine "an answer until the connection ends";
    Status "status" Fine "a status of 2xx to 5xx";
    Upload "upload" Fine "a request with a body";
    CloseAfter "close-after" Fault "the backend closes after its answer, without having said so";
    CloseBeforeHead "close-before-head" Fault "the backend closes without an answer";
    ResetBeforeHead "reset-before-head" Fault "the backend resets without an answer";
    CloseInHead "close-in-head" Fault "the backend closes within its head";
    ResetInHead "reset-in-head" Fault "the backend resets within its head";
    Garbage "garbage" Fault "the backend speaks something else";
    HugeHead "huge-head" Fault "a head over every limit";
    Truncated "truncated" Fault "the backend closes within its body";
    ResetInBody "reset-in-body" Fault "the backend resets within its body";
    BadChunk "bad-chunk" Fault "a chunk that is none";
    Early "early" Fault "413 before the body has come";
    BadRequest "bad-request" Other "a head that cannot be read";
    ShortStall "short-stall" Slow "a pause before the head, shorter than the timeout";
    SlowBody "slow-body" Slow "a body with pauses";
    SlowUpload "slow-upload" Slow "a request body with pauses";
    SlowReader "slow-reader" Slow "a client that reads slowly";
    HeadTimeout "head-timeout" Slow "no head within the timeout";
    BodyTimeout "body-timeout" Slow "half a body, then nothing within the timeout";
    UploadTimeout "upload-timeout" Slow "half a request body, then nothing within the timeout";
    LeaveInHead "leave-in-head" Abort "the client leaves within its own head: no request";
    LeaveBeforeHead "leave-before-head" Abort "the client leaves before the answer";
    LeaveInUpload "leave-in-upload" Abort "the client leaves within its own body";
    LeaveInBody "leave-in-body" Abort "the client leaves within the answer";
    Tunnel "tunnel" Stream "an upgrade, and echoes";
    Events "events" Stream "an event stream that ends";
    LeaveEvents "leave-events" Stream "an event stream that the client leaves";
}

/// Requests whose route the checks can tell, whatever configuration is in force; declared in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Nothing goes wrong.
    Fine,
    /// The backend fails.
    Fault,
    /// Somebody is slow.
    Slow,
    /// The client leaves.
    Abort,
    /// Tunnels and event streams.
    Stream,
    /// Routes that come and go, learned ones, and what has none.
    Other,
}

impl Group {
    /// The first segment of paths.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Fine => "fine",
            Group::Fault => "fault",
            Group::Slow => "slow",
            Group::Abort => "abort",
            Group::Stream => "stream",
            Group::Other => "other",
        }
    }

    /// The group of a route on the metrics page.
    pub fn of_route(route: &str) -> Group {
        let first = route.trim_start_matches('/').split('/').next().unwrap_or_default();
        let all = [Group::Fine, Group::Fault, Group::Slow, Group::Abort, Group::Stream];
        all.into_iter().find(|group| group.name() == first).unwrap_or(Group::Other)
    }
}

impl Kind {
    /// The kind of this name.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// What it is called when the client got a head and not all of the body; nothing where that must not happen.
    pub const fn cut(self) -> Option<&'static str> {
        match self {
            Kind::Truncated | Kind::ResetInBody => Some("reset_after_head"),
            Kind::BadChunk => Some("protocol_error"),
            Kind::BodyTimeout => Some("body_timeout"),
            _ => None,
        }
    }

    /// Whether the client sends a body.
    pub const fn uploads(self) -> bool {
        matches!(self, Kind::Upload | Kind::SlowUpload | Kind::UploadTimeout | Kind::LeaveInUpload | Kind::Early)
    }
}

/// Statuses of [`Kind::Status`], by number.
pub const STATUSES: [u16; 12] = [200, 201, 204, 206, 301, 304, 400, 404, 429, 500, 502, 503];

/// One request.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What happens.
    pub kind: Kind,
    /// Unlike any other.
    pub number: u64,
    /// The group that it counts in.
    pub group: Group,
    /// As it is sent.
    pub method: &'static str,
    /// As it is sent.
    pub path: String,
}

impl Plan {
    /// A request of this kind.
    pub fn new(kind: Kind, number: u64, random: &mut Random) -> Plan {
        let method = match kind {
            _ if kind.uploads() => random.word(&["POST", "PUT", "PATCH"]),
            Kind::Fine | Kind::Chunked | Kind::Status => random.word(&["GET", "GET", "GET", "HEAD", "DELETE", "BREW"]),
            Kind::CloseBeforeHead | Kind::ResetBeforeHead => random.word(&["GET", "POST"]),
            _ => "GET",
        };
        let (group, first) = match (kind, random.below(12)) {
            // Declared in one of the two configurations only, and learned.
            (Kind::Fine | Kind::Chunked, 0) => (Group::Other, "moving"),
            (Kind::Fine | Kind::Chunked, 1) => (Group::Other, random.word(&["users", "orders", "items", "carts"])),
            _ => (kind.group(), kind.group().name()),
        };
        Plan { kind, number, group, method, path: format!("/{first}/{}/{number}", kind.name()) }
    }

    /// The method as a label.
    pub fn method_label(&self) -> &'static str {
        if self.kind == Kind::BadRequest || self.method == "BREW" { "_OTHER" } else { self.method }
    }
}

/// Bytes of the body of an answer: mostly small.
pub const fn size(kind: Kind, number: u64) -> usize {
    match kind {
        Kind::SlowReader => 512 * 1024,
        Kind::BodyTimeout | Kind::Truncated | Kind::ResetInBody | Kind::LeaveInBody => 8_000,
        _ => [20, 0, 300, 1_500, 20, 300, 20, 2_000, 9_000, 20, 300, 20, 64, 200, 40, 70_000][(number % 16) as usize],
    }
}

/// Bytes of the body of a request.
pub const fn upload_size(number: u64) -> usize {
    [1, 300, 5_000, 20, 300, 60_000, 20, 300_000][(number % 8) as usize]
}

/// The byte that all bytes of an answer are: an answer that went to another's client shows.
pub const fn filler(number: u64) -> u8 {
    (number % 251) as u8
}
