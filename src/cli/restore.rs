//! `farebox restore`: a backup becomes the books again, in a data folder that has none; then the chains are asked what came in since.
//!
//! A payment that was used after the backup buys nothing again: its chain says that its authorization is used up, and such a
//! payment is refused before it is claimed.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::backup::{BESIDE, MANIFEST, Manifest, put, sum, wrong};
use super::serve::{Trouble, private_folder, trouble};
use super::{BAD_CONFIGURATION, FOUND_A_PROBLEM, USAGE, code_of, machine_clock, operator, say};
use crate::chain::{self, Arrival, Arrivals, Way};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::ids::RequestId;
use crate::keys;
use crate::ledger::{self, Broken, Counted, Report, Restoring, State};

/// How much earlier than the backup what came in is looked at: clocks differ, and a transfer may have waited for its block.
const EARLIER: Duration = Duration::from_secs(60 * 60);
/// What a payment may have been claimed before that and still arrive.
const MAY_ARRIVE: Duration = Duration::from_secs(2 * 24 * 60 * 60);

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
    vacant(to)?;
    private_folder(to).map_err(wrong(to))?;
    let restoring = Restoring::begin(&to.join(ledger::FILE)).map_err(broken)?;
    // Somebody may have started there before the folder was kept.
    vacant(to)?;
    let since = Timestamp::from_rfc3339(&manifest.made_at);
    let since = since.ok_or_else(|| trouble(FOUND_A_PROBLEM)(format!("{MANIFEST} says no time at which it was made")))?;
    let since = Timestamp::from_millis(since.millis().saturating_sub(millis(EARLIER)));
    let (report, seen) = place(from, to, &manifest, (restoring, since))?;
    let is_known = |tx: &str| seen.known.contains(&tx.to_lowercase());
    let moved = chain::arrivals(&config.networks, (since, machine_clock().now()), is_known);
    let (mut unknown, mut sent, mut unasked) = (Vec::new(), Vec::new(), Vec::new());
    for Arrivals { network, pay_to, found, left } in moved {
        for (about, way, moved, list) in
            [("what left", Way::Out, left, &mut sent), ("what came in", Way::In, found, &mut unknown)]
        {
            match moved {
                Ok(moved) => list.extend(moved.iter().filter(|one| !is_known(&one.tx)).map(|one| seen.shown(way, &network, one))),
                Err(why) => unasked.push(json!({ "network": network, "pay_to": pay_to, "about": about, "why": why })),
            }
        }
    }
    for one in &sent {
        say::err(format_args!("farebox: a transfer left pay_to that these books do not know: {one}"));
    }
    for one in &unknown {
        say::err(format_args!("farebox: a transfer came in that these books do not know: {one}"));
    }
    let told = json!({
        "restored": to, "made_at": manifest.made_at, "postings": report.postings, "receipts": report.receipts,
        "not_in_the_books": unknown, "sent_and_not_in_the_books": sent, "not_asked": unasked, "calls_under_way": seen.under_way,
        "know": "what happened after the backup is forgotten: keys that were revoked since are good again, wallets that were blocked since are served again, what was spent since is not \
                 spent, and a job or a balance of since is gone. Payments of since buy nothing again; those under not_in_the_books were \
                 paid to you, and what of them is owed only their buyers can say. \
                 Those under sent_and_not_in_the_books left pay_to: of a payout of since, whose wallet has its balance again, take \
                 that with farebox adjust by the same --id, and do not ask for it again by its id: on Solana it would be paid twice. \
                 What may be a payment that was on its way then is followed by the gateway, and `perhaps` has the ids of those, each \
                 of which is one transfer at most: adjust nothing before you have seen what comes of it. A transfer of nothing is one that no node shows. \
                 Those under calls_under_way stood for calls that had not ended: what was not charged of them by then becomes balance of \
                 their payers, also where the call was answered after the backup; farebox adjust takes it back",
    });
    say::out(format_args!("{told:#}")).map_err(trouble(FOUND_A_PROBLEM))
}

/// Books are put where none are. The pepper of a restore that was cut off is one that nobody has used: the books come last.
fn vacant(to: &Path) -> Result<(), Trouble> {
    let is_cut_off = ledger::unchecked_books(&to.join(ledger::FILE)).exists();
    let in_the_way = [ledger::FILE, keys::FOLDER].into_iter().chain((!is_cut_off).then_some(keys::PEPPER));
    match in_the_way.into_iter().find(|name| to.join(name).exists()) {
        None => Ok(()),
        Some(there) => {
            let (to, moved) = (to.display(), to.with_extension("before"));
            Err(trouble(USAGE)(format!(
                "{to} has {there}, and nothing is written over: stop the gateway and move the folder away, for example to {}",
                moved.display()
            )))
        }
    }
}

fn broken(broken: Broken) -> Trouble {
    trouble(code_of(&broken))(broken.to_string())
}

