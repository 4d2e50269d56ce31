//! Where the certificate that callers are shown comes from: files of the operator's, or an authority that is asked for it.

use std::path::{Path, PathBuf};

use super::secret::{Secret, read_private};
use super::{ConfigError, bad, file, node_url};

/// Where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    Files(CertificateFiles),
    Authority(CertificateAuthority),
}

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain in PEM, our own certificate first.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// An authority that gives certificates over ACME (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateAuthority {
    /// The names that callers see, in lower case.
    pub names: Vec<String>,
    /// An e-mail address that the authority may write to.
    pub contact: Option<String>,
    /// The URL of its directory.
    pub directory: String,
    /// Certificates in PEM that vouch for the authority's own site, beside the web's roots.
    pub ca_file: Option<PathBuf>,
    /// Where the account there and what it gave are kept.
    pub kept: PathBuf,
}

impl CertificateAuthority {
    /// Keeps what it gives in this folder.
    pub(super) fn keep_in(&mut self, data_dir: &Path) {
        self.kept = data_dir.join("certificate.json");
    }
}

/// What is in the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: Vec<u8>,
    pub key: Secret,
}

impl CertificateFiles {
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

/// The authority that is asked where none is named.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

pub(super) fn tls(row: &file::Tls, folder: &Path, data_dir: &Path) -> Result<Tls, ConfigError> {
    let file::Tls { certificate, key, names, contact, authority, ca_file } = row;
    match (certificate, key, names) {
        (Some(certificate), Some(key), None) if contact.is_none() && authority.is_none() && ca_file.is_none() => {
            let Some(key) = key.strip_prefix("file:") else {
                return Err(bad("server.tls.key", "write file: and where it is, such as \"file:privkey.pem\""));
            };
            Ok(Tls::Files(CertificateFiles { certificate: folder.join(certificate), key: folder.join(key) }))
        }
        (None, None, Some(names)) => {
            let directory = authority.as_deref().unwrap_or(LETS_ENCRYPT);
            if !directory.starts_with("https://") || node_url(directory).is_err() {
                return Err(bad("server.tls.authority", "the https:// URL of an ACME directory is wanted"));
            }
            if contact.as_deref().is_some_and(|contact| !is_mailbox(contact)) {
                return Err(bad("server.tls.contact", "an e-mail address is wanted, such as \"you@your.name\""));
            }
            Ok(Tls::Authority(CertificateAuthority {
                names: names_of(names)?,
                contact: contact.clone(),
                directory: directory.to_owned(),
                ca_file: ca_file.as_ref().map(|path| folder.join(path)),
                kept: data_dir.join("certificate.json"),
            }))
        }
        _ => Err(bad(
            "server.tls",
            "name either `certificate` and `key`, which are files, or `names` (with `contact`, `authority`, `ca_file`), for which an authority is asked",
        )),
    }
}

fn is_mailbox(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>,;:".contains(&byte));
    plain && text.split_once('@').is_some_and(|(who, place)| !who.is_empty() && is_name(place))
}

fn names_of(names: &[String]) -> Result<Vec<String>, ConfigError> {
    let names: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    match names.iter().find(|name| !is_name(name)) {
        Some(name) => Err(bad(
            "server.tls.names",
            format!("{name:?} is no name that an authority can ask for here; such as \"your.name\", no address and no *"),
        )),
        None if names.is_empty() => Err(bad("server.tls.names", "one at least is wanted")),
        None => Ok(names),
    }
}

/// Whether it is the name of a machine in the domain name system, with a dot in it.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    text.len() <= 253 && text.contains('.') && text.split('.').all(is_label) && !is_address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(row: &str) -> Result<Tls, ConfigError> {
        tls(&toml::from_str(row).unwrap(), Path::new("/etc/farebox"), Path::new("/var/lib/farebox"))
    }

    #[test]
    fn a_certificate_comes_from_files_or_from_an_authority_and_never_from_both() {
        let files = read("certificate = \"full.pem\"\nkey = \"file:key.pem\"").unwrap();
        let (certificate, key) = ("/etc/farebox/full.pem".into(), "/etc/farebox/key.pem".into());
        assert_eq!(files, Tls::Files(CertificateFiles { certificate, key }));
        let asked = read("names = [\"Shop.example.org\"]\ncontact = \"me@example.org\"").unwrap();
        let Tls::Authority(asked) = asked else { panic!("it is asked for") };
        assert_eq!((asked.names, asked.directory.as_str()), (vec!["shop.example.org".to_owned()], LETS_ENCRYPT));
        assert_eq!(asked.kept, Path::new("/var/lib/farebox/certificate.json"));
        for (row, key) in [
            ("certificate = \"a\"", "server.tls"),
            ("certificate = \"a\"\nkey = \"file:b\"\nnames = [\"a.b\"]", "server.tls"),
            ("certificate = \"a\"\nkey = \"file:b\"\ncontact = \"a@b.c\"", "server.tls"),
            ("certificate = \"a\"\nkey = \"-----BEGIN\"", "server.tls.key"),
            ("contact = \"a@b.c\"", "server.tls"),
            ("names = []", "server.tls.names"),
            ("names = [\"*.example.org\"]", "server.tls.names"),
            ("names = [\"127.0.0.1\"]", "server.tls.names"),
            ("names = [\"localhost\"]", "server.tls.names"),
            ("names = [\"a.b\"]\ncontact = \"somebody\"", "server.tls.contact"),
            ("names = [\"a.b\"]\nauthority = \"http://a.b/directory\"", "server.tls.authority"),
        ] {
            assert_eq!(read(row).unwrap_err().key, key, "{row}");
        }
    }
}
