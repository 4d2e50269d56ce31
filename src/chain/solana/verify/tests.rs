//! A payment does one thing, and costs us one thing; whatever else a transaction could do is refused by its name.

use serde_json::json;

use super::*;
use crate::chain::payment::VerifiedPayment;
use crate::chain::solana::address::SettlerKey;
use crate::chain::solana::buyer;
use crate::chain::solana::transaction::{Header, Instruction, Message, Version as Layout};
use crate::money::Micros;

const NOW: Timestamp = Timestamp::from_secs(1_763_640_000);
const PRICE: u64 = 10_000;
const MEMO_OF_THE_OFFER: &str = "the memo of the offer";

fn payer() -> SettlerKey {
    SettlerKey::from_seed(&[1; 32])
}

fn settler() -> SettlerKey {
    SettlerKey::from_seed(&[2; 32])
}

fn pay_to() -> Pubkey {
    SettlerKey::from_seed(&[3; 32]).address()
}

fn stranger() -> SettlerKey {
    SettlerKey::from_seed(&[4; 32])
}

fn mint() -> Pubkey {
    "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU".parse().unwrap()
}

fn account(owner: &Pubkey) -> Pubkey {
    associated_token_account(owner, &mint(), &Pubkey::TOKEN).unwrap()
}

fn offer() -> Requirements {
    let extra = json!({
        "feePayer": settler().address().to_string(), "memo": MEMO_OF_THE_OFFER,
        "recentBlockhash": Pubkey([9; 32]).to_string(), "lastValidBlockHeight": "150",
    });
    Requirements {
        scheme: "exact".into(),
        network: "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1".into(),
        amount: PRICE.to_string(),
        asset: mint().to_string(),
        pay_to: pay_to().to_string(),
        max_timeout_seconds: 300,
        extra: extra.as_object().cloned(),
    }
}

/// What a message is made of, to be changed.
#[derive(Clone)]
struct Parts {
    layout: Layout,
    header: Header,
    keys: Vec<Pubkey>,
    instructions: Vec<Instruction>,
}

/// Positions in the keys of the honest message.
const PAYER: u8 = 1;
const SOURCE: usize = 2;
const DESTINATION: usize = 3;
const MINT_KEY: usize = 5;
const MEMO_PROGRAM: u8 = 6;
const TOKEN: usize = 7;
/// Positions in its instructions.
const LIMIT: usize = 0;
const UNIT_PRICE: usize = 1;
const TRANSFER: usize = 2;
const MEMO_AT: usize = 3;

/// What the buyer writes.
fn honest() -> Parts {
    let header = buyer::pay(&offer(), None, &payer(), [7; 32]).unwrap();
    let transaction = payload::parse(&Payment::from_header(&header).unwrap().payload).unwrap();
    let message = transaction.message;
    let (layout, header) = (message.version(), message.header());
    Parts { layout, header, keys: message.keys().to_vec(), instructions: message.instructions().to_vec() }
}

impl Parts {
    fn message(&self) -> Message {
        Message::new(self.layout, self.header, &self.keys, &[9; 32], &self.instructions).unwrap()
    }

    /// A program that is called but by nobody yet; its position.
    fn program(&mut self, program: Pubkey) -> u8 {
        self.keys.push(program);
        self.header.read_only_others += 1;
        u8::try_from(self.keys.len() - 1).unwrap()
    }

    fn add(&mut self, program: u8, accounts: &[u8], data: &[u8]) {
        self.instructions.push(Instruction { program, accounts: accounts.to_vec(), data: data.to_vec() });
    }
}

/// A version 2 payment of this transaction, with what the buyer says it accepted.
fn presented(transaction: &Transaction, accepted: &Requirements) -> Payment {
    let header = json!({ "x402Version": 2, "accepted": accepted, "payload": buyer::payload(transaction) });
    Payment::from_header(&crate::x402::encode(&header)).unwrap()
}

fn judged(parts: &Parts) -> Result<Verified, Refused> {
    let transaction = buyer::sign(parts.message(), &payer());
    verify(&presented(&transaction, &offer()), &offer(), Amounts::Exact, NOW)
}

