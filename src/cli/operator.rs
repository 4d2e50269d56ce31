//! `farebox keys`, `account`, `allowance`, `refund`: the operator's hand, on a stopped gateway in its books, on a running one through its socket.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::json;

use super::socket::{Answer, ask};
use super::{FAIL_STOP, FOUND_A_PROBLEM, USAGE, machine_clock, serve};
use crate::config::Config;
use crate::error::Code;
use crate::gateway::operator::{Command, perform};
use crate::gateway::{Fresh, Keyring};
use crate::ledger::Ledger;

/// How long a gateway may take between having its books open and listening to us, or between the end of the one and the
/// other.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Subcommand)]
pub enum Keys {
    /// Make a key for a wallet. It is shown now and never again.
    Mint {
        /// The wallet whose balance it spends, `0x…`.
        #[arg(long)]
        account: String,
        #[arg(long)]
        name: String,
        /// The most it may spend, in USD, allowance included.
        #[arg(long, value_name = "USD")]
        limit: Option<String>,
        /// How often the limit starts again: none, day, week or month.
        #[arg(long)]
        reset: Option<String>,
        /// The models it may use, with commas between them; all, if left out.
        #[arg(long, value_delimiter = ',')]
        models: Vec<String>,
        /// When it ends, such as 2027-01-31T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List the keys of a wallet; only their last four characters are known.
    List {
        #[arg(long)]
        account: String,
    },
    /// End a key at once, and the calls that run with it.
    Revoke {
        /// `key_…`, as the list shows it.
        id: String,
    },
}

#[derive(Subcommand)]
pub enum Allowance {
    /// Grant a wallet so much for every day (UTC), in the place of what it had. What it does not use of it lapses.
    Set {
        account: String,
        #[arg(value_name = "USD")]
        usd_per_day: String,
        /// From when on, such as 2027-01-31.
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Until when.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Why, for yourself.
        #[arg(long, default_value = "")]
        note: String,
    },
    List,
    Remove {
        account: String,
    },
}

impl Keys {
    /// # Errors
    /// Text that cannot stand in a command.
    pub fn command(self) -> Result<Command, String> {
        Ok(match self {
            Keys::Mint { account, name, limit, reset, models, expires } => {
                let wish = json!({
                    "name": name,
                    "spend_limit_usd": limit,
                    "reset": reset,
                    "models": Some(models).filter(|models| !models.is_empty()),
                    "expires_at": expires,
                });
                let wish = serde_json::from_str(&wish.to_string()).map_err(|error| error.to_string())?;
                Command::MintKey { account, wish }
            }
            Keys::List { account } => Command::ListKeys { account },
            Keys::Revoke { id } => Command::RevokeKey { id },
        })
    }
}

impl Allowance {
    pub fn command(self) -> Command {
        match self {
            Allowance::Set { account, usd_per_day, from, until, note } => {
                Command::SetAllowance { account, usd_per_day, from, until, note }
            }
            Allowance::List => Command::ListAllowances,
            Allowance::Remove { account } => Command::RemoveAllowance { account },
        }
    }
}

/// Does one command wherever the books are open, and prints what came of it as JSON.
pub fn run(command: Result<Command, String>, config: &Config) -> ExitCode {
    match command.map(|command| reach(&command, config)) {
        Ok(Ok(Answer::Done(value))) => {
            println!("{value:#}");
            ExitCode::SUCCESS
        }
        Ok(Ok(Answer::Refused { code, message })) => {
            let code = if code == Code::InvalidRequest.row().code { USAGE } else { FOUND_A_PROBLEM };
            fail(&message, code)
        }
        Ok(Err(serve::Trouble { message, code, .. })) => fail(&message, code),
        Err(message) => fail(&message, USAGE),
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("farebox: {message}");
    ExitCode::from(code)
}

/// A gateway that listens is asked; else the books are opened, unless somebody has them: a gateway that is just starting or
/// stopping, for which we wait, or one that cannot be talked to.
fn reach(command: &Command, config: &Config) -> Result<Answer, serve::Trouble> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask(&config.data_dir, command).map_err(serve::trouble(FOUND_A_PROBLEM))? {
            return Ok(answer);
        }
        match serve::open_ledger(config, machine_clock()) {
            Ok(ledger) => return in_the_books(command, config, ledger),
            Err(trouble) if trouble.taken && Instant::now() < until => sleep(PAUSE),
            Err(trouble) => return Err(trouble),
        }
    }
}

/// The gateway is stopped, and until we are done it cannot start.
fn in_the_books(command: &Command, config: &Config, ledger: Ledger) -> Result<Answer, serve::Trouble> {
    let keys = serve::open_keys(config, &ledger)?;
    let keyring = Keyring::new(config, ledger.clone(), Arc::new(keys), machine_clock());
    let fresh = fresh().map_err(|error| serve::trouble(FAIL_STOP)(error.to_string()))?;
    let done = actix_web::rt::System::new().block_on(perform(&keyring, command.clone(), fresh));
    ledger.close();
    match done {
        Err(error) if ledger.is_broken() => Err(serve::trouble(FAIL_STOP)(format!("{}: {:?}", error.message, error.cause))),
        done => Ok(Answer::from(done)),
    }
}

/// # Errors
/// The system has no randomness.
pub(super) fn fresh() -> Result<Fresh, getrandom::Error> {
    let mut fresh = Fresh { id: [0; 16], secret: [0; 32] };
    getrandom::fill(&mut fresh.id)?;
    getrandom::fill(&mut fresh.secret)?;
    Ok(fresh)
}
