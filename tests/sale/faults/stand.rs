//! A shop that is killed again and again: every sale has a wallet of its own, so that the books tell who was served and who was credited.

use std::thread;

use farebox::chain::evm::buyer;
use farebox::chain::evm::key::PrivateKey;
use farebox::clock::Timestamp;
use farebox::x402::Requirements;
use farebox_rig::anvil::{Anvil, MINTER, PAY_TO, SETTLER, word};
use farebox_rig::http::{self, Answer, Request};
use farebox_rig::process::eventually;
use farebox_rig::server::{Books, INPUT_PRICE, OUTPUT_PRICE, Server, Settings};
use farebox_rig::upstream::Upstream;

use crate::shop::{CHAT, MESSAGES, body, now};

/// What a whole answer to any of these sales costs at the first price: 60 tokens in and 150 out, more than is ever estimated of a part.
pub const USED: (u64, u64) = (60, 150);
/// The order in which every shop here begins; [`Stand::order_of_settling`] changes it.
const OVERLAP: &str = "payg_order = \"overlap\"";
const SETTLE_FIRST: &str = "payg_order = \"settle-first\"";

pub struct Stand {
    pub chain: Anvil,
    pub upstream: Upstream,
    pub server: Server,
    /// Said by every assertion: what died, and where.
    pub what: String,
    /// USD per million tokens of output, which is micros per token.
    output_price: u64,
    /// Whether transactions are sent by us, so that their number is known.
    counts_transactions: bool,
    /// Whether the last sales were made one after the other.
    in_turn: bool,
    /// All sales of earlier rounds, with what they must have come to.
    ended: Vec<Ended>,
    wallets: u32,
}

/// How a sale is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    pub stream: bool,
    pub route: Route,
    /// More directives for the upstream, such as `gap=30`.
    pub upstream: &'static str,
    /// The buyer leaves after the first piece of the answer.
    pub hangs_up: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub enum Route {
    #[default]
    Chat,
    Messages,
}

/// A payment that was signed for one call.
#[derive(Clone, Debug)]
pub struct Sale {
    wallet: String,
    /// Found in the prompt of this sale and of no other.
    tag: String,
    request: Request,
    amount: u64,
    /// Micros for a whole answer.
    whole: u64,
    stream: bool,
    hangs_up: bool,
}

/// What the buyer saw before the program died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not a word of an answer.
    Nothing,
    /// An answer that was not finished.
    Part,
    Whole,
    /// Another status than 200.
    Refused(u16),
}

/// What came of a payment in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its first copy had bought nothing, so it bought a call after the restart.
    Bought,
    /// The books say that its call was served.
    Served,
    /// The books say that it is balance of its payer.
    Credited,
}

struct Ended {
    sale: Sale,
    seen: Seen,
    fate: Fate,
    /// The program did not die during or soon after this sale, so nothing about it may be lost.
    certain: bool,
}

impl Stand {
    pub fn open(settings: &Settings) -> Stand {
        Stand::on(Anvil::start(84532), settings)
    }

