//! What the operator's own hand does: keys, allowances, blocks, refunds, payments given up, a look at an account, reports; the same on a running gateway and a stopped one.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::account;
use super::keyring::{Change, Fresh, Keyring, Rotation, Whose, Wish};
use super::payouts::Terms;
use super::report::report;
use super::settle::ledger_unavailable;
use crate::account::AccountId;
use crate::chain::typed_account;
use crate::clock::Timestamp;
use crate::error::{Code, Error};
use crate::ids::{KeyId, PaymentId, RequestId};
use crate::ledger::{Block, Denied, Grant, MOST_A_DAY, Refused, Span, State, Stopped};
use crate::money::{Micros, signed_usd};

/// So long after it was brought any payment may still arrive: the longest lives for a day, and has another to be looked for.
const MAY_ARRIVE: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// Characters of a note of the operator, at most.
const NOTE: usize = 200;
/// Lines of an account's statement that the operator is shown.
const LINES: usize = 20;

/// One command. It travels as one line of JSON to a gateway that runs.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    MintKey {
        account: String,
        wish: Wish,
    },
    ListKeys {
        account: String,
    },
    ChangeKey {
        id: String,
        change: Change,
    },
    RotateKey {
        id: String,
        rotation: Rotation,
    },
    RevokeKey {
        id: String,
    },
    ShowAccount {
        account: String,
    },
    SetAllowance {
        account: String,
        usd_per_day: String,
        from: Option<String>,
        until: Option<String>,
        note: String,
    },
    ListAllowances,
    RemoveAllowance {
        account: String,
    },
    /// So that this much is given back of it in all; without it, all that can be.
    Refund {
        request: String,
        usd: Option<String>,
    },
    GiveUp {
        payment: String,
        reason: String,
    },
    /// Read the configuration again. For a gateway that runs only.
    Reload,
    /// Gives a wallet so much, or takes it with a minus, once for each id.
    Adjust {
        account: String,
        usd: String,
        reason: String,
        id: String,
    },
    /// Bars a wallet from buying.
    Block {
        account: String,
        reason: String,
    },
    Unblock {
        account: String,
    },
    ListBlocked,
    /// Pay some of a wallet's balance back to it on a chain, once for each id: what must be signed for it, or with what was signed
    /// (the value of a payment header). For a gateway that runs only.
    PayOut {
        terms: Terms,
        payment: Option<String>,
    },
    /// A copy of the books as they are, in a file beside them.
    CopyBooks,
    /// From one day to another, both such as 2027-01-31 and in UTC.
    Report {
        from: String,
        until: String,
    },
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Command {
    /// For the log: what is done, not to whom.
    pub fn name(&self) -> &'static str {
        match self {
            Command::MintKey { .. } => "mint a key",
            Command::ListKeys { .. } => "list keys",
            Command::ChangeKey { .. } => "change a key",
            Command::RotateKey { .. } => "rotate a key",
            Command::RevokeKey { .. } => "revoke a key",
            Command::ShowAccount { .. } => "show an account",
            Command::SetAllowance { .. } => "set an allowance",
            Command::ListAllowances => "list allowances",
            Command::RemoveAllowance { .. } => "remove an allowance",
            Command::Refund { .. } => "refund a call",
            Command::GiveUp { .. } => "give a payment up",
            Command::Reload => "read the configuration again",
            Command::Adjust { .. } => "adjust a balance",
            Command::Block { .. } => "block a wallet",
            Command::Unblock { .. } => "unblock a wallet",
            Command::ListBlocked => "list blocked wallets",
            Command::PayOut { .. } => "pay a balance out",
            Command::CopyBooks => "copy the books",
            Command::Report { .. } => "make a report",
        }
    }
}

