//! The first minute: the shipped configuration starts, says that its money is simulated, and `farebox pay` buys from it.

use farebox::chain::buyer::Wallet;
use farebox::x402::names::Family;
use farebox_rig::anvil::BUYER;
use farebox_rig::http::Request;
use farebox_rig::process::run;
use farebox_rig::server::Server;
use serde_json::json;

use crate::{FAREBOX, on_a_free_port, shipped};

/// `farebox pay` towards `server`, as a buyer without a wallet.
fn pay(server: &Server, arguments: &[&str]) -> (i32, String, String) {
    let mut command = server.command(&["pay", "--url", &server.url()]);
    command.args(arguments).env_remove("FAREBOX_PAYER_KEY");
    run(command, "")
}

#[test]
fn the_shipped_configuration_starts_and_says_that_its_money_is_simulated() {
    let server = shipped();
    let printed = server.output();
    for expected in ["sells     echo (from echo)", "paid on   eip155:84532", "MONEY IS SIMULATED", "simulated, ready"] {
        assert!(printed.contains(expected), "{expected:?} is missing in:\n{printed}");
    }
    let models = server.send(&Request::get("/v1/models"));
    assert_eq!((models.status, &models.json()["data"][0]["id"]), (200, &"echo".into()));
    let health = server.send(&Request::get("/healthz"));
    assert_eq!((health.status, &health.json()["networks"][0]["settlement"]), (200, &"simulated".into()));
}

#[test]
fn pay_prints_the_answer_on_stdout_and_the_receipt_on_stderr_in_every_dialect() {
    let mut server = shipped();
    let mut transactions = Vec::new();
    for dialect in [&[][..], &["--messages"], &["--responses"]] {
        let (code, stdout, stderr) = pay(&server, &[&["Tell me a story"], dialect].concat());
        assert_eq!((code, stdout.trim_end()), (0, "You said: Tell me a story"), "{stderr}");
        for expected in
            ["quote     at most 0.0", "throw-away", "simulated", "receipt   transaction 0x", "eip155:84532", "request   req_"]
        {
            assert!(stderr.contains(expected), "{expected:?} is missing in:\n{stderr}");
        }
        transactions.push(stderr.split("transaction ").nth(1).unwrap().split('\n').next().unwrap().to_owned());
    }
    transactions.sort();
    transactions.dedup();
    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!((transactions.len(), &books.json["payments"]), (3, &json!({ "final": 3 })));
}

#[test]
fn a_signed_offer_buys_with_a_plain_request_once() {
    let mut server = shipped();
    let (path, body) = ("/v1/chat/completions", r#"{"model":"echo","messages":[{"role":"user","content":"hi"}]}"#);
    let quoted = server.send(&Request::post(path, body));
    let offer = quoted.header("payment-required").expect("a 402 carries the offer").to_owned();
    let (code, stdout, stderr) = pay(&server, &["--sign", &offer]);
    assert_eq!((code, stdout.lines().count()), (0, 1), "the header and nothing else: {stderr}");

    let request = Request::post(path, body).header("payment-signature", stdout.trim());
    let bought = server.send(&request);
    assert_eq!(bought.status, 200, "{}", bought.text());
    assert_eq!(bought.json()["choices"][0]["message"]["content"], "You said: hi");
    assert_eq!(bought.decoded("payment-response").unwrap()["success"], true);
    let again = server.send_again(&request);
    assert_eq!((again.status, again.code().as_str()), (409, "payment_already_used"));

    // A wallet of one's own signs without asking anybody.
    let mut command = server.command(&["pay", "--url", "http://127.0.0.1:9", "--sign", &offer]);
    command.env("FAREBOX_PAYER_KEY", BUYER.key);
    let (code, stdout, stderr) = run(command, "");
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains(BUYER.address) && !stderr.contains(&BUYER.key[2..]), "{stderr}");
    let bought = server.send(&Request::post(path, body).header("payment-signature", stdout.trim()));
    assert_eq!(bought.status, 200, "{}", bought.text());
    assert!(server.audit().clean);
}

