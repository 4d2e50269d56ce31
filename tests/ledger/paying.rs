//! Payments and payouts of the model: from a claim to its end.

use farebox::clock::Day;
use farebox::ledger::{Movement, State};

use super::{Fund, Model, Open, Paying};

impl Model {
    pub(super) fn in_state(&mut self, payment: u8, states: &[State], change: impl FnOnce(&mut Paying)) -> bool {
        let Some(paying) = self.payments[usize::from(payment)].as_mut().filter(|paying| states.contains(&paying.state)) else {
            return false;
        };
        change(paying);
        true
    }

    /// Whether the call that a payment was claimed for is open.
    pub(super) fn runs(&self, payment: u8) -> bool {
        self.payments[usize::from(payment)].is_some_and(|paying| self.open.contains_key(&paying.request))
    }

    pub(super) fn claim(&mut self, payment: u8, payer: u8, amount: u64, n: u128, top_up: bool) -> bool {
        // A claim that was given back may be made again for the same authorization, not for another amount.
        let free = self.payments[usize::from(payment)].is_none_or(|p| p.state == State::Voided && p.amount == amount);
        if !free || self.blocked[usize::from(payer)] || amount > i64::MAX as u64 {
            return false;
        }
        let (state, credited, irreversible, vanished) = (State::Claimed, 0, false, false);
        let claimed_at = self.now;
        let paying =
            Paying { state, payer, amount, request: n, top_up, credited, irreversible, vanished, payout: None, claimed_at };
        self.payments[usize::from(payment)] = Some(paying);
        if top_up {
            self.deposits.push(payment);
        } else {
            let fund = Fund::Payment(payment);
            self.open.insert(n, Open { fund, amount, allowance: 0, day: Day(0), key: None, checkpoint: None });
            self.calls.push(n);
        }
        true
    }

    pub(super) fn pay_out(&mut self, id: u8, payment: u8, (payer, amount): (u8, u64), n: u128) -> bool {
        let before = self.payouts[usize::from(id)];
        let is_over = |p: u8| self.payments[usize::from(p)].is_none_or(|p| p.state == State::Failed && p.payout == Some(id));
        let same = before.is_none_or(|(whose, much, last)| (whose, much) == (payer, amount) && is_over(last));
        // What a chain can still take back is not paid out.
        let unsure = self.payments.iter().flatten().filter(|p| p.payer == payer && p.payout.is_none());
        let unsure = unsure.filter(|p| p.state == State::Confirmed && !p.irreversible);
        let unsure = unsure.filter(|p| p.vanished || p.claimed_at + 48 * 3_600_000 > self.now);
        let back = |p: &Paying| {
            let slip = self
                .receipts
                .get(&p.request)
                .filter(|slip| slip.payment.is_some_and(|it| self.payments[usize::from(it)] == Some(*p)));
            slip.map_or(0, |slip| slip.refunded)
        };
        let unsure = unsure.map(|p| p.credited + back(p)).sum::<u64>();
        if !same || !is_over(payment) || self.available(payer).saturating_sub(unsure) < amount {
            return false;
        }
        let (state, payout) = (State::Claimed, Some(id));
        let (credited, irreversible, vanished) = (0, false, false);
        let claimed_at = self.now;
        let paying =
            Paying { state, payer, amount, request: n, top_up: false, credited, irreversible, vanished, payout, claimed_at };
        (self.payments[usize::from(payment)], self.payouts[usize::from(id)]) = (Some(paying), Some((payer, amount, payment)));
        self.post(payer, -(amount as i64), Movement::Payout, None);
        true
    }

    pub(super) fn leave(&mut self, deposit: usize) -> bool {
        if deposit >= self.deposits.len() {
            return false;
        }
        let payment = self.deposits.swap_remove(deposit);
        self.in_state(payment, &[State::Claimed], |p| p.state = State::Voided);
        true
    }

    pub(super) fn confirm(&mut self, payment: u8) -> bool {
        let runs = self.runs(payment);
        let Some(paying) = self.payments[usize::from(payment)].as_mut() else { return false };
        // Also a claim that was given back: anybody may submit what was signed.
        if matches!(paying.state, State::Final | State::Failed) {
            return false;
        }
        paying.vanished = false;
        if paying.state != State::Confirmed {
            paying.state = State::Confirmed;
            if !runs && paying.payout.is_none() {
                paying.credited = paying.amount;
                let (payer, amount) = (paying.payer, paying.amount as i64);
                self.post(payer, amount, Movement::TopUp, None);
            }
        }
        true
    }

    pub(super) fn fail(&mut self, payment: u8) -> bool {
        let runs = self.runs(payment);
        let Some(paying) = self.payments[usize::from(payment)].as_mut() else { return false };
        let arrived = paying.state == State::Confirmed;
        let may = matches!(paying.state, State::Claimed | State::Signed | State::Sent) || (arrived && paying.vanished);
        if !may {
            return false;
        }
        paying.state = State::Failed;
        let Paying { payer, amount, credited, request, payout, .. } = *paying;
        if payout.is_some() {
            self.post(payer, amount as i64, Movement::Payout, None);
        } else if arrived && !runs {
            let refunded =
                self.receipts.get(&request).filter(|slip| slip.payment == Some(payment)).map_or(0, |slip| slip.refunded);
            let back = (credited + refunded).min(self.available(payer));
            self.post(payer, -(back as i64), Movement::TopUp, None);
            self.lost += amount - back;
        }
        self.open.remove(&request);
        true
    }
}
