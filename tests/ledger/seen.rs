//! What can be seen of a ledger from outside: of its memory at any time, of its disk after a start, and the model's word for both.

use farebox::account::AccountId;
use farebox::clock::Day;
use farebox::ids::RequestId;
use farebox::ledger::{Entry, Ledger, Movement, Outcome, Payment, Receipt, Spending, Standing, State, Used};

use super::model::Model;
use super::steps::{KEYS, NONCES, PAYMENTS, WALLETS, nonce};
use super::{key, payment, wallet};

/// What memory says.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Seen {
    pub wallets: Vec<Standing>,
    pub payments: Vec<Option<SeenPayment>>,
    pub keys: Vec<Spending>,
    pub grants: Vec<(AccountId, u64)>,
    /// The sign-ins that were used.
    pub nonces: Vec<u8>,
    /// The wallets that are barred.
    pub blocked: Vec<AccountId>,
    pub open: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeenPayment {
    pub state: State,
    pub payer: AccountId,
    pub amount: u64,
    pub top_up: bool,
    pub credited: u64,
    pub irreversible: bool,
    pub vanished: bool,
}

impl SeenPayment {
    fn of(row: &Payment) -> SeenPayment {
        let credited = match row.outcome {
            Some(Outcome::Served { credited, .. }) => credited,
            Some(Outcome::Credited { amount }) => amount,
            None => 0,
        };
        let signed = !matches!(row.state, State::Claimed | State::Voided | State::Confirmed | State::Final | State::Failed);
        assert!(!signed || !row.attempts.is_empty(), "{:?}, and its transaction is lost", row.state);
        let Payment { state, payer, amount, top_up, irreversible, reorged, .. } = *row;
        SeenPayment { state, payer, amount, top_up, credited, irreversible, vanished: reorged }
    }
}

impl Seen {
    pub fn of(ledger: &Ledger) -> Seen {
        Seen {
            wallets: (0..WALLETS).map(|n| ledger.standing(wallet(n)).unwrap()).collect(),
            payments: (0..PAYMENTS).map(|n| ledger.payment(payment(n)).unwrap().map(|row| SeenPayment::of(&row))).collect(),
            keys: (0..).zip(KEYS).map(|(n, period)| ledger.key_spending(key(n), period).unwrap()).collect(),
            grants: ledger.grants().unwrap().into_iter().map(|(wallet, grant)| (wallet, grant.per_day)).collect(),
            blocked: blocked(ledger),
            nonces: (0..NONCES).filter(|n| ledger.is_used(nonce(*n, 0)).unwrap()).collect(),
            open: ledger.open_holds(),
        }
    }
}

/// As the list says, and as every call asks.
fn blocked(ledger: &Ledger) -> Vec<AccountId> {
    let listed: Vec<_> = ledger.blocked().unwrap().into_iter().map(|(wallet, _)| wallet).collect();
    let asked: Vec<_> = (0..WALLETS).map(wallet).filter(|wallet| ledger.is_blocked(*wallet)).collect();
    assert_eq!(listed, asked, "the list is what has effect");
    listed
}

/// A line of a statement: what it did, what was there after it, why, for which call.
pub type Line = (i64, i64, Movement, Option<u128>);

/// What the disk says, which is all there is after a start.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Written {
    /// Of each wallet, the newest first.
    pub statements: Vec<Vec<Line>>,
    pub receipts: Vec<(u128, Slip)>,
    pub usage: Vec<Vec<Used>>,
    pub key_events: Vec<(u64, Vec<u8>)>,
}

/// What a receipt says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slip {
    pub payer: u8,
    pub key: Option<u8>,
    pub payment: Option<u8>,
    pub charge: u64,
    pub allowance: u64,
    pub credited: u64,
    pub refunded: u64,
    pub whole: bool,
    /// Tokens in, out and written to a cache.
    pub tokens: (u64, u64, u64, u64),
    pub day: Day,
    /// The days that it counts for, of its key's limit and of its wallet's allowance.
    pub key_day: Day,
    pub allowance_day: Day,
}

impl Slip {
    fn of(receipt: &Receipt) -> Slip {
        let day = |millis| farebox::clock::Timestamp::from_millis(millis).day();
        let number = |account: AccountId| (0..WALLETS).find(|n| wallet(*n) == account).unwrap();
        Slip {
            payer: number(receipt.account),
            key: receipt.key.map(|id| (0..).find(|n| key(*n) == id).unwrap()),
            payment: receipt.payment.map(|id| (0..).find(|n| payment(*n) == id).unwrap()),
            charge: receipt.charge,
            allowance: receipt.allowance,
            credited: receipt.credited,
            refunded: receipt.refunded,
            whole: receipt.whole,
            tokens: (receipt.input, receipt.output, receipt.cache_write, receipt.units),
            day: day(receipt.at),
            key_day: day(receipt.key_began),
            allowance_day: day(receipt.allowance_began),
        }
    }
}

impl Written {
    /// All of it; `requests` are the calls that may have receipts.
    pub fn of(ledger: &Ledger, requests: impl Iterator<Item = u128>) -> Written {
        let receipt = |request| Some((request, Slip::of(&ledger.receipt(RequestId(request)).unwrap()?)));
        Written {
            statements: (0..WALLETS).map(|n| statement(ledger, wallet(n))).collect(),
            receipts: requests.filter_map(receipt).collect(),
            usage: (0..WALLETS).map(|n| ledger.usage(wallet(n), Day(0)).unwrap()).collect(),
            key_events: ledger.key_events_after(0).unwrap(),
        }
    }
}

/// A whole statement, read page by page: its lines sum to what is posted, and each begins where the one before ended.
fn statement(ledger: &Ledger, wallet: AccountId) -> Vec<Line> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let (page, more) = ledger.statement(wallet, 3, entries.len()).unwrap();
        assert!(page.len() == 3 || !more, "a page that is not full is the last one");
        entries.extend(page);
        if !more {
            break;
        }
    }
    let sum: i64 = entries.iter().map(|entry| entry.amount).sum();
    assert_eq!(u64::try_from(sum).unwrap(), ledger.standing(wallet).unwrap().posted.get(), "a statement sums to the balance");
    let before = entries.iter().skip(1).map(|entry| entry.balance_after).chain([0]);
    for (entry, before) in entries.iter().zip(before) {
        assert_eq!(entry.balance_after, before + entry.amount, "{entry:?}");
    }
    assert!(entries.is_sorted_by(|newer, older| newer.number > older.number));
    assert_eq!(ledger.statement(wallet, 1, entries.len()).unwrap(), (Vec::new(), false));
    let line = |entry: Entry| {
        let served = entry.request.is_some_and(|request| ledger.receipt(request).unwrap().is_some());
        assert_eq!(entry.model.is_some(), served, "a line about a call that was served names its model: {entry:?}");
        (entry.amount, entry.balance_after, entry.movement, entry.request.map(|request| request.0))
    };
    entries.into_iter().map(line).collect()
}

impl Model {
    /// Whether a ledger that was just started is what the model says, on its disk as well.
    pub fn is_written(&self, ledger: &Ledger) -> bool {
        // Any request but the known ones would be one too many: the check of the books counts them.
        Seen::of(ledger) == self.seen() && Written::of(ledger, self.requests()) == self.written()
    }
}
