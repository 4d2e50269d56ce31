//! Payments on a real EVM node: who holds the money when a settlement is replayed, overtaken, cancelled, drained, stuck,
//! reorganised or interrupted?

mod journal;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farebox::chain::evm::key::PrivateKey;
use farebox::chain::evm::transaction::Signed;
use farebox::chain::evm::{abi, address::Address, buyer, eip712, hex, keccak, payload, word::Word};
use farebox::chain::{Amounts, Chains, Confirmation, Refused, Settlement, VerifiedPayment, reason, verify};
use farebox::clock::{Clock, Timestamp};
use farebox::config::{self, Network};
use farebox::money::Micros;
use farebox::x402::{Payment, Requirements};
use farebox_rig::anvil::{Anvil, BUYER, MINTER as STRANGER, PAY_TO, POOR_BUYER as POOR, SETTLER, Wallet, word};
use farebox_rig::process::eventually;
use farebox_rig::stub::{self, Stub};
use journal::{AFTER_SETTLED, AFTER_SIGNED, Memory, NEVER, Told, VOIDED};
use tokio::sync::oneshot::Receiver;

const PRICE: u64 = 250_000;

struct Shop {
    node: Anvil,
    journal: Arc<Memory>,
    chains: Chains,
}

fn now() -> Timestamp {
    Timestamp::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

fn clock() -> Clock {
    Clock::new(now)
}

fn network(node: &Anvil) -> Network {
    Network {
        id: node.network(),
        pay_to: PAY_TO.address.into(),
        settlement: config::Settlement::Rpc { urls: vec![node.url()], key: SETTLER.key.to_owned().into() },
        asset: None,
        asset_name: None,
        asset_version: None,
        confirmations: 1,
        safe_above: Micros::new(5_000_000),
        coin_usd: None,
        surcharge: Micros::ZERO,
        max_fee_per_gas: 500_000_000_000,
        ca_file: None,
    }
}

fn open_with(node: Anvil, journal: Arc<Memory>, change: impl Fn(&mut Network)) -> Shop {
    let mut network = network(&node);
    change(&mut network);
    let chains = Chains::start(&[network], journal.clone(), clock()).unwrap();
    Shop { node, journal, chains }
}

fn open(chain_id: u64) -> Shop {
    let shop = open_with(Anvil::start(chain_id), Arc::default(), |_| {});
    assert_eq!(shop.chains.networks()[0].sellable, Ok(()));
    shop
}

fn fresh_nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).unwrap();
    nonce
}

impl Shop {
    fn offer(&self, amount: u64, seconds: u64) -> Requirements {
        self.chains.offer(Micros::new(amount), seconds, "a call").remove(0)
    }

    fn pay(&self, wallet: Wallet, amount: u64, seconds: u64) -> VerifiedPayment {
        let offer = self.offer(amount, seconds);
        let key = PrivateKey::parse(wallet.key).unwrap();
        let header = buyer::pay(&offer, None, &key, fresh_nonce(), now()).unwrap();
        verify(&Payment::from_header(&header).unwrap(), &offer, Amounts::Exact, now()).unwrap()
    }

    fn simulate(&self, payment: &VerifiedPayment) -> Result<(), Refused> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.chains.simulate(payment))
    }

    fn settle(&self, payment: &VerifiedPayment) -> Settlement {
        wait(self.chains.settle(payment.clone()))
    }

    fn received(&self) -> u64 {
        self.node.usdc_balance(PAY_TO.address)
    }

    /// The program ends and starts again on what its journal holds.
    fn restart(self, payment: &VerifiedPayment) -> (Shop, Receiver<Settlement>) {
        let attempts = self.journal.attempts();
        drop(self.chains);
        let shop = open_with(self.node, Arc::default(), |_| {});
        let payment = VerifiedPayment::from_bytes(&payment.to_bytes()).unwrap();
        let outcome = shop.chains.resume(payment, attempts, None);
        (shop, outcome)
    }
}

