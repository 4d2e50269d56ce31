//! The operator's page: whom the configuration names sees how the gateway does and follows one sale; nobody else sees anything.

use std::collections::BTreeMap;

use farebox_rig::anvil::{Anvil, BUYER, OTHER_BUYER, PAY_TO, SETTLER, Wallet};
use farebox_rig::buyer::{Client, Order};
use farebox_rig::chain::Chain;
use farebox_rig::http::{Answer, Request};
use farebox_rig::process::{eventually, run};
use farebox_rig::server::{MODEL, Settings, UPSTREAM_MODEL};
use farebox_rig::solana::{self, Solana};
use serde_json::{Value, json};

use crate::browser::{axe, click, fill, held, missing, open, read, release, see, shots};
use crate::shop::{CHARGE, DOLLAR, Ledger, Shop, USAGE, call};

const OPERATOR: Wallet = OTHER_BUYER;
const ROUTES: [&str; 5] = ["overview", "overview?days=7", "upstreams", "failures", "sales/req_00000000000000000000000000000000"];

fn named(wallet: Wallet) -> Settings {
    Settings { server: vec![format!("operators = [\"{}\"]", wallet.address)], ..Settings::default() }
}

fn open_shop() -> Shop<Anvil> {
    Shop::on(Anvil::start(84532), &named(OPERATOR))
}

impl<C: Chain> Shop<C> {
    fn session(&self, wallet: Wallet) -> String {
        let opened = self.server.account(wallet).post("/api/session", &json!({}));
        assert_eq!(opened.status, 200, "{}", opened.text());
        opened.json()["token"].as_str().expect("a session has a token").to_owned()
    }

    fn ask(&self, token: &str, path: &str) -> Answer {
        let request = Request::get(&format!("/api/operator/{path}"));
        self.server.send(&request.header("authorization", &format!("Bearer {token}")))
    }

    fn see(&self, token: &str, path: &str) -> Value {
        let answer = self.ask(token, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Calls with a key; the answer, and the name of the request.
    fn call(&self, key: &str, more: &str) -> (Answer, String) {
        let body = json!({ "model": MODEL, "max_tokens": 256, "stream": true, "messages": [{ "role": "user", "content": format!("secret-prompt {USAGE}{more}") }] });
        let answer = self.server.send(&Request::post("/v1/chat/completions", body.to_string()).header("x-api-key", key));
        let id = answer.header("x-request-id").expect("every answer has a name").to_owned();
        (answer, id)
    }
}

/// `name: state` of each step of a sale.
fn steps(sale: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let steps = sale["steps"].as_array().expect("a sale has steps").iter();
    steps.map(|step| format!("{}: {}", text(&step["name"]), text(&step["state"]))).collect()
}

fn fact<'a>(sale: &'a Value, step: &str, fact: &str) -> &'a Value {
    let steps = sale["steps"].as_array().expect("a sale has steps");
    &steps.iter().find(|it| it["name"] == step).unwrap_or_else(|| panic!("no step {step}: {sale:#}"))["facts"][fact]
}

#[test]
fn who_is_no_operator_sees_nothing_and_is_told_how_one_becomes_one() {
    let shop = open_shop();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    let key = shop.server.account(BUYER).mint(&json!({ "name": "k" }));
    let (stranger, operator) = (shop.session(BUYER), shop.session(OPERATOR));
    for path in ROUTES {
        let refused = shop.ask(&stranger, path);
        assert_eq!((refused.status, refused.code().as_str()), (403, "not_an_operator"), "{path}: {}", refused.text());
        assert!(refused.text().contains(&BUYER.address.to_lowercase()) && !refused.text().contains(PAY_TO.address), "{path}");
        assert!(!refused.text().contains("micros"), "{path}: {}", refused.text());
        for nobody in ["", "session-", &key.text] {
            let refused = shop.ask(nobody, path);
            assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_session"), "{path}: {}", refused.text());
        }
        let signed_in = shop.server.account(OPERATOR).get(&format!("/api/operator/{path}"));
        assert_eq!(signed_in.status, 401, "{path}: a session alone does");
        let answer = shop.ask(&operator, path);
        assert_eq!(answer.status, if path.starts_with("sales") { 404 } else { 200 }, "{path}: {}", answer.text());
    }
    let steps = [
        open("/operator"),
        click("Test Wallet"),
        see("This wallet is no operator"),
        read("#how"),
        json!({ "do": "missing", "text": "Upstreams" }),
        json!({ "do": "missing", "text": "Earnings" }),
        json!({ "do": "missing", "text": "Recent failures" }),
        json!({ "do": "evaluate", "script": "[...document.querySelectorAll('#operator div[id], #figures')].map((node) => node.textContent).join('')" }),
        click("Sign out"),
        see("You are signed out."),
    ];
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    assert!(seen.value(3).as_str().unwrap().contains(&format!("operators = [\"{}\"]", BUYER.address)), "{}", seen.value(3));
    assert_eq!(seen.value(7), "", "nothing of it is in the page");
    shop.close(&Ledger { paid: vec![(BUYER, DOLLAR)], charged: 0 });
}

