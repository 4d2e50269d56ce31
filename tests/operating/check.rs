//! `farebox check` says of each thing whether it is right, which line is wrong and why, and shows no secret.

use std::fs;
use std::process::Command;

use farebox_rig::anvil::SETTLER;
use farebox_rig::process::run;
use farebox_rig::server::Settings;
use farebox_rig::upstream::UPSTREAM_KEY;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shop::Shop;

/// What `farebox check --json` says, and its exit code.
fn check(shop: &Shop) -> (i32, Value) {
    let (code, stdout, stderr) = run(shop.server.command(&["check", "--json"]), "");
    let said = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {stdout}{stderr}"));
    assert!(!stdout.contains(UPSTREAM_KEY) && !stdout.contains(&SETTLER.key[2..]), "a secret is shown");
    assert!(!stderr.contains(UPSTREAM_KEY) && !stderr.contains(&SETTLER.key[2..]), "a secret is shown");
    (code, said)
}

/// What is said of one thing, at one level.
fn said<'a>(report: &'a Value, level: &str, what: &str) -> Vec<&'a str> {
    let findings = report["findings"].as_array().unwrap().iter();
    let of = findings.filter(|finding| finding["level"] == level && finding["what"].as_str().unwrap().contains(what));
    of.map(|finding| finding["said"].as_str().unwrap()).collect()
}

#[test]
fn a_shop_that_is_right_is_found_right_while_it_runs_and_nothing_is_bought_or_sent() {
    let shop = Shop::open();
    let (code, report) = check(&shop);
    assert_eq!((code, &report["ok"]), (0, &json!(true)), "{report:#}");
    assert!(said(&report, "failure", "").is_empty(), "{report:#}");
    assert!(said(&report, "ok", "network eip155:8453").iter().any(|said| said.contains("for gas")), "{report:#}");
    assert!(said(&report, "ok", "upstream \"fake\"")[0].contains("takes the key"), "{report:#}");
    assert_eq!(report["configuration"]["network"][0]["settler_key"], "…");
    assert_eq!(report["configuration"]["upstream"][0]["api_key"], "…");
    assert_eq!(report["configuration"]["limits"]["wall_clock_seconds"], 240, "defaults are shown");
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 0, "nothing was sent");
    let calls = shop.upstream.calls();
    assert!(calls.iter().all(|call| call["method"] == "GET"), "nothing was bought: {calls:?}");
    let (code, text, _) = run(shop.server.command(&["check"]), "");
    assert_eq!(code, 0);
    assert!(text.lines().any(|line| line.starts_with("ok      upstream \"fake\": ")), "{text}");
    shop.close();
}

#[test]
fn each_thing_that_does_not_answer_is_a_failure_with_what_to_do_and_the_rest_is_looked_at_all_the_same() {
    let settings = Settings {
        rpc_urls: vec!["http://127.0.0.1:9/v2/node-key-canary".into()],
        others: vec!["http://127.0.0.1:9".into()],
        ..Settings::default()
    };
    let shop = Shop::on(farebox_rig::anvil::Anvil::start(8453), settings);
    let (code, report) = check(&shop);
    assert_eq!((code, &report["ok"]), (1, &json!(false)), "{report:#}");
    assert_eq!(said(&report, "failure", "network eip155:8453").len(), 1);
    assert!(said(&report, "failure", "upstream \"fake2\"")[0].contains("base_url"), "{report:#}");
    assert_eq!(said(&report, "ok", "upstream \"fake\"").len(), 1, "the other one is fine");
    assert!(!report.to_string().contains("node-key-canary"), "the key of a node is not shown");
    assert_eq!(report["configuration"]["network"][0]["rpc_urls"][0], "http://127.0.0.1:9/…");
    shop.close();
}

#[test]
fn a_key_that_the_upstream_does_not_take_a_low_purse_and_a_price_below_cost_are_told() {
    let prices = vec!["cache_read = \"0.30\" }\ncost = { input = \"3\", output = \"15.01\"".to_owned()];
    let shop = Shop::with(Settings { prices, ..Settings::default() });
    // Four settlements at the highest fee: it sells, and not for long.
    let balance = |wei: &str| shop.chain.rpc("anvil_setBalance", json!([SETTLER.address, wei]));
    let (_, report) = check(&shop);
    let needs = said(&report, "ok", "network")[1].split("below ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let needs: f64 = needs.parse().unwrap();
    balance(&format!("{:#x}", (needs * 1.5 * 1e18) as u128));
    let mut command = shop.server.command(&["check", "--json"]);
    command.env("TEST_UPSTREAM_KEY", "sk-another-canary");
    let (code, stdout, stderr) = run(command, "");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 1, "{stderr}");
    assert!(said(&report, "failure", "upstream \"fake\"")[0].contains("api_key"), "{report:#}");
    assert!(said(&report, "warning", "network")[0].contains("send it some"), "{report:#}");
    let below = report["findings"].as_array().unwrap().iter().find(|it| it["what"] == "model \"test-model\"").unwrap();
    assert_eq!(below["said"], "price.output is 15, and it costs you 15.01");
    assert!(below["line"].as_u64().is_some_and(|line| line > 10), "{below}");
    assert!(!stdout.contains("sk-another-canary"));
    shop.close();
}

#[test]
fn a_configuration_that_cannot_be_used_is_named_by_its_line_and_ends_with_78() {
    let shipped = include_str!("../../config.toml");
    let cases = [
        ("input = \"3.00\"", "input = \"3,00\"", "price.input"),
        ("wall_clock_seconds = 240", "wall_clock_seconds = 0", "wall_clock_seconds"),
        ("payg_order = \"overlap\"", "payg_ordr = \"overlap\"", "payg_ordr"),
        ("pay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"", "pay_to = \"0x12\"", "pay_to"),
        ("max_output = 8192", "max_output = 0", "max_output"),
        ("operators = []", "operators = [\"0x12\"]", "operators"),
        (
            "settlement = \"simulated\"",
            "settlement = \"rpc\"\nrpc_urls = [\"http://127.0.0.1:9\"]\nsettler_key = \"env:UNSET_KEY\"",
            "UNSET_KEY",
        ),
    ];
    let late = ["pay_to", "operators"];
    for (from, to, named) in cases {
        let text = shipped.replacen(from, to, 1);
        assert_ne!(text, shipped, "{from:?} is shipped");
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("config.toml"), &text).unwrap();
        let last = to.lines().last().unwrap();
        let line = 1 + text.lines().position(|line| line.contains(last)).unwrap();
        for (arguments, place) in [(&["check"][..], format!("config.toml:{line}: ")), (&["serve"], format!("line {line}, "))] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_farebox"));
            command.current_dir(folder.path()).args(arguments).env_remove("UNSET_KEY");
            let (code, stdout, stderr) = run(command, "");
            assert_eq!(code, 78, "{to:?}: {stdout}{stderr}");
            // What only the start of the gateway finds has no line there.
            if !late.contains(&named) || arguments[0] == "check" {
                assert!(stdout.contains(&place) || stderr.contains(&place), "{to:?}: {place:?} is missing in {stdout}{stderr}");
            }
            assert!(stdout.contains(named) || stderr.contains(named), "{to:?}: {stdout}{stderr}");
        }
        assert!(!folder.path().join("data/ledger.redb").exists() || late.contains(&named), "a check makes no books");
    }
}
