//! Paying out: what a transfer from `pay_to` back to a wallet must look like, and whether it does.
//!
//! Whoever holds the key of `pay_to` signs it as any buyer signs an offer, with the roles changed: the offer is to be paid to the
//! wallet. On EVM networks the nonce is made of the payout's id, so that the token itself pays an id at most once, whatever becomes
//! of anybody's books.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::evm::address::Address;
use super::handle::Chains;
use super::payment::{Transfer, VerifiedPayment, verify};
use super::solana::address::{Pubkey, associated_token_account};
use super::token::Token;
use super::{Amounts, Refused, reason, solana};
use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::config;
use crate::money::Micros;
use crate::x402::names::Family;
use crate::x402::{Payment, Requirements};

/// For how long an authorization of a payout is signed: until its end the money is kept for it, even if the chain refuses it now.
const LIFE: Duration = Duration::from_secs(300);
/// How much sooner than the longest life one may end that was signed a moment ago, and how far clocks may be apart.
const SLACK: Duration = Duration::from_secs(120);

/// What is to be paid to whom, under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payable {
    /// CAIP-2.
    pub network: String,
    pub to: AccountId,
    pub amount: Micros,
    pub id: String,
}

fn invalid(message: impl Into<String>) -> Refused {
    Refused::Invalid { reason: reason::REQUIREMENTS, message: message.into() }
}

/// What makes the transfer of a payout its own: the nonce on EVM networks, and what the memo says on Solana.
pub fn payout_nonce(network: &str, id: &str) -> [u8; 32] {
    let parts = [b"farebox payout".as_slice(), network.as_bytes(), id.as_bytes()];
    // Each with its length before it, so that no two can be spelled into one.
    let hash =
        parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update((part.len() as u64).to_be_bytes()).chain_update(part));
    hash.finalize().into()
}

fn memo(payable: &Payable) -> String {
    format!("payout {}", bs58::encode(&payout_nonce(&payable.network, &payable.id)[..16]).into_string())
}

/// The wallet's address on a network, if money can be sent there that `ours` says is paid to us.
fn recipient(payable: &Payable, ours: &Requirements) -> Result<String, Refused> {
    let to = match (Family::of_network(&payable.network), payable.to) {
        (Some(Family::Evm), AccountId::Evm(bytes)) => {
            let address = Address(bytes);
            let is_somebodys = bytes != [0; 20] && Address::parse(&ours.asset) != Some(address);
            is_somebodys.then(|| address.to_string())
        }
        (Some(Family::Solana), AccountId::Solana(bytes)) => {
            let (address, mint) = (Pubkey(bytes), ours.asset.parse().ok());
            let is_somebodys = mint.is_some_and(|mint| {
                let account = associated_token_account(&address, &mint, &Pubkey::TOKEN);
                address != mint && !solana::is_program(&address) && account.is_some()
            });
            is_somebodys.then(|| address.to_string())
        }
        _ => {
            let (to, network) = (payable.to, &payable.network);
            return Err(invalid(format!("{to} is no wallet on {network}; name a network of its own family")));
        }
    };
    let to = to.ok_or_else(|| invalid(format!("{} is not an address that can receive", payable.to)))?;
    match to.eq_ignore_ascii_case(&ours.pay_to) {
        true => Err(invalid(format!("{to} is pay_to itself, to which nothing can be paid back"))),
        false => Ok(to),
    }
}

impl Chains {
    /// What must be signed with the key of `pay_to` for a payout.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for a network that is not configured or cannot pay out, and for a wallet that cannot be paid there;
    /// [`Refused::Unavailable`] and [`Refused::ClockSkew`] while nothing is settled on it.
    pub fn payout(&self, payable: &Payable) -> Result<Requirements, Refused> {
        let network = &payable.network;
        let entry = self.entry(network).ok_or_else(|| invalid(format!("no [[network]] is {network}")))?;
        if entry.settlement == "facilitator" {
            return Err(invalid(format!(
                "{network} is settled by a facilitator, of whose silence nobody could tell whether it has paid; pay with the wallet of \
                 pay_to, and book it with farebox adjust"
            )));
        }
        entry.sellable()?;
        let requirement = entry.requirement_of(payable.amount, LIFE.as_secs());
        let pay_to = recipient(payable, &requirement)?;
        let extra = match &entry.offers {
            Some(offers) => Some(offers.extra_of_payout(memo(payable))),
            None => requirement.extra.clone(),
        };
        Ok(Requirements { pay_to, extra, ..requirement })
    }

