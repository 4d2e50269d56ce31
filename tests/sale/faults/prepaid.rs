//! Death while a call runs that a balance pays for: what it held is back, what was heard is charged at most once, the key still buys.

use farebox_rig::account::Key;
use farebox_rig::anvil::{Anvil, BUYER};
use farebox_rig::http::{self, Request};
use farebox_rig::server::{INPUT_PRICE, OUTPUT_PRICE, Server, Settings};
use farebox_rig::upstream::Upstream;
use serde_json::json;

use super::{TIMES, for_each};
use crate::shop::{CHAT, body};

/// How the calls go that run when the program dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calls {
    /// Event by event, over many steps of the hold.
    Streams,
    /// In one piece, for more than is held without a word on the disk.
    Dear,
    /// Short ones, to their end.
    Whole,
    /// The client leaves after a few words.
    Left,
    /// The upstream refuses.
    Refused,
}

const POINTS: [(&str, Calls); 19] = [
    ("hold.before", Calls::Streams),
    ("hold.noted", Calls::Streams),
    ("hold.after", Calls::Dear),
    ("upstream.headers", Calls::Streams),
    ("reply.before", Calls::Streams),
    ("reply.piece", Calls::Streams),
    ("stream.chunk", Calls::Streams),
    ("extend.before", Calls::Streams),
    ("extend.after", Calls::Streams),
    ("checkpoint.before", Calls::Streams),
    ("checkpoint.after", Calls::Streams),
    ("post.before", Calls::Whole),
    ("post.after", Calls::Whole),
    ("post.before", Calls::Left),
    ("post.after", Calls::Left),
    ("void.before", Calls::Refused),
    ("void.after", Calls::Refused),
    ("commit.before", Calls::Streams),
    ("commit.after", Calls::Dear),
];

pub fn points() -> Vec<&'static str> {
    POINTS.iter().map(|(point, _)| *point).collect()
}

/// What every whole answer uses and costs; far more than its words look like.
const WHOLE: u64 = 60 * INPUT_PRICE + 150 * OUTPUT_PRICE;
const FUNDS: u64 = 5_000_000;
/// More calls than come by before any point is reached for the last time.
const ENOUGH: usize = 30;

/// What the caller saw of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Part,
    Whole,
}

struct Stand {
    server: Server,
    upstream: Upstream,
    _chain: Anvil,
    key: Key,
    /// What the wallet has by the books of the last audit.
    balance: u64,
}

impl Stand {
    fn open() -> Stand {
        let (chain, upstream) = (Anvil::start(84532), Upstream::start());
        let settings = Settings { prepaid: vec!["hold_output = 10".into()], ..Settings::default() };
        let server = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream, &settings);
        let answer = server.account(BUYER).top_up(FUNDS);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let key = server.account(BUYER).mint(&json!({ "name": "k", "spend_limit_usd": "4.5", "reset": "none" }));
        Stand { server, upstream, _chain: chain, key, balance: FUNDS }
    }

    fn request(&self, calls: Calls) -> Request {
        let words = match calls {
            Calls::Streams | Calls::Left => "words=60 gap=10",
            // Slow enough for what was charged before to be on the disk.
            Calls::Dear | Calls::Whole | Calls::Refused => "text=hello+wallet ttfb=400",
        };
        let body = body(&format!("<<fake in=60 out=150 {words}>>"), calls != Calls::Dear);
        let body = if calls == Calls::Dear { body.replace("\"max_tokens\":256", "\"max_tokens\":64000") } else { body };
        Request::post(CHAT, body).header("authorization", &format!("Bearer {}", self.key.text))
    }

    /// Makes one call.
    fn call(&self, calls: Calls) -> Seen {
        let Ok(mut stream) = http::open(self.server.address(), &self.request(calls)) else { return Seen::Nothing };
        let mut text = String::new();
        while let Some(piece) = stream.next_chunk() {
            text.push_str(&String::from_utf8_lossy(&piece));
            if calls == Calls::Left && text.contains("w3") {
                return Seen::Part;
            }
        }
        let words = text.contains("\"content\":\"w") || text.contains("hello");
        match (stream.status == 200 && stream.complete, words) {
            (true, _) => Seen::Whole,
            (false, true) => Seen::Part,
            (false, false) => Seen::Nothing,
        }
    }

    /// Calls until the program has died, the calls one after the other.
    fn call_until_death(&mut self, point: &str, calls: Calls) -> Vec<Seen> {
        let mut seen = Vec::new();
        while self.server.is_running() && seen.len() < ENOUGH {
            seen.push(self.call(calls));
        }
        self.server.wait_death(point);
        seen
    }

    /// Stops the program in good order; the books must be clean and hold nothing. Returns what was charged since the last time.
    fn charged(&mut self, what: &str) -> u64 {
        let books = self.server.audit();
        assert!(books.clean && books.json["open_holds"] == 0, "{what}: {:#}", books.json);
        let before = std::mem::replace(&mut self.balance, books.balance(BUYER.address));
        before.checked_sub(self.balance).unwrap_or_else(|| panic!("{what}: a balance of {before} became {}", self.balance))
    }
}

/// The least and the most that calls may have cost which were seen like this before the program died. The charge of the last
/// one may be lost to the operator with the program's last moment; a caller never pays for what it did not get.
fn bounds(calls: Calls, seen: &[Seen]) -> (u64, u64) {
    let most = |seen: &Seen| if *seen == Seen::Nothing { 0 } else { WHOLE };
    let whole = seen.iter().filter(|seen| **seen == Seen::Whole).count();
    let least = whole.saturating_sub(1);
    let least = if calls == Calls::Left { 0 } else { u64::try_from(least).unwrap() * WHOLE };
    (least, seen.iter().map(most).sum())
}

#[test]
fn a_death_while_a_balance_pays_gives_back_what_was_held_and_charges_what_was_heard() {
    for_each(&POINTS, |(point, calls)| {
        let mut stand = Stand::open();
        for nth in 1..=TIMES {
            let what = format!("{point}:{nth}, {calls:?}");
            stand.server.restart_armed(&format!("{point}:{nth}"));
            stand.upstream.configure(&if *calls == Calls::Refused { json!({ "status": 400 }) } else { json!({}) });
            let seen = stand.call_until_death(point, *calls);
            stand.upstream.configure(&json!({}));
            stand.server.restart();
            let charged = stand.charged(&what);
            let (least, most) = bounds(*calls, &seen);
            assert!((least..=most).contains(&charged), "{what}: {charged} charged, not {least} to {most}, for {seen:?}");
            // The key still buys, at the same price, and nothing of its limit or of the balance is stuck.
            stand.server.restart();
            assert_eq!(stand.call(Calls::Whole), Seen::Whole, "{what}");
            assert_eq!(stand.charged(&what), WHOLE, "{what}");
        }
        assert!(stand.balance < FUNDS);
    });
}
