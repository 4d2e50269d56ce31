//! Comparing the books with the chains: every payment that was counted must be a transfer that its chain still has, and no payout that
//! became balance again may be one.

use std::collections::{HashMap, HashSet};

use tokio::task::LocalSet;

use super::VerifiedPayment;
use super::client::JsonClient;
use super::handle::Closed;
use super::token::Token;
use super::witness::{Trace, Witness};
use crate::account::AccountId;
use crate::clock::Clock;
use crate::config::{Network, Settlement};
use crate::ids::PaymentId;
use crate::tls;

/// One payment that the books count, or a payout that they say failed.
#[derive(Debug, Clone)]
pub struct Counted {
    pub id: PaymentId,
    /// As [`VerifiedPayment::to_bytes`] wrote it.
    pub payment: Vec<u8>,
    /// The transaction that is said to have carried it, or of a payout that failed the last that was to; empty if there was none.
    pub tx: String,
    /// The name of the payout and the wallet that it goes to; none for a payment to us.
    pub payout: Option<(String, AccountId)>,
    /// Whether the books say that it never arrived.
    pub failed: bool,
    /// Whether the operator has taken a payout that failed, by its name.
    pub taken: bool,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Payments whose transfer was found as counted.
    pub found: usize,
    /// Payments that no node was asked about, on simulated networks and those without `rpc_urls`, and payouts that became balance
    /// again and that the node may have forgotten.
    pub unasked: usize,
    /// One sentence for each payment that the chain does not confirm.
    pub problems: Vec<String>,
}

/// What an audit has gathered on its way.
#[derive(Default)]
struct Looked {
    audit: Audit,
    /// The transfers that explain payments already; one transfer explains one payment.
    seen: HashSet<Transfer>,
    /// Payouts that were paid all the same, and taken by hand, each of which explains one transfer.
    excused: HashSet<String>,
    /// Whether the nodes of a network may say that something is not there: one of another chain, or that is behind, knows of nothing.
    may_deny: HashMap<String, Result<(), String>>,
}

/// Asks the nodes of the configured networks about every payment. Blocks until all have answered.
pub fn audit(networks: &[Network], counted: &[Counted], clock: &Clock) -> Audit {
    let mut looked = Looked::default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            looked.audit.problems.push(format!("the chains cannot be asked: {error}"));
            return looked.audit;
        }
    };
    LocalSet::new().block_on(&runtime, async {
        let witnesses = match networks.iter().filter_map(|network| witness(network).transpose()).collect::<Result<Vec<_>, _>>() {
            Ok(witnesses) => witnesses,
            Err(error) => return looked.audit.problems.push(format!("the chains cannot be asked: {error}")),
        };
        // What is paid explains its transfer; one that is left was paid for a payout that failed.
        for failed in [false, true] {
            for one in counted.iter().filter(|one| one.failed == failed) {
                look_up(&witnesses, one, clock, &mut looked).await;
            }
        }
    });
    looked.audit
}

pub(super) fn witness(network: &Network) -> Result<Option<(&str, Witness)>, String> {
    let urls = match &network.settlement {
        Settlement::Rpc { urls, .. } | Settlement::Facilitator { rpc_urls: urls, .. } if !urls.is_empty() => urls.clone(),
        _ => return Ok(None),
    };
    let client = JsonClient::new(tls::client(network.ca_file.as_deref())?);
    let token = Token::resolve(network).map_err(|error| error.to_string())?;
    Ok(Witness::new(client, urls, token).map(|witness| (network.id.as_str(), witness)))
}

/// A transfer: its network, transaction and position there.
type Transfer = (String, String, usize);

async fn look_up(witnesses: &[(&str, Witness)], counted: &Counted, clock: &Clock, looked: &mut Looked) {
    let (id, tx, audit) = (counted.id, &counted.tx, &mut looked.audit);
    let payment = match VerifiedPayment::from_bytes(&counted.payment) {
        Ok(payment) => payment,
        Err(error) => return audit.problems.push(format!("{id}: {error}")),
    };
    if counted.payout.as_ref().is_some_and(|(_, wallet)| !payment.is_paid_to(*wallet)) {
        return audit.problems.push(format!("{id}: the payout that was signed goes to another wallet than the books say"));
    }
    let Some((network, witness)) = witnesses.iter().find(|(network, _)| *network == payment.network()) else {
        audit.unasked += 1;
        return;
    };
    if counted.failed {
        return never(witness, counted, &payment, clock, looked).await;
    }
    match witness.carried(&payment, tx).await {
        Ok(Some((tx, position))) => match looked.seen.insert(((*network).to_owned(), tx.clone(), position)) {
            true => audit.found += 1,
            false => audit.problems.push(format!("{id}: the transfer in {tx} is counted for another payment already")),
        },
        Ok(None) => audit.problems.push(format!("{id}: {network} has no transfer of {} micros in {tx}", payment.amount().get())),
        Err(why) => audit.problems.push(format!("{id}: {network} cannot be asked: {why}")),
    }
}

/// A payout that became balance again must not be there, as far as anybody can tell.
async fn never(witness: &Witness, counted: &Counted, payment: &VerifiedPayment, clock: &Clock, looked: &mut Looked) {
    let (id, network, audit) = (counted.id, payment.network(), &mut looked.audit);
    if !looked.may_deny.contains_key(network) {
        looked.may_deny.insert(network.to_owned(), witness.check(clock.now()).await.map_err(Closed::into_text));
    }
    let trace = match &looked.may_deny[network] {
        Ok(()) => witness.trace(payment, &counted.tx).await,
        Err(why) => Err(why.clone()),
    };
    match trace {
        Ok(Trace::Nothing) => {}
        Ok(Trace::Moved(tx, place)) if !looked.seen.insert((network.to_owned(), tx.clone(), place)) => {}
        Ok(Trace::Moved(tx, _)) => {
            let (name, wallet) = counted.payout.clone().map_or_else(Default::default, |(name, wallet)| (name, wallet.address()));
            if counted.taken && looked.excused.insert(name.clone()) {
                audit.found += 1;
                return;
            }
            audit.problems.push(format!(
                "{id}: this payout became balance again, and {network} has its transfer in {tx}: take what its wallet has twice with \
                 farebox adjust {wallet} -{} --id {name:?} --reason TEXT; what was taken for it under another id is given back first",
                payment.amount()
            ));
        }
        Ok(Trace::Forgotten) => audit.unasked += 1,
        Err(_) if counted.taken => audit.unasked += 1,
        Err(why) => audit.problems.push(format!("{id}: whether {network} has its transfer cannot be said: {why}")),
    }
}
