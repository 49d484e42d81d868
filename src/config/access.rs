//! Who may read the admin port: credentials, and the names that it answers to.
//!
//! Source: RFC 6750 (bearer tokens), RFC 7617 (basic credentials), RFC 9110, section 7.2 (`Host`).
//! Secrets: a [`Secret`] shows itself to nobody, and no sentence of this file quotes what was given for one.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use super::error::{ConfigError, Source, found};
use super::raw::{Given, RawAdminAuth, Scalar};
use super::resolve::{Folders, Keys, checked, parse_path_of_file};

/// A guess at less would be worth trying: 16 characters of hexadecimal digits are 64 bits.
const TOKEN_CHARS_MIN: usize = 16;
/// A quarter of the head that the admin port reads; what is longer is another file.
pub const SECRET_BYTES_MAX: usize = 4 << 10;
/// The entry of `admin_hosts` that stands for the address that a connection came to. No host name has such a form in DNS.
const OWN_ADDRESS: &str = "<address>";
/// What is shown in the place of a secret.
pub(super) const REDACTED: &str = "***";

/// A text that nobody may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFrom {
    /// In the configuration itself.
    Given(Secret),
    /// In a file, whose last line end is none of it.
    File(PathBuf),
}

/// What opens the admin port; nothing: it is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminAuth {
    /// A bearer token.
    pub token: Option<SecretFrom>,
    /// Basic credentials: name and password.
    pub basic: Option<(String, SecretFrom)>,
}

/// A host that the admin port is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminHost {
    /// A name, in lower case, without the dot at its end.
    Name(String),
    /// An address literal.
    Address(IpAddr),
    /// The address that the connection came to, whichever it is.
    OwnAddress,
}

/// How a running sidecar is asked.
#[derive(Clone, Debug)]
pub struct Running {
    /// Where its admin endpoints can be reached from here: never a wildcard address, never port 0.
    pub admin: std::net::SocketAddr,
    /// The value of `Host`.
    pub host: String,
    /// What opens it.
    pub auth: AdminAuth,
    /// What it shows, where it speaks TLS.
    pub tls: Option<super::Identity>,
}

/// What a secret is for, which decides what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A bearer token.
    Token,
    /// The password of basic credentials.
    Password,
}

// === impl Secret ===

impl Secret {
    /// Checks a text.
    ///
    /// # Errors
    /// What is wrong with it, without a word of it.
    pub fn new(text: &str, purpose: Purpose) -> Result<Secret, String> {
        let wrong = |what: &str| Err(format!("{what}; expected {}", purpose.rules().expected));
        if text.is_empty() {
            return wrong("is empty");
        }
        if text.len() > SECRET_BYTES_MAX {
            return wrong("is longer than 4 KiB");
        }
        if text.chars().any(char::is_whitespace) {
            return wrong("holds whitespace");
        }
        if text.chars().any(char::is_control) {
            return wrong("holds control characters");
        }
        if purpose == Purpose::Token && !text.is_ascii() {
            return wrong("holds characters that no field of a request has");
        }
        if purpose == Purpose::Token && text.len() < TOKEN_CHARS_MIN {
            return wrong("is too short");
        }
        Ok(Secret(text.to_owned()))
    }

    /// The text itself: to be compared and sent, never to be shown.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(REDACTED)
    }
}

// === impl AdminAuth ===

impl AdminAuth {
    /// Whether anything has to be shown at the door.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.token.is_none() && self.basic.is_none()
    }
}

// === impl AdminHost ===

