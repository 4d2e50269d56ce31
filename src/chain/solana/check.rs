//! The self-check of a Solana network before anything is sold on it: is this the chain, the token, our account and our purse?

use futures_util::future::join_all;

use super::address::Pubkey;
use super::node::{self, Account, Level, Node};
use super::order::MOST_LAMPORTS;
use super::reason;
use super::settle::Settler;
use super::status;
use super::token::Token;
use super::verified::Verified;
use crate::chain::Refused;
use crate::chain::handle::{Closed, Purse};
use crate::chain::rpc::RpcError;
use crate::clock::Timestamp;
use crate::money::Micros;

/// Settlements that the fee payer must be able to pay for before we sell another call.
const SETTLEMENTS: u64 = 20;
/// What an account must keep to exist: the rent exemption of one without data, in lamports.
const KEPT: u64 = 890_880;
/// What the fee payer must have, in lamports.
const NEEDED: u64 = KEPT + SETTLEMENTS * MOST_LAMPORTS;
/// Lamports in one SOL.
const SOL: u64 = 1_000_000_000;
/// How far apart the clocks of the chain and ours may be, in seconds. The chain's is what its validators think on average, and
/// nothing here is decided by it: apart they are when a node stands still, or our clock is wrong.
const CLOCK_TOLERANCE: u64 = 300;
/// Sizes of the token program's own accounts, which say what they are.
const TOKEN_ACCOUNT_BYTES: usize = 165;
const MINT_BYTES: usize = 82;

/// Whether we can settle there ourselves. `Err` says what is wrong, for the operator.
pub async fn check(settler: &Settler, now: Timestamp) -> Result<(), Closed> {
    let (node, token, payer) = (&settler.node, &settler.token, settler.fee_payer());
    let ours = check_token(node, token, Some(payer), now).await?;
    let has = ours.as_ref().map_or(0, |account| account.lamports).into();
    settler.entry.note_purse(Purse { address: payer.to_string(), has, needs: NEEDED.into(), digits: 9 });
    funded(payer, ours.as_ref())?;
    settler.entry.note_gas(settler.coin_usd.map(cost));
    let blockhash = node.blockhash().await.map_err(|error| error.to_string())?;
    settler.entry.note_blockhash(blockhash);
    Ok(())
}

