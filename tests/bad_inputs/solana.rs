//! The transactions that no honest wallet sends: each is refused in words of its own, for a call and as a top-up, and nothing
//! moves.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox::chain::solana::address::{Pubkey, SettlerKey, associated_token_account};
use farebox::chain::solana::buyer;
use farebox::chain::solana::transaction::{Header, Instruction, Message, Transaction, Version};
use farebox::x402::{Payment, Requirements};
use farebox_rig::http::Request;
use farebox_rig::process::eventually;
use farebox_rig::server::{Server, Settings};
use farebox_rig::solana::{BUYER, OTHER_BUYER, PAY_TO, POOR_BUYER, SETTLER, Solana};
use farebox_rig::upstream::Upstream;
use serde_json::{Map, Value, json};

use crate::case::{CHARGE, Case, Names};
use crate::messages::Messages;
use crate::shop::{CHAT, Moved};
use crate::topup::{self, TOP_UP};
use crate::wire::{self, Answer};
use crate::{WIDE, judge};

/// Positions of the keys in what the buyer writes, and of its instructions.
const PAYER: u8 = 1;
const SOURCE: u8 = 2;
const DESTINATION: u8 = 3;
const MINT: u8 = 5;
const MEMO: usize = 3;
const TRANSFER: usize = 2;

/// A shop on a Solana chain.
struct Stall {
    chain: Solana,
    upstream: Upstream,
    server: Server,
    names: Names,
    fresh: u8,
    complaints: Vec<String>,
    told: Messages,
    charged: u64,
    /// Payments as they went over the wire; none may be found in the log.
    secrets: Vec<String>,
}

impl Stall {
    fn open() -> Stall {
        let (chain, upstream) = (Solana::start(), Upstream::start());
        let settings = Settings {
            limits: WIDE.map(str::to_owned).to_vec(),
            payments: vec!["settle_after_ms = 8000".to_owned()],
            prepaid: vec!["top_up_minimum = \"0.0001\"".to_owned()],
            ..Settings::default()
        };
        let server = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream, &settings);
        let mut names = Names::default();
        names.set("MODEL", farebox_rig::server::MODEL);
        upstream.configure(&json!({ "in": 20, "out": 7 }));
        let told = Messages::default();
        Stall { chain, upstream, server, names, fresh: 0, complaints: Vec::new(), told, charged: 0, secrets: Vec::new() }
    }

    fn moved(&self) -> Moved {
        let sends = self.chain.sends();
        Moved { earned: self.chain.usdc_balance(PAY_TO), transactions: sends, calls: self.upstream.calls().len() }
    }

    /// Presents the payment of a case for a call, then another one like it as a top-up.
    fn run(&mut self, case: &Case) {
        let spec = case.headers["PAYMENT-SIGNATURE"].as_object().expect("a generator").clone();
        let body = wire::body(&case.body, &self.names).expect("a body");
        let before = self.moved();
        let (mut answer, amount) = self.present(CHAT, Some(&body), &spec);
        if spec.get("replay").is_some() {
            assert_eq!(answer.status, 200, "the first copy buys: {}", answer.text());
            let copy = other_fee_payer_slot(self.secrets.last().expect("it was sent"));
            answer = self.send(CHAT, Some(&body), &copy);
            let once = judge::moves(case, true, Some(amount), before, self.moved());
            self.complain(case, once);
            self.charged += CHARGE;
        } else {
            let moved = judge::moves(case, answer.status == 200, Some(amount), before, self.moved());
            self.complain(case, moved);
            self.charged += if answer.status == 200 { CHARGE } else { 0 };
        }
        let honest = spec.get("replay").is_some() || answer.status == 200;
        assert!(self.server.is_running(), "{} ended the server:\n{}", case.id, self.server.output());
        let complaints = judge::answer(case, &answer);
        complaints.into_iter().for_each(|what| self.complain(case, Some(what)));
        self.told.note(&answer);

        let before = self.moved();
        let (answer, amount) = self.present(TOP_UP, None, &spec);
        let more = u64::from(topup::FINE.contains(&case.id.as_str()));
        let complaint = match answer.status == 200 {
            true if !honest && more == 0 => Some(format!("topped up: {}", answer.text())),
            true => topup::taken(&answer, amount + more, before, self.moved()),
            false => topup::refused(case, &answer, before, self.moved()),
        };
        self.complain(case, complaint);
        self.told.note(&answer);
    }

    fn complain(&mut self, case: &Case, what: Option<String>) {
        self.complaints.extend(what.map(|what| format!("{}: {what}", case.about())));
    }

    /// Asks for an offer, and pays it as `spec` says. Returns the answer and what an honest payment brings.
    fn present(&mut self, route: &str, body: Option<&[u8]>, spec: &Map<String, Value>) -> (Answer, u64) {
        let ask = wire::request("POST", route, &[], body, self.server.address());
        let offer = wire::exchange(self.server.address(), ask, false).expect("an answer").remove(0).offer().expect("an offer");
        let offer: Requirements = serde_json::from_value(offer["accepts"][0].clone()).expect("requirements");
        let amount = offer.amount.parse().expect("an amount in units");
        self.fresh += 1;
        let payload = made(&offer, spec["mutate"].as_object().expect("what is changed"), self.fresh);
        let payment = json!({ "x402Version": 2, "accepted": offer, "payload": payload }).to_string();
        (self.send(route, body, &payment), amount)
    }

    fn send(&mut self, route: &str, body: Option<&[u8]>, payment: &str) -> Answer {
        self.secrets.push(payment.to_owned());
        let headers = ["Content-Type", "PAYMENT-SIGNATURE"].map(str::to_owned);
        let headers: Vec<_> = headers.into_iter().zip(["application/json".to_owned(), STANDARD.encode(payment)]).collect();
        let bytes = wire::request("POST", route, &headers, Some(body.unwrap_or(b"{}")), self.server.address());
        let answer = wire::exchange(self.server.address(), bytes, false).expect("an answer").remove(0);
        let idle = || self.server.send(&Request::get("/healthz")).json()["calls_in_flight"] == 0;
        eventually("the call is over", idle);
        answer
    }
}

