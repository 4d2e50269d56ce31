//! Where the certificate is that callers are shown, and its key.

use std::path::{Path, PathBuf};

use super::secret::{Secret, read_private};
use super::{ConfigError, bad, file};

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The chain in PEM, our own certificate first.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// What is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: Vec<u8>,
    pub key: Secret,
}

impl Tls {
    /// Reads both files as they are now.
    ///
    /// # Errors
    /// Which cannot be read, or can be by others, and why.
    pub fn read(&self) -> Result<TlsFiles, String> {
        let certificate = std::fs::read(&self.certificate);
        Ok(TlsFiles {
            certificate: certificate.map_err(|error| format!("{}: {error}", self.certificate.display()))?,
            key: Secret::from(read_private(&self.key)?),
        })
    }
}

pub(super) fn tls(row: &file::Tls, folder: &Path) -> Result<Tls, ConfigError> {
    let Some(key) = row.key.strip_prefix("file:") else {
        return Err(bad("server.tls.key", "write file: and where it is, such as \"file:privkey.pem\""));
    };
    Ok(Tls { certificate: folder.join(&row.certificate), key: folder.join(key) })
}
