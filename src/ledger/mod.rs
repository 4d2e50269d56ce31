//! The only module that moves money: double entry, holds, payments, one writer, and recovery after a crash.
//!
//! What a command may do is decided in memory at one serial point (`Book`), under one short lock; its rows go to disk
//! with the next group commit. Commands about incoming money are awaited; holds and charges are not, so that they cost
//! a call nothing. When a write fails, its outcome is unknown: the ledger refuses everything from then on and the
//! program must end, because recovery on start is what finds the truth.

mod adjust;
mod backup;
mod blocked;
mod book;
mod calls;
mod commit;
mod compact;
mod derived;
mod failure;
#[cfg(feature = "fault-points")]
pub mod faulty;
mod history;
mod jobs;
mod payouts;
mod queue;
mod rebuild;
mod reconcile;
mod recover;
mod rescue;
mod reservation;
mod restored;
mod rows;
mod snapshot;
mod spending;
mod statement;
mod store;
mod tables;
mod totals;
mod verify;
mod writer;
mod written;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};

use crate::account::AccountId;
use crate::clock::{Clock, Timestamp};
use crate::fault;
use crate::ids::{PaymentId, RequestId};
use crate::money::Micros;

pub use adjust::Adjustment;
pub use backup::{forget_copies, room_for};
pub use blocked::Block;
pub use book::{Claim, Close, Expected, Refused};
pub use calls::{Draw, KeyDraw, MOST_A_DAY, Nonce, Standing};
pub use failure::{Broken, Denied, Remedy, Stopped, kept_out};
pub use history::{History, Span};
pub use jobs::{Job, JobState, NewJob};
pub use payouts::Payout;
pub use recover::Recovered;
pub use reservation::{Deposit, Paid, Reservation};
pub use restored::{Restoring, unchecked_books};
pub use rows::{Account, Attempt, Grant, Kind, Outcome, Payment, Receipt, Reference, Service, State, Transfer};
pub use spending::Spending;
pub use statement::{Entry, Movement, Used};
pub use store::copy_on;
pub use totals::{Totals, Unsettled};
pub use verify::{Counted, Report, adjustments_of_file, key_events_of_file, repair_derived};

use book::{Book, Write};
use queue::{Batch, Queue};
use snapshot::Snapshot;
use store::Store;

/// The name of the ledger in the data folder.
pub const FILE: &str = "ledger.redb";

/// Batches that may wait for the disk before new calls are refused.
const BACKLOG: usize = 50_000;

/// Why a ledger that was closed in good order takes nothing more.
const CLOSED: &str = "closed";

/// Resolves when a command's rows are durable.
#[must_use = "await it, or drop it where the design says that nobody waits"]
pub struct Durable(oneshot::Receiver<Result<(), Stopped>>);

impl Durable {
    pub async fn wait(self) -> Result<(), Stopped> {
        self.0.await.unwrap_or(Err(Stopped))
    }

    /// For threads that are not async: tests and tools.
    pub fn wait_blocking(self) -> Result<(), Stopped> {
        self.0.blocking_recv().unwrap_or(Err(Stopped))
    }
}

/// How the operator wants the books kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What a served call did not cost stays with the operator instead of becoming the payer's balance.
    pub keep_remainder: bool,
    /// Holds above this are durable before their call goes on. What a hold grows by while its answer passes is not waited for:
    /// of such a call a crash charges what it owed at its last checkpoint, some seconds ago, which is written together with the
    /// hold that covers it. To wait would hold the answer up and save nothing.
    pub hold_durable_above: Micros,
    /// What the ledger is kept in. One ledger never holds two kinds.
    pub money: Money,
}

/// What the money of a ledger is worth; balances of one kind must never be spent as another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Money {
    /// Nothing: no chain was asked.
    #[default]
    Simulated,
    /// Nothing, on a real test network.
    Test,
    /// What it says.
    Main,
}

/// A handle on the ledger; clones share it.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    book: Mutex<Book>,
    store: Arc<Store>,
    queue: Arc<Queue>,
    backlog: AtomicUsize,
    failed: watch::Sender<Option<String>>,
    /// The wallets that are barred, once that is durable.
    blocked: watch::Sender<HashSet<AccountId>>,
    clock: Clock,
    options: Options,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Where the file is, if it is one.
    path: Option<PathBuf>,
    /// Held while a copy of the file is made: one at a time.
    copying: Mutex<()>,
}

