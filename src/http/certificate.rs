//! The certificate that callers are shown: read at the start, again on a reload, and whenever its files have changed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;

use crate::clock::Clock;
use crate::config;
use crate::tls::{self, Identity};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate in use.
pub struct Certificate {
    identity: Arc<Identity>,
    shown: Mutex<Shown>,
    clock: Clock,
}

/// Where it was found, and what was there.
struct Shown {
    place: config::Tls,
    files: config::TlsFiles,
}

impl Certificate {
    /// # Errors
    /// What is wrong with the files, and which.
    pub fn open(place: &config::Tls, clock: Clock) -> Result<Arc<Certificate>, String> {
        let files = place.read()?;
        let identity = Identity::new(tls::certified(&files.certificate, files.key.expose(), clock.now()).map_err(of(place))?);
        let shown = Mutex::new(Shown { place: place.clone(), files });
        Ok(Arc::new(Certificate { identity: Arc::new(identity), shown, clock }))
    }

    /// TLS as we speak it to callers: with this certificate, whichever it is at the time.
    ///
    /// # Errors
    /// There is no TLS to speak.
    pub fn server(&self) -> Result<Arc<ServerConfig>, String> {
        tls::server(Arc::clone(&self.identity)).map(Arc::new)
    }

    /// Shows what is at a place from now on. Whether it is another one than before.
    ///
    /// # Errors
    /// As [`Certificate::open`]; the one before is shown then.
    pub fn renew(&self, place: &config::Tls) -> Result<bool, String> {
        let files = place.read()?;
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.files == files {
            shown.place = place.clone();
            return Ok(false);
        }
        let certified = tls::certified(&files.certificate, files.key.expose(), self.clock.now()).map_err(of(place))?;
        self.identity.replace(certified);
        *shown = Shown { place: place.clone(), files };
        Ok(true)
    }

    /// Looks at the files now and then. Between two writes they may not fit together; then the next look finds that they do.
    pub async fn follow(self: Arc<Self>) {
        let mut told = None;
        loop {
            actix_web::rt::time::sleep(LOOK_EVERY).await;
            let place = self.shown.lock().unwrap_or_else(PoisonError::into_inner).place.clone();
            match self.renew(&place) {
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

fn of(place: &config::Tls) -> impl Fn(String) -> String {
    move |why| format!("{}: {why}", place.certificate.display())
}
