//! TLS on both sides: whom we believe, the web's root certificates and the operator's own; and the certificate that callers see.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

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
    certified: RwLock<Option<Arc<CertifiedKey>>>,
    /// What an authority that looks at a name is shown.
    proofs: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Identity {
    pub fn replace(&self, certified: CertifiedKey) {
        *self.certified.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
    }

    /// Whether there is a certificate to show that is good at this time.
    pub fn is_good(&self, now: Timestamp) -> bool {
        let certified = self.certified.read().unwrap_or_else(PoisonError::into_inner).clone();
        let chain = certified.as_deref().and_then(|certified| certified.cert.split_first());
        chain.is_some_and(|(own, others)| in_time(own, others, now).is_ok())
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
        self.certified.read().unwrap_or_else(PoisonError::into_inner).clone()
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

/// Puts a certificate and its key together, both in PEM. Whoever signed it, it must be good at this time.
///
/// # Errors
/// What is wrong: with the files, between them, or with the time.
pub fn certified(chain: &[u8], key: &str, now: Timestamp) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| format!("not a certificate in PEM: {error}"))?;
    let Some((own, others)) = chain.split_first() else { return Err("there is no certificate in it".into()) };
    in_time(own, others, now)?;
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| format!("its key is no private key in PEM: {error}"))?;
    let signing = provider().key_provider.load_private_key(key).map_err(|error| format!("its key cannot be used: {error}"))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => Err("the key belongs to another certificate".into()),
    }
}

/// Only the time is judged: it is looked at before who signed, which may be anybody.
fn in_time(own: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: Timestamp) -> Result<(), String> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(web_roots()), provider()).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.secs()));
    match verifier.verify_server_cert(own, others, &name, &[], now) {
        Err(Error::InvalidCertificate(error)) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Err(format!("the certificate has expired; renew it ({error})"))
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Err(format!("the certificate is not good yet; is the clock of this machine right? ({error})"))
            }
            CertificateError::BadEncoding => Err("the certificate cannot be read".into()),
            _ => Ok(()),
        },
        _ => Ok(()),
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
}
