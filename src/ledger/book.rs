//! The books in memory: every command is checked completely, then applied, and says which rows that changed.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::adjust::Adjustment;
use super::blocked::Block;
use super::calls::{Held, Nonces};
use super::jobs::Job;
use super::payouts::Payout;
use super::rows::{
    Account, Attempt, Balance, Fund, Grant, Hold, Kind, Line, Outcome, Payment, Receipt, Reference, State, Transfer,
};
use super::spending::Days;
use crate::account::AccountId;
use crate::clock::{Day, Timestamp};
use crate::ids::{JobId, KeyId, PaymentId, RequestId};
use crate::metrics;
use crate::money::Micros;

/// One row to write. A command's rows go to disk together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Transfer(u64, Transfer),
    Balance(Account, Balance),
    Payment(PaymentId, Payment),
    /// A hold that was not there before.
    Opened(RequestId, Hold),
    /// A hold in the place of the one before, or its end.
    Hold(RequestId, Option<Hold>),
    Receipt(RequestId, Receipt),
    /// An end of a call that is counted for the day on which it fell.
    Usage(RequestId, Receipt),
    /// What more was spent of a key's limit on a day; what was given back of it is less than nothing, modulo 2^64.
    KeySpent(KeyId, Day, u64),
    /// The same of a wallet's allowance.
    AllowanceSpent(AccountId, Day, u64),
    Grant(AccountId, Option<Grant>),
    Nonce([u8; 16], Timestamp),
    ForgetNonce([u8; 16], Timestamp),
    Job(JobId, Job),
    ForgetJob(JobId, AccountId),
    KeyEvent(u64, Vec<u8>),
    /// What a transaction of ours took of us: when, on which network, its name there, and how much.
    Fee(Day, String, String, u64),
    /// An adjustment and its id.
    Adjustment(String, Adjustment),
    /// A wallet that is barred from now on, or is not any more.
    Block(AccountId, Option<Block>),
    /// A payout and its id.
    Payout(String, Payout),
}

/// Why a command was refused. A refused command changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The payment is known already: its row says what became of it.
    Known(Box<Payment>),
    /// The wallet has less than the call needs of it.
    Insufficient { available: Micros, needed: Micros },
    /// The key may spend no more than this in its period.
    KeyLimit { left: Micros },
    /// The wallet has as many calls open as it may.
    TooManyCalls,
    /// The sign-in has paid for a call before.
    NonceUsed,
    /// The payment is not in a state in which this can happen to it, such as signing for a claim that was voided.
    WrongState,
    /// A call with this id is open.
    Duplicate,
    /// Amounts beyond what an account can hold.
    Overflow,
    /// The operator has barred the wallet.
    Blocked,
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// It was served as a whole and owes this much, at most what was held.
    Post(Micros),
    /// A part of it was served and owes this much; a flat price does not apply to a part.
    Partly(Micros),
    /// Nothing was delivered: all of it goes back.
    Void,
}

/// What a payment is claimed for.
#[derive(Debug, Clone)]
pub struct Claim {
    pub id: PaymentId,
    /// CAIP-2.
    pub network: String,
    pub asset: String,
    pub payer: AccountId,
    pub amount: Micros,
    pub request: RequestId,
    pub route: String,
    /// The model of its call; none for a top-up.
    pub model: Option<String>,
    /// For the chain module after a restart.
    pub detail: Vec<u8>,
}

impl Claim {
    /// The row that it begins with.
    pub(super) fn row(self, at: Timestamp) -> Payment {
        Payment {
            state: State::Claimed,
            network: self.network,
            asset: self.asset,
            payer: self.payer,
            amount: self.amount.get(),
            request: self.request.0,
            top_up: self.model.is_none(),
            route: self.route,
            detail: self.detail.into(),
            attempts: Vec::new(),
            confirmed: None,
            reorged: false,
            irreversible: false,
            outcome: None,
            reason: None,
            claimed_at: at.millis(),
            payout: None,
        }
    }
}

/// What a wallet can count on, all from one moment. Micros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// What it can spend.
    pub available: Micros,
    /// Payments of its own that are still settling and become its balance as a whole: top-ups, and those whose call is gone.
    pub arriving: Micros,
}