/// The reason of a refusal; empty when it is taken.
fn reason_of(outcome: Result<Verified, Refused>) -> &'static str {
    match outcome {
        Ok(_) => "",
        Err(Refused::Invalid { reason, message }) => {
            assert!(message.len() > 20, "{message}");
            reason
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn changed(change: impl Fn(&mut Parts)) -> &'static str {
    let mut parts = honest();
    change(&mut parts);
    reason_of(judged(&parts))
}

#[test]
fn an_honest_payment_is_taken_for_what_it_is() {
    let payment = judged(&honest()).unwrap();
    assert_eq!(payment.id().0, honest().message().hash());
    assert_eq!((payment.amount(), payment.payer(), payment.mint()), (Micros::new(PRICE), payer().address(), mint()));
    assert_eq!((payment.source(), payment.destination()), (account(&payer().address()), account(&pay_to())));
    assert_eq!((payment.memo(), payment.fee_payer()), (Some(MEMO_OF_THE_OFFER), settler().address()));
    assert_eq!(payment.recent_blockhash(), [9; 32]);
    assert_eq!(changed(|parts| parts.layout = Layout::Legacy), "", "old wallets write legacy messages");
    let lighthouse = |count: usize| {
        changed(|parts| {
            let guard = parts.program(Pubkey::LIGHTHOUSE);
            (0..count).for_each(|_| parts.add(guard, &[PAYER], &[5, 2, 3]));
        })
    };
    assert_eq!([lighthouse(1), lighthouse(3), lighthouse(4)], ["", "", reason::INSTRUCTIONS], "wallets guard what they sign");
    let guards_first = changed(|parts| {
        let guard = parts.program(Pubkey::LIGHTHOUSE);
        parts.add(guard, &[2], &[9]);
        parts.instructions.swap(MEMO_AT, MEMO_AT + 1);
    });
    assert_eq!(guards_first, "");
}

#[test]
fn a_guard_looks_at_what_is_the_payers_alone() {
    let guard = |accounts: &[u8], data: &[u8]| {
        changed(|parts| {
            let program = parts.program(Pubkey::LIGHTHOUSE);
            parts.add(program, accounts, data);
        })
    };
    for kind in 2..=14 {
        assert_eq!([guard(&[PAYER], &[kind, 0]), guard(&[PAYER, 2], &[kind])], [""; 2], "{kind}");
        assert_eq!(guard(&[], &[kind, 0]), reason::UNKNOWN[1], "a guard of nothing: {kind}");
        // Our own token account and the mint change with what others do.
        for others in [3, 5, 6] {
            assert_eq!(guard(&[PAYER, others], &[kind, 0]), reason::UNKNOWN[1], "{kind} {others}");
        }
    }
    assert_eq!(guard(&[PAYER], &[]), reason::UNKNOWN[1], "a guard without words");
    for kind in [0, 1, 15, 16, 17, 18, 255] {
        assert_eq!(guard(&[PAYER], &[kind, 0]), reason::UNKNOWN[1], "{kind}");
    }
    let clock = changed(|parts| {
        let program = parts.program(Pubkey::LIGHTHOUSE);
        let clock = parts.program("SysvarC1ock11111111111111111111111111111111".parse().unwrap());
        parts.add(program, &[clock], &[2, 0]);
    });
    assert_eq!(clock, reason::UNKNOWN[1], "the clock as an account like any other");
}

#[test]
fn what_we_pay_for_has_a_limit() {
    let limit = |units: u32| changed(|parts| parts.instructions[LIMIT].data[1..].copy_from_slice(&units.to_le_bytes()));
    let both = |units: u32, price: u64| {
        changed(|parts| {
            parts.instructions[LIMIT].data[1..].copy_from_slice(&units.to_le_bytes());
            parts.instructions[UNIT_PRICE].data[1..].copy_from_slice(&price.to_le_bytes());
        })
    };
    assert_eq!([limit(0), limit(200_000)], [""; 2]);
    assert_eq!([limit(200_001), limit(u32::MAX)], [reason::COMPUTE_LIMIT_TOO_HIGH; 2]);
    // Two signatures cost 10,000 lamports, so 10,000 are left: 500,000 micro-lamports for each of 20,000 units.
    assert_eq!([both(20_000, 500_000), both(200_000, 50_000), both(1, 10_000_000_000)], [""; 3]);
    let dear = [both(20_000, 500_001), both(200_000, 50_001), both(1, 10_000_000_001), both(200_000, u64::MAX)];
    assert_eq!(dear, [reason::COMPUTE_PRICE_TOO_HIGH; 4]);
}

#[test]
fn nothing_but_one_transfer_is_done() {
    let replaced = |at: usize, change: fn(&mut Instruction)| changed(|parts| change(&mut parts.instructions[at]));
    for (what, got, wanted) in [
        ("two instructions", changed(|parts| parts.instructions.truncate(2)), reason::INSTRUCTIONS),
        ("no limit", changed(|parts| drop(parts.instructions.remove(LIMIT))), reason::COMPUTE_LIMIT),
        ("limit and price swapped", changed(|parts| parts.instructions.swap(LIMIT, UNIT_PRICE)), reason::COMPUTE_LIMIT),
        ("limit cut off", replaced(LIMIT, |limit| limit.data.truncate(4)), reason::COMPUTE_LIMIT),
        ("limit with an account", replaced(LIMIT, |limit| limit.accounts.push(PAYER)), reason::COMPUTE_LIMIT),
        ("a longer price", replaced(UNIT_PRICE, |price| price.data.push(0)), reason::COMPUTE_PRICE),
        ("heap instead of a price", replaced(UNIT_PRICE, |price| price.data = vec![1, 0, 0, 4, 0]), reason::COMPUTE_PRICE),
        ("the memo first", changed(|parts| parts.instructions.swap(TRANSFER, MEMO_AT)), reason::NO_TRANSFER),
        ("plain Transfer", replaced(TRANSFER, |transfer| transfer.data[0] = 3), reason::NO_TRANSFER),
        ("Approve", replaced(TRANSFER, |transfer| transfer.data[0] = 13), reason::NO_TRANSFER),
        ("a longer transfer", replaced(TRANSFER, |transfer| transfer.data.push(0)), reason::NO_TRANSFER),
        ("a shorter transfer", replaced(TRANSFER, |transfer| transfer.data.truncate(9)), reason::NO_TRANSFER),
        ("a shared wallet", replaced(TRANSFER, |transfer| transfer.accounts.push(PAYER)), reason::NO_TRANSFER),
        ("Token-2022", changed(|parts| parts.keys[TOKEN] = Pubkey::TOKEN_2022), reason::NO_TRANSFER),
        ("another program", changed(|parts| parts.keys[TOKEN] = Pubkey([8; 32])), reason::NO_TRANSFER),
    ] {
        assert_eq!(got, wanted, "{what}");
    }
    let behind = |program: Pubkey, accounts: &'static [u8], data: &'static [u8]| {
        changed(|parts| {
            let program = parts.program(program);
            parts.add(program, accounts, data);
        })
    };
    let unknown = reason::UNKNOWN[1];
    assert_eq!(behind(Pubkey::SYSTEM, &[PAYER, 3], &[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), unknown, "SOL is moved");
    assert_eq!(behind(Pubkey::ASSOCIATED_TOKEN, &[PAYER, 3, 2, 5], &[1]), unknown, "an account is opened");
    assert_eq!(changed(|parts| parts.add(7, &[2, 3, PAYER], &[9])), unknown, "an account is closed");
    assert_eq!(changed(|parts| parts.instructions.push(parts.instructions[TRANSFER].clone())), unknown, "a second transfer");
    assert_eq!(changed(|parts| parts.instructions.push(parts.instructions[LIMIT].clone())), unknown, "a second limit");
    let nonce = changed(|parts| {
        let system = parts.program(Pubkey::SYSTEM);
        parts.instructions.insert(0, Instruction { program: system, accounts: vec![2, PAYER], data: vec![4, 0, 0, 0] });
    });
    assert_eq!(nonce, reason::COMPUTE_LIMIT, "a durable nonce would let it land at any time");
}

#[test]
fn the_fee_payer_pays_the_fee_and_is_in_nothing_else() {
    let as_authority = changed(|parts| parts.instructions[TRANSFER].accounts[3] = 0);
    assert_eq!(as_authority, reason::FEE_PAYER_USED, "it would pay with our own tokens");
    for (program, data) in [(Pubkey::LIGHTHOUSE, &[1][..]), (Pubkey::MEMO, b"memo")] {
        let got = changed(|parts| {
            let memo = parts.instructions.remove(MEMO_AT);
            let program = if program == Pubkey::MEMO { MEMO_PROGRAM } else { parts.program(program) };
            parts.add(program, &[0], data);
            if program != MEMO_PROGRAM {
                parts.instructions.push(memo);
            }
        });
        assert_eq!(got, reason::FEE_PAYER_USED, "{program}");
    }
    let other = changed(|parts| parts.keys[0] = stranger().address());
    assert_eq!(other, reason::FEE_PAYER);
    let mut without = offer();
    without.extra = None;
    let payment = presented(&buyer::sign(honest().message(), &payer()), &without);
    assert_eq!(reason_of(verify(&payment, &without, Amounts::Exact, NOW)), reason::NO_FEE_PAYER);
}

#[test]
fn the_payer_alone_signs_and_pays_from_its_own_account_into_ours() {
    let signed_by = |key: &SettlerKey, mutate: fn(&mut [u8; 64])| {
        let mut transaction = buyer::sign(honest().message(), key);
        mutate(&mut transaction.signatures[1]);
        reason_of(verify(&presented(&transaction, &offer()), &offer(), Amounts::Exact, NOW))
    };
    assert_eq!(signed_by(&payer(), |_| {}), "");
    assert_eq!(signed_by(&payer(), |signature| *signature = [0; 64]), reason::SIGNATURE);
    assert_eq!(signed_by(&payer(), |signature| signature[40] ^= 1), reason::SIGNATURE);
    assert_eq!(signed_by(&stranger(), |_| {}), reason::SIGNATURE);
    let three = changed(|parts| {
        parts.keys.insert(2, stranger().address());
        parts.header.required_signatures = 3;
        let shift = |position: &mut u8| *position += u8::from(*position >= 2);
        for instruction in &mut parts.instructions {
            shift(&mut instruction.program);
            instruction.accounts.iter_mut().for_each(shift);
        }
    });
    assert_eq!(three, reason::SIGNERS, "each signature costs us 5,000 lamports");
    let alone = changed(|parts| (parts.header.required_signatures, parts.header.read_only_signers) = (1, 0));
    assert_eq!(alone, reason::SIGNERS, "nobody but us would sign");
    for (what, at, key, wanted) in [
        ("another mint", MINT_KEY, Pubkey([8; 32]), reason::MINT),
        ("another account of ours", DESTINATION, Pubkey([8; 32]), reason::RECIPIENT),
        ("a wallet instead of its account", DESTINATION, pay_to(), reason::RECIPIENT),
        ("another wallet's account", SOURCE, account(&stranger().address()), reason::SOURCE),
    ] {
        assert_eq!(changed(|parts| parts.keys[at] = key), wanted, "{what}");
    }
    let another = changed(|parts| parts.instructions[TRANSFER].accounts[3] = 4);
    assert_eq!(another, reason::SIGNATURE, "the owner is not who signs");
    let to_itself = changed(|parts| parts.instructions[TRANSFER].accounts[0] = 3);
    assert_eq!(to_itself, reason::PAYER, "nothing would come in");
    assert_eq!(changed(|parts| parts.instructions[TRANSFER].data[9] = 9), reason::MINT, "decimals");
}

/// An honest message beside which one account stands in a table on the chain, where nobody sees it.
#[test]
fn nobody_takes_part_unseen() {
    let bytes = honest().message().bytes().to_vec();
    let table = [&bytes[..bytes.len() - 1], &[1], &[8; 32], &[1, 0, 0]].concat();
    let transaction = buyer::sign(Message::parse(&table).unwrap(), &payer());
    let judged = verify(&presented(&transaction, &offer()), &offer(), Amounts::Exact, NOW);
    assert_eq!(reason_of(judged), reason::LOOK_UP_TABLE);
}

#[test]
fn the_amount_is_the_price_or_within_what_a_top_up_may_be() {
    let paid = |amount: u64| {
        let mut parts = honest();
        parts.instructions[TRANSFER].data[1..9].copy_from_slice(&amount.to_le_bytes());
        buyer::sign(parts.message(), &payer())
    };
    let judged = |amount: u64, accepted: u64, amounts| {
        let accepted = Requirements { amount: accepted.to_string(), ..offer() };
        verify(&presented(&paid(amount), &accepted), &offer(), amounts, NOW)
    };
    for amount in [0, PRICE - 1, PRICE + 1, u64::MAX] {
        assert_eq!(reason_of(judged(amount, PRICE, Amounts::Exact)), reason::AMOUNT, "{amount}");
    }
    assert_eq!(reason_of(judged(PRICE, 1, Amounts::Exact)), reason::AMOUNT, "what it accepted is another offer");
    let most = Amounts::UpTo(Micros::new(5 * PRICE));
    for (amount, accepted, wanted) in [
        (PRICE, PRICE, ""),
        (5 * PRICE, PRICE, ""),
        (5 * PRICE, 5 * PRICE, ""),
        (PRICE - 1, PRICE, common::TOO_LOW),
        (5 * PRICE + 1, PRICE, common::TOO_HIGH),
        (2 * PRICE, 3 * PRICE, reason::AMOUNT),
    ] {
        assert_eq!(reason_of(judged(amount, accepted, most)), wanted, "{amount} {accepted}");
    }
    let topped_up = judged(2 * PRICE, PRICE, most).unwrap();
    assert_eq!(topped_up.amount(), Micros::new(2 * PRICE));
    assert_eq!(topped_up.presented.requirements.amount, (2 * PRICE).to_string());
}

#[test]
fn the_memo_binds_a_payment_to_its_offer() {
    let memo = |text: &[u8]| changed(|parts| parts.instructions[MEMO_AT].data = text.to_vec());
    assert_eq!(memo(b"the memo of another offer"), reason::MEMO);
    assert_eq!(memo(b""), reason::MEMO);
    assert_eq!(memo(&[0xff; 8]), reason::MEMO, "not a text");
    assert_eq!(memo(&[b'x'; 257]), reason::MEMO, "longer than any");
    assert_eq!(changed(|parts| drop(parts.instructions.remove(MEMO_AT))), reason::MEMO_COUNT);
    let two = changed(|parts| parts.instructions.push(parts.instructions[MEMO_AT].clone()));
    assert_eq!(two, reason::MEMO_COUNT);

    let without = || {
        let mut parts = honest();
        parts.instructions.remove(MEMO_AT);
        buyer::sign(parts.message(), &payer())
    };
    let old = |transaction: &Transaction| {
        let network = "solana-devnet";
        let payload = buyer::payload(transaction);
        let header = json!({ "x402Version": 1, "scheme": "exact", "network": network, "payload": payload });
        let payment = Payment::from_header(&crate::x402::encode(&header)).unwrap();
        verify(&payment, &offer(), Amounts::Exact, NOW)
    };
    let taken = old(&without()).unwrap();
    assert_eq!((taken.memo(), extra(&taken.presented.requirements, "memo")), (None, None), "version 1 knows no memos");
    assert_eq!(old(&buyer::sign(honest().message(), &payer())).unwrap().memo(), Some(MEMO_OF_THE_OFFER));
    let mut other = honest();
    other.instructions[MEMO_AT].data = b"of another offer".to_vec();
    assert_eq!(reason_of(old(&buyer::sign(other.message(), &payer()))), reason::MEMO);
}

#[test]
fn what_the_buyer_says_it_accepted_is_compared_and_not_believed() {
    let transaction = buyer::sign(honest().message(), &payer());
    let said = |change: fn(&mut Requirements)| {
        let mut accepted = offer();
        change(&mut accepted);
        reason_of(verify(&presented(&transaction, &accepted), &offer(), Amounts::Exact, NOW))
    };
    let with = |key: &str, value: &str| {
        let mut accepted = offer();
        accepted.extra.as_mut().unwrap().insert(key.to_owned(), value.into());
        reason_of(verify(&presented(&transaction, &accepted), &offer(), Amounts::Exact, NOW))
    };
    assert_eq!(said(|_| {}), "");
    assert_eq!(said(|accepted| accepted.scheme = "upto".into()), common::UNSUPPORTED_SCHEME);
    assert_eq!(said(|accepted| accepted.scheme = "Exact".into()), reason::SCHEME);
    assert_eq!(said(|accepted| accepted.network = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp".into()), reason::NETWORK);
    assert_eq!(said(|accepted| accepted.pay_to = stranger().address().to_string()), reason::RECIPIENT);
    assert_eq!(said(|accepted| accepted.pay_to.make_ascii_lowercase()), reason::RECIPIENT, "case counts in base58");
    assert_eq!(said(|accepted| accepted.asset = Pubkey([8; 32]).to_string()), common::REQUIREMENTS);
    assert_eq!(said(|accepted| accepted.max_timeout_seconds += 1), common::REQUIREMENTS);
    assert_eq!(said(|accepted| accepted.extra = None), "", "what counts in it is signed");
    assert_eq!(with("feePayer", &stranger().address().to_string()), common::REQUIREMENTS);
    assert_eq!([with("recentBlockhash", "another"), with("lastValidBlockHeight", "1"), with("mine", "too")], [""; 3]);
}

#[test]
fn one_message_is_one_payment_whatever_stands_in_the_fee_payers_place() {
    let mut transaction = buyer::sign(honest().message(), &payer());
    let taken = |transaction: &Transaction| {
        let payment = presented(transaction, &offer());
        let id = payload::identify(&payment).unwrap();
        let verified = verify(&payment, &offer(), Amounts::Exact, NOW).unwrap();
        assert_eq!(verified.id(), id);
        assert!(verified.is_authorized_by(&presented(&buyer::sign(honest().message(), &payer()), &offer())));
        assert_eq!(verified.transaction().signatures[0], [0; 64], "nobody's bytes are kept there");
        id
    };
    let id = taken(&transaction);
    for byte in [1, 0x55, 0xff] {
        transaction.signatures[0] = [byte; 64];
        assert_eq!(taken(&transaction), id);
    }
    let mut other = honest();
    other.instructions[LIMIT].data[1] ^= 1;
    assert_ne!(judged(&other).unwrap().id(), id, "another message is another payment");
}

#[test]
fn a_stored_payment_is_read_back_and_one_that_was_changed_is_not() {
    let payment = presented(&buyer::sign(honest().message(), &payer()), &offer());
    let verified = crate::chain::verify(&payment, &offer(), Amounts::Exact, NOW).unwrap();
    let stored: Value = serde_json::from_slice(&verified.to_bytes()).unwrap();
    let read = |stored: &Value| VerifiedPayment::from_bytes(stored.to_string().as_bytes());
    let again = read(&stored).unwrap();
    assert_eq!((again.id(), again.payer(), again.amount()), (verified.id(), verified.payer(), verified.amount()));
    assert_eq!((again.network(), again.asset(), again.valid_before()), (offer().network.as_str(), mint().to_string(), None));
    assert_eq!(again.payer().to_string(), format!("solana:{}", payer().address()));
    assert!(!format!("{again:?}").contains("signature"));
    // What was agreed to be paid for is settled, whatever is paid for by now.
    let mut dear = honest();
    dear.instructions[UNIT_PRICE].data[1..].copy_from_slice(&1_000_000_000u64.to_le_bytes());
    assert_eq!(reason_of(judged(&dear)), reason::COMPUTE_PRICE_TOO_HIGH);
    let mut agreed = stored.clone();
    agreed["payload"] = buyer::payload(&buyer::sign(dear.message(), &payer()));
    assert_eq!(read(&agreed).unwrap().id().0, dear.message().hash());
    for (field, other) in [
        ("payTo", stranger().address().to_string()),
        ("payTo", "nobody".to_owned()),
        ("amount", "10001".to_owned()),
        ("asset", Pubkey([8; 32]).to_string()),
        ("network", "eip155:84532".to_owned()),
        ("network", "mars:1".to_owned()),
    ] {
        let mut changed = stored.clone();
        changed["requirements"][field] = other.clone().into();
        assert!(read(&changed).is_err(), "{field}: {other}");
    }
    let mut proven = stored.clone();
    proven["proof"] = "recovered".into();
    assert!(read(&proven).is_err(), "that is a proof of EVM payments");
}
