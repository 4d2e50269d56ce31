//! The dashboard: who signs in makes a key, calls with it, ends it and takes the statement home; nobody else sees anything.

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use farebox_rig::account::Key;
use farebox_rig::anvil::{Anvil, BUYER, OTHER_BUYER, Wallet};
use farebox_rig::chain::Chain;
use farebox_rig::http::Request;
use farebox_rig::process::{eventually, run};
use farebox_rig::server::{MODEL, Settings};
use farebox_rig::solana;
use serde_json::{Value, json};

use crate::browser::{answers_again, click, fill, held, missing, open, read, release, see, silent, wallet};
use crate::shop::{CHARGE, DOLLAR, Ledger, Shop, USAGE, call};

fn download() -> Value {
    json!({ "do": "download", "role": "button", "name": "Export CSV" })
}

/// Everything that the browser keeps for this site.
fn stored() -> Value {
    json!({ "do": "evaluate", "script": "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])" })
}

/// Signs in, makes a key, calls, ends the key, calls in vain, and exports.
fn a_day<C: Chain>(shop: &Shop<C>, wallet: Value, owner: Wallet) {
    let steps = [
        open("/dashboard"),
        click("Test Wallet"),
        see("No keys yet."),
        click("New key"),
        fill("Name", "laptop"),
        fill("Spend limit (USD)", "1.25"),
        json!({ "do": "select", "label": "The limit counts", "value": "day" }),
        json!({ "do": "check", "label": MODEL }),
        click("Make key"),
        see("Copy it now."),
        call(MODEL),
        read("#fresh pre >> nth=0"),
        click("I have saved it"),
        read("#keys tbody"),
        click("Revoke laptop"),
        click("Revoke"),
        json!({ "do": "see", "text": "revoked" }),
        call(MODEL),
        stored(),
        json!({ "do": "reload" }),
        see("Sign in with your wallet"),
        click("Test Wallet"),
        see("1 calls"),
        read("#figures"),
        read("#lines tbody"),
        click("Receipt of"),
        read("#receipt-facts"),
        click("Close"),
        download(),
    ];
    let steps: Vec<_> = steps
        .into_iter()
        .map(|step| if step["name"] == "Receipt of" { json!({ "do": "click", "css": "#lines button" }) } else { step })
        .collect();
    let seen = shop.browser().with(wallet).does(&steps);
    assert_eq!((seen.value(10), seen.value(17)), (&json!(200), &json!(401)), "the key calls until it is revoked");
    let set_up = seen.value(11).as_str().unwrap();
    assert!(
        set_up.contains(&format!("ANTHROPIC_BASE_URL=\"{}\"", shop.server.public_url())) && set_up.contains("sk-x402-"),
        "{set_up}"
    );
    let key = seen.value(13).as_str().unwrap();
    for part in ["laptop", "active", "$1.25 per day", MODEL, "never"] {
        assert!(key.contains(part) && !key.contains("sk-x402-"), "{part}: {key}");
    }
    assert!(!seen.value(18).as_str().unwrap().contains("sk-"), "no secret is kept: {}", seen.value(18));
    assert_eq!(seen.value(18), "[{},{},\"\"]", "no session either, so a reload signs out");
    assert!(seen.value(23).as_str().unwrap().contains("$1.999835"), "{}", seen.value(23));
    let lines = seen.value(24).as_str().unwrap();
    assert!(lines.contains("Top-up") && lines.contains("Call") && lines.contains("−$0.000165"), "{lines}");
    assert!(seen.value(26).as_str().unwrap().contains("$0.000165"), "{}", seen.value(26));
    check_csv(seen.text(), owner);
}

fn check_csv(csv: &str, owner: Wallet) {
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 3, "{csv}");
    assert_eq!(lines[0][..4], ["id", "at", "type", "amount_usd"]);
    assert_eq!((lines[1][2], lines[1][3], lines[1][6]), ("CHARGE", "-0.000165", MODEL), "{csv}");
    assert_eq!((lines[2][2], lines[2][3].parse()), ("TOP_UP", Ok(2.0_f32)), "{csv}");
    let (network, transaction) = (lines[2][7], lines[2][8]);
    let on_its_chain = if owner == BUYER { "eip155:84532" } else { "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1" };
    assert!(network == on_its_chain && transaction.len() > 60, "{csv}");
}

#[test]
fn an_evm_wallet_makes_a_key_calls_with_it_ends_it_and_takes_the_statement_home() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up(2 * DOLLAR).status, 200);
    a_day(&shop, shop.wallet(BUYER), BUYER);
    assert_eq!(shop.upstream.calls().len(), 1, "the revoked key reached nobody");
    shop.close(&Ledger { paid: vec![(BUYER, 2 * DOLLAR)], charged: CHARGE });
}