/// Does one command to its end and says what came of it. What it changed is durable when this returns. `fresh` is drawn at the
/// edge, and used for a new secret.
///
/// # Errors
/// `invalid_request`, `not_found`, `key_limit`, `rotation_pending`, `ledger_unavailable`; nothing was changed then, unless the books have failed.
pub async fn perform(keyring: &Keyring, command: Command, fresh: Fresh) -> Result<Value, Error> {
    match command {
        Command::MintKey { account, wish } => {
            let (account, terms) = (wallet(&account)?, keyring.terms(&wish)?);
            apart(keyring, move |keyring| Ok(keyring.mint(account, terms, fresh)?.reveal())).await
        }
        Command::ListKeys { account } => {
            let account = wallet(&account)?;
            apart(keyring, move |keyring| Ok(json!({ "keys": keyring.list(account)? }))).await
        }
        Command::ChangeKey { id, change } => {
            let (id, amendment) = (key(&id)?, keyring.amendment(&change)?);
            apart(keyring, move |keyring| keyring.change(Whose::Anybodys, id, amendment)).await
        }
        Command::RotateKey { id, rotation } => {
            let (id, grace) = (key(&id)?, rotation.grace()?);
            apart(keyring, move |keyring| Ok(keyring.rotate(Whose::Anybodys, id, grace, fresh)?.reveal())).await
        }
        Command::RevokeKey { id } => {
            let id = key(&id)?;
            apart(keyring, move |keyring| keyring.revoke(Whose::Anybodys, id)).await
        }
        Command::ShowAccount { account } => {
            let account = wallet(&account)?;
            apart(keyring, move |keyring| show(keyring, account)).await
        }
        Command::SetAllowance { account, usd_per_day, from, until, note } => {
            let (account, grant) = (wallet(&account)?, grant(&usd_per_day, from.as_deref(), until.as_deref(), note)?);
            let durable = keyring.ledger.grant(account, Some(grant.clone())).map_err(|denied| match denied {
                Denied::Refused(Refused::Overflow) => {
                    wrong(format!("{usd_per_day} USD a day is too much; an allowance is {MOST_A_DAY} USD a day at most"))
                }
                denied => stopped(&denied),
            })?;
            durable.wait().await.map_err(gone)?;
            Ok(granted(account, &grant))
        }
        Command::ListAllowances => {
            let grants = keyring.ledger.grants().map_err(|denied| stopped(&denied))?;
            Ok(json!({ "allowances": grants.iter().map(|(account, grant)| granted(*account, grant)).collect::<Vec<_>>() }))
        }
        Command::RemoveAllowance { account } => remove(keyring, wallet(&account)?).await,
        Command::Refund { request, usd } => refund(keyring, &request, usd.as_deref()).await,
        Command::GiveUp { payment, reason } => give_up(keyring, &payment, &reason).await,
        Command::Reload => Err(wrong("this gateway does not run; it reads its configuration when it starts")),
        Command::PayOut { .. } => Err(wrong("this gateway does not run, and it is what pays the fee of a payout")),
        Command::Adjust { account, usd, reason, id } => adjust(keyring, wallet(&account)?, &usd, (&id, &reason)).await,
        Command::Block { account, reason } => block(keyring, wallet(&account)?, &reason).await,
        Command::Unblock { account } => unblock(keyring, wallet(&account)?).await,
        Command::ListBlocked => list_blocked(keyring),
        Command::CopyBooks => copy(keyring, fresh).await,
        Command::Report { from, until } => {
            let span = span(&from, &until)?;
            // Calls that have just ended have their receipts on disk then.
            keyring.ledger.flush().map_err(|denied| stopped(&denied))?.wait().await.map_err(gone)?;
            apart(keyring, move |keyring| {
                let made = report(&keyring.ledger, &keyring.clock, span)?;
                Ok(serde_json::to_value(made).expect("string keys and no failing serializers"))
            })
            .await
        }
    }
}

/// Does what blocks on a thread for it.
async fn apart(keyring: &Keyring, work: impl FnOnce(&Keyring) -> Result<Value, Error> + Send + 'static) -> Result<Value, Error> {
    let keyring = keyring.clone();
    let done = tokio::task::spawn_blocking(move || work(&keyring)).await;
    done.unwrap_or_else(|error| Err(Error::new(Code::Internal, "the command broke off").because(error.to_string())))
}

