//! TLS for real: upstreams and chain nodes behind certificates of a private authority, believed when the operator says so.

use farebox_rig::anvil::{Anvil, SETTLER};
use farebox_rig::http::Request;
use farebox_rig::process::eventually;
use farebox_rig::secure::{Authority, Door};
use farebox_rig::server::Settings;
use farebox_rig::upstream::Upstream;
use tempfile::TempDir;

use crate::shop::{ANSWER, CHARGE, CHAT, MESSAGES, Shop, USAGE, body};

/// Files of authorities, gone with this value.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(TempDir::new().unwrap())
    }

    /// A line for the configuration that believes `authority`.
    fn believe(&self, authority: &Authority) -> Vec<String> {
        let others = std::fs::read_dir(self.0.path()).unwrap().count();
        let path = self.0.path().join(format!("authority-{others}.pem"));
        std::fs::write(&path, authority.pem()).unwrap();
        vec![format!("ca_file = {path:?}")]
    }
}

/// `127.0.0.1:PORT` of a URL.
fn address(url: &str) -> String {
    url.trim_start_matches("http://").trim_end_matches('/').to_owned()
}

/// A shop whose upstream stands behind `door`.
fn shop(upstream: Upstream, door: &Door, lines: Vec<String>) -> Shop {
    let payments = vec!["settle_after_ms = 20000".to_owned()];
    let settings = Settings { upstream_url: Some(door.url()), upstream: lines, payments, ..Settings::default() };
    let mut shop = Shop::with(84532, &settings);
    shop.upstream = upstream;
    shop
}

#[test]
fn a_call_is_sold_through_an_upstream_behind_a_private_authority_and_in_http11_whatever_it_prefers() {
    let (authority, files, upstream) = (Authority::new(), Files::new(), Upstream::start());
    let door = Door::to(&address(&upstream.url()), &authority, "localhost");
    let mut shop = shop(upstream, &door, files.believe(&authority));
    let mut calls = 0;
    for (route, stream) in [(CHAT, false), (CHAT, true), (MESSAGES, false), (MESSAGES, true)] {
        let body = body(USAGE, stream);
        let payment = shop.pay(route, &body);
        let answer = shop.buy(route, &body, &payment);
        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
        assert!(answer.text().contains(if stream { "wallet" } else { ANSWER }));
        calls += 1;
    }
    assert_eq!(shop.served(), calls);
    assert_eq!(door.protocols(), vec!["http/1.1"; calls], "the door offers h2 first");
    shop.close(calls as u64 * CHARGE);
}

#[test]
fn a_stream_that_is_cut_inside_tls_never_looks_complete() {
    let (authority, files, upstream) = (Authority::new(), Files::new(), Upstream::start());
    let door = Door::to(&address(&upstream.url()), &authority, "localhost");
    let mut shop = shop(upstream, &door, files.believe(&authority));
    let body = body("<<fake words=40 cut=6>>", true);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.complete), (200, false), "{}", answer.text());
    assert!(answer.text().contains("\"error\"") && !answer.text().contains("[DONE]"));
    let earned = shop.earned();
    let books = shop.server.audit();
    let balance = books.balance(farebox_rig::anvil::BUYER.address);
    assert!(books.clean && balance > 0 && balance < earned, "{:#}", books.json);
}

#[test]
fn an_upstream_whose_certificate_is_wrong_gets_no_key_and_its_buyer_pays_nothing() {
    let (ours, theirs, files) = (Authority::new(), Authority::new(), Files::new());
    let believed = files.believe(&ours);
    // Another authority's, another name's, and one that nobody was told to believe.
    for (signer, name, lines) in
        [(&theirs, "localhost", believed.clone()), (&ours, "elsewhere.example", believed), (&ours, "localhost", Vec::new())]
    {
        let upstream = Upstream::start();
        let door = Door::to(&address(&upstream.url()), signer, name);
        let mut shop = shop(upstream, &door, lines);
        let body = body(USAGE, false);
        let payment = shop.pay(CHAT, &body);
        let answer = shop.buy(CHAT, &body, &payment);
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_error"), "{}", answer.text());
        assert!(!answer.text().contains("certificate"), "the operator's affair: {}", answer.text());
        eventually("the operator is told what is wrong and what to do", || {
            let log = shop.server.output();
            log.contains("invalid peer certificate") && log.contains("ca_file")
        });
        assert!(door.protocols().is_empty(), "no handshake succeeded, so no key went over");
        assert_eq!((shop.served(), shop.earned()), (0, 0));
        shop.close(0);
    }
}

#[test]
fn a_chain_node_behind_a_private_authority_settles_and_audits_and_an_unknown_one_is_not_sold_on() {
    let (authority, files, chain) = (Authority::new(), Files::new(), Anvil::start(84532));
    let door = Door::to(&address(&chain.url()), &authority, "localhost");
    let settings = Settings { rpc_urls: vec![door.url()], network: files.believe(&authority), ..Settings::default() };
    let mut shop = Shop::on(chain, &settings);
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    assert!(door.protocols().len() > 3, "the chain was asked through the door");
    assert_eq!(shop.earned(), payment.amount);
    // The audit asks the chain through the same door.
    shop.close(CHARGE);

    let chain = Anvil::start(84532);
    let door = Door::to(&address(&chain.url()), &Authority::new(), "localhost");
    let settings = Settings { rpc_urls: vec![door.url()], network: files.believe(&authority), ..Settings::default() };
    let shop = Shop::on(chain, &settings);
    let answer = shop.server.send(&Request::post(CHAT, body));
    assert_eq!((answer.status, answer.code().as_str()), (503, "network_unavailable"), "{}", answer.text());
    eventually("the operator is told why", || shop.server.output().contains("certificate"));
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address), shop.served()), (0, 0, 0));
    shop.close(0);
}

#[test]
fn a_ca_file_that_cannot_be_used_is_refused_at_the_start() {
    let folder = TempDir::new().unwrap();
    for (table, line) in [("[[upstream]]", "ca_file = \"missing.pem\""), ("[[network]]", "ca_file = \"config.toml\"")] {
        let config = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml")).unwrap();
        let config = match table {
            "[[network]]" => config.replacen("settlement = \"simulated\"", &format!("settlement = \"simulated\"\n{line}"), 1),
            _ => config.replacen("kind = \"echo\"", &format!("base_url = \"https://localhost\"\n{line}"), 1),
        };
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_farebox"));
        command.args(["--config", "config.toml", "serve"]).current_dir(folder.path());
        let (code, _, stderr) = farebox_rig::process::run(command, "");
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains("ca_file"), "{stderr}");
    }
}