#[test]
fn a_solana_wallet_makes_a_key_calls_with_it_ends_it_and_takes_the_statement_home() {
    let shop = Shop::open_on_solana();
    assert_eq!(shop.server.account(solana::BUYER).top_up_on(&shop.chain, 2 * DOLLAR).status, 200);
    a_day(&shop, shop.wallet(solana::BUYER), solana::BUYER);
    assert_eq!(shop.upstream.calls().len(), 1, "the revoked key reached nobody");
    shop.close(&Ledger { paid: vec![(solana::BUYER, 2 * DOLLAR)], charged: CHARGE });
}

#[test]
fn a_wallet_that_the_operator_has_barred_sees_what_it_has_and_makes_no_key() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    let (code, _, said) = run(shop.server.command(&["block", BUYER.address, "--reason", "spam"]), "");
    assert_eq!(code, 0, "{said}");
    let steps = [
        open("/dashboard"),
        click("Test Wallet"),
        see("$1.00"),
        click("New key"),
        fill("Name", "laptop"),
        click("Make key"),
        see("its balance of 1.000000 USDC stays its own: write to the operator"),
        json!({ "do": "missing", "text": "spam" }),
    ];
    shop.browser().with(shop.wallet(BUYER)).does(&steps);
    shop.close(&Ledger { paid: vec![(BUYER, DOLLAR)], charged: 0 });
}

#[test]
fn who_refuses_to_sign_in_sees_nothing_and_an_ended_session_says_so() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    let steps = [
        open("/dashboard"),
        wallet(&json!({ "refuse": true })),
        click("Test Wallet"),
        see("You are not signed in."),
        json!({ "do": "missing", "text": "Signed in as" }),
        wallet(&json!({ "refuse": false })),
        click("Test Wallet"),
        see("Signed in as"),
        click("Sign out"),
        see("You are signed out."),
        json!({ "do": "missing", "text": "$1.00" }),
    ];
    shop.browser().with(shop.wallet(BUYER)).does(&steps);
    shop.close(&Ledger { paid: vec![(BUYER, DOLLAR)], charged: 0 });
}

/// Has the page remember as `bearer` the session in whose name it asks.
fn remember_session() -> Value {
    let script = "(() => { const real = window.fetch; window.fetch = (path, init) => { \
                  window.bearer = init?.headers?.authorization ?? window.bearer; return real(path, init) } })()";
    json!({ "do": "evaluate", "script": script })
}

fn unblock(path: &str) -> Value {
    json!({ "do": "unblock", "path": path })
}

#[test]
fn what_arrives_after_the_end_of_a_session_is_not_shown_and_takes_no_word_back() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    let over = "fetch('/api/account', { headers: { authorization: window.bearer } }).then(({ status }) => status === 401)";
    let steps = [
        open("/dashboard"),
        remember_session(),
        json!({ "do": "hold", "path": "/api/account", "answer": true }),
        json!({ "do": "hold", "path": "/api/transactions*" }),
        click("Test Wallet"),
        see("Signed in as"),
        held(2),
        json!({ "do": "hold", "path": "/api/session" }),
        click("Sign out"),
        see("You are signed out."),
        release(3),
        missing("Something went wrong."),
        see("You are signed out."),
        json!({ "do": "evaluate", "script": "document.getElementById('figures').textContent" }),
        unblock("/api/account"),
        unblock("/api/transactions*"),
        unblock("/api/session"),
        json!({ "do": "becomes", "script": over }),
        // What is asked in nobody's name ends with the session, too.
        json!({ "do": "hold", "path": "/v1/pricing", "status": 502 }),
        click("Test Wallet"),
        held(1),
        click("Sign out"),
        release(1),
        missing("Something went wrong."),
        see("You are signed out."),
        unblock("/v1/pricing"),
        json!({ "do": "failing", "path": "/api/transactions*", "header": "authorization", "status": 401 }),
        click("Test Wallet"),
        see("Your session is over."),
        missing("Something went wrong."),
        missing("$1.00"),
    ];
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    assert_eq!(seen.value(13), "", "the balance of who has signed out is not shown");
    shop.close(&Ledger { paid: vec![(BUYER, DOLLAR)], charged: 0 });
}

