//! What one segment of a path looks like on its own: a word of an interface, or a value such as a number or a hash.
//!
//! Pure functions of bytes, with a bounded look at each segment. They are the only place that decides what may stand
//! in a label as it is: printable ASCII from a short list, of bounded length, and never `*`, `{`, `}` or `%`.
//!
//! *Where* a segment stands is not known here; whether a word is a literal or somebody's name is decided in
//! [`super::learn`].

/// The longest segment that can be a literal, in bytes. The longest of the public interfaces looked at has 49
/// (`list-cloudwatch-...` style names and dotted RPC names); twice the usual leaves room and bounds a label.
pub const LONGEST_WORD: usize = 64;

/// What a segment looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A word: literal or value, the place decides.
    Word(Shape),
    /// Decimal digits.
    Number,
    /// Digits and dots: `1.0`, `2.14.3`. A version of the interface near the root, a value elsewhere.
    Decimal,
    /// 8-4-4-4-12 hexadecimal digits.
    Uuid,
    /// Hexadecimal digits: an object id, a commit, a digest.
    Hash,
    /// A date, or a date and a time.
    Date,
    /// Something with one `@` between a name and a host.
    Email,
    /// An IPv4 address.
    Address,
    /// A name that everybody gives: `main`, `kube-system`, `US`, `pt-BR`.
    Name,
    /// Letters and digits that nobody made up to be read: base64, prefixed tokens, generated names.
    Token,
    /// Cannot stand in a label: escapes, bytes that are not ASCII, too long, empty.
    Odd,
}

/// How a word is written, a hint at who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A version (`v1`, `v2beta1`): part of every interface that has it.
    Version,
    /// A word that interfaces keep for themselves below a collection: `me`, `search`, `latest`.
    Reserved,
    /// Written as programmers write: `required_pull_request_reviews`, `tagTypes`, `api.users.list`, a plural.
    Code,
    /// A plain word, or several with hyphens.
    Plain,
    /// More likely somebody's than a programmer's: with digits in it (`alice42`, `web-1`, but also `oauth2`), or two
    /// letters (`fr`).
    Personal,
}

impl Class {
    /// The class of a segment.
    #[must_use]
    pub fn of(segment: &[u8]) -> Class {
        classify(segment)
    }

    /// The name of a parameter whose first value is of this class.
    #[must_use]
    pub const fn parameter(self) -> &'static str {
        match self {
            Class::Word(_) | Class::Name => "name",
            Class::Number | Class::Token => "id",
            Class::Decimal => "version",
            Class::Uuid => "uuid",
            Class::Hash => "hash",
            Class::Date => "date",
            Class::Email => "email",
            Class::Address => "ip",
            Class::Odd => "value",
        }
    }

    /// What it is called in an explanation.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Class::Word(Shape::Version) => "a version",
            Class::Word(Shape::Reserved) => "a reserved word",
            Class::Word(_) => "a word",
            Class::Number => "a number",
            Class::Decimal => "a dotted number",
            Class::Uuid => "a UUID",
            Class::Hash => "a hash",
            Class::Date => "a date",
            Class::Email => "an e-mail address",
            Class::Address => "an IP address",
            Class::Name => "a usual name",
            Class::Token => "a token",
            Class::Odd => "not printable in a label",
        }
    }
}

/// Every name a learned parameter can have: what [`Class::parameter`] gives, and the remainder of a deep path.
pub const PARAMETERS: &[&str] = &["name", "id", "version", "uuid", "hash", "date", "email", "ip", "value", REST];

/// The name of the remainder of a path that is too deep.
pub const REST: &str = "rest";