fn wait(mut outcome: Receiver<Settlement>) -> Settlement {
    let mut found = None;
    eventually("a settlement ends", || {
        found = outcome.try_recv().ok();
        found.is_some()
    });
    found.unwrap()
}

fn confirmed(outcome: Settlement) -> Confirmation {
    match outcome {
        Settlement::Confirmed(confirmation) => confirmation,
        Settlement::Failed { reason, message } => panic!("failed: {reason}: {message}"),
    }
}

fn failed(outcome: Settlement) -> &'static str {
    match outcome {
        Settlement::Failed { reason, .. } => reason,
        Settlement::Confirmed(confirmation) => panic!("confirmed: {confirmation:?}"),
    }
}

/// What a stranger, or we, would send for this payment.
fn transfer_data(payment: &VerifiedPayment) -> String {
    let stored: serde_json::Value = serde_json::from_slice(&payment.to_bytes()).unwrap();
    let raw = serde_json::value::to_raw_value(&stored["payload"]).unwrap();
    let (authorization, signature) = payload::parse(&raw).unwrap();
    hex::encode(&abi::transfer_plain(&authorization, &signature).unwrap())
}

/// The payer takes its authorization back (EIP-3009 `cancelAuthorization`).
fn cancel(shop: &Shop, payment: &VerifiedPayment, wallet: Wallet) {
    let stored: serde_json::Value = serde_json::from_slice(&payment.to_bytes()).unwrap();
    let nonce: [u8; 32] = hex::fixed(stored["payload"]["authorization"]["nonce"].as_str().unwrap()).unwrap();
    let from = Address::parse(wallet.address).unwrap();
    let domain = eip712::domain_separator("USDC", "2", 84532, Address::parse(shop.node.usdc()).unwrap());
    let kind = keccak(b"CancelAuthorization(address authorizer,bytes32 nonce)");
    let message = keccak(&[kind, from.to_word(), nonce].concat());
    let digest = keccak(&[&[0x19, 0x01], &domain[..], &message[..]].concat());
    let key = k256::ecdsa::SigningKey::from_slice(&hex::decode(wallet.key).unwrap()).unwrap();
    let (signature, parity) = key.sign_prehash_recoverable(&digest);
    let v = word(&format!("{:x}", 27 + parity.to_byte()));
    let words = [&from.to_word()[..], &nonce].concat();
    let data = format!("0x5a049a70{}{v}{}", &hex::encode(&words)[2..], &hex::encode(&signature.to_bytes())[2..]);
    shop.node.act_as(STRANGER.address, shop.node.usdc(), &data);
}

#[test]
fn a_payment_arrives_once_and_the_journal_hears_of_every_step_first() {
    for chain_id in [84532, 8453] {
        let shop = open(chain_id);
        let payment = shop.pay(BUYER, PRICE, 300);
        assert_eq!(shop.simulate(&payment), Ok(()));
        assert_eq!(shop.received(), 0, "simulating moves nothing");
        let confirmation = confirmed(shop.settle(&payment));
        assert_eq!(shop.received(), PRICE);
        let (id, attempts) = (payment.id(), shop.journal.attempts());
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts[0].tx, confirmation.tx);
        let settled = Told::Settled(id, Settlement::Confirmed(confirmation));
        assert_eq!(shop.journal.told(), [Told::Signed(id, attempts[0].clone()), Told::Sent(id), settled]);

        // The same payment again: the chain says so, and settling it again finds the first transfer and sends nothing.
        assert!(matches!(shop.simulate(&payment), Err(Refused::Invalid { reason: reason::NONCE_USED, .. })));
        assert_eq!(confirmed(shop.settle(&payment)).tx, attempts[0].tx);
        assert_eq!((shop.received(), shop.node.transactions_of(SETTLER.address)), (PRICE, 1));

        shop.node.mine(10);
        eventually("it is final", || shop.journal.told().contains(&Told::Finalized(id)));
        assert!(!shop.journal.told().contains(&Told::Unconfirmed(id)));
    }
}

