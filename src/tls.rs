//! TLS on both sides: whom we believe, the web's root certificates and the operator's own; and the certificate that callers see.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};

use crate::clock::Timestamp;

/// TLS as we speak it to upstreams, chain nodes and facilitators: rustls with ring, independent of any process-wide
/// default, HTTP/1.1 only. A certificate is believed when the web's roots or one in `ca_file` (PEM) vouch for it.
///
/// # Errors
/// Names the file, and what is wrong with it.
pub fn client(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = web_roots();
    if let Some(path) = ca_file {
        add(&mut roots, path).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The one provider, independent of any process-wide default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn web_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

/// What an authority names when it looks whether a name leads to us (RFC 8737).
pub const PROOF: &[u8] = b"acme-tls/1";

/// The certificate that callers see, and its key; another one takes its place for every handshake that begins afterwards.
#[derive(Debug, Default)]
pub struct Identity {
    certified: RwLock<Option<Certified>>,
    /// What an authority that looks at a name is shown.
    proofs: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Identity {
    pub fn replace(&self, certified: Certified) {
        *self.certified.write().unwrap_or_else(PoisonError::into_inner) = Some(certified);
    }

    /// What callers see now, if there is anything.
    pub fn shown(&self) -> Option<Certified> {
        self.certified.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows an authority that a name is ours, from now on: `digest` is the SHA-256 of what it wants to see (RFC 8737 section 3).
    ///
    /// # Errors
    /// No certificate can be made of it.
    pub fn prove(&self, name: &str, digest: [u8; 32]) -> Result<(), String> {
        let proof = proof(name, digest).map_err(|error| format!("cannot make the proof for {name}: {error}"))?;
        self.proofs.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::new(proof));
        Ok(())
    }

    /// Nothing is to be proven any more.
    pub fn forget_proofs(&self) {
        self.proofs.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == PROOF)) {
            return self.proofs.read().unwrap_or_else(PoisonError::into_inner).get(hello.server_name()?).cloned();
        }
        self.shown().map(|certified| certified.key)
    }
}

fn proof(name: &str, digest: [u8; 32]) -> Result<CertifiedKey, Box<dyn std::error::Error>> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], provider().key_provider.load_private_key(key)?))
}

/// TLS as we speak it to callers: HTTP/2 or HTTP/1.1, whichever they prefer; and with [`PROOF`] nothing at all.
///
/// # Errors
/// The provider speaks no version of TLS.
pub fn server(identity: Arc<Identity>) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), PROOF.to_vec()];
    Ok(config)
}

/// A certificate is to be renewed before it has so little time left.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A certificate and its key, and from when until when it is good.
#[derive(Debug, Clone)]
pub struct Certified {
    key: Arc<CertifiedKey>,
    pub good: Range<Timestamp>,
}

/// Why a certificate is not good at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untimely {
    #[error("the certificate has expired on {}", .0.to_rfc3339())]
    Expired(Timestamp),
    #[error("the certificate is not good yet, but from {} on; is the clock of this machine right?", .0.to_rfc3339())]
    NotYet(Timestamp),
}

impl Certified {
    /// Puts a certificate and its key together, both in PEM, whoever signed it and whenever it is good.
    ///
    /// # Errors
    /// What is wrong with one of them, or between them.
    pub fn read(chain: &[u8], key: &str) -> Result<Certified, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|error| format!("not a certificate in PEM: {error}"))?;
        let good = term(chain.first().ok_or("there is no certificate in it")?)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| format!("its key is no private key in PEM: {error}"))?;
        let signing =
            provider().key_provider.load_private_key(key).map_err(|error| format!("its key cannot be used: {error}"))?;
        let key = CertifiedKey::new(chain, signing);
        match key.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(Certified { key: Arc::new(key), good })
            }
            Err(_) => Err("the key belongs to another certificate".into()),
        }
    }

    /// # Errors
    /// It is not good at this time.
    pub fn judge(&self, now: Timestamp) -> Result<(), Untimely> {
        match () {
            () if now < self.good.start => Err(Untimely::NotYet(self.good.start)),
            () if now > self.good.end => Err(Untimely::Expired(self.good.end)),
            () => Ok(()),
        }
    }

    /// Whether it should have been renewed by this time: it has less than two weeks left, or less than a quarter of its life
    /// where that is shorter. Who renews in time does so when a third is left.
    pub fn ends_soon(&self, now: Timestamp) -> bool {
        let until_its_end = |at: Timestamp| self.good.end.secs().saturating_sub(at.secs());
        until_its_end(now) < SOON.as_secs().min(until_its_end(self.good.start) / 4)
    }
}

/// When a certificate is good. A verifier that is asked at both ends of time tells, as it looks at that before it looks at who
/// signed, which may be anybody.
fn term(own: &CertificateDer<'_>) -> Result<Range<Timestamp>, String> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(web_roots()), provider()).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
    let said = |secs| {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(secs));
        match verifier.verify_server_cert(own, &[], &name, &[], at) {
            Err(Error::InvalidCertificate(error)) => Some(error),
            _ => None,
        }
    };
    let start = match said(0) {
        Some(CertificateError::NotValidYetContext { not_before, .. }) => not_before.as_secs(),
        _ => 0,
    };
    match said(u64::MAX) {
        Some(CertificateError::ExpiredContext { not_after, .. }) => {
            Ok(Timestamp::from_secs(start)..Timestamp::from_secs(not_after.as_secs()))
        }
        _ => Err("the certificate cannot be read".into()),
    }
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.len() == before { Err("there is no certificate in it".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(client(Some(file.path())).unwrap_err().contains("no certificate"));
        assert!(client(Some(Path::new("/nowhere/ca.pem"))).is_err());
        assert!(client(None).is_ok());
    }

    #[test]
    fn a_certificate_knows_its_time_and_is_to_be_renewed_two_weeks_or_a_quarter_of_its_life_before_its_end() {
        let day = |day: u64| Timestamp::from_secs(day * 24 * 60 * 60);
        let years = |years: std::ops::Range<i32>| {
            let (certificate, key) = farebox_rig::secure::Authority::new().certificate(years);
            Certified::read(certificate.as_bytes(), &key).unwrap()
        };
        let certified = years(1971..1973);
        assert_eq!(certified.good, day(365)..day(1096));
        for (at, judged, soon) in [
            (day(0), Err(Untimely::NotYet(day(365))), false),
            (day(365), Ok(()), false),
            (day(1096 - 14), Ok(()), false),
            (day(1096 - 13), Ok(()), true),
            (day(1096), Ok(()), true),
            (day(1097), Err(Untimely::Expired(day(1096))), true),
        ] {
            assert_eq!((certified.judge(at), certified.ends_soon(at)), (judged, soon), "{at:?}");
        }
        let short = Certified { good: day(0)..day(8), ..certified };
        assert!(!short.ends_soon(day(6)) && short.ends_soon(day(7)));
        assert_eq!(years(1999..9999).good.end, Timestamp::from_rfc3339("9999-01-01T00:00:00Z").unwrap());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(Certified::read(broken.as_bytes(), "").unwrap_err(), "the certificate cannot be read");
    }
}
