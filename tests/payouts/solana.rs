//! Payouts on Solana: once for each id, from the treasury's token account to the wallet's, and back in the balance when that is over.

use std::process::Command;

use farebox_rig::process::{eventually, run};
use farebox_rig::server::Server;
use farebox_rig::solana::{BUYER, OTHER_BUYER, PAY_TO, RICHES, SETTLER, Solana};
use farebox_rig::upstream::Upstream;
use serde_json::Value;

use crate::shop::{Asked, FIVE, Said, now, said, signed_by};

const DOLLAR: u64 = 1_000_000;

struct Shop {
    chain: Solana,
    server: Server,
    _upstream: Upstream,
}

impl Shop {
    /// Its buyer has five dollars here.
    fn open() -> Shop {
        let (chain, upstream) = (Solana::start(), Upstream::start());
        let server = Server::start(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream);
        let answer = server.account(BUYER).top_up_on(&chain, FIVE);
        assert_eq!(answer.status, 200, "{}", answer.text());
        chain.finalize();
        let shop = Shop { chain, server, _upstream: upstream };
        shop.wait_payable();
        shop
    }

    /// Until what was paid in is known to be final, which a sudden end may forget.
    fn wait_payable(&self) {
        eventually("it can be paid out", || self.asked("0.5", "early").send(None).is_ok());
    }

    /// Dies at a point, with a balance that can be paid out until then.
    #[cfg(feature = "fault-points")]
    fn restart_armed(&mut self, point: &str) {
        self.server.restart_armed(point);
        self.wait_payable();
    }

    fn command(&self, usd: &str, id: &str) -> Command {
        let network = self.chain.short_name();
        let arguments = ["payout", BUYER.address, usd, "--network", network, "--id", id, "--reason", "asked for"];
        let mut command = self.server.command(&arguments);
        command.env("FAREBOX_TREASURY_KEY", PAY_TO.key);
        command
    }

    fn pay_out(&self, usd: &str, id: &str) -> Said {
        said(self.command(usd, id))
    }

    fn asked<'a>(&'a self, usd: &'a str, id: &'a str) -> Asked<'a> {
        Asked { server: &self.server, network: self.chain.network().to_owned(), account: BUYER.address, usd, id }
    }

    /// What the wallet can spend here, and what it and the treasury have on the chain.
    fn holdings(&self) -> [u64; 3] {
        let (code, printed, words) = run(self.server.command(&["account", BUYER.address]), "");
        assert_eq!(code, 0, "{words}");
        let account: Value = serde_json::from_str(&printed).unwrap();
        let available = (account["available_usd"].as_f64().unwrap() * 1e6).round() as u64;
        [available, self.chain.usdc_balance(BUYER), self.chain.usdc_balance(PAY_TO)]
    }

    /// So much was paid out in all, and everybody has what is left.
    fn assert_paid(&self, sent: u64) {
        assert_eq!(self.holdings(), [FIVE - sent, RICHES - FIVE + sent, FIVE - sent]);
    }

    /// Closes the shop: the books are clean, agree with the chain, and say that so much was paid out.
    fn close(mut self, sent: u64) {
        self.assert_paid(sent);
        let books = self.server.audit();
        assert!(books.clean, "{:#}", books.json);
        assert_eq!(books.balance(BUYER.address), FIVE - sent, "{:#}", books.json);
        assert_eq!(books.json["house"]["outgoing"].as_i64().unwrap_or(0), 0, "{:#}", books.json);
        assert_eq!(books.json["chain"]["unasked"], 0, "{:#}", books.json);
        let log = self.server.output();
        assert!([PAY_TO.key, SETTLER.key].iter().all(|key| !log.contains(key)), "a key was logged");
    }
}

#[test]
fn a_payout_on_solana_is_paid_once_however_often_and_by_however_many_it_is_asked_for() {
    let mut shop = Shop::open();
    let both: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2).map(|_| scope.spawn(|| shop.pay_out("1.25", "ticket"))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap().paid()).collect()
    });
    assert_eq!(both[0], both[1]);
    shop.assert_paid(1_250_000);
    shop.pay_out("1", "ticket").refused(2, "was used for 1.250000");
    shop.pay_out("3.750001", "another").refused(2, "can spend 3.750000");
    shop.server.restart();
    assert_eq!(shop.pay_out("1.25", "ticket").paid(), both[0]);
    shop.pay_out("0.75", "another").paid();
    shop.chain.finalize();
    eventually("it is final", || shop.pay_out("0.75", "another").told["final"] == true);
    shop.close(2 * DOLLAR);
}

