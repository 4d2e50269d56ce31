//! When the books are told: a program that dies has charged for nothing that it had not handed over.

use std::future::ready;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};

use super::*;
use crate::account::AccountId;
use crate::catalogue::Serving;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Speaks, UpstreamKind};
use crate::dialect::{Goods, Meter};
use crate::ids::{PaymentId, RequestId};
use crate::ledger::{Attempt, Claim, Ledger, Options, Recovered};
use crate::money::UnitPrice;
use crate::tariff::{Tariff, TokenPrices};
use crate::upstream::{Call, Upstreams};

const AMOUNT: Micros = Micros::new(1_000_000);
const BUYER: AccountId = AccountId::Evm([9; 20]);

fn open(folder: &Path) -> (Ledger, Recovered) {
    let clock = Clock::new(|| Timestamp::from_secs(1_767_225_600));
    Ledger::open(&folder.join("ledger.redb"), clock, Options::default()).unwrap()
}

/// Letters of a word: no two of them leave in one piece.
const LETTERS: usize = TOGETHER;

/// Starts to relay an echo of `words` words, paid for and not yet looked at by anybody, which ends after `seconds` at most.
async fn start(ledger: &Ledger, words: usize, stream: bool, seconds: u64) -> (JoinHandle<()>, RelayBody) {
    let (sale, body) = sell(ledger, words, stream, seconds).await;
    let (pump, relayed) = Pump::new(sale);
    (spawn_local(pump.run(body, None)), relayed)
}

/// What is paid for then, and its answer.
async fn sell(ledger: &Ledger, words: usize, stream: bool, seconds: u64) -> (Sale, AnswerBody) {
    let (id, request) = (PaymentId([1; 32]), RequestId(1));
    let text = |text: &str| text.to_owned();
    let (network, asset, route, model) = (text("eip155:84532"), text("0x01"), text("/v1/chat/completions"), Some(text("m")));
    let detail = Vec::new();
    let claim = Claim { id, network, asset, payer: BUYER, amount: AMOUNT, request, route, model, detail };
    let reservation = ledger.claim(claim).await.unwrap();
    let attempt = Attempt { tx: text("0x01"), raw: Vec::new(), bound_to: 0 };
    ledger.signed(id, attempt).unwrap().wait().await.unwrap();
    ledger.confirmed(id, "0x01", 1).unwrap().wait().await.unwrap();

    let echo = config::Upstream { name: text("e"), kind: UpstreamKind::Echo, speaks: vec![Speaks::Chat] };
    let content = vec!["w".repeat(LETTERS); words].join(" ");
    let asked = serde_json::json!({ "model": "m", "stream": stream, "messages": [{ "role": "user", "content": content }] });
    let (dialect, deadline) = (Dialect::Chat, Instant::now() + Duration::from_secs(seconds));
    let servings = [Serving { upstream: text("e"), model: text("m"), weight: None, cost: None }];
    let (goods, content_type) = (Goods::Words(dialect), "application/json".into());
    let (account, headers) = (AccountId::Evm([1; 20]), &[]);
    let call = Call {
        account,
        servings: &servings,
        goods,
        content_type,
        body: &|_, _, _| Box::pin(ready(Ok(Bytes::from(asked.to_string())))),
        headers,
        query: None,
        stream,
        deadline,
    };
    let answer = Upstreams::new(&[echo]).unwrap().send(&reservation, call).await.unwrap();

    let paid = reservation.paid().unwrap_or_else(|_| panic!("the money is there"));
    let tariff = Tariff {
        tokens: TokenPrices { output: UnitPrice::per_million("15").unwrap(), ..TokenPrices::default() },
        ..Tariff::default()
    };
    let gauge = Gauge::Words(Meter::new(dialect, stream, false, 10));
    let ended: Ended = Box::pin(std::future::pending());
    let tab = Tab { paid, tariff, growth: None, flat: None, upstream: text("e"), cost: None, told: None };
    let length = answer.content_length;
    (Sale { tab, gauge, translation: None, heard: dialect, dialect, stream, length, deadline, ended }, answer.body)
}

/// Lets the relay do all it can, and then takes so many pieces as a server does that writes each at once.
async fn take(relayed: &mut RelayBody, pieces: usize) {
    for piece in 0..=pieces {
        for _ in 0..100 {
            yield_now().await;
        }
        if piece < pieces {
            assert!(relayed.next().await.is_some(), "there are so many pieces");
        }
    }
}

