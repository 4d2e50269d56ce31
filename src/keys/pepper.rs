//! The pepper: a random secret of its own file under which keys are known, so that who reads the index cannot use a key.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::history::History;
use super::place::sync_folder;
use super::record::{Fingerprint, Mac, Seal};
use super::{Broken, Remedy};
use crate::fault;

/// What every key begins with, so that people and scanners for leaked secrets know it for one.
const PREFIX: &str = "sk-x402-";

/// The prefix and 32 bytes in base64 without padding.
const KEY_LENGTH: usize = PREFIX.len() + 43;

/// What a pepper's file begins with; the number is there so that another way to make MACs can be told from this one.
const FORM: &str = "farebox-pepper-1 ";

/// What a pepper's fingerprint is the MAC of. It is not of the form of a key.
const FINGERPRINT_OF: &[u8] = b"farebox pepper";

/// What helps where there is no copy.
const WAY_ON: &str = ". If there is none, no key can be checked any more: farebox keys forget-all --yes revokes all of them, and their \
                      owners can mint new ones";

/// A whole key. It is shown once to whoever asked for it, and kept nowhere.
pub struct PlainKey(Zeroizing<String>);

impl PlainKey {
    /// For the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey")
    }
}

/// The pepper, ready to make MACs.
pub(super) struct Pepper {
    keyed: Hmac<Sha256>,
    fingerprint: Fingerprint,
}

impl Pepper {
    /// Reads the pepper, or makes one from `random` when no key was ever made with one that is gone.
    pub fn open(path: &Path, random: [u8; 32], history: &History) -> Result<Pepper, Broken> {
        let random = Zeroizing::new(random);
        let found = match read(path)? {
            Some(secret) => secret,
            None if history.live() == 0 => {
                make(path, &random).map_err(|error| Broken::file("make the pepper", path, &error))?;
                // What is there now, which is what the next start reads.
                read(path)?.ok_or_else(|| missing(path, history))?
            }
            None => return Err(missing(path, history)),
        };
        Pepper::new(&found).fitting(path, history)
    }

    /// Whether the pepper that is there is the one that the keys were made with.
    pub fn check(path: &Path, history: &History) -> Result<(), Broken> {
        match read(path)? {
            Some(secret) => Pepper::new(&secret).fitting(path, history).map(drop),
            None if history.live() == 0 => Ok(()),
            None => Err(missing(path, history)),
        }
    }

    fn new(secret: &[u8; 32]) -> Pepper {
        let keyed = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a secret of any length");
        let mut fingerprint = [0; 8];
        let mac = keyed.clone().chain_update(FINGERPRINT_OF).finalize().into_bytes();
        fingerprint.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
        Pepper { keyed, fingerprint: Fingerprint(fingerprint) }
    }

    /// Refuses a pepper under which a live key would not be found any more.
    fn fitting(self, path: &Path, history: &History) -> Result<Pepper, Broken> {
        let strange = history.live_under_another_pepper(self.fingerprint);
        if strange == 0 {
            return Ok(self);
        }
        let keys = if strange == 1 { "1 key was".to_owned() } else { format!("{strange} keys were") };
        let cause = format!(
            "{keys} made with another pepper than the one in {}; put that one back (it is the file {} of the data_dir they were made in){WAY_ON}",
            path.display(),
            super::PEPPER
        );
        Err(Broken::change("pepper", cause))
    }

    /// The MAC of a key; `None` for text that cannot be one.
    pub fn mac(&self, text: &str) -> Option<Mac> {
        let tail = text.strip_prefix(PREFIX)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        // Length first: nothing that a stranger makes long is worked on.
        (text.len() == KEY_LENGTH && tail.bytes().all(plain)).then(|| self.mac_of(text))
    }

    fn mac_of(&self, text: &str) -> Mac {
        Mac(self.keyed.clone().chain_update(text).finalize().into_bytes().into())
    }

    pub fn seal(&self, random: [u8; 32]) -> (PlainKey, Seal) {
        let random = Zeroizing::new(random);
        // As long as it gets, so that no part of it stays behind in memory that was given back.
        let mut text = Zeroizing::new(String::with_capacity(KEY_LENGTH));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(*random, &mut text);
        let last4 = text.get(text.len() - 4..).unwrap_or_default().to_owned();
        let seal = Seal { mac: self.mac_of(&text), last4, pepper: self.fingerprint };
        (PlainKey(text), seal)
    }
}

fn missing(path: &Path, history: &History) -> Broken {
    let keys = if history.live() == 1 { "1 key was".to_owned() } else { format!("{} keys were", history.live()) };
    let cause = format!("{keys} made with the pepper in {}, which is missing; restore it from a copy{WAY_ON}", path.display());
    Broken::change("pepper", cause)
}

/// `None` when there is no such file.
fn read(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, Broken> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Broken::file("read the pepper", path, &error)),
    };
    let shown = path.display();
    if mode & 0o077 != 0 {
        return Err(Broken::change("read the pepper", format!("{shown} can be read by others; run chmod 600 {shown}")));
    }
    let text = Zeroizing::new(fs::read(path).map_err(|error| Broken::file("read the pepper", path, &error))?);
    let secret = parse(&text);
    let damaged = || Broken {
        remedy: Remedy::Change,
        ..Broken::new("read the pepper", format!("{shown} is damaged; restore it from a copy{WAY_ON}"))
    };
    secret.map(Some).ok_or_else(damaged)
}

fn parse(file: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let text = std::str::from_utf8(file).ok()?.strip_prefix(FORM)?;
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.trim_end()).ok()?);
    let mut secret = Zeroizing::new([0; 32]);
    if bytes.len() != secret.len() {
        return None;
    }
    secret.copy_from_slice(&bytes);
    Some(secret)
}

/// Under its own name there never is a pepper that is not whole and durable: keys may be made with it the next moment.
fn make(path: &Path, random: &[u8; 32]) -> io::Result<()> {
    let fresh = path.with_extension("pepper.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let mut text = Zeroizing::new(String::with_capacity(80));
    text.push_str(FORM);
    URL_SAFE_NO_PAD.encode_string(random, &mut text);
    text.push('\n');
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fault::point("keys.pepper.made");
    fs::rename(&fresh, path)?;
    fault::point("keys.pepper.placed");
    sync_folder(path)
}