#[test]
fn a_wallet_that_signs_late_does_not_take_the_place_of_the_one_that_signed_in_meanwhile() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    let mut late = shop.wallet(OTHER_BUYER);
    late["name"] = "Late Wallet".into();
    let steps = [
        open("/dashboard"),
        silent("Late Wallet", "personal_sign"),
        click("Late Wallet"),
        see("Your wallet asks you now."),
        click("Test Wallet"),
        see("No keys yet."),
        click("New key"),
        fill("Name", "laptop"),
        click("Make key"),
        see("Copy it now."),
        answers_again(),
        click("Change laptop"),
        see("Change “laptop”"),
        click("Cancel"),
        read("#who"),
        call(MODEL),
    ];
    let seen = shop.browser().with(shop.wallet(BUYER)).with(late).does(&steps);
    assert_eq!((seen.value(14), seen.last()), (&json!(BUYER.address), &json!(200)), "whose key it is");
    shop.close(&Ledger { paid: vec![(BUYER, DOLLAR)], charged: CHARGE });
}

/// What a dialog says, whether it is open, and whether its button waits.
fn dialog(id: &str, title: &str, button: &str) -> Value {
    let script = format!(
        "[document.getElementById('{id}').open, document.getElementById('{title}').textContent, \
         document.getElementById('{id}-say').textContent, document.getElementById('{button}').disabled]"
    );
    json!({ "do": "evaluate", "script": script })
}

#[test]
fn what_is_answered_late_is_done_once_and_closes_no_other_dialog() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    shop.server.account(BUYER).mint(&json!({ "name": "laptop" }));
    let rotating = "/api/keys/*/rotate";
    let new_form = "document.getElementById('edit').open && document.getElementById('h-edit').textContent === 'New key'";
    let steps = [
        open("/dashboard"),
        click("Test Wallet"),
        json!({ "do": "hold", "path": rotating }),
        click("Rotate laptop"),
        click("Rotate"),
        held(1),
        json!({ "do": "poke", "css": "#ask-yes" }),
        click("Cancel"),
        click("Revoke laptop"),
        release(1),
        see("Copy it now."),
        dialog("ask", "h-ask", "ask-yes"),
        click("Cancel"),
        json!({ "do": "hold", "path": "/api/keys/*" }),
        click("Change laptop"),
        fill("Name", "renamed"),
        click("Save"),
        held(1),
        click("Cancel"),
        click("New key"),
        json!({ "do": "becomes", "script": new_form }),
        release(1),
        see("renamed"),
        dialog("edit", "h-edit", "k-save"),
        click("Cancel"),
        json!({ "do": "hold", "path": "/api/usage*90", "status": 502 }),
        json!({ "do": "select", "label": "Days", "value": "90" }),
        held(1),
        json!({ "do": "select", "label": "Days", "value": "7" }),
        release(1),
        missing("That did not work."),
    ];
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    assert_eq!(seen.value(9), &json!(1), "it is rotated once, though pressed twice");
    assert_eq!(seen.value(11), &json!([true, "Revoke “laptop”?", "", false]));
    assert_eq!(seen.value(23), &json!([true, "New key", "", false]));
    assert_eq!(key_called(&shop, "renamed")["state"], "active");
    shop.close(&Ledger { paid: vec![(BUYER, DOLLAR)], charged: 0 });
}

#[test]
fn a_new_key_outlasts_a_session_that_the_gateway_ends_and_not_one_that_its_owner_ends() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    let end = "fetch('/api/session', { method: 'DELETE', headers: { authorization: window.bearer } }).then(({ ok }) => ok)";
    let secrets = || json!({ "do": "count", "css": "#secret" });
    let steps = [
        open("/dashboard"),
        remember_session(),
        click("Test Wallet"),
        see("No keys yet."),
        click("New key"),
        fill("Name", "laptop"),
        json!({ "do": "hold", "path": "/api/keys", "answer": true }),
        click("Make key"),
        held(1),
        json!({ "do": "evaluate", "script": end }),
        release(1),
        held(1),
        read("#secret"),
        release(1),
        see("Your session is over."),
        missing("nothing was changed"),
        see("Copy it now."),
        call(MODEL),
        unblock("/api/keys"),
        click("Test Wallet"),
        see("Signed in as"),
        secrets(),
        click("Sign out"),
        see("You are signed out."),
        secrets(),
    ];
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    assert_eq!([9, 17, 21, 24].map(|step| seen.value(step)), [&json!(true), &json!(200), &json!(1), &json!(0)]);
    shop.close(&Ledger { paid: vec![(BUYER, DOLLAR)], charged: CHARGE });
}