#[test]
fn many_payments_at_once_all_arrive_and_no_gas_nonce_is_used_twice() {
    let shop = open(84532);
    let payments: Vec<_> = (0..40).map(|_| shop.pay(BUYER, PRICE, 300)).collect();
    let outcomes: Vec<_> = payments.iter().map(|payment| shop.chains.settle(payment.clone())).collect();
    outcomes.into_iter().for_each(|outcome| drop(confirmed(wait(outcome))));
    assert_eq!(shop.received(), 40 * PRICE);
    let mut nonces: Vec<_> = shop.journal.attempts().iter().map(|attempt| attempt.bound_to).collect();
    nonces.sort_unstable();
    assert_eq!(nonces, (0..40).collect::<Vec<_>>());
}

#[test]
fn a_receiver_that_went_away_changes_nothing() {
    let shop = open(84532);
    drop(shop.chains.settle(shop.pay(BUYER, PRICE, 300)));
    eventually("the money arrives", || shop.received() == PRICE);
    eventually("the journal hears of it", || shop.journal.told().iter().any(|told| matches!(told, Told::Settled(..))));
}

#[test]
fn what_would_revert_is_refused_and_nothing_is_sent() {
    let shop = open(84532);
    let poor = shop.pay(POOR, PRICE, 300);
    assert!(matches!(shop.simulate(&poor), Err(Refused::Invalid { reason: reason::BALANCE, .. })));
    assert_eq!(failed(shop.settle(&poor)), reason::BALANCE);
    let blacklisted = shop.pay(BUYER, PRICE, 300);
    let listed = shop.node.act_as(STRANGER.address, shop.node.usdc(), &format!("0xf9f92be4{}", word(BUYER.address)));
    shop.node.wait_receipt(&listed);
    assert!(matches!(shop.simulate(&blacklisted), Err(Refused::Invalid { reason: reason::SIMULATION, .. })));
    assert_eq!(failed(shop.settle(&blacklisted)), reason::SIMULATION);
    assert_eq!((shop.received(), shop.node.transactions_of(SETTLER.address)), (0, 0));
    assert!(shop.journal.attempts().is_empty(), "nothing was signed");
}

#[test]
fn somebody_elses_submission_is_still_our_payment() {
    let shop = open(84532);
    let before = shop.pay(BUYER, PRICE, 300);
    let theirs = shop.node.act_as(STRANGER.address, shop.node.usdc(), &transfer_data(&before));
    assert_eq!(confirmed(shop.settle(&before)).tx, theirs);
    assert_eq!((shop.received(), shop.node.transactions_of(SETTLER.address)), (PRICE, 0));

    // And when ours is already under way.
    shop.node.set_automine(false);
    let during = shop.pay(BUYER, PRICE, 300);
    let outcome = shop.chains.settle(during.clone());
    eventually("ours waits for a block", || shop.node.pending_transactions() == 1);
    let theirs = shop.node.act_as(STRANGER.address, shop.node.usdc(), &transfer_data(&during));
    shop.node.mine(1);
    assert_eq!(confirmed(wait(outcome)).tx, theirs);
    assert_eq!(shop.received(), 2 * PRICE, "once each, although ours was mined too");
    assert_eq!(shop.node.transactions_of(SETTLER.address), 1);
}

#[test]
fn a_cancelled_authorization_fails_and_buys_nothing() {
    let shop = open(84532);
    let early = shop.pay(BUYER, PRICE, 300);
    cancel(&shop, &early, BUYER);
    assert_eq!(failed(shop.settle(&early)), reason::NONCE_USED);
    assert_eq!(shop.node.transactions_of(SETTLER.address), 0);

    shop.node.set_automine(false);
    let late = shop.pay(BUYER, PRICE, 300);
    let outcome = shop.chains.settle(late.clone());
    eventually("ours waits for a block", || shop.node.pending_transactions() == 1);
    cancel(&shop, &late, BUYER);
    shop.node.mine(1);
    assert_eq!(failed(wait(outcome)), reason::NONCE_USED);
    assert_eq!(shop.received(), 0);
}