/// Words that interfaces keep for themselves below a collection, where otherwise names of things stand. General words
/// of HTTP interfaces only: those that nobody could register as a user's name without trouble. Sorted.
const RESERVED: &[&str] = &[
    "_bulk",
    "_count",
    "_search",
    "activate",
    "active",
    "add",
    "all",
    "archive",
    "archived",
    "authorize",
    "autocomplete",
    "available",
    "batch",
    "bulk",
    "callback",
    "cancel",
    "check",
    "close",
    "confirm",
    "count",
    "create",
    "current",
    "defaults",
    "definitions",
    "delete",
    "details",
    "diff",
    "disable",
    "download",
    "enable",
    "export",
    "find",
    "get",
    "health",
    "healthz",
    "history",
    "import",
    "info",
    "json",
    "latest",
    "leave",
    "list",
    "load",
    "login",
    "logout",
    "lookup",
    "me",
    "merge",
    "metadata",
    "metrics",
    "mine",
    "new",
    "options",
    "password",
    "permissions",
    "ping",
    "preferences",
    "preview",
    "previous",
    "prune",
    "public",
    "publish",
    "pull",
    "push",
    "query",
    "ready",
    "recent",
    "refresh",
    "refund",
    "register",
    "remove",
    "rename",
    "reset",
    "resolve",
    "restore",
    "retry",
    "revoke",
    "run",
    "save",
    "schema",
    "search",
    "self",
    "settings",
    "starred",
    "stats",
    "status",
    "stop",
    "subscribe",
    "suggest",
    "suggestions",
    "summary",
    "sync",
    "token",
    "transfer",
    "trash",
    "type",
    "types",
    "undo",
    "unlock",
    "unread",
    "update",
    "upload",
    "uploads",
    "validate",
    "verify",
    "version",
];

/// Names that so many people give to their things that they come again as often as a part of the interface does:
/// branches and namespaces. Not `default`, which is a part of the interface as often.
const NAMES: &[&[u8]] = &[b"main", b"master", b"develop", b"trunk", b"HEAD", b"kube-system", b"kube-public"];

/// Whether a segment is one of the reserved words or a version: a literal wherever it stands.
#[must_use]
pub fn is_reserved(segment: &[u8]) -> bool {
    // The shortest is "me", the longest "autocomplete" and "suggestions".
    (2..=12).contains(&segment.len())
        && (RESERVED.binary_search_by(|word| word.as_bytes().cmp(segment)).is_ok() || is_version(segment))
}

/// `v1`, `v2beta1`, `V3`, `v1alpha`: what stands for the version of an interface.
#[must_use]
pub fn is_version(segment: &[u8]) -> bool {
    let [b'v' | b'V', rest @ ..] = segment else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = &rest[digits..];
    let stage = ["alpha", "beta", "rc"].iter().find_map(|stage| rest.strip_prefix(stage.as_bytes())).unwrap_or(rest);
    (1..=3).contains(&digits) && stage.len() <= 2 && stage.iter().all(u8::is_ascii_digit)
}

/// Whether what follows this literal begins afresh: versions, and words such as `api`.
#[must_use]
pub fn opens(literal: &[u8]) -> bool {
    let is_dotted_version = || {
        let digits = literal.strip_prefix(b"v").unwrap_or(literal);
        !digits.is_empty() && digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
    };
    matches!(literal, b"api" | b"apis" | b"rest" | b"rpc" | b"public" | b"internal" | b"admin" | b"graphql")
        || [b"-api".as_slice(), b"_api", b".api"].iter().any(|end| literal.ends_with(end))
        || [b"api-".as_slice(), b"api_", b"api."].iter().any(|start| literal.starts_with(start))
        || literal.ends_with(b".k8s.io")
        || is_version(literal)
        || is_dotted_version()
        || matches!(Class::of(literal), Class::Date)
}

/// Whether a literal names a collection, whose members' names would follow it: an English plural.
#[must_use]
pub fn is_collection(literal: &[u8]) -> bool {
    const IRREGULAR: &[&[u8]] = &[b"people", b"children", b"media", b"indices", b"data"];
    // Plurals of one thing: what follows is a part of it and no member.
    const SINGLE: &[&[u8]] =
        &[b"settings", b"stats", b"statistics", b"analytics", b"preferences", b"options", b"details"];
    let start = literal.iter().rposition(|byte| !byte.is_ascii_alphabetic()).map_or(0, |at| at + 1);
    let last = &literal[start..];
    // The last word of `tagTypes`.
    let hump = last.iter().rposition(u8::is_ascii_uppercase).unwrap_or(0);
    let last = last[hump..].to_ascii_lowercase();
    if IRREGULAR.contains(&last.as_slice()) {
        return true;
    }
    last.len() >= 4
        && last.ends_with(b"s")
        && ![b"ss".as_slice(), b"us", b"is"].iter().any(|end| last.ends_with(end))
        && !SINGLE.contains(&last.as_slice())
}

