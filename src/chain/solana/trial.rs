//! Asking a Solana chain whether a payment would succeed now, and why not if it would not.

use serde_json::Value;

use super::address::Pubkey;
use super::check;
use super::evidence::{BLOCKHASH_LIFE, SLACK};
use super::node::{self, Account, Asked, Level, Node, Trial};
use super::reason;
use super::token::Token;
use super::verified::Verified;
use crate::chain::Refused;
use crate::chain::rpc::RpcError;
use crate::money::Micros;

/// The token program's own error for an account that holds too little (`TokenError::InsufficientFunds`).
const TOO_LITTLE: u64 = 1;

/// So many blocks a payment's blockhash must have left when it is presented, about a quarter of a minute: else it may end while
/// its upstream already works.
pub const ENOUGH: u64 = 40;
/// And so many when it is signed.
pub const LEAST: u64 = 20;

/// How many blocks machines behind one address are apart at most, about ten minutes of them.
pub const FAR: u64 = 1500;

/// What is known of a payment that would succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// What the payer's account holds, in token units, and the slot at which it did.
    pub balance: u64,
    pub slot: u64,
    /// Blocks above this height cannot have its transaction.
    pub last_height: u64,
}

/// Why a payment cannot be settled now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    Refused(Refused),
    /// The operator has to do something first, and nothing is to be sold until then.
    Ours(String),
}

fn unavailable(error: RpcError) -> Trouble {
    Trouble::Refused(Refused::Unavailable(error.to_string()))
}

/// By when a payment's transaction must be in a block.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The last height for its blockhash, where it is one that we offered.
    pub last_valid: Option<u64>,
    /// How many blocks there must be until then.
    pub needed: u64,
}

/// What a node said of a payment.
struct Answers {
    trial: Trial,
    accounts: [Option<Account>; 3],
    /// The slot of the accounts.
    slot: u64,
    /// Whether a transaction may still name the blockhash.
    alive: bool,
    height: u64,
}

async fn ask(node: &Node, fee_payer: Pubkey, payment: &Verified) -> Asked<Answers> {
    let blockhash = payment.recent_blockhash();
    let keys = [fee_payer, payment.destination(), payment.source()];
    let calls = [
        node::simulate(&payment.transaction().to_bytes()),
        node::accounts(&keys),
        node::is_valid(&blockhash),
        // Last: a node that knows the blockhash has counted its block by now.
        node::reach(Level::Processed),
    ];
    let [trial, accounts, alive, reach] = node.batch_here(calls).await?;
    let (trial, accounts) = (node::read_trial(&trial?)?, accounts?);
    let slot = node::read_number(&accounts["context"]["slot"], "getMultipleAccounts")?;
    let accounts = node::read_accounts(&accounts, keys.len())?;
    let (reached, height) = node::read_reach(&reach?)?;
    if reached < trial.slot {
        // Several machines answer behind one address, and this one is behind the one that tried.
        return Err(RpcError::Unreachable("the node that counts blocks is behind the one that tried the transaction".into()));
    }
    Ok(Answers {
        trial,
        slot,
        accounts: accounts.try_into().map_err(|_| node::nonsense("getMultipleAccounts"))?,
        alive: node::read_flag(&alive?, "isBlockhashValid")?,
        height,
    })
}

/// Runs the transaction as it would be sent, but for our signature, and looks at the accounts that it needs. One round trip.
pub async fn attempt(node: &Node, token: &Token, fee_payer: Pubkey, payment: &Verified, end: End) -> Result<Passed, Trouble> {
    let asking = node.asking();
    let answers = node.heed(asking, ask(node, fee_payer, payment).await).map_err(unavailable)?;
    let Answers { trial, accounts: [ours, destination, source], slot, alive, height } = answers;
    let highest = node.note_height(height);
    check::funded(fee_payer, ours.as_ref()).map_err(Trouble::Ours)?;
    match payment.destination() == token.account {
        true => check::receives(token, destination.as_ref()).map_err(Trouble::Ours)?,
        // A payout: that its wallet has no account for the token is no trouble of the network.
        false => check::takes(token, payment, destination.as_ref()).map_err(Trouble::Refused)?,
    }
    let balance = source.as_ref().map(|account| held(account, payment.mint()));
    match &trial.error {
        Value::Null => {}
        Value::String(error) if error == "BlockhashNotFound" => {
            // Perhaps it is only this node that does not know it yet, or any more.
            node.pass_over(asking);
            return Err(Trouble::Refused(unknown_blockhash(alive)));
        }
        error if is_about_the_fee(error) => {
            return Err(Trouble::Ours(format!("fees: {fee_payer} cannot pay the fee of a transaction: {}", told(error))));
        }
        error => return Err(Trouble::Refused(diagnose(error, balance.flatten(), payment.amount()))),
    }
    in_time(end, height).map_err(Trouble::Refused)?;
    let balance = balance.flatten().unwrap_or(0);
    Ok(Passed { balance, slot: trial.slot.min(slot), last_height: last_height(end.last_valid, height, highest) })
}

/// Above this nothing can land. A machine that is behind must not make us believe that a payment is over before it is, and one that
/// once told an absurd height must not keep it from ever being over.
fn last_height(last_valid: Option<u64>, height: u64, highest: u64) -> u64 {
    let far = height.saturating_add(FAR);
    let last = last_valid.unwrap_or(highest.saturating_add(BLOCKHASH_LIFE));
    last.clamp(height, far.saturating_add(BLOCKHASH_LIFE)).saturating_add(SLACK)
}

