//! Sign-ins (EIP-4361, and its twin for Solana) as `venice-x402-client` and the x402 clients send them, and such as no honest
//! client sends.
//!
//! The text is written and signed here without the product's own code, so that a mistake of either is noticed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use k256::Scalar;
use k256::ecdsa::SigningKey;
use k256::elliptic_curve::PrimeField as _;
use serde_json::{Map, Value, json};
use sha3::{Digest as _, Keccak256};

use crate::anvil::Wallet;

/// What a client signs for `base_url` now, by default.
pub fn sign_in(wallet: Wallet, base_url: &str) -> String {
    SignIn::new(wallet, base_url).header()
}

/// What is done to a signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Signature {
    #[default]
    Honest,
    /// The twin that recovers to the same wallet.
    HighS,
    /// 65 zeros.
    Zero,
    /// By this wallet instead.
    Of(Wallet),
}

/// One sign-in, valid until something is changed.
#[derive(Clone, Debug)]
pub struct SignIn {
    wallet: Wallet,
    fields: Map<String, Value>,
    envelope: Vec<(String, Value)>,
    replaced: Vec<(String, String)>,
    replaced_after: Vec<(String, String)>,
    signature: Signature,
    structured: bool,
    /// What the client's clock shows, in milliseconds.
    timestamp: i64,
}

impl SignIn {
    /// For a path below `base_url`, on chain 8453 or Solana's main network, with a fresh nonce, for five minutes from now.
    pub fn new(wallet: Wallet, base_url: &str) -> SignIn {
        let domain = base_url.split("://").nth(1).and_then(|rest| rest.split('/').next()).expect("a URL");
        let fields = json!({
            "domain": domain,
            "address": wallet.address,
            "statement": "Sign in to Venice AI",
            "uri": format!("{base_url}/api/v1/chat/completions"),
            "version": "1",
            "chainId": if on_solana(wallet) { json!(SOLANA) } else { json!(8453) },
            "nonce": fresh_nonce(),
        });
        let fields = fields.as_object().cloned().expect("an object");
        let (envelope, replaced, replaced_after) = (Vec::new(), Vec::new(), Vec::new());
        let (signature, structured, timestamp) = (Signature::Honest, false, 0);
        SignIn { wallet, fields, envelope, replaced, replaced_after, signature, structured, timestamp }.issued(0)
    }

    /// Issued so many seconds ahead of the machine's clock (behind it, if negative), for five minutes.
    pub fn issued(mut self, seconds: i64) -> SignIn {
        let issued = now_millis() + seconds * 1000;
        self.timestamp = issued;
        self.set("issuedAt", rfc3339(issued)).set("expirationTime", rfc3339(issued + 300_000))
    }

