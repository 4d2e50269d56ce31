//! Wallets that the operator has barred: they are turned away before anything is held, claimed, simulated or sent for them.

use std::future::Future;

use super::Gateway;
use crate::account::AccountId;
use crate::chain::claimed_payer;
use crate::error::{Code, Error};
use crate::x402::Payment;

impl Gateway {
    /// Whether a wallet that has shown who it is may buy here, and change what it has here.
    ///
    /// # Errors
    /// [`Code::AccountBlocked`].
    pub fn check_blocked(&self, wallet: AccountId) -> Result<(), Error> {
        match self.ledger.is_blocked(wallet) {
            true => Err(self.blocked(wallet)),
            false => Ok(()),
        }
    }

    /// The same of whoever a payment says that it is of, before anything of it is believed: a wallet that is barred is not asked
    /// for a better payment, whatever is wrong with this one.
    pub(super) fn check_payer(&self, payment: &Payment) -> Result<(), Error> {
        match claimed_payer(payment).is_some_and(|payer| self.ledger.is_blocked(payer)) {
            true => Err(payment_of_blocked()),
            false => Ok(()),
        }
    }

    /// Resolves with what a wallet is told when it is barred while something is made for it.
    pub(super) fn until_blocked(&self, wallet: AccountId) -> impl Future<Output = Error> + use<> {
        let barred = self.ledger.until_blocked(wallet);
        async move {
            barred.await;
            in_the_middle()
        }
    }

    pub(super) fn blocked(&self, wallet: AccountId) -> Error {
        let has = self.ledger.standing(wallet).map(|standing| standing.posted).ok();
        let has = has.map_or_else(|| "its balance".to_owned(), |posted| format!("its balance of {posted} USDC"));
        Error::new(Code::AccountBlocked, format!("this wallet is not served here; {has} stays its own: write to the operator"))
    }
}

/// Says nothing of what the wallet has: a payment on its way to its chain is for everybody to copy.
pub(super) fn payment_of_blocked() -> Error {
    let message = "this wallet is not served here, and its payment was not used; sign no other, and write to the operator: a \
                   balance that it has here stays its own";
    Error::new(Code::AccountBlocked, message)
}

/// For a wallet that was barred while its payment settled; who has the money is said behind it.
pub(super) fn blocked_meanwhile() -> Error {
    Error::new(Code::AccountBlocked, "this wallet is not served here any more: write to the operator")
}

fn in_the_middle() -> Error {
    let message = "this wallet is not served here any more, and the answer ends here; only what passed of it is charged, and its \
                   balance stays its own: write to the operator";
    Error::new(Code::AccountBlocked, message)
}
