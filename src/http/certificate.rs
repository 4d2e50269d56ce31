//! The certificate that callers are shown: from files, which are followed when they change, or from an authority.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;

use super::acme::Acme;
use crate::clock::Clock;
use crate::config;
use crate::tls::{self, Identity};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate in use.
pub struct Certificate {
    identity: Arc<Identity>,
    source: Source,
    clock: Clock,
}

enum Source {
    Files(Mutex<Shown>),
    Authority(Box<Acme>),
}

/// Where it was found, and what was there.
struct Shown {
    place: config::CertificateFiles,
    files: config::TlsFiles,
}

impl Certificate {
    /// # Errors
    /// What is wrong with the files, and which.
    pub fn open(place: &config::Tls, clock: Clock) -> Result<Arc<Certificate>, String> {
        let identity = Arc::<Identity>::default();
        let source = match place {
            config::Tls::Files(place) => {
                let files = place.read()?;
                identity.replace(tls::certified(&files.certificate, files.key.expose(), clock.now()).map_err(of(place))?);
                Source::Files(Mutex::new(Shown { place: place.clone(), files }))
            }
            config::Tls::Authority(place) => {
                Source::Authority(Box::new(Acme::open(place, Arc::clone(&identity), clock.clone())?))
            }
        };
        Ok(Arc::new(Certificate { identity, source, clock }))
    }

    /// TLS as we speak it to callers: with this certificate, whichever it is at the time.
    ///
    /// # Errors
    /// There is no TLS to speak.
    pub fn server(&self) -> Result<Arc<ServerConfig>, String> {
        tls::server(Arc::clone(&self.identity)).map(Arc::new)
    }

    /// Whether there is one to show that is good now. Without it no caller gets in.
    pub fn is_good(&self) -> bool {
        self.identity.is_good(self.clock.now())
    }

    /// # Errors
    /// What [`Certificate::renew`] would refuse.
    pub fn judge(&self, place: &config::Tls) -> Result<(), String> {
        match (&self.source, place) {
            (Source::Files(_), config::Tls::Files(place)) => {
                let files = place.read()?;
                tls::certified(&files.certificate, files.key.expose(), self.clock.now()).map(drop).map_err(of(place))
            }
            (Source::Authority(_), config::Tls::Authority(place)) => Acme::judge(place),
            _ => Err("files take the place of an authority, or an authority theirs, with a restart only".into()),
        }
    }

    /// Shows what is at a place from now on, or asks an authority for other names. Whether another one is shown at once.
    ///
    /// # Errors
    /// As [`Certificate::open`]; the one before is shown then.
    pub fn renew(&self, place: &config::Tls) -> Result<bool, String> {
        match (&self.source, place) {
            (Source::Files(shown), config::Tls::Files(place)) => self.read_again(shown, place),
            (Source::Authority(acme), config::Tls::Authority(place)) => {
                acme.follow(place);
                Ok(false)
            }
            _ => self.judge(place).map(|()| false),
        }
    }

    fn read_again(&self, shown: &Mutex<Shown>, place: &config::CertificateFiles) -> Result<bool, String> {
        let files = place.read()?;
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.files == files {
            shown.place = place.clone();
            return Ok(false);
        }
        let certified = tls::certified(&files.certificate, files.key.expose(), self.clock.now()).map_err(of(place))?;
        self.identity.replace(certified);
        *shown = Shown { place: place.clone(), files };
        Ok(true)
    }

    /// Keeps it good for as long as the program runs.
    pub async fn keep(self: Arc<Self>) {
        match &self.source {
            Source::Files(shown) => self.watch(shown).await,
            Source::Authority(acme) => acme.keep().await,
        }
    }

    /// Looks at the files now and then. Between two writes they may not fit together; then the next look finds that they do.
    async fn watch(&self, shown: &Mutex<Shown>) {
        let mut told = None;
        loop {
            actix_web::rt::time::sleep(LOOK_EVERY).await;
            let place = shown.lock().unwrap_or_else(PoisonError::into_inner).place.clone();
            match self.read_again(shown, &place) {
                Ok(true) => tracing::info!("the certificate has changed and is shown from now on"),
                Ok(false) => {}
                Err(problem) if told.as_ref() == Some(&problem) => continue,
                Err(problem) => {
                    tracing::error!("the new certificate is refused and the old one stays: {problem}");
                    told = Some(problem);
                    continue;
                }
            }
            told = None;
        }
    }
}

fn of(place: &config::CertificateFiles) -> impl Fn(String) -> String {
    move |why| format!("{}: {why}", place.certificate.display())
}