#[test]
fn without_operators_in_the_configuration_nobody_is_one_and_a_slip_in_an_address_is_noticed() {
    let shop = Shop::open();
    let token = shop.session(OPERATOR);
    for path in ROUTES {
        assert_eq!(shop.ask(&token, path).code(), "not_an_operator", "{path}");
    }
    let slip = OPERATOR.address.replacen('D', "d", 1);
    let (own, other) = ("data_dir = \"data\"", format!("data_dir = \"other\"\noperators = [\"{slip}\"]"));
    shop.server.reconfigure(|text| text.replace(own, &other));
    let (code, _, said) = run(shop.server.command(&["serve"]), "");
    assert!(code == 78 && said.contains("server.operators"), "{code}: {said}");
    shop.server.reconfigure(|text| text.replace(&other, own));
    shop.close(&Ledger { paid: vec![], charged: 0 });
}

#[test]
fn a_reload_lets_a_wallet_in_and_out_again_also_in_the_session_that_it_has() {
    let shop = Shop::open();
    let token = shop.session(OPERATOR);
    let line = format!("[server]\noperators = [\"{}\"]", OPERATOR.address);
    let reload = || assert_eq!(run(shop.server.command(&["reload"]), "").0, 0, "it is read again");
    assert_eq!(shop.ask(&token, "overview").status, 403);
    shop.server.reconfigure(|text| text.replace("[server]", &line));
    reload();
    assert_eq!(shop.ask(&token, "overview").status, 200);
    shop.server.reconfigure(|text| text.replace(&line, "[server]"));
    reload();
    assert_eq!(shop.ask(&token, "overview").status, 403);
    shop.close(&Ledger { paid: vec![], charged: 0 });
}

/// The answer to the earlier question comes late, and is not shown.
fn looks_up_one_and_then_another(served: &str, paid: &str) -> [Value; 9] {
    [
        json!({ "do": "hold", "path": format!("/api/operator/sales/{served}") }),
        fill("Request or payment", served),
        click("Look it up"),
        held(1),
        fill("Request or payment", paid),
        click("Look it up"),
        see("Our transaction signed"),
        release(1),
        missing("Held of the balance"),
    ]
}

