//! The real x402 clients buy with a Solana wallet, unmodified, plain and streamed, on both public networks.

use std::thread;
use std::time::Duration;

use farebox_rig::buyer::{Client, Order};
use farebox_rig::http::Request;
use farebox_rig::server::Settings;
use farebox_rig::solana::{BUYER, Cluster, RICHES, SETTLER, Solana};
use serde_json::Value;

use crate::shop::{ANSWER, CHARGE, CHAT, MESSAGES, Shop, USAGE, body};

/// A slot of the real chain: a client that starts on a busy machine has as long to sign as it has there.
const AS_IT_IS: Duration = Duration::from_millis(400);

#[test]
fn x402_fetch_of_version_1_buys_on_both_networks_and_pays_exactly_the_quote() {
    buys_everything(Client::FetchV1);
}

#[test]
fn x402_fetch_of_version_2_buys_on_both_networks_and_pays_exactly_the_quote() {
    buys_everything(Client::FetchV2);
}

#[test]
fn the_python_client_buys_on_both_networks_and_pays_exactly_the_quote() {
    buys_everything(Client::Python);
}

fn buys_everything(client: Client) {
    thread::scope(|scope| {
        for cluster in [Cluster::Devnet, Cluster::Mainnet] {
            scope.spawn(move || {
                let shop = Shop::on(Solana::start_as(cluster, AS_IT_IS), &Settings::default());
                let calls = [(CHAT, false), (CHAT, true), (MESSAGES, false), (MESSAGES, true)];
                for (number, (route, stream)) in calls.into_iter().enumerate() {
                    buys_once(&shop, client, route, stream);
                    assert_eq!(shop.served(), number + 1, "each purchase is one call upstream");
                }
                assert_eq!(shop.chain.landed().len(), 4, "each purchase is one transaction");
                let fees: u64 = shop.chain.landed().iter().map(|landed| landed.fee).sum();
                assert_eq!(shop.chain.lamports(SETTLER), 1_000_000_000 - fees, "we pay the fees, and nothing else");
                assert_eq!(shop.chain.lamports(BUYER), 0, "the buyer never had any SOL");
                shop.close(4 * CHARGE);
            });
        }
    });
}

/// Buys one call and holds everything that was promised against the chain and the upstream.
fn buys_once(shop: &Shop, client: Client, route: &str, stream: bool) {
    let body = body(USAGE, stream);
    let quote: u64 = shop.requirements(route, &body)["amount"].as_str().unwrap().parse().unwrap();
    let before = shop.earned();
    let order = Order { base_url: &shop.server.url(), route, body: &body, wallet: BUYER, max_value_usd: "0.5" };
    let bought = client.buy_on(&shop.chain, &order);

    assert_eq!((&bought["status"], &bought["text"]), (&200.into(), &ANSWER.into()), "{client:?} {route} {stream}: {bought}");
    assert_eq!(shop.earned() - before, quote, "the operator received exactly the quote");
    assert_eq!(shop.chain.usdc_balance(BUYER), RICHES - shop.earned(), "and the buyer paid no more");
    assert_receipt(shop, client, &bought, quote);

    let header = &bought["payment"];
    let again = Request::post(route, body).header(header["name"].as_str().unwrap(), header["value"].as_str().unwrap());
    let again = shop.server.send_again(&again);
    assert_eq!((again.status, again.code().as_str()), (409, "payment_already_used"), "a settled header buys nothing");
    assert_eq!(again.header("x-balance-remaining"), None, "it is public and opens nobody's account");
    assert_eq!(shop.earned() - before, quote);
}

/// The receipt names the transaction that moved the money, and the chain says so too.
fn assert_receipt(shop: &Shop, client: Client, bought: &Value, quote: u64) {
    let receipt = &bought["receipt"];
    assert_eq!(receipt["success"], true, "{bought}");
    let headers = &bought["receipt_headers"];
    assert_eq!(headers["payment-response"], headers["x-payment-response"], "old and new clients read the same receipt");
    let network = if client == Client::FetchV1 { shop.chain.short_name() } else { shop.chain.network() };
    assert_eq!(receipt["network"], network, "the network is named as this client names it");
    assert_eq!(receipt["payer"], BUYER.address);
    let landed = shop.chain.wait_landed(receipt["transaction"].as_str().unwrap());
    assert_eq!((landed.succeeded, landed.received), (true, quote));
}
