//! Certificates for tests: an authority, what it issues, and a folder that the files lie in.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// An authority, with a folder for its files.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key.
pub struct Issued {
    /// The certificate.
    pub certificate: Certificate,
    /// Its key.
    pub key: KeyPair,
}

impl Authority {
    /// A new one that nobody knows.
    #[must_use]
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
        let authority = Authority { issuer, folder: tempfile::tempdir().expect("a folder") };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    /// Its own certificate as a file.
    #[must_use]
    pub fn ca(&self) -> String {
        self.path("ca.pem")
    }

    /// Its own certificate.
    #[must_use]
    pub fn der(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// A certificate for these names, for servers and clients, valid from 2020 until the first day of this year.
    #[must_use]
    pub fn issue_until(&self, names: &[&str], serial: u8, year: i32) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.serial_number = Some(SerialNumber::from(vec![serial]));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { certificate, key }
    }

    /// One that is valid for long.
    #[must_use]
    pub fn issue(&self, names: &[&str], serial: u8) -> Issued {
        self.issue_until(names, serial, 2100)
    }

    /// Writes a certificate and its key as `NAME.pem` and `NAME.key`, and returns both paths.
    pub fn keep(&self, name: &str, issued: &Issued) -> (String, String) {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        self.write(&key, &issued.key.serialize_pem());
        self.write(&certificate, &issued.certificate.pem());
        (self.path(&certificate), self.path(&key))
    }

    /// Writes any file, in one step, as whoever replaces certificates does.
    pub fn write(&self, name: &str, text: &str) {
        let beside = self.folder.path().join(format!("{name}.new"));
        std::fs::write(&beside, text).expect("a file");
        std::fs::rename(beside, self.folder.path().join(name)).expect("in its place");
    }

    /// The path of a file.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// A server's side of TLS with this certificate, which speaks these protocols and asks clients for what `clients` issued.
#[must_use]
pub fn server_config(issued: &Issued, clients: Option<&Authority>, protocols: &[&str]) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = match clients {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der()).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
        None => builder.with_no_client_auth(),
    };
    let key = PrivatePkcs8KeyDer::from(issued.key.serialize_der()).into();
    let mut config = builder.with_single_cert(vec![issued.certificate.der().clone()], key).expect("a pair");
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}
