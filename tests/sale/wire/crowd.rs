//! Many at once: slow streams do not wait for each other, long prompts are forgotten, and nobody's flood fills the memory.

use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use farebox_rig::http::{self, Request, Stream};
use farebox_rig::process::eventually;
use farebox_rig::provider::{After, Provider, wait_gone};
use farebox_rig::server::MODEL;

use super::answers::{SHAPES, Shape, chunked, good, say, sized};
use super::stall::Stall;
use crate::shop::{CHARGE, CHAT, body};

const STREAM: Shape = SHAPES[1];

/// Says the first event of a stream and holds the rest back until the other side is gone.
fn hold(stream: &mut TcpStream) -> After {
    say(stream, &chunked(&STREAM.open_head(), &STREAM.events("")[..1]));
    wait_gone(stream);
    After::Close
}

/// Sends each order on a thread of its own and waits for the first piece of every answer.
fn open_all(address: &str, orders: Vec<http::Request>) -> Vec<Stream> {
    let (sender, streams) = mpsc::channel();
    let count = orders.len();
    for order in orders {
        let (address, sender) = (address.to_owned(), sender.clone());
        std::thread::spawn(move || {
            let mut stream = http::open(&address, &order).expect("an answer");
            assert_eq!(stream.status, 200);
            assert!(stream.next_chunk().is_some_and(|chunk| !chunk.is_empty()));
            let _ = sender.send(stream);
        });
    }
    drop(sender);
    let streams: Vec<_> = streams.iter().collect();
    assert_eq!(streams.len(), count, "every stream is live");
    streams
}

#[test]
fn three_hundred_slow_streams_live_at_once_and_starve_no_other_upstream() {
    let slow = Provider::start(|_, stream| hold(stream));
    let quick = Provider::start(|_, stream| say(stream, &good(STREAM)));
    let mut stall = Stall::open(&[slow.url(), quick.url()], &[]);
    let orders = stall.orders(CHAT, &body("", true), 300);
    let held = open_all(stall.server.address(), orders);
    assert_eq!((slow.requests().len(), slow.connected()), (300, 300), "each has its connection");
    let other = body("", true).replace(MODEL, &format!("{MODEL}-1"));
    let order = stall.orders(CHAT, &other, 1).remove(0);
    let answer = stall.server.send(&order);
    assert!(answer.complete && answer.text().contains("[DONE]"), "{}", answer.text());
    drop(held);
    eventually("all calls end", || stall.server.output().matches("the client left; charged").count() == 300);
    stall.close(0, |charged| charged > 0);
}

#[test]
fn a_prompt_of_two_megabytes_is_forgotten_while_its_answer_streams() {
    const STREAMS: usize = 100;
    let slow = Provider::start(|_, stream| hold(stream));
    let mut stall = Stall::open(&[slow.url()], &[]);
    let address = stall.server.address().to_owned();
    // The same crowd with short prompts first: what a held stream costs by itself.
    let orders = stall.orders(CHAT, &body("", true), STREAMS);
    let short = open_all(&address, orders);
    let before = stall.server.memory();
    let orders = stall.orders(CHAT, &body(&"long words ".repeat(190_000), true), STREAMS);
    assert!(orders[0].bytes("x").len() > 2_000_000);
    let mut long = Vec::new();
    // One after the other, so that what is measured is what is kept and not how many arrive at once.
    for order in orders {
        long.extend(open_all(&address, vec![order]));
    }
    let grown = stall.server.memory().saturating_sub(before);
    println!("{} kB for each stream with a prompt of 2 MB", grown / STREAMS as u64 / 1000);
    // What is left are buffers of the HTTP libraries and gaps in the heap; a prompt that is kept, or its copy, is 2 MB.
    assert!(grown < STREAMS as u64 * 800_000, "{grown} bytes more: the prompts are kept");
    drop((short, long));
    eventually("all calls end", || stall.server.output().matches("the client left; charged").count() == 2 * STREAMS);
    stall.close(0, |charged| charged > 0);
}