#[test]
fn a_wallet_without_a_token_account_keeps_its_balance_and_the_shop_goes_on_selling() {
    let shop = Shop::open();
    shop.chain.close_token_account(BUYER);
    shop.pay_out("1", "ticket").refused(2, "no token account");
    assert_eq!(shop.holdings()[0], FIVE);
    let ready = shop.server.send(&farebox_rig::http::Request::get("/readyz"));
    assert_eq!(ready.status, 200, "{}", ready.text());
    shop.chain.set_balance(BUYER, RICHES - FIVE);
    shop.pay_out("1", "ticket").paid();
    shop.close(DOLLAR);
}

#[test]
fn a_transfer_that_never_lands_gives_the_balance_back_when_it_is_over_and_may_be_asked_for_again() {
    let shop = Shop::open();
    shop.chain.drop_sends(1_000);
    let told = std::thread::scope(|scope| {
        let asking = scope.spawn(|| shop.pay_out("4", "ticket"));
        eventually("it is signed", || shop.server.output().contains("a payout left a balance"));
        assert_eq!(shop.holdings()[0], DOLLAR, "it may still land, so it cannot be spent");
        shop.pay_out("4", "another").refused(2, "can spend 1.000000");
        shop.chain.expire();
        // A node that knows nothing of the time before proves nothing: it may have forgotten the transfer.
        shop.server.has_said("may have forgotten whether");
        assert_eq!(shop.holdings()[0], DOLLAR);
        shop.chain.keeps_since(now() - 3600);
        asking.join().unwrap()
    });
    assert_eq!((told.code, told.told["state"].as_str()), (1, Some("failed")), "{told:?}");
    shop.assert_paid(0);
    shop.chain.drop_sends(0);
    // The blockhash that was offered last is young by the clock only.
    eventually("it is paid", || shop.pay_out("4", "ticket").code == 0);
    shop.close(4 * DOLLAR);
}

#[test]
fn a_treasury_that_is_emptied_meanwhile_or_another_signature_moves_nothing() {
    let shop = Shop::open();
    let asked = shop.asked("1", "ticket");
    let offer = asked.offer();
    for (what, wallet, change, words) in [
        ("another key", OTHER_BUYER, None, "comes from pay_to"),
        ("more", PAY_TO, Some(("amount", "1000001")), "1000000"),
        ("somebody else", PAY_TO, Some(("payTo", OTHER_BUYER.address)), "payTo"),
    ] {
        let mut offer = offer.clone();
        match change {
            Some(("amount", amount)) => offer.amount = amount.to_owned(),
            Some((_, pay_to)) => offer.pay_to = pay_to.to_owned(),
            None => {}
        }
        let refused = asked.send(Some(&signed_by(wallet, &offer, asked.nonce(), now()))).unwrap_err();
        assert!(refused.contains(words), "{what}: {refused}");
        shop.assert_paid(0);
    }
    let good = signed_by(PAY_TO, &offer, asked.nonce(), now());
    let refused = Asked { id: "another", ..asked.clone() }.send(Some(&good)).unwrap_err();
    assert!(refused.contains("memo"), "{refused}");
    shop.chain.set_balance(PAY_TO, DOLLAR - 1);
    let refused = asked.send(Some(&good)).unwrap_err();
    assert!(refused.contains("nothing was moved"), "{refused}");
    assert_eq!(shop.holdings()[0], FIVE);
    shop.chain.set_balance(PAY_TO, FIVE);
    shop.pay_out("1", "ticket").paid();
    shop.close(DOLLAR);
}

#[cfg(feature = "fault-points")]
#[test]
fn a_death_at_any_step_on_solana_pays_once() {
    let mut shop = Shop::open();
    let points = [
        "payout.after",
        "solana.sign.before",
        "solana.sign.after",
        "solana.broadcast.before",
        "solana.broadcast.after",
        "solana.confirm.before",
        "solana.confirm.after",
    ];
    for (number, point) in (1u64..).zip(points) {
        shop.restart_armed(point);
        let said = shop.pay_out("0.5", point);
        assert!(said.code == 1 && said.words.contains("look what came of it"), "{point}: {said:?}");
        shop.server.wait_death(point);
        shop.server.restart();
        let tx = shop.pay_out("0.5", point).paid();
        assert_eq!(shop.pay_out("0.5", point).paid(), tx, "{point}");
        shop.assert_paid(number * DOLLAR / 2);
    }
    shop.close(7 * DOLLAR / 2);
}

