//! A model of the ledger so simple that it is obviously right: a map of balances, lists of payments, calls, lines and receipts.

use std::collections::{BTreeMap, BTreeSet};

use farebox::clock::{Day, Period, Timestamp};
use farebox::ledger::{Movement, Spending, Standing, State, Used};
use farebox::money::Micros;

use super::seen::{Line, Seen, SeenPayment, Slip, Written};
use super::steps::{By, KEYS, NONCES, PAYMENTS, PAYOUTS, Step, WALLETS, event, forgotten, usage};
use super::{NOON, key, wallet};

mod paying;

/// The most that an allowance may be a day.
const MOST_A_DAY: u64 = 1_000_000_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Paying {
    state: State,
    payer: u8,
    amount: u64,
    /// The call it was claimed for, or the request that brought it as a top-up.
    request: u128,
    top_up: bool,
    /// What of it became balance.
    credited: u64,
    /// Finalized while its call ran.
    irreversible: bool,
    /// Seen to vanish from the chain, and not seen again.
    vanished: bool,
    /// It goes to its payer, under this id.
    payout: Option<u8>,
    /// Milliseconds since 1970.
    claimed_at: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fund {
    Wallet(u8),
    Payment(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Open {
    fund: Fund,
    /// Of the balance, or of the payment.
    amount: u64,
    /// Of the allowance, and its day.
    allowance: u64,
    day: Day,
    /// Its key, the day that it counts for, and the limit.
    key: Option<(u8, Day, Option<u64>)>,
    /// What it owes so far, once bytes went out.
    checkpoint: Option<u64>,
}

impl Open {
    fn ceiling(&self) -> u64 {
        self.amount + self.allowance
    }
}

/// How a call was served.
#[derive(Clone, Copy)]
struct Served {
    owed: u64,
    whole: bool,
    tokens: (u64, u64, u64, u64),
}

/// What the books must say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Model {
    now: u64,
    posted: [u64; WALLETS as usize],
    payments: [Option<Paying>; PAYMENTS as usize],
    /// Whose each is, how much, and the latest payment that carries it.
    payouts: [Option<(u8, u64, u8)>; PAYOUTS as usize],
    open: BTreeMap<u128, Open>,
    /// What somebody still has in hand, in the order of `perform`'s lists; some may have been ended from elsewhere.
    calls: Vec<u128>,
    deposits: Vec<u8>,
    ended: Vec<u128>,
    sales: u64,
    /// What vanished from the chain and had been spent.
    lost: u64,
    grants: [Option<u64>; WALLETS as usize],
    /// What was spent on each day.
    allowances: [BTreeMap<Day, u64>; WALLETS as usize],
    keys: [BTreeMap<Day, u64>; KEYS.len()],
    nonces: BTreeSet<(u64, u8)>,
    /// Whether each wallet is barred, from holds and claims alone.
    blocked: [bool; WALLETS as usize],
    key_events: Vec<Vec<u8>>,
    statements: [Vec<Line>; WALLETS as usize],
    receipts: BTreeMap<u128, Slip>,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            now: NOON,
            posted: Default::default(),
            payments: Default::default(),
            payouts: Default::default(),
            open: BTreeMap::new(),
            calls: Vec::new(),
            deposits: Vec::new(),
            ended: Vec::new(),
            sales: 0,
            lost: 0,
            grants: Default::default(),
            allowances: Default::default(),
            keys: Default::default(),
            nonces: BTreeSet::new(),
            blocked: Default::default(),
            key_events: Vec::new(),
            statements: Default::default(),
            receipts: BTreeMap::new(),
        }
    }
}

impl Model {
    pub fn seen(&self) -> Seen {
        let payment = |paying: &Paying| {
            let Paying { state, payer, amount, top_up, credited, irreversible, vanished, payout, .. } = *paying;
            SeenPayment { state, payer: wallet(payer), amount, top_up, credited, irreversible, vanished, payout }
        };
        let grants = (0..WALLETS).zip(self.grants);
        Seen {
            wallets: (0..WALLETS).map(|n| self.standing(n)).collect(),
            payments: self.payments.iter().map(|paying| paying.as_ref().map(payment)).collect(),
            keys: (0..).zip(KEYS).map(|(n, period)| self.spending(n, period)).collect(),
            grants: grants.filter_map(|(n, per_day)| Some((wallet(n), per_day?))).collect(),
            nonces: (0..NONCES).filter(|n| self.is_used(*n)).collect(),
            blocked: (0..WALLETS).filter(|n| self.blocked[usize::from(*n)]).map(wallet).collect(),
            open: self.open.len(),
        }
    }

