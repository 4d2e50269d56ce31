//! Payouts: balance that goes back to its wallet on a chain, once for each id that the operator gives one.
//!
//! A payout leaves the balance when it is claimed, before anybody outside could carry it, and stands on an account of its own,
//! [`Account::Outgoing`], from which nothing else is paid. It ends at its chain, or in the balance again when it is proven that it
//! never will. The transfer is a payment as any other, from us, and goes through the same states.

use std::time::Duration;

use redb::ReadTransaction;
use serde::{Deserialize, Serialize};

use super::book::{Book, Claim, Order, Rows, Write};
use super::derived::Fingerprint;
use super::rows::{Account, Kind, Outcome, Payment, Reference, State, Transfer};
use super::snapshot::{Snapshot, for_each, json};
use super::tables::{PAY_OPEN, PAYOUTS};
use super::written::{account_hex, payment_hex};
use super::{Broken, Denied, Inner, Ledger, Refused};
use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::fault;
use crate::ids::{PaymentId, RequestId};
use crate::money::Micros;

/// For how long a payment counts as not final that nobody says is.
const UNSURE: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// One payout, under the id that the operator gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payout {
    #[serde(with = "account_hex")]
    pub account: AccountId,
    pub micros: u64,
    /// CAIP-2.
    pub network: String,
    pub reason: String,
    /// When it was asked for first, in milliseconds since 1970.
    pub at: u64,
    /// The transfer that carries it: the latest, where earlier ones were proven to have failed.
    #[serde(with = "payment_hex")]
    pub payment: PaymentId,
}

impl Payout {
    /// Whether another one under its id asks for the same.
    pub fn is_same(&self, account: AccountId, amount: Micros, network: &str) -> bool {
        self.account == account && self.micros == amount.get() && self.network == network
    }
}

impl Book {
    /// What payments brought a wallet that are not final on their chain, which can still take them back: each with the call that it
    /// paid, if more of that may have been given back. Of one that is days old nobody may be left to say that it is final.
    fn unsure(&self, wallet: AccountId, at: Timestamp) -> Vec<(u64, Option<(PaymentId, RequestId)>)> {
        let rows = self.payments.iter().map(|(id, kept)| (id, &kept.row));
        let unsure = rows.filter(|(_, row)| {
            let is_young = row.reorged || Timestamp::from_millis(row.claimed_at).plus(UNSURE) > at;
            row.payer == wallet && row.payout.is_none() && row.state == State::Confirmed && !row.irreversible && is_young
        });
        // Of one whose call is open nothing is balance yet.
        let brought = unsure.filter_map(|(id, row)| match row.outcome? {
            Outcome::Served { charge: 0, credited: amount } | Outcome::Credited { amount } => Some((amount, None)),
            Outcome::Served { credited, .. } => Some((credited, Some((*id, RequestId(row.request))))),
        });
        brought.collect()
    }

    /// Takes a payout of the balance, for a transfer that was not seen before or was proven to have failed. `known` are the
    /// rows of this transfer and of the one before it, and `available` is what may be paid out.
    fn pay_out(
        &mut self,
        (id, reason): (&str, &str),
        claim: Claim,
        known: [Option<Payment>; 2],
        available: Micros,
        at: Timestamp,
    ) -> Result<Rows, Refused> {
        let before = self.payouts.get(id);
        if before.is_some_and(|before| !before.is_same(claim.payer, claim.amount, &claim.network)) {
            return Err(Refused::Duplicate);
        }
        if before.is_some() && known.iter().all(Option::is_none) {
            return Err(Refused::WrongState);
        }
        let is_over = |row: &Payment| row.state == State::Failed && row.payout.as_deref() == Some(id);
        if let Some(row) = known.into_iter().flatten().find(|row| !is_over(row)) {
            return Err(Refused::Known(Box::new(row)));
        }
        let (amount, payment) = (claim.amount, claim.id);
        if available < amount {
            return Err(Refused::Insufficient { available, needed: amount });
        }
        let (wallet, outgoing) = (Account::Wallet(claim.payer), Account::Outgoing);
        self.check_room(&[(&outgoing, 1)], amount)?;
        // Nothing below can fail.
        let first = before.map_or((at.millis(), reason.to_owned()), |before| (before.at, before.reason.clone()));
        let row = Payment { top_up: false, payout: Some(id.to_owned()), ..claim.row(at) };
        let (account, micros, network) = (row.payer, row.amount, row.network.clone());
        let payout = Payout { account, micros, network, reason: first.1, at: first.0, payment };
        let mut rows = Rows::new();
        let reference = Reference::Payment(payment);
        self.transfer(&mut rows, Order { debit: wallet, credit: outgoing, amount, kind: Kind::Payout, reference, at });
        self.put_payment(&mut rows, payment, row);
        self.payouts.insert(id.to_owned(), payout.clone());
        rows.push(Write::Payout(id.to_owned(), payout));
        Ok(rows)
    }

