//! TLS by rustls, both sides: versions 1.2 and 1.3, ALPN, certificates that are read anew without a restart.
//!
//! Certificates and keys are files. What was made of them is replaced as a whole, so a handshake sees one of two states;
//! a file that cannot be used leaves the state before in force.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::config::{ClientAuth, Identity, Place, ServerTls, Upstream, UpstreamTls};
use crate::labels::TlsFailure;
use crate::transport::Stream;
use crate::transport::certificate::not_after;

/// Encrypted bytes that may wait inside a connection for room in its socket: two full records. More would only hide from
/// the sender that its receiver is slow.
const BUFFERED_BYTES: usize = 32 * 1024;
/// The largest file of certificates that is read. The roots of a whole system have a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The protocols of ALPN (RFC 7301; names of the IANA registry).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// What both sides agreed to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negotiated {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Negotiated {
    fn name(self) -> &'static [u8] {
        match self {
            Negotiated::Http1 => HTTP1,
            Negotiated::Http2 => HTTP2,
        }
    }

    fn of(name: Option<&[u8]>) -> Option<Negotiated> {
        match name? {
            HTTP2 => Some(Negotiated::Http2),
            // Nothing else was offered.
            _ => Some(Negotiated::Http1),
        }
    }
}

/// A file that TLS needs and that cannot be used: the key that names it, the file, and what is wrong. Nothing of what
/// the file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    key: String,
    file: Option<PathBuf>,
    problem: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => {
                write!(out, "{}: \"{}\" {}", self.key, file.display().to_string().escape_debug(), self.problem)
            }
            None => write!(out, "{}: {}", self.key, self.problem),
        }
    }
}

impl std::error::Error for Unusable {}

// === Server ===

/// The server's side of handshakes.
#[derive(Debug)]
pub struct Acceptor {
    section: &'static str,
    files: ServerTls,
    protocols: &'static [Negotiated],
    current: ArcSwap<ServerConfig>,
    state: State,
}

impl Acceptor {
    /// Reads the files of the section `section`, the `tls` or `admin_tls` of the configuration. `protocols`: what is
    /// spoken here, the best first.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn new(
        section: &'static str,
        files: &ServerTls,
        protocols: &'static [Negotiated],
    ) -> Result<Acceptor, Unusable> {
        let stamps = Stamp::of_all(&server_files(files));
        let (config, expires) = server_config(section, files, protocols)?;
        let state = State::new(stamps, expires);
        Ok(Acceptor { section, files: files.clone(), protocols, current: ArcSwap::from_pointee(config), state })
    }

    /// The files that were asked for.
    #[must_use]
    pub fn files(&self) -> &ServerTls {
        &self.files
    }

    /// A handshake as the server, and what the client wants to speak: `None` if it does not say.
    ///
    /// # Errors
    /// When it fails; [`failure`] says how. The socket comes back: the client has been told, and may still be reading.
    pub async fn accept(&self, stream: Stream) -> Result<(Stream, Option<Negotiated>), (io::Error, Stream)> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        let accepting = acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(BUFFERED_BYTES)));
        let stream = accepting.into_fallible().await?;
        let negotiated = Negotiated::of(stream.get_ref().1.alpn_protocol());
        Ok((Stream::Tls(Box::new(TlsStream::Server(stream))), negotiated))
    }

    /// Whether a file is another one than when they were last read.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.state.changed(&server_files(&self.files))
    }

    /// Reads the files again. Connections that are open go on with what they have.
    ///
    /// # Errors
    /// When one of the files cannot be used; then nothing has changed.
    pub fn renew(&self) -> Result<(), Unusable> {
        self.state.read(&server_files(&self.files));
        let (config, expires) = server_config(self.section, &self.files, self.protocols)?;
        self.current.store(Arc::new(config));
        self.state.expires.store(expires, Relaxed);
        Ok(())
    }

    /// The Unix time at which the certificate in force ends.
    #[must_use]
    pub fn expires(&self) -> i64 {
        self.state.expires.load(Relaxed)
    }
}

