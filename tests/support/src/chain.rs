//! What a server is told of a chain, whatever its family.

use crate::anvil::{self, Anvil, Wallet};
use crate::solana::{self, Solana};

/// A test chain that a server can settle on.
pub trait Chain {
    /// CAIP-2.
    fn network_id(&self) -> String;
    /// Of its node.
    fn node_url(&self) -> String;
    /// Who is paid there.
    fn pay_to(&self) -> Wallet;
    /// Who pays for settlements there, and the environment variable that holds the key.
    fn settler(&self) -> (Wallet, &'static str);
}

/// Every settler that a server may be told of.
pub const SETTLERS: [(Wallet, &str); 2] = [(anvil::SETTLER, "TEST_SETTLER_KEY"), (solana::SETTLER, "TEST_SOLANA_SETTLER_KEY")];

impl Chain for Anvil {
    fn network_id(&self) -> String {
        self.network()
    }

    fn node_url(&self) -> String {
        self.url()
    }

    fn pay_to(&self) -> Wallet {
        anvil::PAY_TO
    }

    fn settler(&self) -> (Wallet, &'static str) {
        SETTLERS[0]
    }
}

impl Chain for Solana {
    fn network_id(&self) -> String {
        self.network().to_owned()
    }

    fn node_url(&self) -> String {
        self.url()
    }

    fn pay_to(&self) -> Wallet {
        solana::PAY_TO
    }

    fn settler(&self) -> (Wallet, &'static str) {
        SETTLERS[1]
    }
}