    /// The chain has the transfer of a payout.
    pub(super) fn payout_arrived(&mut self, rows: &mut Rows, id: PaymentId, row: &Payment, at: Timestamp) -> Result<(), Refused> {
        let (debit, credit, amount) = (Account::Outgoing, row.external(), row.amount());
        self.check_room(&[(&credit, 1)], amount)?;
        self.transfer(rows, Order { debit, credit, amount, kind: Kind::Payout, reference: Reference::Payment(id), at });
        Ok(())
    }

    /// The transfer of a payout is proven never to arrive, or to have vanished for good: the money is with us, and the wallet's.
    pub(super) fn payout_came_back(
        &mut self,
        rows: &mut Rows,
        id: PaymentId,
        row: &Payment,
        at: Timestamp,
    ) -> Result<(), Refused> {
        let debit = if row.state == State::Confirmed { row.external() } else { Account::Outgoing };
        let (credit, amount) = (Account::Wallet(row.payer), row.amount());
        self.check_room(&[(&debit, -1), (&credit, 1)], amount)?;
        self.transfer(rows, Order { debit, credit, amount, kind: Kind::Payout, reference: Reference::Payment(id), at });
        Ok(())
    }
}

impl Inner {
    /// What a wallet can spend, without what payments that are not final brought it, also as refunds of their calls.
    fn payable(&self, book: &Book, wallet: AccountId) -> Result<Micros, Denied> {
        let unsure = book.unsure(wallet, self.clock.now());
        let stays = unsure.iter().fold(0, |sum: u64, (credited, _)| sum.saturating_add(*credited));
        let mut payable = book.available(wallet).saturating_sub(Micros::new(stays));
        for (payment, request) in unsure.into_iter().filter_map(|(_, call)| call) {
            // Calls wait for this reading.
            if payable.is_zero() {
                break;
            }
            let receipt = self.receipt(book, request)?.filter(|receipt| receipt.payment == Some(payment));
            payable = payable.saturating_sub(Micros::new(receipt.map_or(0, |receipt| receipt.refunded)));
        }
        Ok(payable)
    }
}

impl Ledger {
    /// Takes a payout of the balance of `claim.payer`, under an id that is used once, for the transfer that `claim` names. Durable
    /// when this returns; before that nobody may be handed the transfer. What was proven to have failed may be claimed again.
    ///
    /// # Errors
    /// [`Refused::Known`] with the transfer of this id that is under way or has arrived; [`Refused::Duplicate`] for an id that
    /// was used for another wallet, amount or network; [`Refused::Insufficient`] says what can be paid out;
    /// [`Refused::WrongState`] for an id whose transfer the books have lost.
    pub async fn pay_out(&self, id: &str, reason: &str, claim: Claim) -> Result<(), Denied> {
        fault::point("payout.before");
        let durable = self.run(|inner, book| {
            let before = book.payouts.get(id).map(|before| before.payment).filter(|before| *before != claim.id);
            let before = before.map(|before| inner.known_or_remembered(book, before)).transpose()?.flatten();
            let same = inner.known_or_remembered(book, claim.id)?;
            let available = inner.payable(book, claim.payer)?;
            Ok(book.pay_out((id, reason), claim, [same, before], available, inner.clock.now())?)
        })?;
        durable.wait().await?;
        fault::point("payout.after");
        Ok(())
    }

