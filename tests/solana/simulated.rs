//! The simulated network of Solana: everything works with no account anywhere, and no node is asked.

use farebox::chain::solana::{address::SettlerKey, buyer, signature};
use farebox::x402::Requirements;
use farebox_rig::http::Request;
use farebox_rig::server::{MODEL, Server};
use farebox_rig::solana::{BUYER, PAY_TO};
use serde_json::json;

use crate::shop::CHAT;

#[test]
fn a_call_is_bought_on_a_simulated_network_without_any_node() {
    let mut server = Server::configured(
        env!("CARGO_BIN_EXE_farebox"),
        &format!(
            r#"
[server]
bind = "127.0.0.1:0"
data_dir = "data"

[[network]]
id = "solana-devnet"
pay_to = "{}"
settlement = "simulated"

[[upstream]]
name = "echo"
kind = "echo"
speaks = ["chat", "messages"]

[[model]]
id = "{MODEL}"
upstreams = [{{ name = "echo", model = "echo" }}]
price = {{ input = "3", output = "15" }}
"#,
            PAY_TO.address
        ),
    );
    let body = json!({ "model": MODEL, "max_tokens": 64, "messages": [{ "role": "user", "content": "hello" }] }).to_string();
    let offered = server.send(&Request::post(CHAT, body.as_str())).decoded("payment-required").unwrap();
    let offer: Requirements = serde_json::from_value(offered["accepts"][0].clone()).unwrap();
    let header = buyer::pay(&offer, None, &SettlerKey::parse(BUYER.key).unwrap(), [7; 32]).unwrap();
    let paying = Request::post(CHAT, body.as_str()).header("payment-signature", &header);
    let answer = server.send(&paying);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let receipt = answer.decoded("payment-response").unwrap();
    assert!(signature(receipt["transaction"].as_str().unwrap()).is_some(), "named as transactions are there: {receipt}");
    assert_eq!(receipt["payer"], BUYER.address);
    let again = server.send_again(&paying);
    assert_eq!((again.status, again.code().as_str()), (409, "payment_already_used"));
    server.has_said("SIMULATED settlement");
    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.json["chain"], json!({ "found": 0, "unasked": 1 }));
    assert!(books.balance(BUYER.address) < offer.amount.parse().unwrap(), "the call was charged");
}