/// What a settlement may cost when one SOL costs so much; rounded up. It is its buyer who says how much, so the most that we
/// sign is what a sale must be worth.
fn cost(coin: Micros) -> Micros {
    let micros = u128::from(coin.get()).saturating_mul(MOST_LAMPORTS.into()).div_ceil(SOL.into());
    Micros::new(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Whether the nodes are those of this chain, the token is USDC as we know it, and our account takes it. Also looks at an
/// account that is returned as it stands.
pub async fn check_token(node: &Node, token: &Token, also: Option<Pubkey>, now: Timestamp) -> Result<Option<Account>, Closed> {
    let keys = [token.mint, token.account, node::clock_key(), also.unwrap_or(token.pay_to)];
    let asking = node.asking();
    let text = |error: RpcError| error.to_string();
    // Of our own transactions we know the names; a facilitator's are searched for.
    check_nodes(node, token, also.is_none().then_some(token.account)).await?;
    let accounts = node.call(node::accounts(&keys)).await.and_then(|answer| node::read_accounts(&answer, keys.len()));
    let mut accounts = node.heed(asking, accounts).map_err(text)?;
    let ours = accounts.pop().flatten();
    let [mint, destination, clock] = &accounts[..] else { return Err("the node left accounts unanswered".into()) };
    is_usdc(token.mint, mint.as_ref())?;
    receives(token, destination.as_ref())?;
    let agreed = on_time(token, node::read_clock(clock.as_ref()).map_err(text)?, now);
    if agreed.is_err() {
        node.pass_over(asking);
    }
    agreed.map(|()| ours)
}

/// Whether every node that answers is of this chain and tells what became of transactions, however long ago: the silence of
/// another one would look like a payment that never arrived.
async fn check_nodes(node: &Node, token: &Token, searched: Option<Pubkey>) -> Result<(), Closed> {
    let nobodys = status::name(&[0; 64]);
    let mut questions = vec![
        node::genesis(),
        node::statuses(std::slice::from_ref(&nobodys)),
        node::transaction(&nobodys),
        node::height(Level::Confirmed),
        node::reach(Level::Finalized),
    ];
    questions.extend(searched.map(|account| node::history(account, None, 0, 1)));
    let asked = node.sources().map(|source| (source, questions.clone()));
    let asked = asked.map(|(source, questions)| async move { (source, node.batch_of(source, questions).await) });
    for (source, answers) in join_all(asked).await {
        // Who does not answer now says nothing false.
        let Ok(answers) = answers else { continue };
        for answer in &answers {
            if let Err(RpcError::Answered { message, .. }) = answer {
                return Err(format!("{source} cannot tell what became of a payment: it answered: {message}").into());
            }
        }
        let genesis = answers.into_iter().next().and_then(Result::ok);
        match genesis.map(|genesis| node::read_genesis(&genesis)) {
            Some(theirs) if theirs != token.network => {
                return Err(format!("{source} is of the chain {theirs}, not of {}", token.network).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the chain's clock and ours agree, to five minutes.
pub async fn agree_on_time(node: &Node, token: &Token, now: Timestamp) -> Result<(), Closed> {
    let text = |error: RpcError| error.to_string();
    let asking = node.asking();
    let answer = node.call(node::accounts(&[node::clock_key()])).await.map_err(text)?;
    let accounts = node::read_accounts(&answer, 1).map_err(text)?;
    let agreed = on_time(token, node::read_clock(accounts[0].as_ref()).map_err(text)?, now);
    if agreed.is_err() {
        node.pass_over(asking);
    }
    agreed
}

fn on_time(token: &Token, theirs: u64, now: Timestamp) -> Result<(), Closed> {
    let apart = theirs.abs_diff(now.secs());
    if apart <= CLOCK_TOLERANCE {
        return Ok(());
    }
    let way = if theirs > now.secs() { "behind" } else { "ahead of" };
    Err(Closed::Clock(format!(
        "clock: this machine's clock is {apart} s {way} that of {}; set the clock, or the node is wrong",
        token.network
    )))
}

/// Whether this account is a mint of the plain token program with USDC's six decimals.
fn is_usdc(mint: Pubkey, account: Option<&Account>) -> Result<(), String> {
    let account = account.ok_or_else(|| format!("there is no token at the asset's address {mint}"))?;
    if account.program != Pubkey::TOKEN || account.data.len() != MINT_BYTES {
        return Err(format!("what stands at the asset's address {mint} is not a mint of the token program"));
    }
    match account.data[44] {
        6 => Ok(()),
        decimals => Err(format!("the asset has {decimals} decimals; only tokens with 6 are sold for")),
    }
}

/// An account of the token program, as far as it is read here.
pub struct TokenAccount {
    pub mint: Pubkey,
    pub owner: Pubkey,
    /// Token units.
    pub amount: u64,
    /// 1 is in use, 2 is frozen by the token's issuer.
    state: u8,
}

impl TokenAccount {
    /// `None` for what is not a token account.
    pub fn read(account: &Account) -> Option<TokenAccount> {
        let data = Some(&account.data).filter(|data| data.len() == TOKEN_ACCOUNT_BYTES && account.program == Pubkey::TOKEN)?;
        let key = |from: usize| data.get(from..from + 32)?.try_into().ok().map(Pubkey);
        let amount = u64::from_le_bytes(data.get(64..72)?.try_into().ok()?);
        Some(TokenAccount { mint: key(0)?, owner: key(32)?, amount, state: data[108] })
    }
}

/// Whether our token account takes the token. `Err` says to the operator what is wrong, with the command that mends it.
pub fn receives(token: &Token, account: Option<&Account>) -> Result<(), String> {
    let (place, mint, owner) = (token.account, token.mint, token.pay_to);
    let Some(account) = account else {
        return Err(format!(
            "pay_to: {owner} has no token account for {mint} yet, so nothing can be received; create {place} once with: spl-token \
             create-account {mint} --owner {owner} --fee-payer KEYPAIR.json"
        ));
    };
    match TokenAccount::read(account) {
        Some(account) if account.mint == mint && account.owner == owner => match account.state {
            1 => Ok(()),
            _ => Err(format!("pay_to: the token account {place} of {owner} is frozen; nothing can be received there")),
        },
        _ => Err(format!("pay_to: {place} is not a token account of {owner} for {mint}")),
    }
}

/// Whether the wallet of a payout has an account that takes the token. Nobody else's account is paid, and none is made for it.
pub fn takes(token: &Token, payment: &Verified, account: Option<&Account>) -> Result<(), Refused> {
    let (wallet, mint) = (&payment.presented.requirements.pay_to, token.mint);
    let is_its = |read: &TokenAccount| read.mint == mint && read.owner.to_string() == *wallet && read.state == 1;
    if account.and_then(TokenAccount::read).is_some_and(|read| is_its(&read)) {
        return Ok(());
    }
    let message = format!("{wallet} has no token account for {mint} that takes money; it must make one before it can be paid");
    Err(Refused::Invalid { reason: reason::SIMULATION, message })
}

/// Whether the fee payer can pay for the next settlements. `Err` says to the operator what to send.
pub fn funded(payer: Pubkey, account: Option<&Account>) -> Result<(), String> {
    let needed = NEEDED;
    match account {
        Some(account) if account.program != Pubkey::SYSTEM || !account.data.is_empty() => {
            Err(format!("fees: the settler {payer} is not a plain wallet, so it cannot pay fees"))
        }
        Some(account) if account.lamports >= needed => Ok(()),
        poor => {
            let has = poor.map_or(0, |account| account.lamports);
            Err(format!("fees: the settler {payer} has {has} lamports and needs {needed}; send it some SOL"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settlement_costs_the_most_that_a_buyer_may_make_us_pay_rounded_up() {
        assert_eq!(cost(Micros::new(150_000_000)), Micros::new(3000));
        assert_eq!(cost(Micros::new(1)), Micros::new(1));
    }

    #[test]
    fn the_fee_payer_must_be_a_plain_wallet_with_enough() {
        let wallet = |lamports, program, data: &[u8]| Account { lamports, program, data: data.to_vec() };
        let key = Pubkey([7; 32]);
        assert_eq!(funded(key, Some(&wallet(KEPT + 400_000, Pubkey::SYSTEM, &[]))), Ok(()));
        assert!(funded(key, Some(&wallet(KEPT + 399_999, Pubkey::SYSTEM, &[]))).unwrap_err().contains("send it some SOL"));
        assert!(funded(key, None).unwrap_err().contains("has 0 lamports"));
        for odd in [wallet(SOL, Pubkey::TOKEN, &[]), wallet(SOL, Pubkey::SYSTEM, &[0; 80])] {
            assert!(funded(key, Some(&odd)).unwrap_err().contains("not a plain wallet"));
        }
    }
}
