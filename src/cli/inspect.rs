//! `farebox inspect`: why was I refused? Decodes and judges a payment or a sign-in with the server's own verifier.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::{FOUND_A_PROBLEM, USAGE, say};
use crate::chain;
use crate::clock::Timestamp;
use crate::x402::SignInRules;

#[derive(Subcommand)]
pub enum What {
    /// A payment header, as an argument or on stdin. Prints one JSON verdict; exit code 0 when it is valid, 1 when not.
    Payment {
        /// A file with the requirement it was made for: one entry of `accepts`, version 1 or 2.
        #[arg(long)]
        requirements: PathBuf,
        /// The time to judge it at, in seconds since 1970.
        #[arg(long)]
        now: u64,
        header: Option<String>,
    },
    /// A sign-in header, as an argument or on stdin. Prints one JSON verdict; exit code 0 when it is valid, 1 when not.
    SignIn {
        /// The gateway it must be signed for: a host, host:port or URL. A URL's scheme must be the signed one, too.
        #[arg(long)]
        domain: String,
        /// The time to judge it at, in seconds since 1970.
        #[arg(long)]
        now: u64,
        /// A chain that it may be signed for, in CAIP-2; may be given several times. Base and Solana, if left out.
        #[arg(long = "chain", default_values = ["eip155:8453", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"], hide_default_value = true)]
        chains: Vec<String>,
        header: Option<String>,
    },
}

pub fn run(what: &What) -> ExitCode {
    let verdict = match what {
        What::Payment { requirements, now, header } => payment(requirements, *now, header.as_deref()),
        What::SignIn { domain, now, chains, header } => sign_in(domain, *now, chains, header.as_deref()),
    };
    match verdict {
        Ok(verdict) => {
            let shown = say::out(&verdict).inspect_err(|problem| say::err(format_args!("farebox: {problem}")));
            if verdict["valid"] == true && shown.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) }
        }
        Err(problem) => {
            say::err(format_args!("farebox: {problem}"));
            ExitCode::from(USAGE)
        }
    }
}

fn payment(requirements: &Path, now: u64, header: Option<&str>) -> Result<Value, String> {
    let text = std::fs::read_to_string(requirements).map_err(|error| format!("{}: {error}", requirements.display()))?;
    let wanted: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", requirements.display()))?;
    Ok(chain::judge(&given_or_piped(header)?, &wanted, Timestamp::from_secs(now)))
}

fn sign_in(domain: &str, now: u64, chains: &[String], header: Option<&str>) -> Result<Value, String> {
    let rules = SignInRules::for_domain(domain, chains.to_vec());
    let rules = rules.ok_or_else(|| format!("--domain {domain:?} is not a host, host:port or URL"))?;
    Ok(chain::judge_sign_in(&given_or_piped(header)?, &rules, Timestamp::from_secs(now)))
}

/// The argument, else what comes on stdin.
fn given_or_piped(header: Option<&str>) -> Result<String, String> {
    if let Some(header) = header {
        return Ok(header.to_owned());
    }
    let mut piped = String::new();
    std::io::stdin().read_to_string(&mut piped).map_err(|error| format!("stdin: {error}"))?;
    Ok(piped.trim().to_owned())
}
