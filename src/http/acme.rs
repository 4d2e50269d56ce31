//! The certificate that an authority gives: asked for over ACME (RFC 8555), proven on our own port (RFC 8737), kept and renewed.

mod wire;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem,
    RetryPolicy,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::config::CertificateAuthority;
use crate::tls::{self, Certified, Identity};

/// How often it is looked whether the certificate is to be renewed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long an authority may take to look at our names, and to sign. Let's Encrypt takes seconds. Looked at evenly: the library
/// gives up when its next look would come too late.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_secs(1)).backoff(1.0).timeout(Duration::from_secs(120));
/// One certificate, whatever its authority does meanwhile.
const LONGEST_ORDER: Duration = Duration::from_secs(15 * 60);
/// After a failure; each further one doubles it. Let's Encrypt refuses a name that failed five times in an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(2 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(12 * 60 * 60);

/// An authority, and what it has given so far.
pub struct Acme {
    place: Mutex<CertificateAuthority>,
    kept: Mutex<Kept>,
    file: Mutex<InFile>,
    identity: Arc<Identity>,
    clock: Clock,
    /// The configuration was read again.
    again: Notify,
}

/// Whether what is kept is in its file.
#[derive(PartialEq, Eq)]
enum InFile {
    Whole,
    NotYet,
    /// It could not be written, for this reason, which was told.
    Refused(String),
}

/// What a restart must not ask for again. Written as one file, so that it is whole or as it was before.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Kept {
    account: Option<KeptAccount>,
    certificate: Option<KeptCertificate>,
}

/// How we are known to an authority.
#[derive(Clone, Serialize, Deserialize)]
struct KeptAccount {
    directory: String,
    credentials: Value,
}

#[derive(Clone, Serialize, Deserialize)]
struct KeptCertificate {
    directory: String,
    names: Vec<String>,
    /// In PEM.
    chain: String,
    /// In PEM.
    key: String,
    /// When it was given, in seconds since 1970.
    since: u64,
}

impl KeptCertificate {
    fn certified(&self) -> Result<Certified, String> {
        Certified::read(self.chain.as_bytes(), &self.key)
    }

    /// Whether it is for this place, and has more than a third of its time before it. One that is not good yet will do: our clock
    /// is behind, callers judge by theirs, and another one would be no better and count against us at the authority.
    fn will_do(&self, place: &CertificateAuthority, now: Timestamp) -> bool {
        let Ok(certified) = self.certified() else { return false };
        let (until, age) = (certified.good.end.secs(), now.secs().abs_diff(self.since));
        let is_young = match until > self.since {
            true => until.saturating_sub(now.secs()) > age / 2,
            // Over by our clock when it was given, which is ahead then.
            false => age < LONGEST_PAUSE.as_secs(),
        };
        self.names == place.names && self.directory == place.directory && is_young
    }
}

impl Acme {
    /// Shows what was given before.
    ///
    /// # Errors
    /// The file of what was given cannot be read, or is damaged.
    pub fn open(place: &CertificateAuthority, identity: Arc<Identity>, clock: Clock) -> Result<Acme, String> {
        Acme::judge(place)?;
        let shown = place.kept.display();
        let kept: Kept = match std::fs::read(&place.kept) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| format!("{shown} is damaged ({error}); remove it, and another certificate is asked for"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(format!("{shown}: {error}")),
        };
        if let Some(given) = &kept.certificate
            && let Ok(certified) = given.certified()
        {
            identity.replace(certified);
        }
        let (place, kept, file) = (Mutex::new(place.clone()), Mutex::new(kept), Mutex::new(InFile::Whole));
        Ok(Acme { place, kept, file, identity, clock, again: Notify::new() })
    }

    /// # Errors
    /// The `ca_file` cannot be used.
    pub fn judge(place: &CertificateAuthority) -> Result<(), String> {
        tls::client(place.ca_file.as_deref()).map(drop).map_err(|why| format!("ca_file: {why}"))
    }