#[test]
fn a_wallet_emptied_while_we_settle_fails_with_the_balance_as_reason() {
    let shop = open(84532);
    shop.node.set_automine(false);
    let payment = shop.pay(BUYER, PRICE, 300);
    let outcome = shop.chains.settle(payment);
    eventually("ours waits for a block", || shop.node.pending_transactions() == 1);
    let all = word(&format!("{:x}", shop.node.usdc_balance(BUYER.address)));
    shop.node.act_as(BUYER.address, shop.node.usdc(), &format!("0xa9059cbb{}{all}", word(STRANGER.address)));
    shop.node.mine(1);
    assert_eq!(failed(wait(outcome)), reason::BALANCE);
    assert_eq!(shop.received(), 0);
}

#[test]
fn a_stuck_transaction_is_replaced_at_a_higher_fee_and_pays_once() {
    let shop = open(84532);
    shop.node.set_automine(false);
    let payment = shop.pay(BUYER, PRICE, 300);
    let outcome = shop.chains.settle(payment);
    eventually("it is sent", || shop.node.pending_transactions() == 1);
    // A block in which the base fee is above what it offers leaves it out.
    shop.node.rpc("anvil_setNextBlockBaseFeePerGas", serde_json::json!(["0x12a05f200"]));
    shop.node.mine(1);
    eventually("it is replaced", || shop.journal.attempts().len() == 2);
    let attempts = shop.journal.attempts();
    let [first, second] = [0, 1].map(|place: usize| Signed::read(&attempts[place].raw).unwrap().transaction);
    assert_eq!((first.nonce, &first.data), (second.nonce, &second.data));
    assert!(second.tip * 10 >= first.tip * 11 && second.max_fee * 10 >= first.max_fee * 11);
    eventually("the node has the second", || {
        let hash = &attempts[1].tx;
        !shop.node.rpc("eth_getTransactionByHash", serde_json::json!([hash])).is_null()
    });
    shop.node.mine(1);
    assert_eq!(confirmed(wait(outcome)).tx, attempts[1].tx);
    assert_eq!((shop.received(), shop.node.transactions_of(SETTLER.address)), (PRICE, 1));
}

#[test]
fn an_authorization_that_ends_in_the_queue_fails_and_leaves_the_line_free() {
    let shop = open(84532);
    shop.node.set_automine(false);
    let payment = shop.pay(BUYER, PRICE, 30);
    let outcome = shop.chains.settle(payment);
    eventually("it is sent", || shop.node.pending_transactions() == 1);
    let lost = shop.journal.attempts().remove(0).tx;
    shop.node.rpc("anvil_dropTransaction", serde_json::json!([lost]));
    shop.node.rpc("evm_increaseTime", serde_json::json!([60]));
    shop.node.mine(1);
    shop.node.set_automine(true);
    eventually("the nonce is used up", || shop.node.transactions_of(SETTLER.address) == 1);
    // What has ended is called so once that is final.
    shop.node.mine(5);
    assert_eq!(failed(wait(outcome)), reason::VALID_BEFORE);
    assert_eq!(shop.received(), 0);
    assert_eq!(shop.node.transactions_of(SETTLER.address), 1, "the nonce is used up, by nothing or by a revert");
    let next = shop.pay(BUYER, PRICE, 300);
    confirmed(shop.settle(&next));
    assert_eq!(shop.received(), PRICE);
}

#[test]
fn a_transfer_that_a_reorganisation_takes_away_is_sent_again() {
    let shop = open(84532);
    let payment = shop.pay(BUYER, PRICE, 300);
    confirmed(shop.settle(&payment));
    assert_eq!(shop.received(), PRICE);
    shop.node.set_automine(false);
    shop.node.reorg(1);
    assert_eq!(shop.received(), 0, "the block is gone, and the money with it");
    eventually("we notice", || shop.journal.told().contains(&Told::Unconfirmed(payment.id())));
    shop.node.set_automine(true);
    shop.node.mine(1);
    eventually("the money is back", || shop.received() == PRICE);
    let settled = |told: &Told| matches!(told, Told::Settled(..));
    eventually("the journal hears of it again", || shop.journal.told().iter().filter(|told| settled(told)).count() == 2);
    shop.node.mine(10);
    eventually("it is final", || shop.journal.told().contains(&Told::Finalized(payment.id())));
    assert_eq!(shop.received(), PRICE);
}

