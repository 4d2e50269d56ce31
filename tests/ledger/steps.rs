//! What can be asked of a ledger, as plain data: chosen at random, performed on a real ledger, foretold by the model.

use std::time::Duration;

use farebox::clock::{Period, Timestamp};
use farebox::ids::{Funds as _, RequestId};
use farebox::ledger::{Denied, Deposit, Durable, Grant, KeyDraw, Ledger, Nonce, Paid, Reservation};
use farebox::money::Micros;
use farebox::tariff::Usage;

use super::{Hands, attempt, claim, draw, key, payment, wait, wallet};

/// Payments, by number, that a life can be about.
pub const PAYMENTS: u8 = 10;
/// Wallets, by number.
pub const WALLETS: u8 = 4;
/// Keys, by number, each with another period.
pub const KEYS: [Period; 4] = [Period::Ever, Period::Day, Period::Week, Period::Month];
/// Sign-ins, by number.
pub const NONCES: u8 = 6;
/// For how long a sign-in is good.
const SIGN_IN: Duration = Duration::from_secs(330);

const HOUR: i64 = 3_600_000;

/// One command. Amounts are micros; calls are counted in the list of calls that are open, and one beyond it does nothing.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    Claim {
        payment: u8,
        payer: u8,
        amount: u64,
    },
    Deposit {
        payment: u8,
        payer: u8,
        amount: u64,
    },
    /// Lets go of a top-up that is in hand.
    Leave {
        deposit: usize,
    },
    Sign {
        payment: u8,
    },
    Send {
        payment: u8,
    },
    Confirm {
        payment: u8,
    },
    Reorg {
        payment: u8,
    },
    Fail {
        payment: u8,
    },
    Finalize {
        payment: u8,
    },
    Reserve {
        payer: u8,
        amount: u64,
        by: By,
    },
    Extend {
        call: usize,
        more: u64,
    },
    Checkpoint {
        call: usize,
        owed: u64,
    },
    Post {
        call: usize,
        owed: u64,
    },
    Part {
        call: usize,
        owed: u64,
    },
    Drop {
        call: usize,
    },
    /// Of a call that was let go, counted in their list.
    Refund {
        call: usize,
        amount: u64,
    },
    Grant {
        payer: u8,
        per_day: Option<u64>,
    },
    UseNonce {
        nonce: u8,
    },
    /// Bars a wallet, or lets it in again.
    Block {
        payer: u8,
        on: bool,
    },
    KeyEvent,
    /// The clock goes on, or is set back.
    Wait {
        millis: i64,
    },
}

/// What speaks for the wallet of a call, and what that may.
#[derive(Debug, Clone, Copy)]
pub struct By {
    pub key: Option<u8>,
    pub limit: Option<u64>,
    pub nonce: Option<u8>,
    pub most_calls: usize,
}