/// The transaction of a payment, with other bytes where we are to sign.
fn other_fee_payer_slot(payment: &str) -> String {
    let mut payment: Value = serde_json::from_str(payment).expect("JSON");
    let text = payment["payload"]["transaction"].as_str().expect("a transaction").to_owned();
    let mut wire = STANDARD.decode(text).expect("base64");
    wire[1..65].fill(0xa5);
    payment["payload"]["transaction"] = STANDARD.encode(wire).into();
    payment.to_string()
}

/// What a message is made of.
struct Parts {
    version: Version,
    header: Header,
    keys: Vec<Pubkey>,
    blockhash: [u8; 32],
    instructions: Vec<Instruction>,
}

impl Parts {
    fn of(message: &Message) -> Parts {
        Parts {
            version: message.version(),
            header: message.header(),
            keys: message.keys().to_vec(),
            blockhash: message.recent_blockhash(),
            instructions: message.instructions().to_vec(),
        }
    }

    /// The position of a further key that nobody writes to.
    fn name(&mut self, key: Pubkey) -> u8 {
        self.keys.push(key);
        self.header.read_only_others += 1;
        u8::try_from(self.keys.len() - 1).expect("few keys")
    }

    fn call(&mut self, at: usize, program: Pubkey, accounts: &[u8], data: &[u8]) {
        let known = self.keys.iter().position(|key| *key == program).map(|at| u8::try_from(at).expect("few keys"));
        let program = known.unwrap_or_else(|| self.name(program));
        self.instructions.insert(at, Instruction { program, accounts: accounts.to_vec(), data: data.to_vec() });
    }

    /// A third signer, behind the first two: everything after it moves up.
    fn one_more_signer(&mut self) {
        self.keys.insert(2, Pubkey([7; 32]));
        self.header.required_signatures += 1;
        let shift = |position: &mut u8| *position += u8::from(*position >= 2);
        for instruction in &mut self.instructions {
            shift(&mut instruction.program);
            instruction.accounts.iter_mut().for_each(shift);
        }
    }

