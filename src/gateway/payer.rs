//! Who pays for a call: a payment that brings its own money, else a wallet that signed in, else one whose key it is.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::Gateway;
use super::settle::ledger_unavailable;
use crate::account::AccountId;
use crate::chain::{SignedIn, verify_sign_in};
use crate::clock::Timestamp;
use crate::config::{Config, ConfigError, NoncePolicy};
use crate::error::{Code, Error};
use crate::keys::{Ended, Key};
use crate::ledger::{Denied, Nonce, Refused};
use crate::x402::sign_in::fault;
use crate::x402::{MAX_HEADER_BYTES, Payment, SignInFault, SignInRules, only_sign_in};

/// The credentials of one request as they came, not yet believed. A value that is no text is there as one that will not
/// be read, never left out.
#[derive(Default)]
pub struct Credentials {
    /// Payment headers that are not empty, in order of preference.
    pub payments: Vec<String>,
    /// Sign-in headers.
    pub sign_ins: Vec<String>,
    /// Every `Authorization`, also an empty one.
    pub authorizations: Vec<String>,
    /// Every `x-api-key`, also an empty one.
    pub api_keys: Vec<String>,
}

impl fmt::Debug for Credentials {
    /// Blind: these are secrets of the caller.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// A wallet, and what speaks for its balance.
#[derive(Debug)]
pub enum Payer {
    /// It signed in with this very request.
    SignIn(SignedIn),
    /// Its key came along; it was live a moment ago.
    Key(Arc<Key>),
}

/// How a payer identified itself for this call.
pub(super) enum Via {
    /// It did not.
    Nobody,
    /// It brought its own money.
    Payment(Box<Payment>),
    /// It pays from its balance.
    Balance(Payer),
}

/// What a wallet that is known by now asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To see something.
    Read,
    /// To change something that lasts, or to be let in for longer than this request.
    Change,
}

impl Payer {
    /// Whose money it is.
    pub fn account(&self) -> AccountId {
        match self {
            Payer::SignIn(signed_in) => signed_in.account(),
            Payer::Key(key) => key.record.account,
        }
    }

    /// The key that speaks for it, if one does.
    pub fn key(&self) -> Option<&Arc<Key>> {
        match self {
            Payer::SignIn(_) => None,
            Payer::Key(key) => Some(key),
        }
    }
}

impl Gateway {
    /// Whose wallet a request speaks for, by sign-in, else by key; `None` when it carries neither. A payment says nothing
    /// about that: once settled it is public.
    ///
    /// # Errors
    /// [`Code::InvalidSignIn`] with its reason, [`Code::InvalidKey`], [`Code::KeyRevoked`]: a credential that is not good is
    /// never passed over for another. [`Code::LedgerUnavailable`] when keys cannot be looked up.
    pub fn identify(&self, credentials: &Credentials) -> Result<Option<Payer>, Error> {
        if let Some(header) = credentials.sign_in()? {
            return self.signed_in(header).map(|signed_in| Some(Payer::SignIn(signed_in)));
        }
        credentials.key()?.map(|text| self.key(text).map(Payer::Key)).transpose()
    }

    /// Uses up the sign-in of a request that is no call, as the operator's policy says: with `per_charge` a change does,
    /// with `strict` every request, with `session` none. Durable when this returns. A key is not used up.
    ///
    /// # Errors
    /// [`Code::InvalidSignIn`] with `X402_SIGN_IN_NONCE_REUSED`: it was used before.
    pub async fn consume(&self, payer: &Payer, purpose: Purpose) -> Result<(), Error> {
        let Payer::SignIn(signed_in) = payer else { return Ok(()) };
        let once = match self.prepaid.nonces {
            NoncePolicy::PerCharge => purpose == Purpose::Change,
            NoncePolicy::Strict => true,
            NoncePolicy::Session => false,
        };
        if !once {
            return Ok(());
        }
        let durable = self.ledger.use_nonce(nonce(signed_in)).map_err(nonce_denied)?;
        durable.wait().await.map_err(|stopped| ledger_unavailable(&stopped.to_string()))
    }

