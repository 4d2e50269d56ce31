//! A model of the ledger so simple that it is obviously right: a map of balances, a list of payments, a list of calls.

use farebox::account::AccountId;
use farebox::ledger::{Ledger, Outcome, Payment, State};

use super::steps::{PAYMENTS, Step, WALLETS};
use super::{payment, wallet};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Paying {
    state: State,
    payer: u8,
    amount: u64,
    /// The call it was claimed for.
    request: u128,
    /// What of it became balance.
    credited: u64,
    /// Finalized while its call ran.
    irreversible: bool,
    /// Seen to vanish from the chain, and not seen again.
    vanished: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fund {
    Wallet(u8),
    Payment(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Open {
    fund: Fund,
    amount: u64,
    /// What it owes so far, once bytes went out.
    checkpoint: Option<u64>,
}

/// What the books must say.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Model {
    balance: [u64; WALLETS as usize],
    payments: [Option<Paying>; PAYMENTS as usize],
    open: Vec<(u128, Open)>,
    /// The calls that somebody still has in hand, in the order of `perform`'s list; some may have been ended from elsewhere.
    in_hand: Vec<u128>,
    sales: u64,
    /// What vanished from the chain and had been spent.
    lost: u64,
}

/// What can be seen of a ledger from outside.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Seen {
    balances: Vec<u64>,
    payments: Vec<Option<SeenPayment>>,
    open: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SeenPayment {
    state: State,
    payer: AccountId,
    amount: u64,
    credited: u64,
    irreversible: bool,
    vanished: bool,
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
        let Payment { state, payer, amount, irreversible, reorged, .. } = *row;
        SeenPayment { state, payer, amount, credited, irreversible, vanished: reorged }
    }
}

impl Seen {
    pub fn of(ledger: &Ledger) -> Seen {
        Seen {
            balances: (0..WALLETS).map(|n| ledger.available(wallet(n)).get()).collect(),
            payments: (0..PAYMENTS).map(|n| ledger.payment(payment(n)).unwrap().map(|row| SeenPayment::of(&row))).collect(),
            open: ledger.open_holds(),
        }
    }
}

impl Model {
    pub fn seen(&self) -> Seen {
        let payment = |paying: &Paying| {
            let Paying { state, payer, amount, credited, irreversible, vanished, .. } = *paying;
            SeenPayment { state, payer: wallet(payer), amount, credited, irreversible, vanished }
        };
        Seen {
            balances: self.balance.to_vec(),
            payments: self.payments.iter().map(|paying| paying.as_ref().map(payment)).collect(),
            open: self.open.len(),
        }
    }

    /// What the operator earned and what was lost to the chain, as the books of the house name them.
    pub fn house(&self) -> (i64, i64) {
        (self.sales as i64, -(self.lost as i64))
    }

    /// Takes one step; says whether the ledger must do it as well. `n` names the call that it may open.
    pub fn take(&mut self, step: Step, n: u128) -> bool {
        match step {
            Step::Claim { payment, payer, amount } => self.claim(payment, payer, amount, n),
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
            Step::Reserve { payer, amount } => self.reserve(payer, amount, n),
            Step::Extend { call, more } => self.extend(call, more),
            Step::Checkpoint { call, owed } => {
                if let Some(open) = self.paid_call(call).and_then(|request| self.open_mut(request)) {
                    open.checkpoint = Some(owed.min(open.amount));
                }
                call < self.in_hand.len()
            }
            Step::Post { call, owed } | Step::Part { call, owed } => {
                let served = self.paid_call(call).map(|_| owed);
                self.let_go(call, served)
            }
            Step::Drop { call } => self.let_go(call, None),
        }
    }

    /// What a restart does: nobody serves the open calls any more.
    pub fn restarted(mut self) -> Model {
        self.in_hand.clear();
        for (request, open) in self.open.clone() {
            self.end(request, open.checkpoint);
        }
        self
    }

    /// The open calls, given up one after the other.
    pub fn given_up(mut self) -> Model {
        for request in std::mem::take(&mut self.in_hand) {
            self.end(request, None);
        }
        self
    }

    fn open(&self, request: u128) -> Option<Open> {
        self.open.iter().find(|(other, _)| *other == request).map(|(_, open)| *open)
    }

    fn open_mut(&mut self, request: u128) -> Option<&mut Open> {
        self.open.iter_mut().find(|(other, _)| *other == request).map(|(_, open)| open)
    }

    fn balance_of(&self, payer: u8) -> u64 {
        self.balance[usize::from(payer)]
    }

    fn credit(&mut self, payer: u8, amount: u64) {
        self.balance[usize::from(payer)] += amount;
    }

    fn in_state(&mut self, payment: u8, states: &[State], change: impl FnOnce(&mut Paying)) -> bool {
        let Some(paying) = self.payments[usize::from(payment)].as_mut().filter(|paying| states.contains(&paying.state)) else {
            return false;
        };
        change(paying);
        true
    }

    /// Whether the call that a payment was claimed for is open.
    fn runs(&self, payment: u8) -> bool {
        self.payments[usize::from(payment)].is_some_and(|paying| self.open(paying.request).is_some())
    }

    fn claim(&mut self, payment: u8, payer: u8, amount: u64, n: u128) -> bool {
        // A claim that was given back may be made again for the same authorization, not for another amount.
        let free = self.payments[usize::from(payment)].is_none_or(|p| p.state == State::Voided && p.amount == amount);
        if !free || amount > i64::MAX as u64 {
            return false;
        }
        let paying =
            Paying { state: State::Claimed, payer, amount, request: n, credited: 0, irreversible: false, vanished: false };
        self.payments[usize::from(payment)] = Some(paying);
        self.open.push((n, Open { fund: Fund::Payment(payment), amount, checkpoint: None }));
        self.in_hand.push(n);
        true
    }

    fn confirm(&mut self, payment: u8) -> bool {
        let runs = self.runs(payment);
        let Some(paying) = self.payments[usize::from(payment)].as_mut() else { return false };
        // Also a claim that was given back: anybody may submit what was signed.
        if matches!(paying.state, State::Final | State::Failed) {
            return false;
        }
        paying.vanished = false;
        if paying.state != State::Confirmed {
            paying.state = State::Confirmed;
            if !runs {
                paying.credited = paying.amount;
                let (payer, amount) = (paying.payer, paying.amount);
                self.credit(payer, amount);
            }
        }
        true
    }

    fn fail(&mut self, payment: u8) -> bool {
        let runs = self.runs(payment);
        let Some(paying) = self.payments[usize::from(payment)].as_mut() else { return false };
        let arrived = paying.state == State::Confirmed;
        let may = matches!(paying.state, State::Claimed | State::Signed | State::Sent) || (arrived && paying.vanished);
        if !may {
            return false;
        }
        paying.state = State::Failed;
        let Paying { payer, amount, credited, request, .. } = *paying;
        if arrived && !runs {
            let back = credited.min(self.balance_of(payer));
            self.balance[usize::from(payer)] -= back;
            self.lost += amount - back;
        }
        self.open.retain(|(other, _)| *other != request);
        true
    }

    fn reserve(&mut self, payer: u8, amount: u64, n: u128) -> bool {
        if self.balance_of(payer) < amount {
            return false;
        }
        self.balance[usize::from(payer)] -= amount;
        self.open.push((n, Open { fund: Fund::Wallet(payer), amount, checkpoint: None }));
        self.in_hand.push(n);
        true
    }

    fn extend(&mut self, call: usize, more: u64) -> bool {
        let Some(request) = self.paid_call(call) else { return false };
        let Some(Open { fund: Fund::Wallet(payer), .. }) = self.open(request) else { return false };
        // As much as there is; nothing at all is a refusal.
        let granted = self.balance_of(payer).min(more);
        if granted == 0 && more > 0 {
            return false;
        }
        self.balance[usize::from(payer)] -= granted;
        self.open_mut(request).into_iter().for_each(|open| open.amount += granted);
        true
    }

    /// A call in hand whose money is there.
    fn paid_call(&self, call: usize) -> Option<u128> {
        let request = *self.in_hand.get(call)?;
        let there = match self.open(request)?.fund {
            Fund::Wallet(_) => true,
            Fund::Payment(p) => self.payments[usize::from(p)].is_some_and(|paying| paying.state == State::Confirmed),
        };
        there.then_some(request)
    }

    fn let_go(&mut self, call: usize, owed: Option<u64>) -> bool {
        if call >= self.in_hand.len() {
            return false;
        }
        let request = self.in_hand.swap_remove(call);
        self.end(request, owed);
        true
    }

    /// Ends a call; `owed` is `None` when nothing was delivered.
    fn end(&mut self, request: u128, owed: Option<u64>) {
        let Some(place) = self.open.iter().position(|(other, _)| *other == request) else { return };
        let (_, open) = self.open.swap_remove(place);
        let charge = owed.unwrap_or(0).min(open.amount);
        match open.fund {
            Fund::Wallet(payer) => {
                self.sales += charge;
                self.credit(payer, open.amount - charge);
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
                        self.credit(payer, credited);
                    }
                    State::Signed | State::Sent | State::Final | State::Voided | State::Failed => {}
                }
            }
        }
    }
}