impl Ledger {
    /// Opens or creates the ledger at `path` and resolves what an earlier run left open.
    pub fn open(path: &Path, clock: Clock, options: Options) -> Result<(Ledger, Recovered), Broken> {
        let lock = rescue::lock(path)?;
        rescue::make_if_missing(path)?;
        rescue::rewrite_if_marked(path)?;
        rescue::marked_on_failure(path, || {
            let store = Store::open(path, lock)?;
            Ledger::start(store, Some(path.to_owned()), clock, options)
        })
    }

    /// Opens a ledger on any storage; tests cut its power.
    pub fn open_on(backend: impl redb::StorageBackend, clock: Clock, options: Options) -> Result<(Ledger, Recovered), Broken> {
        Ledger::start(Store::open_on(backend)?, None, clock, options)
    }

    fn start(store: Store, path: Option<PathBuf>, clock: Clock, options: Options) -> Result<(Ledger, Recovered), Broken> {
        fault::point("open.counted");
        store.keep(options.money)?;
        let mut book = store.load()?;
        book.keep_remainder = options.keep_remainder;
        recover::check(&store, &book)?;
        fault::point("recover.checked");
        let recovered = recover::resolve(&store, &mut book, clock.now())?;
        let queue = Arc::new(Queue::default());
        let store = Arc::new(store);
        let blocked = watch::Sender::new(book.blocked.keys().copied().collect());
        let inner = Arc::new(Inner {
            book: Mutex::new(book),
            store: Arc::clone(&store),
            queue: Arc::clone(&queue),
            backlog: AtomicUsize::new(0),
            failed: watch::Sender::new(None),
            blocked,
            clock,
            options,
            writer: Mutex::new(None),
            path,
            copying: Mutex::new(()),
        });
        let weak = Arc::downgrade(&inner);
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || writer::run(store, queue, weak))
            .map_err(|error| Broken::new("start the writer", error))?;
        if let Ok(mut writer) = inner.writer.lock() {
            *writer = Some(thread);
        }
        Ok((Ledger { inner }, recovered))
    }

    /// Commits what is queued and ends the writer. Commands after it are refused.
    pub fn close(&self) {
        fault::point("close.before");
        self.inner.queue.close();
        let thread = self.inner.writer.lock().ok().and_then(|mut writer| writer.take());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            self.inner.fail("the writer thread panicked");
        }
        self.inner.failed.send_if_modified(|failed| failed.is_none() && failed.replace(CLOSED.into()).is_none());
        fault::point("close.after");
    }

    /// Whether it has stopped for another reason than being closed: then the next start must find out what is true.
    pub fn is_broken(&self) -> bool {
        self.inner.failed.borrow().as_deref().is_some_and(|cause| cause != CLOSED)
    }

    /// Changes to `Some(cause)` when the ledger stops for good.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.inner.failed.subscribe()
    }

    /// Whether new calls should be refused: stopped, or the disk is too far behind.
    pub fn is_admitting(&self) -> bool {
        self.inner.failed.borrow().is_none() && self.inner.backlog.load(Ordering::Relaxed) < BACKLOG
    }

    /// Claims a payment for one call. When this returns, the claim is durable; dropping the reservation gives it back.
    pub async fn claim(&self, claim: Claim) -> Result<Reservation, Denied> {
        fault::point("claim.before");
        let (request, ceiling) = (claim.request, claim.amount);
        let durable = self.run(|ledger, book| {
            let known = ledger.known_unless_remembered(book, claim.id)?;
            Ok(book.claim(claim, known, ledger.clock.now())?)
        })?;
        // Made before the wait, so that a caller who leaves now gives the claim back.
        let reservation = Reservation::new(self.clone(), request, ceiling);
        durable.wait().await?;
        fault::point("claim.after");
        Ok(reservation)
    }

    /// Claims a payment that stands for no call. When this returns, the claim is durable.
    pub async fn deposit(&self, claim: Claim) -> Result<Deposit, Denied> {
        fault::point("deposit.before");
        let (id, claim) = (claim.id, Claim { model: None, ..claim });
        let durable = self.run(|ledger, book| {
            let known = ledger.known_unless_remembered(book, id)?;
            Ok(book.claim(claim, known, ledger.clock.now())?)
        })?;
        let deposit = Deposit::new(self.clone(), id);
        durable.wait().await?;
        fault::point("deposit.after");
        Ok(deposit)
    }

    /// Holds what a call may cost, of its wallet's allowance and balance. Its record goes out un-awaited, unless the amount
    /// is above [`Options::hold_durable_above`].
    pub async fn reserve(&self, draw: Draw) -> Result<Reservation, Denied> {
        fault::point("hold.before");
        let (amount, request) = (draw.amount, draw.request);
        let command = |ledger: &Inner, book: &mut Book| Ok(book.reserve(draw, ledger.clock.now())?);
        if amount <= self.inner.options.hold_durable_above {
            self.note(command)?;
            fault::point("hold.noted");
            return Ok(Reservation::new(self.clone(), request, amount));
        }
        let durable = self.run(command)?;
        let reservation = Reservation::new(self.clone(), request, amount);
        durable.wait().await?;
        fault::point("hold.after");
        Ok(reservation)
    }

    /// Uses a sign-in up without a call; durable once this resolves.
    pub fn use_nonce(&self, nonce: Nonce) -> Result<Durable, Denied> {
        self.run(|ledger, book| Ok(book.use_nonce(nonce, ledger.clock.now())?))
    }

    /// Resolves when everything that was decided before is durable; at once, without a commit, when it is.
    pub fn flush(&self) -> Result<Durable, Denied> {
        // Every decision is counted before it is answered, and until its commit is over.
        if self.inner.backlog.load(Ordering::SeqCst) == 0 && self.inner.failed.borrow().is_none() {
            let (ack, durable) = oneshot::channel();
            let _ = ack.send(Ok(()));
            return Ok(Durable(durable));
        }
        self.run(|_, _| Ok(Vec::new()))
    }

    /// Whether a sign-in was used. One that was not may be by the time it is needed; [`Ledger::reserve`] decides.
    pub fn is_used(&self, nonce: Nonce) -> Result<bool, Denied> {
        Ok(self.inner.lock()?.nonces.contains(nonce))
    }

    /// When these books were put back from a copy last; the beginning of time if never. Which sign-ins of before were used up is
    /// not known.
    pub fn restored_at(&self) -> Result<Timestamp, Denied> {
        Ok(self.inner.lock()?.restored_at)
    }

    /// Writes one event into the keys' journal. Returns its number; it counts once it is durable.
    pub fn journal_key(&self, event: Vec<u8>) -> Result<(u64, Durable), Denied> {
        fault::point("key.before");
        let mut number = 0;
        let durable = self.run(|_, book| {
            let (rows, seq) = book.key_event(event);
            number = seq;
            Ok(rows)
        })?;
        Ok((number, durable))
    }

    /// Grants a wallet an allowance for each day, or with `None` takes it away. Refused as [`Refused::Overflow`] above
    /// [`MOST_A_DAY`].
    pub fn grant(&self, wallet: AccountId, grant: Option<Grant>) -> Result<Durable, Denied> {
        self.run(|_, book| Ok(book.grant(wallet, grant)?))
    }

    /// Sees to it that so much of a call is given back in all, or with `None` all that can be; durable when this returns.
    /// Asked for again it changes nothing. Returns the receipt of the call, and what was given back just now.
    ///
    /// # Errors
    /// [`Refused::WrongState`] when no call of that name was charged, or its payment has vanished; [`Refused::Insufficient`]
    /// says how much can be given back; [`Refused::Overflow`] when the balance of the wallet cannot take it.
    pub async fn refund(&self, request: RequestId, total: Option<Micros>) -> Result<(Receipt, Micros), Denied> {
        fault::point("refund.before");
        let mut done = None;
        let durable = self.run(|ledger, book| {
            let (rows, after, given_back) = ledger.refunded(book, request, total)?;
            done = Some((after, given_back));
            Ok(rows)
        })?;
        durable.wait().await?;
        fault::point("refund.after");
        done.ok_or(Denied::Stopped(Stopped))
    }

    /// Our settlement transaction is signed. Once this resolves it is durable and may be sent; an error means never.
    pub fn signed(&self, id: PaymentId, attempt: Attempt) -> Result<Durable, Denied> {
        self.run(|_, book| Ok(book.signed(id, attempt)?))
    }

    /// The transaction was handed to a node. Nobody waits for this note.
    pub fn sent(&self, id: PaymentId) -> Result<(), Denied> {
        self.note(|_, book| Ok(book.sent(id)?))
    }

    /// The chain has confirmed a payment: it is counted, once, for its call or for its payer.
    pub fn confirmed(&self, id: PaymentId, tx: &str, block: u64) -> Result<Durable, Denied> {
        self.run(|ledger, book| {
            let known = ledger.known_unless_remembered(book, id)?;
            Ok(book.confirmed(id, (tx.to_owned(), block), known, ledger.clock.now())?)
        })
    }

    /// A payment is proven never to arrive.
    pub fn failed(&self, id: PaymentId, reason: &str) -> Result<Durable, Denied> {
        self.run(|ledger, book| {
            let call = book.payments.get(&id).map(|payment| RequestId(payment.row.request));
            let receipt = call.map(|call| ledger.receipt(book, call)).transpose()?.flatten();
            let refunded = receipt.filter(|receipt| receipt.payment == Some(id)).map_or(0, |receipt| receipt.refunded);
            Ok(book.failed(id, reason.to_owned(), Micros::new(refunded), ledger.clock.now())?)
        })
    }

    /// Nobody may remember whether a payment arrived: its payer is no longer told to wait for it. Known until a restart.
    pub fn forgotten(&self, id: PaymentId) -> Result<(), Denied> {
        self.inner.lock()?.forgotten(id);
        Ok(())
    }

    /// A confirmed transfer vanished from the chain and is being sent again.
    pub fn reorged(&self, id: PaymentId) -> Result<(), Denied> {
        self.note(|_, book| Ok(book.reorged(id)?))
    }

    /// The chain will not take a confirmed transfer back.
    pub fn finalized(&self, id: PaymentId) -> Result<(), Denied> {
        self.note(|_, book| Ok(book.finalized(id)?))
    }

    /// A payment, whatever became of it.
    pub fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Denied> {
        let remembered = self.inner.lock()?.payments.get(&id).map(|payment| payment.row.clone());
        match remembered {
            Some(row) => Ok(Some(row)),
            None => self.inner.known(id),
        }
    }

    /// Payments the chain may still change, for the watcher to go on with after a start.
    pub fn open_payments(&self) -> Vec<(PaymentId, Payment)> {
        let Ok(book) = self.inner.lock() else { return Vec::new() };
        book.payments
            .iter()
            .filter(|(_, payment)| payment.row.is_open())
            .map(|(id, payment)| (*id, payment.row.clone()))
            .collect()
    }

    /// Calls in flight.
    pub fn open_holds(&self) -> usize {
        self.inner.lock().map_or(0, |book| book.holds.len())
    }

    /// Checks the books against themselves on a snapshot; the ledger goes on working.
    pub fn verify(&self) -> Result<Report, Broken> {
        self.verify_in_passes(reconcile::PAYMENTS_IN_A_PASS)
    }

    /// As [`Ledger::verify`], with so many payments in memory at once, at least one.
    pub fn verify_in_passes(&self, payments: usize) -> Result<Report, Broken> {
        verify::check(&self.inner.store.read()?, payments.max(1))
    }

    /// The part of the check that does for a gateway at work: hash chain, sum, balances and holds, with memory for accounts
    /// and open calls alone. `None` when the ledger was closed or has failed meanwhile: nobody waits for it then.
    pub fn check_totals(&self) -> Result<Option<Report>, Broken> {
        verify::check_totals(&self.inner.store.read()?, &|| self.inner.failed.borrow().is_some())
    }

    fn close_call(&self, request: RequestId, close: Close, service: Service) -> Micros {
        match close {
            Close::Void => fault::point("void.before"),
            Close::Post(_) | Close::Partly(_) => fault::point("post.before"),
        }
        let mut charged = Micros::ZERO;
        let done = self.note(|ledger, book| {
            let (rows, amount) = book.close(request, close, service, ledger.clock.now())?;
            charged = amount;
            Ok(rows)
        });
        if let Err(denied) = done {
            tracing::debug!(request.id = %request, %denied, "the call was closed before, or the ledger has stopped");
            charged = Micros::ZERO;
        }
        match close {
            Close::Void => fault::point("void.after"),
            Close::Post(_) | Close::Partly(_) => fault::point("post.after"),
        }
        charged
    }

    /// Decides one command and hands back the wait for its rows to be durable.
    fn run(&self, command: impl FnOnce(&Inner, &mut Book) -> Result<Vec<Write>, Denied>) -> Result<Durable, Denied> {
        let (ack, durable) = oneshot::channel();
        self.decide(command, Some(ack))?;
        Ok(Durable(durable))
    }

    /// Decides one command whose rows go out with the next commit, awaited by nobody.
    fn note(&self, command: impl FnOnce(&Inner, &mut Book) -> Result<Vec<Write>, Denied>) -> Result<(), Denied> {
        self.decide(command, None)
    }

    /// The serial point: the lock is held for microseconds and never across an await, and rows are queued under it, so
    /// that they reach the disk in the order in which they were decided.
    fn decide(
        &self,
        command: impl FnOnce(&Inner, &mut Book) -> Result<Vec<Write>, Denied>,
        ack: Option<oneshot::Sender<Result<(), Stopped>>>,
    ) -> Result<(), Denied> {
        let mut book = self.inner.lock()?;
        book.ticket += 1;
        let ticket = book.ticket;
        let writes = command(&self.inner, &mut book)?;
        self.inner.backlog.fetch_add(1, Ordering::SeqCst);
        // Refused when the ledger is being closed, or when its writer has ended and said why.
        if self.inner.queue.push(Batch { ticket, writes, ack }) { Ok(()) } else { Err(Stopped.into()) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.desert();
    }
}

