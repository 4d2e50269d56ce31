//! Looks at the gateway now and then, and tells the operator's webhooks of what has changed for the better or the worse.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Gateway;
use crate::config::Occasion;
use crate::ids::PaymentId;
use crate::metrics::Value;
use crate::webhooks::Event;

/// Between two looks at what changes within seconds.
const LOOK: Duration = Duration::from_secs(1);
/// So many looks make one at what changes within minutes.
const SELDOM: u32 = 15;
/// A payment that is waited for so long is stuck: transfers above `safe_above` take up to twenty minutes on a rollup.
const STUCK: Duration = Duration::from_secs(30 * 60);

/// What was told last.
#[derive(Default)]
struct Known {
    /// Upstreams that are down, and networks whose purse is low, by their names.
    down: HashSet<String>,
    low: HashSet<String>,
    stuck: HashSet<PaymentId>,
}

/// Watches the latest edition until the ledger fails, which is the last that is told.
pub async fn watch(latest: impl Fn() -> Arc<Gateway>) {
    let mut failure = latest().ledger.failure();
    let mut known = Known::default();
    let mut next = Instant::now();
    for look in 0u32.. {
        let gateway = latest();
        known.look_at_upstreams(&gateway);
        if look % SELDOM == 0 {
            known.look_at_purses(&gateway);
            known.look_at_settlements(&gateway);
        }
        next += LOOK;
        let failed = tokio::select! {
            failed = failure.wait_for(Option::is_some) => failed.ok().and_then(|cause| cause.clone()),
            () = sleep_until(next) => None,
        };
        if let Some(cause) = failed {
            if gateway.ledger.is_broken() {
                gateway.notices.tell(&Event::LedgerFailed { cause });
            }
            return;
        }
    }
}

impl Known {
    fn look_at_upstreams(&mut self, gateway: &Gateway) {
        for (name, is_up) in gateway.health.states() {
            let upstream = name.to_owned();
            match is_up {
                false if self.down.insert(upstream.clone()) => gateway.notices.tell(&Event::UpstreamDown { upstream }),
                true if self.down.remove(name) => gateway.notices.tell(&Event::UpstreamUp { upstream }),
                _ => {}
            }
        }
    }

    fn look_at_purses(&mut self, gateway: &Gateway) {
        for network in gateway.chains.networks() {
            let Some(purse) = network.purse else { continue };
            if !purse.is_low() {
                self.low.remove(&network.id);
            } else if self.low.insert(network.id.clone()) {
                let coins = |units| Value::Coins(units, purse.digits).to_string();
                let (has, needs) = (coins(purse.has), coins(purse.needs));
                tracing::warn!(
                    network = network.id,
                    settler = purse.address,
                    has,
                    needs,
                    "the settler's purse is low; send it some coin"
                );
                gateway.notices.tell(&Event::LowGas { network: network.id, address: purse.address, has, needs });
            }
        }
    }

    fn look_at_settlements(&mut self, gateway: &Gateway) {
        if !gateway.notices.wants(Occasion::SettlementStuck) {
            return;
        }
        let before = gateway.clock.now().millis().saturating_sub(u64::try_from(STUCK.as_millis()).unwrap_or(u64::MAX));
        let stuck = gateway.ledger.unsettled_since(crate::clock::Timestamp::from_millis(before));
        let still: HashSet<_> = stuck.iter().map(|payment| payment.id).collect();
        self.stuck.retain(|id| still.contains(id));
        for payment in stuck {
            if self.stuck.insert(payment.id) {
                gateway.notices.tell(&Event::SettlementStuck {
                    payment: payment.id,
                    account: payment.payer,
                    amount: payment.amount,
                    network: payment.network,
                    since: payment.claimed_at,
                });
            }
        }
    }
}
