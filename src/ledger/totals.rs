//! What the books come to at this moment, for those who watch them: read under the lock, in a time that does not grow with the wallets.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::book::Book;
use super::rows::{Account, Payment, State};
use super::{BACKLOG, Denied, Ledger};
use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::ids::PaymentId;
use crate::money::Micros;

/// The books in a few sums. Micros, where it is money; all of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// What wallets have: what the operator owes them.
    pub wallets: i64,
    /// What of that stands for calls in flight.
    pub held: u64,
    /// Calls in flight.
    pub holds: usize,
    /// What the operator has earned and not given back.
    pub sales: i64,
    /// Payments that have arrived and whose calls still run.
    pub transit: i64,
    /// Balance that is on its way back to its wallets on a chain.
    pub outgoing: i64,
    /// What was lost to transfers that vanished from their chain; negative by the loss.
    pub bad_debt: i64,
    /// Batches that wait for the disk, and from how many on nothing is sold.
    pub backlog: usize,
    pub most_backlog: usize,
    /// Payments that their chain may still change, by network (CAIP-2) and state.
    pub payments: BTreeMap<(String, &'static str), u64>,
}

/// A payment that was claimed and of which nobody knows yet whether it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    pub id: PaymentId,
    /// CAIP-2.
    pub network: String,
    pub payer: AccountId,
    pub amount: Micros,
    pub claimed_at: Timestamp,
}

impl Book {
    /// Counts anew what all wallets have.
    pub(super) fn count_what_is_owed(&mut self) {
        let wallets = self.balances.iter().filter(|(account, _)| matches!(account, Account::Wallet(_)));
        self.owed = wallets.fold(0, |sum, (_, balance)| sum.saturating_add(balance.amount));
    }

    fn totals(&self) -> Totals {
        let of = |account: &Account| self.balances.get(account).map_or(0, |balance| balance.amount);
        let mut payments = BTreeMap::new();
        for kept in self.payments.values().filter(|kept| kept.row.is_open()) {
            *payments.entry((kept.row.network.clone(), word(kept.row.state))).or_default() += 1;
        }
        Totals {
            wallets: self.owed,
            held: self.held.values().fold(0, |sum, held| sum.saturating_add(held.amount)),
            holds: self.holds.len(),
            sales: of(&Account::Sales),
            transit: of(&Account::Transit),
            outgoing: of(&Account::Outgoing),
            bad_debt: of(&Account::BadDebt),
            backlog: 0,
            most_backlog: BACKLOG,
            payments,
        }
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Claimed => "claimed",
        State::Signed => "signed",
        State::Sent => "sent",
        State::Confirmed => "confirmed",
        State::Final => "final",
        State::Voided => "voided",
        State::Failed => "failed",
    }
}

impl Ledger {
    /// What the books come to.
    ///
    /// # Errors
    /// The ledger has stopped.
    pub fn totals(&self) -> Result<Totals, Denied> {
        let totals = self.inner.lock()?.totals();
        Ok(Totals { backlog: self.inner.backlog.load(Ordering::Relaxed), ..totals })
    }

    /// Payments that were claimed before this moment and are waited for still. None once the ledger has stopped.
    pub fn unsettled_since(&self, before: Timestamp) -> Vec<Unsettled> {
        let Ok(book) = self.inner.lock() else { return Vec::new() };
        let rows = book.unsettled.iter().filter_map(|(_, id)| Some((*id, &book.payments.get(id)?.row)));
        let old = rows.filter(|(_, row)| row.claimed_at < before.millis());
        old.map(|(id, row): (PaymentId, &Payment)| Unsettled {
            id,
            network: row.network.clone(),
            payer: row.payer,
            amount: row.amount(),
            claimed_at: Timestamp::from_millis(row.claimed_at),
        })
        .collect()
    }
}