/// A payment in memory and the last batch that wrote it: it may be forgotten once that is durable and it is closed.
#[derive(Debug)]
pub(super) struct Remembered {
    pub row: Payment,
    pub ticket: u64,
}

/// All that decides: balances, open holds, payments that are open or not durable yet, and the head of the hash chain.
#[derive(Debug, Default)]
pub struct Book {
    pub(super) balances: HashMap<Account, Balance>,
    pub(super) holds: HashMap<RequestId, Hold>,
    /// What stands for open calls, wallet by wallet: derived from the holds.
    pub(super) held: HashMap<AccountId, Held>,
    pub(super) keys: HashMap<KeyId, Days>,
    pub(super) grants: HashMap<AccountId, Grant>,
    /// What the operator adjusted by hand, by its ids.
    pub(super) adjustments: HashMap<String, Adjustment>,
    /// Wallets that the operator has barred.
    pub(super) blocked: HashMap<AccountId, Block>,
    /// The first batch that changed who is barred and is not known to be durable.
    pub(super) blocks_due: Option<u64>,
    /// What was paid out, by the operator's ids.
    pub(super) payouts: HashMap<String, Payout>,
    pub(super) allowances: HashMap<AccountId, Days>,
    pub(super) nonces: Nonces,
    /// When these books were put back from a copy last, if ever: of sign-ins of before nobody knows whether they were used.
    pub(super) restored_at: Timestamp,
    pub(super) next_key_event: u64,
    pub(super) payments: HashMap<PaymentId, Remembered>,
    /// Those among them that are not counted yet and may be, by who pays.
    pub(super) unsettled: BTreeSet<(AccountId, PaymentId)>,
    /// Receipts of which something was given back and that are not durable yet, with the batch that wrote each.
    pub(super) refunding: HashMap<RequestId, (Receipt, u64)>,
    /// Jobs that are new or have changed and are not durable yet, with the batch that wrote each.
    pub(super) jobs: HashMap<JobId, (Job, u64)>,
    /// Closed payments in the order in which they were written, to be forgotten once that is durable.
    pub(super) closed: VecDeque<(u64, PaymentId)>,
    pub(super) next_seq: u64,
    pub(super) head: [u8; 8],
    pub(super) boot: u64,
    /// The number of the batch being written.
    pub(super) ticket: u64,
    /// Whether what a served call did not cost becomes balance, or the quote is a flat price.
    pub(super) keep_remainder: bool,
    /// What all wallets have together: derived from the balances, for who asks often.
    pub(super) owed: i64,
}

pub(super) type Rows = Vec<Write>;

impl Book {
    /// What a wallet has, with what stands for its open calls.
    pub fn posted(&self, wallet: AccountId) -> Micros {
        self.balance(&Account::Wallet(wallet))
    }

    /// What a wallet can spend.
    pub fn available(&self, wallet: AccountId) -> Micros {
        self.posted(wallet).saturating_sub(Micros::new(self.held(wallet).amount))
    }

    /// Whether the money of an open call is really there: held from a balance, or confirmed by the chain.
    pub fn is_paid(&self, request: RequestId) -> bool {
        match self.holds.get(&request).map(|hold| hold.fund) {
            Some(Fund::Wallet(_)) => true,
            Some(Fund::Payment(id)) => self.payments.get(&id).is_some_and(|payment| payment.row.state == State::Confirmed),
            None => false,
        }
    }

