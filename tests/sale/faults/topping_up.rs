//! Death while a wallet tops up: after the next start every payment is its payer's balance once, or was not taken.

use std::thread;
use std::time::Duration;

use farebox::chain::evm::buyer;
use farebox::chain::evm::key::PrivateKey;
use farebox::clock::Timestamp;
use farebox::x402::Requirements;
use farebox_rig::anvil::{Anvil, MINTER, PAY_TO, SETTLER, word};
use farebox_rig::http::{self, Answer, Request};
use farebox_rig::process::eventually;
use farebox_rig::server::{Server, Settings};
use farebox_rig::upstream::Upstream;

use super::{TIMES, for_each};
use crate::shop::now;

const TOP_UP: &str = "/api/v1/x402/top-up";

/// Points that nothing else comes by.
const OWN: [&str; 3] = ["deposit.before", "deposit.after", "deposit.back"];
/// Points that calls come by, too, and how often one top-up does.
const SHARED: [(&str, usize); 9] = [
    ("sign.before", 1),
    ("sign.after", 1),
    ("broadcast.before", 1),
    ("broadcast.after", 1),
    ("broadcast.noted", 1),
    ("confirm.before", 1),
    ("confirm.after", 1),
    ("commit.before", 3),
    ("commit.after", 3),
];
/// Points of a start that finds a top-up which is not over: where it died before, and where it dies now.
const AT_THE_NEXT_START: [(&str, &str); 8] = [
    ("deposit.after", "recover.before"),
    ("deposit.after", "recover.after"),
    ("sign.after", "resume.before"),
    ("sign.after", "resume.after"),
    ("broadcast.after", "resume.before"),
    ("broadcast.after", "resume.after"),
    ("confirm.before", "resume.before"),
    ("confirm.after", "resume.before"),
];

pub fn points() -> Vec<&'static str> {
    OWN.to_vec()
}

/// A shop whose only customers top up, each with a wallet of its own.
struct Till {
    chain: Anvil,
    upstream: Upstream,
    server: Server,
    /// Said by every assertion: what died, and where.
    what: String,
    orders: Vec<Order>,
}

/// A signed top-up of all that its wallet has.
struct Order {
    key: PrivateKey,
    wallet: String,
    amount: u64,
    request: Request,
    /// Whether its buyer sent it until it was told that it is credited.
    certain: bool,
}

#[test]
fn a_death_while_topping_up_credits_every_payment_once_or_takes_it_not() {
    let points: Vec<_> = OWN.map(|point| (point, 1)).into_iter().chain(SHARED).collect();
    for_each(&points, |(point, per_top_up)| {
        let mut till = Till::open();
        for nth in 1..=TIMES {
            let at_once = nth + 1 >= TIMES && *per_top_up == 1;
            till.what = format!("{point}:{nth}, {}", if at_once { "at once" } else { "in turn" });
            till.server.restart_armed(&format!("{point}:{nth}"));
            let from = till.orders.len();
            (0..nth.div_ceil(*per_top_up)).for_each(|_| till.order());
            let seen = till.send(from, at_once);
            till.server.wait_death(point);
            till.server.restart();
            till.conclude(from, &seen, nth);
        }
    });
}

#[test]
fn a_death_at_the_start_after_one_credits_the_payment_once() {
    for_each(&AT_THE_NEXT_START, |(first, then)| {
        let mut till = Till::open();
        for nth in 1..=2 {
            till.what = format!("{first}, then {then}, {nth}");
            till.server.restart_armed(first);
            let from = till.orders.len();
            till.order();
            let seen = till.send(from, false);
            till.server.wait_death(first);
            till.server.restart_into_death(then);
            till.server.restart();
            till.conclude(from, &seen, nth);
        }
    });
}