/// What the next start finds when the program dies after so many pieces of the answer were taken.
fn found_after(words: usize, stream: bool, pieces: usize) -> (Recovered, Micros) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    let (ledger, _) = open(folder.path());
    tasks.block_on(&runtime, async {
        let (_task, mut relayed) = start(&ledger, words, stream, 60).await;
        take(&mut relayed, pieces).await;
        // All that was told to the books by now is durable, and nothing after it.
        ledger.close();
    });
    drop((tasks, ledger));
    let (ledger, recovered) = open(folder.path());
    let credited = ledger.available(BUYER);
    ledger.close();
    (recovered, credited)
}

#[test]
fn nothing_is_charged_for_words_that_nobody_has_taken() {
    for (words, stream) in [(1, false), (1, true), (40, true)] {
        let (recovered, credited) = found_after(words, stream, 0);
        assert_eq!((recovered.voided, recovered.charged), (1, 0), "{words} words, streamed: {stream}");
        assert_eq!(credited, AMOUNT);
    }
}

#[test]
fn what_was_taken_of_a_stream_is_charged_and_no_more() {
    // No piece holds more than one of the long words; the first one holds what an echo says before them as well.
    let pieces = 12;
    let (recovered, credited) = found_after(40, true, pieces);
    assert_eq!((recovered.voided, recovered.charged), (0, 1));
    let charged = AMOUNT.saturating_sub(credited);
    let taken = pieces * (LETTERS + " ".len()) + "You said: ".len();
    let most = Micros::new(15 * u64::try_from(taken).unwrap().div_ceil(4));
    assert!(charged > Micros::ZERO && charged <= most, "{charged} for what is worth {most} at most");
}

#[test]
fn a_whole_answer_is_charged_as_soon_as_its_last_piece_is_taken() {
    let (recovered, credited) = found_after(1, false, 1);
    assert_eq!((recovered.voided, recovered.charged), (0, 0), "the call had ended in the books");
    assert!(credited < AMOUNT);
}

/// All that a client gets who takes nothing until the call was given up, and whether that looks like the end.
fn read_after_the_time_limit(stream: bool) -> (usize, bool) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    let (ledger, _) = open(folder.path());
    tasks.block_on(&runtime, async {
        let (pump, mut relayed) = start(&ledger, 12, stream, 1).await;
        pump.await.unwrap();
        let (mut pieces, mut broken) = (0, false);
        while let Some(piece) = relayed.next().await {
            if piece.is_err() {
                broken = true;
                break;
            }
            pieces += 1;
        }
        ledger.close();
        (pieces, broken)
    })
}

#[test]
fn a_client_that_stalls_until_the_call_is_given_up_and_then_reads_on_never_sees_a_clean_end() {
    let (pieces, broken) = read_after_the_time_limit(true);
    assert!(pieces > 0 && pieces < 12, "{pieces} of more than 12 pieces had left");
    assert!(broken, "a part of the answer looks like all of it");
    assert_eq!(read_after_the_time_limit(false), (1, false), "all of a plain answer was there, so that is its end");
}

#[test]
fn an_answer_whose_pump_is_gone_is_no_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    let (ledger, _) = open(folder.path());
    tasks.block_on(&runtime, async {
        let (pump, mut relayed) = start(&ledger, 12, true, 60).await;
        take(&mut relayed, 1).await;
        pump.abort();
        assert!(pump.await.is_err_and(|end| end.is_cancelled()));
        let mut last = Ok(Bytes::new());
        while let (Ok(_), Some(piece)) = (&last, relayed.next().await) {
            last = piece;
        }
        assert!(last.is_err(), "a part of the answer looks like all of it");
        ledger.close();
    });
}

/// Runs with an answer that came whole: what was paid for, what came, and where it is shelved.
fn with_whole(test: impl AsyncFnOnce(&Ledger, Sale, Bytes, &Rc<Shelf>)) -> Micros {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (ledger, _) = open(folder.path());
    LocalSet::new().block_on(&runtime, async {
        let (sale, mut body) = sell(&ledger, 1, false, 60).await;
        let answer = body.next().await.unwrap().unwrap();
        test(&ledger, sale, answer, &Rc::default()).await;
    });
    let credited = ledger.available(BUYER);
    ledger.close();
    credited
}

async fn poll(whole: &mut Whole) -> Poll<Option<Piece>> {
    std::future::poll_fn(|cx| Poll::Ready(whole.poll(cx))).await
}