    /// Claims a payment, for one call or as a top-up. `known` is its row on disk, for payments no longer in memory.
    pub fn claim(&mut self, claim: Claim, known: Option<Payment>, at: Timestamp) -> Result<Rows, Refused> {
        let known = self.payments.get(&claim.id).map(|payment| payment.row.clone()).or(known);
        // The same nonce over another amount is another authorization, of which the chain will take only one.
        if let Some(row) = known.filter(|row| row.state != State::Voided || row.amount != claim.amount.get()) {
            return Err(Refused::Known(Box::new(row)));
        }
        self.check_blocked(claim.payer)?;
        if self.holds.contains_key(&claim.request) {
            return Err(Refused::Duplicate);
        }
        if i64::try_from(claim.amount.get()).is_err() {
            return Err(Refused::Overflow);
        }
        // Nothing below can fail.
        let (id, request, amount, model) = (claim.id, claim.request, claim.amount, claim.model.clone());
        let row = claim.row(at);
        let mut rows = Rows::new();
        if let Some(model) = model {
            let path = row.route.clone();
            self.open_hold(&mut rows, request, Hold::of_payment(id, amount, model, path, self.boot));
        }
        self.put_payment(&mut rows, id, row);
        Ok(rows)
    }

    /// Gives the claim of a top-up back, if nothing was signed for it.
    pub fn give_back(&mut self, id: PaymentId) -> Result<Rows, Refused> {
        let mut row = self.payment_in(id, &[State::Claimed])?;
        if !row.top_up {
            return Err(Refused::WrongState);
        }
        row.state = State::Voided;
        Ok(self.payment_rows(id, row))
    }

    /// Top-ups that were claimed and never signed: after a crash nobody waits for them, and they may be sent again.
    pub(super) fn unsigned_top_ups(&self) -> Vec<PaymentId> {
        let unsigned = |row: &Payment| row.top_up && row.state == State::Claimed;
        let mut ids: Vec<_> = self.payments.iter().filter(|(_, kept)| unsigned(&kept.row)).map(|(id, _)| *id).collect();
        ids.sort();
        ids
    }

    /// Our transaction for a payment is signed. Refused once the claim was given back: then it must not be sent.
    pub fn signed(&mut self, id: PaymentId, attempt: Attempt) -> Result<Rows, Refused> {
        let mut row = self.payment_in(id, &[State::Claimed, State::Signed, State::Sent, State::Confirmed])?;
        if row.state == State::Claimed {
            row.state = State::Signed;
        }
        row.attempts.push(attempt);
        Ok(self.payment_rows(id, row))
    }

    pub fn sent(&mut self, id: PaymentId) -> Result<Rows, Refused> {
        let mut row = self.payment_in(id, &[State::Signed])?;
        row.state = State::Sent;
        Ok(self.payment_rows(id, row))
    }

    /// The chain has the transfer. Counted once: a second word, as after a reorg, only corrects where it stands. A claim
    /// that was given back counts too, since anybody may submit an authorization; `known` is its row on disk then.
    pub fn confirmed(
        &mut self,
        id: PaymentId,
        at_chain: (String, u64),
        known: Option<Payment>,
        at: Timestamp,
    ) -> Result<Rows, Refused> {
        let row = self.payments.get(&id).map(|payment| payment.row.clone()).or(known).ok_or(Refused::WrongState)?;
        if matches!(row.state, State::Final | State::Failed) {
            return Err(Refused::WrongState);
        }
        let mut row = row;
        let counted = row.state == State::Confirmed;
        row.state = State::Confirmed;
        row.confirmed = Some(at_chain);
        row.reorged = false;
        let mut rows = Rows::new();
        match counted {
            true => {}
            false if row.payout.is_some() => self.payout_arrived(&mut rows, id, &row, at)?,
            false => self.count_arrival(&mut rows, id, &mut row, at)?,
        }
        self.put_payment(&mut rows, id, row);
        Ok(rows)
    }

    fn count_arrival(&mut self, rows: &mut Rows, id: PaymentId, row: &mut Payment, at: Timestamp) -> Result<(), Refused> {
        let (external, amount, reference) = (row.external(), row.amount(), Reference::Payment(id));
        let (transit, wallet) = (Account::Transit, Account::Wallet(row.payer));
        self.check_room(&[(&external, -1), (&transit, 1), (&wallet, 1)], amount)?;
        let arrived = Order { debit: external, credit: transit.clone(), amount, kind: Kind::Payment, reference, at };
        self.transfer(rows, arrived);
        // Its call ended while the outcome was unknown: the money is the payer's.
        if !self.holds.contains_key(&RequestId(row.request)) {
            self.transfer(rows, Order { debit: transit, credit: wallet, amount, kind: Kind::Credit, reference, at });
            row.outcome = Some(Outcome::Credited { amount: row.amount });
        }
        Ok(())
    }