impl AdminHost {
    /// Reads the host of a `Host` field, or an entry of the configuration: a name, or an address with or without brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<AdminHost> {
        if let Some(inside) = text.strip_prefix('[') {
            let address: Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
            return Some(AdminHost::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(AdminHost::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        // As in a URL of ours; underscores are no host names by the letter, but compose files use them.
        let known = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        (!name.is_empty() && name.chars().all(known)).then(|| AdminHost::Name(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for AdminHost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminHost::Name(name) => out.write_str(name),
            AdminHost::Address(IpAddr::V6(address)) => write!(out, "[{address}]"),
            AdminHost::Address(address) => address.fmt(out),
            AdminHost::OwnAddress => out.write_str(OWN_ADDRESS),
        }
    }
}

// === reading ===

/// Checks `admin_auth`.
///
/// # Errors
/// The first mistake.
pub(super) fn resolve_auth(keys: &mut Keys, raw: RawAdminAuth, folders: &Folders) -> Result<AdminAuth, ConfigError> {
    const USERNAME: &str = "admin_auth.username";
    const PASSWORD: [&str; 2] = ["admin_auth.password", "admin_auth.password_file"];
    let RawAdminAuth { token, token_file, username, password, password_file } = raw;
    let told = |given: &Scalar| given.as_ref().map(|given| given.source.clone());
    let (name_source, password_source) = (told(&username), told(&password).or(told(&password_file)));
    let names = ["admin_auth.token", "admin_auth.token_file"];
    let token = resolve_secret(keys, names, (token, token_file), Purpose::Token, folders)?;
    let username = keys.scalar(USERNAME, username, None, |text| match text {
        "none" => Ok(None),
        _ if text.is_empty() || text.chars().any(|c| c == ':' || c.is_control() || c.is_whitespace()) => {
            let problem =
                "is not a name that basic credentials can carry; expected a text without colons, whitespace and";
            Err(format!("{} {problem} control characters, or none", found(text)))
        }
        _ => Ok(Some(text.to_owned())),
    })?;
    let password = resolve_secret(keys, PASSWORD, (password, password_file), Purpose::Password, folders)?;
    let basic = match (username, password) {
        (Some(name), Some(password)) => Some((name, password)),
        (None, None) => None,
        (Some(_), None) => {
            let problem =
                "missing beside admin_auth.username; expected admin_auth.password or admin_auth.password_file";
            return Err(ConfigError::new(PASSWORD[0], problem, name_source));
        }
        (None, Some(_)) => {
            let problem = "missing beside the password; expected a name such as prometheus";
            return Err(ConfigError::new(USERNAME, problem, password_source));
        }
    };
    Ok(AdminAuth { token, basic })
}

/// A secret that is given either itself or by a file.
fn resolve_secret(
    keys: &mut Keys,
    [key, file_key]: [&'static str; 2],
    (itself, file): (Scalar, Scalar),
    purpose: Purpose,
    folders: &Folders,
) -> Result<Option<SecretFrom>, ConfigError> {
    let file_source = file.as_ref().map(|given| given.source.clone());
    let itself = keys.value(key, itself, None, |Given { value, source }| match value.as_str() {
        "none" => Ok(None),
        // Not trimmed: a line end that came along would be part of what clients have to send.
        text => match Secret::new(text, purpose) {
            Ok(secret) => Ok(Some(secret)),
            Err(problem) => Err(ConfigError::new(key, format!("{problem}, or none"), Some(source))),
        },
    })?;
    let folder = file_source.as_ref().map_or(&folders.working, |source| folders.of(source));
    let file = keys.scalar(file_key, file, None, |text| match text {
        "none" => Ok(None),
        _ => parse_path_of_file(text, purpose.rules().such_as, folder)
            .map(Some)
            .map_err(|problem| format!("{problem}, or none")),
    })?;
    match (itself, file) {
        (Some(secret), None) => Ok(Some(SecretFrom::Given(secret))),
        (None, Some(path)) => Ok(Some(SecretFrom::File(path))),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            let problem = format!("given beside {key}; expected one of the two, or none for the other");
            Err(ConfigError::new(file_key, problem, file_source))
        }
    }
}

/// What a purpose asks of a secret, in words.
struct Rules {
    expected: &'static str,
    such_as: &'static str,
}

impl Purpose {
    fn rules(self) -> Rules {
        match self {
            Purpose::Token => Rules {
                expected: "16 or more visible ASCII characters, for example from openssl rand -hex 32",
                such_as: "/run/secrets/admin-token",
            },
            Purpose::Password => Rules {
                expected: "a text without whitespace and control characters",
                such_as: "/run/secrets/admin-password",
            },
        }
    }
}

/// Checks `admin_hosts`.
///
/// # Errors
/// The first entry that is no host.
pub(super) fn resolve_hosts(key: &str, given: Given<Vec<Given<String>>>) -> Result<Vec<AdminHost>, ConfigError> {
    let mut hosts = Vec::new();
    for (index, item) in given.value.into_iter().enumerate() {
        let item_key = format!("{key}[{index}]");
        let source: Source = item.source.clone();
        let host = checked(&item_key, item, |text| {
            match text {
            OWN_ADDRESS => Ok(AdminHost::OwnAddress),
            _ => AdminHost::parse(text).ok_or_else(|| {
                format!(
                    "{} is not a host; expected a name without port such as metrics.internal, an address such as 10.0.0.5 \
                     or [fd00::5], or {OWN_ADDRESS} for the one that a connection comes to",
                    found(text)
                )
            }),
        }
        })?;
        if hosts.contains(&host) {
            let problem = format!("{} is listed twice; expected once", found(&host.to_string()));
            return Err(ConfigError::new(item_key, problem, Some(source)));
        }
        hosts.push(host);
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_in_one_form() {
        let same = |a: &str, b: &str| AdminHost::parse(a).is_some() && AdminHost::parse(a) == AdminHost::parse(b);
        assert!(same("Metrics.Internal", "metrics.internal."));
        assert!(same("[FD00:0::5]", "fd00::5") && same("[::ffff:10.0.0.5]", "10.0.0.5"));
        assert!(!same("10.0.0.5", "10.0.0.50"));
        for wrong in ["", ".", "a b", "a/b", "[::1", "::1]", "[10.0.0.5]", "a:80", "ü", "<address>"] {
            assert_eq!(AdminHost::parse(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{:?}", Secret::new("hunter2", Purpose::Password)), "Ok(***)");
    }
}