#[test]
fn an_operator_follows_sales_and_failures_in_the_browser_and_finds_no_prompt_there() {
    let shop = open_shop();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    let key = shop.server.account(BUYER).mint(&json!({ "name": "k" })).text;
    let (_, served) = shop.call(&key, "");
    shop.upstream.script(&[json!({ "status": 500 }), json!({ "status": 500 })]);
    let (refused, failed) = shop.call(&key, "");
    assert_eq!(refused.code(), "upstream_error", "{}", refused.text());
    let paid = shop.buy();

    let steps = [
        open("/operator"),
        click("Test Wallet"),
        see("Recent failures"),
        read("#upstreams"),
        read("#failures"),
        read("#networks"),
        fill("Request or payment", &paid),
        click("Look it up"),
        see("Our transaction signed"),
        read("#sale"),
        json!({ "do": "links", "css": "#sale a" }),
        shots("operator"),
        axe(),
        json!({ "do": "theme", "scheme": "dark" }),
        axe(),
        click(&format!("Look up {failed}")),
        see("What its caller was told"),
        read("#sale"),
        fill("Request or payment", &served),
        click("Look it up"),
        see("Held of the balance"),
        read("#sale"),
        fill("Request or payment", "req_1"),
        click("Look it up"),
        see("a sale is named req_"),
        json!({ "do": "evaluate", "script": "document.body.innerText" }),
    ];
    // The failure is there twice: at its upstream, and as what its caller was told.
    let steps = steps.map(|step| match step["name"].as_str() {
        Some(name) if name.starts_with("Look up") => json!({ "do": "click", "css": "#failures button >> nth=0" }),
        _ => step,
    });
    let steps = [&steps[..], &looks_up_one_and_then_another(&served, &paid)].concat();
    let seen = shop.browser().with(shop.wallet(OPERATOR)).does(&steps);
    let text = |step: usize| seen.value(step).as_str().unwrap_or_default().to_owned();
    for (step, words) in [
        (3, vec!["fake", "up", "upstream_error", "status 500"]),
        (4, vec!["upstream_error", MODEL, "fake", "500"]),
        (5, vec!["Base Sepolia (test)", "sold on", "rpc", PAY_TO.address]),
        (9, vec!["Signature verified", "Confirmed on the chain", "eip155:84532", "Became balance", "$0.000165", "complete"]),
        (17, vec!["upstream_error", "status 500"]),
        (21, vec!["Released", "$0.000165", &BUYER.address.to_lowercase()]),
    ] {
        assert!(words.iter().all(|word| text(step).contains(word)), "{words:?}: {}", text(step));
    }
    let links = seen.value(10).as_array().unwrap();
    assert!(links.iter().all(|it| it.as_str().unwrap().starts_with("https://sepolia.basescan.org/tx/0x")) && !links.is_empty());
    assert_eq!((seen.value(11), seen.value(12), seen.value(14)), (&json!(0), &json!([]), &json!([])));
    assert!(!text(25).contains("secret-prompt"), "what was asked is nobody's business");
    let arrived: u64 = shop.chain.transfers().iter().map(|transfer| transfer.value).sum();
    let mut shop = shop;
    assert_eq!(shop.available(BUYER), arrived - 2 * CHARGE, "looking at sales moves nothing");
    assert!(shop.server.audit().clean);
}

#[test]
fn a_payment_that_the_chain_is_slow_about_is_listed_as_on_its_way_and_its_steps_say_how_far_it_is() {
    let settings = Settings { prepaid: vec!["top_up_wait_ms = 200".into()], ..named(OPERATOR) };
    let shop = Shop::on(Anvil::start(84532), &settings);
    let token = shop.session(OPERATOR);
    assert_eq!(shop.see(&token, "overview")["open_payments"], json!([]));
    shop.chain.rpc("evm_setAutomine", json!([false]));
    let answer = shop.server.account(BUYER).top_up(3 * DOLLAR);
    assert_eq!(answer.status, 504, "{}", answer.text());
    let open = shop.see(&token, "overview")["open_payments"].clone();
    assert_eq!(open.as_array().unwrap().len(), 1, "{open}");
    assert_eq!((&open[0]["amount_usd"], &open[0]["top_up"]), (&json!("3.000000"), &json!(true)));
    let id = open[0]["payment_id"].as_str().unwrap().to_owned();
    let sale = || shop.see(&token, &format!("sales/{id}"));
    let waiting = [
        "quote: done",
        "signature: done",
        "claim: done",
        "signed: done",
        "sent: done",
        "confirmed: waiting",
        "remainder: waiting",
    ];
    eventually("it is on its way", || steps(&sale()) == waiting);
    assert_eq!(shop.available(BUYER), 0, "nothing is credited before the chain has it");

    shop.chain.rpc("evm_setAutomine", json!([true]));
    shop.chain.mine(1);
    eventually("it has arrived", || shop.see(&token, "overview")["open_payments"] == json!([]));
    let sale = sale();
    assert!(steps(&sale).iter().all(|step| step.ends_with(": done")), "{sale:#}");
    assert_eq!(fact(&sale, "remainder", "became_balance_usd"), "3.000000");
    assert_eq!(fact(&sale, "confirmed", "transaction"), &json!(shop.chain.transfers()[0].transaction));
    let by_request = shop.see(&token, &format!("sales/{}", sale["request_id"].as_str().unwrap()));
    assert_eq!(by_request["payment_id"], json!(id), "a top-up is found by its request, too");
    shop.close(&Ledger { paid: vec![(BUYER, 3 * DOLLAR)], charged: 0 });
}