    /// The nonce that a call uses up together with what it holds, if it was paid for by a sign-in that is good for one call.
    pub(super) fn nonce_for_call(&self, payer: &Payer) -> Result<Option<Nonce>, Error> {
        let Payer::SignIn(signed_in) = payer else { return Ok(None) };
        match self.prepaid.nonces {
            NoncePolicy::PerCharge => Ok(Some(nonce(signed_in))),
            NoncePolicy::Session => Ok(None),
            NoncePolicy::Strict => {
                // Whatever becomes of the call, the sign-in is used up. Its row goes out before that of the call.
                drop(self.ledger.use_nonce(nonce(signed_in)).map_err(nonce_denied)?);
                Ok(None)
            }
        }
    }

    fn signed_in(&self, header: &str) -> Result<SignedIn, Error> {
        let verified = verify_sign_in(header, &self.sign_in_rules, self.clock.now());
        self.early.note(verified.as_ref().err().map(|fault| fault.code), self.steady.now());
        let signed_in = verified.map_err(faulty)?;
        let restored_at = self.ledger.restored_at().map_err(|denied| ledger_unavailable(&denied.to_string()))?;
        if signed_in.issued_at() < restored_at {
            let at = restored_at.to_rfc3339();
            let message = format!("this was signed before {at}, and whether it was used since is not known; sign again");
            return Err(Error::new(Code::InvalidSignIn, message).reason(fault::EXPIRED));
        }
        Ok(signed_in)
    }

    fn key(&self, text: &str) -> Result<Arc<Key>, Error> {
        let found = self.keys.find(text).map_err(|broken| {
            let message = "keys cannot be looked up at the moment; send this one again later";
            Error::new(Code::LedgerUnavailable, message).retry_after(5).because(broken.to_string())
        })?;
        let key = found.ok_or_else(|| {
            let message = "this API key is not known here; check it, or send no key and pay for this call with PAYMENT-SIGNATURE";
            Error::new(Code::InvalidKey, message)
        })?;
        match key.ended(self.clock.now()) {
            None => Ok(key),
            Some(ended) => Err(key_ended(ended, key.record.expires_at)),
        }
    }
}

/// The rules for sign-ins at every address that is ours, the published one first.
pub(super) fn sign_in_rules(config: &Config) -> Result<SignInRules, ConfigError> {
    let here = config.bind.ip().is_loopback() && config.is_for_this_machine();
    let networks = config.networks.iter().map(|network| network.id.as_str());
    let rules = SignInRules::new(&config.public_url, here.then(|| config.bind.port()), networks);
    let rules = rules.ok_or_else(|| ConfigError {
        key: "server.public_url".into(),
        problem: "it has no host that a wallet could sign in for".into(),
        line: None,
    })?;
    Ok(rules.and_at(config.prepaid.sign_in_domains.iter().cloned()))
}

/// A sign-in's fingerprint: what tells it from every other, of any wallet.
fn nonce(signed_in: &SignedIn) -> Nonce {
    let digest = Sha256::new().chain_update(signed_in.account().to_bytes()).chain_update(signed_in.nonce()).finalize();
    let mut id = [0; 16];
    id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    Nonce { id, forget_at: signed_in.forget_at() }
}

fn nonce_denied(denied: Denied) -> Error {
    match denied {
        Denied::Refused(Refused::NonceUsed) => nonce_used(),
        other => ledger_unavailable(&other.to_string()),
    }
}

pub(super) fn nonce_used() -> Error {
    let message = "this sign-in was used before, and is good for once; sign a new one, with a new nonce";
    Error::new(Code::InvalidSignIn, message).reason(fault::NONCE_REUSED)
}

fn faulty(fault: SignInFault) -> Error {
    Error::new(Code::InvalidSignIn, fault.message).reason(fault.code)
}

/// Why a key does not speak for its wallet any more.
pub(super) fn key_ended(ended: Ended, expired_at: Option<Timestamp>) -> Error {
    match (ended, expired_at) {
        (Ended::Revoked, _) => Error::new(Code::KeyRevoked, "this API key was revoked; use another one, or mint a new one"),
        (Ended::Replaced, _) => {
            Error::new(Code::InvalidKey, "this API key was rotated, and its old secret is not taken any more; use the new one")
        }
        (Ended::Expired, Some(at)) => Error::new(
            Code::InvalidKey,
            format!("this API key expired at {}; use another one, or mint a new one", at.to_rfc3339()),
        ),
        (Ended::Expired, None) => Error::new(Code::InvalidKey, "this API key has expired; use another one, or mint a new one"),
    }
}

/// A payment header that cannot be read.
pub(super) fn malformed(what: &str) -> Error {
    let message = format!("{what}; sign the offer in PAYMENT-REQUIRED and send that as PAYMENT-SIGNATURE");
    Error::new(Code::InvalidPayment, message)
}