    /// The transfer is proven never to arrive. When it had been counted (a reorg removed it for good), what is left of
    /// its credit, and of what was `refunded` of its call, is taken back; the rest is a loss of the operator, never a debt
    /// of another wallet.
    pub fn failed(&mut self, id: PaymentId, reason: String, refunded: Micros, at: Timestamp) -> Result<Rows, Refused> {
        let mut row = self.payment_in(id, &[State::Claimed, State::Signed, State::Sent, State::Confirmed])?;
        // What the chain has confirmed only fails after it was seen to vanish.
        if row.state == State::Confirmed && !row.reorged {
            return Err(Refused::WrongState);
        }
        let mut rows = Rows::new();
        let request = RequestId(row.request);
        let reference = Reference::Payment(id);
        if row.payout.is_some() {
            self.payout_came_back(&mut rows, id, &row, at)?;
        } else if row.state == State::Confirmed {
            let external = row.external();
            let in_transit = self.holds.contains_key(&request);
            let credited = match row.outcome {
                Some(Outcome::Served { credited, .. }) => credited,
                Some(Outcome::Credited { amount }) => amount,
                None => 0,
            };
            let (source, back) = match in_transit {
                true => (Account::Transit, row.amount()),
                false => (
                    Account::Wallet(row.payer),
                    Micros::new(credited.saturating_add(refunded.get())).min(self.available(row.payer)),
                ),
            };
            let lost = row.amount().saturating_sub(back);
            self.transfer(
                &mut rows,
                Order { debit: source, credit: external.clone(), amount: back, kind: Kind::Reversal, reference, at },
            );
            self.transfer(
                &mut rows,
                Order { debit: Account::BadDebt, credit: external, amount: lost, kind: Kind::Reversal, reference, at },
            );
        }
        self.take_hold(&mut rows, request);
        row.state = State::Failed;
        row.reason = Some(reason);
        self.put_payment(&mut rows, id, row);
        Ok(rows)
    }

    /// Nobody may remember whether this payment arrived: it is not expected any more. If it arrives after all, it is counted.
    pub fn forgotten(&mut self, id: PaymentId) {
        if let Some(kept) = self.payments.get(&id) {
            self.unsettled.remove(&(kept.row.payer, id));
        }
    }

    pub fn reorged(&mut self, id: PaymentId) -> Result<Rows, Refused> {
        let mut row = self.payment_in(id, &[State::Confirmed])?;
        row.reorged = true;
        Ok(self.payment_rows(id, row))
    }

    /// Nothing can undo the transfer any more.
    pub fn finalized(&mut self, id: PaymentId) -> Result<Rows, Refused> {
        let mut row = self.payment_in(id, &[State::Confirmed])?;
        row.irreversible = true;
        if !self.holds.contains_key(&RequestId(row.request)) {
            row.state = State::Final;
        }
        Ok(self.payment_rows(id, row))
    }

    pub(super) fn balance(&self, account: &Account) -> Micros {
        Micros::new(self.balances.get(account).and_then(|balance| u64::try_from(balance.amount).ok()).unwrap_or(0))
    }

    /// Whether the accounts can take `amount` with this sign without leaving i64.
    pub(super) fn check_room(&self, accounts: &[(&Account, i64)], amount: Micros) -> Result<(), Refused> {
        let amount = i64::try_from(amount.get()).map_err(|_| Refused::Overflow)?;
        let fits = |(account, sign): &(&Account, i64)| {
            self.balances.get(account).map_or(0, |balance| balance.amount).checked_add(amount * sign).is_some()
        };
        if accounts.iter().all(fits) { Ok(()) } else { Err(Refused::Overflow) }
    }

    fn payment_in(&self, id: PaymentId, states: &[State]) -> Result<Payment, Refused> {
        let row = self.payments.get(&id).map(|payment| &payment.row).ok_or(Refused::WrongState)?;
        if states.contains(&row.state) { Ok(row.clone()) } else { Err(Refused::WrongState) }
    }

