//! Refused before anything moves: too little, other wallets and networks, wrong keys, addresses that cannot be paid.

use farebox_rig::anvil::{Anvil, BUYER, OTHER_BUYER, PAY_TO, SETTLER};
use farebox_rig::process::run;
use farebox_rig::server::{Server, Settings};
use farebox_rig::upstream::Upstream;

use crate::shop::{FIVE, Shop, said};

#[test]
fn what_cannot_be_paid_out_is_said_before_anything_is_signed_or_moved() {
    let mut shop = Shop::open();
    let network = shop.chain.network();
    let before = shop.chain.transactions_of(SETTLER.address);
    let pay = |wallet: &str, usd: &str, network: &str, id: &str, reason: &str| {
        let arguments = ["payout", wallet, usd, "--network", network, "--id", id, "--reason", reason];
        let mut command = shop.server.command(&arguments);
        command.env("FAREBOX_TREASURY_KEY", PAY_TO.key);
        said(command)
    };
    let wallet = BUYER.address;
    let mistyped = wallet.replace("bf6E", "BF6e");
    for (to, usd, on, id, reason, words) in [
        (wallet, "5.000001", &*network, "x", "r", "can spend 5.000000"),
        (OTHER_BUYER.address, "0.000001", &network, "x", "r", "can spend 0.000000"),
        (wallet, "0", &network, "x", "r", "an amount"),
        (wallet, "-1", &network, "x", "r", ""),
        (wallet, "1e3", &network, "x", "r", "is not an amount"),
        (wallet, "1", &network, " ", "r", "--id"),
        (wallet, "1", &network, "x", " ", "--reason"),
        (wallet, "1", "base", "x", "r", "no [[network]]"),
        (wallet, "1", "eip155:1", "x", "r", "no [[network]]"),
        (wallet, "1", "nowhere", "x", "r", "no [[network]]"),
        (&*mistyped, "1", &network, "x", "r", "checksum"),
        ("0x12", "1", &network, "x", "r", "an account is"),
        (farebox_rig::solana::BUYER.address, "1", &network, "x", "r", "can spend 0.000000"),
    ] {
        pay(to, usd, on, id, reason).refused(2, words);
    }
    // Money that somebody was given by hand; these are no wallets that can be paid.
    let nobody = "0x0000000000000000000000000000000000000000";
    for (odd, words) in [
        (nobody, "not an address that can receive"),
        (shop.chain.usdc(), "not an address that can receive"),
        (PAY_TO.address, "pay_to itself"),
        (farebox_rig::solana::BUYER.address, "its own family"),
    ] {
        let (code, _, why) = run(shop.server.command(&["adjust", odd, "1", "--reason", "r", "--id", odd]), "");
        assert_eq!(code, 0, "{why}");
        pay(odd, "1", &network, "x", "r").refused(2, words);
        let (code, _, why) = run(shop.server.command(&["adjust", odd, "-1", "--reason", "r", "--id", &format!("{odd}-")]), "");
        assert_eq!(code, 0, "{why}");
    }
    said(shop.command(wallet, "1", "x", OTHER_BUYER)).refused(2, "is paid from pay_to");
    let mut none = shop.command(wallet, "1", "x", PAY_TO);
    none.env_remove("FAREBOX_TREASURY_KEY");
    said(none).refused(2, "FAREBOX_TREASURY_KEY is not set");
    let mut literal = shop.command(wallet, "1", "x", PAY_TO);
    literal.args(["--key", PAY_TO.key]);
    let literal = said(literal);
    literal.refused(2, "named by its place");
    assert!(!literal.words.contains(PAY_TO.key), "a key is never said again");
    shop.server.put("open.key", PAY_TO.key);
    let mut file = shop.command(wallet, "1", "x", OTHER_BUYER);
    file.args(["--key", "file:open.key"]);
    assert_eq!(shop.chain.transactions_of(SETTLER.address), before, "nothing was sent");
    assert_eq!(said(file).told["state"], "paid", "a file that only we can read does");
    shop.server.signal();
    shop.server.wait_exit();
    shop.pay_out("1", "y").refused(1, "no gateway runs");
    shop.server.restart();
    shop.close(FIVE, &[1_000_000]);
}

#[test]
fn a_treasury_that_has_too_little_is_found_out_before_anything_is_signed() {
    let shop = Shop::open();
    shop.chain.wait_receipt(&shop.chain.pay(PAY_TO, OTHER_BUYER, FIVE - 1));
    shop.pay_out("1", "x").refused(1, "too little");
    assert_eq!(shop.balance(), FIVE);
    // It comes back, and the same id is as good as new.
    shop.chain.wait_receipt(&shop.chain.pay(OTHER_BUYER, PAY_TO, FIVE - 1));
    let paid = shop.pay_out("1", "x").paid();
    assert_eq!(shop.pay_out("1", "x").paid(), paid);
    assert_eq!(shop.chain.usdc_balance(PAY_TO.address), FIVE - 1_000_000);
    let mut server = shop.server;
    let books = server.audit();
    assert!(books.clean && books.balance(BUYER.address) == FIVE - 1_000_000, "{:#}", books.json);
}

#[test]
fn a_facilitator_pays_nothing_out() {
    let facilitator_url = Some("http://127.0.0.1:9".to_owned());
    let (chain, upstream) = (Anvil::start(84532), Upstream::start());
    let settings = Settings { facilitator_url, ..Settings::default() };
    let mut server = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream, &settings);
    let (code, _, why) = run(server.command(&["adjust", BUYER.address, "1", "--reason", "r", "--id", "gift"]), "");
    assert_eq!(code, 0, "{why}");
    let network = chain.network();
    let mut command = server.command(&["payout", BUYER.address, "1", "--network", &network, "--id", "x", "--reason", "r"]);
    command.env("FAREBOX_TREASURY_KEY", PAY_TO.key);
    said(command).refused(2, "farebox adjust");
    assert_eq!(chain.transfers(), []);
    let books = server.audit();
    assert!(books.clean && books.balance(BUYER.address) == 1_000_000, "{:#}", books.json);
}