async fn copy(keyring: &Keyring, fresh: Fresh) -> Result<Value, Error> {
    // What was acknowledged by now is in the copy.
    keyring.ledger.flush().map_err(|denied| stopped(&denied))?.wait().await.map_err(gone)?;
    apart(keyring, move |keyring| {
        let copy = keyring.ledger.copy_beside(u128::from_be_bytes(fresh.id));
        let copy = copy.map_err(|broken| Error::new(Code::LedgerUnavailable, broken.to_string()))?;
        Ok(json!({ "file": copy.file_name().and_then(|name| name.to_str()) }))
    })
    .await
}

fn show(keyring: &Keyring, account: AccountId) -> Result<Value, Error> {
    let mut shown = account::standing(&keyring.ledger, account, keyring.clock.now())?;
    let block = keyring.ledger.block_of(account).map_err(|denied| stopped(&denied))?;
    shown["blocked"] = block.map_or(Value::Null, |block| barred(account, &block));
    shown["keys"] = keyring.live(account)?.into();
    shown["transactions"] = account::transactions(&keyring.ledger, account, LINES, 0)?["transactions"].take();
    Ok(shown)
}

async fn remove(keyring: &Keyring, account: AccountId) -> Result<Value, Error> {
    if keyring.ledger.grant_of(account).map_err(|denied| stopped(&denied))?.is_none() {
        return Err(Error::new(Code::NotFound, format!("{account} has no allowance")));
    }
    let durable = keyring.ledger.grant(account, None).map_err(|denied| stopped(&denied))?;
    durable.wait().await.map_err(gone)?;
    Ok(json!({ "account": account.to_string(), "removed": true }))
}

async fn refund(keyring: &Keyring, request: &str, usd: Option<&str>) -> Result<Value, Error> {
    let id =
        RequestId::parse(request).ok_or_else(|| wrong("a request id is req_ and 32 digits of hex, as X-Request-Id says it"))?;
    let total = usd.map(|usd| Micros::parse_usd(usd).map_err(|why| wrong(why.to_string()))).transpose()?;
    if total.is_some_and(Micros::is_zero) {
        return Err(wrong("say how much is to be given back in all, or nothing for all that can be"));
    }
    // A call that has just ended has its receipt on disk then.
    keyring.ledger.flush().map_err(|denied| stopped(&denied))?.wait().await.map_err(gone)?;
    let (receipt, given_back) = keyring.ledger.refund(id, total).await.map_err(|denied| match denied {
        Denied::Refused(Refused::Insufficient { available, .. }) => wrong(format!(
            "{available} USD of this call can be given back in all: what was paid of it, and its allowance on the same day (UTC)"
        )),
        Denied::Refused(Refused::WrongState) => Error::new(Code::NotFound, format!("no call {id} was charged")),
        Denied::Refused(Refused::Overflow) => wrong("the balance of its wallet has no room for so much"),
        denied => stopped(&denied),
    })?;
    let refunded = Micros::new(receipt.refunded);
    if total.is_some_and(|total| total < refunded) {
        return Err(wrong(format!("{refunded} USD of this call were given back before and stay so; nothing was changed")));
    }
    if refunded.is_zero() {
        return Err(wrong("nothing was paid of this call that could be given back"));
    }
    tracing::info!(request.id = %id, %given_back, %refunded, account = %receipt.account, "a charge was given back");
    let mut shown = account::shown(id, &receipt);
    shown["gave_back_usd"] = given_back.as_usd().into();
    Ok(shown)
}

