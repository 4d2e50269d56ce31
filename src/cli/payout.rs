//! `farebox payout`: balance goes back to its wallet on a chain. The key of `pay_to` signs here, and never leaves this command.

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::socket::{Answer, ask};
use super::{FOUND_A_PROBLEM, USAGE, machine_clock, say};
use crate::chain::buyer::Wallet;
use crate::chain::{self, Payable};
use crate::config::{Config, Network, Secret};
use crate::error::Code;
use crate::gateway::operator::Command;
use crate::gateway::payouts::Terms;
use crate::x402::Requirements;

#[derive(clap::Args)]
pub struct Arguments {
    /// The wallet whose balance it is and that is paid: `0x…`, or a Solana address.
    account: String,
    /// How much, such as 0.25.
    usd: String,
    /// A `[[network]]` of the configuration, on which it is paid.
    #[arg(long)]
    network: String,
    /// A name that no other payout has, such as a ticket's: asked for again by the same id, it says where it is and pays nothing more.
    #[arg(long)]
    id: String,
    /// Why, for the books.
    #[arg(long)]
    reason: String,
    /// Where the private key of pay_to is: env:NAME or file:PATH. It signs one transfer here, and is not sent to the gateway.
    #[arg(long, default_value = "env:FAREBOX_TREASURY_KEY", value_name = "PLACE")]
    key: String,
}

/// Why nothing came of it, and the code to end with.
type Problem = (String, u8);

fn usage(message: impl Into<String>) -> Problem {
    (message.into(), USAGE)
}

pub fn run(arguments: Arguments, config: &Config) -> ExitCode {
    let done = pay(arguments, config).and_then(|told| {
        let is_paid = told["state"] == "paid";
        say::out(format_args!("{told:#}")).map_err(|problem| (problem, FOUND_A_PROBLEM))?;
        if is_paid { Ok(()) } else { Err((told["know"].as_str().unwrap_or("it is not paid").to_owned(), FOUND_A_PROBLEM)) }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err((message, code)) => {
            say::err(format_args!("farebox: {message}"));
            ExitCode::from(code)
        }
    }
}

fn pay(arguments: Arguments, config: &Config) -> Result<Value, Problem> {
    let Arguments { account, usd, network, id, reason, key } = arguments;
    let terms = Terms { account, usd, network, id, reason };
    let payable = terms.payable().map_err(|error| usage(error.message))?;
    let network = config.networks.iter().find(|network| network.id == payable.network);
    let network = network.ok_or_else(|| usage(format!("no [[network]] of the configuration is {:?}", terms.network)))?;
    let told = command(config, &terms, None)?;
    if told["offer"].is_null() {
        return Ok(told);
    }
    let offer: Requirements = Requirements::from_json(&told["offer"])
        .map_err(|_| ("the gateway that runs is of another version: its offer cannot be read".to_owned(), FOUND_A_PROBLEM))?;
    chain::check_payout(network, &payable, &offer).map_err(|problem| (problem, FOUND_A_PROBLEM))?;
    let wallet = wallet(&key, network)?;
    enough(network, &payable)?;
    say::err(format_args!(
        "signing   {} USDC on {} from {} to {}",
        payable.amount,
        offer.network,
        wallet.address(),
        offer.pay_to
    ));
    let nonce = chain::payout_nonce(&payable.network, &payable.id);
    let header = wallet.pay(&offer, None, nonce, machine_clock().now()).map_err(|error| (error.to_string(), FOUND_A_PROBLEM))?;
    command(config, &terms, Some(header))
}

/// The key of `pay_to`, and no other.
fn wallet(place: &str, network: &Network) -> Result<Wallet, Problem> {
    let secret =
        Secret::load(place, Path::new(""), &|name| std::env::var(name).ok()).map_err(|why| usage(format!("--key: {why}")))?;
    let wallet = Wallet::parse(secret.expose()).map_err(|why| usage(format!("--key: {why}")))?;
    let from = chain::paid_from(network).map_err(usage)?;
    match wallet.address() == from {
        true => Ok(wallet),
        false => Err(usage(format!(
            "--key is the key of {}, and {} is paid from pay_to, {from}; nothing was signed",
            wallet.address(),
            network.id
        ))),
    }
}

/// A transfer that its chain would refuse is not signed: until its end the balance would wait for it.
fn enough(network: &Network, payable: &Payable) -> Result<(), Problem> {
    let there = chain::treasury(std::slice::from_ref(network)).into_iter().next();
    match there.map(|there| (there.held, there.pay_to)) {
        Some((Ok(held), pay_to)) if held < payable.amount => {
            let message =
                format!("{pay_to} has {held} USDC on {}, too little for {}; nothing was signed", network.id, payable.amount);
            Err((message, FOUND_A_PROBLEM))
        }
        // Who cannot be asked now is asked by the gateway again.
        Some(_) | None => Ok(()),
    }
}

/// Has the gateway do its part.
fn command(config: &Config, terms: &Terms, payment: Option<String>) -> Result<Value, Problem> {
    let command = Command::PayOut { terms: terms.clone(), payment };
    match ask(&config.data_dir, &command).map_err(|problem| (problem, FOUND_A_PROBLEM))? {
        Some(Answer::Done(told)) => Ok(told),
        Some(Answer::Refused { code, message }) => {
            let code = if code == Code::InvalidRequest.row().code { USAGE } else { FOUND_A_PROBLEM };
            Err((message, code))
        }
        None => {
            let folder = config.data_dir.display();
            let message = format!("no gateway runs on {folder}, and it is what pays the fee of a payout: start it first");
            Err((message, FOUND_A_PROBLEM))
        }
    }
}
