//! What was earned: a span of days added up by day, model, upstream and network, and what is owed to wallets against what came in.
//!
//! It reads the books of one moment row by row: memory grows with days, models and upstreams, never with calls.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::settle::ledger_unavailable;
use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::ids::PaymentId;
use crate::ledger::{Account, Broken, History, Kind, Ledger, Receipt, Reference, Span, State, Transfer};
use crate::money::Micros;
use crate::x402::names::Family;

/// What stands for an upstream that was not written down, as of calls that a crash ended.
pub const UNKNOWN: &str = "unknown";

/// All amounts in micro-USDC, but for fees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The first and the last day, such as `2026-11-21`, in UTC.
    pub from: String,
    pub until: String,
    pub made_at: String,
    pub total: Sold,
    pub days: BTreeMap<String, Sold>,
    pub models: BTreeMap<String, Sold>,
    pub upstreams: BTreeMap<String, Sold>,
    pub networks: BTreeMap<String, Received>,
    pub now: Standing,
}

/// What was sold. What is given back counts for the day on which it was given back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sold {
    pub calls: u64,
    /// What calls took of balances and payments; allowances are no revenue.
    pub revenue_micros: u64,
    pub refunded_micros: u64,
    /// What allowances paid, for which no money ever came.
    pub allowance_micros: u64,
    /// What upstreams ask for the calls of which that is known; nothing if it is known of none.
    pub cost_micros: Option<u64>,
    /// Calls whose cost is not known, and what they brought.
    pub calls_of_unknown_cost: u64,
    pub revenue_of_unknown_cost_micros: u64,
    /// What is left of revenue after refunds and costs; nothing as long as a cost is not known.
    pub margin_micros: Option<i64>,
}

/// What came in over one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    pub payments: u64,
    pub received_micros: u64,
    /// What of that became balance as a whole: top-ups, and payments whose call was gone.
    pub credited_micros: u64,
    /// What vanished from the chain after it had been counted.
    pub reversed_micros: u64,
    /// Payouts that reached the chain, and how much; less what of them vanished from it.
    pub payouts: u64,
    pub paid_out_micros: i64,
    /// Transactions of ours for which the chain took a fee, and how much in the smallest unit of its coin (wei, lamports).
    pub transactions: u64,
    pub fees: String,
    /// The same in micro-USD, by the `coin_usd` of the configuration; rounded up.
    pub fees_micros: Option<u64>,
}

/// How things stand now, whatever the span.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What wallets have: it is owed to them.
    pub liabilities_micros: u64,
    pub wallets: u64,
    /// Payments that are counted and whose call is running.
    pub in_transit_micros: u64,
    /// Balance that is on its way back to its wallets.
    pub outgoing_micros: u64,
    /// What came in on each chain and did not go out again, by the books.
    pub treasury_micros: BTreeMap<String, i64>,
    /// What was earned since the books began, and what was lost to transfers that vanished.
    pub earned_micros: i64,
    pub bad_debt_micros: i64,
    /// What was taken of wallets by hand; below zero what they were given.
    pub adjusted_micros: i64,
    /// Payments whose outcome no chain has said yet.
    pub open_payments: u64,
    pub open_payments_micros: u64,
    pub open_calls: u64,
}

impl Sold {
    fn add_call(&mut self, receipt: &Receipt) {
        self.calls += 1;
        self.revenue_micros = self.revenue_micros.saturating_add(receipt.paid());
        self.allowance_micros = self.allowance_micros.saturating_add(receipt.allowance);
        match receipt.cost {
            Some(cost) => self.cost_micros = Some(self.cost_micros.unwrap_or(0).saturating_add(cost)),
            None => {
                self.calls_of_unknown_cost += 1;
                let revenue = &mut self.revenue_of_unknown_cost_micros;
                *revenue = revenue.saturating_add(receipt.paid());
            }
        }
    }

    fn judge(&mut self) {
        if self.calls_of_unknown_cost > 0 {
            return;
        }
        let kept = i128::from(self.revenue_micros) - i128::from(self.refunded_micros);
        let margin = kept - i128::from(self.cost_micros.unwrap_or(0));
        self.margin_micros = i64::try_from(margin).ok();
    }
}

/// Adds a span up.
///
/// # Errors
/// `ledger_unavailable`: the books cannot be read.
pub fn report(ledger: &Ledger, clock: &Clock, span: Span) -> Result<Report, Error> {
    let unreadable = |broken: Broken| ledger_unavailable(&broken.to_string());
    let history = ledger.history().map_err(unreadable)?;
    let mut report = Report {
        from: span.from.to_string(),
        until: span.until.to_string(),
        made_at: clock.now().to_rfc3339(),
        ..Report::default()
    };
    report.add_calls(&history, span).map_err(unreadable)?;
    report.add_transfers(&history, span).map_err(unreadable)?;
    report.add_fees(&history, span).map_err(unreadable)?;
    report.now = standing(ledger, &history).map_err(unreadable)?;
    let sections = [&mut report.days, &mut report.models, &mut report.upstreams];
    let all = sections.into_iter().flat_map(BTreeMap::values_mut).chain([&mut report.total]);
    all.for_each(Sold::judge);
    Ok(report)
}

impl Report {
    /// Fees in USD, for the networks of which `coin_usd` says what their coin costs.
    pub fn price_fees(&mut self, coin_usd: impl Fn(&str) -> Option<Micros>) {
        for (id, received) in &mut self.networks {
            if received.transactions == 0 {
                received.fees_micros = Some(0);
            }
            let (Some(coin), Ok(amount)) = (coin_usd(id), received.fees.parse::<u128>()) else { continue };
            let units: u128 = match Family::of_network(id) {
                Some(Family::Evm) => 1_000_000_000_000_000_000,
                Some(Family::Solana) => 1_000_000_000,
                None => continue,
            };
            received.fees_micros = amount.checked_mul(u128::from(coin.get())).and_then(|usd| usd.div_ceil(units).try_into().ok());
        }
    }

