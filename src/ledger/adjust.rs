//! What the operator's hand gives a wallet or takes from it, with a reason, once for each id that it has.

use redb::ReadTransaction;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::book::{Book, Order, Rows, Write};
use super::derived::Fingerprint;
use super::rows::{Account, Kind, Reference};
use super::snapshot::{Snapshot, json};
use super::tables::ADJUSTMENTS;
use super::written::account_hex;
use super::{Broken, Denied, Ledger, Refused, Stopped};
use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::fault;
use crate::money::Micros;

/// One adjustment, under the id that the operator gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    #[serde(with = "account_hex")]
    pub account: AccountId,
    /// What the wallet got; below zero what was taken of it.
    pub micros: i64,
    pub reason: String,
    /// In milliseconds since 1970.
    pub at: u64,
}

impl Adjustment {
    /// From which account to which, and how much.
    fn transfer(&self, id: &str) -> Order {
        let (wallet, hand) = (Account::Wallet(self.account), Account::Adjustments);
        let (debit, credit) = if self.micros < 0 { (wallet, hand) } else { (hand, wallet) };
        let (amount, at) = (Micros::new(self.micros.unsigned_abs()), Timestamp::from_millis(self.at));
        Order { debit, credit, amount, kind: Kind::Adjustment, reference: reference(id), at }
    }
}

/// The name of an adjustment in the postings: an id may be longer than they have room for.
fn reference(id: &str) -> Reference {
    let digest = Sha256::digest(id.as_bytes());
    let mut name = [0; 16];
    name.copy_from_slice(&digest[..16]);
    Reference::Adjustment(name)
}

impl Book {
    /// Gives or takes, once for each id.
    fn adjust(&mut self, id: &str, wanted: &Adjustment) -> Result<Rows, Refused> {
        match self.adjustments.get(id) {
            Some(done) if done.account == wanted.account && done.micros == wanted.micros => return Ok(Rows::new()),
            Some(_) => return Err(Refused::Duplicate),
            None => {}
        }
        let order = wanted.transfer(id);
        if wanted.micros < 0 {
            let (available, needed) = (self.available(wanted.account), order.amount);
            if available < needed {
                return Err(Refused::Insufficient { available, needed });
            }
        }
        self.check_room(&[(&order.debit, -1), (&order.credit, 1)], order.amount)?;
        let mut rows = Rows::new();
        self.transfer(&mut rows, order);
        self.adjustments.insert(id.to_owned(), wanted.clone());
        rows.push(Write::Adjustment(id.to_owned(), wanted.clone()));
        Ok(rows)
    }
}

impl Ledger {
    /// Gives a wallet so many micros, or takes them of what it can spend, under an id that is used once. Durable when this
    /// returns. Asked for again with the same amount it changes nothing. Returns what stands in the books, and whether it is
    /// new.
    ///
    /// # Errors
    /// [`Refused::Duplicate`] for an id that was used for something else; [`Refused::Insufficient`] says what there is to take;
    /// [`Refused::Overflow`] when the balance has no room for it.
    pub async fn adjust(&self, id: &str, account: AccountId, micros: i64, reason: &str) -> Result<(Adjustment, bool), Denied> {
        fault::point("adjust.before");
        let mut done = None;
        let durable = self.run(|inner, book| {
            let wanted = Adjustment { account, micros, reason: reason.to_owned(), at: inner.clock.now().millis() };
            let rows = book.adjust(id, &wanted)?;
            done = book.adjustments.get(id).cloned().map(|stands| (stands, !rows.is_empty()));
            Ok(rows)
        })?;
        durable.wait().await?;
        fault::point("adjust.after");
        done.ok_or(Denied::Stopped(Stopped))
    }
}

/// All adjustments; none in books of before there were any.
pub(super) fn each(tx: &ReadTransaction, mut visit: impl FnMut(&str, Adjustment)) -> Result<(), Broken> {
    use redb::ReadableTable as _;
    let failed = |error: redb::Error| Broken::new("read adjustments", error);
    let table = match tx.open_table(ADJUSTMENTS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(failed(error.into())),
    };
    for row in table.iter().map_err(|error| failed(error.into()))? {
        let (id, row) = row.map_err(|error| failed(error.into()))?;
        visit(id.value(), json(row.value())?);
    }
    Ok(())
}

/// How an adjustment is counted; its posting is counted in the same way.
pub(super) fn count(sum: &mut Fingerprint, reference: Reference, debit: &Account, credit: &Account, amount: Micros) {
    sum.add((reference, debit, credit), &[amount.get()]);
}

/// Every adjustment has its posting, and every such posting its adjustment.
pub(super) fn check(snapshot: &Snapshot, posted: Fingerprint, problems: &mut Vec<String>) -> Result<(), Broken> {
    let mut written = Fingerprint::default();
    each(snapshot.0, |id, adjustment| {
        let Order { debit, credit, amount, reference, .. } = adjustment.transfer(id);
        count(&mut written, reference, &debit, &credit, amount);
    })?;
    if written != posted {
        problems.push("adjustments do not say what was given and taken by hand".into());
    }
    Ok(())
}
