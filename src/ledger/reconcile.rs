//! Every payment held against its postings, in passes over so many payments that memory stays bounded.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use super::Broken;
use super::derived::{Fingerprint, add_served};
use super::rows::{Account, Fund, Hold, Kind, Outcome, Payment, Reference, State, Transfer};
use super::snapshot::Snapshot;
use super::verify::{Report, arrival};
use crate::ids::{PaymentId, RequestId};

/// About a hundred megabytes; each pass reads all postings once.
pub(super) const PAYMENTS_IN_A_PASS: usize = 65_536;

/// What the postings say of the payments of one pass.
#[derive(Default)]
struct Pass {
    /// The payments and the calls they are for.
    wanted: HashSet<Reference>,
    /// Micros that came in for each payment, and how often.
    arrived: HashMap<PaymentId, (i64, u32)>,
    reversed: HashSet<PaymentId>,
    /// What each payout has on its way, and what of it reached its chain.
    outgoing: HashMap<PaymentId, (i64, i64)>,
    /// What each call or payment brought to an account: charges to sales, credits to wallets.
    brought: HashMap<(Reference, Account), i64>,
}

/// Adds what is wrong with payments to the report. `arrivals` is how many transfers say that money came in for one, and
/// `served` what the receipts say of those that paid for calls.
pub(super) fn check(
    snapshot: &Snapshot,
    arrivals: u64,
    served: Fingerprint,
    in_a_pass: usize,
    report: &mut Report,
) -> Result<(), Broken> {
    let mut own = Fingerprint::default();
    let mut running = HashMap::new();
    snapshot.holds(|request, hold| {
        running.insert(request, hold);
    })?;
    let (mut explained, mut after) = (0u64, None);
    loop {
        let payments = snapshot.payments_after(after, in_a_pass)?;
        let Some((last, ..)) = payments.last() else { break };
        after = Some(*last);
        let mut pass = Pass::default();
        for (id, payment, _) in &payments {
            pass.wanted.extend([Reference::Payment(*id), Reference::Request(RequestId(payment.request))]);
        }
        let _ = snapshot.transfers(|_, transfer| {
            pass.add(&transfer);
            ControlFlow::Continue(())
        })?;
        for (id, payment, listed) in payments {
            if let Some(Outcome::Served { charge, credited }) = payment.outcome {
                add_served(&mut own, RequestId(payment.request), (id, payment.payer), charge, credited);
            }
            explained += pass.arrived.get(&id).map_or(0, |(_, times)| u64::from(*times));
            *report.payments.entry(format!("{:?}", payment.state).to_lowercase()).or_default() += 1;
            pass.judge(id, &payment, listed, &running, &mut report.problems);
        }
    }
    if own != served {
        report.problems.push("payments do not say of the calls that they paid for what the receipts say".into());
    }
    if explained != arrivals { name_the_unknown(snapshot, &mut report.problems) } else { Ok(()) }
}

