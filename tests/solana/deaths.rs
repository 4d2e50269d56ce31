//! Death at every step of a Solana settlement, five times each: every payment moves its money once, and buys or is balance once.

use std::thread;
use std::time::Duration;

use farebox::chain::solana::address::SettlerKey;
use farebox::chain::solana::buyer;
use farebox::x402::Requirements;
use farebox_rig::http;
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::solana::{BUYER, Cluster, PAY_TO, SETTLER, Solana};

use crate::shop::{CHARGE, CHAT, Payment, Shop, USAGE, body, paid};

/// So many times every point is tried, each time in another moment.
const TIMES: usize = 5;

const SETTLING: [&str; 6] = [
    "solana.sign.before",
    "solana.sign.after",
    "solana.broadcast.before",
    "solana.broadcast.after",
    "solana.confirm.before",
    "solana.confirm.after",
];
const LOST: [&str; 2] = ["solana.resend.before", "solana.resend.after"];
const TAKEN_BACK: [&str; 2] = ["solana.reorg.before", "solana.reorg.after"];
const FINAL: [&str; 2] = ["solana.final.before", "solana.final.after"];

/// Long enough for a blockhash to outlive a restart on a busy machine.
const SLOT: Duration = Duration::from_millis(300);

/// A shop that is killed again and again.
struct Stand {
    shop: Shop,
    payments: Vec<Payment>,
    /// Answers that were given whole.
    whole: usize,
    random: u8,
}

impl Stand {
    fn open(slot: Duration) -> Stand {
        let chain = Solana::start_as(Cluster::Devnet, slot);
        Stand { shop: Shop::on(chain, &Settings::default()), payments: Vec::new(), whole: 0, random: 0 }
    }

    fn order(&mut self) -> Payment {
        let offer = self.shop.requirements(CHAT, &body(USAGE, false));
        let offer: Requirements = serde_json::from_value(offer).unwrap();
        self.random += 1;
        let header = buyer::pay(&offer, None, &SettlerKey::parse(BUYER.key).unwrap(), [self.random; 32]).unwrap();
        let payment = Payment { signed: serde_json::json!({ "v2": header }), amount: offer.amount.parse().unwrap() };
        self.payments.push(payment.clone());
        payment
    }

    /// Buys one after the other, until the program dies.
    fn buy(&mut self, payments: &[Payment]) {
        for payment in payments {
            let answer = http::send(self.shop.server.address(), &paid(CHAT, &body(USAGE, false), payment));
            self.whole += usize::from(answer.is_ok_and(|answer| answer.status == 200 && answer.complete));
        }
    }

    /// Presents every payment of a round until it is known what came of it.
    fn recover(&mut self, what: &str, payments: &[Payment]) {
        for payment in payments {
            eventually(&format!("{what}: a payment is decided"), || {
                let answer = self.shop.buy(CHAT, &body(USAGE, false), payment);
                self.whole += usize::from(answer.status == 200);
                let outcome = answer.json()["error"]["outcome"].as_str().unwrap_or_default().to_owned();
                answer.status == 200 || ["served", "credited"].contains(&outcome.as_str())
            });
        }
        let expected = self.payments.len();
        eventually(&format!("{what}: what was taken back is there again"), || self.shop.chain.landed().len() == expected);
        self.assert_paid_once(what);
    }

    fn assert_paid_once(&self, what: &str) {
        let landed = self.shop.chain.landed();
        let amount: u64 = self.payments.iter().map(|payment| payment.amount).sum();
        assert_eq!(landed.len(), self.payments.len(), "{what}: each payment is one transaction");
        assert!(landed.iter().all(|landed| landed.succeeded), "{what}: and none was in vain");
        assert_eq!(self.shop.earned(), amount, "{what}: each payment came in once");
        let fees: u64 = landed.iter().map(|landed| landed.fee).sum();
        assert_eq!(self.shop.chain.lamports(SETTLER), 1_000_000_000 - fees, "{what}: one fee each");
    }

    /// Stops in good order: what came in was either handed over for its price, or is the buyer's.
    fn close(mut self) {
        // What landed last is confirmed with the next slot.
        self.shop.chain.advance(2);
        let books = self.shop.server.audit();
        assert!(books.clean, "{:#}\n{}", books.json, self.shop.server.output());
        assert_eq!(books.json["open_holds"], 0, "no reservation is left open");
        let charged = self.shop.chain.usdc_balance(PAY_TO) - books.balance(BUYER.address);
        assert!(charged <= self.payments.len() as u64 * CHARGE, "nobody paid for more than was asked");
        assert!(charged <= self.shop.served() as u64 * CHARGE && self.whole <= self.shop.served());
    }
}

/// Each point in a shop of its own, several at a time: most of it is waiting.
fn at_each(points: &[&'static str], slot: Duration, round: impl Fn(&mut Stand, usize) -> Vec<Payment> + Sync) {
    thread::scope(|scope| {
        for point in points {
            let round = &round;
            scope.spawn(move || {
                let mut stand = Stand::open(slot);
                for nth in 1..=TIMES {
                    let what = format!("{point}:{nth}");
                    stand.shop.server.restart_armed(&what);
                    let payments = round(&mut stand, nth);
                    stand.shop.server.wait_death(point);
                    stand.shop.server.restart();
                    stand.recover(&what, &payments);
                }
                stand.close();
            });
        }
    });
}

fn orders(stand: &mut Stand, count: usize) -> Vec<Payment> {
    (0..count).map(|_| stand.order()).collect()
}

#[test]
fn a_death_while_a_payment_is_settled_pays_once() {
    at_each(&SETTLING, SLOT, |stand, nth| {
        let payments = orders(stand, nth);
        stand.buy(&payments);
        payments
    });
}

#[test]
fn a_death_while_a_lost_transaction_is_sent_again_pays_once() {
    at_each(&LOST, SLOT, |stand, nth| {
        let payments = orders(stand, 1);
        // The last of them is taken by the node, and then it is the program that dies.
        stand.shop.chain.drop_sends(nth as u64);
        stand.buy(&payments);
        stand.shop.chain.drop_sends(0);
        payments
    });
}

#[test]
fn a_death_while_a_vanished_transfer_is_noticed_pays_once() {
    // None of them is final before the last one has landed, which would end the looks at it.
    at_each(&TAKEN_BACK, SLOT * 2, |stand, nth| {
        let payments = orders(stand, nth);
        stand.buy(&payments);
        let landed = stand.shop.chain.landed();
        stand.shop.chain.pause(true);
        landed[landed.len() - nth..].iter().rev().for_each(|landed| stand.shop.chain.undo(&landed.signature));
        eventually("it dies when it notices", || !stand.shop.server.is_running());
        stand.shop.chain.pause(false);
        payments
    });
}

#[test]
fn a_death_while_a_transfer_becomes_final_changes_nothing() {
    at_each(&FINAL, SLOT, |stand, nth| {
        let payments = orders(stand, nth);
        stand.buy(&payments);
        stand.shop.chain.finalize();
        payments
    });
}
