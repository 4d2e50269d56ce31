//! Webhooks: signed as Standard Webhooks has it, sent again until they are taken, once for each thing, and never in the way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_rig::anvil::BUYER;
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::stub::Stub;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

use crate::shop::{CHARGE, FIVE, Shop, USAGE};

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
    assert_eq!(shop.numbers().get("farebox_webhooks_total{outcome=\"delivered\"}"), "1");
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