#[test]
fn who_asks_twice_for_older_lines_sees_each_of_them_once() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    let key = shop.server.account(BUYER).mint(&json!({ "name": "busy" }));
    assert!((0..30).all(|_| refusal(&shop, &key, MODEL).is_empty()));
    eventually("all of them are charged", || shop.available(BUYER) == DOLLAR - 30 * CHARGE);
    let rows = "document.querySelectorAll('#lines tbody tr').length";
    let requests = "new Set([...document.querySelectorAll('#lines button')].map((it) => it.getAttribute('aria-label'))).size";
    let steps = [
        open("/dashboard"),
        click("Test Wallet"),
        json!({ "do": "becomes", "script": format!("{rows} === 25") }),
        json!({ "do": "hold", "path": "/api/transactions*" }),
        click("Show older lines"),
        click("Show older lines"),
        release(2),
        json!({ "do": "becomes", "script": format!("{rows} > 25") }),
        json!({ "do": "evaluate", "script": format!("[{rows}, {requests}]") }),
        json!({ "do": "missing", "text": "Show older lines" }),
    ];
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    assert_eq!(seen.value(8), &json!([31, 30]), "the top-up and each call");
    shop.close(&Ledger { paid: vec![(BUYER, DOLLAR)], charged: 30 * CHARGE });
}

#[test]
fn a_key_is_changed_and_rotated_and_a_wish_that_makes_no_sense_is_explained() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up(2 * DOLLAR).status, 200);
    let steps = [
        open("/dashboard"),
        click("Test Wallet"),
        click("New key"),
        click("Make key"),
        see("Give the key a name."),
        fill("Name", "agent"),
        fill("Spend limit (USD)", "lots"),
        click("Make key"),
        see("Write the limit in dollars"),
        fill("Spend limit (USD)", ""),
        fill("Ends (UTC)", "2020-01-01T00:00"),
        click("Make key"),
        see("Not saved."),
        fill("Ends (UTC)", ""),
        click("Make key"),
        see("Copy it now."),
        read("#secret"),
        click("Change agent"),
        fill("Spend limit (USD)", "0.50"),
        click("Save"),
        see("$0.50"),
        click("Rotate agent"),
        json!({ "do": "select", "label": "The old one ends", "value": "3600" }),
        click("Rotate"),
        see("until 20"),
        call(MODEL),
        read("#secret"),
        read("#keys tbody"),
    ];
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    assert_ne!(seen.value(16), seen.value(26), "a rotated key is another one");
    assert_eq!(seen.value(25), &json!(200));
    assert_eq!(seen.text().matches("active").count(), 1, "{}", seen.text());
    shop.close(&Ledger { paid: vec![(BUYER, 2 * DOLLAR)], charged: CHARGE });
}

/// The section that sells a second model.
const SECOND: &str = "[[model]]\nid = \"second\"\nupstreams = [{ name = \"fake\", model = \"upstream-model\" }]\nprice = { input = \"3\", output = \"15\" }\n";

fn with_a_second_model() -> Shop<Anvil> {
    let shop = Shop::on(Anvil::start(84532), &Settings { sections: vec![SECOND.into()], ..Settings::default() });
    assert_eq!(shop.server.account(BUYER).top_up(2 * DOLLAR).status, 200);
    shop
}

/// Has the gateway sell something else from now on.
fn sell_instead(shop: &Shop<Anvil>, from: &str, to: &str) {
    shop.server.reconfigure(|text| text.replacen(from, to, 1));
    let (code, said) = shop.server.reload();
    assert!(code == 0 && said.contains("model \"second\": gone"), "{said}");
}

/// The one key of the buyer that is called so, as the API shows it.
fn key_called(shop: &Shop<Anvil>, name: &str) -> Value {
    let answer = shop.server.account(BUYER).get("/api/keys").json();
    let keys = answer["keys"].as_array().unwrap();
    keys.iter().find(|key| key["name"] == name).unwrap_or_else(|| panic!("there is no key {name}: {answer}")).clone()
}

/// Calls a model with a key; empty if it answers, or the code of the refusal.
fn refusal(shop: &Shop<Anvil>, key: &Key, model: &str) -> String {
    let body = json!({ "model": model, "max_tokens": 256, "messages": [{ "role": "user", "content": USAGE }] });
    let request = Request::post("/v1/chat/completions", body.to_string()).header("x-api-key", &key.text);
    let answer = shop.server.send(&request);
    if answer.status == 200 { String::new() } else { answer.code() }
}

