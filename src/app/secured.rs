//! What makes TLS of connections, made of files and made anew when they change.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use crate::config::{Config, Scheme};
use crate::labels::CertificateUse;
use crate::proxy::upstream::OFFERED;
use crate::proxy::worker;
use crate::signals::own::Own;
use crate::transport::tls::{Acceptor, Client, Negotiated, Unusable};

/// How often files are looked at: a question to the file system for each. Certificates are replaced days before they end,
/// and Kubernetes itself takes a minute to hand a new one over.
const LOOK: Duration = Duration::from_secs(5);

/// TLS of all three kinds, as far as it is asked for.
#[derive(Debug)]
pub(super) struct Secured {
    pub(super) proxy: worker::Tls,
    pub(super) admin: Option<Arc<Acceptor>>,
    look: Interval,
    /// The latest files could not be used, and nothing has gone well since.
    refused: bool,
}

/// Something that is made of files.
enum Made {
    Acceptor(CertificateUse, Arc<Acceptor>),
    Client(Arc<Client>),
}

impl Made {
    fn usage(&self) -> CertificateUse {
        match self {
            Made::Acceptor(usage, _) => *usage,
            Made::Client(_) => CertificateUse::Upstream,
        }
    }

    fn changed(&self) -> bool {
        match self {
            Made::Acceptor(_, acceptor) => acceptor.changed(),
            Made::Client(client) => client.changed(),
        }
    }

    fn renew(&self) -> Result<(), Unusable> {
        match self {
            Made::Acceptor(_, acceptor) => acceptor.renew(),
            Made::Client(client) => client.renew(),
        }
    }

    fn expires(&self) -> Option<i64> {
        match self {
            Made::Acceptor(_, acceptor) => Some(acceptor.expires()),
            Made::Client(client) => client.expires(),
        }
    }
}

/// The certificate for this use has another end now, and whoever asks is told so.
fn show(own: &Own, all: &[Made]) {
    for usage in CertificateUse::ALL {
        let ends = all.iter().find(|made| made.usage() == *usage).and_then(Made::expires);
        own.certificate_ends(*usage, ends);
    }
}

impl Secured {
    /// Reads all files. Needs a runtime.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub(super) fn new(config: &Config) -> Result<Secured, Unusable> {
        let (proxy, admin) = read(config)?;
        if config.upstream.scheme == Scheme::Https && !config.upstream_tls.verify {
            tracing::warn!(
                event = "upstream_not_verified",
                upstream = %config.upstream,
                "upstream_tls.verify is false: whoever is on the way to the backend can read and change everything"
            );
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Secured { proxy, admin, look, refused: false })
    }

    /// Reads all files of a new configuration. Where the keys have not changed, what there is goes on, so that
    /// connections with the backend do; only its files are read again.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub(super) fn reload(&mut self, config: &Config) -> Result<(), Unusable> {
        // A configuration that fails is told of by itself from here on.
        self.refused = false;
        let same_listener = self.proxy.listener.as_ref().map(|acceptor| acceptor.files()) == config.tls.as_ref();
        let (mut proxy, _) = read(config)?;
        if same_listener {
            proxy.listener.clone_from(&self.proxy.listener);
        }
        if let (Some(_), Some(old)) = (&proxy.upstream, &self.proxy.upstream)
            && old.is_of(&config.upstream_tls, &config.upstream)
        {
            proxy.upstream = Some(Arc::clone(old));
        }
        self.proxy = proxy;
        self.all().iter().try_for_each(Made::renew)
    }

    /// Waits until a file is another one than when it was last read.
    pub(super) async fn changed(&mut self) {
        if self.all().is_empty() {
            return std::future::pending().await;
        }
        loop {
            self.look.tick().await;
            let all = self.all();
            // A file system may hang, and this thread serves others.
            let looked = tokio::task::spawn_blocking(move || all.iter().any(Made::changed));
            if looked.await.unwrap_or(false) {
                return;
            }
        }
    }

    /// Reads what has changed. One that cannot be used leaves the old one in force.
    pub(super) fn renew(&mut self, own: &Own) {
        for made in self.all().iter().filter(|made| made.changed()) {
            let usage = made.usage().as_str();
            match made.renew() {
                Ok(()) => {
                    tracing::info!(event = "certificate_renewed", usage, ends = made.expires());
                    if std::mem::take(&mut self.refused) {
                        own.reload_succeeded();
                    }
                }
                Err(error) => {
                    self.refused = true;
                    own.reload_failed();
                    tracing::error!(event = "certificate_refused", usage, %error, "the old one stays in force");
                }
            }
        }
        self.show(own);
    }

    /// Tells when the certificates in force end.
    pub(super) fn show(&self, own: &Own) {
        show(own, &self.all());
    }

    fn all(&self) -> Vec<Made> {
        let acceptor =
            |usage, acceptor: &Option<Arc<Acceptor>>| acceptor.clone().map(|made| Made::Acceptor(usage, made));
        [
            acceptor(CertificateUse::Listener, &self.proxy.listener),
            acceptor(CertificateUse::Admin, &self.admin),
            self.proxy.upstream.clone().map(Made::Client),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Reads the files that a configuration names.
///
/// # Errors
/// When one of them cannot be used.
pub(super) fn read(config: &Config) -> Result<(worker::Tls, Option<Arc<Acceptor>>), Unusable> {
    let tls = &config.tls;
    let listener = tls.as_ref().map(|tls| Acceptor::new("tls", tls, &[Negotiated::Http2, Negotiated::Http1]));
    let admin = config.admin_tls.as_ref().map(|tls| Acceptor::new("admin_tls", tls, &[Negotiated::Http1]));
    let upstream = match config.upstream.scheme {
        Scheme::Https => Some(Client::new(&config.upstream_tls, &config.upstream, OFFERED)?),
        Scheme::Http | Scheme::H2c => None,
    };
    let proxy = worker::Tls { listener: listener.transpose()?.map(Arc::new), upstream: upstream.map(Arc::new) };
    Ok((proxy, admin.transpose()?.map(Arc::new)))
}
