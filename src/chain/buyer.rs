//! The buying side, whatever the family: a wallet that signs what an offer asks for, as `farebox pay` does.

use zeroize::Zeroizing;

use super::evm::key::PrivateKey;
use super::solana::address::SettlerKey;
use super::{evm, solana};
use crate::clock::Timestamp;
use crate::x402::names::Family;
use crate::x402::{Requirements, Resource};

/// Why a requirement cannot be paid by this buyer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this offer cannot be paid: {0}")]
pub struct Unpayable(pub String);

/// A private key that pays. `Debug` shows whose it is, never what it is.
#[derive(Debug)]
pub enum Wallet {
    Evm(PrivateKey),
    Solana(SettlerKey),
}

/// Why a text is no private key of any family. Says nothing about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a private key is 0x and 64 hex digits (EVM), or base58 of 64 bytes (Solana)")]
pub struct BadKey;

impl Wallet {
    /// Reads a private key as the wallets of its family export it.
    pub fn parse(text: &str) -> Result<Wallet, BadKey> {
        let solana = || SettlerKey::parse(text).map(Wallet::Solana);
        PrivateKey::parse(text).map(Wallet::Evm).or_else(|_| solana()).map_err(|_| BadKey)
    }

    /// The wallet of 32 random bytes, and its key as [`Wallet::parse`] reads it.
    ///
    /// # Errors
    /// For bytes that are no key of the family, which random ones never are.
    pub fn fresh(family: Family, random: &[u8; 32]) -> Result<(Wallet, Zeroizing<String>), BadKey> {
        match family {
            Family::Evm => {
                let text = Zeroizing::new(evm::hex::encode(random));
                Ok((Wallet::Evm(PrivateKey::parse(&text).map_err(|_| BadKey)?), text))
            }
            Family::Solana => {
                let key = SettlerKey::from_seed(random);
                let text = key.export();
                Ok((Wallet::Solana(key), text))
            }
        }
    }

    pub fn family(&self) -> Family {
        match self {
            Wallet::Evm(_) => Family::Evm,
            Wallet::Solana(_) => Family::Solana,
        }
    }

    pub fn address(&self) -> String {
        match self {
            Wallet::Evm(key) => key.address().to_string(),
            Wallet::Solana(key) => key.address().to_string(),
        }
    }

    /// Signs `offer` and returns the version 2 payment header (`PAYMENT-SIGNATURE`). `random` must be fresh.
    ///
    /// # Errors
    /// For an offer of another family, or one that lacks what is signed.
    pub fn pay(
        &self,
        offer: &Requirements,
        resource: Option<&Resource>,
        random: [u8; 32],
        now: Timestamp,
    ) -> Result<String, Unpayable> {
        match self {
            Wallet::Evm(key) => evm::buyer::pay(offer, resource, key, random, now),
            Wallet::Solana(key) => solana::buyer::pay(offer, resource, key, random),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_how_it_is_written() {
        for family in [Family::Evm, Family::Solana] {
            let (wallet, text) = Wallet::fresh(family, &[7; 32]).unwrap();
            let again = Wallet::parse(&text).unwrap();
            assert_eq!((again.family(), again.address()), (family, wallet.address()));
            assert!(format!("{wallet:?}").contains(&wallet.address()) && !format!("{wallet:?}").contains(&text[2..]));
        }
        for bad in ["", "0x12", "sk-x402-abc", &"1".repeat(88)] {
            assert!(Wallet::parse(bad).is_err(), "{bad}");
        }
    }
}