    pub fn written(&self) -> Written {
        let newest_first = |lines: &Vec<Line>| lines.iter().rev().copied().collect();
        Written {
            statements: self.statements.iter().map(newest_first).collect(),
            receipts: self.receipts.iter().map(|(request, slip)| (*request, *slip)).collect(),
            usage: (0..WALLETS).map(|n| self.used(n)).collect(),
            key_events: (1..).zip(self.key_events.iter().cloned()).collect(),
        }
    }

    /// The calls that may have receipts.
    pub fn requests(&self) -> impl Iterator<Item = u128> {
        self.receipts.keys().copied()
    }

    /// What the operator earned, what was lost to the chain and what is on its way out, as the books of the house name them.
    pub fn house(&self) -> (i64, i64, i64) {
        let is_open = |it: &&Paying| it.payout.is_some() && matches!(it.state, State::Claimed | State::Signed | State::Sent);
        let outgoing: u64 = self.payments.iter().flatten().filter(is_open).map(|it| it.amount).sum();
        (self.sales as i64, -(self.lost as i64), outgoing as i64)
    }

    /// Receipts and events of the keys' journal.
    pub fn counted(&self) -> (usize, u64) {
        (self.receipts.len(), self.key_events.len() as u64)
    }

    fn standing(&self, payer: u8) -> Standing {
        let posted = self.posted[usize::from(payer)];
        let held = posted - self.available(payer);
        let allowance = self.allowance_left(payer);
        Standing {
            posted: Micros::new(posted),
            held: Micros::new(held),
            available: Micros::new(posted - held),
            allowance: Micros::new(allowance),
            has_allowance: self.grants[usize::from(payer)].is_some(),
            open_calls: self.open.values().filter(|open| open.fund == Fund::Wallet(payer)).count(),
        }
    }

    fn spending(&self, key: u8, period: Period) -> Spending {
        let began = self.began(period, self.today());
        let spent = self.keys[usize::from(key)].iter().filter(|(day, _)| self.began(period, **day) == began);
        let of = |day| self.began(period, day) == began;
        let own = self.open.values().filter(|open| open.key.is_some_and(|(other, day, _)| other == key && of(day)));
        Spending { began, spent: spent.map(|(_, spent)| spent).sum(), held: own.map(Open::ceiling).sum() }
    }

    fn used(&self, payer: u8) -> Vec<Used> {
        let mut sums: BTreeMap<_, (u64, u64, u64, u64, u64)> = BTreeMap::new();
        for slip in self.receipts.values().filter(|slip| slip.payer == payer) {
            let sum = sums.entry((slip.day, slip.key.map(key))).or_default();
            let (input, output, ..) = slip.tokens;
            let more = (1, slip.charge, slip.allowance, input, output);
            *sum = (sum.0 + more.0, sum.1 + more.1, sum.2 + more.2, sum.3 + more.3, sum.4 + more.4);
        }
        let row = |((day, key), (calls, charge, allowance, input, output))| {
            let model = "echo".to_owned();
            Used { day, key, model, calls, charge, allowance, input, output }
        };
        sums.into_iter().map(row).collect()
    }

