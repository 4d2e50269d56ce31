//! The buying side: the transaction that an offer on Solana asks for, signed by its payer, as `farebox pay` and the tests do it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::address::{Pubkey, SettlerKey, associated_token_account};
use super::transaction::{Header, Instruction, Message, Transaction, Version};
use crate::chain::buyer::Unpayable;
use crate::clock::Timestamp;
use crate::money::Micros;
use crate::x402::names::Family;
use crate::x402::sign_in::Message as SignInMessage;
use crate::x402::{Requirements, Resource, encode};

/// What a transfer and a memo may compute, as x402 clients write it, and what is paid for a unit, in micro-lamports.
const UNITS: u32 = 20_000;
const UNIT_PRICE: u64 = 1;

/// Signs `offer` and returns the version 2 payment header (`PAYMENT-SIGNATURE`). `random` must be fresh: it makes the message
/// its own where the offer has no memo.
pub fn pay(offer: &Requirements, resource: Option<&Resource>, key: &SettlerKey, random: [u8; 32]) -> Result<String, Unpayable> {
    let transaction = sign(message(offer, &key.address(), random)?, key);
    let mut payment = json!({ "x402Version": 2, "accepted": offer, "payload": payload(&transaction) });
    if let Some(resource) = resource {
        payment["resource"] = json!(resource);
    }
    Ok(encode(&payment))
}

/// The payload of a payment: the transaction in base64.
pub fn payload(transaction: &Transaction) -> serde_json::Value {
    json!({ "transaction": STANDARD.encode(transaction.to_bytes()) })
}

/// The message with its payer's signature; the fee payer's place, which is the first, stays empty.
pub fn sign(message: Message, key: &SettlerKey) -> Transaction {
    let signed = key.sign(message.bytes());
    let slot = |signer: &Pubkey| if *signer == key.address() { signed } else { [0; 64] };
    Transaction { signatures: message.signers().iter().map(slot).collect(), message }
}

/// What x402 clients write: limit and price of computation, the transfer between associated token accounts, and the memo.
fn message(offer: &Requirements, payer: &Pubkey, random: [u8; 32]) -> Result<Message, Unpayable> {
    let extra = |key: &str| offer.extra.as_ref().and_then(|extra| extra.get(key)?.as_str());
    let address = |name: &str, text: Option<&str>| {
        let text = text.ok_or_else(|| Unpayable(format!("{name} is missing")))?;
        text.parse::<Pubkey>().map_err(|_| Unpayable(format!("{name} is not a Solana address")))
    };
    if offer.scheme != "exact" {
        return Err(Unpayable(format!("scheme {:?} is not \"exact\"", offer.scheme)));
    }
    let fee_payer = address("extra.feePayer", extra("feePayer"))?;
    let (mint, pay_to) = (address("asset", Some(&offer.asset))?, address("payTo", Some(&offer.pay_to))?);
    // Whoever does not find it in the offer asks a node; this buyer asks nobody.
    let blockhash = address("extra.recentBlockhash", extra("recentBlockhash"))?;
    let amount = Micros::parse_units(&offer.amount).ok_or_else(|| Unpayable("amount is not a number of units".into()))?;
    let account = |owner: &Pubkey| {
        associated_token_account(owner, &mint, &Pubkey::TOKEN).ok_or_else(|| Unpayable("there is no token account".into()))
    };
    let (source, destination) = (account(payer)?, account(&pay_to)?);
    let memo = extra("memo").map_or_else(|| random[..16].iter().map(|byte| format!("{byte:02x}")).collect(), str::to_owned);
    let keys = [fee_payer, *payer, source, destination, Pubkey::COMPUTE_BUDGET, mint, Pubkey::MEMO, Pubkey::TOKEN];
    let call = |program: u8, accounts: &[u8], data: Vec<u8>| Instruction { program, accounts: accounts.to_vec(), data };
    let instructions = [
        call(4, &[], [&[2][..], &UNITS.to_le_bytes()].concat()),
        call(4, &[], [&[3][..], &UNIT_PRICE.to_le_bytes()].concat()),
        call(7, &[2, 5, 3, 1], [&[12][..], &amount.get().to_le_bytes(), &[6]].concat()),
        call(6, &[], memo.into_bytes()),
    ];
    let header = Header { required_signatures: 2, read_only_signers: 1, read_only_others: 4 };
    Message::new(Version::V0, header, &keys, &blockhash.0, &instructions).map_err(|why| Unpayable(why.to_string()))
}

/// Signs in as `venice-x402-client` does and returns the header (`X-Sign-In-With-X`): for `domain` and `uri` on the Solana
/// network `chain` (CAIP-2), from `issued` until `expires`. `nonce` must be 8 or more fresh letters and digits.
pub fn sign_in(
    key: &SettlerKey,
    domain: &str,
    uri: &str,
    chain: &str,
    nonce: &str,
    (issued, expires): (Timestamp, Timestamp),
) -> String {
    let message = SignInMessage {
        family: Family::Solana,
        scheme: None,
        domain: domain.to_owned(),
        address: key.address().to_string(),
        statement: Some("Sign in to an AI gateway".to_owned()),
        uri: uri.to_owned(),
        chain: Family::reference(chain).to_owned(),
        nonce: Some(nonce.to_owned()),
        issued_at: issued.into(),
        expiration_time: Some(expires.into()),
        not_before: None,
        request_id: None,
        resources: None,
    };
    let text = message.text();
    encode(&json!({
        "address": message.address,
        "signature": bs58::encode(key.sign(text.as_bytes())).into_string(),
        "message": text,
        "timestamp": issued.millis(),
        "chainId": chain,
        "type": "ed25519",
    }))
}