    pub fn on(chain: Anvil, settings: &Settings) -> Stand {
        let mut settings = settings.clone();
        settings.payments.push(OVERLAP.into());
        let upstream = Upstream::start();
        let server = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream, &settings);
        let counts_transactions = settings.facilitator_url.is_none();
        let (what, ended, output_price) = (String::new(), Vec::new(), OUTPUT_PRICE);
        Stand { chain, upstream, server, what, output_price, counts_transactions, in_turn: true, ended, wallets: 0 }
    }

    /// From the next start on the money is waited for before the upstream is opened, or not.
    pub fn order_of_settling(&self, settle_first: bool) {
        let (from, to) = if settle_first { (OVERLAP, SETTLE_FIRST) } else { (SETTLE_FIRST, OVERLAP) };
        self.server.reconfigure(|text| text.replace(from, to));
    }

    /// From the next start on output costs more.
    pub fn raise_price(&mut self) {
        let price = |usd: u64| format!("output = \"{usd}\"");
        let (from, to) = (self.output_price, self.output_price + 1);
        self.server.reconfigure(|text| {
            assert!(text.contains(&price(from)), "{text}");
            text.replace(&price(from), &price(to))
        });
        self.output_price = to;
    }

    /// Asks for the price of a call, mints the money for it and signs the payment.
    pub fn order(&mut self, terms: Terms) -> Sale {
        self.wallets += 1;
        let tag = format!("sale-{}.", self.wallets);
        let key = PrivateKey::parse(&format!("{:064x}", 0x5a1e_0000 + self.wallets)).unwrap();
        let wallet = key.address().to_string();
        let route = match terms.route {
            Route::Chat => CHAT,
            Route::Messages => MESSAGES,
        };
        let words = if terms.upstream.contains("words=") { "" } else { "text=hello+wallet" };
        let directive = format!("{tag} <<fake in={} out={} {words} {}>>", USED.0, USED.1, terms.upstream);
        let body = body(&directive, terms.stream);
        let answer = self.server.send(&Request::post(route, body.as_str()));
        assert_eq!(answer.status, 402, "{}: an unpaid request gets an offer: {}", self.what, answer.text());
        let offer = answer.decoded("payment-required").unwrap()["accepts"][0].take();
        let offer: Requirements = serde_json::from_value(offer).unwrap();
        let amount = offer.amount.parse().unwrap();
        let minted = format!("0x40c10f19{}{}", word(&wallet), word(&format!("{amount:x}")));
        self.chain.wait_receipt(&self.chain.act_as(MINTER.address, self.chain.usdc(), &minted));
        let mut nonce = [7; 32];
        nonce[..4].copy_from_slice(&self.wallets.to_be_bytes());
        let payment = buyer::pay(&offer, None, &key, nonce, Timestamp::from_secs(now())).unwrap();
        let request = Request::post(route, body).header("payment-signature", &payment);
        let whole = USED.0 * INPUT_PRICE + USED.1 * self.output_price;
        Sale { wallet, tag, request, amount, whole, stream: terms.stream, hangs_up: terms.hangs_up }
    }

    /// Buys one after the other.
    pub fn buy_in_turn(&mut self, sales: Vec<Sale>) -> Vec<(Sale, Seen)> {
        self.in_turn = true;
        sales.into_iter().map(|sale| (sale.clone(), see(self.server.address(), &sale))).collect()
    }

    /// Buys all in the same moment; `meanwhile` is done while they wait for their answers.
    pub fn buy_at_once(&mut self, sales: Vec<Sale>, meanwhile: impl FnOnce(&mut Stand)) -> Vec<(Sale, Seen)> {
        self.in_turn = false;
        let address = self.server.address().to_owned();
        let seen: Vec<_> = thread::scope(|scope| {
            let calls: Vec<_> = sales.iter().map(|sale| scope.spawn(|| see(&address, sale))).collect();
            meanwhile(self);
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        sales.into_iter().zip(seen).collect()
    }

    /// How often all its processes have logged `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.server.output().matches(text).count()
    }

    /// After a death: starts again and concludes.
    pub fn recover(&mut self, sales: Vec<(Sale, Seen)>) {
        self.server.restart();
        self.conclude(sales);
    }

    /// Presents every payment until it is known what came of it, and makes a new sale.
    pub fn conclude(&mut self, sales: Vec<(Sale, Seen)>) {
        let last = sales.len();
        for (place, (sale, seen)) in sales.into_iter().enumerate() {
            let fate = self.insist(&sale);
            // The next sale but one was claimed durably after this one had ended in the books.
            let certain = self.in_turn && place + 2 < last && seen == Seen::Whole;
            self.ended.push(Ended { sale, seen, fate, certain });
        }
        let fresh = self.order(Terms { stream: true, ..Terms::default() });
        let seen = see(self.server.address(), &fresh);
        assert_eq!(seen, Seen::Whole, "{}: a new sale is as if nothing had happened:\n{}", self.what, self.server.output());
        self.ended.push(Ended { sale: fresh, seen, fate: Fate::Served, certain: true });
    }

    /// Presents a payment once more: the status, and what is said to have become of it.
    pub fn present(&self, sale: &Sale) -> (u16, String) {
        let answer = self.server.send(&sale.request);
        (answer.status, answer.json()["error"]["outcome"].as_str().unwrap_or_default().to_owned())
    }

    /// Presents a payment again until it is decided.
    fn insist(&self, sale: &Sale) -> Fate {
        let mut fate = None;
        eventually(&format!("{}: the payment of {} is decided", self.what, sale.tag), || {
            let answer = self.server.send(&sale.request);
            fate = self.decided(&answer);
            fate.is_some()
        });
        fate.unwrap()
    }

    fn decided(&self, answer: &Answer) -> Option<Fate> {
        if answer.status == 200 {
            assert!(answer.complete, "{}: a whole answer: {}", self.what, answer.text());
            return Some(Fate::Bought);
        }
        let outcome = answer.json()["error"]["outcome"].as_str().unwrap_or_default().to_owned();
        match (answer.code().as_str(), outcome.as_str()) {
            ("payment_already_used", "served") => Some(Fate::Served),
            ("payment_already_used", "credited") => Some(Fate::Credited),
            ("payment_already_used", "pending") | ("payment_in_progress", _) => None,
            _ => panic!("{}: {} {}\n{}", self.what, answer.status, answer.text(), self.server.output()),
        }
    }

    /// Stops in good order and holds the books, the chain and every buyer against each other.
    pub fn audit(&mut self) {
        let what = self.what.clone();
        // `--chain` checks the books first and then looks every payment up.
        let books = self.server.audit();
        assert!(books.clean, "{what}: {:#}\n{}", books.json, self.server.output());
        assert_eq!(books.json["open_holds"], 0, "{what}: no reservation is left open");
        let earned = self.chain.usdc_balance(PAY_TO.address);
        assert_eq!(earned, came_in(&books), "{what}: the chain and the books agree on what came in: {:#}", books.json);
        let mut paid: Vec<_> = self.chain.transfers().into_iter().filter(|to| is(&to.to, PAY_TO.address)).collect();
        if self.counts_transactions {
            let sent = self.chain.transactions_of(SETTLER.address);
            assert_eq!(sent, paid.len() as u64, "{what}: no transaction of ours was in vain");
        }
        let calls = self.upstream.calls();
        for ended in &self.ended {
            let sale = &ended.sale;
            let before = paid.len();
            paid.retain(|transfer| !(is(&transfer.from, &sale.wallet) && transfer.value == sale.amount));
            assert_eq!(before - paid.len(), 1, "{what}: {} was paid exactly once", sale.tag);
            let asked = calls.iter().filter(|call| call["body"].to_string().contains(&sale.tag)).count();
            let most = if ended.fate == Fate::Bought && ended.seen != Seen::Whole { 2 } else { 1 };
            assert!(asked <= most, "{what}: the upstream was called {asked} times for {}", sale.tag);
            ended.check(&what, sale.amount - books.balance(&sale.wallet), asked);
        }
        assert_eq!(paid, [], "{what}: nobody paid for anything else");
    }
}