#[test]
fn a_key_whose_only_model_is_not_sold_any_more_opens_for_no_other_by_a_new_name() {
    let shop = with_a_second_model();
    let key = shop.server.account(BUYER).mint(&json!({ "name": "narrow", "models": ["second"] }));
    sell_instead(&shop, SECOND, "");
    let enter = [open("/dashboard"), click("Test Wallet"), click("Change narrow"), see("not sold now")];
    let rename = [fill("Name", "renamed"), click("Save"), see("renamed"), read("#keys tbody")];
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&[&enter[..], &rename].concat());
    assert!(seen.text().contains("second") && !seen.text().contains("all"), "{}", seen.text());
    assert_eq!(key_called(&shop, "renamed")["models"], json!(["second"]));
    assert_eq!(refusal(&shop, &key, MODEL), "model_not_allowed");
    assert_eq!(shop.upstream.calls().len(), 0, "nobody was asked");

    let more = [json!({ "do": "check", "label": MODEL }), click("Save"), see("second, test-model")];
    let again = [open("/dashboard"), click("Test Wallet"), click("Change renamed"), see("not sold now")];
    shop.browser().with(shop.wallet(BUYER)).does(&[&again[..], &more].concat());
    assert_eq!(key_called(&shop, "renamed")["models"], json!(["second", MODEL]), "what it may use beside stays");
    assert_eq!(refusal(&shop, &key, MODEL), "");
    shop.close(&Ledger { paid: vec![(BUYER, 2 * DOLLAR)], charged: CHARGE });
}

#[test]
fn a_key_takes_no_model_anew_that_is_not_sold() {
    let shop = with_a_second_model();
    let key = shop.server.account(BUYER).mint(&json!({ "name": "other", "models": [MODEL] }));
    sell_instead(&shop, SECOND, "");
    for models in [json!([MODEL, "second"]), json!(["second"])] {
        let body = json!({ "models": models }).to_string();
        let request = Request::with_body("PATCH", &format!("/api/keys/{}", key.id), body);
        let proof = shop.server.account(BUYER).sign_in();
        let answer = shop.server.send(&request.header("x-sign-in-with-x", &proof));
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{}", answer.text());
        assert!(answer.text().contains("there is no model"), "{}", answer.text());
    }
    assert_eq!(key_called(&shop, "other")["models"], json!([MODEL]));
    shop.close(&Ledger { paid: vec![(BUYER, 2 * DOLLAR)], charged: 0 });
}

#[test]
fn what_is_sold_is_looked_up_whenever_a_key_is_changed() {
    let shop = with_a_second_model();
    let key = shop.server.account(BUYER).mint(&json!({ "name": "laptop", "models": ["second"] }));
    let later = "fetch('/v1/pricing').then((answer) => answer.text()).then((text) => text.includes('third'))";
    let steps = [
        open("/dashboard"),
        click("Test Wallet"),
        click("New key"),
        fill("Name", "signal"),
        click("Make key"),
        see("Copy it now."),
        json!({ "do": "becomes", "script": later }),
        click("Change laptop"),
        see("not sold now"),
        json!({ "do": "check", "label": "third" }),
        click("Save"),
        see("second, third"),
    ];
    thread::scope(|scope| {
        scope.spawn(|| {
            let listed = || shop.server.account(BUYER).get("/api/keys").text();
            eventually("the owner is at the dashboard", || listed().contains("signal"));
            sell_instead(&shop, "id = \"second\"", "id = \"third\"");
        });
        shop.browser().with(shop.wallet(BUYER)).does(&steps);
    });
    assert_eq!(key_called(&shop, "laptop")["models"], json!(["second", "third"]));
    assert_eq!([refusal(&shop, &key, MODEL), refusal(&shop, &key, "third")], ["model_not_allowed", ""]);
    shop.close(&Ledger { paid: vec![(BUYER, 2 * DOLLAR)], charged: CHARGE });
}

#[test]
fn a_key_that_has_expired_is_renamed_and_stays_expired() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    let ends = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 5;
    let key = shop.server.account(BUYER).mint(&json!({ "name": "old", "expires_at": ends, "models": [MODEL], "reset": "week" }));
    eventually("it expires", || key_called(&shop, "old")["state"] == "expired");
    let before = key_called(&shop, "old");
    let enter = [open("/dashboard"), click("Test Wallet"), click("Change old")];
    let rename = [fill("Name", "renamed"), click("Save"), see("renamed")];
    shop.browser().with(shop.wallet(BUYER)).does(&[&enter[..], &rename].concat());
    let mut after = key_called(&shop, "renamed");
    assert_eq!((&after["state"], refusal(&shop, &key, MODEL).is_empty()), (&json!("expired"), false));
    after["name"] = json!("old");
    assert_eq!(after, before, "nothing but its name is another");
    shop.close(&Ledger { paid: vec![(BUYER, DOLLAR)], charged: 0 });
}
