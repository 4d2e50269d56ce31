//! `farebox verify`: are the books right, and do the keys say what their journal says? With `--chain`: does the chain agree? One JSON report; exit code 1 on a break.

use std::collections::HashMap;
use std::process::ExitCode;

use serde_json::json;

use super::{FOUND_A_PROBLEM, code_of, code_of_keys, machine_clock, say};
use crate::chain;
use crate::config::{Config, Settlement};
use crate::keys;
use crate::ledger::{self, Adjustment, Counted, Report, State};

#[derive(clap::Args)]
pub struct Arguments {
    /// Also look every payment up on its chain.
    #[arg(long)]
    chain: bool,
    /// First make what is derived anew: balances from the transfers, usage and limits from the receipts.
    #[arg(long)]
    repair_derived: bool,
}

pub fn run(arguments: &Arguments, config: Config) -> ExitCode {
    let path = config.data_dir.join(ledger::FILE);
    let repaired = if arguments.repair_derived { ledger::repair_derived(&path) } else { Ok(()) };
    let (mut open, mut claims) = (Vec::new(), Vec::new());
    let read = repaired.and_then(|()| {
        let by_hand = ledger::adjustments_of_file(&path)?;
        Report::of_file(&path, |counted| {
            open.extend(open_payment(&config, &counted));
            if arguments.chain {
                claims.extend(claim(counted, &by_hand));
            }
        })
    });
    let report = match read {
        Ok(found) => found,
        Err(error) => {
            say::err(format_args!("farebox: {}: {error}", path.display()));
            return ExitCode::from(code_of(&error));
        }
    };
    let mut problems = report.problems.clone();
    match keys(&config) {
        Ok(found) => problems.extend(found),
        Err(code) => return code,
    }
    let audit = arguments.chain.then(|| chain::audit(&config.networks, &claims, &machine_clock()));
    if let Some(audit) = &audit {
        problems.extend(audit.problems.clone());
    }
    let ok = problems.is_empty();
    let summary = json!({
        "ok": ok,
        "problems": problems,
        "postings": report.postings,
        "receipts": report.receipts,
        "key_events": report.key_events,
        "accounts": report.wallets,
        "house": report.house,
        "open_holds": report.open_holds,
        "payments": report.payments,
        "open_payments": open,
        "chain": audit.map(|audit| json!({ "found": audit.found, "unasked": audit.unasked })),
    });
    let shown = say::out(format_args!("{summary:#}")).inspect_err(|problem| say::err(format_args!("farebox: {problem}")));
    if ok && shown.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) }
}

/// What is wrong with the index of keys and its pepper, held against the journal in the books.
fn keys(config: &Config) -> Result<Vec<String>, ExitCode> {
    let (path, folder) = (config.data_dir.join(ledger::FILE), &config.data_dir);
    let journal = ledger::key_events_of_file(&path).map_err(|broken| {
        say::err(format_args!("farebox: {}: {broken}", path.display()));
        ExitCode::from(code_of(&broken))
    })?;
    keys::compare(&folder.join(keys::FOLDER), &folder.join(keys::PEPPER), &journal).map_err(|broken| {
        say::err(format_args!("farebox: {}: {broken}", folder.display()));
        ExitCode::from(code_of_keys(&broken))
    })
}

/// What the operator should know about a payment whose outcome nobody knows yet; no problem of the books.
fn open_payment(config: &Config, counted: &Counted) -> Option<String> {
    let payment = &counted.payment;
    if !matches!(payment.state, State::Claimed | State::Signed | State::Sent) {
        return None;
    }
    let settlement = config.networks.iter().find(|network| network.id == payment.network).map(|network| &network.settlement);
    let what_next = match settlement {
        None => "its network is not configured any more; configure it again and start the gateway",
        Some(Settlement::Facilitator { rpc_urls, .. }) if rpc_urls.is_empty() => {
            "it was handed to the facilitator and no node can be asked what became of it; name the network's rpc_urls and \
             start the gateway"
        }
        Some(Settlement::Facilitator { .. } | Settlement::Rpc { .. } | Settlement::Simulated) => {
            "the gateway finds its outcome on the chain while it runs"
        }
    };
    let sent: Vec<_> = payment.attempts.iter().map(|attempt| attempt.tx.as_str()).filter(|tx| !tx.is_empty()).collect();
    let sent = if sent.is_empty() { String::new() } else { format!(" (sent as {})", sent.join(", ")) };
    let (id, amount, payer, network) = (counted.id, payment.amount(), payment.payer, &payment.network);
    let whose = match &payment.payout {
        Some(payout) => format!("the payout {payout:?} to {payer}"),
        None => format!("of {payer}"),
    };
    Some(format!("{id}: {amount} USDC {whose} on {network}{sent}: {what_next}"))
}

/// What the chain must confirm: every payment the books count is a transfer there, and no payout that failed is one.
fn claim(Counted { id, payment: row }: Counted, by_hand: &HashMap<String, Adjustment>) -> Option<chain::Counted> {
    let payout = row.payout.map(|name| (name, row.payer));
    let taken = payout.as_ref().and_then(|(name, _)| by_hand.get(name)).is_some_and(|taken| {
        let amount = i64::try_from(row.amount).unwrap_or(i64::MAX);
        taken.account == row.payer && taken.micros == -amount && taken.at >= row.claimed_at
    });
    let (tx, failed) = match (row.state, &payout) {
        (State::Confirmed | State::Final, _) => (row.confirmed?.0, false),
        (State::Failed, Some(_)) => (row.attempts.into_iter().last().map(|tried| tried.tx).unwrap_or_default(), true),
        (State::Failed | State::Voided | State::Claimed | State::Signed | State::Sent, _) => return None,
    };
    Some(chain::Counted { id, payment: row.detail.into(), tx, payout, failed, taken })
}
