//! Death while a call is sold: claimed, opened, signed, sent, confirmed, answered, charged or given back.

use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use serde_json::json;

use super::stand::{Route, Stand, Terms};
use super::{TIMES, for_each};

/// How the calls go that are sold when the program dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calls {
    /// Plain answers and streams in turn, on both routes.
    Mixed,
    /// Streams only, event by event.
    Streams,
    /// The same, so slow that several events are left to come when the money has moved, before which they leave together.
    SlowStreams,
    /// Plain, streamed, the client leaves, the upstream breaks off.
    Ended,
    /// The upstream refuses, at once or after the money has moved.
    Refused,
}

/// The point, the calls, and how often one call comes by.
const POINTS: [(&str, Calls, usize); 25] = [
    ("claim.before", Calls::Mixed, 1),
    ("claim.after", Calls::Mixed, 1),
    ("upstream.headers", Calls::Mixed, 1),
    ("sign.before", Calls::Mixed, 1),
    ("sign.after", Calls::Mixed, 1),
    ("broadcast.before", Calls::Mixed, 1),
    ("broadcast.after", Calls::Mixed, 1),
    ("broadcast.noted", Calls::Mixed, 1),
    ("confirm.before", Calls::Mixed, 1),
    ("confirm.after", Calls::Mixed, 1),
    ("reply.before", Calls::Mixed, 1),
    ("reply.piece", Calls::SlowStreams, 5),
    ("reply.piece", Calls::Mixed, 1),
    ("stream.chunk", Calls::SlowStreams, 5),
    ("stream.chunk", Calls::Mixed, 1),
    ("checkpoint.before", Calls::Streams, 1),
    ("checkpoint.after", Calls::Streams, 1),
    ("post.before", Calls::Ended, 1),
    ("post.after", Calls::Ended, 1),
    ("void.before", Calls::Refused, 1),
    ("void.after", Calls::Refused, 1),
    ("commit.before", Calls::Mixed, 3),
    ("commit.after", Calls::Mixed, 3),
    ("commit.before", Calls::Ended, 3),
    ("commit.after", Calls::Refused, 1),
];

pub fn points() -> Vec<&'static str> {
    POINTS.iter().map(|(point, ..)| *point).collect()
}

#[test]
fn a_death_while_selling_leaves_every_payer_served_once_or_credited_once() {
    for_each(&POINTS, |(point, calls, per_call)| {
        let mut stand = Stand::open(&Settings::default());
        for nth in 1..=TIMES {
            die(&mut stand, point, *calls, nth, nth.div_ceil(*per_call));
        }
    });
}

/// Sells until the program dies, the last two times at once.
fn die(stand: &mut Stand, point: &str, calls: Calls, nth: usize, count: usize) {
    // Claims that come at once share one commit.
    let shared = point.starts_with("commit") && calls == Calls::Refused;
    let at_once = nth + 1 >= TIMES && count > 1 && !shared;
    stand.what = format!("{point}:{nth}, {calls:?}, {}", if at_once { "at once" } else { "in turn" });
    stand.order_of_settling(nth.is_multiple_of(2));
    stand.server.restart_armed(&format!("{point}:{nth}"));
    let sales = (0..count).map(|place| stand.order(terms(calls, nth + place))).collect();
    if calls == Calls::Refused {
        let late = nth.is_multiple_of(2);
        stand.upstream.configure(&json!({ "status": 400, "ttfb": if late { 700 } else { 0 } }));
    }
    let seen = match at_once {
        true => stand.buy_at_once(sales, |_| ()),
        false => stand.buy_in_turn(sales),
    };
    stand.server.wait_death(point);
    stand.upstream.configure(&json!({}));
    let voided = stand.logged("calls.voided=1");
    stand.recover(seen);
    if point == "claim.after" && !at_once {
        let why = format!("{}: the claim was durable", stand.what);
        eventually(&why, || stand.logged("calls.voided=1") == voided + 1);
    }
    stand.audit();
}

fn terms(calls: Calls, number: usize) -> Terms {
    let route = if number.is_multiple_of(3) { Route::Messages } else { Route::Chat };
    let streamed = Terms { stream: true, route, ..Terms::default() };
    match calls {
        Calls::Mixed | Calls::Refused => Terms { stream: number.is_multiple_of(2), ..streamed },
        Calls::Streams => Terms { upstream: "words=80 gap=30", ..streamed },
        Calls::SlowStreams => Terms { upstream: "words=80 gap=100", ..streamed },
        Calls::Ended => match number % 4 {
            0 => Terms { upstream: "gap=30", ..streamed },
            1 => Terms { stream: false, ..streamed },
            2 => Terms { upstream: "words=12 gap=30", hangs_up: true, ..streamed },
            _ => Terms { upstream: "words=12 cut=4", ..streamed },
        },
    }
}
