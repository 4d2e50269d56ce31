//! Whole configurations, good and bad: what is refused, and that the shipped one explains itself.

use super::*;
use crate::catalogue::Kind;

fn simulated(bind: &str, public_url: &str, network: &str) -> Result<Config, ConfigError> {
    let text = format!(
        "[server]\nbind = \"{bind}\"\npublic_url = \"{public_url}\"\n[[network]]\nid = \"{network}\"\n\
         pay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"\nsettlement = \"simulated\"\n"
    );
    Config::parse(&text, Path::new("."), &|_| None)
}

#[test]
fn simulated_money_is_taken_on_this_machine_and_on_test_networks_only() {
    let here = "127.0.0.1:4020";
    for url in ["http://127.0.0.1:4020", "http://localhost", "http://[::1]:4020/farebox", "http://127.8.8.8"] {
        assert!(simulated(here, url, "base-sepolia").is_ok(), "{url}");
    }
    for url in ["https://your.name", "http://localhost.your.name", "http://127.0.0.1.your.name", "http://10.0.0.1:4020"] {
        assert_eq!(simulated(here, url, "base-sepolia").unwrap_err().key, "server.public_url", "{url}");
    }
    assert_eq!(simulated("0.0.0.0:4020", "http://127.0.0.1", "base-sepolia").unwrap_err().key, "network.settlement");
    for main in ["base", "eip155:1", "eip155:99999"] {
        let error = simulated(here, "http://127.0.0.1:4020", main).unwrap_err();
        assert!(error.problem.contains("test network"), "{main}: {error}");
    }
}

#[test]
fn every_key_of_prepaid_limits_and_failover_is_explained_in_the_shipped_configuration() {
    let shipped = include_str!("../../config.toml");
    for (section, count) in [("limits", 8), ("prepaid", 8), ("failover", 3)] {
        // The reader of the file knows its keys best: it names them to whoever misspells one.
        let error = Config::parse(&format!("[server]\n[{section}]\nmisspelt = 1\n"), Path::new("."), &|_| None).unwrap_err();
        let keys: Vec<_> = error.problem.split('`').skip(3).step_by(2).collect();
        assert!(keys.len() >= count, "{error}");
        for key in keys {
            let line = shipped.lines().find(|line| line.starts_with(&format!("{key} = ")));
            assert!(line.is_some_and(|line| line.contains('#')), "{section}.{key} is not explained: {line:?}");
        }
    }
}

/// The shipped configuration with other upstreams of its model.
fn shipped_with(upstreams: &str) -> Result<Config, ConfigError> {
    let shipped = include_str!("../../config.toml");
    let text = shipped.replace("[{ name = \"echo\", model = \"echo\" }]", upstreams);
    assert_ne!(text, shipped);
    Config::parse(&text, Path::new("."), &|_| None)
}

