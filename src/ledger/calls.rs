//! Calls in the books: what is held for them, of balance, allowance and a key's limit, and how they end, once.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use super::book::{Book, Close, Order, Refused, Rows, Write};
use super::rows::{Account, Fund, Grant, Hold, KeyHold, Kind, Outcome, Receipt, Reference, Service, State};
use super::spending::Spending;
use crate::account::AccountId;
use crate::clock::{Day, Period, Timestamp};
use crate::ids::{KeyId, PaymentId, RequestId};
use crate::money::Micros;

/// What a call asks of its wallet.
#[derive(Debug, Clone)]
pub struct Draw {
    pub wallet: AccountId,
    pub amount: Micros,
    pub request: RequestId,
    pub model: String,
    pub path: String,
    /// The key that speaks for the wallet.
    pub key: Option<KeyDraw>,
    /// The sign-in that speaks for it, where one pays for one call only.
    pub nonce: Option<Nonce>,
    /// Calls that the wallet may have open, this one among them.
    pub most_calls: usize,
}

/// A key and what it may spend in each of its periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDraw {
    pub id: KeyId,
    pub limit: Option<Micros>,
    pub period: Period,
}

/// A sign-in that is good for one call: a fingerprint of its account and nonce, and when it has expired anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce {
    pub id: [u8; 16],
    pub forget_at: Timestamp,
}

/// What a wallet has, all from one moment. Micros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The sum of its statement.
    pub posted: Micros,
    /// What of that stands for open calls.
    pub held: Micros,
    /// What it can spend: the one less the other.
    pub available: Micros,
    /// What is left of today's allowance, beside that.
    pub allowance: Micros,
    /// Whether it has one at all.
    pub has_allowance: bool,
    pub open_calls: usize,
}

/// What stands for a wallet's open calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub amount: u64,
    pub calls: usize,
}

/// Nonces that were used, until long after they have expired: a clock that jumps ahead and back must not open them again.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    used: HashSet<[u8; 16]>,
    by_time: BTreeSet<(Timestamp, [u8; 16])>,
}

/// How much longer than it could be used a nonce is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Nonces that one command forgets at most: more than it adds, and never so many that others wait.
const FORGOTTEN_AT_ONCE: usize = 4;
/// The most that an allowance may be a day: a billion dollars, so that no sum of them leaves its number.
pub const MOST_A_DAY: Micros = Micros::new(1_000_000_000 * 1_000_000);
/// The most tokens that a receipt counts, whatever an upstream says: no sum of them leaves its number.
const MOST_TOKENS: u64 = u32::MAX as u64;

impl Nonces {
    pub fn insert(&mut self, id: [u8; 16], forget_at: Timestamp) {
        if self.used.insert(id) {
            self.by_time.insert((forget_at, id));
        }
    }

    pub fn contains(&self, nonce: Nonce) -> bool {
        self.used.contains(&nonce.id)
    }

    fn note(&mut self, rows: &mut Rows, nonce: Nonce, now: Timestamp) {
        let forget_at = nonce.forget_at.plus(REMEMBERED);
        self.insert(nonce.id, forget_at);
        rows.push(Write::Nonce(nonce.id, forget_at));
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some((at, id)) = self.by_time.first().copied().filter(|(at, _)| *at < now) else { break };
            self.by_time.pop_first();
            self.used.remove(&id);
            rows.push(Write::ForgetNonce(id, at));
        }
    }
}

impl Hold {
    /// A payment's own money stands for its call.
    pub(super) fn of_payment(id: PaymentId, amount: Micros, model: String, path: String, boot: u64) -> Hold {
        Hold {
            fund: Fund::Payment(id),
            amount: amount.get(),
            allowance: 0,
            allowance_began: 0,
            key: None,
            model,
            path,
            boot,
            started: false,
            checkpoint: 0,
        }
    }
}

impl Book {
    pub(super) fn held(&self, wallet: AccountId) -> Held {
        self.held.get(&wallet).copied().unwrap_or_default()
    }

    pub fn standing(&self, wallet: AccountId, at: Timestamp) -> Standing {
        let held = self.held(wallet);
        Standing {
            posted: self.posted(wallet),
            held: Micros::new(held.amount),
            available: self.available(wallet),
            allowance: self.allowance_left(wallet, at),
            has_allowance: self.grants.contains_key(&wallet),
            open_calls: held.calls,
        }
    }

