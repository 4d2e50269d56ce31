//! Topping up in a browser: what is shown is what is signed, one payment moves once, and who refuses keeps the money.

use farebox_rig::anvil::{BUYER, OTHER_BUYER, PAY_TO, POOR_BUYER, Wallet};
use farebox_rig::process::run;
use farebox_rig::solana;
use serde_json::{Value, json};

use crate::browser::{Browser, answers_again, click, fill, open, read, see, silent, wallet};
use crate::shop::{DOLLAR, Ledger, Shop};

/// Base Sepolia's USDC.
const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";

fn sign(amount: &str) -> [Value; 5] {
    [
        open("/topup"),
        click("Test Wallet"),
        see("Connected:"),
        fill("US dollars, paid in USDC", amount),
        click(&format!("Sign and top up ${amount}")),
    ]
}

/// The payment that the page keeps until it knows what became of it.
fn kept() -> Value {
    json!({ "do": "evaluate", "script": "localStorage.getItem('farebox-payment')" })
}

/// As if what is kept had been signed long ago.
const AGED: &str = "localStorage.setItem('farebox-payment', JSON.stringify({ ...JSON.parse(localStorage.getItem('farebox-payment')), until: 1 }))";

#[test]
fn a_person_signs_what_the_page_showed_and_has_that_balance() {
    let shop = Shop::open();
    let mut steps = sign("7.50").to_vec();
    steps.extend([see("New balance"), json!({ "do": "links", "css": "#transaction a" }), read("#balance"), kept()]);
    steps.extend([read("main"), json!({ "do": "asked" })]);
    let facts = json!({ "do": "read", "css": "#facts" });
    steps.insert(4, facts);
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);

    let facts = seen.value(4).as_str().unwrap();
    for fact in ["7.50 USDC", "Base Sepolia (test)", BUYER.address, PAY_TO.address, USDC, "5 minutes"] {
        assert!(facts.contains(fact), "{fact} is missing: {facts}");
    }
    let asked = seen.last().as_array().unwrap();
    let signed: Vec<_> = asked.iter().filter(|it| it["method"] == "eth_signTypedData_v4").collect();
    assert_eq!(signed.len(), 1, "one message is signed: {asked:#?}");
    let typed: Value = serde_json::from_str(signed[0]["params"][1].as_str().unwrap()).unwrap();
    let (domain, message) = (&typed["domain"], &typed["message"]);
    assert_eq!((&domain["chainId"], &domain["verifyingContract"]), (&json!(84532), &json!(USDC)));
    assert_eq!((&message["from"], &message["to"]), (&json!(BUYER.address), &json!(PAY_TO.address)));
    assert_eq!(message["value"], "7500000");

    let transfers = shop.chain.transfers();
    assert_eq!(transfers.len(), 1);
    let link = format!("https://sepolia.basescan.org/tx/{}", transfers[0].transaction);
    assert_eq!(seen.value(7), &json!([link]), "the transaction can be looked at");
    assert_eq!((seen.value(8), seen.value(9)), (&json!("$7.50"), &Value::Null), "nothing is left to do");
    shop.close(&Ledger { paid: vec![(BUYER, 7_500_000)], charged: 0 });
}

/// Presses Sign when another account is chosen in the wallet, and once more when the page has said so.
fn sign_for_another_account(browser: &Browser<'_>, other: Wallet) {
    let [opened, connect, connected, amount, press] = sign("3.00");
    let asked = || json!({ "do": "asked" });
    let mut steps = vec![opened, connect, connected, amount, wallet(&json!({ "key": other.key })), press.clone()];
    steps.extend([see("Another account is chosen in your wallet now."), read("#facts"), asked(), press, see("New balance")]);
    let seen = browser.does(&steps);
    assert!(seen.value(7).as_str().unwrap().contains(other.address), "it is shown who would pay: {}", seen.value(7));
    let asked = seen.value(8).as_array().unwrap();
    let signed = |it: &Value| ["eth_signTypedData_v4", "signTransaction"].iter().any(|method| it["method"] == *method);
    assert!(!asked.is_empty() && !asked.iter().any(signed), "nothing was signed that was not shown: {asked:#?}");
}