#[cfg(feature = "fault-points")]
#[test]
fn a_payout_that_was_signed_after_the_backup_is_found_however_late_the_backup_is_put_back() {
    let (mut shop, place) = (Shop::open(), tempfile::TempDir::new().unwrap());
    let folder = place.path().join("backup");
    shop.chain.keeps_since(now() - 3600);
    shop.restart_armed("payout.after");
    shop.pay_out("1", "claimed").refused(1, "look what came of it");
    shop.server.wait_death("payout.after");
    crate::shop::operate(&shop.server, &["backup", folder.to_str().unwrap()]);
    shop.server.restart();
    let claimed = shop.pay_out("1", "claimed").paid();
    let after = shop.pay_out("0.5", "after").paid();
    shop.chain.finalize();
    shop.server.signal();
    shop.server.wait_exit();
    std::fs::rename(shop.server.data_dir(), place.path().join("lost")).unwrap();

    let restored = crate::shop::operate(&shop.server, &["restore", folder.to_str().unwrap()]);
    let left = restored["sent_and_not_in_the_books"].as_array().unwrap();
    let told: Vec<_> = left.iter().map(|one| (one["tx"].as_str().unwrap(), one["amount_usd"].as_f64().unwrap())).collect();
    assert_eq!(told, [(&*claimed, 1.0), (&*after, 0.5)], "the oldest first: {restored:#}");
    assert!(left.iter().all(|one| one["to"] == BUYER.address), "{restored:#}");
    let perhaps: Vec<_> = left.iter().map(|one| one["perhaps"].is_array()).collect();
    assert_eq!(perhaps, [true, false], "one of them was on its way then: {restored:#}");
    assert_eq!(restored["not_asked"], serde_json::json!([]));
    shop.chain.expire();
    shop.server.restart();
    eventually("it is found where it is", || shop.asked("1", "claimed").send(None).is_ok_and(|told| told["state"] == "paid"));
    assert_eq!(shop.asked("1", "claimed").send(None).unwrap()["tx"], *claimed);
    crate::shop::operate(&shop.server, &["adjust", BUYER.address, "-0.5", "--reason", &after, "--id", "after"]);
    shop.close(3 * DOLLAR / 2);
}

#[test]
fn a_payout_that_failed_and_was_paid_after_the_backup_is_a_problem_until_it_is_taken_by_hand() {
    let (mut shop, place) = (Shop::open(), tempfile::TempDir::new().unwrap());
    let folder = place.path().join("backup");
    shop.chain.keeps_since(now() - 3600);
    shop.chain.drop_sends(1_000);
    let failed = std::thread::scope(|scope| {
        let asking = scope.spawn(|| shop.pay_out("4", "ticket"));
        eventually("it is signed", || shop.server.output().contains("a payout left a balance"));
        shop.chain.expire();
        asking.join().unwrap()
    });
    assert_eq!(failed.told["state"], "failed", "{failed:?}");
    crate::shop::operate(&shop.server, &["backup", folder.to_str().unwrap()]);
    shop.chain.drop_sends(0);
    eventually("it is paid, by another message", || shop.pay_out("4", "ticket").code == 0);
    let paid = shop.pay_out("4", "ticket").paid();
    shop.chain.finalize();
    shop.server.signal();
    shop.server.wait_exit();
    let verify = || said(shop.server.command(&["verify", "--chain"]));
    assert_eq!(verify().code, 0, "one transfer explains that it failed first and was paid then: {:?}", verify());
    std::fs::rename(shop.server.data_dir(), place.path().join("lost")).unwrap();
    crate::shop::operate(&shop.server, &["restore", folder.to_str().unwrap()]);
    let before = verify();
    let problem = before.told["problems"][0].as_str().unwrap_or_default();
    assert!(before.code == 1 && problem.contains(&paid) && problem.contains("-4.000000 --id \"ticket\" --reason"), "{before:?}");
    crate::shop::operate(&shop.server, &["adjust", BUYER.address, "-4", "--id", "ticket", "--reason", &paid]);
    let after = verify();
    assert_eq!((after.code, &after.told["problems"]), (0, &serde_json::json!([])), "{after:?}");
    shop.close(4 * DOLLAR);
}