#[test]
fn an_answer_that_breaks_off_and_an_upstream_that_is_down_are_remembered_without_a_word_of_them() {
    let shop = open_shop();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    let key = shop.server.account(BUYER).mint(&json!({ "name": "k" })).text;
    let token = shop.session(OPERATOR);
    let (_, broken) = shop.call(&key, "<<fake cut=2>>");
    eventually("it is remembered", || shop.see(&token, "failures")["failures"][0]["broke_off"] == true);
    let failures = shop.see(&token, "failures");
    let failure = &failures["failures"][0];
    assert_eq!(
        (&failure["request_id"], &failure["code"], &failure["model"]),
        (&json!(broken), &json!("upstream_error"), &json!(MODEL))
    );
    shop.upstream.configure(&json!({ "status": 500 }));
    let mut codes = Vec::new();
    eventually("the upstream is left alone", || {
        codes.push(shop.call(&key, "").0.code());
        shop.see(&token, "upstreams")["upstreams"][0]["resting_models"] != json!([])
    });
    let upstreams = shop.see(&token, "upstreams");
    let fake = &upstreams["upstreams"][0];
    let resting = &fake["resting_models"][0];
    let payer = format!("evm:{}", BUYER.address.to_lowercase());
    assert_eq!((&resting["model"], &resting["account"], &fake["state"]), (&json!(UPSTREAM_MODEL), &json!(payer), &json!("up")));
    assert!(resting["seconds"].as_u64().is_some_and(|seconds| seconds > 0), "{fake:#}");
    assert_eq!((&fake["answered"], &fake["latest_failures"][0]["cause"]), (&json!(1), &json!("status 500")), "{fake:#}");
    assert!(fake["failed"].as_u64().is_some_and(|failed| failed as usize <= codes.len()), "{fake:#}");
    let bad_key = shop.server.send(&Request::post("/v1/chat/completions", "{}").header("x-api-key", "sk-x402-none"));
    let kept = shop.see(&token, "failures").to_string() + &upstreams.to_string();
    assert!(!kept.contains("secret-prompt") && !kept.contains(bad_key.header("x-request-id").unwrap()), "{kept}");
    let left = shop.available(BUYER);
    assert!(left <= DOLLAR && DOLLAR - left <= CHARGE, "what passed is charged, and failures cost nothing");
    let mut shop = shop;
    assert!(shop.server.audit().clean);
}

/// A model of which nobody said what it costs.
const OTHER_MODEL: &str = "other-model";
/// What the upstream asks for a call of [`MODEL`], at 2 and 10 dollars per million.
const COST: u64 = 20 * 2 + 7 * 10;
const REFUNDED: u64 = 65;
const GIVEN: u64 = DOLLAR / 2;
const A_DAY: i64 = 24 * 60 * 60;

/// As the page writes it.
fn usd(micros: i64) -> String {
    let (sign, micros) = (if micros < 0 { "−" } else { "" }, micros.unsigned_abs());
    let fraction = format!("{:06}", micros % DOLLAR);
    format!("{sign}${}.{:0<2}", micros / DOLLAR, fraction.trim_end_matches('0'))
}

/// A shop that has sold a call on one day, and one from a balance and one for a payment on the next; it has given something
/// back of the first, and something to its buyer.
struct Sold {
    shop: Shop<Anvil>,
    /// The session of the operator, and the key of the buyer.
    token: String,
    key: String,
    first: String,
    /// Calls of each day, and what was given back on it.
    days: BTreeMap<String, (u64, u64)>,
    /// Micros that arrived, and what the gas of it cost.
    arrived: u64,
    gas: i64,
}

