//! The secrets of the configuration: what is given there, and what files hold. Read at start and at each reload.

use std::fmt;
use std::io::{self, Read as _};
use std::path::Path;

use super::regular;
use crate::admin::{Credentials, Protection};
use crate::config::{AdminAuth, AdminHost, Purpose, SECRET_BYTES_MAX, Secret, SecretFrom};

/// Why a secret cannot be had: the key, the file, and what is wrong with it, without a word of it.
#[derive(Debug)]
pub struct Failure {
    key: &'static str,
    path: std::path::PathBuf,
    problem: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {:?} {}", self.key, self.path.display().to_string(), self.problem)
    }
}

/// What the admin port asks for.
///
/// # Errors
/// When a file cannot be read, or holds no secret.
pub(super) fn protection(auth: &AdminAuth, hosts: &[AdminHost]) -> Result<Protection, Failure> {
    Ok(Protection { credentials: credentials(auth)?, hosts: hosts.to_vec() })
}

/// What opens an admin port.
///
/// # Errors
/// When a file cannot be read, or holds no secret.
pub(super) fn credentials(auth: &AdminAuth) -> Result<Credentials, Failure> {
    let AdminAuth { token, basic } = auth;
    let read = |from: &SecretFrom, key, purpose| match from {
        SecretFrom::Given(secret) => Ok(secret.clone()),
        SecretFrom::File(path) => read(path, purpose).map_err(|problem| Failure { key, path: path.clone(), problem }),
    };
    let token = token.as_ref().map(|from| read(from, "admin_auth.token_file", Purpose::Token)).transpose()?;
    let password = |from| read(from, "admin_auth.password_file", Purpose::Password);
    let basic = basic.as_ref().map(|(name, from)| Ok((name.as_str(), password(from)?))).transpose()?;
    Ok(Credentials::new(token.as_ref(), basic.as_ref().map(|(name, password)| (*name, password))))
}

/// The secret that a file holds, without the line end that editors and `echo` put behind it.
fn read(path: &Path, purpose: Purpose) -> Result<Secret, String> {
    let mut text = String::new();
    let most = SECRET_BYTES_MAX as u64 + "\r\n".len() as u64 + 1;
    let read = regular::open(path).and_then(|file| file.take(most).read_to_string(&mut text));
    read.map_err(|error| match error.kind() {
        // The error's own words are fine, but they would be about UTF-8.
        io::ErrorKind::InvalidData => "is not a text in UTF-8; expected the secret and nothing else".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Secret::new(text.strip_suffix('\r').unwrap_or(text), purpose)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_its_secret_with_or_without_a_line_end_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let longest = "x".repeat(SECRET_BYTES_MAX);
        for (content, expected) in [
            ("0123456789abcdef".to_owned(), "0123456789abcdef"),
            ("0123456789abcdef\n".to_owned(), "0123456789abcdef"),
            ("0123456789abcdef\r\n".to_owned(), "0123456789abcdef"),
            (format!("{longest}\r\n"), &longest),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read(&path, Purpose::Token).unwrap().reveal(), expected);
        }
        for content in
            ["", "\n", "0123456789abcdef\n\n", " 0123456789abcdef", "0123456789\u{7}abcdef", "0123456789abcde"]
        {
            std::fs::write(&path, content).unwrap();
            let problem = read(&path, Purpose::Token).unwrap_err();
            assert!(problem.contains("expected 16 or more visible ASCII characters"), "{problem}");
            assert!(!problem.contains("0123"), "{problem}");
        }
        std::fs::write(&path, format!("{longest}x")).unwrap();
        assert!(read(&path, Purpose::Token).unwrap_err().starts_with("is longer than 4 KiB"));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read(&path, Purpose::Token).unwrap_err().starts_with("is not a text"));
        assert!(read(folder.path(), Purpose::Token).unwrap_err().starts_with("cannot be read: "));
    }
}