    fn payment_rows(&mut self, id: PaymentId, row: Payment) -> Rows {
        let mut rows = Rows::new();
        self.put_payment(&mut rows, id, row);
        rows
    }

    pub(super) fn put_payment(&mut self, rows: &mut Rows, id: PaymentId, row: Payment) {
        rows.push(Write::Payment(id, row.clone()));
        if !row.is_open() {
            self.closed.push_back((self.ticket, id));
        }
        self.remember(id, row, self.ticket);
    }

    /// Keeps a payment in memory, as batch `ticket` writes it.
    pub(super) fn remember(&mut self, id: PaymentId, row: Payment, ticket: u64) {
        let entry = (row.payer, id);
        match row.state {
            State::Claimed | State::Signed | State::Sent => self.unsettled.insert(entry),
            State::Confirmed | State::Final | State::Voided | State::Failed => self.unsettled.remove(&entry),
        };
        self.payments.insert(id, Remembered { row, ticket });
    }

    /// What a wallet can spend, and what is on its way to it.
    pub fn expected(&self, wallet: AccountId) -> Expected {
        let all = (wallet, PaymentId([0; 32]))..=(wallet, PaymentId([u8::MAX; 32]));
        let rows = self.unsettled.range(all).filter_map(|(_, id)| self.payments.get(id)).map(|kept| &kept.row);
        // What pays for an open call becomes balance only as far as the call does not cost it.
        let arriving = rows.filter(|row| row.payout.is_none());
        let becoming = arriving.filter(|row| row.top_up || !self.holds.contains_key(&RequestId(row.request)));
        let arriving = becoming.fold(0u64, |sum, row| sum.saturating_add(row.amount));
        Expected { available: self.available(wallet), arriving: Micros::new(arriving) }
    }

    /// Forgets what is over and durable up to batch `ticket`: from then on the disk answers for it.
    pub(super) fn forget_closed(&mut self, ticket: u64) {
        self.refunding.retain(|_, (_, written)| *written > ticket);
        self.jobs.retain(|_, (_, written)| *written > ticket);
        while let Some((_, id)) = self.closed.front().copied().filter(|(written, _)| *written <= ticket) {
            self.closed.pop_front();
            if self.payments.get(&id).is_some_and(|payment| payment.ticket <= ticket && !payment.row.is_open()) {
                self.payments.remove(&id);
            }
        }
    }

    /// Moves money: one debit, one credit, both balances. Callers have checked what could fail; a transfer of nothing
    /// leaves no rows.
    pub(super) fn transfer(&mut self, rows: &mut Rows, order: Order) {
        let Order { debit, credit, amount, kind, reference, at } = order;
        if amount.is_zero() {
            return;
        }
        let mut transfer = Transfer { debit, credit, amount, kind, reference, at, line: None, hash: [0; 8] };
        let (mut line, last) = (None, self.next_seq);
        for (account, amount) in transfer.postings() {
            let before = self.balances.get(account).copied();
            let after = before.map_or(0, |before| before.amount).checked_add(amount).expect("room was checked before");
            assert!(after >= 0 || account.may_be_negative(), "{account} would go below zero");
            let balance = Balance { amount: after, last };
            self.balances.insert(account.clone(), balance);
            rows.push(Write::Balance(account.clone(), balance));
            if let Account::Wallet(_) = account {
                // A sum of what is in the books never leaves i64 before one of its parts does.
                self.owed = self.owed.saturating_add(amount);
                line = Some(Line { after, previous: before.map(|before| before.last) });
            }
        }
        metrics::MOVED.of(&[kind.word()]).add(transfer.amount);
        transfer.line = line;
        transfer.hash = transfer.chained(self.head);
        self.head = transfer.hash;
        rows.push(Write::Transfer(last, transfer));
        self.next_seq += 1;
    }
}

/// One movement of money that was decided.
pub(super) struct Order {
    pub debit: Account,
    pub credit: Account,
    pub amount: Micros,
    pub kind: Kind,
    pub reference: Reference,
    pub at: Timestamp,
}