impl Sold {
    fn sell() -> Sold {
        let network = vec!["coin_usd = \"2500\"".into()];
        let shop = Shop::on(Anvil::start(84532), &Settings { network, models: vec![OTHER_MODEL.into()], ..named(OPERATOR) });
        let price = "price = { input = \"3\", output = \"15\" }\n";
        let cost = format!("{price}cost = {{ input = \"2\", output = \"10\" }}\n");
        shop.server.reconfigure(|text| text.replacen(price, &cost, 1));
        assert_eq!(shop.server.reload().0, 0);
        let before = wei(&shop);
        assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
        let key = shop.server.account(BUYER).mint(&json!({ "name": "k" })).text;
        shop.server.move_clock(-A_DAY);
        let first = shop.call(&key, "").1;
        shop.server.wait_posted(BUYER.address);
        shop.server.move_clock(0);
        let second = shop.call(&key, "").1;
        let third = shop.buy();
        let arrived: u64 = shop.chain.transfers().iter().map(|transfer| transfer.value).sum();
        eventually("all is charged", || shop.available(BUYER) == arrived - 3 * CHARGE);
        let token = shop.session(OPERATOR);
        let mut days = BTreeMap::<String, (u64, u64)>::new();
        for request in [&first, &second, &third] {
            days.entry(shop.day_of(&token, request)).or_default().0 += 1;
        }
        shop.by_hand(&["refund", &first, "0.000065"]);
        // Of days that the page does not ask for: what it asks for is kept for a moment.
        let today = shop.see(&token, "overview?days=3")["now"].as_str().unwrap()[..10].to_owned();
        days.entry(today).or_default().1 = REFUNDED;
        shop.by_hand(&["block", PAY_TO.address, "--reason", "spam"]);
        shop.by_hand(&["adjust", BUYER.address, "0.5", "--reason", "an outage", "--id", "ticket-1"]);
        let gas = ((before - wei(&shop)) * 2_500_000_000).div_ceil(10_u128.pow(18)) as i64;
        Sold { shop, token, key, first, days, arrived, gas }
    }

    /// The rows of a table of the page: a name, calls of [`MODEL`], what was given back.
    fn row(name: &str, calls: u64, refunded: u64) -> Value {
        let [revenue, refunds, cost] = [calls * CHARGE, refunded, calls * COST].map(|micros| micros as i64);
        json!([name, calls.to_string(), usd(revenue), usd(refunds), "$0.00", usd(cost), usd(revenue - refunds - cost)])
    }

    /// What the page must have, by the captions of its tables.
    fn tables(&self) -> Value {
        let days: Vec<_> = self.days.iter().rev().map(|(day, (calls, refunded))| Sold::row(day, *calls, *refunded)).collect();
        let arrived = usd(self.arrived as i64);
        json!({
            "Earnings by model": [Sold::row(MODEL, 3, REFUNDED)],
            "Earnings by day": days,
            "Earnings by upstream": [Sold::row("fake", 3, REFUNDED)],
            "Money by network": [["Base Sepolia (test)", "2", arrived, "$1.00", "$0.00", "$0.00", "2", usd(self.gas)]],
        })
    }

    fn figures(&self, charged: u64) -> Value {
        let earned = charged - REFUNDED;
        json!({
            "Wallets blocked": "1",
            "Owed to wallets": usd((self.arrived - earned + GIVEN) as i64),
            "Settled to pay_to": usd(self.arrived as i64),
            "Earned since the beginning": usd(earned as i64),
            "Given by hand": usd(GIVEN as i64),
        })
    }

    fn close(mut self, charged: u64) {
        let arrived: u64 = self.shop.chain.transfers().iter().map(|transfer| transfer.value).sum();
        assert_eq!(arrived, self.arrived, "looking moves nothing");
        assert_eq!(self.shop.chain.usdc_balance(PAY_TO.address), arrived);
        assert_eq!(self.shop.available(BUYER), arrived - charged + REFUNDED + GIVEN);
        self.shop.server.account(BUYER).statement().assert_sums();
        assert!(self.shop.server.audit().clean);
    }
}

impl Shop<Anvil> {
    /// Pays for one call by itself; its name.
    fn buy(&self) -> String {
        let body = json!({ "model": MODEL, "max_tokens": 256, "messages": [{ "role": "user", "content": USAGE }] }).to_string();
        let url = self.server.url();
        let order = Order { base_url: &url, route: "/v1/chat/completions", body: &body, wallet: BUYER, max_value_usd: "1" };
        let bought = Client::FetchV2.buy(&order);
        assert_eq!(bought["status"], 200, "{bought}");
        bought["request_id"].as_str().expect("every answer has a name").to_owned()
    }

