//! SignedIn, which only this module can make: a wallet that has just signed a message for this gateway.

use std::time::Duration;

use serde_json::{Value, json};

use super::evm::address::Address;
use super::evm::{hex, signature};
use super::solana;
use super::solana::address::Pubkey;
use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::x402::sign_in::{Family, fault};
use crate::x402::{SignIn, SignInFault, SignInRules};

#[cfg(test)]
mod tests;

/// How long after it was issued a sign-in is taken, whatever later end it names itself.
const LIFE: Duration = Duration::from_secs(300);
/// How far the clocks of a wallet and of this machine may be apart.
const SKEW: Duration = Duration::from_secs(30);

/// A wallet that proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    account: AccountId,
    nonce: String,
    issued_at: Timestamp,
    forget_at: Timestamp,
}

impl SignedIn {
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// What tells this sign-in from every other one of the account: 8 to 128 letters and digits.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// When its wallet signed, by the wallet's clock.
    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// From then on the nonce need not be remembered: no copy of this sign-in is taken any more.
    pub fn forget_at(&self) -> Timestamp {
        self.forget_at
    }
}

/// Judges a sign-in header. Whether its nonce was used before is for whoever remembers nonces.
///
/// # Errors
/// The first that applies, cheap ones first, each `X402_SIGN_IN_…`: those of [`SignIn::from_header`], then
/// `UNSUPPORTED_CHAIN`, `ADDRESS_MISMATCH`, `INVALID_WALLET`, `DOMAIN_MISMATCH`, `URI_MISMATCH`, `MISSING_NONCE`, `EXPIRED`,
/// `FUTURE_TIMESTAMP`, `NOT_BEFORE`, `TIMESTAMP_MISMATCH`, `INVALID_SIGNATURE`.
pub fn verify_sign_in(header: &str, rules: &SignInRules, now: Timestamp) -> Result<SignedIn, SignInFault> {
    verify(&SignIn::from_header(header)?, rules, now)
}

/// The verdict on a sign-in header as JSON, for a person who wants to know why it was refused:
/// `{"valid","account","code","message","fields"}`. The signature is not repeated.
pub fn judge_sign_in(header: &str, rules: &SignInRules, now: Timestamp) -> Value {
    let (outcome, fields) = match SignIn::from_header(header) {
        Ok(sign_in) => (verify(&sign_in, rules, now), sign_in.fields()),
        Err(fault) => (Err(fault), Value::Null),
    };
    let (account, code, message) = match outcome {
        Ok(signed_in) => {
            (Some(signed_in.account.to_string()), None, "this signs in, unless its nonce was used before".to_owned())
        }
        Err(fault) => (None, Some(fault.code), fault.message),
    };
    json!({ "valid": code.is_none(), "account": account, "code": code, "message": message, "fields": fields })
}

fn verify(sign_in: &SignIn, rules: &SignInRules, now: Timestamp) -> Result<SignedIn, SignInFault> {
    if !rules.chains().iter().any(|chain| chain == sign_in.chain()) {
        let taken = rules.chains().join(", ");
        let say = format!("sign-ins for {} are not taken here; sign for one of {taken}", sign_in.chain());
        return Err(SignInFault::new(fault::UNSUPPORTED_CHAIN, say));
    }
    let wallet = Wallet::named(sign_in)?;
    rules.check_place(sign_in.message())?;
    let nonce = sign_in.message().nonce.clone();
    let nonce = nonce
        .ok_or_else(|| SignInFault::new(fault::MISSING_NONCE, "the signed message has no nonce; sign one with a fresh one"))?;
    let forget_at = check_times(sign_in, now)?;
    wallet.check_signature(sign_in)?;
    // Nothing below can fail.
    Ok(SignedIn { account: wallet.account(), nonce, issued_at: sign_in.message().issued_at.at(), forget_at })
}

/// Who is said to have signed, by chain family. A further family is one more arm in each of its functions.
enum Wallet {
    Evm(Address),
    Solana(Pubkey),
}