impl Ended {
    /// Served once or credited once, never both, never neither.
    fn check(&self, what: &str, charge: u64, asked: usize) {
        let Ended { sale, seen, fate, certain } = self;
        let what = format!("{what}: {} ({seen:?} before, {fate:?} after, charged {charge} of {})", sale.tag, sale.whole);
        match (fate, seen) {
            (Fate::Bought, Seen::Whole | Seen::Part) => panic!("{what}: served before and after"),
            (Fate::Bought, _) => assert_eq!(charge, sale.whole, "{what}: served once, after the restart"),
            (Fate::Served | Fate::Credited, Seen::Nothing | Seen::Refused(_)) => {
                assert_eq!((*fate, charge), (Fate::Credited, 0), "{what}: nothing was delivered, so all of it is the payer's");
            }
            (Fate::Served | Fate::Credited, Seen::Part | Seen::Whole) => {
                assert!(charge <= sale.whole, "{what}: never more than a whole answer costs");
                let in_vain = !sale.stream && *seen == Seen::Part;
                assert!(charge == 0 || !in_vain, "{what}: half a plain answer is no answer");
                assert_eq!(asked, 1, "{what}: what was delivered came from the upstream");
            }
        }
        if *certain {
            assert_eq!((*fate, charge), (Fate::Served, sale.whole), "{what}: a call that had ended in the books stays as it was");
        }
    }
}

/// Presents a payment and says what the buyer sees of the answer.
fn see(address: &str, sale: &Sale) -> Seen {
    if sale.hangs_up {
        let Ok(mut stream) = http::open(address, &sale.request) else { return Seen::Nothing };
        return match (stream.status, stream.next_chunk()) {
            (200, Some(_)) => Seen::Part,
            (200, None) => Seen::Nothing,
            (status, _) => Seen::Refused(status),
        };
    }
    match http::send(address, &sale.request) {
        Err(_) => Seen::Nothing,
        Ok(answer) if answer.status != 200 => Seen::Refused(answer.status),
        Ok(answer) if answer.complete => Seen::Whole,
        // A head alone is no part of an answer.
        Ok(answer) if answer.body.is_empty() => Seen::Nothing,
        Ok(_) => Seen::Part,
    }
}

/// Micros that ever came in over the network, as the books have it.
fn came_in(books: &Books) -> u64 {
    let house = books.json["house"].as_object().unwrap();
    let external = house.iter().filter(|(account, _)| account.starts_with("external "));
    external.map(|(_, micros)| u64::try_from(-micros.as_i64().unwrap()).unwrap()).sum()
}

fn is(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}
