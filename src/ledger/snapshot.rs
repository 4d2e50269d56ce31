//! The ledger as it was at one moment, for checks and for what owners are shown.

use std::ops::{Bound, ControlFlow};

use redb::{ReadTransaction, ReadableTable as _, TableDefinition};

use super::Broken;
use super::commit::UsageName;
use super::rows::{Account, Balance, Grant, Hold, Payment, Receipt, Reference, Transfer};
use super::statement::{Entry, Movement, Used};
use super::tables::{
    ALLOWANCES, BALANCES, GRANTS, HOLDS, KEY_EVENTS, KEY_SPENDING, PAY_OPEN, PAYMENTS, RECEIPTS, TRANSFERS, USAGE, UsageSums,
};
use crate::account::AccountId;
use crate::clock::Day;
use crate::ids::{KeyId, PaymentId, RequestId};

/// The tables of one snapshot, for the check of the books.
pub struct Snapshot<'a>(pub &'a ReadTransaction);

impl Snapshot<'_> {
    pub fn balances(&self, mut visit: impl FnMut(Account, Balance)) -> Result<(), Broken> {
        for_each(self.0, BALANCES, |key, (amount, last)| {
            visit(Account::from_key(key).ok_or_else(|| Broken::row("balances"))?, Balance { amount, last });
            Ok(())
        })
    }

    /// All transfers in their order, until `visit` breaks off; says whether it did.
    pub fn transfers(&self, mut visit: impl FnMut(u64, Transfer) -> ControlFlow<()>) -> Result<ControlFlow<()>, Broken> {
        let failed = |error: redb::Error| Broken::new("read transfers", error);
        let rows = self.0.open_table(TRANSFERS).map_err(|error| failed(error.into()))?;
        for row in rows.iter().map_err(|error| failed(error.into()))? {
            let (seq, value) = row.map_err(|error| failed(error.into()))?;
            let transfer = Transfer::from_bytes(value.value()).ok_or_else(|| Broken::row("transfers"))?;
            if visit(seq.value(), transfer).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    pub fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Broken> {
        let table = self.0.open_table(PAYMENTS).map_err(|error| Broken::new("read payments", error))?;
        let row = table.get(&id.0).map_err(|error| Broken::new("read payments", error))?;
        row.map(|row| json(row.value())).transpose()
    }

    /// Up to `limit` payments behind one in the order of their ids, without what was signed for them and without any text,
    /// so that many of them fit into memory; whether each is listed as open.
    pub fn payments_after(&self, after: Option<PaymentId>, limit: usize) -> Result<Vec<(PaymentId, Payment, bool)>, Broken> {
        let failed = |error: redb::Error| Broken::new("read payments", error);
        let open = self.0.open_table(PAY_OPEN).map_err(|error| failed(error.into()))?;
        let table = self.0.open_table(PAYMENTS).map_err(|error| failed(error.into()))?;
        let begin = after.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(&id.0));
        let rows = table.range::<&[u8; 32]>((begin, Bound::Unbounded)).map_err(|error| failed(error.into()))?;
        rows.take(limit)
            .map(|row| {
                let (id, row) = row.map_err(|error| failed(error.into()))?;
                let listed = open.get(id.value()).map_err(|error| failed(error.into()))?.is_some();
                let payment: Payment = json(row.value())?;
                Ok((PaymentId(*id.value()), payment.without_text(), listed))
            })
            .collect()
    }

    pub fn payments(&self, mut visit: impl FnMut(PaymentId, Payment, bool)) -> Result<(), Broken> {
        let open = self.0.open_table(PAY_OPEN).map_err(|error| Broken::new("read pay_open", error))?;
        for_each(self.0, PAYMENTS, |id, row| {
            let listed = open.get(id).map_err(|error| Broken::new("read pay_open", error))?.is_some();
            visit(PaymentId(*id), json(row)?, listed);
            Ok(())
        })
    }

    pub fn holds(&self, mut visit: impl FnMut(RequestId, Hold)) -> Result<(), Broken> {
        for_each(self.0, HOLDS, |request, row| {
            visit(RequestId(request), Hold::from_bytes(row).ok_or_else(|| Broken::row("holds"))?);
            Ok(())
        })
    }

    /// All receipts in the order of their calls, until `visit` breaks off; says whether it did.
    pub fn receipts(&self, mut visit: impl FnMut(RequestId, Receipt) -> ControlFlow<()>) -> Result<ControlFlow<()>, Broken> {
        let failed = |error: redb::Error| Broken::new("read receipts", error);
        let rows = self.0.open_table(RECEIPTS).map_err(|error| failed(error.into()))?;
        for row in rows.iter().map_err(|error| failed(error.into()))? {
            let (request, value) = row.map_err(|error| failed(error.into()))?;
            let receipt = Receipt::from_bytes(value.value()).ok_or_else(|| Broken::row("receipts"))?;
            if visit(RequestId(request.value()), receipt).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    pub fn receipt(&self, request: RequestId) -> Result<Option<Receipt>, Broken> {
        let table = self.0.open_table(RECEIPTS).map_err(|error| Broken::new("read receipts", error))?;
        let row = table.get(request.0).map_err(|error| Broken::new("read receipts", error))?;
        row.map(|row| Receipt::from_bytes(row.value()).ok_or_else(|| Broken::row("receipts"))).transpose()
    }

    /// Lines of a wallet's statement, the newest first; whether there are more.
    pub fn statement(&self, wallet: AccountId, limit: usize, offset: usize) -> Result<(Vec<Entry>, bool), Broken> {
        let failed = |error: redb::Error| Broken::new("read transfers", error);
        let transfers = self.0.open_table(TRANSFERS).map_err(|error| failed(error.into()))?;
        let (mut next, mut skipped, mut entries) = (self.last_transfer(wallet)?, 0, Vec::new());
        while let Some(number) = next {
            if entries.len() == limit {
                return Ok((entries, true));
            }
            let row = transfers.get(number).map_err(|error| failed(error.into()))?;
            let transfer = row.and_then(|row| Transfer::from_bytes(row.value())).ok_or_else(|| Broken::row("transfers"))?;
            // Lower with every line, so that this ends whatever the rows say.
            let line = transfer.line.filter(|line| line.previous < Some(number)).ok_or_else(|| Broken::row("transfers"))?;
            next = line.previous;
            match skipped < offset {
                true => skipped += 1,
                false => entries.push(self.entry(wallet, number, &transfer, line.after)?),
            }
        }
        Ok((entries, false))
    }

    /// The last transfer about a wallet.
    fn last_transfer(&self, wallet: AccountId) -> Result<Option<u64>, Broken> {
        let failed = |error: redb::Error| Broken::new("read balances", error);
        let balances = self.0.open_table(BALANCES).map_err(|error| failed(error.into()))?;
        let balance = balances.get(Account::Wallet(wallet).to_key().as_slice()).map_err(|error| failed(error.into()))?;
        Ok(balance.map(|balance| balance.value().1))
    }

    fn entry(&self, wallet: AccountId, number: u64, transfer: &Transfer, balance_after: i64) -> Result<Entry, Broken> {
        let own = |(account, _): &(&Account, i64)| **account == Account::Wallet(wallet);
        let amount = transfer.postings().into_iter().find(own).map_or(0, |(_, amount)| amount);
        let (request, payment) = match transfer.reference {
            Reference::Request(request) => (Some(request), None),
            Reference::Payment(payment) => (None, Some(payment)),
            Reference::Adjustment(_) => (None, None),
        };
        let receipt = request.map(|request| self.receipt(request)).transpose()?.flatten();
        let movement = Movement::of(transfer.kind, transfer.reference);
        let model = receipt.map(|receipt| receipt.model);
        Ok(Entry { number, amount, balance_after, movement, at: transfer.at, request, model, payment })
    }

    /// Sums of a wallet's receipts since a day.
    pub fn usage(&self, wallet: AccountId, since: Day) -> Result<Vec<Used>, Broken> {
        let failed = |error: redb::Error| Broken::new("read usage", error);
        let table = self.0.open_table(USAGE).map_err(|error| failed(error.into()))?;
        let key = wallet.to_bytes();
        // Ends before the first name of the next wallet: no day is the last one.
        let range = (key.as_slice(), since.0, 0, "")..(key.as_slice(), u32::MAX, 0, "");
        let rows = table.range(range).map_err(|error| failed(error.into()))?;
        rows.map(|row| {
            let (name, sums) = row.map_err(|error| failed(error.into()))?;
            let (_, day, key, model) = name.value();
            let (calls, charge, allowance, input, output) = sums.value();
            let key = (key != 0).then_some(KeyId(key));
            Ok(Used { day: Day(day), key, model: model.to_owned(), calls, charge, allowance, input, output })
        })
        .collect()
    }

    pub fn key_events_after(&self, number: u64) -> Result<Vec<(u64, Vec<u8>)>, Broken> {
        let failed = |error: redb::Error| Broken::new("read key_events", error);
        let table = self.0.open_table(KEY_EVENTS).map_err(|error| failed(error.into()))?;
        let rows = table.range(number.saturating_add(1)..).map_err(|error| failed(error.into()))?;
        rows.map(|row| row.map(|(seq, event)| (seq.value(), event.value().to_vec())).map_err(|error| failed(error.into())))
            .collect()
    }

    pub fn usage_sums(&self, mut visit: impl FnMut(UsageName<'_>, UsageSums)) -> Result<(), Broken> {
        for_each(self.0, USAGE, |(wallet, day, key, model), sums| {
            visit((account(wallet, "usage")?, day, key, model), sums);
            Ok(())
        })
    }

    pub fn key_spending(&self, mut visit: impl FnMut(KeyId, Day, u64)) -> Result<(), Broken> {
        for_each(self.0, KEY_SPENDING, |(key, day), spent| {
            visit(KeyId(key), Day(day), spent);
            Ok(())
        })
    }

    pub fn allowance_spending(&self, mut visit: impl FnMut(AccountId, Day, u64)) -> Result<(), Broken> {
        for_each(self.0, ALLOWANCES, |(wallet, day), spent| {
            visit(account(wallet, "allowances")?, Day(day), spent);
            Ok(())
        })
    }

    pub fn grants(&self, mut visit: impl FnMut(AccountId, Grant)) -> Result<(), Broken> {
        for_each(self.0, GRANTS, |wallet, row| {
            visit(account(wallet, "grants")?, json(row)?);
            Ok(())
        })
    }

    /// The numbers of the keys' journal, which count from one.
    pub fn key_event_numbers(&self, mut visit: impl FnMut(u64)) -> Result<(), Broken> {
        for_each(self.0, KEY_EVENTS, |number, _| {
            visit(number);
            Ok(())
        })
    }
}

/// Shows every row of a table to `visit`.
pub fn for_each<K: redb::Key + 'static, V: redb::Value + 'static>(
    tx: &ReadTransaction,
    table: TableDefinition<K, V>,
    mut visit: impl FnMut(K::SelfType<'_>, V::SelfType<'_>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let rows = tx.open_table(table).map_err(|error| Broken::new("read", error))?;
    for row in rows.iter().map_err(|error| Broken::new("read", error))? {
        let (key, value) = row.map_err(|error| Broken::new("read", error))?;
        visit(key.value(), value.value())?;
    }
    Ok(())
}

/// The account that a row of `table` names.
pub(super) fn account(bytes: &[u8], table: &'static str) -> Result<AccountId, Broken> {
    bytes.try_into().ok().and_then(AccountId::from_bytes).ok_or_else(|| Broken::row(table))
}

pub fn json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Broken> {
    serde_json::from_slice(bytes).map_err(|error| Broken::examine("read a row", error))
}