impl Wallet {
    /// The signed address, which must be the one that is named beside it.
    fn named(sign_in: &SignIn) -> Result<Wallet, SignInFault> {
        let (signed, named) = (sign_in.message().address.as_str(), sign_in.address());
        let mismatch = || SignInFault::new(fault::ADDRESS_MISMATCH, "`address` is not the address in the signed message");
        match sign_in.message().family {
            Family::Evm => {
                if !signed.eq_ignore_ascii_case(named) {
                    return Err(mismatch());
                }
                let say = "the signed address is not 0x and 40 hex digits, or its EIP-55 checksum is wrong";
                let invalid = || SignInFault::new(fault::INVALID_WALLET, say);
                Address::typed(signed).map(Wallet::Evm).ok_or_else(invalid)
            }
            Family::Solana => {
                if signed != named {
                    return Err(mismatch());
                }
                let say = "the signed address is not a Solana address, which is base58 of 32 bytes";
                let key = signed.parse().map_err(|_| SignInFault::new(fault::INVALID_WALLET, say))?;
                Ok(Wallet::Solana(key))
            }
        }
    }

    /// Whether this wallet, and nobody else, signed the text.
    fn check_signature(&self, sign_in: &SignIn) -> Result<(), SignInFault> {
        const ANOTHER: &str = "of another wallet, or for another text";
        let problem = match self {
            Wallet::Evm(address) => {
                let bytes = hex::decode(sign_in.signature()).ok_or("not 0x and hex digits");
                let signer = bytes.and_then(|bytes| signature::signer_of_text(&sign_in.text(&address.to_string()), &bytes));
                match signer {
                    Ok(signer) if signer == *address => return Ok(()),
                    Ok(_) => ANOTHER,
                    Err(problem) => problem,
                }
            }
            Wallet::Solana(key) => {
                let text = sign_in.text(&key.to_string());
                let readings: Vec<_> = solana::signature::readings(sign_in.signature()).collect();
                match readings.iter().any(|bytes| key.signed(text.as_bytes(), bytes)) {
                    true => return Ok(()),
                    false if readings.is_empty() => "not base58 or base64 of 64 bytes",
                    false => ANOTHER,
                }
            }
        };
        Err(SignInFault::new(fault::INVALID_SIGNATURE, format!("the signature is {problem}; sign the message again")))
    }

    fn account(&self) -> AccountId {
        match self {
            Wallet::Evm(address) => AccountId::Evm(address.0),
            Wallet::Solana(key) => AccountId::Solana(key.0),
        }
    }
}

/// Until when the nonce must be remembered, if the message is valid now.
fn check_times(sign_in: &SignIn, now: Timestamp) -> Result<Timestamp, SignInFault> {
    let message = sign_in.message();
    let issued = message.issued_at.at();
    let expires = message.expiration_time.as_ref().map_or(Timestamp::from_millis(u64::MAX), |time| time.at());
    if issued.plus(LIFE) < now {
        let say = "this was signed more than five minutes ago; sign again, with Issued At as of now";
        return Err(SignInFault::new(fault::EXPIRED, say));
    }
    if expires <= now {
        return Err(SignInFault::new(fault::EXPIRED, "its Expiration Time has passed; sign again"));
    }
    let ahead = |time: Timestamp| time > now.plus(SKEW);
    if ahead(issued) {
        let seconds = issued.secs() - now.secs();
        let say = format!("it was issued {seconds} s in the future; it is {} here, set the clock", now.to_rfc3339());
        return Err(SignInFault::new(fault::FUTURE_TIMESTAMP, say));
    }
    if message.not_before.as_ref().is_some_and(|time| ahead(time.at())) {
        let say = format!("its Not Before is still to come; it is {} here", now.to_rfc3339());
        return Err(SignInFault::new(fault::NOT_BEFORE, say));
    }
    let apart = |timestamp: Timestamp| timestamp > issued.plus(SKEW) || issued > timestamp.plus(SKEW);
    if sign_in.timestamp().is_some_and(apart) {
        let say =
            "`timestamp` and the signed Issued At are more than 30 s apart; leave it out or send the time of signing, in ms";
        return Err(SignInFault::new(fault::TIMESTAMP_MISMATCH, say));
    }
    Ok(expires.min(issued.plus(LIFE)).plus(SKEW))
}
