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

/// Whether what an offer asks for is USDC, where we know which token that is. A buyer who is shown dollars must sign dollars.
///
/// # Errors
/// For another token on a network of the table.
pub fn check_asset(offer: &Requirements) -> Result<(), Unpayable> {
    let evm = || evm::token::known(&offer.network).map(|token| token.asset.to_string());
    let usdc = evm().or_else(|| solana::token::usdc(&offer.network).map(str::to_owned));
    let same = |usdc: &String| match Family::of_network(&offer.network) {
        Some(Family::Evm) => usdc.eq_ignore_ascii_case(&offer.asset),
        Some(Family::Solana) | None => *usdc == offer.asset,
    };
    match usdc.filter(|usdc| !same(usdc)) {
        None => Ok(()),
        Some(usdc) => {
            let asset: String = offer.asset.chars().filter(|c| !c.is_control()).take(80).collect();
            Err(Unpayable(format!("it asks for the token {asset}, and USDC on {} is {usdc}; nothing was signed", offer.network)))
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

    #[test]
    fn dollars_are_usdc_wherever_we_know_it() {
        let offer = |network: &str, asset: &str| Requirements {
            scheme: "exact".into(),
            network: network.into(),
            amount: "1".into(),
            asset: asset.into(),
            pay_to: String::new(),
            max_timeout_seconds: 60,
            extra: None,
        };
        let (base, solana) = ("eip155:8453", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp");
        let usdc = ["0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"];
        for (network, asset) in [(base, usdc[0]), (solana, usdc[1]), ("eip155:31337", usdc[1])] {
            assert_eq!(check_asset(&offer(network, asset)), Ok(()), "{network}");
        }
        assert_eq!(check_asset(&offer(base, &usdc[0].to_ascii_lowercase())), Ok(()), "the same address");
        let devnets = "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU";
        for (network, asset) in [(base, usdc[1]), (solana, usdc[0]), (solana, devnets), (solana, ""), (base, "0x12")] {
            let Err(Unpayable(why)) = check_asset(&offer(network, asset)) else { panic!("{network}: {asset}") };
            assert!(why.contains(asset) && why.contains(network) && why.contains("USDC"), "{why}");
        }
    }
}
