//! Tells the operator's own programs of events: signed JSON, sent again until it is taken, and never in the way of a sale.
//!
//! Whoever tells of an event only puts it into a bounded queue; what finds no room is counted and dropped. Deliveries follow
//! Standard Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`), follow no redirect, and are unordered: an
//! event that fails waits for its next attempt while others pass.

mod event;
mod signature;

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;

use crate::account::AccountId;
use crate::clock::Clock;
use crate::config::{self, Occasion};
use crate::ids::RequestId;
use crate::metrics;
use crate::money::Micros;
use crate::tls;

pub use event::Event;
use signature::Signer;

/// Deliveries that may be waiting for each webhook: one that is slow or gone takes no room from the others.
const ROOM: usize = 1024;
/// Wallets that are remembered as low.
const WALLETS: usize = 10_000;
/// Requests to each webhook at the same time.
const AT_ONCE: usize = 8;
/// From the first byte sent to the head of the answer, connection included.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a delivery is tried, and how long after the first and at most after a later attempt that failed: 4 hours in all.
const ATTEMPTS: u32 = 16;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Where events are told. Cheap to clone.
#[derive(Clone)]
pub struct Notices(Arc<Inner>);

struct Inner {
    wishes: Vec<Wish>,
    queue: mpsc::UnboundedSender<Letter>,
    /// Deliveries that were not tried once.
    untried: AtomicUsize,
    /// Deliveries that were neither taken nor given up, by their ids, which count up: event and number of the webhook.
    waiting: Mutex<BTreeMap<String, (&'static str, usize)>>,
    /// Wallets whose low balance a webhook was told of.
    low: Mutex<HashSet<(usize, AccountId)>>,
    clock: Clock,
}

/// What one webhook wants to hear.
struct Wish {
    events: Vec<Occasion>,
    low_balance: Micros,
    /// What is left of [`ROOM`].
    room: Arc<Semaphore>,
}

/// One event on its way to one webhook.
struct Letter {
    webhook: usize,
    event: &'static str,
    id: String,
    body: String,
    /// Its place in the queue. Of a failure of the ledger there is one at most, which needs none and waits for no turn.
    room: Option<OwnedSemaphorePermit>,
}

/// What was told and is to be delivered.
pub struct Outbox {
    queue: mpsc::UnboundedReceiver<Letter>,
    notices: Notices,
    webhooks: Vec<config::Webhook>,
}

/// Opens a queue for the webhooks of a configuration.
pub fn open(webhooks: &[config::Webhook], clock: Clock) -> (Notices, Outbox) {
    // Bounded by the room that every letter takes a part of.
    let (queue, letters) = mpsc::unbounded_channel();
    let wish = |webhook: &config::Webhook| Wish {
        events: webhook.events.clone(),
        low_balance: webhook.low_balance,
        room: Arc::new(Semaphore::new(ROOM)),
    };
    let wishes = webhooks.iter().map(wish).collect();
    let (untried, waiting, low) = (AtomicUsize::new(0), Mutex::default(), Mutex::default());
    let notices = Notices(Arc::new(Inner { wishes, queue, untried, waiting, low, clock }));
    (notices.clone(), Outbox { queue: letters, notices, webhooks: webhooks.to_vec() })
}

impl Notices {
    /// Whether anybody wants to hear of it.
    pub fn wants(&self, occasion: Occasion) -> bool {
        self.0.wishes.iter().any(|wish| wish.events.contains(&occasion))
    }

    /// Tells everybody who wants to hear of it. Waits for nothing.
    pub fn tell(&self, event: &Event) {
        self.tell_those(event, |_| true);
    }