#[test]
fn who_chooses_another_account_in_the_wallet_signs_for_none_before_the_page_has_shown_it() {
    let shop = Shop::open();
    sign_for_another_account(&shop.browser().with(shop.wallet(BUYER)), OTHER_BUYER);
    assert_eq!(shop.available(BUYER), 0);
    shop.close(&Ledger { paid: vec![(OTHER_BUYER, 3 * DOLLAR)], charged: 0 });
}

#[test]
fn who_chooses_another_account_in_a_wallet_of_solana_signs_for_none_before_the_page_has_shown_it() {
    let shop = Shop::open_on_solana();
    sign_for_another_account(&shop.browser().with(shop.wallet(solana::BUYER)), solana::OTHER_BUYER);
    assert_eq!(shop.available(solana::BUYER), 0);
    shop.close(&Ledger { paid: vec![(solana::OTHER_BUYER, 3 * DOLLAR)], charged: 0 });
}

#[test]
fn only_the_wallet_that_was_chosen_last_pays_and_what_it_signs_is_not_changed_meanwhile() {
    let shop = Shop::open();
    let mut late = shop.wallet(OTHER_BUYER);
    late["name"] = "Late Wallet".into();
    let mut steps = vec![open("/topup")];
    for refuse in [false, true] {
        steps.extend([
            silent("Late Wallet", "eth_requestAccounts"),
            click("Late Wallet"),
            click("Test Wallet"),
            see("Connected:"),
        ]);
        steps.push(json!({ "do": "wallet", "name": "Late Wallet", "set": { "refuse": refuse } }));
        steps.extend([answers_again(), json!({ "do": "missing", "text": "The wallet is not connected." }), read("#facts")]);
    }
    let poke = |css: &str| json!({ "do": "poke", "css": css });
    steps.extend([fill("US dollars, paid in USDC", "5"), silent("Test Wallet", "eth_signTypedData_v4")]);
    steps.extend([click("Sign and top up $5.00"), see("Your wallet asks you now."), read("#facts")]);
    steps.extend([poke("#presets button >> nth=0"), poke("#wallets button:has-text('Late')"), poke("#amount")]);
    steps.extend([json!({ "do": "type", "text": "9" }), read("#facts"), answers_again(), see("New balance"), read("#balance")]);
    let seen = shop.browser().with(shop.wallet(BUYER)).with(late).does(&steps);
    let facts: Vec<_> = (0..steps.len()).filter(|step| steps[*step] == read("#facts")).map(|step| seen.value(step)).collect();
    assert_eq!(facts.len(), 4);
    for shown in &facts {
        let shown = shown.as_str().unwrap();
        assert!(shown.contains(BUYER.address) && !shown.contains(OTHER_BUYER.address), "{shown}");
    }
    assert!(facts[2].as_str().unwrap().contains("5.00 USDC") && facts[2] == facts[3], "what is signed stays there: {facts:?}");
    assert_eq!(seen.text(), "$5.00");
    assert_eq!(shop.available(OTHER_BUYER), 0);
    shop.close(&Ledger { paid: vec![(BUYER, 5 * DOLLAR)], charged: 0 });
}

#[test]
fn who_refuses_or_is_on_another_network_or_has_too_little_pays_nothing_and_is_told_what_to_do() {
    let shop = Shop::open();
    let button = || click("Sign and top up $5.00");
    let mut steps =
        vec![wallet(&json!({ "refuse": true })), open("/topup"), click("Test Wallet"), see("You refused in your wallet")];
    steps.extend([wallet(&json!({ "refuse": false })), click("Test Wallet"), see("Connected:")]);
    steps.extend([fill("US dollars, paid in USDC", "5"), wallet(&json!({ "refuse": true })), button()]);
    steps.extend([see("Nothing was signed and nothing moved"), kept()]);
    steps.extend([wallet(&json!({ "refuse": false, "chainId": 1, "knows": [1] })), button()]);
    steps.extend([see("Your wallet does not know Base Sepolia (test) yet. Add that network in your wallet"), kept()]);
    for (typed, words) in
        [("0.5", "The least is $1.00."), ("10000.01", "The most at once is $10,000.00."), ("x", "Write an amount")]
    {
        steps.extend([fill("US dollars, paid in USDC", typed), see(words)]);
        steps.push(json!({ "do": "disabled", "css": "#sign" }));
    }
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    assert_eq!((seen.value(11), seen.value(15)), (&Value::Null, &Value::Null), "no payment exists");
    assert_eq!([18, 21, 24].map(|step| seen.value(step)), [&json!(true), &json!(true), &json!(true)]);

    let mut steps = sign("2.00").to_vec();
    steps.push(see("Your wallet has 0.000000 USDC on Base Sepolia (test), and this needs 2.000000."));
    steps.extend([kept(), json!({ "do": "asked" })]);
    let seen = shop.browser().with(shop.wallet(POOR_BUYER)).does(&steps);
    let asked = seen.last().as_array().unwrap();
    assert!(asked.iter().all(|it| it["method"] != "eth_signTypedData_v4"), "it was not asked to sign: {asked:#?}");
    assert_eq!(shop.available(BUYER) + shop.available(POOR_BUYER), 0);
    shop.close(&Ledger { paid: vec![], charged: 0 });
}