    /// The URL of the authority's directory.
    pub fn directory(&self) -> String {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).directory.clone()
    }

    /// Asks for other names, or elsewhere, from now on; and at once where the last try has failed.
    pub fn follow(&self, place: &CertificateAuthority) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place.clone();
        self.again.notify_one();
    }

    /// Sees to it that there is a good certificate, for as long as the program runs.
    pub async fn keep(&self) {
        let (mut pause, mut failed_at) = (FIRST_PAUSE, None);
        loop {
            let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let names = place.names.join(", ");
            self.write_down(&place);
            if self.kept().certificate.is_some_and(|given| given.will_do(&place, self.clock.now())) {
                self.wait(LOOK_EVERY).await;
                continue;
            }
            let late = |_| Err(format!("it was not done within {} minutes", LONGEST_ORDER.as_secs() / 60));
            let outcome = tokio::time::timeout(LONGEST_ORDER, self.obtain(&place)).await.unwrap_or_else(late);
            self.identity.forget_proofs();
            match outcome {
                Ok(()) => {
                    tracing::info!("{} has given a certificate for {names}, which is shown from now on", place.directory);
                    pause = FIRST_PAUSE;
                }
                Err(why) => {
                    if failed_at.replace(place.clone()).is_none_or(|before| before != place) {
                        pause = FIRST_PAUSE;
                    }
                    let minutes = pause.as_secs() / 60;
                    let is_good = |shown: Certified| shown.judge(self.clock.now()).is_ok();
                    let seen = match self.identity.shown().is_some_and(is_good) {
                        true => "the one before stays",
                        false => "no caller gets in without",
                    };
                    tracing::error!(
                        "{} gave no certificate for {names} ({seen}); it is asked again in {minutes} minutes, or by farebox reload: {why}",
                        place.directory
                    );
                    self.wait(pause).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn wait(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.again.notified() => {}
        }
    }

    fn kept(&self) -> Kept {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One certificate, from the account to what callers are shown.
    async fn obtain(&self, place: &CertificateAuthority) -> Result<(), String> {
        let mut order = self.order(place).await?;
        self.prove(&mut order).await?;
        match order.poll_ready(&PATIENCE).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(unproven(&refusals(&mut order).await)),
            Err(why) => return Err(unproven(&said(why))),
        }
        let key = order.finalize().await.map_err(said)?;
        let chain = order.poll_certificate(&PATIENCE).await.map_err(said)?;
        let (directory, names) = (place.directory.clone(), place.names.clone());
        let given = KeptCertificate { directory, names, chain, key, since: self.clock.now().secs() };
        self.identity.replace(given.certified().map_err(|why| format!("what it gave is no use: {why}"))?);
        self.remember(|kept| kept.certificate = Some(given));
        Ok(())
    }

    /// Begins an order; with another account where the authority knows ours no more.
    async fn order(&self, place: &CertificateAuthority) -> Result<Order, String> {
        let names: Vec<_> = place.names.iter().map(|name| Identifier::Dns(name.clone())).collect();
        let wanted = NewOrder::new(&names);
        match self.account(place).await?.new_order(&wanted).await {
            Err(error) if is_unknown(&error) => {
                self.remember(|kept| kept.account = None);
                self.account(place).await?.new_order(&wanted).await.map_err(said)
            }
            outcome => outcome.map_err(said),
        }
    }

    /// How we are known there; a new account where there is none yet.
    async fn account(&self, place: &CertificateAuthority) -> Result<Account, String> {
        let builder = || wire::open(place.ca_file.as_deref()).map(|wire| Account::builder_with_http(Box::new(wire)));
        if let Some(known) = self.kept().account.filter(|known| known.directory == place.directory) {
            let credentials = serde_json::from_value(known.credentials);
            let credentials = credentials.map_err(|error| format!("{}: {error}", place.kept.display()))?;
            return builder()?.from_credentials(credentials).await.map_err(said);
        }
        let contact = place.contact.as_ref().map(|contact| format!("mailto:{contact}"));
        let contact: Vec<_> = contact.as_deref().into_iter().collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder()?.create(&new, place.directory.clone(), None).await.map_err(said)?;
        let credentials = serde_json::to_value(&credentials).map_err(|error| error.to_string())?;
        let known = KeptAccount { directory: place.directory.clone(), credentials };
        self.remember(|kept| kept.account = Some(known));
        // Before anything is ordered: each account that is forgotten counts against us there.
        self.write_down(place);
        Ok(account)
    }

    /// Shows the authority each name that it does not know to be ours, and tells it to look.
    async fn prove(&self, order: &mut Order) -> Result<(), String> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(said)?;
            let name = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => return Err(format!("its permission for {name} is {other:?}")),
            }
            let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
            let mut challenge = challenge.ok_or_else(|| format!("it does not look at {name} over TLS (tls-alpn-01)"))?;
            let digest = challenge.key_authorization().digest().as_ref().try_into();
            self.identity.prove(&name, digest.map_err(|_| "its challenge is none of SHA-256")?)?;
            // One that looks at once may have looked in vain before it answers, and then says so here.
            challenge.set_ready().await.map_err(|error| match error {
                Error::Api(problem) if is_of_the_look(&problem) => unproven(&format!("{name}: {problem}")),
                error => said(error),
            })?;
        }
        Ok(())
    }

    /// In memory first: what was given is used, whether or not a disk has room for it.
    fn remember(&self, change: impl FnOnce(&mut Kept)) {
        change(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = InFile::NotYet;
    }

    /// Writes what is not written yet; what cannot be is tried again later.
    fn write_down(&self, place: &CertificateAuthority) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if *file == InFile::Whole {
            return;
        }
        let outcome = write(&place.kept, &self.kept());
        let now = outcome.map_or_else(|error| InFile::Refused(error.to_string()), |()| InFile::Whole);
        match &now {
            InFile::Refused(why) if *file != now => {
                let path = place.kept.display();
                tracing::error!("{path} cannot be written, and a restart would ask for another certificate: {why}");
            }
            _ => {}
        }
        *file = now;
    }
}

