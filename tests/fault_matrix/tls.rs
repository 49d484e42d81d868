//! TLS for parties that know bytes only: a relay between the plain connection that a script holds and the socket that
//! leads to the sidecar. What ends on one side ends on the other in the same way, and a reset resets.

use std::future::Future;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::common::certificates::{Authority, server_config};

/// How a party speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// As it should.
    Right,
    /// Ends without the closure alert.
    WithoutGoodbye,
    /// With a certificate of an authority that nobody trusts.
    Stranger,
}

/// What both sides of the sidecar trust and show.
pub struct Certificates {
    authority: Authority,
    server: Arc<ServerConfig>,
    stranger: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// In the text of a configuration: the folder with `ca.pem`, `server.pem` and `server.key`.
const PLACE: &str = "{certificates}";

impl Certificates {
    /// New ones.
    pub fn new() -> Certificates {
        let authority = Authority::new("trusted in the matrix");
        let issued = authority.issue(&["localhost", "127.0.0.1"], 1);
        authority.keep("server", &issued);
        let unknown = Authority::new("trusted nowhere").issue(&["localhost", "127.0.0.1"], 1);
        let mut roots = RootCertStore::empty();
        roots.add(authority.der()).expect("a root");
        let builder = ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let mut client = builder.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Certificates {
            server: Arc::new(server_config(&issued, None, &["http/1.1"])),
            stranger: Arc::new(server_config(&unknown, None, &["http/1.1"])),
            client: Arc::new(client),
            authority,
        }
    }

    /// A configuration with the folder in its place.
    pub fn in_text(&self, config: &str) -> String {
        config.replace(PLACE, &self.authority.folder().display().to_string())
    }

    /// The plain end of a connection on which the other side begins the handshake.
    pub fn accept(&self, socket: TcpStream, how: Tls) -> TcpStream {
        let config = if how == Tls::Stranger { &self.stranger } else { &self.server };
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        relay(socket, how, async move |socket| acceptor.accept(socket).await)
    }

    /// The plain end of a connection on which this side does.
    pub fn connect(&self, socket: TcpStream) -> TcpStream {
        let connector = TlsConnector::from(Arc::clone(&self.client));
        let name = ServerName::try_from("localhost").expect("a name");
        relay(socket, Tls::Right, async move |socket| connector.connect(name, socket).await)
    }
}

/// Two ends of a plain connection.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    Ok((near, listener.accept()?.0))
}

/// A thread that relays until both sides have ended; gives the plain end.
fn relay<S, F>(
    socket: TcpStream,
    how: Tls,
    handshake: impl FnOnce(tokio::net::TcpStream) -> F + Send + 'static,
) -> TcpStream
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = io::Result<S>>,
{
    let (near, far) = pair().expect("a pair");
    for stream in [&socket, &far] {
        stream.set_nonblocking(true).expect("nonblocking");
        stream.set_nodelay(true).expect("no delay");
    }
    std::thread::spawn(move || {
        let below = socket.try_clone().expect("clone");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let reset = runtime.block_on(async {
            let plain = tokio::net::TcpStream::from_std(far).expect("a socket");
            // The party sees the end of its connection, and nothing before it.
            let Ok(secure) = handshake(tokio::net::TcpStream::from_std(socket).expect("a socket")).await else {
                return false;
            };
            let end = both_ways(plain, secure, &below, how).await;
            end.is_err()
        });
        // Not before the runtime has let go of the others.
        drop(runtime);
        if reset {
            socket2::SockRef::from(&below).set_linger(Some(Duration::ZERO)).expect("linger");
        }
    });
    near
}

/// Until both have ended; an error is a reset by the party, or of it.
async fn both_ways(
    plain: tokio::net::TcpStream,
    secure: impl AsyncRead + AsyncWrite + Unpin,
    below: &TcpStream,
    how: Tls,
) -> io::Result<()> {
    let (mut from_party, mut to_party) = plain.into_split();
    let (mut from_sidecar, mut to_sidecar) = tokio::io::split(secure);
    let out = async {
        let mut piece = vec![0; 16 << 10];
        loop {
            match from_party.read(&mut piece).await? {
                0 if how == Tls::WithoutGoodbye => return below.shutdown(std::net::Shutdown::Write),
                0 => return to_sidecar.shutdown().await,
                n => {
                    to_sidecar.write_all(&piece[..n]).await?;
                    to_sidecar.flush().await?;
                }
            }
        }
    };
    let back = async {
        let mut piece = vec![0; 16 << 10];
        loop {
            match from_sidecar.read(&mut piece).await {
                Ok(0) => return to_party.shutdown().await,
                Ok(n) => to_party.write_all(&piece[..n]).await?,
                Err(error) => {
                    let party: &tokio::net::TcpStream = to_party.as_ref();
                    socket2::SockRef::from(party).set_linger(Some(Duration::ZERO))?;
                    return Err(error);
                }
            }
        }
    };
    tokio::try_join!(out, back).map(drop)
}
