//! Watching a confirmed transfer until its block can no longer be replaced.

use tokio::time::{Duration, Instant, sleep};
use tracing::debug;

use super::attempt::Progress;
use super::evidence;
use super::hex;
use super::node::Receipt;
use super::settle::{Halt, Settler};
use super::transaction::Signed;
use super::verified::Verified;
use crate::chain::Confirmation;

/// Between looks at what is final.
const PAUSE: Duration = Duration::from_secs(5);
/// The first look after a confirmation; each later one waits four times as long.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// How a watch ended.
pub enum Watched {
    Final,
    /// The receipt is gone from a chain that answers.
    Vanished,
}

impl Settler {
    /// Tells what the chain took for a transaction of ours that is deep enough, once.
    pub(super) fn note_fee(&self, payment: &Verified, receipt: &Receipt, progress: &mut Progress) {
        let is_new = progress.charged.replace(receipt.tx) != Some(receipt.tx);
        if let Some(fee) = receipt.fee.filter(|_| is_new) {
            self.journal.paid_fee(payment.id(), &hex::encode(&receipt.tx), fee);
        }
    }

    /// Returns when the transfer is final or gone. Looks seldom: a reorganisation is rare and most are short.
    pub(super) async fn watch(&self, payment: &Verified, found: &Confirmation, tries: &mut Vec<Signed>) -> Watched {
        let Some(hash) = hex::fixed(&found.tx) else { return Watched::Vanished };
        let mut block = found.block;
        let mut delay = FIRST_LOOK;
        let mut look_at = Instant::now() + delay;
        let mut missed = 0;
        let mut progress = Progress::new();
        loop {
            sleep(self.node.in_step(delay.min(PAUSE))).await;
            let Ok(horizon) = self.node.finalized().await.map(|block| block.number) else { continue };
            let is_final = block <= horizon;
            if !is_final && Instant::now() < look_at {
                continue;
            }
            let ours = tries.iter().any(|signed| signed.hash == hash);
            let asked = if ours { self.node.our_receipts(&[hash]).await } else { self.node.receipts(&[hash]).await };
            let Ok((mut receipts, latest)) = asked else { continue };
            match receipts.pop().flatten().filter(|receipt| evidence::pays(receipt, payment)) {
                // A node that is behind has not seen it yet.
                None if latest.number < block => {}
                // Nodes may be apart for a moment; the second miss counts.
                None if missed > 0 => return Watched::Vanished,
                None => {
                    missed += 1;
                    delay = FIRST_LOOK;
                    look_at = Instant::now();
                }
                Some(receipt) => {
                    missed = 0;
                    block = receipt.block;
                    delay *= 4;
                    look_at = Instant::now() + delay;
                    let clear = match self.clear_line(payment, tries, &latest, &mut progress).await {
                        Ok(clear) => clear,
                        // The books are closed over this payment; what is left is only a nonce.
                        Err(Halt::Closed) => true,
                        Err(Halt::Trouble(_)) => false,
                    };
                    if is_final && block <= horizon && clear {
                        debug!(payment = %payment.id(), "settlement is final");
                        return Watched::Final;
                    }
                }
            }
        }
    }
}
