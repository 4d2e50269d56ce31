//! Death while the program starts or ends: whatever state the last death left, one in the middle of mending it changes nothing.

use std::fs;

use farebox_rig::process::eventually;
use farebox_rig::server::Settings;

use super::stand::{Route, Sale, Seen, Stand, Terms};
use super::{TIMES, for_each};

/// What a start finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// An empty folder.
    Nothing,
    /// Books that were closed in good order.
    History,
    /// A claim for which nothing was signed.
    Claimed,
    /// A transaction that was signed and not sent.
    Signed,
    /// One that was sent and is mined by now.
    Sent,
    /// Money that is there, for an answer that was never given.
    Confirmed,
    /// Half a stream.
    MidStream,
    /// So many payments at once, sent and not mined.
    Pending(usize),
}

const ANY: [Left; TIMES] = [Left::Nothing, Left::History, Left::Claimed, Left::Sent, Left::MidStream];
const NOTHING: [Left; TIMES] = [Left::Nothing; TIMES];
/// Each has a call that was not ended in the books.
const OPEN_CALL: [Left; TIMES] = [Left::Claimed, Left::Signed, Left::Sent, Left::Confirmed, Left::MidStream];
const PENDING: [Left; TIMES] = [Left::Pending(1), Left::Pending(2), Left::Pending(3), Left::Pending(4), Left::Pending(5)];

/// What makes a start come by the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    None,
    /// A failed write has left its mark.
    Suspect,
    /// The operator has changed a price.
    NewPrice,
}

const POINTS: [(&str, [Left; TIMES], Cause); 18] = [
    ("make.made", NOTHING, Cause::None),
    ("make.placed", NOTHING, Cause::None),
    ("open.counted", ANY, Cause::None),
    ("money.before", ANY, Cause::None),
    ("money.after", ANY, Cause::None),
    ("recover.checked", ANY, Cause::None),
    ("recover.before", OPEN_CALL, Cause::None),
    ("recover.after", OPEN_CALL, Cause::None),
    ("rescue.copied", OPEN_CALL, Cause::Suspect),
    ("rescue.renamed", OPEN_CALL, Cause::Suspect),
    ("rescue.replaced", OPEN_CALL, Cause::Suspect),
    ("rescue.unmarked", OPEN_CALL, Cause::Suspect),
    ("resume.before", PENDING, Cause::None),
    ("resume.after", PENDING, Cause::None),
    ("resend.before", PENDING, Cause::None),
    ("resend.after", PENDING, Cause::None),
    ("prices.before", ANY, Cause::NewPrice),
    ("prices.after", ANY, Cause::NewPrice),
];
const AT_THE_END: [&str; 2] = ["close.before", "close.after"];

pub fn points() -> Vec<&'static str> {
    POINTS.iter().map(|(point, ..)| *point).chain(AT_THE_END).collect()
}

#[test]
fn a_death_while_starting_changes_nothing_of_what_the_last_death_left() {
    for_each(&POINTS, |(point, lefts, cause)| {
        let mut stand = Stand::open(&Settings::default());
        for (round, left) in lefts.iter().enumerate() {
            // A chain that remembers earlier sales agrees with no books that begin with nothing.
            if *left == Left::Nothing && round > 0 {
                stand = Stand::open(&Settings::default());
            }
            stand.what = format!("{point} at a start that finds {left:?}, {cause:?}");
            let sales = leave(&mut stand, *left);
            die(&mut stand, point, *left, *cause);
            stand.recover(sales);
            stand.audit();
        }
    });
}

fn die(stand: &mut Stand, point: &str, left: Left, cause: Cause) {
    match cause {
        Cause::None => {}
        Cause::Suspect => fs::write(stand.server.data_dir().join("ledger.suspect"), "a write failed").unwrap(),
        Cause::NewPrice => stand.raise_price(),
    }
    let nth = if let Left::Pending(count) = left { count } else { 1 };
    let fault = format!("{point}:{nth}");
    stand.server.restart_into_death(&fault);
    // Dying there again is the same as dying there once, except where the first start has left nothing to do.
    let only_once = ["make.placed", "recover.after", "rescue.unmarked", "prices.after"].contains(&point);
    if !only_once {
        stand.server.restart_into_death(&fault);
    }
    if let Left::Pending(_) = left {
        stand.chain.mine(1);
        stand.chain.set_automine(true);
    }
}