    /// The day on which a call ended.
    fn day_of(&self, token: &str, request: &str) -> String {
        let sale = self.see(token, &format!("sales/{request}"));
        let steps = sale["steps"].as_array().expect("a sale has steps");
        let upstream = steps.iter().find(|step| step["name"] == "upstream").expect("it was served");
        upstream["at"].as_str().expect("it ended")[..10].to_owned()
    }

    fn by_hand(&self, arguments: &[&str]) {
        let (code, printed, said) = run(self.server.command(arguments), "");
        assert_eq!(code, 0, "{arguments:?}: {printed}{said}");
    }
}

/// What the settler has.
fn wei(shop: &Shop<Anvil>) -> u128 {
    let answer = shop.chain.rpc("eth_getBalance", json!([SETTLER.address, "latest"]));
    u128::from_str_radix(answer.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// What the tables and the figures of the page say, told by their names.
fn money_shown() -> [Value; 2] {
    let tables = "Object.fromEntries([...document.querySelectorAll('#report table')].map((table) => [table.caption.textContent, \
                  [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))]))";
    let figures = "Object.fromEntries([...document.querySelectorAll('#figures > div')].slice(3).map((it) => \
                   [it.querySelector('dt').textContent, it.querySelector('dd').firstChild.textContent]))";
    [tables, figures].map(|script| json!({ "do": "evaluate", "script": script }))
}

/// Presses Refresh until the earnings have `text`: for a while after a report was made it is shown again. Who presses before the
/// answer is there starts anew, so that comes only after it, or after a time in which it may have been the same.
fn refresh_until(text: &str) -> Value {
    let script = format!(
        "(() => {{ const [asOf, before] = [document.querySelector('#as-of').textContent, window.pressed]; \
         if (asOf !== before?.asOf || Date.now() > before.at + 2000) {{ window.pressed = {{ asOf, at: Date.now() }}; \
         document.querySelector('#again').click(); }} return document.querySelector('#report').innerText.includes({}); }})()",
        json!(text)
    );
    json!({ "do": "becomes", "script": script })
}

/// Waits until the earnings have `text` no more.
fn gone(text: &str) -> Value {
    json!({ "do": "becomes", "script": format!("!document.querySelector('#report').innerText.includes({})", json!(text)) })
}

#[test]
fn an_operator_sees_what_is_earned_and_owed_right_to_the_micro_and_a_buyer_sees_nothing_of_it() {
    let sold = Sold::sell();
    let shop = &sold.shop;
    let fees = || shop.see(&sold.token, "overview?days=7")["report"]["networks"]["eip155:84532"]["transactions"] == 2;
    eventually("what the chain took is in the books", fees);
    let month = shop.see(&sold.token, "overview")["report"]["from"].as_str().unwrap().to_owned();
    let use_key = json!({ "do": "evaluate", "script": format!("window.key = {}; 0", json!(sold.key)) });
    let [tables, figures] = money_shown();
    let steps = [
        open("/operator"),
        click("Test Wallet"),
        see("Earnings by model"),
        tables.clone(),
        figures.clone(),
        read("#report"),
        shots("earnings"),
        axe(),
        json!({ "do": "theme", "scheme": "dark" }),
        axe(),
        use_key,
        call(OTHER_MODEL),
        refresh_until(OTHER_MODEL),
        tables,
        figures,
        read("#networks"),
        json!({ "do": "select", "label": "Days", "value": "7" }),
        gone(&format!("From {month}")),
        see("Earnings by model"),
        click("Sign out"),
        see("You are signed out."),
        json!({ "do": "evaluate", "script": "document.querySelector('#report').innerText + document.querySelector('#figures').innerText" }),
    ];
    let seen = shop.browser().with(shop.wallet(OPERATOR)).does(&steps);
    assert_eq!(seen.value(3), &sold.tables());
    assert_eq!(seen.value(4), &sold.figures(3 * CHARGE));
    let margin = usd((3 * CHARGE - 3 * COST - REFUNDED) as i64);
    let sum = format!("3 calls, {} revenue, margin {margin} before {} of gas.", usd(3 * CHARGE as i64), usd(sold.gas));
    assert!(seen.value(5).as_str().unwrap().contains(&sum), "{sum}: {}", seen.value(5));
    assert_eq!([6, 7, 9, 11].map(|step| seen.value(step)), [&json!(0), &json!([]), &json!([]), &json!(200)]);
    let unknown = json!([OTHER_MODEL, "1", usd(CHARGE as i64), "$0.00", "$0.00", "not known", "not known"]);
    assert_eq!(seen.value(13)["Earnings by model"], json!([unknown, Sold::row(MODEL, 3, REFUNDED)]));
    let upstream = &seen.value(13)["Earnings by upstream"][0];
    let cost = format!("{} and 1 call not known", usd(3 * COST as i64));
    assert_eq!((&upstream[5], &upstream[6]), (&json!(cost), &json!("not known")), "an unknown cost is never nothing");
    assert_eq!(seen.value(14), &sold.figures(4 * CHARGE));
    assert!(seen.value(15).as_str().unwrap().contains(&usd(sold.arrived as i64)), "{}", seen.value(15));
    assert_eq!(seen.last(), "", "nothing stays on the page of who has signed out");
    sold.close(4 * CHARGE);
}

#[test]
fn the_money_of_an_overview_is_the_report_of_so_many_days_and_sales_say_upstream_and_cost() {
    let sold = Sold::sell();
    let (shop, token) = (&sold.shop, &sold.token);
    let told = |days: u32| {
        let (code, printed, said) = run(shop.server.command(&["report", "--json", "--days", &days.to_string()]), "");
        assert_eq!(code, 0, "{said}");
        let mut report: Value = serde_json::from_str(&printed).expect("a report is JSON");
        report["made_at"] = Value::Null;
        report
    };
    for days in [1, 2, 30, 366] {
        eventually("it is the report", || {
            let mut overview = shop.see(token, &format!("overview?days={days}"));
            overview["report"]["made_at"] = Value::Null;
            overview["report"] == told(days) && overview["report_problem"].is_null()
        });
    }
    let calls = |path: &str| shop.see(token, path)["report"]["total"]["calls"].as_u64().unwrap();
    assert!(calls("overview?days=1") < 3 && calls("overview") == 3, "thirty days, if nothing is said");
    for wrong in ["days=0", "days=367", "days=x", "days=-1", "days=", "days=1&days=2"] {
        let refused = shop.ask(token, &format!("overview?{wrong}"));
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_request"), "{wrong}: {}", refused.text());
        assert_eq!(refused.json()["error"]["param"], "days", "{wrong}: {}", refused.text());
    }
    let buyer = shop.session(BUYER);
    for path in ["overview?days=7", "overview?days=0", &format!("sales/{}", sold.first)] {
        let refused = shop.ask(&buyer, path);
        assert_eq!((refused.status, refused.code().as_str()), (403, "not_an_operator"), "{path}: {}", refused.text());
        assert!(!refused.text().contains("micros") && !refused.text().contains("fake"), "{path}: {}", refused.text());
    }
    let sale = shop.see(token, &format!("sales/{}", sold.first));
    let paid = ["upstream", "cost_usd"].map(|name| fact(&sale, "upstream", name));
    assert_eq!(paid, [&json!("fake"), &json!("0.000110")]);
    let receipt = shop
        .server
        .send(&Request::get(&format!("/api/receipts/{}", sold.first)).header("authorization", &format!("Bearer {buyer}")));
    assert!(
        receipt.status == 200 && !receipt.text().contains("cost"),
        "what it cost is the operator's business: {}",
        receipt.text()
    );
    let steps = [open("/dashboard"), click("Test Wallet"), see("Adjustment by the operator"), read("#lines")];
    let lines = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    assert!(lines.text().contains("$0.50"), "{}", lines.text());
    sold.close(3 * CHARGE);
}

#[test]
fn an_operator_may_have_a_wallet_of_solana() {
    let shop = Shop::on(Solana::start(), &named(solana::OTHER_BUYER));
    let steps = [open("/operator"), click("Test Wallet"), see("Recent failures"), read("#networks"), see("None: every payment")];
    let seen = shop.browser().with(shop.wallet(solana::OTHER_BUYER)).does(&steps);
    assert!(seen.value(3).as_str().unwrap().contains("Solana Devnet (test)"), "{}", seen.value(3));
    let token = shop.session(solana::BUYER);
    assert_eq!(shop.ask(&token, "overview").code(), "not_an_operator");
    shop.close(&Ledger { paid: vec![], charged: 0 });
}