#[test]
fn a_flood_for_a_client_that_reads_nothing_waits_at_the_upstream_and_never_looks_whole() {
    let (sender, sent) = mpsc::channel();
    let flood = Provider::start(move |_, stream| {
        let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(60_000));
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        say(stream, &(STREAM.open_head() + "transfer-encoding: chunked\r\n\r\n"));
        let mut bytes = 0;
        while bytes < 500_000_000 && say(stream, &chunk) == After::Keep {
            bytes += chunk.len();
        }
        let _ = sender.send(bytes);
        After::Close
    });
    let mut stall = Stall::open(&[flood.url()], &["wall_clock_seconds = 6"]);
    let order = stall.orders(CHAT, &body("", true), 1).remove(0);
    let before = stall.server.memory();
    let mut idle = http::open(stall.server.address(), &order).expect("a head");
    let begun = Instant::now();
    let (mut most, mut said) = (0, None);
    while said.is_none() {
        most = most.max(stall.server.memory());
        said = sent.recv_timeout(Duration::from_millis(50)).ok();
    }
    let said = said.expect("just seen");
    println!("{said} bytes were taken from the upstream, {} kB more memory", most.saturating_sub(before) / 1000);
    assert!(said < 100_000_000, "the upstream could send {said} bytes that nobody reads");
    assert!(most.saturating_sub(before) < 40_000_000, "{before} bytes became {most}");
    assert!(begun.elapsed() > Duration::from_secs(2), "it was held back by the client, and ended by the time limit");
    eventually("the call is given up", || stall.server.send(&Request::get("/healthz")).json()["calls_in_flight"] == 0);
    let mut read = 0;
    while let Some(piece) = idle.next_chunk() {
        read += piece.len();
    }
    assert!(read > 0 && !idle.complete, "{read} bytes, which are not all of the answer, look as if they were");
    stall.server.has_said("the client left; charged");
    // Megabytes passed: the buyer took what it wanted, and pays the quote.
    stall.close(0, |charged| charged > 0);
}

#[test]
fn an_upstream_that_says_everything_at_once_is_passed_on_in_turns_whole_and_in_order() {
    let words: Vec<_> = (0..5000).map(|number| format!("w{number} ")).collect();
    let event = |word: &String| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{word}\"}}}}]}}\n\n");
    let end = STREAM.events(&STREAM.good_usage()).split_off(2);
    let events: Vec<_> = words.iter().map(event).chain(end).collect();
    for answer in [sized(&STREAM.open_head(), &events.concat()), chunked(&STREAM.open_head(), &events)] {
        let burst = Provider::start(move |_, stream| say(stream, &answer));
        let mut stall = Stall::open(&[burst.url()], &[]);
        let order = stall.orders(CHAT, &body("", true), 1).remove(0);
        let answer = stall.server.send(&order);
        assert!(answer.status == 200 && answer.complete, "{}", answer.status);
        let heard = answer.text();
        let told: Vec<_> = heard.split("\"content\":\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|it| it.0).collect();
        assert_eq!(told.len(), words.len());
        assert!(told == words, "another order");
        assert!(heard.trim_end().ends_with("[DONE]"));
        stall.close(0, |charged| charged == CHARGE);
    }
}

#[test]
fn a_thousand_who_come_while_nobody_looks_wait_at_the_door_and_are_not_turned_away() {
    // A thousand sockets are in this process, and those of other tests beside them.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(files >= 2000, "`ulimit -Hn` allows {files} open files, and this test needs 2000");
    let stall = Stall::open(&[], &[]);
    let process = stall.server.status_of("status", "Pid:").unwrap();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &process]).status().unwrap().success());
    let address = stall.server.address().parse().unwrap();
    signal("-STOP");
    // Who is turned away tries again after a second.
    let come = |_| TcpStream::connect_timeout(&address, Duration::from_millis(900));
    let came: Result<Vec<_>, _> = (0..1000).map(come).collect();
    signal("-CONT");
    assert!(came.is_ok(), "one of a thousand was turned away: {:?}", came.err());
    assert_eq!(stall.server.send(&Request::get("/v1/models")).status, 200);
    drop(came);
    stall.close(0, |charged| charged == 0);
}
