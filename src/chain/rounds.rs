//! Questions that many settlements have at about the same moment: asked together, or asked once for everybody.

use std::cell::{Cell, RefCell};

use tokio::sync::{Mutex, oneshot};
use tokio::time::{Duration, Instant, sleep};

use super::rpc::RpcError;

/// How long the first who asks waits for others.
const GATHER: Duration = Duration::from_millis(10);

type Asked<T> = Result<T, RpcError>;

/// One question and who waits for its answer. Nobody listening is fine: the next look asks again.
pub struct Wanted<Q, A> {
    pub question: Q,
    pub tell: oneshot::Sender<Asked<A>>,
}

/// Who waits for the next round.
pub struct Rounds<Q, A> {
    waiting: RefCell<Vec<Wanted<Q, A>>>,
    /// Whether somebody is gathering.
    led: Cell<bool>,
}

/// Gathers; if it is dropped before it asked, so are those who wait, and they learn it.
struct Lead<'a, Q, A>(Option<&'a Rounds<Q, A>>);

impl<Q, A> Drop for Lead<'_, Q, A> {
    fn drop(&mut self) {
        if let Some(rounds) = self.0 {
            rounds.led.set(false);
            rounds.waiting.borrow_mut().clear();
        }
    }
}

impl<Q, A> Default for Rounds<Q, A> {
    fn default() -> Rounds<Q, A> {
        Rounds { waiting: RefCell::default(), led: Cell::default() }
    }
}

impl<Q, A> Rounds<Q, A> {
    /// Asks in the next round. Whoever comes first leads it: after a moment it has `ask` answer everybody's question.
    pub async fn join<F: Future<Output = ()>>(&self, question: Q, ask: impl FnOnce(Vec<Wanted<Q, A>>) -> F) -> Asked<A> {
        let (tell, answer) = oneshot::channel();
        self.waiting.borrow_mut().push(Wanted { question, tell });
        if !self.led.replace(true) {
            let mut lead = Lead(Some(self));
            sleep(GATHER).await;
            let wanted = self.waiting.take();
            self.led.set(false);
            lead.0 = None;
            ask(wanted).await;
        }
        answer.await.unwrap_or_else(|_| Err(RpcError::Unreachable("nobody was asked".into())))
    }
}

/// One answer that many want, asked for once.
pub struct Shared<T>(Mutex<Option<(Instant, Asked<T>)>>);

impl<T> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared(Mutex::default())
    }
}

impl<T: Copy> Shared<T> {
    /// The next who asks is not told what was answered before.
    pub fn forget(&self) {
        // Whoever is asking now has not been answered yet.
        if let Ok(mut known) = self.0.try_lock() {
            *known = None;
        }
    }

    /// What was answered last if that is younger than `age`, else what `ask` answers now. Whoever comes in between waits for
    /// the same answer, and hears of the same trouble.
    pub async fn get(&self, age: Duration, ask: impl Future<Output = Asked<T>>) -> Asked<T> {
        let mut known = self.0.lock().await;
        if let Some((at, answer)) = &*known
            && at.elapsed() < if answer.is_ok() { age } else { age.min(GATHER) }
        {
            return answer.clone();
        }
        let answer = ask.await;
        *known = Some((Instant::now(), answer.clone()));
        answer
    }
}
