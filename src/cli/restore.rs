//! `farebox restore`: a backup becomes the books again, in a data folder that has none; then the chains are asked what came in since.
//!
//! A payment that was used after the backup buys nothing again: its chain says that its authorization is used up, and such a
//! payment is refused before it is claimed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::backup::{MANIFEST, Manifest, put, sum, sync_folder, wrong};
use super::serve::{Trouble, private_folder, trouble};
use super::{BAD_CONFIGURATION, FOUND_A_PROBLEM, USAGE, code_of, operator, say};
use crate::chain::{self, Arrivals};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::keys;
use crate::ledger::{self, Counted, Report};
use crate::money::Micros;

/// How much earlier than the backup what came in is looked at: clocks differ, and a transfer may have waited for its block.
const EARLIER: Duration = Duration::from_secs(60 * 60);
/// What a payment may have been claimed before that and still arrive.
const MAY_ARRIVE: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// The books until they are checked.
const UNCHECKED: &str = "ledger.restored";

#[derive(clap::Args)]
pub struct Arguments {
    /// The folder of the backup.
    folder: PathBuf,
}

pub fn run(arguments: &Arguments, config: &Config) -> Result<(), Trouble> {
    let (from, to) = (&arguments.folder, &config.data_dir);
    let manifest = manifest(from)?;
    if let Some(problem) = operator::somebody_elses(to) {
        return Err(trouble(BAD_CONFIGURATION)(problem));
    }
    if let Some(there) = [ledger::FILE, keys::PEPPER, keys::FOLDER].into_iter().find(|name| to.join(name).exists()) {
        let (to, moved) = (to.display(), to.with_extension("before"));
        return Err(trouble(USAGE)(format!(
            "{to} has {there}, and nothing is written over: stop the gateway and move the folder away, for example to {}",
            moved.display()
        )));
    }
    private_folder(to).map_err(wrong(to))?;
    let since = Timestamp::from_rfc3339(&manifest.made_at);
    let since = since.ok_or_else(|| trouble(FOUND_A_PROBLEM)(format!("{MANIFEST} says no time at which it was made")))?;
    let since = Timestamp::from_millis(since.millis().saturating_sub(millis(EARLIER)));
    let (report, known) = place(from, to, &manifest, since)?;
    let (unknown, unasked) = unmatched(&chain::arrivals(&config.networks, since), &known);
    for one in &unknown {
        say::err(format_args!("farebox: a transfer came in that these books do not know: {one}"));
    }
    let told = json!({
        "restored": to, "made_at": manifest.made_at, "postings": report.postings, "receipts": report.receipts,
        "not_in_the_books": unknown, "not_asked": unasked,
        "know": "what happened after the backup is forgotten: keys that were revoked since are good again, what was spent since is not \
                 spent, and a job or a balance of since is gone. Payments of since buy nothing again; those under not_in_the_books were \
                 paid to you, and what of them is owed only their buyers can say",
    });
    say::out(format_args!("{told:#}")).map_err(trouble(FOUND_A_PROBLEM))
}

/// Reads what a backup says of itself and holds every file against it.
fn manifest(folder: &Path) -> Result<Manifest, Trouble> {
    let path = folder.join(MANIFEST);
    let text = fs::read(&path).map_err(wrong(&path))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| trouble(FOUND_A_PROBLEM)(format!("{}: {error}", path.display())))?;
    for file in &manifest.files {
        // A name leads to a file of this folder and nowhere else.
        let known = [ledger::FILE, keys::PEPPER, "prices.json"].contains(&file.name.as_str());
        let path = folder.join(&file.name);
        if !known || sum(&path).map_err(wrong(&path))? != file.sha256 {
            return Err(trouble(FOUND_A_PROBLEM)(format!("{} is not what was backed up; take another backup", path.display())));
        }
    }
    match manifest.files.iter().any(|file| file.name == ledger::FILE) {
        true => Ok(manifest),
        false => Err(trouble(FOUND_A_PROBLEM)(format!("{} names no books", path.display()))),
    }
}

/// Puts the files where they belong, the books last: until those are there, nothing starts with half of a backup. Returns what
/// the books say and the transactions of their latest payments.
fn place(from: &Path, to: &Path, manifest: &Manifest, since: Timestamp) -> Result<(Report, HashSet<String>), Trouble> {
    let unchecked = to.join(UNCHECKED);
    let _ = fs::remove_file(&unchecked);
    put(&from.join(ledger::FILE), &unchecked).map_err(wrong(&unchecked))?;
    let mut known = HashSet::new();
    let recent = since.millis().saturating_sub(millis(MAY_ARRIVE));
    let visit = |Counted { payment, .. }: Counted| {
        if payment.claimed_at >= recent {
            known.extend(payment.confirmed.map(|(tx, _)| tx.to_lowercase()));
            known.extend(payment.attempts.into_iter().map(|attempt| attempt.tx.to_lowercase()));
        }
    };
    let report = Report::of_file(&unchecked, visit).map_err(|broken| trouble(code_of(&broken))(broken.to_string()))?;
    if let Some(problem) = report.problems.first() {
        let _ = fs::remove_file(&unchecked);
        return Err(trouble(FOUND_A_PROBLEM)(format!("the books of this backup are broken: {problem}; take another one")));
    }
    for file in manifest.files.iter().filter(|file| file.name != ledger::FILE) {
        let place = to.join(&file.name);
        // Of a restore that was cut off before the books were there.
        let _ = fs::remove_file(&place);
        put(&from.join(&file.name), &place).map_err(wrong(&place))?;
    }
    let books = to.join(ledger::FILE);
    sync_folder(to).and_then(|()| fs::rename(&unchecked, &books)).and_then(|()| sync_folder(to)).map_err(wrong(&books))?;
    Ok((report, known))
}

/// What came in that the books do not know, and where nobody could be asked.
fn unmatched(arrivals: &[Arrivals], known: &HashSet<String>) -> (Vec<Value>, Vec<Value>) {
    let (mut unknown, mut unasked) = (Vec::new(), Vec::new());
    for Arrivals { network, pay_to, found } in arrivals {
        match found {
            Ok(found) => {
                let new = found.iter().filter(|one| !known.contains(&one.tx.to_lowercase()));
                unknown.extend(new.map(|one| {
                    let usd = Micros::new(one.amount.get()).as_usd();
                    json!({ "network": network, "tx": one.tx, "from": one.from, "amount_usd": usd, "block": one.block })
                }));
            }
            Err(why) => unasked.push(json!({ "network": network, "pay_to": pay_to, "why": why })),
        }
    }
    (unknown, unasked)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
