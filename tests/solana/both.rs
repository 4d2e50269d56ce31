//! One wallet of each family at one shop: both top up, mint a key, spend and pay per call, and the books agree with both chains.

use farebox_rig::anvil::{self, Anvil, Wallet};
use farebox_rig::buyer::{Client, Order};
use farebox_rig::http::Request;
use farebox_rig::process::eventually;
use farebox_rig::server::{Server, Settings};
use farebox_rig::solana::{self, Solana};
use farebox_rig::upstream::Upstream;
use serde_json::json;

use crate::shop::{ANSWER, CHARGE, CHAT, USAGE, body};

const TOP_UP: u64 = 2_000_000;

/// What a wallet of either family does in the same way.
fn spend(server: &Server, wallet: Wallet) {
    let account = server.account(wallet);
    assert_eq!(account.available(), 2_000_000, "the top-up is there");
    let key = account.mint(&json!({ "name": "laptop" }));
    let answer = server.send(&Request::post(CHAT, body(USAGE, true)).header("authorization", &format!("Bearer {}", key.text)));
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    assert_eq!(account.available(), 2_000_000 - i64::try_from(CHARGE).unwrap());
    let statement = account.statement();
    statement.assert_sums();
    assert_eq!(statement.of("TOP_UP"), [2_000_000]);
    let other = if wallet == anvil::BUYER { solana::BUYER } else { anvil::BUYER };
    let peek = account.get(&format!("/api/v1/x402/balance/{}", other.address));
    assert_eq!(peek.status, 403, "another's account is not shown: {}", peek.text());
}

#[test]
fn one_wallet_of_each_family_tops_up_mints_a_key_spends_and_pays_per_call() {
    let (evm, svm, upstream) = (Anvil::start(84532), Solana::start(), Upstream::start());
    let mut server = Server::on(env!("CARGO_BIN_EXE_farebox"), &[&evm, &svm], &upstream, &Settings::default());
    for (topped_up, wallet) in [
        (server.account(anvil::BUYER).top_up(TOP_UP), anvil::BUYER),
        (server.account(solana::BUYER).top_up_on(&svm, TOP_UP), solana::BUYER),
    ] {
        assert_eq!(topped_up.status, 200, "{}", topped_up.text());
        spend(&server, wallet);
    }
    assert_eq!((evm.usdc_balance(anvil::PAY_TO.address), svm.usdc_balance(solana::PAY_TO)), (TOP_UP, TOP_UP));

    let words = body(USAGE, false);
    let url = server.url();
    let order = |wallet| Order { base_url: &url, route: CHAT, body: &words, wallet, max_value_usd: "0.5" };
    for bought in [Client::FetchV2.buy(&order(anvil::BUYER)), Client::FetchV2.buy_on(&svm, &order(solana::BUYER))] {
        assert_eq!((&bought["status"], &bought["text"]), (&200.into(), &ANSWER.into()), "{bought}");
    }
    assert_eq!((svm.landed().len(), evm.transfers().len(), upstream.calls().len()), (2, 2, 4));

    let books = server.audit();
    assert!(books.clean, "the books are not clean: {:#}", books.json);
    assert_eq!(books.json["chain"]["found"], 4, "two payments are on each chain: {:#}", books.json);
    let earned = [evm.usdc_balance(anvil::PAY_TO.address), svm.usdc_balance(solana::PAY_TO)];
    let left = [anvil::BUYER, solana::BUYER].map(|wallet| books.balance(wallet.address));
    assert_eq!(left, earned.map(|earned| earned - 2 * CHARGE), "what was paid and not charged is each buyer's own");
}

#[test]
fn a_large_top_up_on_solana_is_balance_when_its_block_is_final_and_not_before() {
    const LARGE: u64 = 20_000_000;
    let (svm, upstream) = (Solana::start(), Upstream::start());
    let mut server = Server::on(env!("CARGO_BIN_EXE_farebox"), &[&svm], &upstream, &Settings::default());
    let account = server.account(solana::BUYER);
    let topped_up = std::thread::scope(|scope| {
        let top_up = scope.spawn(|| account.top_up_on(&svm, LARGE));
        eventually("the money is on the chain", || svm.usdc_balance(solana::PAY_TO) == LARGE);
        svm.advance(3);
        assert_eq!(account.available(), 0, "what a fork can still take back is nobody's balance");
        assert!(!top_up.is_finished());
        svm.finalize();
        top_up.join().unwrap()
    });
    assert_eq!(topped_up.status, 200, "{}", topped_up.text());
    assert_eq!(account.available(), i64::try_from(LARGE).unwrap());
    assert_eq!(svm.landed().len(), 1);
    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.balance(solana::BUYER.address), LARGE);
}