    /// What a key has spent, and what its open calls may, in the period in which `at` falls.
    pub fn key_spending(&self, id: KeyId, period: Period, at: Timestamp) -> Spending {
        let nothing = Spending { began: period.began(at).millis(), ..Spending::default() };
        self.keys.get(&id).map_or(nothing, |days| days.sum(period, at))
    }

    /// What is left of the allowance of the wallet that an open call is paid by.
    pub fn allowance_for(&self, request: RequestId, at: Timestamp) -> Micros {
        match self.holds.get(&request).map(|hold| hold.fund) {
            Some(Fund::Wallet(wallet)) => self.allowance_left(wallet, at),
            Some(Fund::Payment(_)) | None => Micros::ZERO,
        }
    }

    /// What is left of a wallet's allowance of the day of `at`.
    fn allowance_left(&self, wallet: AccountId, at: Timestamp) -> Micros {
        let Some(grant) = self.grants.get(&wallet) else { return Micros::ZERO };
        let today = self.allowances.get(&wallet).map_or(Spending::default(), |days| days.sum(Period::Day, at));
        Micros::new(today.left(grant.of(at).get()))
    }

    /// Holds what a call may cost: allowance first, then balance. Everything is decided before anything is changed.
    pub fn reserve(&mut self, draw: Draw, at: Timestamp) -> Result<Rows, Refused> {
        let Draw { wallet, amount, request, model, path, key, nonce, most_calls } = draw;
        self.check_blocked(wallet)?;
        if self.holds.contains_key(&request) {
            return Err(Refused::Duplicate);
        }
        if nonce.is_some_and(|nonce| self.nonces.contains(nonce)) {
            return Err(Refused::NonceUsed);
        }
        if self.held(wallet).calls >= most_calls {
            return Err(Refused::TooManyCalls);
        }
        let key = key.map(|key| self.check_key(key, amount, at)).transpose()?;
        let (allowance, available) = (self.allowance_left(wallet, at).min(amount), self.available(wallet));
        let needed = amount.saturating_sub(allowance);
        if available < needed {
            return Err(Refused::Insufficient { available, needed });
        }
        let mut rows = Rows::new();
        let hold = Hold {
            fund: Fund::Wallet(wallet),
            amount: needed.get(),
            allowance: allowance.get(),
            allowance_began: began(at.day()),
            key,
            model,
            path,
            boot: self.boot,
            started: false,
            checkpoint: 0,
        };
        self.open_hold(&mut rows, request, hold);
        if let Some(nonce) = nonce {
            self.nonces.note(&mut rows, nonce, at);
        }
        Ok(rows)
    }

    fn check_key(&self, key: KeyDraw, amount: Micros, at: Timestamp) -> Result<KeyHold, Refused> {
        if let Some(limit) = key.limit {
            let left = Micros::new(self.key_spending(key.id, key.period, at).left(limit.get()));
            if left < amount {
                return Err(Refused::KeyLimit { left });
            }
        }
        Ok(KeyHold { id: key.id, period: key.period, began: began(at.day()), limit: key.limit.map(Micros::get) })
    }

    /// A hold's key in the period that lasts, and what is left of its limit. A call that goes on into a new period counts
    /// for that one as a whole as soon as it wants more: no period's limit is exceeded.
    fn key_now(&self, key: KeyHold, held: Micros, at: Timestamp) -> (KeyHold, Option<Micros>) {
        let spending = self.key_spending(key.id, key.period, at);
        let is_counted = key.period.began(Timestamp::from_millis(key.began)).millis() == spending.began;
        let (began, moved) = if is_counted { (key.began, 0) } else { (began(at.day()), held.get()) };
        let left = key.limit.map(|limit| Micros::new(spending.left(limit).saturating_sub(moved)));
        (KeyHold { began, ..key }, left)
    }

    /// Uses a sign-in up without a call.
    pub fn use_nonce(&mut self, nonce: Nonce, at: Timestamp) -> Result<Rows, Refused> {
        if self.nonces.contains(nonce) {
            return Err(Refused::NonceUsed);
        }
        let mut rows = Rows::new();
        self.nonces.note(&mut rows, nonce, at);
        Ok(rows)
    }