fn server_files(files: &ServerTls) -> Vec<&Path> {
    let ServerTls { identity: Identity { certificate, key }, client_ca, client_auth: _ } = files;
    [Some(certificate), Some(key), client_ca.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect()
}

fn server_config(section: &str, files: &ServerTls, protocols: &[Negotiated]) -> Result<(ServerConfig, i64), Unusable> {
    let ServerTls { identity, client_ca, client_auth } = files;
    let certified = certified(section, identity)?;
    let expires = expires(section, identity, &certified)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites of both versions");
    let builder = match (client_ca, client_auth) {
        (Some(file), ClientAuth::Optional | ClientAuth::Required) => {
            let key = format!("{section}.client_ca");
            let roots = Arc::new(roots(&key, file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&PROVIDER));
            let verifier =
                if *client_auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(&key, file, error))?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.name().to_vec()).collect();
    // Its keys live for hours and are replaced by themselves. A session that was begun under other files is not resumed.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| Unusable {
        key: section.to_owned(),
        file: None,
        problem: format!("no keys for session tickets: {error}"),
    })?;
    Ok((config, expires))
}

// === Client ===

/// The client's side of handshakes with the backend.
#[derive(Debug)]
pub struct Client {
    files: UpstreamTls,
    protocols: &'static [Negotiated],
    name: ServerName<'static>,
    current: ArcSwap<ClientConfig>,
    state: State,
}

impl Client {
    /// Reads the files of the section `upstream_tls`. `protocols`: what is offered to the backend, the best first.
    ///
    /// # Errors
    /// When one of them cannot be used, or the backend's name cannot be the name in a certificate.
    pub fn new(files: &UpstreamTls, upstream: &Upstream, protocols: &'static [Negotiated]) -> Result<Client, Unusable> {
        let stamps = Stamp::of_all(&client_files(files));
        let name = server_name(files, upstream)?;
        let (config, expires) = client_config(files, protocols)?;
        let state = State::new(stamps, expires);
        Ok(Client { files: files.clone(), protocols, name, current: ArcSwap::from_pointee(config), state })
    }

    /// Whether this is what one made from these would be, save for the content of files.
    #[must_use]
    pub fn is_of(&self, files: &UpstreamTls, upstream: &Upstream) -> bool {
        self.files == *files && server_name(files, upstream).is_ok_and(|name| name == self.name)
    }

    /// A handshake as the client, and what will be spoken: HTTP/1.1 if the backend does not say.
    ///
    /// # Errors
    /// When it fails; [`failure`] says how.
    pub async fn handshake(&self, stream: Stream) -> io::Result<(Stream, Negotiated)> {
        let connector = TlsConnector::from(self.current.load_full());
        let limit = |session: &mut rustls::ClientConnection| session.set_buffer_limit(Some(BUFFERED_BYTES));
        let stream = connector.connect_with(self.name.clone(), stream, limit).await?;
        let negotiated = Negotiated::of(stream.get_ref().1.alpn_protocol()).unwrap_or(Negotiated::Http1);
        Ok((Stream::Tls(Box::new(TlsStream::Client(stream))), negotiated))
    }

    /// Whether a file is another one than when they were last read.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.state.changed(&client_files(&self.files))
    }

    /// Reads the files again. Connections that are open go on with what they have.
    ///
    /// # Errors
    /// When one of the files cannot be used; then nothing has changed.
    pub fn renew(&self) -> Result<(), Unusable> {
        self.state.read(&client_files(&self.files));
        let (config, expires) = client_config(&self.files, self.protocols)?;
        self.current.store(Arc::new(config));
        self.state.expires.store(expires.unwrap_or(NEVER), Relaxed);
        Ok(())
    }

    /// The Unix time at which the client certificate in force ends, if there is one.
    #[must_use]
    pub fn expires(&self) -> Option<i64> {
        Some(self.state.expires.load(Relaxed)).filter(|expires| *expires != NEVER)
    }
}

fn client_files(files: &UpstreamTls) -> Vec<&Path> {
    let UpstreamTls { ca, server_name: _, identity, verify: _ } = files;
    let identity = identity.iter().flat_map(|Identity { certificate, key }| [certificate, key]);
    ca.iter().chain(identity).map(PathBuf::as_path).collect()
}

/// The name that the backend's certificate must have, and that it is told (SNI, unless it is an address).
fn server_name(files: &UpstreamTls, upstream: &Upstream) -> Result<ServerName<'static>, Unusable> {
    let (key, name) = match (&files.server_name, &upstream.place) {
        (Some(name), _) => ("upstream_tls.server_name", name.clone()),
        (None, Place::Tcp { host, .. }) => ("upstream", host.clone()),
        (None, Place::Unix(_)) => ("upstream", "localhost".to_owned()),
    };
    let shown = name.clone();
    ServerName::try_from(name).map_err(|_invalid| Unusable {
        key: key.to_owned(),
        file: None,
        problem: format!(
            "\"{}\" cannot be the name in a certificate; expected a host name or an address, or one as \
             upstream_tls.server_name",
            shown.escape_debug()
        ),
    })
}

