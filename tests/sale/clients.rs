//! The clients people already have buy from us unmodified, on both chains, in every dialect, whole and streamed.

use std::thread;

use farebox_rig::anvil::{BUYER, PAY_TO, SETTLER};
use farebox_rig::buyer::{Client, Order};
use farebox_rig::http::Request;
use farebox_rig::server::Settings;
use serde_json::Value;

use crate::shop::{ANSWER, CHARGE, CHAT, MESSAGES, RESPONSES, Shop, USAGE, body_for};

#[test]
fn x402_fetch_of_version_1_buys_on_both_chains_and_pays_exactly_the_quote() {
    buys_everything(Client::FetchV1);
}

#[test]
fn x402_fetch_of_version_2_buys_on_both_chains_and_pays_exactly_the_quote() {
    buys_everything(Client::FetchV2);
}

#[test]
fn the_python_client_buys_on_both_chains_and_pays_exactly_the_quote() {
    buys_everything(Client::Python);
}

fn buys_everything(client: Client) {
    thread::scope(|scope| {
        for chain_id in [84532, 8453] {
            scope.spawn(move || {
                let shop = Shop::with(chain_id, &Settings::default());
                let calls = [CHAT, MESSAGES, RESPONSES].map(|route| [(route, false), (route, true)]).concat();
                for (number, (route, stream)) in calls.into_iter().enumerate() {
                    buys_once(&shop, client, route, stream);
                    assert_eq!(shop.served(), number + 1, "each purchase is one call upstream");
                }
                assert_eq!(shop.chain.transactions_of(SETTLER.address), 6, "each purchase is one transaction");
                shop.close(6 * CHARGE);
            });
        }
    });
}

/// Buys one call and holds everything that was promised against the chain and the upstream.
fn buys_once(shop: &Shop, client: Client, route: &str, stream: bool) {
    let body = body_for(route, USAGE, stream);
    let quote: u64 = shop.requirements(route, &body)["amount"].as_str().unwrap().parse().unwrap();
    let before = shop.earned();
    let order = Order { base_url: &shop.server.url(), route, body: &body, wallet: BUYER, max_value_usd: "0.5" };
    let bought = client.buy(&order);

    assert_eq!((&bought["status"], &bought["text"]), (&200.into(), &ANSWER.into()), "{client:?} {route} {stream}: {bought}");
    assert!(bought["request_id"].as_str().is_some_and(|id| id.starts_with("req_")), "{bought}");
    assert_eq!(shop.earned() - before, quote, "the operator received exactly the quote");
    assert_receipt(shop, client, &bought, quote);
    assert_metered(shop);

    let header = &bought["payment"];
    let again = Request::post(route, body).header(header["name"].as_str().unwrap(), header["value"].as_str().unwrap());
    let again = shop.server.send_again(&again);
    assert_eq!((again.status, again.code().as_str()), (409, "payment_already_used"), "a settled header buys nothing");
    assert_eq!(again.header("x-balance-remaining"), None, "it is public calldata and opens nobody's account");
    assert_eq!(shop.earned() - before, quote);
}

/// The receipt names the transaction that moved the money, and the chain says so too.
fn assert_receipt(shop: &Shop, client: Client, bought: &Value, quote: u64) {
    let receipt = &bought["receipt"];
    assert_eq!(receipt["success"], true, "{bought}");
    let headers = &bought["receipt_headers"];
    assert_eq!(headers["payment-response"], headers["x-payment-response"], "old and new clients read the same receipt");
    let short = if shop.chain.chain_id == 8453 { "base" } else { "base-sepolia" };
    let network = if client == Client::FetchV1 { short.to_owned() } else { shop.chain.network() };
    assert_eq!(receipt["network"], network, "the network is named as this client names it");
    let payer = receipt["payer"].as_str().unwrap_or_default();
    assert!(payer.eq_ignore_ascii_case(BUYER.address), "{receipt}");

    let hash = receipt["transaction"].as_str().unwrap();
    let on_chain = shop.chain.receipt(hash).expect("the transaction of the receipt is in a block");
    assert_eq!(on_chain["status"], "0x1");
    let transfers: Vec<_> = shop.chain.transfers().into_iter().filter(|transfer| transfer.transaction == hash).collect();
    assert_eq!(transfers.len(), 1);
    assert!(transfers[0].from.eq_ignore_ascii_case(BUYER.address) && transfers[0].to.eq_ignore_ascii_case(PAY_TO.address));
    assert_eq!(transfers[0].value, quote);
}

/// The upstream's own log says what the books will be held against, and what it was not told.
fn assert_metered(shop: &Shop) {
    let calls = shop.upstream.calls();
    let call = calls.last().unwrap();
    assert_eq!((&call["usage"]["input"], &call["usage"]["output"]), (&20.into(), &7.into()));
    let headers = call["headers"].to_string().to_ascii_lowercase();
    for private in ["payment-signature", "x-payment"] {
        assert!(!headers.contains(private), "the upstream is not told how it is paid for: {headers}");
    }
    assert_eq!(call["body"]["model"], farebox_rig::server::UPSTREAM_MODEL, "the alias is ours alone");
}