    /// Holds more for a call that goes on, as much of `more` as there is. Returns how much; nothing is a refusal.
    pub fn extend(&mut self, request: RequestId, more: Micros, at: Timestamp) -> Result<(Rows, Micros), Refused> {
        let Some(hold) = self.holds.get(&request).cloned() else { return Err(Refused::WrongState) };
        let Fund::Wallet(wallet) = hold.fund else { return Err(Refused::WrongState) };
        let (key, key_left) = hold.key.map(|key| self.key_now(key, hold.ceiling(), at)).unzip();
        let wanted = key_left.flatten().map_or(more, |left| left.min(more));
        if wanted.is_zero() && !more.is_zero() {
            return Err(Refused::KeyLimit { left: Micros::ZERO });
        }
        // A call takes of one day's allowance. On a later day it moves to that one as a whole, if there is more of it left than
        // the call holds already; otherwise it keeps its own, and the balance pays for what it wants more.
        let (left, today) = (self.allowance_left(wallet, at), began(at.day()));
        let moved = if today == hold.allowance_began { 0 } else { hold.allowance };
        let left = left.saturating_sub(Micros::new(moved));
        let allowance = left.min(wanted);
        let paid = wanted.saturating_sub(allowance).min(self.available(wallet));
        let granted = allowance.get().saturating_add(paid.get());
        let amount = hold.amount.checked_add(paid.get()).ok_or(Refused::Overflow)?;
        let sum = hold.allowance.checked_add(allowance.get()).ok_or(Refused::Overflow)?;
        amount.checked_add(sum).ok_or(Refused::Overflow)?;
        if granted == 0 && !more.is_zero() {
            return Err(Refused::Insufficient { available: Micros::ZERO, needed: wanted });
        }
        let allowance_began = if allowance.is_zero() { hold.allowance_began } else { today };
        let mut rows = Rows::new();
        self.put_hold(&mut rows, request, Hold { amount, allowance: sum, allowance_began, key, ..hold });
        Ok((rows, Micros::new(granted)))
    }

    /// Notes that bytes of the answer go out, and what the call owes so far.
    pub fn checkpoint(&mut self, request: RequestId, owed: Micros) -> Result<Rows, Refused> {
        let Some(hold) = self.holds.get(&request).cloned() else { return Err(Refused::WrongState) };
        let checkpoint = owed.min(hold.ceiling()).get();
        let mut rows = Rows::new();
        self.put_hold(&mut rows, request, Hold { started: true, checkpoint, ..hold });
        Ok(rows)
    }

    /// Ends a call exactly once; a second end finds nothing and is refused. Returns what was charged.
    pub fn close(
        &mut self,
        request: RequestId,
        close: Close,
        service: Service,
        at: Timestamp,
    ) -> Result<(Rows, Micros), Refused> {
        let mut rows = Rows::new();
        let Some(hold) = self.take_hold(&mut rows, request) else { return Err(Refused::WrongState) };
        let owed = match close {
            Close::Post(owed) | Close::Partly(owed) => owed.min(hold.ceiling()),
            Close::Void => Micros::ZERO,
        };
        let charged = match hold.fund {
            Fund::Wallet(wallet) => {
                let allowance = owed.min(Micros::new(hold.allowance));
                let amount = owed.saturating_sub(allowance);
                let reference = Reference::Request(request);
                let charge =
                    Order { debit: Account::Wallet(wallet), credit: Account::Sales, amount, kind: Kind::Charge, reference, at };
                self.transfer(&mut rows, charge);
                self.spend(&mut rows, wallet, &hold, allowance, owed);
                if !matches!(close, Close::Void) {
                    let receipt = Receipt { allowance: allowance.get(), ..receipt(wallet, &hold, owed, service, close, at) };
                    rows.push(Write::Usage(request, receipt));
                }
                owed
            }
            Fund::Payment(id) => self.close_paid(&mut rows, (id, &hold), request, owed, (close, service), at),
        };
        Ok((rows, charged))
    }

