//! The command line: one file per subcommand.

mod backup;
mod check;
mod export;
mod forget;
mod inspect;
mod log;
mod memory;
mod operator;
mod pay;
mod payout;
mod ready;
mod reload;
mod report;
mod restore;
mod say;
mod serve;
mod sheet;
mod socket;
mod verify;

pub use log::start as start_log;
pub use memory::keep_private;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::clock::{Clock, Timestamp};
use crate::config::{Config, ConfigError};
use crate::gateway::operator::Command as Order;
use crate::keys;
use crate::ledger::{Broken, Remedy};

/// Exit codes, as the manual of a service manager expects them: after 1 and 78 it need not try again.
pub const FOUND_A_PROBLEM: u8 = 1;
/// Wrong use of the command line.
pub const USAGE: u8 = 2;
/// The ledger failed, or an address to listen on is not there: the next start recovers, or finds it.
pub const FAIL_STOP: u8 = 70;
/// Something that a restart does not change must be changed first: the configuration, or what is around the books.
pub const BAD_CONFIGURATION: u8 = 78;

/// Sell AI inference for USDC.
#[derive(Parser)]
#[command(version, about)]
pub struct Arguments {
    /// The configuration file; relative paths in it start at its own folder.
    #[arg(long, global = true, env = "FAREBOX_CONFIG", default_value = "config.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Serve,
    /// Look whether the configuration is right and everything that it names answers; buys nothing.
    Check(check::Arguments),
    /// Buy one call: ask, show the quote, sign, stream the answer, print the receipt.
    Pay(pay::Arguments),
    /// Decode and judge a payment or a sign-in without asking anybody.
    Inspect {
        #[command(subcommand)]
        what: inspect::What,
    },
    /// Make, list, change, rotate and revoke API keys.
    Keys {
        #[command(subcommand)]
        what: operator::Keys,
    },
    /// Show what a wallet has, and what moved.
    Account {
        /// `0x…`, or a Solana address.
        address: String,
    },
    /// Grant wallets so much for every day.
    Allowance {
        #[command(subcommand)]
        what: operator::Allowance,
    },
    /// Give back what a call has cost, as money and, on the same day, as allowance. Asked for twice, it is given back once.
    Refund {
        /// `req_…`, as its answer said in X-Request-Id.
        request: String,
        /// How much in all, what was given back before included; all that can be, if left out.
        usd: Option<String>,
    },
    /// Give a wallet money, or take some of what it has, with a reason. Asked for again by the same id, it is done once.
    Adjust {
        /// `0x…`, or a Solana address.
        account: String,
        /// Such as 0.25, or -0.25 to take it.
        #[arg(allow_hyphen_values = true)]
        usd: String,
        /// Why, for the books.
        #[arg(long)]
        reason: String,
        /// A name that no other adjustment has, such as a ticket's.
        #[arg(long)]
        id: String,
    },
    /// Bar a wallet: nothing is sold to it any more, and what it has here stays its own. Calls of it that run end.
    Block {
        /// `0x…`, or a Solana address.
        account: String,
        /// Why, for yourself; its buyer is not shown it.
        #[arg(long)]
        reason: String,
    },
    /// Let a wallet that was barred buy again.
    Unblock {
        /// `0x…`, or a Solana address.
        account: String,
    },
    /// List the wallets that are barred, with the reasons.
    Blocked,
    /// Pay some of a wallet's balance back to it on a chain, as a refund. Asked for again by the same id, it is paid once.
    Payout(payout::Arguments),
    /// Close a payment of which no node can tell whether it arrived, once you have looked it up and know that it did not.
    GiveUp {
        /// `pay_…`, as its buyer and `farebox verify` were told.
        payment: String,
        /// How you know, for the books.
        #[arg(long)]
        reason: String,
    },
    /// Have a running gateway read its configuration again, as SIGHUP does, and say what has changed.
    Reload,
    /// Show what was earned: calls, revenue, refunds, costs and margin by day, model, upstream and network, and what is owed.
    Report(report::Arguments),
    /// Write the books row by row, as CSV or JSON Lines.
    Export(export::Arguments),
    /// Copy the books, the pepper of the keys and the noted prices into a new folder, also while the gateway runs.
    Backup(backup::Arguments),
    /// Put a backup into an empty data folder, and look for payments that came in after it was made.
    Restore(restore::Arguments),
    /// Check the books and the keys, and with --chain every payment against its chain.
    Verify(verify::Arguments),
}

