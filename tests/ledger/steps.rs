//! What can be asked of a ledger, as plain data: chosen at random, performed on a real ledger, foretold by the model.

use farebox::ledger::{Denied, Durable, Ledger, Paid, Reservation};
use farebox::money::Micros;
use farebox::tariff::Usage;

use super::{attempt, claim, draw, payment, wait, wallet};

/// Payments, by number, that a life can be about.
pub const PAYMENTS: u8 = 10;
/// Wallets, by number.
pub const WALLETS: u8 = 4;

/// One command. Amounts are micros; calls are counted in the list of calls that are open, and one beyond it does nothing.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    Claim { payment: u8, payer: u8, amount: u64 },
    Sign { payment: u8 },
    Send { payment: u8 },
    Confirm { payment: u8 },
    Reorg { payment: u8 },
    Fail { payment: u8 },
    Finalize { payment: u8 },
    Reserve { payer: u8, amount: u64 },
    Extend { call: usize, more: u64 },
    Checkpoint { call: usize, owed: u64 },
    Post { call: usize, owed: u64 },
    Part { call: usize, owed: u64 },
    Drop { call: usize },
}

impl Step {
    /// The next step, made of numbers that `pick` chooses below a bound.
    pub fn choose(pick: &mut impl FnMut(u64) -> u64) -> Step {
        let small = |number: u64| u8::try_from(number).unwrap_or(0);
        let kind = pick(32);
        let (payment, payer) = (small(pick(u64::from(PAYMENTS))), small(pick(u64::from(WALLETS))));
        let call = usize::from(small(pick(6)));
        let amount = match pick(24) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << 63,
            // Often the same, so that a payment is claimed again as it was.
            3..10 => 1_000,
            _ => pick(5_000),
        };
        match kind {
            0..6 => Step::Claim { payment, payer, amount },
            6..10 => Step::Sign { payment },
            10..12 => Step::Send { payment },
            12..17 => Step::Confirm { payment },
            17 => Step::Reorg { payment },
            18 => Step::Fail { payment },
            19 => Step::Finalize { payment },
            20..23 => Step::Reserve { payer, amount },
            23 => Step::Extend { call, more: amount },
            24..27 => Step::Checkpoint { call, owed: amount },
            27..29 => Step::Post { call, owed: amount },
            29 => Step::Part { call, owed: amount },
            _ => Step::Drop { call },
        }
    }

    /// All steps that `bytes` spell.
    pub fn spelled(bytes: &[u8]) -> Vec<Step> {
        let mut bytes = bytes.iter().copied();
        let mut steps = Vec::new();
        while bytes.len() > 0 {
            steps.push(Step::choose(&mut |bound| {
                let mut number = u64::from(bytes.next().unwrap_or(0));
                if bound > 256 {
                    number = number << 8 | u64::from(bytes.next().unwrap_or(0));
                }
                number % bound
            }));
        }
        steps
    }
}

/// A call in flight.
pub enum Call {
    /// Its money is not there yet, or nobody asked.
    Reserved(Reservation),
    Paid(Paid),
}

/// What a ledger said to a step.
pub enum Said {
    /// Done; its rows go to disk with the next commit.
    Done,
    /// Done, and this tells when it is durable.
    Promised(Durable),
    /// Done and durable.
    Durable,
    Refused,
    /// The ledger has stopped: done or not, nobody knows.
    Stopped,
}

/// Performs one step; `n` names the call that it may open.
pub fn perform(ledger: &Ledger, calls: &mut Vec<Call>, step: Step, n: u128) -> Said {
    match step {
        Step::Claim { payment: p, payer, amount } => match wait(ledger.claim(claim(payment(p), wallet(payer), amount, n))) {
            Ok(reservation) => {
                calls.push(Call::Reserved(reservation));
                Said::Durable
            }
            Err(denied) => said(denied),
        },
        Step::Sign { payment: p } => ledger.signed(payment(p), attempt()).map_or_else(said, Said::Promised),
        Step::Send { payment: p } => ledger.sent(payment(p)).map_or_else(said, |()| Said::Done),
        Step::Confirm { payment: p } => ledger.confirmed(payment(p), "0xaa", 1).map_or_else(said, Said::Promised),
        Step::Reorg { payment: p } => ledger.reorged(payment(p)).map_or_else(said, |()| Said::Done),
        Step::Fail { payment: p } => ledger.failed(payment(p), "proof").map_or_else(said, Said::Promised),
        Step::Finalize { payment: p } => ledger.finalized(payment(p)).map_or_else(said, |()| Said::Done),
        Step::Reserve { payer, amount } => match wait(ledger.reserve(draw(wallet(payer), amount, n))) {
            Ok(reservation) => {
                calls.push(Call::Reserved(reservation));
                Said::Done
            }
            Err(denied) => said(denied),
        },
        Step::Extend { call, .. }
        | Step::Checkpoint { call, .. }
        | Step::Post { call, .. }
        | Step::Part { call, .. }
        | Step::Drop { call }
            if call >= calls.len() =>
        {
            Said::Refused
        }
        Step::Extend { call, more } => with_paid(calls, call, |paid| match paid.extend(Micros::new(more)) {
            Ok(_) => Said::Done,
            Err(denied) => said(denied),
        }),
        // A note that nobody waits for says nothing, even if the call is not paid, or was ended from elsewhere.
        Step::Checkpoint { call, owed } => {
            with_paid(calls, call, |paid| {
                paid.checkpoint(Micros::new(owed));
                Said::Done
            });
            Said::Done
        }
        Step::Post { call, owed } => end(calls, call, |paid| _ = paid.post(Micros::new(owed), Usage::default())),
        Step::Part { call, owed } => end(calls, call, |paid| _ = paid.post_part(Micros::new(owed), Usage::default())),
        Step::Drop { call } => {
            drop(calls.swap_remove(call));
            Said::Done
        }
    }
}

fn said(denied: Denied) -> Said {
    match denied {
        Denied::Refused(_) => Said::Refused,
        Denied::Stopped(_) => Said::Stopped,
    }
}

/// Does something with a call whose money is there; the call stays open.
fn with_paid(calls: &mut Vec<Call>, call: usize, act: impl FnOnce(&mut Paid) -> Said) -> Said {
    let mut taken = calls.swap_remove(call);
    if let Call::Reserved(reservation) = taken {
        taken = reservation.paid().map_or_else(Call::Reserved, Call::Paid);
    }
    let said = match &mut taken {
        Call::Paid(paid) => act(paid),
        Call::Reserved(_) => Said::Refused,
    };
    calls.push(taken);
    let last = calls.len() - 1;
    calls.swap(call, last);
    said
}

/// Ends a call; one whose money is not there is given up.
fn end(calls: &mut Vec<Call>, call: usize, serve: impl FnOnce(Paid)) -> Said {
    let paid = match calls.swap_remove(call) {
        Call::Paid(paid) => Some(paid),
        Call::Reserved(reservation) => reservation.paid().ok(),
    };
    paid.map(serve);
    Said::Done
}