impl Inner {
    /// The book, unless the ledger has stopped. A panic under the lock leaves memory in doubt: that is a stop too.
    fn lock(&self) -> Result<MutexGuard<'_, Book>, Stopped> {
        if self.failed.borrow().is_some() {
            return Err(Stopped);
        }
        self.book.lock().map_err(|_| {
            self.fail("a command panicked");
            Stopped
        })
    }

    fn known_or_remembered(&self, book: &Book, id: PaymentId) -> Result<Option<Payment>, Denied> {
        let remembered = book.payments.get(&id).map(|payment| payment.row.clone());
        if remembered.is_some() { Ok(remembered) } else { self.known(id) }
    }

    fn known_unless_remembered(&self, book: &Book, id: PaymentId) -> Result<Option<Payment>, Denied> {
        if book.payments.contains_key(&id) { Ok(None) } else { self.known(id) }
    }

    /// A payment that is no longer in memory. A read that fails stops the ledger: a payment must not look new by mistake.
    fn known(&self, id: PaymentId) -> Result<Option<Payment>, Denied> {
        self.on_disk(|snapshot| snapshot.payment(id))
    }

    /// The last receipt of a call, if it is durable or something of it was given back.
    fn receipt(&self, book: &Book, request: RequestId) -> Result<Option<Receipt>, Denied> {
        let remembered = book.refunding.get(&request).map(|(receipt, _)| receipt.clone());
        if remembered.is_some() { Ok(remembered) } else { self.on_disk(|disk| disk.receipt(request)) }
    }

    /// Gives back of a call as [`Ledger::refund`] says: its rows, the receipt after it, and what was given back just now.
    fn refunded(
        &self,
        book: &mut Book,
        request: RequestId,
        total: Option<Micros>,
    ) -> Result<(Vec<Write>, Receipt, Micros), Denied> {
        let receipt = self.receipt(book, request)?.ok_or(Refused::WrongState)?;
        let paid_by = receipt.payment.map(|id| self.known_or_remembered(book, id)).transpose()?.flatten();
        // The money of this call vanished from its chain: there is nothing to give back.
        if paid_by.is_some_and(|payment| payment.state == State::Failed) {
            return Err(Refused::WrongState.into());
        }
        let before = receipt.refunded;
        let (rows, after) = book.refund(request, receipt, total, self.clock.now())?;
        let given_back = Micros::new(after.refunded.saturating_sub(before));
        Ok((rows, after, given_back))
    }

    /// Reads what is durable. A read that fails stops the ledger.
    fn on_disk<T>(&self, read: impl FnOnce(&Snapshot) -> Result<T, Broken>) -> Result<T, Denied> {
        let answer = self.store.read().and_then(|tx| read(&Snapshot(&tx)));
        answer.map_err(|error| {
            self.fail(&error.to_string());
            Denied::Stopped(Stopped)
        })
    }

    fn fail(&self, cause: &str) {
        tracing::error!(cause, "the ledger has stopped; the program must end and recover on its next start");
        let first = self.failed.send_if_modified(|failed| failed.is_none() && failed.replace(cause.to_owned()).is_none());
        if let (true, Some(path)) = (first, &self.path) {
            rescue::mark(path, cause);
        }
    }

    /// Forgets closed payments that are durable now, and tells who is barred.
    fn committed(&self, ticket: u64, batches: usize) {
        self.backlog.fetch_sub(batches, Ordering::SeqCst);
        if let Ok(mut book) = self.book.lock() {
            book.forget_closed(ticket);
            self.tell_blocked(&mut book, ticket);
        }
    }
}