/// Which bytes a literal may hold: RFC 3986's unreserved ones and those of its others that need no quoting anywhere.
/// Not `*` (breaks patterns in queries), not `%`, quotes, braces, backslash.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_' | b'.' | b'~' | b':' | b'@' | b'+' | b',' | b';' | b'=' | b'!' | b'$' | b'(' | b')'
        )
}

fn classify(segment: &[u8]) -> Class {
    if segment.is_empty() {
        return Class::Odd;
    }
    if segment.len() > LONGEST_WORD {
        // A long look would be one that an attacker can lengthen.
        return if segment[..LONGEST_WORD].iter().all(u8::is_ascii_hexdigit) { Class::Hash } else { Class::Token };
    }
    // The two usual values need no further look.
    if segment[0].is_ascii_digit() && segment.iter().all(u8::is_ascii_digit) {
        return Class::Number;
    }
    if segment.len() == 36 && is_uuid(segment) {
        return Class::Uuid;
    }
    let (mut digits, mut upper, mut lower, mut dots, mut hex, mut plain) = (0, 0, 0, 0, 0, true);
    for &byte in segment {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'A'..=b'Z' => upper += 1,
            b'a'..=b'z' => lower += 1,
            b'.' => dots += 1,
            _ => {}
        }
        hex += usize::from(byte.is_ascii_hexdigit());
        plain &= is_plain(byte);
    }
    let (length, letters) = (segment.len(), upper + lower);
    if !plain {
        return if is_email(segment) { Class::Email } else { Class::Odd };
    }
    if digits > 0 && digits + 1 == length && segment[0] == b'-' {
        return Class::Number;
    }
    if digits > 0 && digits + dots == length {
        return if dots == 3 { Class::Address } else { Class::Decimal };
    }
    if NAMES.contains(&segment) || is_code(segment) {
        return Class::Name;
    }
    if digits == 0 && dots == 0 && upper == 0 && lower == length && length < 8 {
        // The usual word needs no further look.
        return Class::Word(shape_of_word(segment));
    }
    // Seven: the short form of a commit. Letters alone (`deadbeef`, `facade`) are words up to a length that no word
    // has.
    if hex == length && ((length >= 7 && digits > 0 && letters > 0) || length >= 16) {
        return Class::Hash;
    }
    if digits >= 6 && is_date(segment) {
        return Class::Date;
    }
    if is_email(segment) {
        return Class::Email;
    }
    if letters == 0 || (is_generated(segment, digits) && !is_version(segment)) {
        return Class::Token;
    }
    Class::Word(shape_of_word(segment))
}

fn shape_of_word(word: &[u8]) -> Shape {
    if is_version(word) {
        return Shape::Version;
    }
    if is_reserved(word) {
        return Shape::Reserved;
    }
    if word.iter().any(u8::is_ascii_digit) || word.len() == 2 {
        return Shape::Personal;
    }
    let is_hump = |pair: &[u8]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
    if word.iter().any(|byte| matches!(byte, b'_' | b'.' | b':')) || word.windows(2).any(is_hump) || is_collection(word)
    {
        return Shape::Code;
    }
    Shape::Plain
}

