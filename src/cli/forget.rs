//! `farebox keys forget-all`: the way on when the pepper of the keys is lost. Every key is revoked, since none can be checked any more.

use std::process::ExitCode;

use serde_json::json;

use super::operator::somebody_elses;
use super::serve::{Trouble, open_ledger, trouble};
use super::{BAD_CONFIGURATION, FAIL_STOP, FOUND_A_PROBLEM, USAGE, code_of_keys, machine_clock, say};
use crate::config::Config;
use crate::keys::{self, PEPPER};
use crate::ledger::Ledger;

const SURE: &str = "this ends every key of every wallet, for good: their owners have to mint new ones, and no money is touched. \
                    Restore data_dir/keys.pepper from a copy if there is one; otherwise say it with --yes";

pub fn run(sure: bool, config: &Config) -> ExitCode {
    if !sure {
        say::err(format_args!("farebox: {SURE}"));
        return ExitCode::from(USAGE);
    }
    let done = forget(config).and_then(|done| say::out(format_args!("{done:#}")).map_err(trouble(FOUND_A_PROBLEM)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble { message, code, .. }) => {
            say::err(format_args!("farebox: {message}"));
            ExitCode::from(code)
        }
    }
}

/// The gateway is stopped: while it runs it has its pepper, and the books.
fn forget(config: &Config) -> Result<serde_json::Value, Trouble> {
    if let Some(problem) = somebody_elses(&config.data_dir) {
        return Err(trouble(BAD_CONFIGURATION)(problem));
    }
    let ledger = open_ledger(config, machine_clock())?;
    let revoked = revoke_all(&ledger);
    ledger.close();
    let revoked = revoked?;
    // Not before they are revoked for good: until then it might be the right one, in want of a chmod.
    let pepper = config.data_dir.join(PEPPER);
    let old = keys::set_pepper_aside(&pepper).map_err(|broken| trouble(code_of_keys(&broken))(broken.to_string()))?;
    Ok(json!({ "revoked": revoked, "old_pepper": old.map(|path| path.display().to_string()) }))
}

fn revoke_all(ledger: &Ledger) -> Result<usize, Trouble> {
    let failed = |cause: String| trouble(FAIL_STOP)(cause);
    let journal = ledger.key_events_after(0).map_err(|denied| failed(denied.to_string()))?;
    let revoked = keys::revoked(&journal, machine_clock().now());
    let revoked = revoked.map_err(|broken| trouble(code_of_keys(&broken))(broken.to_string()))?;
    for record in &revoked {
        // The last wait is for all of them.
        let _ = ledger.journal_key(record.to_bytes()).map_err(|denied| failed(denied.to_string()))?;
    }
    let durable = ledger.flush().map_err(|denied| failed(denied.to_string()))?;
    durable.wait_blocking().map_err(|why| failed(why.to_string()))?;
    Ok(revoked.len())
}
