//! A program that is told to stop: running answers may end, and whoever cannot wait ends it at once, with the books right.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use farebox_rig::anvil::BUYER;
use farebox_rig::http::Request;
use farebox_rig::process::eventually;

use crate::shop::{CHARGE, CHAT, Shop, body, paid};

#[test]
fn a_second_signal_ends_a_long_answer_and_charges_what_passed() {
    let mut shop = Shop::open();
    let body = body("<<fake in=20 words=400 gap=200>>", true);
    let payment = shop.pay(CHAT, &body);
    let request = paid(CHAT, &body, &payment).bytes(shop.server.address());
    let mut stream = TcpStream::connect(shop.server.address()).unwrap();
    stream.write_all(&request).unwrap();
    let mut seen = [0; 2000];
    stream.read_exact(&mut seen).unwrap();
    let asked = Instant::now();
    shop.server.signal();
    eventually("it says that it stops", || shop.server.output().contains("stopping"));
    assert!(shop.server.is_running(), "the answer may end first");
    // A second signal, and the program ends although the answer has eighty seconds to go.
    let books = shop.server.audit();
    assert!(asked.elapsed() < Duration::from_secs(20));
    assert!(books.clean, "{:#}", books.json);
    let left = books.balance(BUYER.address);
    assert!(left > 0 && left < payment.amount, "charged for what passed, not for the rest: {left} of {}", payment.amount);
}

#[test]
fn a_stop_lets_a_call_end_that_began_when_calls_could_last_longer() {
    let mut shop = Shop::open();
    let body = body("<<fake in=20 out=7 words=40 gap=200>>", true);
    let payment = shop.pay(CHAT, &body);
    let mut stream = farebox_rig::http::open(shop.server.address(), &paid(CHAT, &body, &payment)).unwrap();
    assert!(stream.next_chunk().is_some(), "it has begun");
    shop.server.reconfigure(|text| text.replacen("[limits]", "[limits]\nwall_clock_seconds = 1", 1));
    let (code, said) = shop.server.reload();
    assert!(code == 0 && said.contains("wall_clock_seconds"), "{said}");
    shop.server.signal();
    while stream.next_chunk().is_some() {}
    assert!(stream.complete, "it had its old time");
    shop.server.wait_exit();
    shop.close(CHARGE);
}

#[test]
fn a_stop_under_load_lets_every_answer_end_and_every_payment_settle() {
    let mut shop = Shop::open();
    let slow = "<<fake in=20 out=7 words=25 gap=100>>";
    assert_eq!(shop.server.account(BUYER).top_up(1_000_000).status, 200);
    let key = shop.server.account(BUYER).mint_by_hand();
    let bodies = [body(slow, true), body("<<fake in=20 out=7 ttfb=2500>>", false)];
    let mut requests = Vec::new();
    for body in &bodies {
        let offer = shop.requirements(CHAT, body);
        for payment in shop.sign_all(BUYER, vec![offer; 2]) {
            requests.push(paid(CHAT, body, &payment));
        }
        let keyed = Request::post(CHAT, body.as_str()).header("authorization", &format!("Bearer {}", key.text));
        requests.extend([keyed.clone(), keyed]);
    }
    let address = shop.server.address().to_owned();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> =
            requests.iter().map(|request| scope.spawn(|| farebox_rig::http::send(&address, request).unwrap())).collect();
        eventually("all are at the upstream", || shop.served() == requests.len());
        shop.server.signal();
        eventually("it says that it stops", || shop.server.output().contains("stopping"));
        eventually("nobody new is let in", || TcpStream::connect(&address).is_err());
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    for answer in &answers {
        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    }
    shop.server.wait_exit();
    shop.close(answers.len() as u64 * CHARGE);
}