#[test]
fn a_crash_between_signing_and_sending_sends_the_same_bytes_after_the_restart() {
    let shop = open(84532);
    let payment = shop.pay(BUYER, PRICE, 300);
    shop.journal.crash.store(AFTER_SIGNED, SeqCst);
    let outcome = shop.chains.settle(payment.clone());
    assert!(outcome.blocking_recv().is_err(), "nobody is told an outcome that the journal did not take");
    assert_eq!((shop.received(), shop.node.pending_transactions()), (0, 0), "not a byte was sent");
    let stored = shop.journal.attempts();
    let (shop, outcome) = shop.restart(&payment);
    // A new sale that starts at the same moment does not take the stored nonce.
    let other = shop.chains.settle(shop.pay(BUYER, PRICE, 300));
    assert_eq!(confirmed(wait(outcome)).tx, stored[0].tx);
    confirmed(wait(other));
    assert_eq!(shop.received(), 2 * PRICE);
    assert_eq!(shop.journal.attempts().len(), 1, "nothing was signed anew for the first");
}

#[test]
fn a_crash_after_the_transfer_finds_it_again_and_pays_gas_once() {
    let shop = open(84532);
    let payment = shop.pay(BUYER, PRICE, 300);
    shop.journal.crash.store(AFTER_SETTLED, SeqCst);
    assert!(shop.chains.settle(payment.clone()).blocking_recv().is_err());
    let stored = shop.journal.attempts();
    let (shop, outcome) = shop.restart(&payment);
    assert_eq!(confirmed(wait(outcome)).tx, stored[0].tx);
    assert_eq!((shop.received(), shop.node.transactions_of(SETTLER.address)), (PRICE, 1));
    // Once confirmed in the journal, a payment is only watched.
    let known = confirmed(shop.settle(&payment));
    let watched = shop.chains.resume(payment.clone(), stored, Some(known.clone()));
    assert_eq!(confirmed(wait(watched)), known);
    assert_eq!(shop.node.transactions_of(SETTLER.address), 1);
}

#[test]
fn a_voided_claim_is_never_sent_and_its_nonce_goes_to_the_next() {
    let shop = open(84532);
    let voided = shop.pay(BUYER, PRICE, 300);
    shop.journal.crash.store(VOIDED, SeqCst);
    assert!(shop.chains.settle(voided).blocking_recv().is_err());
    shop.journal.crash.store(NEVER, SeqCst);
    let next = shop.pay(BUYER, PRICE, 300);
    confirmed(shop.settle(&next));
    assert_eq!((shop.received(), shop.journal.attempts()[0].bound_to), (PRICE, 0));
}

