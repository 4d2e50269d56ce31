//! The certificate that callers are shown: from files, which are followed when they change, or from an authority.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;

use super::acme::Acme;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::tls::{self, Certified, Identity, Untimely};

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

/// How it stands with the certificate that callers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// It is good, and should have been renewed by now.
    EndsSoon,
    /// By our clock its time is over or has not come. It is shown all the same: callers judge by theirs.
    Untimely,
    /// There is none to show yet; an authority is asked for one.
    Missing,
}

impl Certificate {
    /// Files whose time is over, or has not come, are taken: they may be renewed at any time.
    ///
    /// # Errors
    /// What is wrong with the files, and which.
    pub fn open(place: &config::Tls, clock: Clock) -> Result<Arc<Certificate>, String> {
        let identity = Arc::<Identity>::default();
        let source = match place {
            config::Tls::Files(place) => {
                let files = place.read()?;
                identity.replace(certified(place, &files)?);
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

    /// How it stands with it now, and that in words, with what to do where something is to be done.
    pub fn standing(&self) -> (Standing, String) {
        let now = self.clock.now();
        let Some(shown) = self.identity.shown() else {
            return (Standing::Missing, "there is none yet; the log says why the authority has given none".into());
        };
        let end = shown.good.end.to_rfc3339();
        match shown.judge(now) {
            Err(Untimely::Expired(_)) => (Standing::Untimely, format!("the certificate has expired on {end}; {}", self.remedy())),
            Err(why @ Untimely::NotYet(_)) => (Standing::Untimely, why.to_string()),
            Ok(()) if shown.ends_soon(now) => {
                (Standing::EndsSoon, format!("the certificate expires on {end}; {}", self.remedy()))
            }
            Ok(()) => (Standing::Good, format!("the certificate is good until {end}")),
        }
    }

    /// When the one that is shown ends, if there is one.
    pub fn end(&self) -> Option<Timestamp> {
        self.identity.shown().map(|shown| shown.good.end)
    }

    fn remedy(&self) -> String {
        match &self.source {
            Source::Files(shown) => {
                let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                let file = shown.place.certificate.display();
                format!("{file} was not renewed: renew it (certbot renew), and it is shown within seconds")
            }
            Source::Authority(acme) => format!("{} has not given the next one, and the log says why", acme.directory()),
        }
    }

    /// # Errors
    /// What [`Certificate::renew`] would refuse.
    pub fn judge(&self, place: &config::Tls) -> Result<(), String> {
        match (&self.source, place) {
            (Source::Files(_), config::Tls::Files(place)) => self.fit(place, &place.read()?).map(drop),
            (Source::Authority(_), config::Tls::Authority(place)) => Acme::judge(place),
            _ => Err("files take the place of an authority, or an authority theirs, with a restart only".into()),
        }
    }

    /// Shows what is at a place from now on, or asks an authority for other names. Whether another one is shown at once.
    ///
    /// # Errors
    /// What is wrong with the files, or that their time is not now; the one before is shown then, and the files are looked at again.
    pub fn renew(&self, place: &config::Tls) -> Result<bool, String> {
        match (&self.source, place) {
            (Source::Files(shown), config::Tls::Files(place)) => {
                // First: whatever is there at this moment, the next look finds what it is then.
                shown.lock().unwrap_or_else(PoisonError::into_inner).place = place.clone();
                self.read_again(shown)
            }
            (Source::Authority(acme), config::Tls::Authority(place)) => {
                acme.follow(place);
                Ok(false)
            }
            _ => self.judge(place).map(|()| false),
        }
    }

    fn read_again(&self, shown: &Mutex<Shown>) -> Result<bool, String> {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        let files = shown.place.read()?;
        if shown.files == files {
            return Ok(false);
        }
        self.identity.replace(self.fit(&shown.place, &files)?);
        shown.files = files;
        Ok(true)
    }

    /// What is in the files. While a good one is shown, nothing takes its place that is not good now.
    fn fit(&self, place: &config::CertificateFiles, files: &config::TlsFiles) -> Result<Certified, String> {
        let (now, next) = (self.clock.now(), certified(place, files)?);
        match self.identity.shown().is_some_and(|shown| shown.judge(now).is_ok()) {
            true => next.judge(now).map_err(|why| of(place)(why.to_string())).map(|()| next),
            false => Ok(next),
        }
    }

    /// Keeps it good for as long as the program runs.
    pub async fn keep(self: Arc<Self>) {
        let renewed = async {
            match &self.source {
                Source::Files(shown) => self.watch(shown).await,
                Source::Authority(acme) => acme.keep().await,
            }
        };
        tokio::join!(renewed, self.remind());
    }

    /// Says in the log that it was not renewed, once a day.
    async fn remind(&self) {
        let mut told = None;
        loop {
            let (standing, said) = self.standing();
            let today = Some((standing, self.clock.now().day()));
            match standing {
                Standing::EndsSoon if told != today => tracing::warn!("{said}"),
                Standing::Untimely if told != today => tracing::error!("{said}"),
                _ => {}
            }
            if matches!(standing, Standing::EndsSoon | Standing::Untimely) {
                told = today;
            }
            actix_web::rt::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Looks at the files now and then. Between two writes they may not fit together; then the next look finds that they do.
    async fn watch(&self, shown: &Mutex<Shown>) {
        let mut told = None;
        loop {
            actix_web::rt::time::sleep(LOOK_EVERY).await;
            match self.read_again(shown) {
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

fn certified(place: &config::CertificateFiles, files: &config::TlsFiles) -> Result<Certified, String> {
    Certified::read(&files.certificate, files.key.expose()).map_err(of(place))
}

fn of(place: &config::CertificateFiles) -> impl Fn(String) -> String {
    move |why| format!("{}: {why}", place.certificate.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use farebox_rig::secure::Authority;

    use super::*;

    fn put(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn place(folder: &Path, name: &str) -> config::CertificateFiles {
        let at = |end: &str| folder.join(format!("{name}{end}"));
        config::CertificateFiles { certificate: at(".pem"), key: at(".key") }
    }

    #[test]
    fn another_place_is_looked_at_from_a_reload_on_even_if_its_files_were_no_good_at_that_moment() {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let write = |name: &str, (certificate, key): (String, String)| {
            put(folder.path(), &format!("{name}.pem"), &certificate);
            put(folder.path(), &format!("{name}.key"), &key);
        };
        write("old", authority.certificate(2020..2040));
        let old = config::Tls::Files(place(folder.path(), "old"));
        let certificate = Certificate::open(&old, Clock::new(|| Timestamp::from_secs(1_800_000_000))).unwrap();
        let Source::Files(shown) = &certificate.source else { panic!("it is from files") };
        let end = certificate.end();

        // Half of what certbot writes is there.
        write("new", (authority.certificate(2020..2050).0, authority.certificate(2020..2050).1));
        let new = config::Tls::Files(place(folder.path(), "new"));
        assert!(certificate.renew(&new).unwrap_err().contains("belongs to another certificate"));
        assert!(certificate.read_again(shown).is_err() && certificate.end() == end, "the old one stays until then");
        write("new", authority.certificate(2020..2050));
        assert_eq!(certificate.read_again(shown), Ok(true));
        assert!(certificate.end() > end);
    }

    #[test]
    fn a_good_certificate_gives_way_to_a_good_one_alone_and_any_other_to_whatever_comes() {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let write = |(certificate, key): (String, String)| {
            put(folder.path(), "a.pem", &certificate);
            put(folder.path(), "a.key", &key);
        };
        let files = config::Tls::Files(place(folder.path(), "a"));
        write(authority.certificate(2020..2021));
        let certificate = Certificate::open(&files, Clock::new(|| Timestamp::from_secs(1_800_000_000))).unwrap();
        let stands = |how: Standing, words: &str| {
            let (standing, said) = certificate.standing();
            assert!(standing == how && said.contains(words), "{standing:?}: {said}");
        };
        stands(Standing::Untimely, "has expired on 2021-01-01T00:00:00.000Z; ");
        stands(Standing::Untimely, "a.pem was not renewed");
        assert_eq!(certificate.judge(&files), Ok(()), "what is shown stands in the way of no reload");
        write(authority.certificate(2090..2091));
        assert_eq!(certificate.renew(&files), Ok(true));
        stands(Standing::Untimely, "is the clock of this machine right?");
        write(authority.certificate(2020..2090));
        assert_eq!(certificate.renew(&files), Ok(true));
        stands(Standing::Good, "until 2090");
        for (years, why) in [(2020..2021, "has expired"), (2090..2091, "is not good yet")] {
            write(authority.certificate(years));
            assert!(certificate.judge(&files).unwrap_err().contains(why));
            assert!(certificate.renew(&files).unwrap_err().contains(why));
            stands(Standing::Good, "until 2090");
        }
    }
}