/// Runs the subcommand.
pub fn run(arguments: Arguments) -> ExitCode {
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => with_config(&arguments.config, |config| serve::run(arguments.config.clone(), config)),
        Command::Check(check) => check::run(&check, &arguments.config),
        Command::Pay(pay) => pay::run(&pay),
        Command::Inspect { what } => inspect::run(&what),
        Command::Keys { what: operator::Keys::ForgetAll { yes } } => {
            with_config(&arguments.config, |config| forget::run(yes, &config))
        }
        Command::Keys { what } => by_hand(&arguments.config, what.command()),
        Command::Account { address } => by_hand(&arguments.config, Ok(Order::ShowAccount { account: address })),
        Command::Allowance { what } => by_hand(&arguments.config, Ok(what.command())),
        Command::Refund { request, usd } => by_hand(&arguments.config, Ok(Order::Refund { request, usd })),
        Command::Adjust { account, usd, reason, id } => {
            by_hand(&arguments.config, Ok(Order::Adjust { account, usd, reason, id }))
        }
        Command::Block { account, reason } => by_hand(&arguments.config, Ok(Order::Block { account, reason })),
        Command::Unblock { account } => by_hand(&arguments.config, Ok(Order::Unblock { account })),
        Command::Blocked => by_hand(&arguments.config, Ok(Order::ListBlocked)),
        Command::Payout(payout) => with_config(&arguments.config, |config| payout::run(payout, &config)),
        Command::GiveUp { payment, reason } => by_hand(&arguments.config, Ok(Order::GiveUp { payment, reason })),
        Command::Reload => with_config(&arguments.config, |config| reload::run(&config)),
        Command::Report(report) => with_config(&arguments.config, |config| report::run(&report, &config)),
        Command::Export(export) => with_config(&arguments.config, |config| ended(export::run(&export, &config))),
        Command::Backup(backup) => with_config(&arguments.config, |config| ended(backup::run(&backup, &config))),
        Command::Restore(restore) => with_config(&arguments.config, |config| ended(restore::run(&restore, &config))),
        Command::Verify(verify) => with_config(&arguments.config, |config| verify::run(&verify, config)),
    }
}

/// What a command ends with that prints by itself: what went wrong is said here.
fn ended(done: Result<(), serve::Trouble>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(serve::Trouble { message, code, .. }) => {
            say::err(format_args!("farebox: {message}"));
            ExitCode::from(code)
        }
    }
}

fn by_hand(path: &std::path::Path, order: Result<Order, String>) -> ExitCode {
    with_config(path, |config| operator::run(order, &config))
}

/// What a program that cannot use its ledger ends with.
fn code_of(broken: &Broken) -> u8 {
    match broken.remedy {
        Remedy::StartAgain => FAIL_STOP,
        Remedy::Change => BAD_CONFIGURATION,
        Remedy::Examine => FOUND_A_PROBLEM,
    }
}

/// The same for its keys.
fn code_of_keys(broken: &keys::Broken) -> u8 {
    match broken.remedy {
        keys::Remedy::StartAgain => FAIL_STOP,
        keys::Remedy::Change => BAD_CONFIGURATION,
        keys::Remedy::Examine => FOUND_A_PROBLEM,
    }
}

fn with_config(path: &std::path::Path, command: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    let loaded: Result<Config, ConfigError> = Config::load(path, &|name| std::env::var(name).ok());
    match loaded {
        Ok(config) => command(config),
        Err(error) => {
            say::err(format_args!("farebox: the configuration cannot be used: {error}"));
            ExitCode::from(BAD_CONFIGURATION)
        }
    }
}

/// The clock of this machine: the one place that reads it.
fn machine_clock() -> Clock {
    Clock::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        #[cfg(feature = "fault-points")]
        let millis = millis.saturating_add_signed(ahead_ms());
        Timestamp::from_millis(millis)
    })
}

/// How far a test has moved this machine's clock: the file that `FAREBOX_CLOCK` names holds seconds, such as `-3600`, and is
/// read each time. A release build has no such thing.
#[cfg(feature = "fault-points")]
fn ahead_ms() -> i64 {
    let moved = std::env::var_os("FAREBOX_CLOCK").and_then(|path| std::fs::read_to_string(path).ok());
    let seconds: i64 = moved.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    seconds.saturating_mul(1000)
}