#[test]
fn a_wallet_on_another_network_is_brought_to_the_one_that_was_chosen() {
    let shop = Shop::open();
    let mut steps = vec![wallet(&json!({ "chainId": 1 }))];
    steps.extend(sign("1.00"));
    steps.extend([see("New balance"), json!({ "do": "asked" })]);
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    let switched = seen.last().as_array().unwrap().iter().filter(|it| it["method"] == "wallet_switchEthereumChain").count();
    assert_eq!(switched, 1);
    shop.close(&Ledger { paid: vec![(BUYER, DOLLAR)], charged: 0 });
}

#[test]
fn what_was_signed_too_long_ago_is_said_to_be_over_and_moves_nothing() {
    let shop = Shop::open();
    // Chain and gateway agree that it is ten minutes later than the browser's machine thinks.
    shop.chain.rpc("evm_increaseTime", json!([600]));
    shop.chain.mine(1);
    shop.server.move_clock(600);
    let mut steps = sign("3.00").to_vec();
    steps.extend([see("What you signed is no longer valid."), see("Press the button and sign again"), kept()]);
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    assert_eq!(seen.last(), &Value::Null, "it is not sent again");
    // Of one that is long over and that nobody can be asked about, its owner may say that it is to be forgotten.
    let mut steps = vec![json!({ "do": "failing", "path": "/api/v1/x402/top-up", "header": "payment-signature", "status": 502 })];
    steps.extend(sign("3.00"));
    steps.extend([see("It is tried again by itself."), json!({ "do": "evaluate", "script": AGED }), json!({ "do": "reload" })]);
    steps.extend([click("Forget this payment"), read("#wallets button"), kept()]);
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    assert_eq!(seen.last(), &Value::Null, "it is forgotten");
    assert_eq!(shop.chain.transfers(), []);
    shop.close(&Ledger { paid: vec![], charged: 0 });
}

#[test]
fn a_reload_while_the_chain_is_slow_loses_nothing_and_pays_once() {
    let shop = Shop::open();
    let chain =
        |method: &str, params: Value| json!({ "do": "chain", "url": shop.chain.url(), "method": method, "params": params });
    let mut steps = vec![chain("evm_setAutomine", json!([false]))];
    steps.extend(sign("4.00"));
    steps.extend([see("Verifying, then settling on Base Sepolia (test)"), json!({ "do": "until", "url": shop.chain.url() })]);
    steps.extend([json!({ "do": "reload" }), see("the chain is slow at the moment"), kept()]);
    steps.extend([chain("evm_setAutomine", json!([true])), chain("evm_mine", json!([]))]);
    steps.extend([see("Topped up"), read(".progress + .facts, .facts"), kept()]);
    let seen = shop.browser().with(shop.wallet(OTHER_BUYER)).does(&steps);
    let step = steps.len() - 6;
    assert!(seen.value(step).as_str().is_some_and(|kept| kept.contains("4000000")), "it is remembered: {}", seen.value(step));
    assert_eq!(seen.last(), &Value::Null, "and forgotten when it is credited");
    shop.close(&Ledger { paid: vec![(OTHER_BUYER, 4 * DOLLAR)], charged: 0 });
}