    /// Holds what was signed for a payout against what must be, and says from which address it must come.
    ///
    /// # Errors
    /// As [`Chains::payout`], and [`Refused::Malformed`] and [`Refused::Invalid`] for anything else than exactly this transfer,
    /// signed by `pay_to` itself.
    pub fn verify_payout(&self, payable: &Payable, payment: &Payment, now: Timestamp) -> Result<VerifiedPayment, Refused> {
        let wanted = self.payout(payable)?;
        let verified = verify(payment, &wanted, Amounts::Exact, now)?;
        let pay_to = self.entry(&payable.network).map(|entry| entry.requirement.pay_to.clone()).unwrap_or_default();
        if verified.payer_address() != pay_to {
            let message = format!("it is signed by {}, and a payout comes from pay_to, {pay_to}", verified.payer_address());
            return Err(Refused::Invalid { reason: reason::PAYER, message });
        }
        if let Some(refused) = verified.unproven() {
            return Err(refused);
        }
        let is_of_this_id = match verified.transfer() {
            Transfer::Evm(signed) => signed.nonce() == payout_nonce(&payable.network, &payable.id),
            // Its memo was held against that of the id.
            Transfer::Solana(_) => true,
        };
        if !is_of_this_id {
            return Err(invalid("it is signed with a nonce that is not made of this id"));
        }
        match verified.valid_before() {
            Some(end) if end > now.plus(LIFE).plus(SLACK) => {
                let message = format!("it can be carried out for longer than {} s; sign one that ends sooner", LIFE.as_secs());
                Err(Refused::Invalid { reason: reason::VALID_BEFORE, message })
            }
            _ => Ok(verified),
        }
    }
}

/// Whether an offer is the payout that was meant, by the configuration at hand: who signs believes nobody else.
///
/// # Errors
/// What is different, for the operator.
pub fn check_payout(network: &config::Network, payable: &Payable, offer: &Requirements) -> Result<(), String> {
    let token = Token::resolve(network).map_err(|error| error.to_string())?;
    let ours = token.requirement();
    let to = recipient(payable, ours).map_err(|refused| format!("{refused:?}"))?;
    let (id, amount) = (&network.id, payable.amount.get().to_string());
    let facts = [
        ("scheme", &offer.scheme, &ours.scheme),
        ("network", &offer.network, id),
        ("asset", &offer.asset, &ours.asset),
        ("payTo", &offer.pay_to, &to),
        ("amount", &offer.amount, &amount),
    ];
    if let Some((field, theirs, ours)) = facts.into_iter().find(|(_, theirs, ours)| theirs != ours) {
        return Err(format!(
            "the gateway asks for a signature over {field} {theirs:?}, and {ours:?} was meant; nothing was signed"
        ));
    }
    if offer.max_timeout_seconds > LIFE.as_secs() {
        return Err(format!(
            "the gateway asks for a signature that is good for {} s; nothing was signed",
            offer.max_timeout_seconds
        ));
    }
    let domain = |of: &Requirements, key: &str| of.extra.as_ref().and_then(|extra| extra.get(key)).cloned();
    match ["name", "version"].iter().any(|key| domain(ours, key).is_some() && domain(ours, key) != domain(offer, key)) {
        true => Err("the gateway names the token otherwise than the configuration; nothing was signed".into()),
        false => Ok(()),
    }
}

/// The address that pays a network's payouts, as signatures show it.
///
/// # Errors
/// What is wrong with the configuration of the network.
pub fn paid_from(network: &config::Network) -> Result<String, String> {
    Token::resolve(network).map(|token| token.requirement().pay_to.clone()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_and_id_has_a_nonce_of_its_own() {
        let all = [("eip155:1", "23"), ("eip155:12", "3"), ("eip155:12", "4"), ("eip155:1", "2"), ("eip155:1", "")];
        let nonces: std::collections::HashSet<_> = all.iter().map(|(network, id)| payout_nonce(network, id)).collect();
        assert_eq!(nonces.len(), all.len());
        assert_eq!(payout_nonce("eip155:1", "23"), payout_nonce("eip155:1", "23"));
    }
}
