//! The Solana test chain itself: it takes what the official library signs, once, and it can lose, delay and undo.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_rig::buyer::sign_on;
use farebox_rig::solana::{BUYER, Cluster, PAY_TO, RICHES, SETTLER, SLOT, Solana};
use serde_json::{Value, json};

/// A payment that the settler is to pay the fee of, and did not sign.
fn payment(chain: &Solana, amount: u64) -> String {
    let requirements = json!({
        "scheme": "exact", "network": chain.network(), "amount": amount.to_string(), "asset": chain.usdc(),
        "payTo": PAY_TO.address, "maxTimeoutSeconds": 300, "extra": { "feePayer": SETTLER.address },
    });
    sign_on(chain, BUYER, &[requirements]).remove(0)["transaction"].as_str().unwrap().to_owned()
}

fn send(chain: &Solana, transaction: &str, checked: bool) -> Result<Value, Value> {
    chain.try_rpc("sendTransaction", json!([transaction, { "encoding": "base64", "skipPreflight": !checked }]))
}

#[test]
fn a_payment_without_the_fee_payers_signature_moves_nothing() {
    for cluster in [Cluster::Devnet, Cluster::Mainnet] {
        let chain = Solana::start_as(cluster, SLOT);
        let transaction = payment(&chain, 12_345);
        let raw = STANDARD.decode(&transaction).unwrap();
        assert_eq!((raw[0], &raw[1..65]), (2, &[0; 64][..]), "two signatures, the first of which is still to come");
        let simulated = chain.rpc("simulateTransaction", json!([transaction, { "encoding": "base64", "sigVerify": false }]));
        assert_eq!(simulated["value"]["err"], Value::Null, "but for that it would succeed: {simulated}");
        assert_eq!(send(&chain, &transaction, true).unwrap_err()["code"], -32003);
        send(&chain, &transaction, false).unwrap();
        assert_eq!((chain.landed(), chain.usdc_balance(PAY_TO), chain.usdc_balance(BUYER)), (vec![], 0, RICHES));
    }
}

#[test]
fn wallets_start_with_what_is_said_of_them() {
    let chain = Solana::start();
    assert_eq!((chain.lamports(SETTLER), chain.lamports(BUYER), chain.usdc_balance(BUYER)), (1_000_000_000, 0, RICHES));
    chain.close_token_account(PAY_TO);
    assert_eq!(chain.usdc_balance(PAY_TO), 0);
    let poor = json!([PAY_TO.address, { "mint": chain.usdc() }, { "encoding": "jsonParsed" }]);
    assert_eq!(chain.rpc("getTokenAccountsByOwner", poor)["value"], json!([]));
}
