//! TLS in front of a plain program: a certificate authority of the test's own, and a door that only TLS opens.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// An authority that signs certificates, known to nobody but who is given [`Authority::pem`].
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A fresh one; another one's certificates mean nothing to it.
    pub fn new() -> Authority {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("its own certificate can be signed").pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// For a `ca_file`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for this machine that is good in these years, the last not included, and its key, both in PEM.
    pub fn certificate(&self, years: Range<i32>) -> (String, String) {
        self.sign(|params| {
            (params.not_before, params.not_after) = (date_time_ymd(years.start, 1, 1), date_time_ymd(years.end, 1, 1));
        })
    }

    /// The same, good for so long from now on and for years before.
    pub fn certificate_for(&self, rest: Duration) -> (String, String) {
        self.sign(|params| {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), (SystemTime::now() + rest).into());
        })
    }

    fn sign(&self, date: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().expect("a key can be made");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names that fit into a certificate");
        // A name of its own: one that is its issuer's looks signed by itself.
        params.distinguished_name.push(DnType::CommonName, "this machine");
        date(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// A certificate for `name` and its key.
    fn certify(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key can be made");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name that fits into a certificate");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be signed");
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).expect("a key in PKCS #8"))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Authority::new()
    }
}

/// A door to a plain program; every connection carries one exchange. Its threads end with the process.
pub struct Door {
    port: u16,
    protocols: Arc<Mutex<Vec<String>>>,
}

impl Door {
    /// A door to `target` (`127.0.0.1:PORT`) whose certificate, by `authority`, is for `name`. It prefers HTTP/2, as
    /// large providers do, although nobody behind it speaks that.
    pub fn to(target: &str, authority: &Authority, name: &str) -> Door {
        let (certificate, key) = authority.certify(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("ring speaks TLS").with_no_client_auth().with_single_cert(vec![certificate], key);
        let mut config = config.expect("the key fits its certificate");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let protocols = Arc::<Mutex<Vec<String>>>::default();
        let (config, target, noted) = (Arc::new(config), target.to_owned(), protocols.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, target, noted) = (config.clone(), target.clone(), noted.clone());
                // A caller that does not believe the certificate ends the exchange; so does one that hangs up.
                thread::spawn(move || exchange(stream, config, &target, &noted));
            }
        });
        Door { port, protocols }
    }

    /// Under the name `localhost`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// What was agreed on in every handshake that succeeded: `http/1.1`, `h2`, or nothing.
    pub fn protocols(&self) -> Vec<String> {
        self.protocols.lock().expect("nobody panics with the list in hand").clone()
    }
}

fn exchange(stream: TcpStream, config: Arc<ServerConfig>, target: &str, noted: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    let agreed = tls.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    noted.lock().expect("nobody panics with the list in hand").push(agreed.unwrap_or_default());
    let mut behind = TcpStream::connect(target)?;
    behind.write_all(&alone(&request(&mut tls)?))?;
    let mut buffer = [0; 16 * 1024];
    loop {
        match behind.read(&mut buffer)? {
            0 => break,
            read => tls.write_all(&buffer[..read])?,
        }
        tls.flush()?;
    }
    tls.conn.send_close_notify();
    tls.flush()
}

/// Reads one request with its body.
fn request(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let (mut request, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                return Ok(request);
            }
        }
        match from.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => request.extend_from_slice(&buffer[..read]),
        }
    }
}

/// The request as the only one of its connection.
fn alone(request: &[u8]) -> Vec<u8> {
    let first = request.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    [&request[..first], b"connection: close\r\n", &request[first..]].concat()
}