/// Looks each payment up: slow, and only done when it is known that one is missing.
fn name_the_unknown(snapshot: &Snapshot, problems: &mut Vec<String>) -> Result<(), Broken> {
    let mut failed = None;
    let _ = snapshot.transfers(|_, transfer| {
        let Some(id) = arrival(&transfer) else { return ControlFlow::Continue(()) };
        match snapshot.payment(id) {
            Ok(Some(_)) => {}
            Ok(None) => problems.push(format!("money was counted for {id}, which nobody knows")),
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(()), Err)
}

impl Pass {
    fn add(&mut self, transfer: &Transfer) {
        if !self.wanted.contains(&transfer.reference) {
            return;
        }
        let amount = i64::try_from(transfer.amount.get()).unwrap_or(i64::MAX);
        if let Some(id) = arrival(transfer) {
            let (sum, times) = self.arrived.entry(id).or_default();
            *sum += amount;
            *times += 1;
        }
        // What a call took of a balance beside its payment is none of the payment's.
        let is_of_payment = matches!((transfer.kind, &transfer.debit), (Kind::Charge | Kind::Credit, Account::Transit));
        if is_of_payment && matches!(transfer.credit, Account::Sales | Account::Wallet(_)) {
            *self.brought.entry((transfer.reference, transfer.credit.clone())).or_default() += amount;
        }
        match (transfer.kind, transfer.reference) {
            (Kind::Reversal, Reference::Payment(id)) => _ = self.reversed.insert(id),
            (Kind::Payout, Reference::Payment(id)) => {
                let (on_its_way, arrived) = self.outgoing.entry(id).or_default();
                for (account, amount) in transfer.postings() {
                    match account {
                        Account::Outgoing => *on_its_way += amount,
                        Account::External(_) => *arrived += amount,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// A payout is on its way until its chain has it, and nowhere once it has failed.
    fn payout_problem(&self, id: PaymentId, payment: &Payment) -> Option<String> {
        let amount = i64::try_from(payment.amount).unwrap_or(i64::MAX);
        let (wanted, posted) = match (&payment.payout, payment.state) {
            (None, _) => ((0, 0), self.outgoing.get(&id).copied().unwrap_or_default()),
            (Some(_), state) => {
                let on_its_way = matches!(state, State::Claimed | State::Signed | State::Sent);
                let arrived = matches!(state, State::Confirmed | State::Final);
                let wanted = (if on_its_way { amount } else { 0 }, if arrived { amount } else { 0 });
                (wanted, self.outgoing.get(&id).copied().unwrap_or_default())
            }
        };
        (wanted != posted).then(|| {
            let ((way, there), state) = (posted, payment.state);
            format!("the payout {id} is {state:?} over {amount} micros, but {way} are on their way and {there} arrived")
        })
    }

    fn judge(
        &self,
        id: PaymentId,
        payment: &Payment,
        listed: bool,
        holds: &HashMap<RequestId, Hold>,
        problems: &mut Vec<String>,
    ) {
        if payment.is_open() != listed {
            problems.push(format!("{id} is {:?}, but the list of open payments disagrees", payment.state));
        }
        problems.extend(self.payout_problem(id, payment));
        if payment.payout.is_some() {
            return;
        }
        let (arrived, times) = self.arrived.get(&id).copied().unwrap_or_default();
        let counted = matches!(payment.state, State::Confirmed | State::Final) || self.reversed.contains(&id);
        // A payment of nothing, for a model that is free, moves nothing and leaves no posting.
        let once = u32::from(payment.amount > 0);
        if counted && (times != once || u64::try_from(arrived) != Ok(payment.amount)) {
            problems.push(format!(
                "{id} is {:?} over {} micros, but {arrived} were counted in {times} postings",
                payment.state, payment.amount
            ));
        }
        if !counted && times != 0 {
            problems.push(format!("{id} is {:?}, but money was counted for it", payment.state));
        }
        let running = holds.get(&RequestId(payment.request)).is_some_and(|hold| hold.fund == Fund::Payment(id));
        problems.extend(outcome_problem(id, payment, running, self));
    }
}

/// A payment that is counted and whose call has ended has an outcome that adds up to its amount, and the postings brought
/// exactly that to the operator and to its payer.
fn outcome_problem(id: PaymentId, payment: &Payment, running: bool, pass: &Pass) -> Option<String> {
    if running || !matches!(payment.state, State::Confirmed | State::Final) {
        return None;
    }
    let (charge, credited) = match payment.outcome {
        Some(Outcome::Served { charge, credited }) => (charge, credited),
        Some(Outcome::Credited { amount }) => (0, amount),
        None => return Some(format!("{id} over {} micros has no outcome and no running call", payment.amount)),
    };
    if charge.checked_add(credited) != Some(payment.amount) || (payment.top_up && charge > 0) {
        return Some(format!("{id} over {} micros ended as {:?}", payment.amount, payment.outcome));
    }
    let references = [Reference::Payment(id), Reference::Request(RequestId(payment.request))];
    let brought = |account: Account| -> i64 {
        references.iter().filter_map(|reference| pass.brought.get(&(*reference, account.clone()))).sum()
    };
    let (charged, given) = (brought(Account::Sales), brought(Account::Wallet(payment.payer)));
    let agrees = u64::try_from(charged) == Ok(charge) && u64::try_from(given) == Ok(credited);
    (!agrees).then(|| {
        format!("{id} ended as {:?}, but its postings charge {charged} micros and credit its payer {given}", payment.outcome)
    })
}
