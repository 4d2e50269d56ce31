//! Whom the operator wants told of what happens, where, and what proves that it was us.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::{ConfigError, bad, file, node_url};
use crate::money::Micros;

/// What the secret of a webhook begins with (Standard Webhooks).
pub const PREFIX: &str = "whsec_";
/// Bytes that such a secret may have.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// One place that is told of events.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub url: String,
    /// `whsec_` and base64: what signs.
    pub secret: Secret,
    pub events: Vec<Occasion>,
    /// Below this a balance is low.
    pub low_balance: Micros,
    /// Certificates that are believed beside the web's.
    pub ca_file: Option<PathBuf>,
}

/// What an operator can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// A top-up was credited.
    TopUp,
    /// The balance of a wallet fell below `low_balance`.
    LowBalance,
    /// The purse that pays for gas should be filled soon.
    LowGas,
    /// A payment is waited for too long.
    SettlementStuck,
    /// An upstream was found down.
    UpstreamDown,
    /// It is back.
    UpstreamUp,
    /// The books cannot be written: the gateway ends.
    LedgerFailed,
}

impl Occasion {
    pub const ALL: [Occasion; 7] = [
        Occasion::TopUp,
        Occasion::LowBalance,
        Occasion::LowGas,
        Occasion::SettlementStuck,
        Occasion::UpstreamDown,
        Occasion::UpstreamUp,
        Occasion::LedgerFailed,
    ];

    /// As the configuration and the events themselves call it.
    pub fn name(self) -> &'static str {
        match self {
            Occasion::TopUp => "top_up",
            Occasion::LowBalance => "low_balance",
            Occasion::LowGas => "low_gas",
            Occasion::SettlementStuck => "settlement_stuck",
            Occasion::UpstreamDown => "upstream_down",
            Occasion::UpstreamUp => "upstream_up",
            Occasion::LedgerFailed => "ledger_failed",
        }
    }
}

/// As much as a top-up must be at least: a wallet that has less is soon refused.
const LOW: Micros = Micros::ONE;

pub(super) fn webhooks(
    rows: &[file::Webhook],
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Webhook>, ConfigError> {
    rows.iter().enumerate().map(|(place, row)| webhook(place + 1, row, folder, env)).collect()
}

fn webhook(
    number: usize,
    row: &file::Webhook,
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Webhook, ConfigError> {
    let key = |field: &str| format!("webhook {number}, {field}");
    node_url(&row.url).map_err(|why| bad(key("url"), why))?;
    let source = row.secret.as_deref().ok_or_else(|| {
        bad(key("secret"), "who is told must be able to check that it was us; name a secret, as env:NAME or file:/path")
    })?;
    let secret = Secret::load(source, folder, env).map_err(|why| bad(key("secret"), why))?;
    let bytes = secret.expose().strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
    if !bytes.is_some_and(|bytes| LENGTHS.contains(&bytes.len())) {
        let problem = "not whsec_ and base64 of 24 to 64 bytes; make one with: echo whsec_$(head -c32 /dev/urandom | base64)";
        return Err(bad(key("secret"), problem));
    }
    let events = row.events.clone().unwrap_or_else(|| Occasion::ALL.to_vec());
    if events.is_empty() {
        return Err(bad(key("events"), "an empty list tells nothing; leave it out for all events"));
    }
    let low_balance = row.low_balance.as_deref().map_or(Ok(LOW), Micros::parse_usd);
    Ok(Webhook {
        url: row.url.clone(),
        secret,
        events,
        low_balance: low_balance.map_err(|why| bad(key("low_balance"), why))?,
        ca_file: row.ca_file.as_ref().map(|path| folder.join(path)),
    })
}