fn client_config(files: &UpstreamTls, protocols: &[Negotiated]) -> Result<(ClientConfig, Option<i64>), Unusable> {
    const SECTION: &str = "upstream_tls";
    let UpstreamTls { ca, server_name: _, identity, verify } = files;
    let verifier: Arc<dyn ServerCertVerifier> = if *verify {
        let roots = match ca {
            Some(file) => roots("upstream_tls.ca", file)?,
            None => system_roots()?,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER));
        verifier.build().map_err(|error| Unusable {
            key: "upstream_tls.ca".to_owned(),
            file: ca.clone(),
            problem: format!("is of no use: {error}"),
        })?
    } else {
        Arc::new(Unverified(None))
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites of both versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let (mut config, expires) = match identity {
        Some(identity) => {
            let certified = certified(SECTION, identity)?;
            let expires = expires(SECTION, identity, &certified)?;
            let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
            (builder.with_client_cert_resolver(resolver), Some(expires))
        }
        None => (builder.with_no_client_auth(), None),
    };
    // Sessions are kept and resumed by default, a few hundred of them.
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.name().to_vec()).collect();
    Ok((config, expires))
}

/// Takes this certificate and no other for the right one, or any; the handshake still proves that the peer has its key.
#[derive(Debug)]
struct Unverified(Option<CertificateDer<'static>>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.0 {
            Some(only) if only != end_entity => Err(rustls::CertificateError::ApplicationVerificationFailure.into()),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

// === Questions to oneself ===

/// The client's side of a handshake with another process of this program, for a blocking socket. On loopback whoever
/// answers is taken for it: who can listen there in its place could do so without TLS too, and a health check must not
/// fail while a new certificate is in its file and not yet in force. Elsewhere it must show the certificate of the file.
/// Where it asks for a certificate, it is shown its own.
///
/// # Errors
/// When there is no certificate to compare with.
pub fn with_own(
    identity: &Identity,
    address: SocketAddr,
    socket: std::net::TcpStream,
) -> Result<impl io::Read + io::Write + use<>, Unusable> {
    const SECTION: &str = "admin_tls";
    let only = match address.ip().is_loopback() {
        true => None,
        false => Some(certificates("admin_tls.certificate", &identity.certificate)?.swap_remove(0)),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites of both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(only)));
    let config = match certified(SECTION, identity) {
        Ok(own) => builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own))),
        // The key may be out of reach, and mostly nobody asks for it.
        Err(_) => builder.with_no_client_auth(),
    };
    let name = ServerName::IpAddress(address.ip().into());
    let session = rustls::ClientConnection::new(Arc::new(config), name).map_err(|error| Unusable {
        key: SECTION.to_owned(),
        file: None,
        problem: error.to_string(),
    })?;
    Ok(rustls::StreamOwned::new(session, socket))
}

// === Failures ===

/// How a handshake failed.
#[must_use]
pub fn failure(error: &io::Error) -> TlsFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented) => TlsFailure::NoCertificate,
        Some(rustls::Error::InvalidCertificate(_)) => TlsFailure::BadCertificate,
        Some(rustls::Error::AlertReceived(_)) => TlsFailure::Alert,
        Some(_) => TlsFailure::Protocol,
        None => TlsFailure::Closed,
    }
}

// === Files ===

/// What is known of the files that were read last.
#[derive(Debug)]
struct State {
    stamps: Mutex<Vec<Option<Stamp>>>,
    expires: AtomicI64,
}

/// The end of a certificate that there is not.
const NEVER: i64 = i64::MAX;

/// Tells a file from the one that was there before, also where only a link on the way to it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl State {
    fn new(stamps: Vec<Option<Stamp>>, expires: impl Into<Option<i64>>) -> State {
        State { stamps: Mutex::new(stamps), expires: AtomicI64::new(expires.into().unwrap_or(NEVER)) }
    }

    fn changed(&self, files: &[&Path]) -> bool {
        *self.stamps.lock().unwrap_or_else(PoisonError::into_inner) != Stamp::of_all(files)
    }

    /// The files are about to be read. Before and not after: what changes meanwhile has changed.
    fn read(&self, files: &[&Path]) {
        *self.stamps.lock().unwrap_or_else(PoisonError::into_inner) = Stamp::of_all(files);
    }
}