    /// The balance of a wallet is this now, after a charge: tells those for whom it is low, once until it was filled again.
    pub fn tell_of_balance(&self, account: AccountId, balance: Micros) {
        for (webhook, wish) in self.0.wishes.iter().enumerate() {
            let mut low = self.0.low.lock().unwrap_or_else(PoisonError::into_inner);
            if balance >= wish.low_balance {
                low.remove(&(webhook, account));
                continue;
            }
            if low.len() >= WALLETS {
                // Better told twice than never.
                low.clear();
            }
            if low.insert((webhook, account)) {
                drop(low);
                self.tell_those(&Event::LowBalance { account, balance, below: wish.low_balance }, |it| it == webhook);
            }
        }
    }

    /// A wallet was filled: if it becomes low again, that is told again.
    pub fn filled(&self, account: AccountId) {
        self.0.low.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, low)| *low != account);
    }

    fn tell_those(&self, event: &Event, whom: impl Fn(usize) -> bool) {
        let occasion = event.occasion();
        for (webhook, wish) in self.0.wishes.iter().enumerate() {
            if !wish.events.contains(&occasion) || !whom(webhook) {
                continue;
            }
            let is_last = occasion == Occasion::LedgerFailed;
            let room = Arc::clone(&wish.room).try_acquire_owned().ok().filter(|_| !is_last);
            if room.is_none() && !is_last {
                metrics::WEBHOOKS.of(&["dropped"]).count();
                tracing::warn!(event = occasion.name(), webhook = webhook + 1, "too many webhooks wait; this event is not told");
                continue;
            }
            let at = self.0.clock.now();
            let mut random = [0; 10];
            if let Err(error) = getrandom::fill(&mut random) {
                // Time and event still tell it apart.
                tracing::error!(%error, "no randomness for the id of an event");
            }
            let letter = Letter {
                webhook,
                event: occasion.name(),
                id: format!("evt_{:032x}", RequestId::new(at, random).0),
                body: event.to_json(at).to_string(),
                room,
            };
            self.0.untried.fetch_add(1, Ordering::Relaxed);
            self.waiting().insert(letter.id.clone(), (letter.event, webhook + 1));
            // Without the other end the program is at its end.
            if self.0.queue.send(letter).is_err() {
                self.0.untried.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, (&'static str, usize)>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything that was told was tried once, or this long, and says what is lost with the program.
    pub async fn settle(&self, patience: Duration) {
        let tried = async {
            while self.0.untried.load(Ordering::Relaxed) > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        // What was not is said like all that nobody has taken.
        let _ = tokio::time::timeout(patience, tried).await;
        for (id, (event, webhook)) in std::mem::take(&mut *self.waiting()) {
            tracing::error!(event, id, webhook, "a webhook was not taken before the stop; this event is not told");
        }
    }
}

/// A webhook as it is reached.
struct Receiver {
    number: usize,
    url: String,
    signer: Signer,
    client: awc::Client,
    turns: Semaphore,
}

impl Outbox {
    /// Delivers what is told, on this thread, for as long as the program runs.
    ///
    /// # Errors
    /// A `ca_file` that cannot be used, by the number of its webhook.
    pub fn deliver(self) -> Result<impl Future<Output = ()>, String> {
        let Outbox { mut queue, notices, webhooks } = self;
        let receiver = |(place, webhook): (usize, &config::Webhook)| {
            let number = place + 1;
            let tls = tls::client(webhook.ca_file.as_deref()).map_err(|why| format!("webhook {number}, ca_file: {why}"))?;
            let connector = awc::Connector::new().rustls_0_23(Arc::new(tls)).timeout(DEADLINE).limit(0);
            let client = awc::Client::builder().connector(connector).disable_redirects().timeout(DEADLINE).finish();
            let signer = Signer::new(&webhook.secret).map_err(|why| format!("webhook {number}, secret: {why}"))?;
            Ok(Rc::new(Receiver { number, url: webhook.url.clone(), signer, client, turns: Semaphore::new(AT_ONCE) }))
        };
        let receivers = webhooks.iter().enumerate().map(receiver).collect::<Result<Vec<_>, String>>()?;
        Ok(async move {
            while let Some(letter) = queue.recv().await {
                let Some(receiver) = receivers.get(letter.webhook).cloned() else { continue };
                let notices = notices.clone();
                actix_web::rt::spawn(async move {
                    insist(&receiver, &letter, &notices).await;
                    notices.waiting().remove(&letter.id);
                });
            }
        })
    }
}

/// Delivers one letter, however often it takes.
async fn insist(receiver: &Receiver, letter: &Letter, notices: &Notices) {
    let (event, id, webhook) = (letter.event, &letter.id, receiver.number);
    let mut pause = FIRST_PAUSE;
    for attempt in 1..=ATTEMPTS {
        let turn = match letter.room {
            Some(_) => receiver.turns.acquire().await.ok(),
            None => None,
        };
        let outcome = receiver.send(letter, notices.0.clock.now().secs()).await;
        drop(turn);
        if attempt == 1 {
            notices.0.untried.fetch_sub(1, Ordering::Relaxed);
        }
        match outcome {
            Ok(()) => {
                metrics::WEBHOOKS.of(&["delivered"]).count();
                tracing::debug!(event, id, webhook, attempt, "a webhook was delivered");
                return;
            }
            Err(Unwanted::Gone) => {
                metrics::WEBHOOKS.of(&["given_up"]).count();
                tracing::warn!(event, id, webhook, "the webhook answers that it is gone (410); this event is not told");
                return;
            }
            Err(Unwanted::Failed(why)) => {
                metrics::WEBHOOKS.of(&["failed"]).count();
                tracing::warn!(event, id, webhook, attempt, why, "a webhook was not taken");
            }
        }
        if attempt < ATTEMPTS {
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }
    metrics::WEBHOOKS.of(&["given_up"]).count();
    tracing::error!(event, id, webhook, "a webhook was never taken and is given up");
}

/// Why a letter was not taken. Never names the URL, which may hold a key.
enum Unwanted {
    /// It asked for no more.
    Gone,
    Failed(String),
}

impl Receiver {
    async fn send(&self, letter: &Letter, now: u64) -> Result<(), Unwanted> {
        let timestamp = now.to_string();
        let signature = self.signer.sign(&letter.id, &timestamp, &letter.body);
        let request = self
            .client
            .post(&self.url)
            .insert_header(("content-type", "application/json"))
            .insert_header(("user-agent", concat!("farebox/", env!("CARGO_PKG_VERSION"))))
            .insert_header(("webhook-id", letter.id.as_str()))
            .insert_header(("webhook-timestamp", timestamp))
            .insert_header(("webhook-signature", signature));
        let answer = request.send_body(letter.body.clone()).await.map_err(|error| Unwanted::Failed(error.to_string()))?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            410 => Err(Unwanted::Gone),
            status => Err(Unwanted::Failed(format!("it answered {status}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::clock::Timestamp;
    use crate::config::Secret;

    fn webhook(events: &[Occasion], low_balance: u64) -> config::Webhook {
        config::Webhook {
            url: "http://127.0.0.1:9/".into(),
            secret: Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
            events: events.to_vec(),
            low_balance: Micros::new(low_balance),
            ca_file: None,
        }
    }

    fn clock() -> Clock {
        Clock::new(|| Timestamp::from_millis(1_614_265_330_000))
    }

    fn told(outbox: &mut Outbox) -> Vec<(usize, serde_json::Value)> {
        let letters = std::iter::from_fn(|| outbox.queue.try_recv().ok());
        letters.map(|letter| (letter.webhook, serde_json::from_str(&letter.body).unwrap())).collect()
    }

    #[test]
    fn who_did_not_ask_for_an_event_does_not_hear_of_it() {
        let webhooks = [webhook(&[Occasion::UpstreamDown], 0), webhook(&Occasion::ALL, 0), webhook(&[Occasion::TopUp], 0)];
        let (notices, mut outbox) = open(&webhooks, clock());
        notices.tell(&Event::UpstreamDown { upstream: "a".into() });
        let told = told(&mut outbox);
        assert_eq!(told.iter().map(|(webhook, _)| *webhook).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(told[0].1["type"], "upstream_down");
        assert_eq!(told[0].1["data"]["upstream"], "a");
        assert_eq!(told[0].1["timestamp"], "2021-02-25T15:02:10.000Z");
        let (nobody, _outbox) = open(&[], clock());
        assert!(Occasion::ALL.iter().all(|occasion| !nobody.wants(*occasion)));
    }

    #[test]
    fn a_balance_is_told_of_when_it_falls_below_what_is_low_and_not_again_below_that() {
        let low = [Occasion::LowBalance];
        let (notices, mut outbox) = open(&[webhook(&low, 100), webhook(&low, 50), webhook(&low, 100)], clock());
        let account = AccountId::Evm([7; 20]);
        let mut after = |balance: u64| {
            notices.tell_of_balance(account, Micros::new(balance));
            told(&mut outbox).into_iter().map(|(webhook, _)| webhook).collect::<Vec<_>>()
        };
        assert_eq!(after(100), [0; 0], "not yet");
        assert_eq!(after(99), [0, 2]);
        assert_eq!(after(50), [0; 0], "it was low before");
        assert_eq!(after(0), [1]);
        assert_eq!(after(300), [0; 0]);
        assert_eq!(after(0), [0, 1, 2], "it was filled in between");
        notices.filled(account);
        assert_eq!(after(60), [0, 2], "and again");
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_waits_for_nobody() {
        let (notices, mut outbox) = open(&[webhook(&Occasion::ALL, 0)], clock());
        (0..ROOM + 10).for_each(|_| notices.tell(&Event::UpstreamUp { upstream: "a".into() }));
        assert_eq!(told(&mut outbox).len(), ROOM);
        notices.tell(&Event::UpstreamUp { upstream: "a".into() });
        assert_eq!(told(&mut outbox).len(), 1, "there is room again");
    }

    #[actix_web::test]
    async fn who_never_answers_takes_no_turn_from_the_others() {
        let dead = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = |listener: &TcpListener| format!("http://{}/", listener.local_addr().unwrap());
        let webhooks = [at(&dead), at(&good)].map(|url| config::Webhook { url, ..webhook(&Occasion::ALL, 0) });
        let (say, mut heard) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for mut caller in good.incoming().map_while(Result::ok) {
                let mut request = [0; 4096];
                let mut read = 0;
                while !request[..read].ends_with(b"}") {
                    read += caller.read(&mut request[read..]).unwrap();
                }
                caller.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
                if say.send(()).is_err() {
                    return;
                }
            }
        });
        let (notices, outbox) = open(&webhooks, clock());
        actix_web::rt::spawn(outbox.deliver().unwrap());
        (0..2 * AT_ONCE).for_each(|_| notices.tell(&Event::UpstreamUp { upstream: "a".into() }));
        for number in 0..2 * AT_ONCE {
            let told = tokio::time::timeout(DEADLINE / 2, heard.recv()).await;
            assert!(told.is_ok(), "after {number} of them it waits until the other one is given up");
        }
        drop(dead);
    }

    #[test]
    fn who_takes_nothing_leaves_the_others_their_room_and_the_last_word_needs_none() {
        let webhooks = [webhook(&[Occasion::UpstreamUp, Occasion::LedgerFailed], 0), webhook(&[Occasion::UpstreamDown], 0)];
        let (notices, mut outbox) = open(&webhooks, clock());
        (0..ROOM + 10).for_each(|_| notices.tell(&Event::UpstreamUp { upstream: "a".into() }));
        notices.tell(&Event::UpstreamDown { upstream: "a".into() });
        notices.tell(&Event::LedgerFailed { cause: "the disk".into() });
        let told: Vec<_> =
            told(&mut outbox).into_iter().skip(ROOM).map(|(webhook, event)| (webhook, event["type"].clone())).collect();
        assert_eq!(told, [(1, "upstream_down".into()), (0, "ledger_failed".into())]);
    }
}
