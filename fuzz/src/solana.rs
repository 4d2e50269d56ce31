//! Solana transactions: one spelling for each, and never money of who did not sign, to somebody else, or at our cost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox::chain::judge;
use farebox::chain::solana::order::Order;
use farebox::chain::solana::transaction::{Message, Transaction};
use farebox::clock::Timestamp;
use serde_json::{Value, json};

/// The wallet that signed the seeds; nobody can sign for another one by changing bytes.
const SIGNER: &str = "AKnL4NNf3DGWZJS6cPknBuEGnVsV4A4m5tgebLHaRSZ9";
const PAY_TO: &str = "GyGKxMyg1p9SsHfm15MkNUu1u9TN2JtTspcdmrtGUdse";
const FEE_PAYER: &str = "9hSR6S7WPtxmTojgo6GG3k4yDPecgJY292j7xrsUGWBu";
/// Networks, the mints of their USDC, our token accounts, and prices that the seeds pay there.
const SALES: [(&str, &str, &str, &str); 2] = [
    (
        "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
        "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
        "DNDTCnZkNk358qDFZd9unHtnrc73SsXcpVWtwJJMrR4B",
        "250000",
    ),
    (
        "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1",
        "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU",
        "6ndWAgFxMAVLobD8WrdBj5w41GrDeJYiQX91nNSrwkZp",
        "10000",
    ),
];

/// The bytes are a transaction, and also the message of one.
pub fn check(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        laid_out(&message, data);
    }
    if let Ok(transaction) = Transaction::parse(data) {
        assert_eq!(transaction.to_bytes(), data, "two spellings of one transaction");
        let message = &transaction.message;
        assert_eq!(transaction.signatures.len(), message.signers().len());
        laid_out(message, message.bytes());
        let cut = Transaction::parse(&data[..data.len() - 1]);
        assert!(cut.is_err(), "a cut transaction is none");
    }
    for sale in SALES {
        presented(data, sale);
    }
}

fn laid_out(message: &Message, bytes: &[u8]) {
    assert_eq!(message.bytes(), bytes);
    let (keys, instructions) = (message.keys(), message.instructions());
    assert!(!message.signers().is_empty() && message.signers().len() <= keys.len());
    assert!(keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key)), "a key has one place");
    for instruction in instructions {
        assert!(message.key(instruction.program).is_some_and(|program| program != message.fee_payer()));
        let named = |position: &u8| usize::from(*position) < keys.len() + message.looked_up();
        assert!(instruction.accounts.iter().all(named), "an account that is not there");
    }
    if message.looked_up() == 0 {
        let again = Message::new(message.version(), message.header(), keys, &message.recent_blockhash(), instructions);
        assert_eq!(again.as_ref(), Ok(message), "it is laid out in one way");
    }
    let Ok(order) = Order::read(message) else { return };
    let given: Vec<_> = instructions.iter().flat_map(|instruction| &instruction.accounts).collect();
    assert!(given.iter().all(|position| message.key(**position) != Some(message.fee_payer())), "our key is given away");
    for account in [order.source, order.mint, order.destination, order.authority] {
        assert!(keys.contains(&account), "an account that nobody sees");
    }
}

/// Whatever is presented is judged, and what is valid is what we asked for, signed by who signed the seeds.
fn presented(data: &[u8], (network, mint, account, amount): (&str, &str, &str, &str)) {
    let wanted = json!({
        "scheme": "exact", "network": network, "amount": amount, "asset": mint, "payTo": PAY_TO, "maxTimeoutSeconds": 60,
        "extra": { "feePayer": FEE_PAYER },
    });
    let payment = json!({ "x402Version": 2, "accepted": wanted, "payload": { "transaction": STANDARD.encode(data) } });
    let verdict = judge(&STANDARD.encode(payment.to_string()), &wanted, Timestamp::from_secs(1_763_640_000));
    if verdict["valid"] != true {
        assert!(verdict["reason"].is_string(), "{verdict}");
        return;
    }
    assert_eq!(verdict["payer"], SIGNER, "never signed this");
    let shown = |place: &str| verdict.pointer(place).and_then(Value::as_str).unwrap_or_default().to_owned();
    assert_eq!(shown("/decoded/transaction/fee_payer"), FEE_PAYER);
    let transfer = ["amount", "mint", "destination", "authority"].map(|field| shown(&format!("/decoded/transfer/{field}")));
    assert_eq!(transfer, [amount, mint, account, SIGNER], "another transfer");
}