#[test]
fn upstreams_may_have_weights_and_none_of_them_is_nothing() {
    let config = shipped_with(r#"[{ name = "echo", model = "a", weight = 3 }, { name = "echo", model = "b" }]"#).unwrap();
    let weights = |config: &Config| {
        let servings = &config.catalogue.models()[0].upstreams;
        servings.iter().map(|serving| serving.weight.map(u32::from)).collect::<Vec<_>>()
    };
    assert_eq!(weights(&config), [Some(3), None]);
    assert_eq!(config.failover, Failover::default());
    for weight in ["0", "-1", "1.5", "\"3\""] {
        let error = shipped_with(&format!(r#"[{{ name = "echo", model = "a", weight = {weight} }}]"#)).unwrap_err();
        assert!(error.key.contains("upstreams"), "{weight}: {error}");
    }
}

#[test]
fn a_cost_is_written_like_a_price_for_all_that_is_counted_and_an_upstream_may_have_its_own() {
    let cost = "max_output = 8192\ncost = { input = \"2\", output = \"10\" }";
    let with = |upstreams: &str, cost: &str| {
        let shipped = include_str!("../../config.toml").replace("[{ name = \"echo\", model = \"echo\" }]", upstreams);
        Config::parse(&shipped.replacen("max_output = 8192", cost, 1), Path::new("."), &|_| None)
    };
    let two = r#"[{ name = "echo", model = "a" }, { name = "echo", model = "b", cost = { call = "0.01" } }]"#;
    let usage = crate::tariff::Usage { input: 1000, output: 100, ..Default::default() };
    let costs = |config: &Config, model: usize| {
        let model = &config.catalogue.models()[model];
        ["a", "b"].map(|name| model.cost_at("echo", name).and_then(|cost| cost.of(&usage)).map(Micros::get))
    };
    let config = with(two, cost).unwrap();
    assert_eq!(costs(&config, 0), [Some(3000), Some(10_000)]);
    assert_eq!(costs(&config, 1), [None, Some(10_000)], "what nobody wrote is unknown");
    let free = "max_output = 8192\ncost = { input = \"0\", output = \"0\" }";
    assert_eq!(costs(&with(two, free).unwrap(), 0), [Some(0), Some(10_000)], "what is said to be nothing is");
    for (written, key) in [
        ("cost = { input = \"2\" }", "model \"echo\", cost"),
        ("cost = { input = \"2\", output = \"ten\" }", "model \"echo\", cost.output"),
        ("cost = { image = \"0.04\" }", "model \"echo\", cost.image"),
    ] {
        assert_eq!(with(two, &format!("max_output = 8192\n{written}")).unwrap_err().key, key);
    }
    let own = r#"[{ name = "echo", model = "a", cost = { output = "1" } }]"#;
    assert_eq!(with(own, cost).unwrap_err().key, "model \"echo\", upstreams, \"echo\", cost");
}

#[test]
fn a_pause_of_upstreams_has_a_length_and_an_end() {
    let parse = |text: &str| Config::parse(&format!("[server]\n[failover]\n{text}\n"), Path::new("."), &|_| None);
    assert_eq!(parse("failures = 0").unwrap().failover.failures, 0);
    assert!(parse("pause_ms = 1\nlongest_pause_ms = 1").is_ok());
    for (text, key) in [
        ("pause_ms = 0", "failover.pause_ms"),
        ("pause_ms = 120001", "failover.longest_pause_ms"),
        ("longest_pause_ms = 3600001", "failover.longest_pause_ms"),
    ] {
        assert_eq!(parse(text).unwrap_err().key, key, "{text}");
    }
}

#[test]
fn where_payments_live_for_a_minute_the_upstream_has_no_longer_head_start_than_that_leaves() {
    let parse = |network: &str, payments: &str| {
        let settlement = "settlement = \"facilitator\"\nfacilitator_url = \"https://your.facilitator\"";
        let text = format!("[server]\n[payments]\n{payments}\n[[network]]\n{network}\n{settlement}\n");
        Config::parse(&text, Path::new("."), &|_| None).map(|_| ()).map_err(|error| error.key)
    };
    let solana = "id = \"solana\"\npay_to = \"2gGZhPPrPq96D8m3nLGnr2CE5rfymjwbihY6cmRhnGFy\"";
    let base = "id = \"base\"\npay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"";
    let too_long = Err("payments.settle_after_ms".to_owned());
    assert_eq!(parse(solana, "settle_after_ms = 8001"), too_long);
    assert_eq!(parse(solana, "settle_after_ms = 8000"), Ok(()));
    assert_eq!(parse(solana, "settle_after_ms = 8001\npayg_order = \"settle-first\""), Ok(()));
    assert_eq!(parse(base, "settle_after_ms = 8001"), Ok(()));
}

/// The example of a catalogue as an operator copies it, with a key for every account.
fn example() -> Config {
    let catalogue = include_str!("../../examples/catalogue.toml");
    let keys = |name: &str| name.ends_with("_API_KEY").then(|| "sk-example".to_owned());
    Config::parse(&format!("[server]\n{catalogue}"), Path::new("."), &keys).unwrap()
}

#[test]
fn the_example_of_a_catalogue_sells_what_it_says_at_a_price() {
    let config = example();
    let sold = |id: &str| config.catalogue.find(id).unwrap_or_else(|| panic!("{id} is not sold"));
    let kinds = [
        (
            Kind::Chat,
            &["claude-opus-4-7", "claude-sonnet-4-6", "claude-haiku-4-5", "gpt-5.5-pro", "llama-3.3-70b", "qwen3:8b"][..],
        ),
        (Kind::Chat, &["gemini-3.1-pro-preview", "grok-4.20-beta"]),
        (Kind::Image, &["nano-banana-pro"]),
        (Kind::Video, &["veo-3.1-generate-preview", "kling-video-v3"]),
        (Kind::Embedding, &["nomic-embed-text"]),
    ];
    let mut count = 0;
    for (kind, id) in kinds.into_iter().flat_map(|(kind, ids)| ids.iter().map(move |id| (kind, *id))) {
        assert_eq!(sold(id).kind, kind, "{id}");
        // Stock clients sign for a dollar at most; a film costs more, and is bought from a balance.
        let quote = sold(id).typical_quote();
        assert!(quote > Micros::new(1) && (quote < Micros::ONE || kind == Kind::Video), "{id} is quoted {quote}");
        count += 1;
    }
    assert_eq!(config.catalogue.models().len(), count, "each of them is named here");
    assert!(config.catalogue.models().iter().all(|model| !model.upstreams.is_empty()));
    let weights: Vec<_> = sold("llama-3.3-70b").upstreams.iter().map(|serving| serving.weight.map(u32::from)).collect();
    assert_eq!(weights, [Some(2), Some(1), None]);
}

#[test]
fn every_upstream_of_the_example_serves_something() {
    let config = example();
    for upstream in &config.upstreams {
        let serves = |model: &crate::catalogue::Model| model.upstreams.iter().any(|serving| serving.upstream == upstream.name);
        assert!(config.catalogue.models().iter().any(serves), "{} stands there for nothing", upstream.name);
    }
}