/// The shipped configuration, and Solana's test network beside its own.
fn both_families() -> Server {
    let solana = "[[network]]\nid = \"solana-devnet\"\npay_to = \"GyGKxMyg1p9SsHfm15MkNUu1u9TN2JtTspcdmrtGUdse\"\n\
                  settlement = \"simulated\"\n\n[[upstream]]\nname = \"echo\"";
    Server::configured(FAREBOX, &on_a_free_port().replacen("[[upstream]]\nname = \"echo\"", solana, 1))
}

#[test]
fn a_key_pays_on_the_network_of_its_family_a_call_and_a_top_up() {
    let mut server = both_families();
    let wallet = Wallet::fresh(Family::Solana, &[7; 32]).unwrap();
    for (key, network, account) in [
        (BUYER.key, "eip155:84532", BUYER.address.to_owned()),
        (&**wallet.1, "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", wallet.0.address()),
    ] {
        for arguments in [&["Hello"][..], &["Hello"], &["--top-up", "2.50"]] {
            let mut command = server.command(&["pay", "--url", &server.url()]);
            command.args(arguments).env("FAREBOX_PAYER_KEY", key);
            let (code, stdout, stderr) = run(command, "");
            assert_eq!(code, 0, "{stdout}{stderr}");
            assert!(stderr.contains(network) && stderr.contains(&account), "{stderr}");
            assert!(!format!("{stdout}{stderr}").contains(&key[2..]), "the key is not repeated: {stderr}");
            let credited = stdout.contains("credited  2.5 USDC to ") && stdout.contains("balance   ");
            assert!(credited || stdout.contains("You said: Hello"), "{stdout}");
        }
    }
    let mut command = server.command(&["pay", "--url", &server.url()]);
    command.env("FAREBOX_PAYER_KEY", "no key of any family");
    let (code, stdout, stderr) = run(command, "");
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("FAREBOX_PAYER_KEY") && stderr.contains("base58") && !stderr.contains("no key of any"), "{stderr}");
    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.json["payments"], json!({ "final": 6 }));
}

#[test]
fn a_buyer_never_pays_more_than_it_said() {
    let mut server = shipped();
    let (code, stdout, stderr) = pay(&server, &["hi", "--max-usd", "0.001"]);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("--max-usd") && stderr.contains("nothing was signed"), "{stderr}");
    let (code, stdout, stderr) = pay(&server, &["hi", "--model", "no-such-model"]);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("model_not_found"), "{stderr}");
    assert_eq!(server.audit().json["payments"], json!({}), "nothing was bought");

    let (code, _, stderr) = pay(&server, &["hi"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("is the gateway running?"), "{stderr}");
}

#[test]
fn an_offer_for_another_token_than_usdc_is_not_signed() {
    let mut server = both_families();
    let body = r#"{"model":"echo","messages":[{"role":"user","content":"hi"}]}"#;
    let quoted = server.send(&Request::post("/v1/chat/completions", body));
    let solana = Wallet::fresh(Family::Solana, &[7; 32]).unwrap().1;
    for (key, asset) in
        [(BUYER.key, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"), (&*solana, "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v")]
    {
        let mut offer = quoted.decoded("payment-required").expect("a 402 carries the offer");
        offer["accepts"].as_array_mut().unwrap().iter_mut().for_each(|entry| entry["asset"] = asset.into());
        let mut command = server.command(&["pay", "--sign", &farebox::x402::encode(&offer)]);
        command.env("FAREBOX_PAYER_KEY", key);
        let (code, stdout, stderr) = run(command, "");
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(asset) && stderr.contains("nothing was signed") && !stderr.contains("quote"), "{stderr}");
    }
    assert_eq!(server.audit().json["payments"], json!({}), "nothing was bought");
}

#[test]
fn an_offer_that_cannot_be_signed_is_named_as_what_it_is() {
    let mut server = shipped();
    for (arguments, said) in [
        (&["--sign", "%%%"][..], "the offer is not base64 at byte 0 ('%')"),
        (&["--sign", "e30="], "the offer has no such entry"),
        (&["--sign", "bm90IEpTT04="], "the offer is not JSON"),
        (&["hi", "--max-usd", "a lot"], "--max-usd"),
    ] {
        let (code, stdout, stderr) = pay(&server, arguments);
        assert_eq!((code, stdout.as_str()), (1, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said) && !stderr.contains("payment header"), "{arguments:?}: {stderr}");
    }
    assert_eq!(server.audit().json["payments"], json!({}), "nothing was bought");
}
