//! What the ledger tells an owner: what a wallet can spend, its statement, the receipt of one call, what was used day by day.

use super::calls::Standing;
use super::rows::{Account, Grant, Kind, Payment, Receipt, Reference};
use super::spending::Spending;
use super::{Denied, Expected, Ledger};
use crate::account::AccountId;
use crate::clock::{Day, Period, Timestamp};
use crate::ids::{KeyId, PaymentId, RequestId};
use crate::money::Micros;

/// Why a line of a statement is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movement {
    TopUp,
    Charge,
    Refund,
    /// By the operator's hand.
    Adjustment,
    /// Paid out to the wallet on a chain, or back from there because it did not arrive.
    Payout,
}

/// One line of a wallet's statement. Amounts in micros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Grows with every line of the whole ledger.
    pub number: u64,
    /// What it did to the balance: negative for a charge.
    pub amount: i64,
    pub balance_after: i64,
    pub movement: Movement,
    pub at: Timestamp,
    /// The call it is about.
    pub request: Option<RequestId>,
    pub model: Option<String>,
    /// The payment it is about.
    pub payment: Option<PaymentId>,
}

/// What a wallet used of one model on one day, by one key or by none. Amounts in micros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    pub day: Day,
    pub key: Option<KeyId>,
    pub model: String,
    pub calls: u64,
    pub charge: u64,
    /// The part of the charge that allowances paid.
    pub allowance: u64,
    pub input: u64,
    pub output: u64,
}

impl Movement {
    /// What came in for a payment is a top-up; what a call gave back is a refund, whoever had paid for it.
    pub(super) fn of(kind: Kind, reference: Reference) -> Movement {
        match (kind, reference) {
            (Kind::Adjustment, _) => Movement::Adjustment,
            (Kind::Payout, _) => Movement::Payout,
            (Kind::Charge, _) => Movement::Charge,
            (Kind::Credit | Kind::Reversal | Kind::Payment, Reference::Payment(_)) => Movement::TopUp,
            (Kind::Credit | Kind::Reversal | Kind::Payment | Kind::Refund, _) => Movement::Refund,
        }
    }
}

impl Ledger {
    /// What a wallet can spend.
    pub fn available(&self, wallet: AccountId) -> Micros {
        self.inner.lock().map_or(Micros::ZERO, |book| book.available(wallet))
    }

    /// What a wallet has, holds and can spend, all from one moment.
    pub fn standing(&self, wallet: AccountId) -> Result<Standing, Denied> {
        Ok(self.inner.lock()?.standing(wallet, self.inner.clock.now()))
    }

    /// What a wallet can spend, and what of its own is still settling.
    pub fn expected(&self, wallet: AccountId) -> Result<Expected, Denied> {
        Ok(self.inner.lock()?.expected(wallet))
    }

    /// What a key has spent in the period that lasts.
    pub fn key_spending(&self, id: KeyId, period: Period) -> Result<Spending, Denied> {
        Ok(self.inner.lock()?.key_spending(id, period, self.inner.clock.now()))
    }

    /// Whether money ever moved for a wallet, or the operator has granted it an allowance: others cost nothing to make up.
    pub fn knows(&self, wallet: AccountId) -> Result<bool, Denied> {
        let book = self.inner.lock()?;
        Ok(book.grants.contains_key(&wallet) || book.balances.contains_key(&Account::Wallet(wallet)))
    }

    /// The allowance of a wallet.
    pub fn grant_of(&self, wallet: AccountId) -> Result<Option<Grant>, Denied> {
        Ok(self.inner.lock()?.grants.get(&wallet).cloned())
    }

    /// The wallets that have an allowance.
    pub fn grants(&self) -> Result<Vec<(AccountId, Grant)>, Denied> {
        let mut grants: Vec<_> = self.inner.lock()?.grants.iter().map(|(wallet, grant)| (*wallet, grant.clone())).collect();
        grants.sort_by_key(|(wallet, _)| *wallet);
        Ok(grants)
    }

    /// The lines of a wallet's statement, the newest first, `limit` of them behind the first `offset`; and whether there are
    /// more. It is what the disk has, at most some milliseconds behind.
    pub fn statement(&self, wallet: AccountId, limit: usize, offset: usize) -> Result<(Vec<Entry>, bool), Denied> {
        self.inner.on_disk(|snapshot| snapshot.statement(wallet, limit, offset))
    }

    /// The receipt of one call, once it is on disk.
    pub fn receipt(&self, request: RequestId) -> Result<Option<Receipt>, Denied> {
        self.inner.on_disk(|snapshot| snapshot.receipt(request))
    }

    /// Whether something is held for a call: it is running.
    pub fn is_running(&self, request: RequestId) -> Result<bool, Denied> {
        Ok(self.inner.lock()?.holds.contains_key(&request))
    }

    /// The payment that was brought with a request. It reads through all payments: for a person who looks for one.
    pub fn payment_of(&self, request: RequestId) -> Result<Option<(PaymentId, Payment)>, Denied> {
        let is_its = |row: &Payment| row.request == request.0;
        let book = self.inner.lock()?;
        let remembered = book.payments.iter().find(|(_, payment)| is_its(&payment.row));
        if let Some((id, payment)) = remembered {
            return Ok(Some((*id, payment.row.clone())));
        }
        drop(book);
        self.inner.on_disk(|snapshot| {
            let mut found = None;
            snapshot.payments(|id, row, _| {
                if is_its(&row) {
                    found = Some((id, row));
                }
            })?;
            Ok(found)
        })
    }

    /// What a wallet used since a day, oldest first.
    pub fn usage(&self, wallet: AccountId, since: Day) -> Result<Vec<Used>, Denied> {
        self.inner.on_disk(|snapshot| snapshot.usage(wallet, since))
    }

    /// The events of the keys' journal behind one number, in their order.
    pub fn key_events_after(&self, number: u64) -> Result<Vec<(u64, Vec<u8>)>, Denied> {
        self.inner.on_disk(|snapshot| snapshot.key_events_after(number))
    }
}
