//! `farebox verify`: are the books right? With `--chain`: does the chain agree? One JSON report; exit code 1 on a break.

use std::process::ExitCode;

use serde_json::json;

use super::{FAIL_STOP, FOUND_A_PROBLEM};
use crate::chain;
use crate::config::Config;
use crate::ledger::{self, Counted, Report, State};

#[derive(clap::Args)]
pub struct Arguments {
    /// Also look every payment up on its chain.
    #[arg(long)]
    chain: bool,
    /// First make balances and the wallets' lists anew from the postings.
    #[arg(long)]
    repair_derived: bool,
}

pub fn run(arguments: &Arguments, config: Config) -> ExitCode {
    let path = config.data_dir.join(ledger::FILE);
    let repaired = if arguments.repair_derived { ledger::repair_derived(&path) } else { Ok(()) };
    let (report, payments) = match repaired.and_then(|()| Report::of_file(&path)) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("farebox: {}: {error}", path.display());
            return ExitCode::from(FAIL_STOP);
        }
    };
    let mut problems = report.problems.clone();
    let audit = arguments.chain.then(|| against_the_chain(&config, payments));
    if let Some(audit) = &audit {
        problems.extend(audit.problems.clone());
    }
    let ok = problems.is_empty();
    let summary = json!({
        "ok": ok,
        "problems": problems,
        "postings": report.postings,
        "accounts": report.wallets,
        "house": report.house,
        "open_holds": report.open_holds,
        "payments": report.payments,
        "chain": audit.map(|audit| json!({ "found": audit.found, "unasked": audit.unasked })),
    });
    println!("{summary:#}");
    if ok { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) }
}

/// Every payment the books count must be a transfer on its chain.
fn against_the_chain(config: &Config, payments: Vec<Counted>) -> chain::Audit {
    let counted = payments.into_iter().filter(|counted| matches!(counted.payment.state, State::Confirmed | State::Final));
    let claims = counted.filter_map(|counted| {
        let (tx, _) = counted.payment.confirmed?;
        Some(chain::Counted { id: counted.id, payment: counted.payment.detail.into(), tx })
    });
    chain::audit(&config.networks, &claims.collect::<Vec<_>>())
}
