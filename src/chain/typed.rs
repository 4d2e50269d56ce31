//! An account as a person types it: where its family's addresses have a checksum, a slip of the finger is noticed.

use super::evm::address::Address;
use crate::account::AccountId;

/// Reads `0x…` (in mixed case its EIP-55 checksum must be right) or base58, each also behind its family (`evm:`, `solana:`).
pub fn typed_account(text: &str) -> Option<AccountId> {
    let evm = |address: &str| Address::typed(address).map(|address| AccountId::Evm(address.0));
    match text.split_once(':') {
        Some(("evm", address)) => evm(address),
        Some(("solana", address)) => AccountId::from_solana_address(address),
        Some(_) => None,
        None => evm(text).or_else(|| AccountId::from_solana_address(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_with_its_family_and_without_and_a_slip_is_noticed() {
        let (evm, solana) = ("0x90F79bf6EB2c4f870365E785982E1f101E93b906", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v");
        for (text, family) in [(evm, "evm"), (solana, "solana")] {
            let account = typed_account(text).unwrap();
            assert_eq!(typed_account(&account.to_string()), Some(account), "as it is printed");
            assert_eq!(typed_account(&format!("{family}:{text}")), Some(account));
            let other = if family == "evm" { "solana" } else { "evm" };
            assert_eq!(typed_account(&format!("{other}:{text}")), None, "the other family");
        }
        for slip in [&evm.replace("F79", "f79"), &evm[..41], &solana[..40], "", "evm:", "mars:x", &solana.replace('E', "0")] {
            assert_eq!(typed_account(slip), None, "{slip}");
        }
    }
}