async fn adjust(keyring: &Keyring, account: AccountId, usd: &str, (id, reason): (&str, &str)) -> Result<Value, Error> {
    let (is_less, amount) = match usd.strip_prefix('-') {
        Some(amount) => (true, amount),
        None => (false, usd.strip_prefix('+').unwrap_or(usd)),
    };
    let amount = Micros::parse_usd(amount).map_err(|why| wrong(why.to_string()))?;
    let micros = i64::try_from(amount.get()).ok().filter(|micros| *micros > 0);
    let micros = micros.ok_or_else(|| wrong("say an amount in USD, such as 0.25 or -0.25"))?;
    let (reason, id) = (note(reason)?.trim(), note(id)?.trim());
    if reason.is_empty() || id.is_empty() {
        return Err(wrong(
            "say why with --reason, and give it a name of its own with --id, such as a ticket's: asked for again by the \
                          same id it is not made again",
        ));
    }
    let done = keyring.ledger.adjust(id, account, if is_less { -micros } else { micros }, reason).await;
    let (row, is_new) = done.map_err(|denied| match denied {
        Denied::Refused(Refused::Duplicate) => wrong(format!(
            "{id:?} was used for another account or amount; nothing was changed, take another id for another adjustment"
        )),
        Denied::Refused(Refused::Insufficient { available, .. }) => {
            wrong(format!("{account} can spend {available} USD, and no more than that can be taken; nothing was changed"))
        }
        Denied::Refused(Refused::Overflow) => wrong("the balance of this wallet has no room for so much"),
        denied => stopped(&denied),
    })?;
    if is_new {
        tracing::info!(%account, micros = row.micros, id, reason, "a balance was adjusted by hand");
    }
    Ok(json!({
        "id": id, "account": account.to_string(), "amount_usd": signed_usd(row.micros), "reason": row.reason, "new": is_new,
        "at": Timestamp::from_millis(row.at).to_rfc3339(),
        "balance_usd": keyring.ledger.standing(account).map_err(|denied| stopped(&denied))?.posted.as_usd(),
    }))
}

async fn block(keyring: &Keyring, account: AccountId, reason: &str) -> Result<Value, Error> {
    let reason = note(reason)?.trim();
    if reason.is_empty() {
        return Err(wrong("say why with --reason; it is for you, and its buyer is not shown it"));
    }
    let (block, is_new) = keyring.ledger.block(account, reason).await.map_err(|denied| stopped(&denied))?;
    if is_new {
        tracing::info!(%account, reason, "a wallet is blocked");
    }
    let mut shown = barred(account, &block);
    shown["new"] = is_new.into();
    Ok(shown)
}

async fn unblock(keyring: &Keyring, account: AccountId) -> Result<Value, Error> {
    let Some(block) = keyring.ledger.unblock(account).await.map_err(|denied| stopped(&denied))? else {
        return Err(Error::new(Code::NotFound, format!("{account} is not blocked")));
    };
    tracing::info!(%account, "a wallet is not blocked any more");
    let since = Timestamp::from_millis(block.at).to_rfc3339();
    Ok(json!({ "account": account.to_string(), "unblocked": true, "was_blocked_at": since, "reason": block.reason }))
}

fn list_blocked(keyring: &Keyring) -> Result<Value, Error> {
    let blocked = keyring.ledger.blocked().map_err(|denied| stopped(&denied))?;
    Ok(json!({ "blocked": blocked.iter().map(|(account, block)| barred(*account, block)).collect::<Vec<_>>() }))
}

fn barred(account: AccountId, block: &Block) -> Value {
    let at = Timestamp::from_millis(block.at).to_rfc3339();
    json!({ "account": account.to_string(), "blocked_at": at, "reason": block.reason })
}