/// Reads what a backup says of itself and holds every file against it.
fn manifest(folder: &Path) -> Result<Manifest, Trouble> {
    let path = folder.join(MANIFEST);
    let text = fs::read(&path).map_err(wrong(&path))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| trouble(FOUND_A_PROBLEM)(format!("{}: {error}", path.display())))?;
    for file in &manifest.files {
        // A name leads to a file of this folder and nowhere else.
        let known = [ledger::FILE].iter().chain(&BESIDE).any(|known| *known == file.name);
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

/// What the payments in a backup say.
#[derive(Default)]
struct Seen {
    /// The transactions of the latest ones.
    known: HashSet<String>,
    under_way: Vec<Value>,
    /// Payments on their way, by what is known of their transfers: the gateway finds out itself what became of them.
    on_their_way: HashMap<Moved, Vec<String>>,
}

/// Which way a transfer goes, on which network, from or to whom, and how many micros.
type Moved = (Way, String, String, u64);

impl Seen {
    /// A transfer that the books do not know by its transaction.
    fn shown(&self, way: Way, network: &str, one: &Arrival) -> Value {
        let key = (way, network.to_owned(), one.other.to_lowercase(), one.amount.get());
        let other = if way == Way::Out { "to" } else { "from" };
        let mut shown =
            json!({ "network": network, "tx": one.tx, other: one.other, "amount_usd": one.amount.as_usd(), "block": one.block });
        if let Some(ids) = self.on_their_way.get(&key) {
            shown["perhaps"] = json!(ids);
        }
        shown
    }
}

/// Puts the files where they belong, the books last: until those are there, nothing starts with half of a backup. Returns what
/// the books say.
fn place(
    from: &Path,
    to: &Path,
    manifest: &Manifest,
    (restoring, since): (Restoring, Timestamp),
) -> Result<(Report, Seen), Trouble> {
    let books = to.join(ledger::FILE);
    let unchecked = ledger::unchecked_books(&books);
    put_again(&from.join(ledger::FILE), &unchecked).map_err(wrong(&unchecked))?;
    let mut seen = Seen::default();
    let recent = since.millis().saturating_sub(millis(MAY_ARRIVE));
    let visit = |counted: Counted| {
        seen.under_way.extend(under_way(&counted));
        let payment = counted.payment;
        // What was only claimed is given back at the start, but for a payout.
        let is_followed = match payment.state {
            State::Signed | State::Sent => true,
            State::Claimed => payment.payout.is_some(),
            // Its block may be replaced, and then it is sent again under another name.
            State::Confirmed => !payment.irreversible,
            State::Final | State::Voided | State::Failed => false,
        };
        if is_followed {
            let way = if payment.payout.is_some() { Way::Out } else { Way::In };
            let moved = (way, payment.network.clone(), payment.payer.address().to_lowercase(), payment.amount);
            seen.on_their_way.entry(moved).or_default().push(counted.id.to_string());
        }
        if payment.claimed_at >= recent || payment.is_open() {
            seen.known.extend(payment.confirmed.map(|(tx, _)| tx.to_lowercase()));
            seen.known.extend(payment.attempts.into_iter().map(|attempt| attempt.tx.to_lowercase()));
        }
    };
    let report = restoring.check(visit).map_err(broken)?;
    // Of a restore that was cut off before the books were there, maybe of another backup.
    for name in BESIDE {
        let _ = fs::remove_file(to.join(name));
    }
    if let Some(problem) = report.problems.first() {
        let _ = fs::remove_file(&unchecked);
        return Err(trouble(FOUND_A_PROBLEM)(format!("the books of this backup are broken: {problem}; take another one")));
    }
    for file in manifest.files.iter().filter(|file| file.name != ledger::FILE) {
        let place = to.join(&file.name);
        put(&from.join(&file.name), &place).map_err(wrong(&place))?;
    }
    restoring.note(machine_clock().now()).map_err(broken)?;
    restoring.place().map_err(wrong(&books))?;
    Ok((report, seen))
}

/// Copies a file over what an earlier try left of it. It is never away meanwhile: without it a start would make empty books.
fn put_again(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    io::copy(&mut source, &mut target)?;
    target.sync_all()
}

/// A payment that was on its way, or stood for a call that ran: what comes of it the start decides without knowing what the
/// call delivered after the backup.
fn under_way(Counted { id, payment }: &Counted) -> Option<Value> {
    let is_sent = matches!(payment.state, State::Signed | State::Sent | State::Confirmed);
    (is_sent && !payment.top_up && payment.payout.is_none() && payment.outcome.is_none()).then(|| {
        let sent = payment.attempts.last().map(|attempt| &attempt.tx);
        json!({
            "payment": id.to_string(), "request": RequestId(payment.request).to_string(), "payer": payment.payer.to_string(),
            "amount_usd": payment.amount().as_usd(), "network": payment.network,
            "tx": payment.confirmed.as_ref().map(|(tx, _)| tx).or(sent),
        })
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