#[test]
fn an_answer_that_came_whole_is_charged_once_it_was_written_and_not_before() {
    for (keep, is_complete) in [(usize::MAX, true), (40, false)] {
        let credited = with_whole(async |ledger, sale, mut answer, shelf| {
            answer.truncate(keep);
            let mut whole = shelve(sale, answer.clone(), shelf, None);
            let Poll::Ready(Some(Ok(piece))) = poll(&mut whole).await else { panic!("the answer is there") };
            assert_eq!(piece, answer);
            assert!(poll(&mut whole).await.is_pending(), "there is a turn in which it is written");
            assert_eq!(ledger.available(BUYER), Micros::ZERO, "nothing was charged, and nothing given back");
            let Poll::Ready(end) = poll(&mut whole).await else { panic!("there is nothing more") };
            assert_eq!(end.is_none(), is_complete);
        });
        assert_eq!(credited < AMOUNT, is_complete, "{credited} was given back");
    }
}

#[test]
fn an_answer_that_came_whole_costs_nothing_if_nobody_took_it_and_its_price_if_its_client_took_it_and_left() {
    let untaken = with_whole(async |_, sale, answer, shelf| drop(shelve(sale, answer, shelf, None)));
    assert_eq!(untaken, AMOUNT);
    let taken = with_whole(async |_, sale, answer, shelf| {
        let mut whole = shelve(sale, answer, shelf, None);
        assert!(poll(&mut whole).await.is_ready());
    });
    assert!(taken < AMOUNT && taken > Micros::ZERO, "{taken} was given back");
}

#[test]
fn an_answer_that_came_whole_holds_its_money_no_longer_than_a_client_may_stall() {
    let credited = with_whole(async |ledger, sale, answer, shelf| {
        let mut whole = shelve(sale, answer.clone(), shelf, None);
        shelf.give_up(Instant::now() + STALL / 2);
        assert_eq!(ledger.available(BUYER), Micros::ZERO, "it may still be taken");
        shelf.give_up(Instant::now() + STALL);
        let charged = AMOUNT.saturating_sub(ledger.available(BUYER));
        assert!(charged > Micros::ZERO && charged < AMOUNT, "{charged} for an answer that waited for its client");
        let Poll::Ready(Some(Ok(piece))) = poll(&mut whole).await else { panic!("it is paid for and still there") };
        assert_eq!(piece, answer);
        drop(whole);
        assert_eq!(AMOUNT.saturating_sub(ledger.available(BUYER)), charged, "and is charged once");
    });
    assert!(credited < AMOUNT);
}

/// Sets a task's flag when it is dropped.
struct Guard(Rc<Cell<bool>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// Passes on what was bought before to a reader that pauses before each piece, and says how it ended: after how many pieces,
/// whether as a whole one, whether all was let go, and whether what follows a whole one did.
fn pass_on_to(reader: Duration, pace: Pace) -> (usize, bool, bool, bool) {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = open(folder.path());
    let outcome = actix_web::rt::System::new().block_on(async {
        let (_sale, body) = sell(&ledger, 40, true, 60).await;
        let (let_go, followed) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let then = Rc::clone(&followed);
        let mut relayed = pass_on((body, None), pace, Guard(Rc::clone(&let_go)), async move { then.set(true) });
        let (mut pieces, mut whole) = (0, true);
        loop {
            sleep(reader).await;
            match relayed.next().await {
                Some(Ok(_)) => pieces += 1,
                Some(Err(Incomplete)) => whole = false,
                None => break,
            }
            if !whole {
                break;
            }
        }
        for _ in 0..100 {
            yield_now().await;
        }
        (pieces, whole, let_go.get(), followed.get())
    });
    ledger.close();
    outcome
}

#[test]
fn who_takes_too_little_of_what_it_bought_is_let_go_and_who_takes_its_time_within_reason_is_not() {
    let swift = Pace { grace: Duration::from_secs(60), bytes_per_second: 100_000 };
    let (all, whole, let_go, followed) = pass_on_to(Duration::ZERO, swift);
    assert!(all >= 40 && whole && let_go && followed, "{all} pieces: {whole} {let_go} {followed}");
    // Four thousand bytes each tenth of a second are less than a hundred thousand a second.
    let trickle = Pace { grace: Duration::from_millis(200), bytes_per_second: 100_000 };
    let (some, whole, let_go, followed) = pass_on_to(Duration::from_millis(100), trickle);
    assert!(some < all && !whole && let_go && !followed, "{some} of {all} pieces: {whole} {let_go} {followed}");
    // The same reader is swift enough where less is asked, although the grace is over long before the end.
    let patient = Pace { grace: Duration::from_millis(200), bytes_per_second: 1_000 };
    assert_eq!(pass_on_to(Duration::from_millis(20), patient), (all, true, true, true));
}