impl Credentials {
    /// Who pays for a call. The first that is there counts, good or not: a tool with a wrong key must hear about the key, and
    /// never gets a quote instead.
    pub(super) fn payer(&self, gateway: &Gateway) -> Result<Via, Error> {
        if let Some(payment) = self.payment()? {
            return Ok(Via::Payment(Box::new(payment)));
        }
        Ok(gateway.identify(self)?.map_or(Via::Nobody, Via::Balance))
    }

    /// Reads the payment, if one came along. The same one may come under several names.
    ///
    /// # Errors
    /// [`Code::InvalidPayment`], when it cannot be read or when two different ones came.
    pub(super) fn payment(&self) -> Result<Option<Payment>, Error> {
        let Some(first) = self.payments.first() else { return Ok(None) };
        if self.payments.iter().any(|other| other != first) {
            let message = "two different payments came with one request, and neither was used; send one, as PAYMENT-SIGNATURE";
            return Err(Error::new(Code::InvalidPayment, message));
        }
        if first.len() > MAX_HEADER_BYTES {
            return Err(malformed(&format!("the payment header has {} bytes, more than {MAX_HEADER_BYTES}", first.len())));
        }
        Payment::from_header(first).map(Some).map_err(|what| malformed(&what.to_string()))
    }

    fn sign_in(&self) -> Result<Option<&str>, Error> {
        only_sign_in(self.sign_ins.iter().map(String::as_str)).map_err(faulty)
    }

    /// The one key that came, in `Authorization` or in `x-api-key` or in both.
    fn key(&self) -> Result<Option<&str>, Error> {
        let mut keys = Vec::with_capacity(2);
        for value in &self.authorizations {
            let key = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            keys.push(key.map(|(_, key)| key.trim()).unwrap_or_default());
        }
        keys.extend(self.api_keys.iter().map(|value| value.trim()));
        let Some(first) = keys.first().copied() else { return Ok(None) };
        if keys.iter().any(|other| other.is_empty()) {
            let message =
                "there is no key in Authorization or x-api-key; send Authorization: Bearer sk-x402-…, or neither of them";
            return Err(Error::new(Code::InvalidKey, message));
        }
        if keys.iter().any(|other| *other != first) {
            let message = "two different API keys came with one request; send one, as Authorization: Bearer or as x-api-key";
            return Err(Error::new(Code::InvalidKey, message));
        }
        Ok(Some(first))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::x402::sign_in::{Family, Message};

    /// The code with which a sign-in for `place` is refused by a gateway that is configured like this; empty when it is not.
    fn refusal(server: &str, place: &str) -> &'static str {
        let config = Config::parse(&format!("[server]\n{server}"), Path::new("."), &|_| None).unwrap();
        let (_, domain) = place.split_once("://").unwrap();
        let message = Message::parse(
            &format!(
                "{domain} wants you to sign in with your Ethereum account:\n0x70997970C51812dc3A010C7d01b50e0d17dc79C8\n\n\n\
                 URI: {place}/v1\nVersion: 1\nChain ID: 8453\nNonce: 01234567\nIssued At: 2026-01-02T03:04:05Z"
            ),
            Family::Evm,
        );
        sign_in_rules(&config).unwrap().check_place(&message.unwrap()).err().map_or("", |fault| fault.code)
    }

    #[test]
    fn what_was_signed_for_a_program_on_the_callers_machine_is_not_good_behind_a_proxy() {
        let local = ["http://127.0.0.1:4020", "http://localhost:4020", "http://[::1]:4020"];
        let behind_a_proxy = "bind = \"127.0.0.1:4020\"\npublic_url = \"https://your.name\"";
        assert_eq!(refusal(behind_a_proxy, "https://your.name"), "");
        for place in local {
            assert_eq!(refusal(behind_a_proxy, place), fault::DOMAIN_MISMATCH, "{place}");
        }
        for here in ["", "bind = \"127.0.0.1:4020\"\npublic_url = \"http://localhost:4020\""] {
            for place in local {
                assert_eq!(refusal(here, place), "", "whoever sits at the machine: {place}");
            }
        }
        let for_all = "bind = \"0.0.0.0:4020\"\npublic_url = \"http://127.0.0.1:4020\"";
        assert_eq!(refusal(for_all, "http://localhost:4020"), fault::DOMAIN_MISMATCH, "it listens elsewhere, too");
    }
}
