//! The signature by which a receiver knows that it was us: HMAC-SHA256 as Standard Webhooks has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::config::Secret;

/// What the secret begins with.
const PREFIX: &str = "whsec_";

/// Signs for one webhook.
pub(super) struct Signer(Zeroizing<Vec<u8>>);

impl Signer {
    /// # Errors
    /// Says what is wrong with the secret, and never the secret.
    pub fn new(secret: &Secret) -> Result<Signer, String> {
        let text = secret.expose().strip_prefix(PREFIX).unwrap_or_default();
        let key = STANDARD.decode(text).ok().filter(|key| !key.is_empty());
        key.map(|key| Signer(Zeroizing::new(key))).ok_or_else(|| format!("not {PREFIX} and base64"))
    }

    /// The value of `webhook-signature` for a body that is sent at `timestamp`, in seconds.
    pub fn sign(&self, id: &str, timestamp: &str, body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for part in [id, ".", timestamp, ".", body] {
            mac.update(part.as_bytes());
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_is_signed_as_it_says() {
        let signer = Signer::new(&Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned())).unwrap();
        let signature = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(Signer::new(&Secret::from("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned())).is_err());
    }
}