    /// Takes one step; says whether the ledger must do it as well. `n` names the call that it may open.
    pub fn take(&mut self, step: Step, n: u128) -> bool {
        match step {
            Step::Claim { payment, payer, amount } => self.claim(payment, payer, amount, n, false),
            Step::Deposit { payment, payer, amount } => self.claim(payment, payer, amount, n, true),
            Step::Leave { deposit } => self.leave(deposit),
            Step::Sign { payment } => {
                self.in_state(payment, &[State::Claimed, State::Signed, State::Sent, State::Confirmed], |p| {
                    if p.state == State::Claimed {
                        p.state = State::Signed;
                    }
                })
            }
            Step::Send { payment } => self.in_state(payment, &[State::Signed], |p| p.state = State::Sent),
            Step::Confirm { payment } => self.confirm(payment),
            Step::Reorg { payment } => self.in_state(payment, &[State::Confirmed], |p| p.vanished = true),
            Step::Fail { payment } => self.fail(payment),
            Step::Finalize { payment } => {
                let runs = self.runs(payment);
                self.in_state(payment, &[State::Confirmed], |p| {
                    p.irreversible = true;
                    if !runs {
                        p.state = State::Final;
                    }
                })
            }
            Step::Reserve { payer, amount, by } => self.reserve(payer, amount, by, n),
            Step::Refund { call, amount } => self.refund(call, amount),
            Step::Grant { payer, per_day } => self.grant(payer, per_day),
            Step::PayOut { id, payment, payer, amount } => self.pay_out(id, payment, (payer, amount), n),
            Step::UseNonce { nonce } => self.use_nonce(nonce),
            Step::Block { payer, on } => {
                self.blocked[usize::from(payer)] = on;
                true
            }
            Step::KeyEvent => {
                self.key_events.push(event(n));
                true
            }
            Step::Wait { millis } => {
                self.now = self.now.saturating_add_signed(millis);
                true
            }
            Step::Extend { .. } | Step::Checkpoint { .. } | Step::Post { .. } | Step::Part { .. } | Step::Drop { .. } => {
                self.go_on(step)
            }
        }
    }

    fn go_on(&mut self, step: Step) -> bool {
        let served = |owed: u64, whole| {
            let (used, most) = (usage(owed), u64::from(u32::MAX));
            let written = used.cache_write_5m.saturating_add(used.cache_write_1h).min(most);
            Served { owed, whole, tokens: (used.input.min(most), used.output.min(most), written, used.units.min(most)) }
        };
        match step {
            Step::Extend { call, more } => self.extend(call, more),
            Step::Checkpoint { call, owed } => {
                if let Some(open) = self.paid_call(call).and_then(|request| self.open.get_mut(&request)) {
                    open.checkpoint = Some(owed.min(open.ceiling()));
                }
                call < self.calls.len()
            }
            Step::Post { call, owed } => self.let_go(call, self.paid_call(call).map(|_| served(owed, true))),
            Step::Part { call, owed } => self.let_go(call, self.paid_call(call).map(|_| served(owed, false))),
            Step::Drop { call } => self.let_go(call, None),
            _ => false,
        }
    }

    /// What a restart at this time does: nobody serves the open calls any more, or waits for the top-ups.
    pub fn restarted(mut self, now: u64) -> Model {
        self.now = now;
        for request in self.open.keys().copied().collect::<Vec<_>>() {
            let checkpoint = self.open[&request].checkpoint;
            self.end(request, checkpoint.map(|owed| Served { owed, whole: false, tokens: (0, 0, 0, 0) }));
        }
        for paying in self.payments.iter_mut().flatten().filter(|paying| paying.top_up && paying.state == State::Claimed) {
            paying.state = State::Voided;
        }
        (self.calls, self.deposits, self.ended) = (Vec::new(), Vec::new(), Vec::new());
        self
    }

    /// What is in hand, given up.
    pub fn given_up(mut self) -> Model {
        for request in std::mem::take(&mut self.calls) {
            self.end(request, None);
        }
        while self.leave(0) {}
        self
    }

    fn available(&self, payer: u8) -> u64 {
        let own = self.open.values().filter(|open| open.fund == Fund::Wallet(payer));
        self.posted[usize::from(payer)] - own.map(|open| open.amount).sum::<u64>()
    }

    fn today(&self) -> Day {
        Timestamp::from_millis(self.now).day()
    }

    /// When the period began that a day is in.
    fn began(&self, period: Period, day: Day) -> u64 {
        period.began(day.began()).millis()
    }