#[test]
fn a_wallet_with_code_is_judged_by_the_token_alone() {
    let shop = open(84532);
    let payment = shop.pay(BUYER, PRICE, 300);
    // Code that answers every isValidSignature with yes: PUSH4 magic, shifted to the left end of a word, returned.
    let says_yes = "0x631626ba7e60e01b60005260206000f3";
    shop.node.rpc("anvil_setCode", serde_json::json!([POOR.address, says_yes]));
    let minted = format!("0x40c10f19{}{}", word(POOR.address), word(&format!("{PRICE:x}")));
    shop.node.wait_receipt(&shop.node.act_as(STRANGER.address, shop.node.usdc(), &minted));
    let offer = shop.offer(PRICE, 300);
    let stranger = PrivateKey::parse(BUYER.key).unwrap();
    let authorization = payload::Authorization {
        from: Address::parse(POOR.address).unwrap(),
        to: Address::parse(PAY_TO.address).unwrap(),
        value: Word::from(PRICE),
        valid_after: Word::default(),
        valid_before: Word::from(now().secs() + 300),
        nonce: fresh_nonce(),
    };
    let signature = buyer::sign(&offer, &authorization, &stranger).unwrap();
    let header = farebox::x402::encode(&serde_json::json!({"x402Version": 2, "accepted": offer, "payload": {
        "signature": hex::encode(&signature),
        "authorization": {"from": POOR.address, "to": PAY_TO.address, "value": PRICE.to_string(), "validAfter": "0",
            "validBefore": authorization.valid_before.as_u64().unwrap().to_string(), "nonce": hex::encode(&authorization.nonce)},
    }}));
    let wallet = verify(&Payment::from_header(&header).unwrap(), &offer, Amounts::Exact, now()).unwrap();
    assert_eq!(shop.simulate(&wallet), Ok(()), "the wallet vouches for the signature");
    confirmed(shop.settle(&wallet));
    assert_eq!(shop.received(), PRICE);

    // Without code the same signature is nobody's, and with code that says no a good signature is refused.
    shop.node.rpc("anvil_setCode", serde_json::json!([POOR.address, "0x"]));
    assert!(matches!(shop.simulate(&wallet), Err(Refused::Invalid { reason: reason::SIGNATURE, .. })));
    shop.node.rpc("anvil_setCode", serde_json::json!([BUYER.address, "0x60006000f3"]));
    assert!(matches!(shop.simulate(&payment), Err(Refused::Invalid { reason: reason::SIGNATURE, .. })));
    assert_eq!(failed(shop.settle(&payment)), reason::SIGNATURE);
    assert_eq!(shop.received(), PRICE);
}

#[test]
fn more_confirmations_are_waited_for() {
    let shop = open_with(Anvil::start(84532), Arc::default(), |network| network.confirmations = 3);
    let mut outcome = shop.chains.settle(shop.pay(BUYER, PRICE, 300));
    eventually("it is mined", || shop.received() == PRICE);
    shop.node.mine(1);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(outcome.try_recv().is_err(), "two blocks are not three");
    shop.node.mine(1);
    confirmed(wait(outcome));
}

#[test]
fn the_second_node_is_asked_when_the_first_is_down() {
    let shop = open_with(Anvil::start(84532), Arc::default(), |network| {
        let config::Settlement::Rpc { urls, .. } = &mut network.settlement else { unreachable!() };
        urls.insert(0, "http://127.0.0.1:9".into());
    });
    let payment = shop.pay(BUYER, PRICE, 300);
    confirmed(shop.settle(&payment));
    assert_eq!(shop.received(), PRICE);
}

#[test]
fn what_is_not_the_chain_token_and_purse_we_think_is_not_sold_on() {
    let why = |change: &dyn Fn(&mut Network)| {
        let shop = open_with(Anvil::start(84532), Arc::default(), change);
        assert!(shop.chains.offer(Micros::ONE, 300, "a call").is_empty());
        shop.chains.networks()[0].sellable.clone().unwrap_err()
    };
    assert!(why(&|network| network.id = "eip155:8453".into()).contains("chain 84532"));
    assert!(why(&|network| network.asset_name = Some("USD Coin".into())).contains("DOMAIN_SEPARATOR"));
    let poor = || config::Secret::from(POOR.key.to_owned());
    let penniless = why(&|network| {
        let config::Settlement::Rpc { key, .. } = &mut network.settlement else { unreachable!() };
        *key = poor();
    });
    assert!(penniless.contains("gas"), "{penniless}");
    let down = why(&|network| {
        let config::Settlement::Rpc { urls, .. } = &mut network.settlement else { unreachable!() };
        *urls = vec!["http://127.0.0.1:9".into()];
    });
    assert!(down.contains("cannot be reached"), "{down}");

    let node = Anvil::start(84532);
    let hour_ahead = Clock::new(|| now().plus(Duration::from_secs(3600)));
    let chains = Chains::start(&[network(&node)], Arc::<Memory>::default(), hour_ahead).unwrap();
    assert!(chains.networks()[0].sellable.clone().unwrap_err().contains("clock"));

    let to_ourselves = Network { pay_to: SETTLER.address.into(), ..network(&node) };
    let refused = Chains::start(&[to_ourselves], Arc::<Memory>::default(), clock()).err().unwrap();
    assert!(refused.to_string().contains("pay_to"), "{refused}");
}

