//! `farebox keys`, `account`, `allowance`, `block`, `refund`: the operator's hand, on a stopped gateway in its books, on a running one through its socket.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::socket::{Answer, ask};
use super::{BAD_CONFIGURATION, FAIL_STOP, FOUND_A_PROBLEM, USAGE, machine_clock, say, serve};
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
        /// The wallet whose balance it spends, `0x…` or a Solana address.
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
    /// Change what a key may do from its next call on. What is left out stays as it is.
    Change {
        /// `key_…`, as the list shows it.
        id: String,
        #[arg(long)]
        name: Option<String>,
        /// The most it may spend, in USD, allowance included; `none` takes the limit away.
        #[arg(long, value_name = "USD")]
        limit: Option<String>,
        /// How often the limit starts again: none, day, week or month.
        #[arg(long)]
        reset: Option<String>,
        /// The models it may use, with commas between them; `all` for all.
        #[arg(long, value_delimiter = ',')]
        models: Option<Vec<String>>,
        /// When it ends, such as 2027-01-31T00:00:00Z; `never` for no end.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// Give a key a new secret. It is shown now and never again.
    Rotate {
        /// `key_…`, as the list shows it.
        id: String,
        /// How long the old secret is taken beside the new one, at most seven days; without it, it ends at once.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        grace: u64,
    },
    /// End every key of every wallet, on a gateway that is stopped: the way on when keys.pepper is lost.
    ForgetAll {
        /// That you mean it.
        #[arg(long)]
        yes: bool,
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
            Keys::Change { id, name, limit, reset, models, expires } => {
                let or_null = |text: String, nothing: &str| if text == nothing { Value::Null } else { text.into() };
                let models = models.map(|models| if models == ["all"] { Value::Null } else { models.into() });
                let fields = [
                    ("name", name.map(Value::from)),
                    ("spend_limit_usd", limit.map(|limit| or_null(limit, "none"))),
                    ("reset", reset.map(Value::from)),
                    ("models", models),
                    ("expires_at", expires.map(|expires| or_null(expires, "never"))),
                ];
                let said: Map<_, _> = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
                if said.is_empty() {
                    return Err("say what to change: --name, --limit, --reset, --models or --expires".into());
                }
                let change = serde_json::from_str(&Value::from(said).to_string()).map_err(|error| error.to_string())?;
                Command::ChangeKey { id, change }
            }
            Keys::Rotate { id, grace } => {
                let rotation = serde_json::from_value(json!({ "grace_seconds": grace })).map_err(|error| error.to_string())?;
                Command::RotateKey { id, rotation }
            }
            Keys::Revoke { id } => Command::RevokeKey { id },
            Keys::ForgetAll { .. } => return Err("this is no command for a gateway that runs".into()),
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
    let done = command.map_err(|message| fail(&message, USAGE)).and_then(|command| done(&command, config));
    match done.map(|value| say::out(format_args!("{value:#}"))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(problem)) => fail(&problem, FOUND_A_PROBLEM),
        Err(code) => code,
    }
}

/// Does one command wherever the books are open. What was wrong has been said, and the code is what to end with.
pub(super) fn done(command: &Command, config: &Config) -> Result<Value, ExitCode> {
    told(command, config).map_err(|serve::Trouble { message, code, .. }| fail(&message, code))
}

/// The same, saying nothing.
pub(super) fn told(command: &Command, config: &Config) -> Result<Value, serve::Trouble> {
    match reach(command, config)? {
        Answer::Done(value) => Ok(value),
        Answer::Refused { code, message } => {
            let code = if code == Code::InvalidRequest.row().code { USAGE } else { FOUND_A_PROBLEM };
            Err(serve::trouble(code)(message))
        }
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    say::err(format_args!("farebox: {message}"));
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
        if let Some(problem) = somebody_elses(&config.data_dir) {
            return Err(serve::trouble(BAD_CONFIGURATION)(problem));
        }
        match serve::open_ledger(config, machine_clock()) {
            Ok(ledger) => return in_the_books(command, config, ledger),
            Err(trouble) if trouble.taken && Instant::now() < until => sleep(PAUSE),
            Err(trouble) => return Err(trouble),
        }
    }
}

/// Why this user must not open the books in a folder: what root made there its owner, the gateway's user, could not open any
/// more. A folder that is not there yet is nobody's.
pub(super) fn somebody_elses(data_dir: &Path) -> Option<String> {
    let owner = std::fs::metadata(data_dir).ok()?.uid();
    let me = rustix::process::geteuid().as_raw();
    (owner != me).then(|| {
        let folder = data_dir.display();
        format!(
            "{folder} belongs to the user {owner} and this is the user {me}, whose files the gateway could not open; nothing was \
             done: run this as its owner, with sudo -u '#{owner}' farebox …"
        )
    })
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
