//! What a payment's transaction tells the chain to do: one transfer of tokens, within the fee that we are ready to pay for it.

use super::address::Pubkey;
use super::reason;
use super::transaction::{Instruction, Message};
use crate::chain::Refused;

/// How many instructions a payment has: limit and price of computation and the transfer, and up to four more: guards that
/// wallets add, and a memo.
const INSTRUCTIONS: std::ops::RangeInclusive<usize> = 3..=7;
/// Where the transfer stands among them.
const TRANSFER: usize = 2;
/// The most that one transfer may be allowed to compute. It takes less than 7,000, guards of wallets some thousands each.
const MOST_UNITS: u32 = 200_000;
/// The most that we pay for one transaction, in lamports.
pub const MOST_LAMPORTS: u64 = 20_000;
/// What the chain takes for each signature.
const LAMPORTS_PER_SIGNATURE: u128 = 5_000;
const MICRO_LAMPORTS: u128 = 1_000_000;
/// The longest memo of x402.
const MEMO_BYTES: usize = 256;

/// First bytes of the instructions that are known here.
const SET_COMPUTE_UNIT_LIMIT: u8 = 2;
const SET_COMPUTE_UNIT_PRICE: u8 = 3;
const TRANSFER_CHECKED: u8 = 12;
/// Guards (Lighthouse 2.0): what looks at accounts. The two before them write memory that somebody has to pay for; those behind
/// them look at the clock, and at trees that anybody changes.
const GUARDS: std::ops::RangeInclusive<u8> = 2..=14;

/// The one transfer of a payment, and the text beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The token account that the money comes out of.
    pub source: Pubkey,
    pub mint: Pubkey,
    /// The token account that it goes into.
    pub destination: Pubkey,
    /// Who says so, and signs.
    pub authority: Pubkey,
    /// Units of the token.
    pub amount: u64,
    /// How many digits of the amount stand behind the point, by the payer's own word; the chain refuses a wrong one.
    pub decimals: u8,
    /// How much it may compute.
    pub units: u32,
    /// Micro-lamports for each unit.
    pub unit_price: u64,
    pub memo: Option<String>,
}

fn invalid(reason: &'static str, message: impl Into<String>) -> Refused {
    Refused::Invalid { reason, message: message.into() }
}

impl Order {
    /// Reads the instructions of a message, in the order and with the reasons of x402 2.27 facilitators: how many there are,
    /// the limit and the price of computation, one transfer of the old token program, and behind it only memos and guards of
    /// wallets. Stricter than those: the fee payer is in no instruction, and what is not needed is not there.
    ///
    /// # Errors
    /// [`Refused::Invalid`].
    pub fn read(message: &Message) -> Result<Order, Refused> {
        let instructions = message.instructions();
        if !INSTRUCTIONS.contains(&instructions.len()) {
            let say = format!(
                "the transaction has {} instructions, and a payment has 3 to 7; sign what x402 clients write",
                instructions.len()
            );
            return Err(invalid(reason::INSTRUCTIONS, say));
        }
        let (units, unit_price) = computation(message, instructions)?;
        let ([source, mint, destination, authority], amount, decimals) = transfer(message, &instructions[TRANSFER])?;
        let memo = rest(message, &instructions[TRANSFER + 1..])?;
        if instructions.iter().any(|instruction| instruction.accounts.contains(&0)) {
            let say = "the fee payer is given to an instruction, which could take what it has; it may only pay the fee";
            return Err(invalid(reason::FEE_PAYER_USED, say));
        }
        Ok(Order { source, mint, destination, authority, amount, decimals, units, unit_price, memo })
    }

    /// Whether we pay for it, whether or not it succeeds: apart from reading, because what we agreed to pay before is settled
    /// after the limits have changed, too.
    ///
    /// # Errors
    /// [`Refused::Invalid`].
    pub fn check_fee(&self, message: &Message) -> Result<(), Refused> {
        let Order { units, unit_price: price, .. } = *self;
        if units > MOST_UNITS {
            let say = format!("the transaction may compute {units} units, and at most {MOST_UNITS} are paid for; ask for less");
            return Err(invalid(reason::COMPUTE_LIMIT_TOO_HIGH, say));
        }
        let signatures = LAMPORTS_PER_SIGNATURE * u128::from(message.header().required_signatures);
        let lamports = signatures + (u128::from(units) * u128::from(price)).div_ceil(MICRO_LAMPORTS);
        if lamports > MOST_LAMPORTS.into() {
            let say = format!(
                "the transaction costs {lamports} lamports at {price} micro-lamports per unit, and at most {MOST_LAMPORTS} are \
                 paid for; offer less"
            );
            return Err(invalid(reason::COMPUTE_PRICE_TOO_HIGH, say));
        }
        Ok(())
    }