    fn extra(&mut self, what: &str) {
        let end = self.instructions.len();
        match what {
            "system_transfer_from_fee_payer" => {
                self.call(end, Pubkey::SYSTEM, &[0, PAYER], &[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
            }
            "create_ata_fee_payer" => self.call(TRANSFER, Pubkey::ASSOCIATED_TOKEN, &[0, DESTINATION, PAYER, MINT], &[1]),
            "close_account" => self.call(end, Pubkey::TOKEN, &[SOURCE, PAYER, PAYER], &[9]),
            "lighthouse before transfer" => self.call(TRANSFER, Pubkey::LIGHTHOUSE, &[PAYER], &[1]),
            "advance nonce first" => self.call(0, Pubkey::SYSTEM, &[SOURCE, PAYER], &[4, 0, 0, 0]),
            "a second memo" => self.call(end, Pubkey::MEMO, &[], b"and another one"),
            other => panic!("no such instruction: {other}"),
        }
    }
}

/// The payload of a payment for `offer` with these changes.
fn made(offer: &Requirements, changes: &Map<String, Value>, fresh: u8) -> Value {
    let poor = changes.get("payer").is_some();
    let key = SettlerKey::parse(if poor { POOR_BUYER.key } else { BUYER.key }).expect("a key");
    let header = buyer::pay(offer, None, &key, [fresh; 32]).expect("an offer that can be paid");
    let payload: Value = serde_json::from_str(Payment::from_header(&header).expect("a payment").payload.get()).expect("JSON");
    if let Some(other) = changes.get("payload") {
        return other.clone();
    }
    let wire = STANDARD.decode(payload["transaction"].as_str().expect("a transaction")).expect("base64");
    let mut parts = Parts::of(&Transaction::parse(&wire).expect("ours").message);
    let order: BTreeMap<_, _> = changes.iter().collect();
    order.iter().for_each(|(name, value)| change(&mut parts, name, value, offer));
    let message = Message::new(parts.version, parts.header, &parts.keys, &parts.blockhash, &parts.instructions);
    let raw = message.expect("a message can be changed so").bytes().to_vec();
    let wire = signed(raw, usize::from(parts.header.required_signatures), &key, changes);
    match changes.get("transaction") {
        Some(text) => json!({ "transaction": text }),
        None => json!({ "transaction": STANDARD.encode(wire) }),
    }
}

/// Changes what is signed and stays a message.
fn change(parts: &mut Parts, name: &str, value: &Value, offer: &Requirements) {
    let pay_to: Pubkey = PAY_TO.address.parse().expect("an address");
    let transfer = &mut parts.instructions[TRANSFER];
    let amount: u64 = offer.amount.parse().expect("units");
    match (name, value.as_str()) {
        ("version", Some("legacy")) => parts.version = Version::Legacy,
        ("fee_payer", _) => parts.keys[0] = Pubkey([9; 32]),
        ("authority", _) => transfer.accounts[3] = 0,
        ("extra_ix", Some(what)) => parts.extra(what),
        ("instructions", _) => parts.instructions.truncate(2),
        ("cu_price", _) => {
            let price = value.as_u64().expect("a price").to_le_bytes();
            parts.instructions[1].data[1..].copy_from_slice(&price);
        }
        ("amount", Some(text)) => {
            let amount = match text {
                "{{AMOUNT_MINUS_1}}" => amount - 1,
                "{{AMOUNT_PLUS_1}}" => amount + 1,
                other => other.parse().expect("units"),
            };
            transfer.data[1..9].copy_from_slice(&amount.to_le_bytes());
        }
        ("decimals", _) => transfer.data[9] = 9,
        ("mint", _) => parts.keys[usize::from(MINT)] = Pubkey([9; 32]),
        ("token_program", _) => parts.keys[7] = Pubkey::TOKEN_2022,
        ("ix", _) => {
            (transfer.data, transfer.accounts) = (transfer.data[..9].to_vec(), vec![SOURCE, DESTINATION, PAYER]);
            transfer.data[0] = 3;
        }
        ("source", Some("payto_ata")) => transfer.accounts[0] = DESTINATION,
        ("source", _) => {
            let other = OTHER_BUYER.address.parse().expect("an address");
            let mint = parts.keys[usize::from(MINT)];
            parts.keys[usize::from(SOURCE)] = associated_token_account(&other, &mint, &Pubkey::TOKEN).expect("it has one");
            assert_ne!(other, pay_to);
        }
        ("memo", None) if value.is_null() => drop(parts.instructions.remove(MEMO)),
        ("memo", text) => {
            let repeated = value["count"].as_u64().map(|count| "x".repeat(usize::try_from(count).expect("small")));
            let text = repeated.unwrap_or_else(|| format!("memo of {}", text.expect("a text")));
            parts.instructions[MEMO].data = text.into_bytes();
        }
        ("blockhash", _) => parts.blockhash = [9; 32],
        ("signers", _) => parts.one_more_signer(),
        ("payer_sig", Some("small_order_key")) => parts.keys[1] = neutral(),
        // What is done to the bytes, in `signed`.
        ("version" | "transaction" | "pad_to" | "append" | "address_lookup_tables" | "program_index" | "payer_sig", _)
        | ("fee_payer_sig" | "fee_payer_again" | "padded_length" | "payer", _) => {}
        other => panic!("no such change: {other:?}"),
    }
}

/// The neutral point of the curve, for which lax verifiers take made-up signatures.
fn neutral() -> Pubkey {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    Pubkey(bytes)
}

/// Where the keys begin in a version 0 message: behind the version, the header and their number.
const KEYS: usize = 5;

/// Changes the bytes of the message, signs them, and puts them into a transaction whose own bytes are changed.
fn signed(mut raw: Vec<u8>, signers: usize, key: &SettlerKey, changes: &Map<String, Value>) -> Vec<u8> {
    let is = |name: &str| changes.contains_key(name);
    if changes.get("version") == Some(&json!(1)) {
        raw[0] = 0x81;
    }
    if is("address_lookup_tables") {
        assert_eq!(raw.pop(), Some(0), "no tables");
        raw.extend([&[1][..], &[8; 32], &[1, 0, 1, 1]].concat());
    }
    if is("program_index") {
        let instructions = KEYS + 8 * 32 + 32 + 1;
        raw[instructions] = 250;
    }
    if is("fee_payer_again") {
        let fee_payer: Vec<u8> = raw[KEYS..KEYS + 32].to_vec();
        raw.splice(KEYS + 32 * usize::from(SOURCE)..KEYS + 32 * usize::from(SOURCE + 1), fee_payer);
    }
    if is("padded_length") {
        raw.splice(KEYS - 1..KEYS, [0x88, 0]);
    }
    let mut signature = key.sign(&raw);
    match changes.get("payer_sig").and_then(Value::as_str) {
        Some("zero") => signature = [0; 64],
        Some("small_order_key") => signature = std::array::from_fn(|at| u8::from(at == 0)),
        Some("s_plus_l") => add_group_order(&mut signature[32..]),
        _ => {}
    }
    let fee_payers = if is("fee_payer_sig") { [0x5a; 64] } else { [0; 64] };
    let mut wire = vec![u8::try_from(signers).expect("few")];
    wire.extend([fee_payers, signature].concat());
    wire.extend(vec![0; 64 * signers.saturating_sub(2)]);
    wire.extend(raw);
    if let Some(size) = changes.get("pad_to").and_then(Value::as_u64) {
        wire.resize(usize::try_from(size).expect("small"), 0);
    }
    if is("append") {
        wire.push(0);
    }
    wire
}

/// The same number modulo the order of ed25519's group, in another spelling.
fn add_group_order(s: &mut [u8]) {
    const LOW_HALF: [u8; 16] = 0x14de_f9de_a2f7_9cd6_5812_631a_5cf5_d3ed_u128.to_le_bytes();
    let order = LOW_HALF.into_iter().chain([0; 15]).chain([0x10]);
    let mut carry = 0;
    for (byte, more) in s.iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
}

#[test]
fn transactions_that_no_honest_wallet_sends_buy_nothing_top_nothing_up_and_cost_us_nothing() {
    let mut stall = Stall::open();
    let cases: Vec<_> = Case::all().into_iter().filter(|case| case.server.as_deref() == Some("solana")).collect();
    let lamports = stall.chain.lamports(SETTLER);
    for case in &cases {
        stall.run(case);
    }
    assert!(stall.complaints.is_empty(), "{} complaints:\n{}", stall.complaints.len(), stall.complaints.join("\n"));
    assert_eq!(cases.len(), 42, "every one of them");
    stall.told.assert_are_those_of("solana.txt");
    let landed = stall.chain.landed();
    let (earned, fees) = (stall.chain.usdc_balance(PAY_TO), landed.iter().map(|landed| landed.fee).sum::<u64>());
    assert!(landed.iter().all(|landed| landed.succeeded) && fees == 10_001 * landed.len() as u64, "{landed:?}");
    assert_eq!(stall.chain.lamports(SETTLER), lamports - fees, "fees are all that was paid");
    let books = stall.server.audit();
    assert!(books.clean && books.json["open_holds"] == 0, "{:#}", books.json);
    assert_eq!(books.balance(BUYER.address), earned - stall.charged, "what came in and was not charged is the buyer's");
    let log = stall.server.output();
    let logged = |payment: &&String| log.contains(payment.as_str()) || log.contains(&STANDARD.encode(payment.as_bytes()));
    assert_eq!(stall.secrets.iter().find(logged), None, "a payment was logged");
    assert!(!log.contains(SETTLER.key));
}