#[test]
fn a_gateway_that_is_gone_or_behind_a_proxy_in_trouble_is_asked_again_with_the_same_payment() {
    let shop = Shop::open();
    let other_page = json!({ "do": "evaluate", "script": "localStorage.setItem('farebox-payment', 'of another page')" });
    for (status, body, words) in [
        (Value::Null, Value::Null, "The gateway cannot be reached"),
        (json!(403), Value::Null, "The gateway answered with status 403."),
        (json!(400), json!("{\"error\":\"Bad Request\"}"), "Bad Request"),
        (json!(200), Value::Null, "The gateway answered with status 200."),
    ] {
        let path = "/api/v1/x402/top-up";
        let [opened, connect, connected, amount, press] = sign("2.00");
        let mut gone = json!({ "do": "failing", "path": path, "header": "payment-signature", "status": status });
        if body.is_string() {
            gone["body"] = body;
        }
        let mut steps = vec![opened, connect, connected, amount, gone, press, see(words), kept()];
        steps.extend([json!({ "do": "unblock", "path": path }), see("New balance"), kept()]);
        if status == 200 {
            steps.insert(8, other_page.clone());
        }
        let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
        assert!(seen.value(7).is_string(), "{status}: it is kept until the gateway itself has answered");
        let left = if status == 200 { json!("of another page") } else { Value::Null };
        assert_eq!(seen.last(), &left, "{status}: then it is forgotten, and no other one");
    }
    let transfers: Vec<_> = shop.chain.transfers().iter().map(|transfer| transfer.value).collect();
    assert_eq!(transfers, [2 * DOLLAR; 4], "each payment moved once");
    assert_eq!(shop.available(BUYER), 8 * DOLLAR);
    let mut shop = shop;
    assert!(shop.server.audit().clean);
}

#[test]
fn a_wallet_that_the_operator_has_barred_is_told_so_and_its_payment_is_not_tried_again() {
    let shop = Shop::open();
    let (code, _, said) = run(shop.server.command(&["block", BUYER.address, "--reason", "spam"]), "");
    assert_eq!(code, 0, "{said}");
    let mut steps = sign("2.00").to_vec();
    steps.extend([see("This payment was not taken."), see("This wallet is not served here"), see("Nothing was paid."), kept()]);
    assert_eq!(shop.browser().with(shop.wallet(BUYER)).does(&steps).last(), &Value::Null);
    assert_eq!(shop.chain.transfers(), []);
    shop.close(&Ledger { paid: vec![], charged: 0 });
}

#[test]
fn a_solana_wallet_tops_up_by_one_signature_and_no_lamports() {
    let shop = Shop::open_on_solana();
    let mut steps = sign("6.00").to_vec();
    steps.extend([
        see("New balance"),
        json!({ "do": "links", "css": "#transaction a" }),
        read("#balance"),
        json!({ "do": "asked" }),
    ]);
    steps.insert(4, read("#facts"));
    let seen = shop.browser().with(shop.wallet(solana::BUYER)).does(&steps);
    let facts = seen.value(4).as_str().unwrap();
    for fact in ["6.00 USDC", "Solana Devnet (test)", solana::BUYER.address, solana::PAY_TO.address, "Memo", "about a minute"] {
        assert!(facts.contains(fact), "{fact} is missing: {facts}");
    }
    let landed = shop.chain.landed();
    assert_eq!(landed.len(), 1, "{landed:?}");
    let link = format!("https://explorer.solana.com/tx/{}?cluster=devnet", landed[0].signature);
    assert_eq!((seen.value(7), seen.value(8)), (&json!([link]), &json!("$6.00")));
    assert_eq!(shop.chain.lamports(solana::BUYER), 0, "the fee is the operator's");
    shop.close(&Ledger { paid: vec![(solana::BUYER, 6 * DOLLAR)], charged: 0 });
}

#[test]
fn a_solana_wallet_that_refuses_or_has_too_little_pays_nothing() {
    let shop = Shop::open_on_solana();
    let mut steps = sign("6.00").to_vec();
    steps.insert(4, wallet(&json!({ "refuse": true })));
    steps.extend([see("You refused in your wallet."), kept()]);
    assert_eq!(shop.browser().with(shop.wallet(solana::BUYER)).does(&steps).last(), &Value::Null);
    let mut steps = sign("6.00").to_vec();
    steps.extend([see("Your wallet has too little USDC on this network."), see("Nothing was paid."), kept()]);
    assert_eq!(shop.browser().with(shop.wallet(solana::POOR_BUYER)).does(&steps).last(), &Value::Null);
    assert_eq!(shop.chain.sends(), 0, "no transaction was sent");
    shop.close(&Ledger { paid: vec![], charged: 0 });
}