    /// Whether every guard looks at what is the payer's alone, its wallet and its token account, as those of wallets do. One that
    /// looks at the clock, or at what others change, is good in a simulation and fails in its block as its maker likes, and we
    /// have paid for that. Apart from reading for the same reason as [`Order::check_fee`].
    ///
    /// # Errors
    /// [`Refused::Invalid`].
    pub fn check_guards(&self, message: &Message) -> Result<(), Refused> {
        let is_the_payers =
            |position: &u8| message.key(*position).is_some_and(|key| [self.authority, self.source].contains(&key));
        for (instruction, unknown) in message.instructions().iter().skip(TRANSFER + 1).zip(reason::UNKNOWN) {
            if message.key(instruction.program) != Some(Pubkey::LIGHTHOUSE) {
                continue;
            }
            let known = instruction.data.first().is_some_and(|kind| GUARDS.contains(kind));
            if !known || instruction.accounts.is_empty() || !instruction.accounts.iter().all(is_the_payers) {
                let say =
                    "a guard of the transaction looks at something else than the payer's wallet and token account; leave it out";
                return Err(invalid(unknown, say));
            }
        }
        Ok(())
    }
}

/// The data of an instruction of the program that takes limits and prices of computation, which begins with this byte.
fn setting<'a, const N: usize>(message: &Message, instruction: &'a Instruction, first: u8) -> Option<&'a [u8; N]> {
    let (kind, value) = instruction.data.split_first()?;
    let known = message.key(instruction.program) == Some(Pubkey::COMPUTE_BUDGET) && *kind == first;
    value.try_into().ok().filter(|_| known && instruction.accounts.is_empty())
}

/// How much may be computed, and the price of a unit.
fn computation(message: &Message, instructions: &[Instruction]) -> Result<(u32, u64), Refused> {
    let units = setting(message, &instructions[0], SET_COMPUTE_UNIT_LIMIT).map(|bytes| u32::from_le_bytes(*bytes));
    let price = setting(message, &instructions[1], SET_COMPUTE_UNIT_PRICE).map(|bytes| u64::from_le_bytes(*bytes));
    match (units, price) {
        (Some(units), Some(price)) => Ok((units, price)),
        (None, _) => {
            let say = "the first instruction is not SetComputeUnitLimit; x402 clients write one there";
            Err(invalid(reason::COMPUTE_LIMIT, say))
        }
        (Some(_), None) => {
            let say = "the second instruction is not SetComputeUnitPrice; x402 clients write one there";
            Err(invalid(reason::COMPUTE_PRICE, say))
        }
    }
}

/// From where, of what, to where and by whom; how much, and with how many decimals.
fn transfer(message: &Message, instruction: &Instruction) -> Result<([Pubkey; 4], u64, u8), Refused> {
    let none = |say: &str| invalid(reason::NO_TRANSFER, say);
    match message.key(instruction.program) {
        Some(Pubkey::TOKEN) => {}
        Some(Pubkey::TOKEN_2022) => {
            return Err(none("the third instruction is of Token-2022, whose tokens are not taken here; USDC is not one of them"));
        }
        _ => return Err(none("the third instruction is not TransferChecked of the token program; x402 clients write it there")),
    }
    // Further accounts would be the signers of a shared wallet.
    let accounts: Option<Vec<_>> = instruction.accounts.iter().map(|position| message.key(*position)).collect();
    let accounts: Option<[_; 4]> = accounts.and_then(|accounts| accounts.try_into().ok());
    let read = match (instruction.data.split_first(), accounts) {
        (Some((&TRANSFER_CHECKED, value)), Some(accounts)) => value.split_first_chunk().zip(Some(accounts)),
        _ => None,
    };
    match read {
        Some(((amount, &[decimals]), accounts)) => Ok((accounts, u64::from_le_bytes(*amount), decimals)),
        _ => Err(none(
            "the third instruction is not TransferChecked from one account to another by one owner; x402 clients write it there",
        )),
    }
}

/// What stands behind the transfer; returns the memo.
fn rest(message: &Message, instructions: &[Instruction]) -> Result<Option<String>, Refused> {
    let mut memo = None;
    for (instruction, unknown) in instructions.iter().zip(reason::UNKNOWN) {
        match message.key(instruction.program) {
            Some(Pubkey::LIGHTHOUSE) => {}
            Some(Pubkey::MEMO) if memo.is_some() => {
                return Err(invalid(reason::MEMO_COUNT, "the transaction has more than one memo; write the one of the offer"));
            }
            Some(Pubkey::MEMO) => {
                let text = std::str::from_utf8(&instruction.data).ok().filter(|text| text.len() <= MEMO_BYTES);
                let text = text.ok_or_else(|| invalid(reason::MEMO, "the memo is not a text of at most 256 bytes"))?;
                memo = Some(text.to_owned());
            }
            other => {
                let program = other.map_or("a program that cannot be told".to_owned(), |program| program.to_string());
                let say = format!(
                    "behind the transfer stands an instruction of {program}; only a memo and guards of wallets may: leave it out"
                );
                return Err(invalid(unknown, say));
            }
        }
    }
    Ok(memo)
}