impl Stamp {
    fn of_all(files: &[&Path]) -> Vec<Option<Stamp>> {
        files.iter().map(|file| Stamp::of(file)).collect()
    }

    fn of(file: &Path) -> Option<Stamp> {
        let there = fs::metadata(file).ok()?;
        let modified = (there.mtime(), there.mtime_nsec());
        Some(Stamp { device: there.dev(), inode: there.ino(), size: there.size(), modified })
    }
}

fn unusable(key: &str, file: &Path, problem: impl fmt::Display) -> Unusable {
    Unusable { key: key.to_owned(), file: Some(file.to_owned()), problem: format!("is of no use: {problem}") }
}

/// The bytes of a file. A device or a log that was named by a slip is not read to its end.
fn read(key: &str, file: &Path) -> Result<Vec<u8>, Unusable> {
    use std::io::Read as _;
    let wrong = |problem| Unusable { key: key.to_owned(), file: Some(file.to_owned()), problem };
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).and_then(|file| match file.metadata()?.is_file() {
        true => file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes),
        false => Err(io::Error::other("it is no file")),
    });
    match opened {
        Err(error) => Err(wrong(format!("cannot be read: {error}"))),
        Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => Err(wrong("is too large; expected at most 1MiB".to_owned())),
        Ok(_) => Ok(bytes),
    }
}

/// All certificates of a PEM file; at least one.
fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let bytes = read(key, file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(no_pem(key, file, "holds no certificate; expected PEM (-----BEGIN CERTIFICATE-----)")),
        Err(_malformed) => Err(no_pem(key, file, "is not valid PEM; expected -----BEGIN CERTIFICATE-----")),
    }
}

fn no_pem(key: &str, file: &Path, problem: &str) -> Unusable {
    Unusable { key: key.to_owned(), file: Some(file.to_owned()), problem: problem.to_owned() }
}

fn certified(section: &str, identity: &Identity) -> Result<CertifiedKey, Unusable> {
    let Identity { certificate, key } = identity;
    let (key_of_certificate, key_of_key) = (format!("{section}.certificate"), format!("{section}.key"));
    let chain = certificates(&key_of_certificate, certificate)?;
    let bytes = read(&key_of_key, key)?;
    // No cause is passed on here: nothing that stood in the file may get into a message.
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let problem = match error {
            pem::Error::NoItemsFound if bytes.windows(9).any(|window| window == b"ENCRYPTED") => {
                "is encrypted; expected a private key without a passphrase"
            }
            pem::Error::NoItemsFound => "holds no private key; expected PEM (-----BEGIN PRIVATE KEY-----)",
            _ => "is not valid PEM; expected -----BEGIN PRIVATE KEY-----",
        };
        no_pem(&key_of_key, key, problem)
    })?;
    CertifiedKey::from_der(chain, private, &PROVIDER).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let certificate = certificate.display().to_string();
            let problem = format!("does not match the certificate in \"{}\"", certificate.escape_debug());
            no_pem(&key_of_key, key, &problem)
        }
        rustls::Error::InvalidCertificate(error) => unusable(&key_of_certificate, certificate, error),
        _ => no_pem(&key_of_key, key, "is no key of a kind that is known; expected ECDSA, Ed25519 or RSA"),
    })
}

/// The end of the certificate itself, the first one of its file.
fn expires(section: &str, identity: &Identity, certified: &CertifiedKey) -> Result<i64, Unusable> {
    certified.cert.first().and_then(|leaf| not_after(leaf)).ok_or_else(|| {
        unusable(&format!("{section}.certificate"), &identity.certificate, "it does not say when it ends")
    })
}

/// The roots of a PEM file.
fn roots(key: &str, file: &Path) -> Result<RootCertStore, Unusable> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(key, file)? {
        store.add(certificate).map_err(|error| unusable(key, file, error))?;
    }
    Ok(store)
}

/// What the system trusts. Some of it may be of a kind that nobody can read; the rest counts.
fn system_roots() -> Result<RootCertStore, Unusable> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        return Err(Unusable {
            key: "upstream_tls.ca".to_owned(),
            file: None,
            problem: "this system has no root certificates (ca-certificates); expected a file of the backend's"
                .to_owned(),
        });
    }
    Ok(store)
}