fn is_uuid(segment: &[u8]) -> bool {
    segment.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

/// `2024-05-01`, `2024-05`, `2024-05-01T10:00:00Z`.
fn is_date(segment: &[u8]) -> bool {
    let shape = |text: &[u8], pattern: &[u8]| {
        text.len() >= pattern.len()
            && pattern
                .iter()
                .zip(text)
                .all(|(want, byte)| if *want == b'0' { byte.is_ascii_digit() } else { byte == want })
    };
    let century = segment.starts_with(b"19") || segment.starts_with(b"20");
    century
        && ((shape(segment, b"0000-00-00") && matches!(segment.get(10), None | Some(b'T' | b't' | b'_')))
            || (segment.len() == 7 && shape(segment, b"0000-00"))
            || shape(segment, b"00000000T"))
}

/// One `@` (or its escape) between a name and a host with a dot.
fn is_email(segment: &[u8]) -> bool {
    let at = segment
        .iter()
        .position(|byte| *byte == b'@')
        .map(|at| (at, at + 1))
        .or_else(|| segment.windows(3).position(|part| part == b"%40").map(|at| (at, at + 3)));
    at.is_some_and(|(name, host)| {
        let host = &segment[host..];
        name > 0
            && host.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
            && host.iter().skip(1).rev().skip(1).any(|byte| *byte == b'.')
    })
}

/// A country, a currency, a locale: `US`, `EUR`, `pt-BR`. There are so few that they come again and again.
fn is_code(segment: &[u8]) -> bool {
    let upper = |text: &[u8]| text.iter().all(u8::is_ascii_uppercase);
    match segment {
        [_, _] | [_, _, _] => upper(segment),
        [a, b, b'-' | b'_', country @ ..] => {
            a.is_ascii_lowercase() && b.is_ascii_lowercase() && country.len() == 2 && upper(country)
        }
        _ => false,
    }
}

/// Whether any part of a segment was made by a machine: digits strewn among letters, letters in a case no word has,
/// long numbers beside letters, or consonants that nobody can say.
fn is_generated(segment: &[u8], digits: usize) -> bool {
    // `PROJ-123`: a key of a tracker.
    if let Some(dash) = segment.iter().position(|byte| *byte == b'-') {
        let (key, number) = (&segment[..dash], &segment[dash + 1..]);
        if dash >= 2
            && !number.is_empty()
            && number.iter().all(u8::is_ascii_digit)
            && key.iter().all(u8::is_ascii_uppercase)
        {
            return true;
        }
    }
    // `Q2D9-8WMO-Q2AG`: a serial number.
    let big = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'-';
    if digits >= 2 && segment.len() >= 8 && segment.iter().all(big) {
        return true;
    }
    // Base64 pads with `=`.
    if segment.len() >= 8 && segment.ends_with(b"=") {
        return true;
    }
    segment.split(|byte| !byte.is_ascii_alphanumeric()).any(|part| is_generated_part(part, digits))
}

/// The same of one run of letters and digits.
fn is_generated_part(part: &[u8], digits_of_segment: usize) -> bool {
    let (mut digits, mut changes, mut humps, mut upper, mut run, mut longest_run) = (0, 0, 0, 0, 0, 0);
    let mut before = 0_u8;
    for &byte in part {
        digits += usize::from(byte.is_ascii_digit());
        upper += usize::from(byte.is_ascii_uppercase());
        if before != 0 {
            changes += usize::from(before.is_ascii_digit() != byte.is_ascii_digit());
            humps += usize::from(before.is_ascii_lowercase() && byte.is_ascii_uppercase());
        }
        let sayable =
            matches!(byte.to_ascii_lowercase(), b'a' | b'e' | b'i' | b'o' | b'u' | b'y') || byte.is_ascii_digit();
        // A hump begins a word: `httpTls` is no run of six.
        run = if sayable {
            0
        } else if byte.is_ascii_uppercase() && before.is_ascii_lowercase() {
            1
        } else {
            run + 1
        };
        longest_run = longest_run.max(run);
        before = byte;
    }
    let letters = part.len() - digits;
    if letters == 0 {
        // A long number beside letters: `order-12345`. Years and small numbers are part of many words.
        return digits >= 5 && digits_of_segment >= 5;
    }
    // `5d59d67564`, `NffrFeUfNV2Hib`; not `v2beta1`, `x509`, `oauth2`, `sha256`, `ipv6`, `base64`, `h264`, `p12`.
    (digits > 0 && changes >= 4)
        || (digits > 0 && changes >= 3 && part.len() >= 5 && (letters < 5 || part.len() >= 8))
        || (digits > 0 && humps >= 2 && part.len() >= 8)
        || (digits >= 6 && part.len() >= 9)
        // Case at random: `kJhGfDsAqW`. In camel case a hump comes every four letters at most.
        || (humps >= 3 && part.len() < humps * 4 && upper * 3 >= part.len())
        // `xkqjzvbnmw`; the longest run of an English word is `ngthscr` of "lengthscreen"; acronyms are short.
        || (longest_run >= 7 && part.len() >= 10)
        || (digits > 0 && longest_run >= 5 && part.len() >= 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> Class {
        Class::of(text.as_bytes())
    }

    #[test]
    fn the_reserved_words_are_sorted() {
        assert!(RESERVED.is_sorted());
        assert!(RESERVED.iter().all(|word| is_reserved(word.as_bytes())));
    }

    #[test]
    fn words_stay_words() {
        for word in [
            "v1",
            "v2beta1",
            "v1alpha2",
            "api.users.list",
            "me",
            "oauth2",
            "s3",
            "2fa",
            "horizontalpodautoscalers",
            "users",
            "x509",
            "required_pull_request_reviews",
            "hello.world",
            "1-clicks",
            "sha256",
            "base64",
            "ipv6",
            "tagTypes",
            "h264",
            "@me",
            "Accounts.json",
            "favicon.ico",
            "deadbeef",
            "well-known",
            ".well-known",
            "i18n",
            "k8s",
            "p12",
            "ec2",
            "networking.k8s.io",
            "validatingwebhookconfigurations",
            "IncomingPhoneNumbers",
            "PaymentMethodConfigs",
            "chat.postMessage",
            "google.pubsub.v1.Publisher",
            "WORKFLOW",
            "html5",
            "utf8",
            "mp3",
        ] {
            assert!(matches!(class(word), Class::Word(_)), "{word}: {:?}", class(word));
        }
    }

    #[test]
    fn values_are_told_by_their_look() {
        for (text, want) in [
            ("7", Class::Number),
            ("18446744073709551616", Class::Number),
            ("-12", Class::Number),
            ("1.0", Class::Decimal),
            ("10.0.0.1", Class::Address),
            ("123e4567-e89b-12d3-a456-426614174000", Class::Uuid),
            ("d6cd1e2bd19e03a81132a23b2025920577f84e37", Class::Hash),
            ("5f3c2a1", Class::Hash),
            ("507f1f77bcf86cd799439011", Class::Hash),
            ("2024-05-01", Class::Date),
            ("2024-05", Class::Date),
            ("2024-05-01T10:00:00Z", Class::Date),
            ("20240501T100000Z", Class::Date),
            ("alice@example.com", Class::Email),
            ("alice%40example.com", Class::Email),
            ("cus_NffrFeUfNV2Hib", Class::Token),
            ("ch_3MmlLrLkdIwHu7ix0snN0B15", Class::Token),
            ("4iV5W9uYEdYUVa79Axb7Rh", Class::Token),
            ("nginx-deployment-5d59d67564-xk2lp", Class::Token),
            ("PROJ-123", Class::Token),
            ("Q2D9-8WMO-Q2AG", Class::Token),
            ("e2LAFP63_IRTxKPpikil1t", Class::Token),
            ("order-12345", Class::Token),
            ("US", Class::Name),
            ("pt-BR", Class::Name),
            ("main", Class::Name),
            ("aGVsbG8gd29ybGQ=", Class::Token),
            ("AC0123456789abcdef0123456789abcdef", Class::Hash),
            ("xkqjzvbnmwrtp", Class::Token),
            ("kJhGfDsAqW", Class::Token),
            ("", Class::Odd),
            ("a%20b", Class::Odd),
            ("a*b", Class::Odd),
            ("{id}", Class::Odd),
            ("a\u{7f}", Class::Odd),
            ("caf\u{e9}", Class::Odd),
        ] {
            assert_eq!(class(text), want, "{text}");
        }
        assert_eq!(Class::of(b"\xff\xfe"), Class::Odd);
        assert_eq!(Class::of(&[b'a'; 8192]), Class::Hash);
        assert_eq!(Class::of(&[b'z'; 8192]), Class::Token);
    }

    #[test]
    fn collections_are_plurals() {
        for word in ["users", "repos", "Accounts", "project_templates", "tagTypes", "people", "pull-requests"] {
            assert!(is_collection(word.as_bytes()), "{word}");
        }
        for word in ["status", "access", "user", "analysis", "me", "settings", "gas"] {
            assert!(!is_collection(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn versions_and_words_like_api_open_a_place() {
        for word in ["v1", "v2beta1", "api", "apis", "1.0", "3", "2010-04-01", "v1.33"] {
            assert!(opens(word.as_bytes()), "{word}");
        }
        assert!(!opens(b"users") && !opens(b"v") && !opens(b"victor1"));
    }
}
