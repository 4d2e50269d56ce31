//! A client that leaves: noticed within moments whatever the upstream does, and its money is where it belongs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use farebox_rig::anvil::BUYER;
use farebox_rig::process::eventually;
use farebox_rig::provider::{After, Provider, wait_gone};
use farebox_rig::server::Settings;

use super::answers::{SHAPES, Shape, chunked, say};
use crate::shop::{CHAT, Shop, body, paid};

const STREAM: Shape = SHAPES[1];
/// Far more than the milliseconds it takes, and far less than any timer that could end the call instead.
const SOON: Duration = Duration::from_secs(10);

/// How far an upstream goes before it falls silent.
#[derive(Clone, Copy)]
enum Silence {
    BeforeTheHead,
    AfterTheHead,
    InMidStream,
    /// Never: an event every 50 ms.
    Chatty,
}

/// Tells when a request arrived, and when its caller was gone.
fn upstream(silence: Silence) -> (Provider, mpsc::Receiver<Instant>) {
    let (sender, moments) = mpsc::channel();
    let provider = Provider::start(move |_, stream| {
        let _ = sender.send(Instant::now());
        let events = STREAM.events("");
        let said = match silence {
            Silence::BeforeTheHead => String::new(),
            Silence::AfterTheHead => STREAM.open_head() + "transfer-encoding: chunked\r\n\r\n",
            Silence::InMidStream | Silence::Chatty => chunked(&STREAM.open_head(), &events[..1]),
        };
        say(stream, &said);
        if let Silence::Chatty = silence {
            let mut talking = stream.try_clone().expect("a socket can be cloned");
            let event = format!("{:x}\r\n{}\r\n", events[1].len(), events[1]);
            std::thread::spawn(move || {
                while say(&mut talking, &event) == After::Keep {
                    std::thread::sleep(Duration::from_millis(200));
                }
            });
        }
        wait_gone(stream);
        let _ = sender.send(Instant::now());
        After::Close
    });
    (provider, moments)
}

/// A buyer leaves; gives the shop, what was paid, and checks that the upstream was let go at once.
fn leave(silence: Silence, settle_after: &str) -> (Shop, u64) {
    let (provider, moments) = upstream(silence);
    let payments = vec![settle_after.to_owned()];
    let settings = Settings { payments, upstream_url: Some(provider.url()), ..Settings::default() };
    let mut shop = Shop::with(84532, &settings);
    let body = body("", true);
    let payment = shop.pay(CHAT, &body);
    let mut client = TcpStream::connect(shop.server.address()).unwrap();
    client.write_all(&paid(CHAT, &body, &payment).bytes(shop.server.address())).unwrap();
    moments.recv_timeout(Duration::from_secs(60)).expect("the upstream is asked");
    if let Silence::BeforeTheHead = silence {
        let settles = settle_after.ends_with(" 50");
        eventually("settlement has come as far as it will", || !settles || shop.server.output().contains("settlement confirmed"));
    } else {
        // All that came is read: a client that leaves something unread is noticed by another sign.
        let expected = if let Silence::AfterTheHead = silence { "\r\n\r\n" } else { "hello" };
        let (mut seen, mut piece) = (String::new(), [0; 4096]);
        while !seen.contains(expected) {
            let read = client.read(&mut piece).unwrap();
            assert!(read > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
    }
    let left = Instant::now();
    drop(client);
    let closed = moments.recv_timeout(Duration::from_secs(60)).expect("the upstream is let go").saturating_duration_since(left);
    println!("the upstream was let go {} us after the client left", closed.as_micros());
    assert!(closed < SOON, "it took {closed:?}");
    assert_eq!(provider.requests().len(), 1, "nobody asked again");
    (shop, payment.amount)
}

#[test]
fn a_client_that_leaves_before_anything_settled_keeps_its_money() {
    let (shop, _) = leave(Silence::BeforeTheHead, "settle_after_ms = 20000");
    assert_eq!(shop.earned(), 0, "nothing settled");
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), 0);
}

#[test]
fn a_client_that_leaves_a_silent_upstream_after_it_paid_has_all_of_it_as_balance() {
    let (shop, amount) = leave(Silence::BeforeTheHead, "settle_after_ms = 50");
    assert_eq!(shop.earned(), amount);
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), amount);
}

#[test]
fn a_client_that_leaves_in_mid_answer_lets_the_upstream_go_at_once_and_pays_for_what_passed() {
    for silence in [Silence::AfterTheHead, Silence::InMidStream, Silence::Chatty] {
        let (mut shop, amount) = leave(silence, "settle_after_ms = 20000");
        eventually("the call is ended", || shop.server.output().contains("the client left; charged"));
        assert_eq!(shop.earned(), amount);
        let books = shop.server.audit();
        assert!(books.clean, "{:#}", books.json);
        let balance = books.balance(BUYER.address);
        assert!(balance > amount / 2 && balance < amount, "of {amount} all but the prompt and a few words is left: {balance}");
    }
}
