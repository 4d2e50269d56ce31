//! What an owner is told about an account: what it has, what it used, what moved, and what one call cost.

use serde_json::{Value, json};

use super::settle::ledger_unavailable;
use crate::account::AccountId;
use crate::clock::{Day, Period, Timestamp};
use crate::error::{Code, Error};
use crate::ids::RequestId;
use crate::ledger::{Denied, Entry, Grant, Ledger, Movement, Receipt, Standing, Used};
use crate::money::{Micros, signed_usd};

/// Days of usage that are shown when nobody says how many, and at most.
pub const DAYS: usize = 30;
pub const MOST_DAYS: usize = 366;
/// Lines of a statement that are shown when nobody says how many, and at most.
pub const LINES: usize = 50;
pub const MOST_LINES: usize = 100;
/// Lines that may be passed over, at most: each is read.
pub const MOST_OFFSET: usize = 1_000_000;

fn stopped(denied: &Denied) -> Error {
    ledger_unavailable(&denied.to_string())
}

fn usd(micros: u64) -> serde_json::Number {
    Micros::new(micros).as_usd()
}

/// Waits until everything that was answered before is on disk, where it is read: who has just got an answer sees its call.
/// It blocks.
fn catch_up(ledger: &Ledger) -> Result<(), Error> {
    let durable = ledger.flush().map_err(|denied| stopped(&denied))?;
    durable.wait_blocking().map_err(|why| ledger_unavailable(&why.to_string()))
}

/// What an account can spend now.
///
/// # Errors
/// `ledger_unavailable`.
pub fn now(ledger: &Ledger, account: AccountId) -> Result<Standing, Error> {
    ledger.standing(account).map_err(|denied| stopped(&denied))
}

/// Whether an account ever had money here, or has an allowance.
///
/// # Errors
/// `ledger_unavailable`.
pub fn is_known(ledger: &Ledger, account: AccountId) -> Result<bool, Error> {
    ledger.knows(account).map_err(|denied| stopped(&denied))
}

/// What an account has now, all from one moment. Money is USD, times are RFC 3339.
///
/// # Errors
/// `ledger_unavailable`.
pub fn standing(ledger: &Ledger, account: AccountId, now: Timestamp) -> Result<Value, Error> {
    let standing = self::now(ledger, account)?;
    let grant = ledger.grant_of(account).map_err(|denied| stopped(&denied))?;
    Ok(json!({
        "account": account.to_string(),
        "balance_usd": standing.posted.as_usd(),
        "held_usd": standing.held.as_usd(),
        "available_usd": standing.available.as_usd(),
        "open_calls": standing.open_calls,
        "allowance": grant.map(|grant| allowance(&grant, standing.allowance, now)),
    }))
}

/// An allowance, and what is left of it today.
fn allowance(grant: &Grant, left: Micros, now: Timestamp) -> Value {
    json!({
        "usd_per_day": usd(grant.per_day),
        "today_usd": grant.of(now).as_usd(),
        "left_usd": left.as_usd(),
        "renews_at": Period::Day.renews(now).map(Timestamp::to_rfc3339),
        "valid_from": grant.from.map(|from| Timestamp::from_millis(from).to_rfc3339()),
        "valid_until": grant.until.map(|until| Timestamp::from_millis(until).to_rfc3339()),
    })
}

/// What an account used on the last `days` days, today among them: sums by day, key and model. It blocks, as all that reads
/// the disk.
///
/// # Errors
/// `ledger_unavailable`.
pub fn usage(ledger: &Ledger, account: AccountId, days: usize, now: Timestamp) -> Result<Value, Error> {
    let before_today = u32::try_from(days.saturating_sub(1)).unwrap_or(u32::MAX);
    let since = Day(now.day().0.saturating_sub(before_today));
    catch_up(ledger)?;
    let used = ledger.usage(account, since).map_err(|denied| stopped(&denied))?;
    let sum = |of: fn(&Used) -> u64| used.iter().fold(0u64, |sum, row| sum.saturating_add(of(row)));
    let row = |row: &Used| {
        json!({
            "date": date(row.day),
            "key": row.key,
            "model": row.model,
            "calls": row.calls,
            "charge_usd": usd(row.charge),
            "allowance_usd": usd(row.allowance),
            "input_tokens": row.input,
            "output_tokens": row.output,
        })
    };
    Ok(json!({
        "from": date(since),
        "to": date(now.day()),
        "total": {
            "calls": sum(|row| row.calls),
            "charge_usd": usd(sum(|row| row.charge)),
            "allowance_usd": usd(sum(|row| row.allowance)),
            "input_tokens": sum(|row| row.input),
            "output_tokens": sum(|row| row.output),
        },
        "rows": used.iter().map(row).collect::<Vec<_>>(),
    }))
}