    fn close_paid(
        &mut self,
        rows: &mut Rows,
        (id, hold): (PaymentId, &Hold),
        request: RequestId,
        owed: Micros,
        (close, service): (Close, Service),
        at: Timestamp,
    ) -> Micros {
        let Some(mut row) = self.payments.get(&id).map(|payment| payment.row.clone()) else { return Micros::ZERO };
        let amount = row.amount();
        let charged = match (row.state, close) {
            (State::Confirmed, Close::Post(_)) if self.keep_remainder => amount,
            (State::Confirmed, _) => owed,
            _ => Micros::ZERO,
        };
        match row.state {
            State::Confirmed => {
                let credited = amount.saturating_sub(charged);
                let reference = Reference::Request(request);
                let (transit, wallet) = (Account::Transit, Account::Wallet(row.payer));
                let charge =
                    Order { debit: transit.clone(), credit: Account::Sales, amount: charged, kind: Kind::Charge, reference, at };
                self.transfer(rows, charge);
                let rest = Order { debit: transit, credit: wallet, amount: credited, kind: Kind::Credit, reference, at };
                self.transfer(rows, rest);
                row.outcome = Some(match close {
                    Close::Post(_) | Close::Partly(_) => Outcome::Served { charge: charged.get(), credited: credited.get() },
                    Close::Void => Outcome::Credited { amount: credited.get() },
                });
                if !matches!(close, Close::Void) {
                    let tx = row.confirmed.as_ref().map(|(tx, _)| tx.clone());
                    let receipt = receipt(row.payer, hold, charged, service, close, at);
                    rows.push(Write::Usage(request, Receipt { payment: Some(id), tx, credited: credited.get(), ..receipt }));
                }
                if row.irreversible {
                    row.state = State::Final;
                }
            }
            State::Claimed => row.state = State::Voided,
            // Its outcome is unknown: should the money arrive, it becomes the payer's balance.
            State::Signed | State::Sent => {}
            State::Final | State::Voided | State::Failed => return Micros::ZERO,
        }
        self.put_payment(rows, id, row);
        charged
    }

    /// Counts what a call cost against the allowance and the key's limit that it was held of.
    fn spend(&mut self, rows: &mut Rows, wallet: AccountId, hold: &Hold, allowance: Micros, owed: Micros) {
        if !allowance.is_zero() {
            let day = day(hold.allowance_began);
            self.allowances.entry(wallet).or_default().spend(day, allowance.get());
            rows.push(Write::AllowanceSpent(wallet, day, allowance.get()));
        }
        if let Some(key) = hold.key.filter(|_| !owed.is_zero()) {
            let day = day(key.began);
            self.keys.entry(key.id).or_default().spend(day, owed.get());
            rows.push(Write::KeySpent(key.id, day, owed.get()));
        }
    }

    /// Sees to it that so much of a call is given back in all, or with `None` all that can be; `receipt` is its last one. What
    /// was spent last comes back first: the money, then the allowance. An allowance is no money: of a day that is over it has
    /// lapsed, used or not, and nothing takes its place. What is given back counts for no limit of the call's key any more.
    /// Returns the receipt as it is then; what was given back before stays.
    pub fn refund(
        &mut self,
        request: RequestId,
        receipt: Receipt,
        total: Option<Micros>,
        at: Timestamp,
    ) -> Result<(Rows, Receipt), Refused> {
        let of_allowance = if day(receipt.allowance_began) == at.day() { receipt.allowance } else { receipt.allowance_back() };
        let most = receipt.paid().saturating_add(of_allowance);
        let total = total.map_or(most, Micros::get);
        let after = Receipt { refunded: receipt.refunded.max(total), ..receipt.clone() };
        let money = Micros::new(after.money_back() - receipt.money_back());
        if total > most || money > self.balance(&Account::Sales) {
            return Err(Refused::Insufficient { available: Micros::new(most), needed: Micros::new(total) });
        }
        let wallet = Account::Wallet(receipt.account);
        self.check_room(&[(&wallet, 1)], money)?;
        let mut rows = Rows::new();
        if after.refunded == receipt.refunded {
            return Ok((rows, receipt));
        }
        let reference = Reference::Request(request);
        self.transfer(
            &mut rows,
            Order { debit: Account::Sales, credit: wallet, amount: money, kind: Kind::Refund, reference, at },
        );
        self.unspend(&mut rows, &receipt, after.allowance_back() - receipt.allowance_back(), after.refunded - receipt.refunded);
        self.refunding.insert(request, (after.clone(), self.ticket));
        rows.push(Write::Receipt(request, after.clone()));
        Ok((rows, after))
    }

    /// Counts what was given back of a call no more against the allowance and the key's limit that it was spent of.
    fn unspend(&mut self, rows: &mut Rows, receipt: &Receipt, allowance: u64, all: u64) {
        if allowance > 0 {
            let day = day(receipt.allowance_began);
            self.allowances.entry(receipt.account).or_default().give_back(day, allowance);
            rows.push(Write::AllowanceSpent(receipt.account, day, allowance.wrapping_neg()));
        }
        if let Some(key) = receipt.key {
            let day = day(receipt.key_began);
            self.keys.entry(key).or_default().give_back(day, all);
            rows.push(Write::KeySpent(key, day, all.wrapping_neg()));
        }
    }

