//! Network names: version 2 says CAIP-2 (`eip155:8453`), version 1 says `base`.

/// A kind of chain: it decides how wallets sign, and what their addresses look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Evm,
    Solana,
}

impl Family {
    /// The family of a network given in CAIP-2; `None` for one that is of no known family.
    pub fn of_network(caip2: &str) -> Option<Family> {
        match caip2.split_once(':')? {
            ("eip155", _) => Some(Family::Evm),
            ("solana", _) => Some(Family::Solana),
            _ => None,
        }
    }
}

/// CAIP-2 identifier, short name, and whether version 1 clients know that name: the npm `x402` 1.2 client rejects a whole
/// offer for one name it does not know.
const NAMES: [(&str, &str, bool); 21] = [
    ("eip155:8453", "base", true),
    ("eip155:84532", "base-sepolia", true),
    ("eip155:137", "polygon", true),
    ("eip155:80002", "polygon-amoy", true),
    ("eip155:43114", "avalanche", true),
    ("eip155:43113", "avalanche-fuji", true),
    ("eip155:1329", "sei", true),
    ("eip155:1328", "sei-testnet", true),
    ("eip155:1", "ethereum", false),
    ("eip155:42161", "arbitrum", false),
    ("eip155:421614", "arbitrum-sepolia", false),
    ("eip155:42220", "celo", false),
    ("eip155:11142220", "celo-sepolia", false),
    ("eip155:143", "monad", false),
    ("eip155:50", "xdc", false),
    ("eip155:51", "xdc-apothem", false),
    ("eip155:10", "optimism", false),
    ("eip155:11155111", "sepolia", false),
    ("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "solana", true),
    ("solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", "solana-devnet", true),
    ("solana:4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z", "solana-testnet", false),
];

/// The CAIP-2 identifier of a network given by either name; `None` for a name nobody defined.
pub fn caip2(name: &str) -> Option<&str> {
    if let Some((caip2, _, _)) = NAMES.iter().find(|(caip2, short, _)| *caip2 == name || *short == name) {
        return Some(caip2);
    }
    let reference = name.strip_prefix("eip155:")?;
    let canonical = !reference.starts_with('0') && reference.len() <= 18 && reference.bytes().all(|b| b.is_ascii_digit());
    (canonical && !reference.is_empty()).then_some(name)
}

/// The short name of a CAIP-2 network, if it has one.
pub fn short(caip2: &str) -> Option<&'static str> {
    NAMES.iter().find(|row| row.0 == caip2).map(|row| row.1)
}

/// The name version 1 clients accept in an offer, if they know the network at all.
pub fn v1(caip2: &str) -> Option<&'static str> {
    NAMES.iter().find(|row| row.0 == caip2 && row.2).map(|row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_identifier_whatever_it_is_called() {
        assert_eq!(caip2("base"), Some("eip155:8453"));
        assert_eq!(caip2("eip155:8453"), Some("eip155:8453"));
        assert_eq!(caip2("eip155:31337"), Some("eip155:31337"));
        for unknown in ["solana:mainnet", "eip155:", "eip155:01", "eip155:1e3", "Base", ""] {
            assert_eq!(caip2(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn version_1_clients_are_not_shown_names_they_reject() {
        assert_eq!(v1("eip155:84532"), Some("base-sepolia"));
        assert_eq!(v1("eip155:42161"), None);
    }
}
