//! The orders of jobs that are under way on one thread: they outlive their buyers' connections, and a stop waits for them.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::watch;

/// How many orders are under way on this thread.
#[derive(Debug, Default)]
pub struct Orders {
    count: watch::Sender<usize>,
    is_awaited: Cell<bool>,
}

/// One order, until it is dropped.
#[derive(Debug)]
pub struct Order(Rc<Orders>);

impl Orders {
    /// Counts one more.
    pub fn begin(self: &Rc<Self>) -> Order {
        self.count.send_modify(|count| *count += 1);
        Order(Rc::clone(self))
    }

    /// Keeps a connection that has ended in the server's count until the last order has: a thread that has no connections
    /// ends when the program is told to stop, with all that runs on it. One connection is enough for all orders.
    pub async fn ended(&self) {
        if *self.count.borrow() == 0 || self.is_awaited.replace(true) {
            return;
        }
        // Fails only where the sender is gone, which is ours.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
        self.is_awaited.set(false);
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        self.0.count.send_modify(|count| *count = count.saturating_sub(1));
    }
}