    /// What is left of a wallet's allowance today.
    fn allowance_left(&self, payer: u8) -> u64 {
        let Some(per_day) = self.grants[usize::from(payer)] else { return 0 };
        let spent = self.allowances[usize::from(payer)].get(&self.today()).copied().unwrap_or(0);
        let own = self.open.values().filter(|open| open.fund == Fund::Wallet(payer) && open.day == self.today());
        per_day.saturating_sub(spent).saturating_sub(own.map(|open| open.allowance).sum())
    }

    /// Moves a wallet's balance, with a line about it; nothing moves nothing.
    fn post(&mut self, payer: u8, amount: i64, movement: Movement, request: Option<u128>) {
        if amount != 0 {
            let posted = &mut self.posted[usize::from(payer)];
            *posted = posted.checked_add_signed(amount).unwrap();
            self.statements[usize::from(payer)].push((amount, *posted as i64, movement, request));
        }
    }

    fn reserve(&mut self, payer: u8, amount: u64, by: By, n: u128) -> bool {
        let used = by.nonce.is_some_and(|nonce| self.is_used(nonce));
        if used || self.blocked[usize::from(payer)] || self.standing(payer).open_calls >= by.most_calls {
            return false;
        }
        let mut counted = None;
        if let Some(key) = by.key {
            let spending = self.spending(key, KEYS[usize::from(key)]);
            if by.limit.is_some_and(|limit| limit.saturating_sub(spending.spent + spending.held) < amount) {
                return false;
            }
            counted = Some((key, self.today(), by.limit));
        }
        let (allowance, day) = (self.allowance_left(payer).min(amount), self.today());
        if self.available(payer) < amount - allowance {
            return false;
        }
        let fund = Fund::Wallet(payer);
        self.open.insert(n, Open { fund, amount: amount - allowance, allowance, day, key: counted, checkpoint: None });
        self.calls.push(n);
        if let Some(nonce) = by.nonce {
            self.use_nonce(nonce);
        }
        true
    }

    fn extend(&mut self, call: usize, more: u64) -> bool {
        let Some(request) = self.paid_call(call) else { return false };
        let mut open = self.open[&request];
        let Fund::Wallet(payer) = open.fund else { return false };
        let mut wanted = more;
        if let Some((key, counted, limit)) = &mut open.key {
            let period = KEYS[usize::from(*key)];
            let spending = self.spending(*key, period);
            // In a new period it counts as a whole.
            let is_new = self.began(period, *counted) != spending.began;
            let held = spending.held + if is_new { open.amount + open.allowance } else { 0 };
            wanted = limit.map_or(more, |limit| more.min(limit.saturating_sub(spending.spent + held)));
            *counted = if is_new { self.today() } else { *counted };
        }
        let (left, day) = (self.allowance_left(payer), self.today());
        // Of one day only: what it has of another is taken of this one, too.
        let moved = if open.day == day { 0 } else { open.allowance };
        let allowance = left.saturating_sub(moved).min(wanted);
        let amount = (wanted - allowance).min(self.available(payer));
        // As much as there is; nothing at all is a refusal.
        if amount + allowance == 0 && more > 0 {
            return false;
        }
        open.day = if allowance > 0 { day } else { open.day };
        (open.amount, open.allowance) = (open.amount + amount, open.allowance + allowance);
        self.open.insert(request, open);
        true
    }

    fn refund(&mut self, call: usize, amount: u64) -> bool {
        let Some(request) = self.ended.get(call).copied() else { return false };
        let Some(slip) = self.receipts.get_mut(&request) else { return false };
        let vanished = |p: u8| self.payments[usize::from(p)].is_some_and(|paying| paying.state == State::Failed);
        let (paid, today) = (slip.charge - slip.allowance, Timestamp::from_millis(self.now).day());
        // The money first; the allowance while its day lasts.
        let (money, allowance) = (slip.refunded.min(paid), slip.refunded.saturating_sub(paid));
        let most = paid + if slip.allowance_day == today { slip.allowance } else { allowance };
        let total = if amount == 0 { most } else { amount };
        if slip.payment.is_some_and(vanished) || total > most {
            return false;
        }
        let more = total.saturating_sub(slip.refunded);
        slip.refunded += more;
        let (payer, day) = (slip.payer, slip.allowance_day);
        if let Some(key) = slip.key.filter(|_| more > 0) {
            *self.keys[usize::from(key)].get_mut(&slip.key_day).unwrap() -= more;
        }
        let money = slip.refunded.min(paid) - money;
        let allowance = slip.refunded.saturating_sub(paid) - allowance;
        if allowance > 0 {
            *self.allowances[usize::from(payer)].get_mut(&day).unwrap() -= allowance;
        }
        self.sales -= money;
        self.post(payer, money as i64, Movement::Refund, Some(request));
        true
    }