    /// What of a wallet's balance may be paid out: what it can spend, without what payments brought that are not final yet.
    ///
    /// # Errors
    /// The ledger has stopped.
    pub fn payable(&self, wallet: AccountId) -> Result<Micros, Denied> {
        let book = self.inner.lock()?;
        self.inner.payable(&book, wallet)
    }

    /// What is known of a payout, and of its transfer.
    ///
    /// # Errors
    /// The ledger has stopped.
    pub fn payout(&self, id: &str) -> Result<Option<(Payout, Payment)>, Denied> {
        let book = self.inner.lock()?;
        let Some(payout) = book.payouts.get(id).cloned() else { return Ok(None) };
        let row = Inner::known_or_remembered(&self.inner, &book, payout.payment)?;
        Ok(row.map(|row| (payout, row)))
    }
}

/// All payouts; none in books of before there were any.
pub(super) fn each(tx: &ReadTransaction, mut visit: impl FnMut(&str, Payout)) -> Result<(), Broken> {
    use redb::ReadableTable as _;
    let failed = |error: redb::Error| Broken::new("read payouts", error);
    let table = match tx.open_table(PAYOUTS) {
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

/// Counts what a posting takes of a wallet for a payout; what comes back is less than nothing, modulo 2^64.
pub(super) fn count(sum: &mut Fingerprint, transfer: &Transfer) {
    let Transfer { reference, debit, credit, amount, .. } = transfer;
    if let Account::Wallet(_) = debit {
        sum.add((reference, debit), &[amount.get()]);
    }
    if let Account::Wallet(_) = credit {
        sum.add((reference, credit), &[amount.get().wrapping_neg()]);
    }
}

/// What wallets gave for payouts is what their rows say, and what is on its way is what open transfers explain.
pub(super) fn check(snapshot: &Snapshot, posted: Fingerprint, outgoing: i64, problems: &mut Vec<String>) -> Result<(), Broken> {
    let mut rows = Vec::new();
    each(snapshot.0, |id, row| rows.push((id.to_owned(), row)))?;
    let mut written = Fingerprint::default();
    for (id, row) in rows {
        let carries = |payment: &Payment| {
            payment.payout.as_deref() == Some(&id) && row.is_same(payment.payer, payment.amount(), &payment.network)
        };
        match snapshot.payment(row.payment)?.filter(carries) {
            None => problems.push(format!("the payout {id:?} has no transfer of its own")),
            Some(payment) if payment.state == State::Failed => {}
            Some(_) => written.add((Reference::Payment(row.payment), &Account::Wallet(row.account)), &[row.micros]),
        }
    }
    if written != posted {
        problems.push("payouts do not say what was taken of wallets for them".into());
    }
    let (mut open, mut on_their_way) = (Vec::new(), 0i128);
    for_each(snapshot.0, PAY_OPEN, |id, ()| {
        open.push(PaymentId(*id));
        Ok(())
    })?;
    for id in open {
        let payment = snapshot.payment(id)?.filter(|payment| payment.payout.is_some() && payment.state != State::Confirmed);
        on_their_way += payment.map_or(0, |payment| i128::from(payment.amount));
    }
    if on_their_way != i128::from(outgoing) {
        problems.push(format!("{outgoing} micros are outgoing, open payouts explain {on_their_way}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_whose_transfer_the_books_have_lost_is_not_paid_again() {
        let (account, network) = (AccountId::Evm([1; 20]), "eip155:84532".to_owned());
        let payout =
            Payout { account, micros: 4, network: network.clone(), reason: "r".into(), at: 1, payment: PaymentId([2; 32]) };
        let (asset, route, request) = (String::new(), String::new(), RequestId(1));
        let (id, amount, detail) = (PaymentId([3; 32]), Micros::new(4), Vec::new());
        let claim = Claim { id, network, asset, payer: account, amount, request, route, model: None, detail };
        let mut book = Book { payouts: [("a".to_owned(), payout)].into(), ..Book::default() };
        assert_eq!(book.pay_out(("a", "r"), claim, [None, None], amount, Timestamp::from_secs(1)), Err(Refused::WrongState));
    }
}
