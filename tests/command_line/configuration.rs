//! A configuration that cannot be used is refused with exit code 78 and words that name the key at fault.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use farebox_rig::anvil::SETTLER;
use farebox_rig::process::run;
use farebox_rig::server::Server;
use tempfile::TempDir;

use crate::{FAREBOX, on_a_free_port, shipped};

/// What `farebox serve` says about a configuration that it must refuse; it never listens.
fn refused(config: &str) -> String {
    ended(config, 78)
}

/// The same for one that ends it with this exit code.
fn ended(config: &str, expected: i32) -> String {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.toml"), config).unwrap();
    let key = folder.path().join("key");
    fs::write(&key, SETTLER.key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = Command::new(FAREBOX);
    command.current_dir(folder.path()).env("SETTLER", SETTLER.key).env("NO_KEY", "not a key").env_remove("UNSET");
    let (code, stdout, stderr) = run(command, "");
    assert_eq!(code, expected, "{stdout}{stderr}");
    assert!(!stdout.contains("listening"), "{stdout}");
    assert!(!stderr.contains(&SETTLER.key[2..]), "a secret is not repeated: {stderr}");
    stderr
}

/// The shipped configuration with one thing changed.
fn with(from: &str, to: &str) -> String {
    let config = on_a_free_port();
    assert!(config.contains(from), "the shipped configuration has {from:?}");
    config.replacen(from, to, 1)
}

const SIMULATED: &str = "settlement = \"simulated\"";

fn settled_with(lines: &str) -> String {
    with(SIMULATED, &format!("settlement = \"rpc\"\nrpc_urls = [\"http://127.0.0.1:9\"]\n{lines}"))
}

#[test]
fn every_refusal_names_its_key() {
    let facilitator = "settlement = \"facilitator\"\nfacilitator_url = \"http://127.0.0.1:9\"";
    let second_network = format!(
        "{facilitator}\n\n[[network]]\nid = \"base\"\npay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"\n{facilitator}\n"
    );
    let half_real = "[[network]]\nid = \"polygon-amoy\"\npay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"\nsettlement = \
                     \"facilitator\"\nfacilitator_url = \"http://127.0.0.1:9\"\n\n[[upstream]]\nname = \"echo\"";
    let prepaid = |line: &str| {
        let (key, _) = line.split_once(' ').unwrap();
        let shipped = on_a_free_port();
        let shipped = shipped.lines().find(|shipped| shipped.starts_with(key)).expect("the shipped configuration has it");
        with(shipped, line)
    };
    let everywhere = settled_with("settler_key = \"env:SETTLER\"").replace("127.0.0.1:0\"", "0.0.0.0:0\"");
    let everywhere = everywhere.lines().filter(|line| !line.starts_with("public_url")).collect::<Vec<_>>().join("\n");
    let cases = [
        ("a literal secret", settled_with(&format!("settler_key = \"{}\"", SETTLER.key)), &["settler_key", "env:NAME"][..]),
        ("no secret", settled_with(""), &["settler_key"]),
        ("a secret that is not there", settled_with("settler_key = \"env:UNSET\""), &["settler_key", "UNSET"]),
        ("a secret for everybody", settled_with("settler_key = \"file:key\""), &["settler_key", "chmod 600"]),
        ("a secret that is none", settled_with("settler_key = \"env:NO_KEY\""), &["settler_key"]),
        ("nobody settles", with(SIMULATED, "settlement = \"rpc\""), &["rpc_urls"]),
        ("no facilitator", with(SIMULATED, "settlement = \"facilitator\""), &["facilitator_url"]),
        ("test and main network", with(SIMULATED, &second_network), &["network.id", "84532", "8453"]),
        ("a main network simulated", with("id = \"base-sepolia\"", "id = \"base\""), &["settlement", "eip155:8453"]),
        (
            "simulated for strangers",
            with("127.0.0.1:0\"", "0.0.0.0:0\"\npublic_url = \"http://127.0.0.1:4020\""),
            &["settlement", "loopback"],
        ),
        ("an unknown network", with("id = \"base-sepolia\"", "id = \"base-sepollia\""), &["base-sepollia", "id"]),
        ("a misspelt key", with("payg_remainder = \"credit\"", "payg_remaindr = \"credit\""), &["payg_remaindr"]),
        ("a misspelt secret", settled_with(&format!("setler_key = \"{}\"", SETTLER.key)), &["setler_key"]),
        ("a misspelt value", with("payg_order = \"overlap\"", "payg_order = \"overlapp\""), &["payg_order"]),
        ("no receiver", with("pay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"", "pay_to = \"0x12\""), &["pay_to"]),
        (
            "a mistyped receiver",
            with("0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "0x209693Bc6afc0C5328bA36FaF03C514EF312287c"),
            &["pay_to"],
        ),
        ("an upstream that is not there", with("name = \"echo\", model", "name = \"ecco\", model"), &["upstreams", "ecco"]),
        ("half simulated", with("[[upstream]]\nname = \"echo\"", half_real), &["settlement", "never share"]),
        ("a price that is left out", with(", output = \"15.00\"", ""), &["price", "output"]),
        (
            "a call without an end",
            with("wall_clock_seconds = 240", "wall_clock_seconds = 9000000000000"),
            &["wall_clock_seconds"],
        ),
        ("room for half a body", with("max_bodies_mb = 512", "max_bodies_mb = 1"), &["max_bodies_mb"]),
        ("an inexact price", with("input = \"3.00\"", "input = \"3,00\""), &["price.input"]),
        ("a place to listen at", with("127.0.0.1:0", "localhost"), &["server.bind"]),
        ("listening everywhere, seen nowhere", everywhere, &["public_url", "0.0.0.0", "https://"]),
        ("a statement with quotes", prepaid("sign_in_statement = 'Sign in to \"Farebox\"'"), &["sign_in_statement", "quotation"]),
        ("a long statement", prepaid(&format!("sign_in_statement = \"{}\"", "x".repeat(101))), &["sign_in_statement", "100"]),
        ("somebody else's domain", prepaid("sign_in_domains = [\"api.venice.ai\"]"), &["sign_in_domains", "apiUrl"]),
        ("the usual port", prepaid("sign_in_domains = [\"your.name:443\"]"), &["sign_in_domains", "write your.name"]),
        ("an address range", with("trusted_proxies = []", "trusted_proxies = [\"10.0.0.0/99\"]"), &["trusted_proxies"]),
        ("no TOML", "[server".to_owned(), &["config"]),
    ];
    each_is_refused(&cases);
}

/// Each configuration, with what it is, is refused with these words.
fn each_is_refused(cases: &[(&str, String, &[&str])]) {
    for (what, config, words) in cases {
        let said = refused(config);
        for word in *words {
            assert!(said.contains(word), "{what}: {word:?} is missing in: {said}");
        }
    }
}

#[test]
fn a_solana_network_is_refused_by_its_own_rules() {
    const PAY_TO: &str = "GyGKxMyg1p9SsHfm15MkNUu1u9TN2JtTspcdmrtGUdse";
    let solana = |id: &str, pay_to: &str, lines: &str| {
        let config = settled_with(lines).replace("id = \"base-sepolia\"", &format!("id = \"{id}\""));
        config.replace("0x209693Bc6afc0C5328bA36FaF03C514EF312287C", pay_to)
    };
    let devnet = |lines: &str| solana("solana-devnet", PAY_TO, lines);
    let paid_to = |pay_to: &str| solana("solana-devnet", pay_to, "settler_key = \"env:SETTLER\"");
    let simulated =
        with("id = \"base-sepolia\"", "id = \"solana\"").replace("0x209693Bc6afc0C5328bA36FaF03C514EF312287C", PAY_TO);
    let both = format!(
        "{}\n[[network]]\nid = \"base\"\npay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"\nsettlement = \"facilitator\"\n\
         facilitator_url = \"http://127.0.0.1:9\"\n",
        devnet("settler_key = \"env:SETTLER\"")
    );
    each_is_refused(&[
        ("the key of another family", devnet("settler_key = \"env:SETTLER\""), &["settler_key", "base58 of 64 bytes"]),
        ("no key", devnet("settler_key = \"env:NO_KEY\""), &["settler_key", "base58 of 64 bytes"]),
        ("the wallet of another family", paid_to("0x209693Bc6afc0C5328bA36FaF03C514EF312287C"), &["pay_to", "base58"]),
        ("a slip in a wallet", paid_to(&PAY_TO[..40]), &["pay_to", "base58"]),
        ("the mint as a wallet", paid_to("4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU"), &["pay_to", "not a wallet"]),
        ("nobody", paid_to("11111111111111111111111111111111"), &["pay_to", "not a wallet"]),
        ("blocks to wait for", devnet("settler_key = \"env:SETTLER\"\nconfirmations = 3"), &["confirmations", "Solana"]),
        ("a price of gas", devnet("settler_key = \"env:SETTLER\"\nmax_fee_gwei = 5"), &["max_fee_gwei", "Solana"]),
        ("a name of EIP-712", devnet("settler_key = \"env:SETTLER\"\nasset_name = \"USDC\""), &["asset_name", "Solana"]),
        ("a mint that is none", devnet("settler_key = \"env:SETTLER\"\nasset = \"0x12\""), &["asset", "base58"]),
        (
            "a chain that nobody knows",
            solana("solana:mainnet", PAY_TO, "settler_key = \"env:SETTLER\""),
            &["id", "solana:mainnet"],
        ),
        ("real money simulated", simulated, &["settlement", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"]),
        ("test and main network", both, &["network.id", "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"]),
    ]);
}

#[test]
fn money_never_goes_to_the_key_that_pays_gas() {
    let config =
        settled_with("settler_key = \"env:SETTLER\"").replace("0x209693Bc6afc0C5328bA36FaF03C514EF312287C", SETTLER.address);
    let said = refused(&config);
    assert!(said.contains("pay_to"), "{said}");
}

#[test]
fn an_address_that_is_taken_or_not_there_yet_is_said_plainly_and_to_be_tried_again() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let settled = settled_with("settler_key = \"env:SETTLER\"");
    assert!(settled.contains("\"127.0.0.1:0\""));
    // The second is for documents alone: no machine has it.
    for address in [taken.local_addr().unwrap().to_string(), "192.0.2.1:4020".to_owned()] {
        let metrics = with("[server]", &format!("[server]\nmetrics = \"{address}\""));
        for config in [settled.replace("127.0.0.1:0", &address), metrics] {
            let said = ended(&config, 70);
            assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
        }
    }
}

#[test]
fn a_file_that_is_missing_is_said_plainly() {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(FAREBOX);
    command.current_dir(folder.path()).args(["--config", "nowhere.toml", "serve"]);
    let (code, _, stderr) = run(command, "");
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("nowhere.toml"), "{stderr}");
}

#[test]
fn a_crash_leaves_no_core_with_keys_in_it() {
    let server = shipped();
    let limit = server.status_of("limits", "Max core file size").unwrap();
    assert_eq!(limit.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
}

#[test]
fn who_is_reached_without_tls_is_told_so_at_the_start() {
    let warning = "over plain http";
    let started = |url: &str| {
        let config = settled_with("settler_key = \"env:TEST_SETTLER_KEY\"");
        let config = config.replacen("[server]", &format!("[server]\npublic_url = \"{url}\""), 1);
        let mut server = Server::configured(FAREBOX, &config);
        server.signal();
        server.wait_exit();
        server.output()
    };
    let said = started("http://your.name");
    assert!(said.contains(warning) && said.contains("http://your.name"), "{said}");
    for fine in ["https://your.name", "http://localhost:4020"] {
        assert!(!started(fine).contains(warning), "{fine}");
    }
}