    fn grant(&mut self, payer: u8, per_day: Option<u64>) -> bool {
        let fits = per_day.is_none_or(|per_day| per_day <= MOST_A_DAY);
        if fits {
            self.grants[usize::from(payer)] = per_day;
        }
        fits
    }

    fn is_used(&self, nonce: u8) -> bool {
        self.nonces.iter().any(|(_, other)| *other == nonce)
    }

    /// Whoever uses one forgets up to four that are over.
    fn use_nonce(&mut self, nonce: u8) -> bool {
        if self.is_used(nonce) {
            return false;
        }
        self.nonces.insert((forgotten(self.now), nonce));
        for _ in 0..4 {
            let Some(first) = self.nonces.first().copied().filter(|(at, _)| *at < self.now) else { break };
            self.nonces.remove(&first);
        }
        true
    }

    /// A call in hand whose money is there.
    fn paid_call(&self, call: usize) -> Option<u128> {
        let request = *self.calls.get(call)?;
        let there = match self.open.get(&request)?.fund {
            Fund::Wallet(_) => true,
            Fund::Payment(p) => self.payments[usize::from(p)].is_some_and(|paying| paying.state == State::Confirmed),
        };
        there.then_some(request)
    }

    fn let_go(&mut self, call: usize, served: Option<Served>) -> bool {
        if call >= self.calls.len() {
            return false;
        }
        let request = self.calls.swap_remove(call);
        self.ended.push(request);
        self.end(request, served);
        true
    }

    /// Ends a call; nothing is served when nothing was delivered.
    fn end(&mut self, request: u128, served: Option<Served>) {
        let Some(open) = self.open.remove(&request) else { return };
        let charge = served.map_or(0, |served| served.owed).min(open.ceiling());
        match open.fund {
            Fund::Wallet(payer) => {
                let allowance = charge.min(open.allowance);
                self.post(payer, -((charge - allowance) as i64), Movement::Charge, Some(request));
                self.sales += charge - allowance;
                *self.allowances[usize::from(payer)].entry(open.day).or_default() += allowance;
                if let Some((key, day, _)) = open.key {
                    *self.keys[usize::from(key)].entry(day).or_default() += charge;
                }
                self.receive(request, payer, (charge, allowance, 0), &open, served);
            }
            Fund::Payment(p) => {
                let Some(paying) = self.payments[usize::from(p)].as_mut() else { return };
                match paying.state {
                    State::Claimed => paying.state = State::Voided,
                    State::Confirmed => {
                        paying.credited = open.amount - charge;
                        if paying.irreversible {
                            paying.state = State::Final;
                        }
                        let (payer, credited) = (paying.payer, paying.credited);
                        self.sales += charge;
                        self.post(payer, credited as i64, Movement::Refund, Some(request));
                        self.receive(request, payer, (charge, 0, credited), &open, served);
                    }
                    State::Signed | State::Sent | State::Final | State::Voided | State::Failed => {}
                }
            }
        }
    }

    fn receive(
        &mut self,
        request: u128,
        payer: u8,
        (charge, allowance, credited): (u64, u64, u64),
        open: &Open,
        served: Option<Served>,
    ) {
        let Some(Served { whole, tokens, .. }) = served else { return };
        let (key, key_day) = open.key.map(|(key, day, _)| (key, day)).unzip();
        let payment = if let Fund::Payment(p) = open.fund { Some(p) } else { None };
        let day = Timestamp::from_millis(self.now).day();
        let (key_day, allowance_day) = (key_day.unwrap_or(Day(0)), open.day);
        let slip =
            Slip { payer, key, payment, charge, allowance, credited, refunded: 0, whole, tokens, day, key_day, allowance_day };
        self.receipts.insert(request, slip);
    }
}