    /// A field of the message as it is signed, by its name in x402 (`domain`, `chainId`, `issuedAt`, …); null leaves it out.
    pub fn set(mut self, field: &str, value: impl Into<Value>) -> SignIn {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    /// A field of the JSON around it, which nobody signs: `address`, `chainId`, `type`, `timestamp`, `signature`, … In the form
    /// of fields these are what is signed, so this changes one after it was signed.
    pub fn envelope(mut self, field: &str, value: impl Into<Value>) -> SignIn {
        self.envelope.push((field.to_owned(), value.into()));
        self
    }

    /// Replaces every `from` in the text before it is signed.
    pub fn replace(mut self, from: &str, to: &str) -> SignIn {
        self.replaced.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Replaces every `from` in the text after it was signed.
    pub fn replace_after(mut self, from: &str, to: &str) -> SignIn {
        self.replaced_after.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Signs otherwise.
    pub fn signature(mut self, signature: Signature) -> SignIn {
        self.signature = signature;
        self
    }

    /// Sends the fields instead of the text, as the x402 clients do.
    pub fn as_fields(mut self) -> SignIn {
        self.structured = true;
        self
    }

    /// The nonce that is signed.
    pub fn nonce(&self) -> &str {
        self.fields["nonce"].as_str().unwrap_or_default()
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        substituted(self.plain_text(), &self.replaced)
    }

    /// The 65 bytes of the signature in hex; of a Solana wallet the 64 in base58.
    pub fn signed(&self) -> String {
        let signer = match self.signature {
            Signature::Of(wallet) => wallet,
            _ => self.wallet,
        };
        if on_solana(signer) {
            assert_eq!(self.signature, Signature::Honest, "a wallet of Solana has no other");
            return sign_on_solana(signer, &self.text());
        }
        let (bytes, v) = sign(signer, &self.text());
        let (r, s) = bytes.split_at(32);
        let bytes = match self.signature {
            Signature::Honest | Signature::Of(_) => [r, s, &[v]].concat(),
            Signature::HighS => {
                let s = Scalar::from_repr(<[u8; 32]>::try_from(s).expect("half of it").into()).expect("below the order");
                [r, &(-s).to_bytes()[..], &[55 - v]].concat()
            }
            Signature::Zero => vec![0; 65],
        };
        format!("0x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// The value of `X-Sign-In-With-X` or `SIGN-IN-WITH-X`.
    pub fn header(&self) -> String {
        STANDARD.encode(self.json().to_string())
    }

    /// The JSON in the header.
    pub fn json(&self) -> Value {
        let mut json = if self.structured { self.structured() } else { self.message() };
        json["signature"] = self.signed().into();
        for (field, value) in &self.envelope {
            json[field.as_str()] = value.clone();
        }
        json
    }

    fn message(&self) -> Value {
        let text = substituted(self.text(), &self.replaced_after);
        json!({
            "address": self.fields["address"],
            "message": text,
            "timestamp": self.timestamp,
            "chainId": match &self.fields["chainId"] {
                Value::String(chain) if on_solana(self.wallet) && !chain.contains(':') => format!("solana:{chain}").into(),
                chain => chain.clone(),
            },
        })
    }

    fn structured(&self) -> Value {
        let mut fields = self.fields.clone();
        fields.retain(|_, value| !value.is_null());
        let family = if on_solana(self.wallet) { "solana" } else { "eip155" };
        let chain = fields["chainId"].as_str().map_or_else(|| fields["chainId"].to_string(), str::to_owned);
        let chain = if chain.contains(':') { chain } else { format!("{family}:{chain}") };
        fields.insert("chainId".into(), chain.into());
        fields.insert("type".into(), if on_solana(self.wallet) { "ed25519" } else { "eip191" }.into());
        fields.into()
    }

    fn plain_text(&self) -> String {
        let value = |field: &str| self.fields.get(field).filter(|value| !value.is_null());
        let text = |field: &str| value(field).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let required = |field: &str| text(field).unwrap_or_default();
        let kind = if on_solana(self.wallet) { "Solana" } else { "Ethereum" };
        let mut out = format!("{} wants you to sign in with your {kind} account:\n{}\n", required("domain"), required("address"));
        out.extend(match text("statement") {
            Some(statement) => Some(format!("\n{statement}\n")),
            // EIP-4361 keeps the empty line of a statement that is not there, and Solana's libraries do not.
            None => (!on_solana(self.wallet)).then(|| "\n".to_owned()),
        });
        let lines = [
            ("URI", "uri"),
            ("Version", "version"),
            ("Chain ID", "chainId"),
            ("Nonce", "nonce"),
            ("Issued At", "issuedAt"),
            ("Expiration Time", "expirationTime"),
            ("Not Before", "notBefore"),
            ("Request ID", "requestId"),
        ];
        for (name, field) in lines {
            let written = text(field).map(|text| format!("\n{name}: {}", text.trim_start_matches("eip155:")));
            out.extend(written);
        }
        if let Some(resources) = value("resources").and_then(Value::as_array) {
            out.push_str("\nResources:");
            out.extend(resources.iter().filter_map(Value::as_str).map(|uri| format!("\n- {uri}")));
        }
        out
    }
}

fn substituted(text: String, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from.as_str()), "{from:?} is in the text {text:?}");
        text.replace(from.as_str(), to)
    })
}

/// Solana's main network, as sign-ins name it.
const SOLANA: &str = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp";

fn on_solana(wallet: Wallet) -> bool {
    !wallet.address.starts_with("0x")
}

/// Ed25519 over the text as it is.
fn sign_on_solana(wallet: Wallet, text: &str) -> String {
    let bytes: [u8; 64] =
        bs58::decode(wallet.key).into_vec().ok().and_then(|key| key.try_into().ok()).expect("64 bytes in base58");
    let key = ed25519_dalek::SigningKey::from_keypair_bytes(&bytes).expect("both halves belong together");
    bs58::encode(key.sign(text.as_bytes()).to_bytes()).into_string()
}

/// `r` and `s` over the EIP-191 digest, and 27 or 28.
fn sign(wallet: Wallet, text: &str) -> ([u8; 64], u8) {
    let digits = wallet.key.trim_start_matches("0x");
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("a key is hex");
    let secret: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    let digest = Keccak256::digest(format!("\x19Ethereum Signed Message:\n{}{text}", text.len()));
    let key = SigningKey::from_slice(&secret).expect("a key of the test mnemonic");
    let (signature, parity) = key.sign_prehash_recoverable(&digest);
    (signature.to_bytes().into(), 27 + parity.to_byte())
}

/// Hex that no other sign-in of any test has.
fn fresh_nonce() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_nanos();
    format!("{nanos:020x}{:06x}{:06x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("the clock is not broken")
}

/// As JavaScript's `toISOString` writes it.
fn rfc3339(millis: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(millis).expect("a time of our calendar");
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