    /// What a call, or a refund of one, is counted under.
    fn places(&mut self, at: Timestamp, receipt: &Receipt) -> [&mut Sold; 4] {
        let upstream = if receipt.upstream.is_empty() { UNKNOWN } else { &receipt.upstream };
        [
            &mut self.total,
            self.days.entry(at.day().to_string()).or_default(),
            entry(&mut self.models, &receipt.model),
            entry(&mut self.upstreams, upstream),
        ]
    }

    fn add_calls(&mut self, history: &History, span: Span) -> Result<(), Broken> {
        let _ = history.receipts(span, |_, receipt| {
            self.places(Timestamp::from_millis(receipt.at), &receipt).into_iter().for_each(|sold| sold.add_call(&receipt));
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    fn add_transfers(&mut self, history: &History, span: Span) -> Result<(), Broken> {
        let mut read = Ok(());
        // A payment that becomes balance as a whole does so with the next transfer, which comes before it here.
        let mut credited: Option<PaymentId> = None;
        let _ = history.transfers_back(span, |_, transfer| {
            read = self.add_transfer(history, &transfer, credited);
            credited = match (transfer.kind, transfer.reference) {
                (Kind::Credit, Reference::Payment(id)) => Some(id),
                _ => None,
            };
            if read.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        read
    }

    fn add_transfer(&mut self, history: &History, transfer: &Transfer, credited: Option<PaymentId>) -> Result<(), Broken> {
        let micros = transfer.amount.get();
        match (transfer.kind, transfer.reference, &transfer.debit, &transfer.credit) {
            (Kind::Refund, Reference::Request(request), ..) => {
                let Some(receipt) = history.receipt(request)? else { return Ok(()) };
                for sold in self.places(transfer.at, &receipt) {
                    sold.refunded_micros = sold.refunded_micros.saturating_add(micros);
                }
            }
            (Kind::Payment, Reference::Payment(id), Account::External(chain), _) => {
                let received = self.received(chain);
                received.payments += 1;
                received.received_micros = received.received_micros.saturating_add(micros);
                if credited == Some(id) {
                    received.credited_micros = received.credited_micros.saturating_add(micros);
                }
            }
            (Kind::Reversal, _, _, Account::External(chain)) => {
                let reversed = &mut self.received(chain).reversed_micros;
                *reversed = reversed.saturating_add(micros);
            }
            (Kind::Payout, _, Account::Outgoing, Account::External(chain)) => {
                let received = self.received(chain);
                received.payouts += 1;
                received.paid_out_micros = received.paid_out_micros.saturating_add_unsigned(micros);
            }
            (Kind::Payout, _, Account::External(chain), _) => {
                let paid_out = &mut self.received(chain).paid_out_micros;
                *paid_out = paid_out.saturating_sub_unsigned(micros);
            }
            // Charges and what was left of payments are in the receipts; what left a balance has not yet left us.
            (
                Kind::Payment | Kind::Charge | Kind::Credit | Kind::Reversal | Kind::Refund | Kind::Adjustment | Kind::Payout,
                ..,
            ) => {}
        }
        Ok(())
    }

    /// `chain` is a network and its token, with a slash between them.
    fn received(&mut self, chain: &str) -> &mut Received {
        entry(&mut self.networks, network_of(chain))
    }

    fn add_fees(&mut self, history: &History, span: Span) -> Result<(), Broken> {
        let mut sums: BTreeMap<String, u128> = BTreeMap::new();
        history.fees(span, |_, network, _, amount| {
            entry(&mut self.networks, network).transactions += 1;
            let sum = entry(&mut sums, network);
            *sum = sum.saturating_add(u128::from(amount));
        })?;
        for (network, received) in &mut self.networks {
            received.fees = sums.get(network).copied().unwrap_or(0).to_string();
        }
        Ok(())
    }
}

fn network_of(chain: &str) -> &str {
    chain.split_once('/').map_or(chain, |(network, _)| network)
}

/// The entry of a name, which is copied only where it is new.
fn entry<'m, V: Default>(map: &'m mut BTreeMap<String, V>, name: &str) -> &'m mut V {
    if !map.contains_key(name) {
        map.insert(name.to_owned(), V::default());
    }
    map.get_mut(name).expect("it was put there just now")
}

fn standing(ledger: &Ledger, history: &History) -> Result<Standing, Broken> {
    let mut now = Standing::default();
    let positive = |micros: i64| u64::try_from(micros).unwrap_or(0);
    history.balances(|account, micros| match account {
        Account::Wallet(_) => {
            now.liabilities_micros = now.liabilities_micros.saturating_add(positive(micros));
            now.wallets += u64::from(micros > 0);
        }
        Account::External(chain) => *entry(&mut now.treasury_micros, network_of(&chain)) -= micros,
        Account::Transit => now.in_transit_micros = positive(micros),
        Account::Outgoing => now.outgoing_micros = positive(micros),
        Account::Sales => now.earned_micros = micros,
        Account::BadDebt => now.bad_debt_micros = micros.saturating_neg(),
        Account::Adjustments => now.adjusted_micros = micros,
    })?;
    for (_, payment) in ledger.open_payments() {
        let is_waited_for = matches!(payment.state, State::Claimed | State::Signed | State::Sent);
        if is_waited_for && payment.payout.is_none() {
            now.open_payments += 1;
            now.open_payments_micros = now.open_payments_micros.saturating_add(payment.amount);
        }
    }
    now.open_calls = ledger.open_holds() as u64;
    Ok(now)
}