impl Step {
    /// The next step, made of numbers that `pick` chooses below a bound.
    pub fn choose(pick: &mut impl FnMut(u64) -> u64) -> Step {
        let small = |number: u64| u8::try_from(number).unwrap_or(0);
        let kind = pick(50);
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
            0..5 => Step::Claim { payment, payer, amount },
            5..8 => Step::Deposit { payment, payer, amount },
            8 => Step::Leave { deposit: call },
            9..13 => Step::Sign { payment },
            13 => Step::Send { payment },
            14..20 => Step::Confirm { payment },
            20 => Step::Reorg { payment },
            21 => Step::Fail { payment },
            22 => Step::Finalize { payment },
            23..31 => Step::Reserve { payer, amount, by: By::choose(pick) },
            31..33 => Step::Extend { call, more: amount },
            33..36 => Step::Checkpoint { call, owed: amount },
            36..39 => Step::Post { call, owed: amount },
            39 => Step::Part { call, owed: amount },
            40 => Step::Drop { call },
            41 => Step::Refund { call, amount },
            42..44 => Step::Grant { payer, per_day: (call > 0).then_some(amount) },
            44 => Step::UseNonce { nonce: small(pick(u64::from(NONCES))) },
            45 => Step::KeyEvent,
            // Less often than it ends, so that there is somebody to sell to.
            46..48 => Step::Block { payer, on: call > 3 },
            _ => Step::Wait { millis: [HOUR, 13 * HOUR, 24 * HOUR, 2_000 * HOUR, -2_100 * HOUR, -7 * HOUR][call] },
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

impl By {
    fn choose(pick: &mut impl FnMut(u64) -> u64) -> By {
        let small = |number: u64| u8::try_from(number).unwrap_or(0);
        let chosen = pick(64);
        let limit = chosen / 8 % 4;
        By {
            key: (chosen % 2 == 1).then(|| small(chosen / 2 % 4)),
            limit: (limit > 0).then_some(limit * 1_500),
            nonce: (chosen >= 40).then(|| small(chosen % u64::from(NONCES))),
            most_calls: [usize::MAX, usize::MAX, 2, usize::MAX][usize::from(small(chosen / 16))],
        }
    }
}

/// A call in flight.
pub enum Call {
    /// Its money is not there yet, or nobody asked.
    Reserved(Reservation),
    Paid(Paid),
}

impl Call {
    fn request(&self) -> RequestId {
        match self {
            Call::Reserved(reservation) => reservation.request(),
            Call::Paid(paid) => paid.request(),
        }
    }
}

/// What a life has in hand: the calls it serves, the top-ups it waits for, the calls that it let go; and its clock.
pub struct InHand {
    pub calls: Vec<Call>,
    deposits: Vec<Deposit>,
    ended: Vec<RequestId>,
    hands: Hands,
}

impl InHand {
    pub fn nothing(hands: &Hands) -> InHand {
        InHand { calls: Vec::new(), deposits: Vec::new(), ended: Vec::new(), hands: hands.clone() }
    }
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
pub fn perform(ledger: &Ledger, in_hand: &mut InHand, step: Step, n: u128) -> Said {
    let calls = &mut in_hand.calls;
    match step {
        Step::Claim { payment: p, payer, amount } => match wait(ledger.claim(claim(payment(p), wallet(payer), amount, n))) {
            Ok(reservation) => {
                calls.push(Call::Reserved(reservation));
                Said::Durable
            }
            Err(denied) => said(denied),
        },
        Step::Deposit { payment: p, payer, amount } => match wait(ledger.deposit(claim(payment(p), wallet(payer), amount, n))) {
            Ok(deposit) => {
                in_hand.deposits.push(deposit);
                Said::Durable
            }
            Err(denied) => said(denied),
        },
        Step::Leave { deposit } if deposit >= in_hand.deposits.len() => Said::Refused,
        Step::Leave { deposit } => {
            drop(in_hand.deposits.swap_remove(deposit));
            Said::Done
        }
        Step::Sign { payment: p } => ledger.signed(payment(p), attempt()).map_or_else(said, Said::Promised),
        Step::Send { payment: p } => ledger.sent(payment(p)).map_or_else(said, |()| Said::Done),
        Step::Confirm { payment: p } => ledger.confirmed(payment(p), "0xaa", 1).map_or_else(said, Said::Promised),
        Step::Reorg { payment: p } => ledger.reorged(payment(p)).map_or_else(said, |()| Said::Done),
        Step::Fail { payment: p } => ledger.failed(payment(p), "proof").map_or_else(said, Said::Promised),
        Step::Finalize { payment: p } => ledger.finalized(payment(p)).map_or_else(said, |()| Said::Done),
        Step::Reserve { payer, amount, by } => reserve(ledger, in_hand, (payer, amount), by, n),
        Step::Refund { call, amount } => refund(ledger, in_hand, call, amount),
        Step::Grant { payer, per_day } => {
            let grant = per_day.map(|per_day| Grant { per_day, from: None, until: None, note: String::new() });
            ledger.grant(wallet(payer), grant).map_or_else(said, Said::Promised)
        }
        Step::UseNonce { nonce: number } => {
            ledger.use_nonce(nonce(number, in_hand.hands.now())).map_or_else(said, Said::Promised)
        }
        Step::Block { payer, on: true } => wait(ledger.block(wallet(payer), "spam")).map_or_else(said, |_| Said::Durable),
        Step::Block { payer, on: false } => wait(ledger.unblock(wallet(payer))).map_or_else(said, |_| Said::Durable),
        Step::KeyEvent => ledger.journal_key(event(n)).map_or_else(said, |(_, durable)| Said::Promised(durable)),
        Step::Wait { millis } => {
            in_hand.hands.set(in_hand.hands.now().saturating_add_signed(millis));
            Said::Done
        }
        Step::Extend { call, .. }
        | Step::Checkpoint { call, .. }
        | Step::Post { call, .. }
        | Step::Part { call, .. }
        | Step::Drop { call }
            if call >= calls.len() =>
        {
            Said::Refused
        }
        Step::Extend { .. } | Step::Checkpoint { .. } | Step::Post { .. } | Step::Part { .. } | Step::Drop { .. } => {
            go_on(in_hand, step)
        }
    }
}

/// Goes on with a call that is in hand, or ends it.
fn go_on(in_hand: &mut InHand, step: Step) -> Said {
    let calls = &mut in_hand.calls;
    match step {
        Step::Extend { call, more } => with_paid(calls, call, |paid| {
            let before = paid.ceiling();
            match paid.extend(Micros::new(more)) {
                Ok(granted) => {
                    assert!(granted.get() <= more && paid.ceiling() == before.checked_add(granted).unwrap());
                    Said::Done
                }
                Err(denied) => said(denied),
            }
        }),
        // A note that nobody waits for says nothing, even if the call is not paid, or was ended from elsewhere.
        Step::Checkpoint { call, owed } => {
            with_paid(calls, call, |paid| {
                paid.checkpoint(Micros::new(owed));
                Said::Done
            });
            Said::Done
        }
        Step::Post { call, owed } => end(in_hand, call, |paid| _ = paid.post(Micros::new(owed), usage(owed))),
        Step::Part { call, owed } => end(in_hand, call, |paid| _ = paid.post_part(Micros::new(owed), usage(owed))),
        Step::Drop { call } => {
            in_hand.ended.push(calls[call].request());
            drop(calls.swap_remove(call));
            Said::Done
        }
        _ => Said::Refused,
    }
}

fn reserve(ledger: &Ledger, in_hand: &mut InHand, (payer, amount): (u8, u64), by: By, n: u128) -> Said {
    let mut draw = draw(wallet(payer), amount, n);
    let limit = by.limit.map(Micros::new);
    draw.key = by.key.map(|number| KeyDraw { id: key(number), limit, period: KEYS[usize::from(number)] });
    draw.nonce = by.nonce.map(|number| nonce(number, in_hand.hands.now()));
    draw.most_calls = by.most_calls;
    match wait(ledger.reserve(draw)) {
        Ok(reservation) => {
            in_hand.calls.push(Call::Reserved(reservation));
            Said::Done
        }
        Err(denied) => said(denied),
    }
}

fn refund(ledger: &Ledger, in_hand: &InHand, call: usize, amount: u64) -> Said {
    let Some(request) = in_hand.ended.get(call) else { return Said::Refused };
    // A receipt is there once it is durable.
    match ledger.flush().map(Durable::wait_blocking) {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Said::Stopped,
        Err(denied) => return said(denied),
    }
    // Sometimes all that can be.
    let total = Some(Micros::new(amount)).filter(|total| !total.is_zero());
    wait(ledger.refund(*request, total)).map_or_else(said, |_| Said::Durable)
}

pub fn nonce(number: u8, now: u64) -> Nonce {
    Nonce { id: [number; 16], forget_at: Timestamp::from_millis(now).plus(SIGN_IN) }
}

/// When the sign-in that is used now is forgotten, an hour after it has ended.
pub fn forgotten(now: u64) -> u64 {
    Timestamp::from_millis(now).plus(SIGN_IN).plus(Duration::from_secs(3600)).millis()
}

pub fn event(n: u128) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

/// What an upstream says that a call used, which need not be true.
pub fn usage(owed: u64) -> Usage {
    Usage { input: owed, output: owed / 3, cache_read: 7, cache_write_5m: owed, cache_write_1h: 1, units: owed % 5 }
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
fn end(in_hand: &mut InHand, call: usize, serve: impl FnOnce(Paid)) -> Said {
    let taken = in_hand.calls.swap_remove(call);
    in_hand.ended.push(taken.request());
    let paid = match taken {
        Call::Paid(paid) => Some(paid),
        Call::Reserved(reservation) => reservation.paid().ok(),
    };
    paid.map(serve);
    Said::Done
}
