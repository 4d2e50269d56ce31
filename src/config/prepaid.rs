//! What the operator says about prepaid: how much a top-up may be, what a call holds, how long a sign-in is good for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, bad, file};
use crate::money::Micros;
use crate::x402::sign_in::{Origin, is_statement};

/// Characters of the sentence in a sign-in, at most: small screens of wallets show no more.
const STATEMENT: usize = 100;

/// Balances, keys and sign-ins.
#[derive(Debug, Clone)]
pub struct Prepaid {
    pub top_up_minimum: Micros,
    /// What a wallet that has too little is told to add, at least.
    pub top_up_suggested: Micros,
    pub top_up_maximum: Micros,
    /// How long a top-up waits for its chain before it is told `settlement_pending`.
    pub top_up_wait: Duration,
    /// Tokens of output that a streamed call holds at first, and by which its hold grows.
    pub hold_output: u64,
    /// Keys that an account may have, revoked ones not counted.
    pub keys_per_account: usize,
    pub nonces: NoncePolicy,
    /// Where a sign-in may be signed for beside `public_url`.
    pub sign_in_domains: Vec<Origin>,
    /// The sentence that a wallet shows to its owner.
    pub sign_in_statement: String,
}

/// How often one sign-in may be used while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoncePolicy {
    /// For one call that charges or one change; reading is free.
    PerCharge,
    /// Once.
    Strict,
    /// Until it expires: whoever reads one along may use it.
    Session,
}

pub(super) fn prepaid(row: &file::Prepaid) -> Result<Prepaid, ConfigError> {
    let usd = |key: &str, text: &str| Micros::parse_usd(text).map_err(|why| bad(format!("prepaid.{key}"), why));
    let origin = |text: &String| Origin::of_domain(text).map_err(|why| bad("prepaid.sign_in_domains", why));
    let prepaid = Prepaid {
        top_up_minimum: usd("top_up_minimum", &row.top_up_minimum)?,
        top_up_suggested: usd("top_up_suggested", &row.top_up_suggested)?,
        top_up_maximum: usd("top_up_maximum", &row.top_up_maximum)?,
        top_up_wait: Duration::from_millis(row.top_up_wait_ms),
        hold_output: row.hold_output,
        keys_per_account: row.keys_per_account,
        nonces: row.sign_in_nonces,
        sign_in_domains: row.sign_in_domains.iter().map(origin).collect::<Result<_, _>>()?,
        sign_in_statement: row.sign_in_statement.clone(),
    };
    let Prepaid { top_up_minimum: least, top_up_suggested: suggested, top_up_maximum: most, .. } = prepaid;
    if least.is_zero() || least > suggested || suggested > most {
        return Err(bad(
            "prepaid.top_up_suggested",
            "not between top_up_minimum, which is more than nothing, and top_up_maximum",
        ));
    }
    // The clients' own patience ends at 300 s.
    if !(1..=240_000).contains(&row.top_up_wait_ms) {
        return Err(bad("prepaid.top_up_wait_ms", "between 1 and 240000"));
    }
    if prepaid.hold_output == 0 {
        return Err(bad("prepaid.hold_output", "a call holds at least one token"));
    }
    // It stands on a line of its own in what a wallet signs, which knows these characters alone (EIP-4361).
    if !is_statement(&prepaid.sign_in_statement) || prepaid.sign_in_statement.len() > STATEMENT {
        let problem = format!(
            "one line of at most {STATEMENT} letters, digits, spaces and -._~:/?#[]@!$&'()*+,;= (no quotation marks, no %)"
        );
        return Err(bad("prepaid.sign_in_statement", problem));
    }
    Ok(prepaid)
}