/// Brings the books into a state, and ends the program there.
fn leave(stand: &mut Stand, left: Left) -> Vec<(Sale, Seen)> {
    let point = match left {
        Left::Nothing => {
            stand.server.kill();
            fs::remove_dir_all(stand.server.data_dir()).unwrap();
            return Vec::new();
        }
        Left::History => {
            stand.recover(Vec::new());
            stand.audit();
            return Vec::new();
        }
        Left::Pending(count) => return leave_pending(stand, count),
        Left::Claimed => "claim.after",
        Left::Signed => "sign.after",
        Left::Sent => "broadcast.after",
        Left::Confirmed => "confirm.after",
        Left::MidStream => "stream.chunk:6",
    };
    stand.server.restart_armed(point);
    // Long, because all that waits for the chain leaves together: after it there must be pieces enough to die amid them.
    let terms = Terms { stream: true, upstream: "words=80 gap=100", ..Terms::default() };
    let sale = stand.order(terms);
    let seen = stand.buy_in_turn(vec![sale]);
    stand.server.wait_death(point);
    seen
}

fn leave_pending(stand: &mut Stand, count: usize) -> Vec<(Sale, Seen)> {
    stand.server.restart();
    let route = |place| if place % 2 == 0 { Route::Chat } else { Route::Messages };
    let terms = |place| Terms { stream: true, route: route(place), ..Terms::default() };
    let sales = (0..count).map(|place| stand.order(terms(place))).collect();
    stand.chain.set_automine(false);
    stand.buy_at_once(sales, |stand| {
        eventually("all are submitted", || stand.chain.pending_transactions() == count as u64);
        stand.server.kill();
    })
}

/// What the program is doing when it is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    SoldBefore,
    /// It may end.
    Streaming,
    /// It is cut off.
    StreamingOn,
    /// The chain has not confirmed yet.
    Settling,
}

const DOING: [Doing; TIMES] = [Doing::Nothing, Doing::SoldBefore, Doing::Streaming, Doing::StreamingOn, Doing::Settling];

#[test]
fn a_death_while_the_books_are_closed_loses_nothing() {
    for_each(&AT_THE_END, |point| {
        let mut stand = Stand::open(&Settings::default());
        for doing in DOING {
            stand.what = format!("{point} of a stop while {doing:?}");
            stand.server.restart_armed(point);
            let seen = stop(&mut stand, doing);
            stand.server.wait_death(point);
            stand.chain.set_automine(true);
            stand.chain.mine(1);
            stand.recover(seen);
            stand.audit();
        }
    });
}

fn stop(stand: &mut Stand, doing: Doing) -> Vec<(Sale, Seen)> {
    let upstream = match doing {
        Doing::Nothing => {
            stand.server.signal();
            return Vec::new();
        }
        Doing::Streaming => "words=12 gap=30",
        Doing::StreamingOn => "words=400 gap=200",
        Doing::SoldBefore | Doing::Settling => "",
    };
    let sale = stand.order(Terms { stream: true, upstream, ..Terms::default() });
    if doing == Doing::SoldBefore {
        let seen = stand.buy_in_turn(vec![sale]);
        stand.server.signal();
        return seen;
    }
    stand.chain.set_automine(doing != Doing::Settling);
    let (served, stopped) = (stand.logged("serving a paid call"), stand.logged("stopping"));
    stand.buy_at_once(vec![sale], |stand| {
        eventually("it is under way", || match doing {
            Doing::Settling => stand.chain.pending_transactions() == 1,
            _ => stand.logged("serving a paid call") > served,
        });
        stand.server.signal();
        eventually("it says that it stops", || stand.logged("stopping") > stopped);
        if doing != Doing::Streaming {
            stand.server.signal();
        }
    })
}
