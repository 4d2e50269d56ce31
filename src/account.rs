//! Who owns money: a wallet, written as its chain family and address, without a chain id.

use std::fmt;

/// The longest base58 text of 32 bytes.
const LONGEST_BASE58: usize = 44;

/// A wallet that owns a balance. The same key on two EVM chains is one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccountId {
    /// The 20 bytes of an Ethereum address.
    Evm([u8; 20]),
    /// The 32 bytes of a Solana public key.
    Solana([u8; 32]),
}

impl AccountId {
    /// The address as the wire writes it: in lower case for EVM, in base58 for Solana.
    pub fn address(self) -> String {
        let text = self.to_string();
        text.split_once(':').map_or_else(String::new, |(_, address)| address.to_owned())
    }

    /// Reads an address of either family.
    pub fn from_address(text: &str) -> Option<AccountId> {
        AccountId::from_evm_address(text).or_else(|| AccountId::from_solana_address(text))
    }

    /// Reads an Ethereum address: `0x` and 40 hex digits, in any case.
    pub fn from_evm_address(text: &str) -> Option<AccountId> {
        let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 40)?;
        let mut address = [0; 20];
        for (byte, pair) in address.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(0)? << 4 | digit(1)?;
        }
        Some(AccountId::Evm(address))
    }

    /// Reads a Solana address: base58 of 32 bytes, of which there is one spelling.
    pub fn from_solana_address(text: &str) -> Option<AccountId> {
        let mut key = [0; 32];
        // Decoding takes time that grows with the square of the length.
        let whole = text.len() <= LONGEST_BASE58 && bs58::decode(text).onto(&mut key) == Ok(key.len());
        whole.then_some(AccountId::Solana(key))
    }

    /// Fixed-width form for keys in a table: a family byte, then the address padded with zeros.
    pub fn to_bytes(self) -> [u8; 33] {
        let mut out = [0; 33];
        match self {
            AccountId::Evm(address) => {
                out[0] = 1;
                out[1..21].copy_from_slice(&address);
            }
            AccountId::Solana(key) => {
                out[0] = 2;
                out[1..].copy_from_slice(&key);
            }
        }
        out
    }

    /// The inverse of [`AccountId::to_bytes`]; `None` for bytes that it never wrote.
    pub fn from_bytes(bytes: &[u8; 33]) -> Option<AccountId> {
        let mut address = [0; 20];
        let mut key = [0; 32];
        address.copy_from_slice(&bytes[1..21]);
        key.copy_from_slice(&bytes[1..]);
        match bytes[0] {
            1 if bytes[21..].iter().all(|b| *b == 0) => Some(AccountId::Evm(address)),
            2 => Some(AccountId::Solana(key)),
            _ => None,
        }
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccountId::Evm(address) => {
                f.write_str("evm:0x")?;
                // Sixteen bytes at a time: it stands in every line of the log.
                address.chunks(16).try_for_each(|part| {
                    let number = part.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
                    write!(f, "{number:0digits$x}", digits = 2 * part.len())
                })
            }
            AccountId::Solana(key) => write!(f, "solana:{}", bs58::encode(key).into_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_survives_its_table_key() {
        for account in [AccountId::Evm([7; 20]), AccountId::Solana([9; 32])] {
            assert_eq!(AccountId::from_bytes(&account.to_bytes()), Some(account));
        }
        assert_eq!(AccountId::from_bytes(&[0; 33]), None);
    }

    #[test]
    fn a_solana_account_prints_and_reads_as_wallets_write_it() {
        let text = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v";
        let account = AccountId::from_solana_address(text).unwrap();
        assert_eq!((account.to_string(), account.address()), (format!("solana:{text}"), text.to_owned()));
        let nobody = AccountId::from_solana_address("11111111111111111111111111111111");
        assert_eq!(nobody, Some(AccountId::Solana([0; 32])));
        for bad in ["", "1", &text[..40], &format!("1{text}"), &format!("{text} "), "0OIl", &"1".repeat(33), &"z".repeat(44)] {
            assert_eq!(AccountId::from_solana_address(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_evm_account_prints_in_lower_case() {
        assert_eq!(AccountId::Evm([0xAB; 20]).to_string(), format!("evm:0x{}", "ab".repeat(20)));
    }
}