async fn give_up(keyring: &Keyring, payment: &str, reason: &str) -> Result<Value, Error> {
    let id = PaymentId::parse(payment)
        .ok_or_else(|| wrong("a payment's id is pay_ and 64 digits of hex, as its buyer and `farebox verify` were told"))?;
    let reason = note(reason)?;
    if reason.trim().is_empty() {
        return Err(wrong("say how you know that it did not arrive"));
    }
    let row = keyring.ledger.payment(id).map_err(|denied| stopped(&denied))?;
    let row = row.ok_or_else(|| Error::new(Code::NotFound, format!("there is no payment {id}")))?;
    let decided = || wrong("only a payment that was signed and whose outcome is not known can be given up; nothing was changed");
    // A payout is never given back by itself while it may be paid, whatever becomes of its network.
    let is_open = match row.state {
        State::Signed | State::Sent => true,
        State::Claimed => row.payout.is_some(),
        State::Confirmed => row.payout.is_some() && row.reorged,
        State::Final | State::Failed | State::Voided => false,
    };
    if !is_open {
        return Err(decided());
    }
    if Timestamp::from_millis(row.claimed_at).plus(MAY_ARRIVE) > keyring.clock.now() {
        return Err(wrong("this payment may still arrive; it can be given up two days after it was brought"));
    }
    let closed = keyring.ledger.failed(id, &format!("given up: {reason}")).map_err(|denied| match denied {
        Denied::Refused(_) => decided(),
        denied => stopped(&denied),
    })?;
    closed.wait().await.map_err(gone)?;
    tracing::warn!(payment = %id, account = %row.payer, micros = row.amount, reason, "a payment was given up");
    let (account, usd) = (row.payer.to_string(), row.amount().as_usd());
    Ok(json!({ "payment": id.to_string(), "account": account, "amount_usd": usd, "outcome": "failed", "reason": reason }))
}

/// What an operator writes down.
pub(super) fn note(text: &str) -> Result<&str, Error> {
    match text.chars().count() > NOTE || text.chars().any(char::is_control) {
        true => Err(wrong(format!("the note is one line of at most {NOTE} characters"))),
        false => Ok(text),
    }
}

fn grant(usd_per_day: &str, from: Option<&str>, until: Option<&str>, note: String) -> Result<Grant, Error> {
    let per_day = Micros::parse_usd(usd_per_day).map_err(|why| wrong(why.to_string()))?;
    let time = |text: &str| {
        let at = Timestamp::from_rfc3339(text).or_else(|| day(text));
        at.map(Timestamp::millis)
            .ok_or_else(|| wrong(format!("{text:?} is not a time such as 2027-01-31 or 2027-01-31T12:00:00Z")))
    };
    let (from, until) = (from.map(time).transpose()?, until.map(time).transpose()?);
    if from.zip(until).is_some_and(|(from, until)| until <= from) {
        return Err(wrong("it would end before it begins"));
    }
    self::note(&note)?;
    Ok(Grant { per_day: per_day.get(), from, until, note })
}

/// A day alone is its first instant.
fn day(text: &str) -> Option<Timestamp> {
    Timestamp::from_rfc3339(&format!("{text}T00:00:00Z"))
}

fn span(from: &str, until: &str) -> Result<Span, Error> {
    let day =
        |text: &str| day(text).map(Timestamp::day).ok_or_else(|| wrong(format!("{text:?} is not a day such as 2027-01-31")));
    let span = Span { from: day(from)?, until: day(until)? };
    if span.until < span.from {
        return Err(wrong("it would end before it begins"));
    }
    Ok(span)
}

fn granted(account: AccountId, grant: &Grant) -> Value {
    let time = |millis: u64| Timestamp::from_millis(millis).to_rfc3339();
    json!({
        "account": account.to_string(),
        "usd_per_day": Micros::new(grant.per_day).as_usd(),
        "valid_from": grant.from.map(time),
        "valid_until": grant.until.map(time),
        "note": grant.note,
    })
}

fn key(id: &str) -> Result<KeyId, Error> {
    KeyId::parse(id).ok_or_else(|| wrong("a key's id is key_ and 32 digits of hex"))
}

pub(super) fn wallet(text: &str) -> Result<AccountId, Error> {
    let say = "an account is a wallet's address: 0x and 40 digits of hex, whose EIP-55 checksum must be right in mixed case, or \
               a Solana address in base58";
    typed_account(text).ok_or_else(|| wrong(say))
}

pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, message)
}

fn stopped(denied: &Denied) -> Error {
    ledger_unavailable(&denied.to_string())
}

fn gone(why: Stopped) -> Error {
    ledger_unavailable(&why.to_string())
}