fn date(day: Day) -> String {
    day.began().to_rfc3339().chars().take("2026-01-02".len()).collect()
}

/// Lines of an account's statement, the newest first, and what it has posted. It blocks.
///
/// # Errors
/// `ledger_unavailable`.
pub fn transactions(ledger: &Ledger, account: AccountId, limit: usize, offset: usize) -> Result<Value, Error> {
    catch_up(ledger)?;
    let (entries, more) = ledger.statement(account, limit, offset).map_err(|denied| stopped(&denied))?;
    let line = |entry: &Entry| {
        let (network, transaction) = arrival(ledger, entry)?.unzip();
        Ok::<_, Error>(json!({
            "id": entry.number.to_string(),
            "type": match entry.movement {
                Movement::TopUp => "TOP_UP",
                Movement::Charge => "CHARGE",
                Movement::Refund => "REFUND",
                Movement::Adjustment => "ADJUSTMENT",
                Movement::Payout => "PAYOUT",
            },
            "amount_usd": signed_usd(entry.amount),
            "balance_after_usd": signed_usd(entry.balance_after),
            "at": entry.at.to_rfc3339(),
            "request_id": entry.request.map(|request| request.to_string()),
            "model": entry.model,
            "network": network,
            "transaction": transaction,
        }))
    };
    let lines: Vec<_> = entries.iter().map(line).collect::<Result<_, _>>()?;
    Ok(json!({
        "account": account.to_string(),
        "transactions": lines,
        "pagination": { "limit": limit, "offset": offset, "has_more": more },
    }))
}

/// The network and the transaction by which a line's payment arrived, if it is about one.
fn arrival(ledger: &Ledger, entry: &Entry) -> Result<Option<(String, String)>, Error> {
    let Some(id) = entry.payment else { return Ok(None) };
    let payment = ledger.payment(id).map_err(|denied| stopped(&denied))?;
    Ok(payment.and_then(|payment| Some((payment.network, payment.confirmed?.0))))
}

/// The receipt of one call of this account. It blocks.
///
/// # Errors
/// `not_found`, also for a call of somebody else; `ledger_unavailable`.
pub fn receipt(ledger: &Ledger, account: AccountId, request: RequestId) -> Result<Value, Error> {
    catch_up(ledger)?;
    let receipt = ledger.receipt(request).map_err(|denied| stopped(&denied))?;
    let unknown = "you have no call with this id that was charged; a call is found once its answer has ended";
    let receipt = receipt.filter(|receipt| receipt.account == account).ok_or_else(|| Error::new(Code::NotFound, unknown))?;
    let mut shown = shown(request, &receipt);
    if let Some(id) = receipt.payment {
        let payment = ledger.payment(id).map_err(|denied| stopped(&denied))?;
        shown["network"] = payment.map(|payment| payment.network).into();
    }
    Ok(shown)
}

pub(super) fn shown(request: RequestId, receipt: &Receipt) -> Value {
    json!({
        "request_id": request.to_string(),
        "account": receipt.account.to_string(),
        "key": receipt.key,
        "payment_id": receipt.payment,
        "transaction": receipt.tx,
        "model": receipt.model,
        "path": receipt.path,
        "ended_at": Timestamp::from_millis(receipt.at).to_rfc3339(),
        "complete": receipt.whole,
        "quote_usd": usd(receipt.ceiling),
        "charge_usd": usd(receipt.charge),
        "allowance_usd": usd(receipt.allowance),
        "credited_usd": usd(receipt.credited),
        "refunded_usd": usd(receipt.refunded),
        "input_tokens": receipt.input,
        "output_tokens": receipt.output,
        "cache_read_tokens": receipt.cache_read,
        "cache_write_tokens": receipt.cache_write,
        "units": receipt.units,
    })
}