impl Till {
    fn open() -> Till {
        let (chain, upstream) = (Anvil::start(84532), Upstream::start());
        let server = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream, &Settings::default());
        Till { chain, upstream, server, what: String::new(), orders: Vec::new() }
    }

    /// Mints money for a new wallet and signs all of it away.
    fn order(&mut self) {
        let number = u64::try_from(self.orders.len()).unwrap() + 1;
        let key = PrivateKey::parse(&format!("{:064x}", 0x70b0_0000 + number)).unwrap();
        let (wallet, amount) = (key.address().to_string(), 1_000_000 + 137 * number);
        let answer = self.server.send(&Request::post(TOP_UP, ""));
        assert_eq!(answer.status, 402, "{}: {}", self.what, answer.text());
        let offer = answer.decoded("payment-required").unwrap()["accepts"][0].take();
        let offer = Requirements { amount: amount.to_string(), ..serde_json::from_value(offer).unwrap() };
        let minted = format!("0x40c10f19{}{}", word(&wallet), word(&format!("{amount:x}")));
        self.chain.wait_receipt(&self.chain.act_as(MINTER.address, self.chain.usdc(), &minted));
        let mut nonce = [9; 32];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        let payment = buyer::pay(&offer, None, &key, nonce, Timestamp::from_secs(now())).unwrap();
        let request = Request::post(TOP_UP, "").header("payment-signature", &payment);
        self.orders.push(Order { key, wallet, amount, request, certain: true });
    }

    /// Sends the orders from number `from` on; the status that each buyer saw, if any.
    fn send(&self, from: usize, at_once: bool) -> Vec<Option<u16>> {
        let address = self.server.address();
        let see = |order: &Order| http::send(address, &order.request).ok().map(|answer| answer.status);
        if !at_once {
            return self.orders[from..].iter().map(see).collect();
        }
        thread::scope(|scope| {
            let calls: Vec<_> = self.orders[from..].iter().map(|order| scope.spawn(move || see(order))).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        })
    }

    /// After the start: buyers send their payments again, some never do; one more tops up as if nothing had happened; then
    /// the books, the chain and every buyer are held against each other.
    fn conclude(&mut self, from: usize, seen: &[Option<u16>], nth: usize) {
        for (place, seen) in seen.iter().enumerate() {
            assert!(seen.is_none_or(|status| status == 200), "{}: {seen:?}", self.what);
            // A buyer who saw nothing may have given up.
            let gave_up = seen.is_none() && (nth + place) % 2 == 1;
            self.orders[from + place].certain = !gave_up;
            if !gave_up {
                self.insist(from + place);
            }
        }
        self.order();
        self.insist(self.orders.len() - 1);
        for order in &self.orders {
            eventually(&format!("{}: {} has what it paid", self.what, order.wallet), || self.balance(order) == self.paid(order));
        }
        self.audit();
    }

    /// Sends a payment until its buyer is told that it is credited.
    fn insist(&self, number: usize) {
        let order = &self.orders[number];
        eventually(&format!("{}: {} is credited", self.what, order.wallet), || {
            let answer = self.server.send(&order.request);
            self.check(order, &answer);
            answer.status == 200
        });
    }

    fn check(&self, order: &Order, answer: &Answer) {
        match (answer.status, answer.code().as_str()) {
            (200, _) => assert!(answer.text().contains(&order.wallet.to_lowercase()), "{}: {}", self.what, answer.text()),
            (409, "payment_in_progress") | (504, "settlement_pending") => {}
            _ => panic!("{}: {} {}\n{}", self.what, answer.status, answer.text(), self.server.output()),
        }
    }

    /// What a wallet can spend here.
    fn balance(&self, order: &Order) -> u64 {
        let (issued, url) = (Timestamp::from_secs(now()), self.server.url());
        let expires = issued.plus(Duration::from_secs(200));
        let header = buyer::sign_in(&order.key, self.server.address(), &url, 8453, "abcdefgh1", issued, expires);
        let path = format!("/api/v1/x402/balance/{}", order.wallet);
        let answer = self.server.send(&Request::get(&path).header("x-sign-in-with-x", &header));
        assert_eq!(answer.status, 200, "{}: {}", self.what, answer.text());
        answer.header("x-balance-remaining").unwrap().replace('.', "").parse().unwrap()
    }

    /// What its chain says that it paid.
    fn paid(&self, order: &Order) -> u64 {
        order.amount - self.chain.usdc_balance(&order.wallet)
    }

    fn audit(&mut self) {
        let books = self.server.audit();
        let what = &self.what;
        assert!(books.clean, "{what}: {:#}\n{}", books.json, self.server.output());
        let mut paid: Vec<_> =
            self.chain.transfers().into_iter().filter(|to| to.to.eq_ignore_ascii_case(PAY_TO.address)).collect();
        assert_eq!(self.chain.transactions_of(SETTLER.address), paid.len() as u64, "{what}: no transaction of ours was in vain");
        for order in &self.orders {
            let before = paid.len();
            paid.retain(|transfer| !(transfer.from.eq_ignore_ascii_case(&order.wallet) && transfer.value == order.amount));
            let times = before - paid.len();
            assert!(times == 1 || (times == 0 && !order.certain), "{what}: {} was paid {times} times", order.wallet);
            let credited = if times == 1 { order.amount } else { 0 };
            assert_eq!(books.balance(&order.wallet), credited, "{what}: {} has what it paid: {:#}", order.wallet, books.json);
        }
        assert_eq!(paid, [], "{what}: nobody paid for anything else");
        assert_eq!(self.upstream.calls().len(), 0, "{what}: a top-up asks no upstream");
    }
}
