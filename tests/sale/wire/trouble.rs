//! Every way in which an upstream can fail a paid call: what the buyer sees, and to the last unit who has the money.

use std::net::TcpStream;

use farebox_rig::anvil::{BUYER, SETTLER};
use farebox_rig::http::Answer;
use farebox_rig::process::eventually;
use farebox_rig::provider::{After, Provider, Received};
use farebox_rig::server::{Settings, micros};

use super::answers::{LAST_CHUNK, SHAPES, Shape, chunked, good, refusal, say, sized};
use crate::shop::{ANSWER, CHARGE, Payment, RESPONSES, Shop, body_for, paid};

/// What a row promises.
#[derive(Clone, Copy, Debug)]
enum Sees {
    /// This status and code, before any money moved. The payment can be used again.
    Refused(u16, &'static str),
    /// A beginning, an in-band error where the form has one, and a connection that broke.
    Broken,
    /// The whole answer, charged as it was reported.
    Whole,
    /// The whole answer, charged by our own count.
    Estimated,
    /// The whole answer, charged the quote, because what was reported is worth more.
    AtTheQuote,
}
use Sees::{AtTheQuote, Broken, Estimated, Refused, Whole};

type Plays = Box<dyn Fn(Shape, &mut TcpStream) -> After + Send + Sync>;

/// One kind of trouble: its name (which stands in the prompt), what the upstream does, what the buyer sees.
struct Row {
    name: String,
    plays: Plays,
    sees: Sees,
    /// Which of the six forms it exists in.
    exists: fn(Shape) -> bool,
}

const EVERYWHERE: fn(Shape) -> bool = |_| true;
const STREAMED: fn(Shape) -> bool = |shape| shape.stream;
/// Where usage is told more than once.
const REPEATED: fn(Shape) -> bool = |shape| shape.stream && shape.route != RESPONSES;
const PLAIN: fn(Shape) -> bool = |shape| !shape.stream;

/// Says `bytes` and keeps the connection, or closes it.
fn row(
    name: &str,
    sees: Sees,
    exists: fn(Shape) -> bool,
    after: After,
    bytes: impl Fn(Shape) -> String + Send + Sync + 'static,
) -> Row {
    let plays = move |shape: Shape, stream: &mut TcpStream| match say(stream, &bytes(shape)) {
        After::Keep => after,
        After::Close => After::Close,
    };
    Row { name: name.into(), plays: Box::new(plays), sees, exists }
}

/// An upstream that does not even begin.
fn refusals() -> Vec<Row> {
    const FAILED: Sees = Refused(502, "upstream_error");
    const JSON: &str = "application/json";
    let said = |status: &'static str, sees| {
        row(status, sees, EVERYWHERE, After::Keep, move |_| refusal(status, JSON, r#"{"error":{"message":"no"}}"#))
    };
    let good_body = |shape: Shape| shape.body(&shape.good_usage());
    vec![
        said("400 Bad Request", Refused(400, "upstream_rejected")),
        said("401 Unauthorized", Refused(502, "upstream_auth")),
        said("404 Not Found", FAILED),
        said("500 Broken", FAILED),
        said("503 Away", FAILED),
        said("529 Overloaded", Refused(529, "upstream_overloaded")),
        said("429 Slow", Refused(503, "upstream_unavailable")),
        row("a page with status 200", FAILED, EVERYWHERE, After::Keep, |_| refusal("200 OK", "text/html", "<h1>Log in</h1>")),
        row("no content type", FAILED, EVERYWHERE, After::Keep, move |shape| sized("HTTP/1.1 200 OK\r\n", &good_body(shape))),
        row("the other content type", FAILED, EVERYWHERE, After::Keep, move |shape| {
            let other = if shape.stream { JSON } else { "text/event-stream" };
            refusal("200 OK", other, &good_body(shape))
        }),
        row("gzip although it was not asked for", FAILED, EVERYWHERE, After::Keep, move |shape| {
            sized(&(shape.open_head() + "content-encoding: gzip\r\n"), "\u{1f}\u{8b}")
        }),
        row("a transfer encoding that is none", FAILED, EVERYWHERE, After::Keep, move |shape| {
            format!("{}transfer-encoding: identity\r\n\r\n{}", shape.open_head(), good_body(shape))
        }),
        row("chunks in HTTP/1.0", FAILED, EVERYWHERE, After::Keep, move |shape| {
            chunked(&shape.open_head().replace("HTTP/1.1", "HTTP/1.0"), &[good_body(shape)]) + LAST_CHUNK
        }),
        row("an empty body", FAILED, EVERYWHERE, After::Keep, |shape| sized(&shape.open_head(), "")),
        row("no HTTP at all", FAILED, EVERYWHERE, After::Close, |_| "SSH-2.0-OpenSSH_9.9\r\n\r\n".into()),
        row("silence and a closed connection", FAILED, EVERYWHERE, After::Close, |_| String::new()),
        row("half a head", FAILED, EVERYWHERE, After::Close, |_| "HTTP/1.1 200 OK\r\ncontent-type: appl".into()),
        Row {
            name: "a refusal whose words never end".into(),
            plays: Box::new(|_, stream| {
                let mut after = say(stream, "HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\n\r\n{\"error\":\"");
                while after == After::Keep {
                    after = say(stream, "and another thing: ");
                }
                after
            }),
            sees: Refused(400, "upstream_rejected"),
            exists: EVERYWHERE,
        },
        row("two lengths", FAILED, EVERYWHERE, After::Keep, move |shape| {
            sized(&(shape.open_head() + "content-length: 1\r\n"), &good_body(shape))
        }),
        Row {
            name: "headers without end".into(),
            plays: Box::new(|shape, stream| {
                let mut after = say(stream, &shape.open_head());
                while after == After::Keep {
                    after = say(stream, "x-more: and more\r\n");
                }
                after
            }),
            sees: FAILED,
            exists: EVERYWHERE,
        },
    ]
}

/// An upstream that accepts and then gives no whole answer, or one that says it is none. None of it was sold.
fn halves() -> Vec<Row> {
    let none =
        |name: &str, after: After, bytes: fn(Shape) -> String| row(name, Refused(502, "upstream_error"), PLAIN, after, bytes);
    vec![
        none("an empty chunked body for a plain answer", After::Keep, |shape| chunked(&shape.open_head(), &[""; 0]) + LAST_CHUNK),
        none("a length that is not reached", After::Close, |shape| {
            format!("{}content-length: 999\r\n\r\n{}", shape.open_head(), half(shape))
        }),
        none("a length that is not reached behind a whole value", After::Close, |shape| {
            let whole = shape.body(&shape.good_usage());
            format!("{}content-length: {}\r\n\r\n{whole}", shape.open_head(), whole.len() + 10)
        }),
        none("plain chunks cut off", After::Close, |shape| chunked(&shape.open_head(), &[half(shape)])),
        none("half a value in whole chunks", After::Keep, |shape| chunked(&shape.open_head(), &[half(shape)]) + LAST_CHUNK),
        none("a body without a length that is cut off", After::Close, |shape| {
            format!("{}\r\n{}", shape.open_head(), half(shape))
        }),
    ]
}

/// Answers with status 200 that say they are failures, and would be charged by the usage that they report.
fn failures() -> Vec<Row> {
    type Exists = fn(Shape) -> bool;
    const FAILED: Sees = Refused(502, "upstream_error");
    const AWAY: Sees = Refused(503, "upstream_unavailable");
    let (chat, responses): (Exists, Exists) =
        (|shape| !shape.stream && shape.is_chat(), |shape| !shape.stream && shape.route == RESPONSES);
    let said: [(&str, Sees, Exists, &str); 10] = [
        ("an error with status 200", FAILED, PLAIN, r#"{"error":{"message":"sk-upstream","code":502},"usage":USAGE}"#),
        ("an error that is a text", FAILED, PLAIN, r#"{"usage":USAGE,"error":"sk-upstream is at fault"}"#),
        ("an error behind white space", FAILED, PLAIN, "\n\n  \n {\"error\":{\"message\":\"sk-upstream\"}}"),
        ("a limit in words", AWAY, PLAIN, r#"{"error":{"code":429,"message":"sk-upstream"}}"#),
        ("an overload in words", Refused(529, "upstream_overloaded"), PLAIN, r#"{"error":{"type":"overloaded_error"}}"#),
        ("an account in words", Refused(502, "upstream_auth"), PLAIN, r#"{"error":{"code":402,"message":"sk-upstream"}}"#),
        ("a refusal in words", Refused(400, "upstream_rejected"), PLAIN, r#"{"error":{"code":403,"message":"sk-upstream"}}"#),
        (
            "a choice that failed",
            FAILED,
            chat,
            r#"{"choices":[{"index":0,"message":{"role":"assistant",
            "content":"hello"},"finish_reason":"error","error":{"code":502,"message":"sk-upstream"}}],"usage":USAGE}"#,
        ),
        (
            "a response that failed",
            FAILED,
            responses,
            r#"{"id":"resp_sk-upstream","object":"response","status":"failed",
            "error":{"code":"server_error","message":"sk-upstream"},"output":[],"usage":USAGE}"#,
        ),
        ("a response that was cancelled", FAILED, responses, r#"{"status":"cancelled","error":null,"usage":USAGE}"#),
    ];
    let play = |(name, sees, exists, body): (&str, Sees, Exists, &'static str)| {
        row(name, sees, exists, After::Keep, move |shape| sized(&shape.open_head(), &body.replace("USAGE", &shape.good_usage())))
    };
    said.into_iter().map(play).collect()
}

fn half(shape: Shape) -> String {
    shape.body(&shape.good_usage())[..40].to_owned()
}

/// An upstream that begins and does not finish.
fn breaks() -> Vec<Row> {
    let cut = |shape: Shape| {
        let mut events = shape.events(&shape.good_usage());
        events.truncate(2);
        events
    };
    vec![
        row("an empty chunked body", Broken, STREAMED, After::Keep, |shape| chunked(&shape.open_head(), &[""; 0]) + LAST_CHUNK),
        row("chunks cut off", Broken, STREAMED, After::Close, move |shape| chunked(&shape.open_head(), &cut(shape))),
        row("chunks that end well before the terminator", Broken, STREAMED, After::Keep, move |shape| {
            chunked(&shape.open_head(), &cut(shape)) + LAST_CHUNK
        }),
        row("a length that is not reached, streamed", Broken, STREAMED, After::Close, move |shape| {
            let whole = shape.body(&shape.good_usage()).len();
            format!("{}content-length: {whole}\r\n\r\n{}", shape.open_head(), cut(shape).concat())
        }),
        row("a stream without a length that is cut off", Broken, STREAMED, After::Close, move |shape| {
            format!("{}\r\n{}", shape.open_head(), cut(shape).concat())
        }),
        row("an error in the stream", Broken, STREAMED, After::Keep, move |shape| {
            let mut events = cut(shape);
            events.push("event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"sk-upstream down\"}}\n\n".into());
            chunked(&shape.open_head(), &events) + LAST_CHUNK
        }),
        row(
            "a choice that fails in the stream",
            Broken,
            |shape| shape.stream && shape.is_chat(),
            After::Keep,
            move |shape| {
                let mut events = cut(shape);
                let error = r#""error":{"code":502,"message":"sk-upstream down"}"#;
                events.push(format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"error\",{error}}}]}}\n\ndata: [DONE]\n\n"));
                chunked(&shape.open_head(), &events) + LAST_CHUNK
            },
        ),
        row("an event without end", Broken, STREAMED, After::Close, |shape| {
            chunked(&shape.open_head(), &[format!("data: {}", "x".repeat(1_200_000))]) + LAST_CHUNK
        }),
    ]
}

/// An upstream that delivers, in ways that are easily misread.
fn oddities() -> Vec<Row> {
    vec![
        row("nothing wrong", Whole, EVERYWHERE, After::Keep, good),
        row("a body that ends with the connection", Whole, EVERYWHERE, After::Close, |shape| {
            format!("{}connection: close\r\n\r\n{}", shape.open_head(), shape.body(&shape.good_usage()))
        }),
        row("a body without a length and without a word", Whole, EVERYWHERE, After::Close, |shape| {
            format!("{}\r\n{}", shape.open_head(), shape.body(&shape.good_usage()))
        }),
        row("HTTP/1.0", Whole, EVERYWHERE, After::Close, |shape| {
            let head = shape.open_head().replace("HTTP/1.1", "HTTP/1.0");
            format!("{head}\r\n{}", shape.body(&shape.good_usage()))
        }),
        row("interim answers first", Whole, EVERYWHERE, After::Keep, |shape| {
            let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
            interim.to_owned() + &good(shape)
        }),
        row("no last chunk behind the terminator", Whole, EVERYWHERE, After::Close, |shape| {
            chunked(&shape.open_head(), &[shape.body(&shape.good_usage())])
        }),
        row("no last chunk and nothing else behind the terminator", Whole, EVERYWHERE, After::Keep, |shape| {
            chunked(&shape.open_head(), &[shape.body(&shape.good_usage())])
        }),
        row("a body without a length on a connection that stays open", Whole, EVERYWHERE, After::Keep, |shape| {
            format!("{}\r\n{}", shape.open_head(), shape.body(&shape.good_usage()))
        }),
        row("usage left out", Estimated, EVERYWHERE, After::Keep, |shape| sized(&shape.open_head(), &shape.body(""))),
        row("usage growing and shrinking", Whole, REPEATED, After::Keep, |shape| {
            let mut events = shape.events(&shape.good_usage());
            let low = shape.events(&shape.usage("20", "1"));
            let place = if shape.is_chat() { events.len() - 2 } else { 1 };
            // The same event with less, before and after the right one: what counts is the last of chat, the most of messages.
            events.insert(place, low[low.len() - 2].clone());
            if !shape.is_chat() {
                events.insert(events.len() - 1, low[low.len() - 2].clone());
            }
            chunked(&shape.open_head(), &events) + LAST_CHUNK
        }),
    ]
}

/// What an upstream may claim, and whether anybody believes it.
fn lies() -> Vec<Row> {
    let numbers = [
        ("-1", Estimated),
        ("-9223372036854775808", Estimated),
        ("0", Estimated),
        ("1.5", Estimated),
        ("1e400", Estimated),
        ("18446744073709551616", Estimated),
        ("\"7\"", Estimated),
        ("null", Estimated),
        ("true", Estimated),
        ("[7]", Estimated),
        ("{\"n\":7}", Estimated),
        ("9223372036854775808", AtTheQuote),
        ("18446744073709551615", AtTheQuote),
    ];
    let claim = |(number, sees): (&'static str, Sees)| {
        row(&format!("usage {number}"), sees, EVERYWHERE, After::Keep, move |shape| {
            sized(&shape.open_head(), &shape.body(&shape.usage(number, number)))
        })
    };
    let mut rows: Vec<_> = numbers.into_iter().map(claim).collect();
    rows.push(row("usage with each count twice", Estimated, EVERYWHERE, After::Keep, |shape| {
        let usage = shape.usage("1", "1").replace('}', &format!(",{}", &shape.usage("2", "2")[1..]));
        sized(&shape.open_head(), &shape.body(&usage))
    }));
    rows.push(row("usage that is a list", Estimated, EVERYWHERE, After::Keep, |shape| {
        sized(&shape.open_head(), &shape.body(&format!("[{}]", shape.good_usage())))
    }));
    rows
}

/// What became of one row in one form.
struct Sold<'a> {
    row: &'a Row,
    shape: Shape,
    payment: &'a Payment,
    answer: Answer,
}

impl Sold<'_> {
    fn named(&self) -> String {
        format!("{:?}, {}: {} {}", self.shape, self.row.name, self.answer.status, self.answer.text())
    }

    /// What the log says was charged for this call, once it says so.
    fn charge(&self, shop: &Shop) -> u64 {
        let id = self.answer.header("x-request-id").expect("every answer has an id").to_owned();
        let mut charge = None;
        eventually("the call is ended in the log", || {
            let log = shop.server.output();
            let line = log.lines().find(|line| line.contains(&id) && line.contains("charge="));
            charge = line.and_then(|line| line.split("charge=").nth(1)?.split(' ').next().map(str::to_owned));
            charge.is_some()
        });
        micros(&charge.expect("just found").into())
    }

    /// The buyer saw what the row promises; gives what it cost.
    fn check(&self, shop: &Shop) -> u64 {
        let (answer, named) = (&self.answer, self.named());
        if let Refused(status, code) = self.row.sees {
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{named}");
            assert_eq!(answer.header("payment-response"), None, "nothing settled: {named}");
            assert_eq!(answer.header("payment-required"), None, "paying would not mend it: {named}");
            assert!(code != "upstream_unavailable" || answer.header("retry-after") == Some("5"), "{named}");
            assert!(
                !answer.text().contains("sk-upstream") && !answer.text().contains("hello"),
                "the upstream's own words: {named}"
            );
            return 0;
        }
        assert_eq!(answer.status, 200, "{named}");
        assert!(answer.decoded("payment-response").is_some_and(|receipt| receipt["success"] == true), "{named}");
        let charge = self.charge(shop);
        assert!(charge <= self.payment.amount, "charged {charge}, above the quote of {}: {named}", self.payment.amount);
        assert!(!answer.text().contains("sk-upstream"), "{named}");
        match self.row.sees {
            Broken => self.check_broken(charge),
            Whole => assert_eq!(charge, CHARGE, "{named}"),
            AtTheQuote => assert_eq!(charge, self.payment.amount, "{named}"),
            Estimated | Refused(..) => assert!(charge > 0 && charge < self.payment.amount, "charged {charge}: {named}"),
        }
        if !matches!(self.row.sees, Broken) {
            assert!(answer.complete, "{named}");
            let said = if self.shape.stream { ANSWER.split(' ').next_back().unwrap_or_default() } else { ANSWER };
            assert!(answer.text().contains(said), "{named}");
            assert!(!self.shape.stream || answer.text().contains(self.shape.terminator()), "{named}");
        }
        charge
    }

    fn check_broken(&self, charge: u64) {
        let (answer, named) = (&self.answer, self.named());
        assert_eq!(answer.complete, self.shape.ends_with_its_words(), "it looks complete: {named}");
        assert!(!answer.text().contains(self.shape.terminator()), "{named}");
        assert!(answer.text().contains("\"error\""), "the reason stands in the stream: {named}");
        let delivered = answer.text().contains("hello");
        assert_eq!(charge > 0, delivered, "charged {charge}: of a stream what passed is owed: {named}");
    }
}

/// Plays every row in every form that it exists in, on one shop, and accounts for all of it.
fn play(rows: Vec<Row>) {
    let rows = std::sync::Arc::new(rows);
    let playing = rows.clone();
    let provider = Provider::start(move |received: &Received, stream| {
        let row = playing.iter().find(|row| received.body().contains(&marker(&row.name)));
        let asked = |shape: &Shape| received.head().starts_with(&format!("POST {} ", shape.route));
        let route = SHAPES.iter().find(|shape| asked(shape)).expect("a known route").route;
        let shape = Shape { route, stream: received.body().contains("\"stream\":true") };
        row.map_or(After::Close, |row| (row.plays)(shape, stream))
    });
    let settings = Settings {
        payments: vec!["settle_after_ms = 20000".into()],
        upstream_url: Some(provider.url()),
        // It fails as often as there are rows.
        failover: vec!["failures = 0".into()],
        ..Settings::default()
    };
    let mut shop = Shop::with(84532, &settings);
    let wanted: Vec<_> = rows.iter().flat_map(|row| SHAPES.map(|shape| (row, shape))).collect();
    let wanted: Vec<_> = wanted.into_iter().filter(|(row, shape)| (row.exists)(*shape)).collect();
    let bodies: Vec<_> = wanted.iter().map(|(row, shape)| body_for(shape.route, &marker(&row.name), shape.stream)).collect();
    let asked = wanted.iter().zip(&bodies).map(|((_, shape), body)| shop.requirements(shape.route, body)).collect();
    let payments = shop.sign_all(BUYER, asked);
    let (mut paid_for, mut charged, mut settled) = (0, 0, 0);
    for (((row, shape), body), payment) in wanted.into_iter().zip(&bodies).zip(&payments) {
        let answer = shop.server.send(&paid(shape.route, body, payment));
        let sold = Sold { row, shape, payment, answer };
        charged += sold.check(&shop);
        if !matches!(row.sees, Refused(..)) {
            paid_for += payment.amount;
            settled += 1;
        }
        assert_eq!(shop.earned(), paid_for, "who paid for what: {}", sold.named());
    }
    assert_eq!(shop.chain.transactions_of(SETTLER.address), settled, "no gas was spent on calls that were refused");
    shop.close(charged);
}

/// How a row stands in a prompt; JSON writes the quotes of some names in its own way.
fn marker(name: &str) -> String {
    format!("row {} end", name.replace('"', "'"))
}

#[test]
fn an_upstream_that_does_not_begin_costs_nobody_anything() {
    play(refusals());
}

#[test]
fn a_plain_answer_that_is_none_is_refused_in_our_words_and_costs_nothing() {
    play(halves());
    play(failures());
}

#[test]
fn an_answer_that_breaks_off_never_looks_whole_and_costs_what_passed() {
    play(breaks());
}

#[test]
fn an_answer_is_sold_whole_however_its_upstream_writes_it() {
    play(oddities());
}

#[test]
fn no_claim_of_an_upstream_is_charged_above_the_quote() {
    play(lies());
}