#[test]
fn the_simulated_chain_keeps_the_same_journal_and_moves_nothing() {
    let shop = open_with(Anvil::start(84532), Arc::default(), |network| network.settlement = config::Settlement::Simulated);
    let payment = shop.pay(POOR, PRICE, 300);
    assert_eq!(shop.simulate(&payment), Ok(()));
    confirmed(shop.settle(&payment));
    assert!(matches!(shop.simulate(&payment), Err(Refused::Invalid { reason: reason::NONCE_USED, .. })));
    assert_eq!(failed(shop.settle(&payment)), reason::NONCE_USED);
    assert_eq!(shop.received(), 0);
    let told = shop.journal.told();
    assert!(matches!(told[..4], [Told::Signed(..), Told::Sent(_), Told::Settled(..), Told::Finalized(_)]), "{told:?}");
}

#[test]
fn a_send_whose_answer_is_lost_is_unknown_and_found_by_its_hash() {
    let node = Anvil::start(84532);
    let (behind, drops) = (node.address().to_owned(), Arc::new(AtomicBool::new(true)));
    let lost = drops.clone();
    let proxy = Stub::start(move |request| {
        let answer = stub::forward(&behind, request);
        // The node has taken the transaction; only its answer never arrives.
        let sending = request.contains("eth_sendRawTransaction");
        if sending && lost.load(SeqCst) { None } else { Some((200, answer)) }
    });
    let shop = open_with(node, Arc::default(), |network| {
        let config::Settlement::Rpc { urls, .. } = &mut network.settlement else { unreachable!() };
        *urls = vec![proxy.url()];
    });
    let payment = shop.pay(BUYER, PRICE, 300);
    let confirmation = confirmed(shop.settle(&payment));
    assert!(drops.load(SeqCst));
    assert_eq!(confirmation.tx, shop.journal.attempts()[0].tx);
    assert_eq!((shop.received(), shop.node.transactions_of(SETTLER.address), shop.journal.attempts().len()), (PRICE, 1, 1));
}

#[test]
fn a_facilitators_silence_and_its_200_are_not_outcomes() {
    let tx = format!("0x{}", "ab".repeat(32));
    let settled = serde_json::json!({"success": true, "transaction": tx, "network": "eip155:84532", "payer": BUYER.address});
    let used = serde_json::json!({"success": false, "transaction": "", "errorReason": reason::NONCE_USED});
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = asked.clone();
    let facilitator = Stub::start(move |request| {
        let verify = serde_json::json!({"isValid": true, "payer": BUYER.address}).to_string();
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path {
            "/supported" => Some((404, "{}".into())),
            "/verify" => Some((200, verify)),
            _ => {
                seen.lock().unwrap().push(request.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned());
                match turn.fetch_add(1, SeqCst) {
                    0 => None,
                    1 => Some((200, "{}".into())),
                    2 => Some((200, used.to_string())),
                    _ => Some((200, settled.to_string())),
                }
            }
        }
    });
    let shop = open_with(Anvil::start(84532), Arc::default(), |network| {
        network.settlement =
            config::Settlement::Facilitator { url: facilitator.url(), authorization: None, rpc_urls: Vec::new() };
    });
    let payment = shop.pay(BUYER, PRICE, 300);
    assert_eq!(shop.simulate(&payment), Ok(()));
    assert_eq!(confirmed(shop.settle(&payment)).tx, tx, "\"already used\" after a lost answer is no failure");
    let asked = asked.lock().unwrap();
    assert!(asked.len() >= 4 && asked.iter().all(|body| *body == asked[0]), "the identical request each time");
    let intent = &shop.journal.attempts()[0];
    assert_eq!((intent.tx.as_str(), intent.raw.len()), ("", 0), "the intent is journaled before the first request");
}
