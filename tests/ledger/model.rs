//! Random commands against a model so simple that it is obviously right: a map of balances and a list of payments.

use std::collections::HashMap;

use farebox::ids::{Funds as _, RequestId};
use farebox::ledger::{Denied, Ledger, Options, Refused, Reservation};
use farebox::money::Micros;
use proptest::prelude::*;

use super::disk::{Disk, Trouble};
use super::{attempt, claim, clock, payment, wait, wallet};

#[derive(Debug, Clone)]
enum Step {
    Claim { payment: u8, payer: u8, amount: u64 },
    Sign { payment: u8 },
    Confirm { payment: u8 },
    Reorg { payment: u8 },
    Fail { payment: u8 },
    Finalize { payment: u8 },
    Reserve { payer: u8, amount: u64 },
    Post { call: usize, owed: u64 },
    Drop { call: usize },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (id, payer, amount) = (0u8..6, 0u8..3, 0u64..5_000);
    let paid = prop_oneof![1u64..5_000, Just(1_000u64)];
    let step = prop_oneof![
        4 => (id.clone(), payer.clone(), paid).prop_map(|(payment, payer, amount)| Step::Claim { payment, payer, amount }),
        4 => id.clone().prop_map(|payment| Step::Sign { payment }),
        4 => id.clone().prop_map(|payment| Step::Confirm { payment }),
        1 => id.clone().prop_map(|payment| Step::Reorg { payment }),
        1 => id.clone().prop_map(|payment| Step::Fail { payment }),
        1 => id.prop_map(|payment| Step::Finalize { payment }),
        4 => (payer, amount.clone()).prop_map(|(payer, amount)| Step::Reserve { payer, amount }),
        4 => (0usize..8, amount).prop_map(|(call, owed)| Step::Post { call, owed }),
        2 => (0usize..8).prop_map(|call| Step::Drop { call }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Phase {
    Free,
    Claimed,
    Signed,
    Arrived,
    Final,
    Failed,
}

#[derive(Clone, Copy)]
struct Paying {
    phase: Phase,
    payer: u8,
    amount: u64,
    /// The open call it pays for.
    call: Option<u128>,
    /// What of it became balance.
    credited: u64,
    /// Finalized while its call ran.
    irreversible: bool,
    /// Seen to vanish from the chain, and not seen again.
    vanished: bool,
}

#[derive(Default)]
struct Model {
    balance: HashMap<u8, u64>,
    payments: HashMap<u8, Paying>,
    /// Open calls of wallets: payer and amount.
    calls: HashMap<u128, (u8, u64)>,
}

impl Model {
    fn credit(&mut self, payer: u8, amount: u64) {
        *self.balance.entry(payer).or_default() += amount;
    }

    /// Ends a call; `owed` is `None` when nothing was delivered.
    fn end(&mut self, request: u128, owed: Option<u64>) {
        if let Some((payer, amount)) = self.calls.remove(&request) {
            self.credit(payer, amount - owed.unwrap_or(0).min(amount));
        }
        let Some(paying) = self.payments.values_mut().find(|paying| paying.call == Some(request)) else { return };
        paying.call = None;
        let (payer, back) = (paying.payer, paying.amount - owed.unwrap_or(0).min(paying.amount));
        match paying.phase {
            Phase::Claimed => paying.phase = Phase::Free,
            Phase::Arrived | Phase::Final => {
                paying.credited = back;
                if paying.irreversible {
                    paying.phase = Phase::Final;
                }
                self.credit(payer, back);
            }
            Phase::Free | Phase::Signed | Phase::Failed => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_ledger_agrees_with_a_simple_model_after_every_step(steps in steps()) {
        let mut disk = Disk::new(Trouble::None);
        let mut ledger = Ledger::open_on(disk.clone(), clock(), Options::default()).unwrap().0;
        let mut model = Model::default();
        let mut calls: Vec<Reservation> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            if let Step::Restart = step {
                ledger.close();
                // The crash: calls in flight are ended by the next start.
                for call in calls.drain(..) {
                    model.end(call.request().0, None);
                    std::mem::forget(call);
                }
                disk = disk.reopened();
                ledger = Ledger::open_on(disk.clone(), clock(), Options::default()).unwrap().0;
            } else {
                take(&ledger, &mut model, &mut calls, step, n as u128)?;
            }
            for payer in 0..3 {
                prop_assert_eq!(ledger.available(wallet(payer)).get(), model.balance.get(&payer).copied().unwrap_or(0));
            }
        }
        drop(calls);
        ledger.close();
        drop(ledger);
        let ledger = Ledger::open_on(disk.reopened(), clock(), Options::default()).unwrap().0;
        let report = ledger.verify().unwrap();
        prop_assert!(report.ok, "{:?}", report.problems);
    }
}

fn take(ledger: &Ledger, model: &mut Model, calls: &mut Vec<Reservation>, step: Step, n: u128) -> Result<(), TestCaseError> {
    match step {
        Step::Claim { payment: p, payer, amount } => buy(ledger, model, calls, (p, payer, amount), n)?,
        Step::Sign { payment: p } => {
            let may = model
                .payments
                .get(&p)
                .is_some_and(|paying| matches!(paying.phase, Phase::Claimed | Phase::Signed | Phase::Arrived));
            prop_assert_eq!(ledger.signed(payment(p), attempt()).is_ok(), may);
            if let Some(paying) = model.payments.get_mut(&p).filter(|paying| paying.phase == Phase::Claimed) {
                paying.phase = Phase::Signed;
            }
        }
        Step::Confirm { payment: p } => confirm(ledger, model, p)?,
        Step::Reorg { payment: p } => {
            let paying = model.payments.get_mut(&p).filter(|paying| paying.phase == Phase::Arrived);
            prop_assert_eq!(ledger.reorged(payment(p)).is_ok(), paying.is_some());
            paying.into_iter().for_each(|paying| paying.vanished = true);
        }
        Step::Fail { payment: p } => fail(ledger, model, p)?,
        Step::Finalize { payment: p } => {
            let paying = model.payments.get_mut(&p).filter(|paying| paying.phase == Phase::Arrived);
            prop_assert_eq!(ledger.finalized(payment(p)).is_ok(), paying.is_some());
            if let Some(paying) = paying {
                paying.irreversible = true;
                if paying.call.is_none() {
                    paying.phase = Phase::Final;
                }
            }
        }
        Step::Reserve { payer, amount } => {
            let enough = model.balance.get(&payer).copied().unwrap_or(0) >= amount;
            let reserved = wait(ledger.reserve(wallet(payer), Micros::new(amount), RequestId(n), "echo"));
            prop_assert_eq!(reserved.is_ok(), enough);
            if let Ok(reservation) = reserved {
                *model.balance.entry(payer).or_default() -= amount;
                model.calls.insert(n, (payer, amount));
                calls.push(reservation);
            }
        }
        Step::Post { call, owed } if call < calls.len() => {
            let reservation = calls.swap_remove(call);
            let request = reservation.request().0;
            match reservation.paid() {
                Ok(paid) => {
                    let _ = paid.post(Micros::new(owed));
                    model.end(request, Some(owed));
                }
                Err(reservation) => {
                    drop(reservation);
                    model.end(request, None);
                }
            }
        }
        Step::Drop { call } if call < calls.len() => {
            let reservation = calls.swap_remove(call);
            model.end(reservation.request().0, None);
            drop(reservation);
        }
        Step::Post { .. } | Step::Drop { .. } | Step::Restart => {}
    }
    Ok(())
}

fn buy(
    ledger: &Ledger,
    model: &mut Model,
    calls: &mut Vec<Reservation>,
    (p, payer, amount): (u8, u8, u64),
    n: u128,
) -> Result<(), TestCaseError> {
    // A claim that was given back may be made again for the same authorization, not for another amount.
    let free = model.payments.get(&p).is_none_or(|paying| paying.phase == Phase::Free && paying.amount == amount);
    match wait(ledger.claim(claim(payment(p), wallet(payer), amount, n))) {
        Ok(reservation) => {
            prop_assert!(free, "payment {} was sold twice", p);
            calls.push(reservation);
            let paying =
                Paying { phase: Phase::Claimed, payer, amount, call: Some(n), credited: 0, irreversible: false, vanished: false };
            model.payments.insert(p, paying);
        }
        Err(denied) => prop_assert!(!free && matches!(denied, Denied::Refused(Refused::Known(_))), "{:?}", denied),
    }
    Ok(())
}

fn confirm(ledger: &Ledger, model: &mut Model, p: u8) -> Result<(), TestCaseError> {
    let phase = model.payments.get(&p).map(|paying| paying.phase);
    // Also a claim that was given back: anybody may submit what was signed.
    let may = matches!(phase, Some(Phase::Free | Phase::Claimed | Phase::Signed | Phase::Arrived));
    prop_assert_eq!(ledger.confirmed(payment(p), "0xaa", 1).map(|durable| durable.wait_blocking()).is_ok(), may);
    let Some(paying) = model.payments.get_mut(&p).filter(|_| may) else { return Ok(()) };
    paying.vanished = false;
    if paying.phase == Phase::Arrived {
        return Ok(());
    }
    paying.phase = Phase::Arrived;
    if paying.call.is_none() {
        paying.credited = paying.amount;
        let (payer, amount) = (paying.payer, paying.amount);
        model.credit(payer, amount);
    }
    Ok(())
}

fn fail(ledger: &Ledger, model: &mut Model, p: u8) -> Result<(), TestCaseError> {
    let may = model.payments.get(&p).is_some_and(|paying| match paying.phase {
        Phase::Claimed | Phase::Signed => true,
        Phase::Arrived => paying.vanished,
        Phase::Free | Phase::Final | Phase::Failed => false,
    });
    prop_assert_eq!(ledger.failed(payment(p), "proof").is_ok(), may);
    if let Some(paying) = model.payments.get_mut(&p).filter(|_| may) {
        paying.phase = Phase::Failed;
        paying.call = None;
        let (payer, credited) = (paying.payer, paying.credited);
        let balance = model.balance.entry(payer).or_default();
        *balance -= credited.min(*balance);
    }
    Ok(())
}
