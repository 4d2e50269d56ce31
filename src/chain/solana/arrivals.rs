//! What came in at the token account of `pay_to` since a moment and what left it, whoever moved it and for whatever: its own history,
//! read backwards.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::ledger::{Ledger, PAGES, REMEMBERED};
use super::node::{self, Asked, Entry, PAGE, nonsense};
use crate::chain::rpc::RpcError;
use crate::chain::treasury::{Arrival, Way};
use crate::clock::Timestamp;
use crate::money::Micros;

/// Transactions that are asked for in one round trip.
const TOGETHER: usize = 20;
/// Said of a transfer whose other side no node names, as of one that was minted or that no node shows.
const NOBODY: &str = "unknown";

impl Ledger {
    /// Every transfer to the token account of `pay_to` since `since` by the chain's clock, the oldest first, without those of
    /// transactions that `is_known`, which are not even looked at.
    ///
    /// # Errors
    /// Why no node could say, or that its history does not reach back so far.
    pub async fn arrivals(&self, since: Timestamp, is_known: &dyn Fn(&str) -> bool) -> Result<Vec<Arrival>, String> {
        self.look_for(Way::In, since.secs(), is_known).await.map_err(|error| error.to_string())
    }

    /// Every transfer from it, in the same way.
    ///
    /// # Errors
    /// As [`Ledger::arrivals`].
    pub async fn departures(&self, since: Timestamp, is_known: &dyn Fn(&str) -> bool) -> Result<Vec<Arrival>, String> {
        self.look_for(Way::Out, since.secs(), is_known).await.map_err(|error| error.to_string())
    }

    async fn look_for(&self, way: Way, since: u64, is_known: &dyn Fn(&str) -> bool) -> Asked<Vec<Arrival>> {
        let (slot, now) = self.moment().await?;
        let (mut found, mut before, mut limit) = (Vec::new(), None, PAGE);
        for _ in 0..PAGES {
            let page = self.page(self.token.account, before.as_deref(), slot, &mut limit).await?;
            let young = |entry: &&Entry| entry.time.is_none_or(|time| time >= since);
            let wanted: Vec<_> = page.iter().filter(young).filter(|entry| !is_known(&entry.tx)).collect();
            for some in wanted.chunks(TOGETHER) {
                found.extend(self.moved_in(way, some).await?);
            }
            let is_behind = page.iter().filter_map(|entry| entry.time).any(|time| time < since);
            match page.last() {
                Some(last) if !is_behind => before = Some(last.tx.clone()),
                None if now >= since.saturating_add(REMEMBERED) => return Err(RpcError::Unreachable(FORGETFUL.into())),
                _ => {
                    found.reverse();
                    return Ok(found);
                }
            }
        }
        Err(RpcError::Unreachable("the token account has too much of a history since to be read".into()))
    }

    /// The slot that the chain is at, and its clock in UNIX seconds.
    async fn moment(&self) -> Asked<(u64, u64)> {
        let clock = self.node.call(node::accounts(&[node::clock_key()])).await?;
        let slot = node::read_number(&clock["context"]["slot"], "getMultipleAccounts")?;
        let seconds = node::read_clock(node::read_accounts(&clock, 1)?.pop().flatten().as_ref())?;
        Ok((slot, seconds))
    }

    async fn moved_in(&self, way: Way, entries: &[&Entry]) -> Asked<Vec<Arrival>> {
        let asking = self.node.asking();
        let asked = async {
            let answers = self.node.all_here(entries.iter().map(|entry| node::transaction(&entry.tx)).collect()).await?;
            let mut arrivals = Vec::new();
            for (entry, answer) in entries.iter().zip(answers) {
                arrivals.extend(self.moved(way, entry, &answer?)?);
            }
            Ok(arrivals)
        };
        self.node.heed(asking, asked.await)
    }

    /// What one transaction moved this way; nothing if it moved nothing. Of one that the node names and does not show, only that it
    /// is there.
    fn moved(&self, way: Way, entry: &Entry, answer: &Value) -> Asked<Option<Arrival>> {
        let tx = &entry.tx;
        if answer.is_null() {
            return Ok(Some(Arrival { tx: tx.clone(), other: NOBODY.into(), amount: Micros::ZERO, block: entry.slot }));
        }
        let meta = &answer["meta"];
        let changes = changes(meta, &self.token.mint.to_string()).ok_or_else(|| nonsense("getTransaction"))?;
        let block = answer["slot"].as_u64().ok_or_else(|| nonsense("getTransaction"))?;
        let towards = |change: i128| if way == Way::In { change } else { -change };
        let moved = changes.get(&self.token.pay_to.to_string()).and_then(|change| u64::try_from(towards(*change)).ok());
        let other = changes.iter().min_by_key(|(_, change)| towards(**change)).filter(|(_, change)| towards(**change) < 0);
        Ok(moved.filter(|moved| *moved > 0 && meta["err"].is_null()).map(|moved| Arrival {
            tx: tx.clone(),
            other: other.map_or_else(|| NOBODY.to_owned(), |(owner, _)| owner.clone()),
            amount: Micros::new(moved),
            block,
        }))
    }
}

/// Said of a history that may have been longer.
const FORGETFUL: &str = "the node's history does not reach back to the backup; look at the history of the token account, or name in \
                         rpc_urls a node that keeps all of the past";

/// What a token account had, and whose it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holding {
    mint: String,
    owner: String,
    ui_token_amount: Amount,
}

#[derive(Deserialize)]
struct Amount {
    amount: String,
}

/// By how many units of a mint each owner's holdings changed; `None` for what makes no sense.
fn changes(meta: &Value, mint: &str) -> Option<BTreeMap<String, i128>> {
    let mut changes = BTreeMap::new();
    for (side, sign) in [("preTokenBalances", -1), ("postTokenBalances", 1)] {
        for Holding { mint: of, owner, ui_token_amount } in Vec::<Holding>::deserialize(meta.get(side)?).ok()? {
            if of == mint {
                *changes.entry(owner).or_insert(0) += sign * i128::from(ui_token_amount.amount.parse::<u64>().ok()?);
            }
        }
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_every_owner_gained_and_lost_of_one_mint_is_added_up_over_all_its_accounts() {
        let holding = |owner: &str, mint: &str, amount: &str| json!({ "accountIndex": 1, "owner": owner, "mint": mint, "uiTokenAmount": { "amount": amount, "decimals": 6 } });
        let meta = json!({
            "preTokenBalances": [holding("a", "usdc", "100"), holding("shop", "usdc", "5"), holding("shop", "usdc", "7"), holding("a", "other", "9")],
            "postTokenBalances": [holding("a", "usdc", "60"), holding("shop", "usdc", "47"), holding("shop", "usdc", "5")],
        });
        let expected = BTreeMap::from([("a".to_owned(), -40), ("shop".to_owned(), 40)]);
        assert_eq!(changes(&meta, "usdc"), Some(expected));
        assert_eq!(changes(&json!({}), "usdc"), None);
        let odd = json!({ "preTokenBalances": [], "postTokenBalances": [holding("a", "usdc", "-1")] });
        assert_eq!(changes(&odd, "usdc"), None);
    }
}