/// Whether it is the fee payer that a transaction fails for, whose account is the first.
fn is_about_the_fee(error: &Value) -> bool {
    let first = error["InsufficientFundsForRent"]["account_index"] == 0;
    first || ["InsufficientFundsForFee", "InvalidAccountForFee", "AccountNotFound"].iter().any(|word| error == word)
}

fn unknown_blockhash(alive: bool) -> Refused {
    if alive {
        return Refused::Unavailable("the chain has only just made the block that this payment names".into());
    }
    let message = "the blockhash that the transaction names is too old, or not of this chain; sign a new one for a new offer";
    Refused::Invalid { reason: reason::EXPIRED, message: message.into() }
}

/// Whether there are blocks enough left at this height.
fn in_time(end: End, height: u64) -> Result<(), Refused> {
    let Some(left) = end.last_valid.map(|last| last.saturating_sub(height)).filter(|left| *left < end.needed) else {
        return Ok(());
    };
    let message = format!(
        "the blockhash that the transaction names is good for {left} more blocks, too few to settle it; sign a new one for a new offer"
    );
    Err(Refused::Invalid { reason: reason::EXPIRED, message })
}

/// The token units in an account of the token program for this mint.
fn held(account: &Account, mint: Pubkey) -> Option<u64> {
    let data = check::TokenAccount::read(account)?;
    (data.mint == mint).then_some(data.amount)
}

/// What a failed simulation means, as a buyer reads it.
fn diagnose(error: &Value, balance: Option<u64>, amount: Micros) -> Refused {
    let invalid = |reason: &'static str, message: String| Refused::Invalid { reason, message };
    if error == "AlreadyProcessed" {
        return invalid(reason::DUPLICATE, "this transaction is on the chain already and pays for nothing more".into());
    }
    let Some(balance) = balance else {
        return invalid(reason::SIMULATION, "the payer has no account for this token at the place that pays".into());
    };
    let too_little = error["InstructionError"][1]["Custom"] == TOO_LITTLE && balance < amount.get();
    let message = match too_little {
        true => format!("the payer's token account holds {} USDC, and {amount} are needed", Micros::new(balance)),
        false => format!("the chain would refuse the transaction: {}", told(error)),
    };
    invalid(reason::SIMULATION, message)
}

/// The chain's own word, short and on one line.
fn told(error: &Value) -> String {
    error.to_string().chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_fee_payer_lacks_is_never_the_buyers_fault() {
        for ours in [
            json!("InsufficientFundsForFee"),
            json!("AccountNotFound"),
            json!({"InsufficientFundsForRent": {"account_index": 0}}),
        ] {
            assert!(is_about_the_fee(&ours), "{ours}");
        }
        for theirs in [
            json!({"InstructionError": [2, {"Custom": 1}]}),
            json!({"InsufficientFundsForRent": {"account_index": 3}}),
            json!("AlreadyProcessed"),
        ] {
            assert!(!is_about_the_fee(&theirs), "{theirs}");
        }
    }

    #[test]
    fn a_buyer_reads_why_the_chain_would_refuse() {
        let say = |error: Value, balance| match diagnose(&error, balance, Micros::new(250_000)) {
            Refused::Invalid { reason, message } => (reason, message),
            other => panic!("{other:?}"),
        };
        let poor = json!({"InstructionError": [2, {"Custom": 1}]});
        let (reason, message) = say(poor.clone(), Some(7));
        assert_eq!(
            (reason, message.as_str()),
            (reason::SIMULATION, "the payer's token account holds 0.000007 USDC, and 0.250000 are needed")
        );
        assert!(say(poor.clone(), None).1.contains("no account for this token"));
        assert!(say(poor, Some(250_000)).1.contains("would refuse"), "a guard of the wallet may say the same number");
        assert_eq!(say(json!("AlreadyProcessed"), Some(7)).0, reason::DUPLICATE);
    }

    #[test]
    fn a_blockhash_that_is_about_to_end_is_refused_as_one_that_has() {
        let refused = |last_valid, height| match in_time(End { last_valid, needed: ENOUGH }, height) {
            Ok(()) => false,
            Err(Refused::Invalid { reason: reason::EXPIRED, .. }) => true,
            Err(other) => panic!("{other:?}"),
        };
        let last = Some(1150);
        assert_eq!([1000, 1110, 1111, 1150, 9000].map(|height| refused(last, height)), [false, false, true, true, true]);
        assert!(!refused(None, 9000), "of one that was not offered here the chain itself tells");
    }

    #[test]
    fn an_absurd_height_does_not_keep_a_payment_from_ever_being_over() {
        assert_eq!(last_height(Some(1150), 1000, 9000), 1166, "of an offered blockhash the end is known");
        assert_eq!(last_height(None, 1000, 1000), 1166);
        assert_eq!(last_height(None, 1000, 1200), 1366, "who said 1000 may be behind");
        for absurd in [1_000_000, u64::MAX] {
            assert_eq!([last_height(None, 1000, absurd), last_height(Some(absurd), 1000, 1000)], [2666, 2666]);
        }
    }

    #[test]
    fn a_blockhash_that_only_some_nodes_know_yet_is_no_reason_to_refuse() {
        assert!(matches!(unknown_blockhash(true), Refused::Unavailable(_)));
        assert!(matches!(unknown_blockhash(false), Refused::Invalid { reason: reason::EXPIRED, .. }));
    }
}
