//! A program that is told to stop: running answers may end, and whoever cannot wait ends it at once, with the books right.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use farebox_rig::anvil::BUYER;
use farebox_rig::process::eventually;

use crate::shop::{CHAT, Shop, body, paid};

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