    /// Grants a wallet an allowance, or takes it away. Open calls keep what they hold.
    pub fn grant(&mut self, wallet: AccountId, grant: Option<Grant>) -> Result<Rows, Refused> {
        if grant.as_ref().is_some_and(|grant| grant.per_day > MOST_A_DAY.get()) {
            return Err(Refused::Overflow);
        }
        match &grant {
            Some(grant) => _ = self.grants.insert(wallet, grant.clone()),
            None => _ = self.grants.remove(&wallet),
        }
        Ok(vec![Write::Grant(wallet, grant)])
    }

    /// The next entry of the keys' journal.
    pub fn key_event(&mut self, event: Vec<u8>) -> (Rows, u64) {
        self.next_key_event += 1;
        (vec![Write::KeyEvent(self.next_key_event, event)], self.next_key_event)
    }

    /// Puts a hold where none was, and counts it.
    pub(super) fn open_hold(&mut self, rows: &mut Rows, request: RequestId, hold: Hold) {
        rows.push(Write::Opened(request, hold.clone()));
        self.count(request, hold);
    }

    /// Puts a hold in the place of the one before, and counts it.
    fn put_hold(&mut self, rows: &mut Rows, request: RequestId, hold: Hold) {
        rows.push(Write::Hold(request, Some(hold.clone())));
        self.count(request, hold);
    }

    /// Counts a hold in memory, in the place of the one before.
    pub(super) fn count(&mut self, request: RequestId, hold: Hold) {
        self.uncount(request);
        if let Fund::Wallet(wallet) = hold.fund {
            let held = self.held.entry(wallet).or_default();
            held.amount = held.amount.saturating_add(hold.amount);
            held.calls += 1;
            if hold.allowance > 0 {
                self.allowances.entry(wallet).or_default().hold(day(hold.allowance_began), hold.allowance);
            }
            if let Some(key) = hold.key {
                self.keys.entry(key.id).or_default().hold(day(key.began), hold.ceiling().get());
            }
        }
        self.holds.insert(request, hold);
    }

    fn uncount(&mut self, request: RequestId) -> Option<Hold> {
        let hold = self.holds.remove(&request)?;
        if let Fund::Wallet(wallet) = hold.fund {
            if let Some(held) = self.held.get_mut(&wallet) {
                held.amount = held.amount.saturating_sub(hold.amount);
                held.calls = held.calls.saturating_sub(1);
                if *held == Held::default() {
                    self.held.remove(&wallet);
                }
            }
            if let Some(days) = self.allowances.get_mut(&wallet).filter(|_| hold.allowance > 0) {
                days.release(day(hold.allowance_began), hold.allowance);
            }
            if let Some((key, days)) = hold.key.and_then(|key| Some((key, self.keys.get_mut(&key.id)?))) {
                days.release(day(key.began), hold.ceiling().get());
            }
        }
        Some(hold)
    }

    pub(super) fn take_hold(&mut self, rows: &mut Rows, request: RequestId) -> Option<Hold> {
        let hold = self.uncount(request)?;
        rows.push(Write::Hold(request, None));
        Some(hold)
    }
}

/// When a day began, as holds and receipts have it; and the inverse.
fn began(day: Day) -> u64 {
    day.began().millis()
}

fn day(began: u64) -> Day {
    Timestamp::from_millis(began).day()
}

/// The receipt of a call that was charged; its fund adds what only it knows.
fn receipt(account: AccountId, hold: &Hold, charge: Micros, service: Service, close: Close, at: Timestamp) -> Receipt {
    let Service { usage, upstream, cost } = service;
    Receipt {
        account,
        key: hold.key.map(|key| key.id),
        key_began: hold.key.map_or(0, |key| key.began),
        payment: None,
        tx: None,
        model: hold.model.clone(),
        path: hold.path.clone(),
        at: at.millis(),
        ceiling: hold.ceiling().get(),
        charge: charge.get(),
        allowance: 0,
        allowance_began: hold.allowance_began,
        credited: 0,
        refunded: 0,
        whole: matches!(close, Close::Post(_)),
        input: usage.input.min(MOST_TOKENS),
        output: usage.output.min(MOST_TOKENS),
        cache_read: usage.cache_read.min(MOST_TOKENS),
        cache_write: usage.cache_write_5m.saturating_add(usage.cache_write_1h).min(MOST_TOKENS),
        units: usage.units.min(MOST_TOKENS),
        upstream,
        cost: cost.map(Micros::get),
    }
}