/// Whether there is an authority at this place. Nothing is asked of it.
///
/// # Errors
/// What is wrong with it, or with the way to it.
pub async fn looked_up(place: &CertificateAuthority) -> Result<(), String> {
    let wire = wire::open(place.ca_file.as_deref()).map_err(|why| format!("ca_file: {why}"))?;
    wire::directory(&wire, &place.directory).await.map_err(said)
}

/// Writes it for nobody else to read, so that a crash leaves the old one or the new one.
fn write(path: &Path, kept: &Kept) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    // One that a crash left may be somebody's to read.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.sync_all()?;
    std::fs::rename(fresh, path)
}

/// Why an order was refused, name by name.
async fn refusals(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(authorization) = authorization else { continue };
        let challenges = authorization.challenges.iter();
        let errors = challenges.filter_map(|challenge| challenge.error.as_ref()?.detail.clone());
        reasons.extend(errors.map(|error| format!("{}: {error}", authorization.identifier())));
    }
    match reasons.is_empty() {
        true => "it did not say why".into(),
        false => reasons.join("; "),
    }
}

fn unproven(why: &str) -> String {
    format!("{why}; does the name lead to this machine, and port 443 to this gateway?")
}

/// Whether an authority says that it does not know us (RFC 8555 section 6.7).
fn is_unknown(error: &Error) -> bool {
    let Error::Api(problem) = error else { return false };
    problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
}

/// Whether it is what an authority saw, or did not, when it looked (RFC 8555 section 6.7).
fn is_of_the_look(problem: &Problem) -> bool {
    let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next());
    kind.is_some_and(|kind| ["connection", "dns", "tls", "unauthorized", "incorrectResponse"].contains(&kind))
}

/// What an authority, or the way to it, had to say.
fn said(error: Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn a_certificate_will_do_until_a_third_of_its_time_is_left_and_a_wrong_clock_orders_none_after_the_other() {
        let names = vec!["shop.example.test".to_owned()];
        let (directory, kept) = ("https://authority.example.test/directory".to_owned(), "certificate.json".into());
        let place =
            CertificateAuthority { names: names.clone(), contact: None, directory: directory.clone(), ca_file: None, kept };
        // Good for the 365 days of 2021, which is so many days after 1970.
        let first = 18_628;
        let (chain, key) = farebox_rig::secure::Authority::new().certificate(2021..2022);
        let given = KeptCertificate { directory, names, chain, key, since: 0 };
        let will_do = |since: u64, now: u64| {
            KeptCertificate { since: since * DAY, ..given.clone() }.will_do(&place, Timestamp::from_secs(now * DAY))
        };
        assert!(will_do(first, first) && will_do(first, first + 243) && !will_do(first, first + 244));
        assert!(will_do(first - 9, first - 9), "our clock is behind");
        assert!(will_do(first - 9, first), "it was put right");
        let ahead = first + 500;
        assert!(will_do(ahead, ahead) && !will_do(ahead, ahead + 1), "one a half day, and not one after the other");
        assert!(!will_do(ahead, first), "it was put right");
        let elsewhere = CertificateAuthority { names: vec!["other.example.test".into()], ..place.clone() };
        assert!(!given.will_do(&elsewhere, Timestamp::from_secs(0)));
    }
}
