//! `farebox inspect`: why was my payment refused? Decodes and judges a payment header with the server's own verifier.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::FOUND_A_PROBLEM;
use crate::chain;
use crate::clock::Timestamp;

/// Wrong use of the command line.
const USAGE: u8 = 2;

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
}

pub fn run(what: &What) -> ExitCode {
    let What::Payment { requirements, now, header } = what;
    match judge(requirements, *now, header.as_deref()) {
        Ok(verdict) => {
            println!("{verdict}");
            if verdict["valid"] == true { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) }
        }
        Err(problem) => {
            eprintln!("farebox: {problem}");
            ExitCode::from(USAGE)
        }
    }
}

fn judge(requirements: &PathBuf, now: u64, header: Option<&str>) -> Result<Value, String> {
    let text = std::fs::read_to_string(requirements).map_err(|error| format!("{}: {error}", requirements.display()))?;
    let wanted: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", requirements.display()))?;
    let mut piped = String::new();
    let header = match header {
        Some(header) => header,
        None => {
            std::io::stdin().read_to_string(&mut piped).map_err(|error| format!("stdin: {error}"))?;
            piped.trim()
        }
    };
    Ok(chain::judge(header, &wanted, Timestamp::from_secs(now)))
}
