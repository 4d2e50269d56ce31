//! Webhooks: signed as Standard Webhooks has it, sent again until they are taken, once for each thing, and never in the way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_rig::anvil::{Anvil, BUYER, SETTLER};
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::stub::Stub;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

use crate::shop::{CHARGE, FIVE, Shop, USAGE};
use crate::small_disk::SmallDisk;

const KEY: &[u8] = b"thirty-two bytes that none knows";

/// One request as it came.
#[derive(Clone)]
struct Told {
    id: String,
    body: Value,
    authentic: bool,
}

/// A receiver that answers what it is told to, one status after the other and then 204.
struct Receiver {
    stub: Stub,
    told: Arc<Mutex<Vec<Told>>>,
    folder: TempDir,
}

impl Receiver {
    fn start(statuses: &[u16]) -> Receiver {
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let (noted, statuses) = (Arc::clone(&told), Mutex::new(statuses.to_vec()));
        let stub = Stub::start(move |request| {
            noted.lock().unwrap().push(read(request));
            let mut statuses = statuses.lock().unwrap();
            let status = if statuses.is_empty() { 204 } else { statuses.remove(0) };
            // Zero hangs up without a word.
            (status > 0).then(|| (status, String::new()))
        });
        let folder = TempDir::new().unwrap();
        let receiver = Receiver { stub, told, folder };
        fs::write(receiver.secret(), format!("whsec_{}\n", STANDARD.encode(KEY))).unwrap();
        fs::set_permissions(receiver.secret(), fs::Permissions::from_mode(0o600)).unwrap();
        receiver
    }

    fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// A section of the configuration.
    fn section(&self, lines: &str) -> String {
        format!(
            "\n[[webhook]]\nurl = \"{}/hook?token=hook-url-canary\"\nsecret = \"file:{}\"\n{lines}\n",
            self.stub.url(),
            self.secret().display()
        )
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    /// What was told of one type; every request proves that it was us.
    fn of(&self, event: &str) -> Vec<Told> {
        let told = self.told();
        assert!(told.iter().all(|told| told.authentic), "a signature is wrong");
        told.into_iter().filter(|told| told.body["type"] == event).collect()
    }
}

fn read(request: &str) -> Told {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let header = |name: &str| {
        let value = head.lines().find_map(|line| line.split_once(": ").filter(|(it, _)| it.eq_ignore_ascii_case(name)));
        value.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    assert!(head.starts_with("POST /hook?token=hook-url-canary "), "{head}");
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let authentic = header("webhook-signature") == signature && timestamp.parse::<u64>().is_ok() && id.starts_with("evt_");
    Told { id, body: serde_json::from_str(body).unwrap(), authentic }
}

fn shop(receiver: &Receiver, lines: &str) -> Shop {
    Shop::with(Settings { sections: vec![receiver.section(lines)], ..Settings::default() })
}

#[test]
fn a_top_up_is_told_again_until_it_is_taken_and_then_no_more() {
    let receiver = Receiver::start(&[500, 0, 302]);
    let mut shop = shop(&receiver, "events = [\"top_up\"]");
    shop.top_up(FIVE);
    eventually("it was taken", || receiver.of("top_up").len() == 4);
    let told = receiver.of("top_up");
    assert!(told.iter().all(|other| other.id == told[0].id && other.body == told[0].body), "the same one, four times");
    let data = &told[0].body["data"];
    let account = format!("evm:{}", BUYER.address.to_lowercase());
    assert_eq!((&data["account"], &data["amount_usd"]), (&json!(account), &json!("5.000000")));
    assert_eq!(data["network"], "eip155:8453");
    assert!(shop.chain.receipt(data["transaction"].as_str().unwrap()).is_some(), "the transaction that brought it");
    // It is counted when the answer has come, which the receiver gives after it has noted the request.
    eventually("it is counted", || shop.numbers().is("farebox_webhooks_total{outcome=\"delivered\"}", "1"));
    assert_eq!(shop.numbers().get("farebox_webhooks_total{outcome=\"failed\"}"), "3");
    // The same payment again is no other top-up.
    shop.server.restart();
    shop.top_up(FIVE);
    eventually("the second one", || receiver.of("top_up").len() == 5);
    assert_ne!(receiver.of("top_up")[4].id, told[0].id);
    let log = shop.server.output();
    assert!(
        !log.contains("hook-url-canary") && !log.contains(&STANDARD.encode(KEY)),
        "neither the URL's key nor the secret is logged"
    );
    shop.close();
    assert_eq!(receiver.told().len(), 5, "nothing else was told");
}

#[test]
fn what_nobody_has_taken_at_a_stop_is_in_the_log_and_what_was_taken_is_not() {
    let (takes, refuses) = (Receiver::start(&[]), Receiver::start(&[500; 100]));
    let sections = vec![takes.section("events = [\"top_up\"]"), refuses.section("events = [\"top_up\"]")];
    let mut shop = Shop::with(Settings { sections, ..Settings::default() });
    shop.top_up(FIVE);
    eventually("both were asked", || {
        shop.numbers().is("farebox_webhooks_total{outcome=\"delivered\"}", "1") && !refuses.told().is_empty()
    });
    let id = refuses.told()[0].id.clone();
    shop.server.signal();
    shop.server.wait_exit();
    let said = shop.server.output();
    let lost: Vec<_> = said.lines().filter(|line| line.contains("not taken before the stop")).collect();
    assert!(lost.len() == 1 && lost[0].contains("top_up") && lost[0].contains(&id) && lost[0].contains("webhook=2"), "{said}");
    assert!(!lost[0].to_lowercase().contains(&BUYER.address.to_lowercase()[2..]), "whose it is, it does not say");
    shop.server.restart();
    shop.close();
}

#[test]
fn a_receiver_that_never_answers_holds_no_sale_up_and_one_that_is_gone_is_left_alone() {
    let gone = Receiver::start(&[410]);
    // Takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!(
        "\n[[webhook]]\nurl = \"http://{}/\"\nsecret = \"file:{}\"\n",
        silent.local_addr().unwrap(),
        gone.secret().display()
    );
    let mut shop = Shop::with(Settings { sections: vec![gone.section(""), other], ..Settings::default() });
    let key = shop.key();
    for _ in 0..20 {
        assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    }
    eventually("it is given up", || shop.numbers().has("farebox_webhooks_total{outcome=\"given_up\"}"));
    assert_eq!(gone.of("top_up").len(), 1, "410 asks for no more");
    shop.close();
}

#[test]
fn a_balance_that_falls_below_the_mark_is_told_once_and_again_after_it_was_filled() {
    let receiver = Receiver::start(&[]);
    let mut shop = shop(&receiver, "events = [\"low_balance\"]\nlow_balance = \"4.9997\"");
    let key = shop.key();
    for _ in 0..3 {
        shop.call(&key, USAGE, false, CHARGE);
    }
    eventually("it is told", || receiver.of("low_balance").len() == 1);
    shop.top_up(FIVE);
    for _ in 0..2 {
        shop.call(&key, USAGE, false, CHARGE);
    }
    shop.pay(USAGE, CHARGE);
    let told = receiver.of("low_balance");
    assert_eq!(told.len(), 1, "one of three calls was the first below, and 10 is above");
    let balance = farebox_rig::server::micros(&told[0].body["data"]["balance_usd"]);
    assert!([FIVE - 2 * CHARGE, FIVE - 3 * CHARGE].contains(&balance), "{balance}");
    assert_eq!(told[0].body["data"]["below_usd"], "4.999700");
    shop.close();
}

#[test]
fn an_upstream_that_goes_down_and_comes_back_is_told_of_once_each() {
    let receiver = Receiver::start(&[]);
    let failover = ["failures = 1", "pause_ms = 3000", "longest_pause_ms = 3000"].map(str::to_owned).to_vec();
    let sections = vec![receiver.section("events = [\"upstream_down\", \"upstream_up\"]")];
    let payments = vec!["settle_after_ms = 8000".to_owned()];
    let mut shop = Shop::with(Settings { failover, sections, payments, ..Settings::default() });
    let key = shop.key();
    shop.upstream.configure(&json!({ "status": 500 }));
    assert!(shop.call(&key, USAGE, false, 0).status >= 500);
    shop.fails_for_another();
    eventually("it is told that it is down", || !receiver.of("upstream_down").is_empty());
    shop.upstream.configure(&json!({}));
    eventually("it is back", || shop.server.send(&crate::shop::with_key(&key, USAGE, false)).status == 200);
    eventually("it is told that it is back", || !receiver.of("upstream_up").is_empty());
    shop.call(&key, USAGE, false, 2 * CHARGE);
    assert_eq!((receiver.of("upstream_down").len(), receiver.of("upstream_up").len()), (1, 1));
    assert_eq!(receiver.of("upstream_down")[0].body["data"], json!({ "upstream": "fake" }));
    shop.close();
}

/// A coin of the chain has eighteen digits behind its point.
fn wei(coins: &Value) -> u128 {
    let (whole, fraction) = coins.as_str().unwrap().split_once('.').unwrap();
    format!("{whole}{fraction:0<18}").parse().unwrap()
}

#[test]
fn a_settler_whose_gas_runs_out_is_told_of_once_and_again_only_after_it_was_filled() {
    let receiver = Receiver::start(&[]);
    let chain = Anvil::start(8453);
    let fill = |chain: &Anvil, wei: u128| chain.rpc("anvil_setBalance", json!([SETTLER.address, format!("{wei:#x}")]));
    fill(&chain, 1);
    let sections = vec![receiver.section("events = [\"low_gas\"]")];
    let mut shop = Shop::on(chain, Settings { sections, ..Settings::default() });
    eventually("it is told", || receiver.of("low_gas").len() == 1);
    let data = receiver.of("low_gas")[0].body["data"].clone();
    assert_eq!((&data["network"], wei(&data["has"])), (&json!("eip155:8453"), 1));
    assert!(data["settler"].as_str().unwrap().eq_ignore_ascii_case(SETTLER.address), "{data}");
    let needs = wei(&data["needs"]);
    assert_eq!(shop.server.send(&crate::shop::unpaid(USAGE)).header("payment-required"), None, "nothing is sold");
    let has = |shop: &Shop, wei: u128| {
        let shown = shop.numbers().get("farebox_gas_coins{network=\"eip155:8453\"}").to_owned();
        shown.replace('.', "").trim_start_matches('0') == wei.to_string()
    };
    // Two looks of the gateway at its purse: between them it was low all the time.
    for wei in [2, 3] {
        fill(&shop.chain, wei);
        eventually("it has looked again", || has(&shop, wei));
    }
    assert_eq!(receiver.of("low_gas").len(), 1, "once, and not at every look");
    assert_eq!(shop.chain.transfers(), []);
    // Enough to sell, and still little.
    fill(&shop.chain, needs * 3);
    eventually("it sells", || shop.numbers().get("farebox_network_ready{network=\"eip155:8453\"}") == "1");
    let key = shop.key();
    assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    assert_eq!(receiver.of("low_gas").len(), 1, "it was low before");
    for (wei, telling) in [(needs * 100, 1), (needs * 3, 2)] {
        fill(&shop.chain, wei);
        assert!(shop.server.audit().clean);
        shop.server.restart();
        assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
        eventually("it was looked at", || receiver.of("low_gas").len() == telling);
    }
    shop.close();
    assert_eq!(receiver.told().len(), 2, "nothing was told of the purse that was full, and again when it was low");
}

#[test]
fn settlements_that_no_block_takes_are_told_of_once_each_and_are_a_balance_when_one_does() {
    let receiver = Receiver::start(&[503]);
    // Its latest block stays the first one, which may not become two minutes old.
    let mut shop = Shop::on(
        Anvil::start_ahead(8453, 60),
        Settings {
            sections: vec![receiver.section("events = [\"settlement_stuck\"]")],
            prepaid: vec!["top_up_wait_ms = 3000".to_owned()],
            ..Settings::default()
        },
    );
    shop.chain.set_automine(false);
    let pay_in = || {
        let answer = shop.buyer().top_up(FIVE);
        assert_eq!((answer.status, answer.code().as_str()), (504, "settlement_pending"), "{}", answer.text());
        answer.json()["details"]["payment_id"].clone()
    };
    let first = pay_in();
    // Less far than the clocks of chain and gateway may be apart, whose latest block is from its start.
    shop.server.move_clock(70);
    let second = pay_in();
    assert_eq!(receiver.told().len(), 0, "a minute is not long");
    let of = |payment: &Value| {
        receiver.of("settlement_stuck").into_iter().filter(|told| told.body["data"]["payment_id"] == *payment).collect::<Vec<_>>()
    };
    shop.server.move_clock(30 * 60 + 15);
    eventually("it is told and taken", || of(&first).len() == 2);
    let told = of(&first);
    assert!(told[0].id == told[1].id && told[0].body == told[1].body, "the same one, since it was not taken at first");
    let data = &told[0].body["data"];
    let account = format!("evm:{}", BUYER.address.to_lowercase());
    assert_eq!((&data["account"], &data["amount_usd"]), (&json!(account), &json!("5.000000")));
    assert_eq!((&data["network"], of(&second).len()), (&json!("eip155:8453"), 0), "the other one does not wait for so long");
    shop.server.move_clock(33 * 60);
    eventually("the other one is told", || of(&second).len() == 1);
    shop.server.move_clock(0);
    assert_eq!(shop.buyer_has(), 0, "they are no balance yet");
    shop.chain.set_automine(true);
    shop.chain.mine(1);
    eventually("they are a balance", || shop.buyer_has() == 2 * FIVE);
    shop.came_in(2 * FIVE, 0);
    let key = shop.buyer().mint(&json!({ "name": "laptop" }));
    assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    shop.close();
    assert_eq!(receiver.told().len(), 3, "once each");
}

#[test]
fn a_ledger_that_fails_is_told_of_before_the_program_ends() {
    let receiver = Receiver::start(&[]);
    let mut shop = shop(&receiver, "events = [\"ledger_failed\"]");
    let disk = SmallDisk::under(&mut shop.server, 16);
    shop.server.restart();
    let key = shop.key();
    disk.fill();
    let mut served = 0;
    while farebox_rig::http::send(shop.server.address(), &crate::shop::with_key(&key, USAGE, false))
        .is_ok_and(|it| it.status == 200)
    {
        served += 1;
    }
    assert_eq!(shop.server.wait_code(), Some(70));
    let told = receiver.of("ledger_failed");
    let bodies: Vec<_> = told.iter().map(|told| &told.body).collect();
    assert_eq!(told.len(), 1, "{bodies:?}\n{}", shop.server.output());
    let cause = told[0].body["data"]["cause"].as_str().unwrap();
    assert!(cause.contains("No space left on device") && cause.contains("make room"), "{cause}");
    disk.clear();
    shop.server.restart();
    let charged = FIVE - shop.buyer_has();
    assert!(charged <= served * CHARGE, "{charged}");
    shop.came_in(0, charged);
    assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    shop.close();
    assert_eq!(receiver.told().len(), 1, "nothing else was told");
}
