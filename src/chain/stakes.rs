//! What our transfers under way take from each payer's wallet, so that we pay no gas for two that spend the same money.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use crate::money::Micros;

/// A wallet without a transfer under way is remembered for so many blocks, for nodes that are behind.
const REMEMBERED: u64 = 64;

/// All transfers that are signed and not seen in a block. Each passes a simulation by itself, for that is made on the chain
/// as it is; what they take together is known only here. `P` names a payer's holdings of one token.
pub struct Stakes<P: Eq + Hash>(Rc<RefCell<HashMap<P, Taken>>>);

impl<P: Eq + Hash> Default for Stakes<P> {
    fn default() -> Stakes<P> {
        Stakes(Rc::default())
    }
}

#[derive(Default)]
struct Taken {
    /// Token units.
    open: u128,
    transfers: usize,
    /// The last block in which we saw a transfer; a balance of before does not know of it.
    mined_in: u64,
}

/// One transfer's part, given back when it is dropped.
pub struct Stake<P: Eq + Hash> {
    stakes: Rc<RefCell<HashMap<P, Taken>>>,
    purse: P,
    amount: u128,
}

impl<P: Eq + Hash + Clone> Stakes<P> {
    /// Counts a transfer that is signed already.
    pub fn hold(&self, purse: P, amount: Micros) -> Stake<P> {
        self.count(purse, amount.get().into())
    }

    /// Counts a transfer before it is signed, if its payer's `balance` (token units) in block `latest` or later pays for it
    /// beside all that are under way. `None` says nothing about the payment: once the others are mined, a simulation tells.
    pub fn claim(&self, purse: P, amount: Micros, balance: u64, latest: u64) -> Option<Stake<P>> {
        let amount = u128::from(amount.get());
        let mut purses = self.0.borrow_mut();
        purses.retain(|_, taken| taken.transfers > 0 || taken.mined_in.saturating_add(REMEMBERED) >= latest);
        let (open, mined_in) = purses.get(&purse).map_or((0, 0), |taken| (taken.open, taken.mined_in));
        // A transfer that is in a block counts until we see it there: then one waits a look longer than it would have to.
        let enough = open == 0 || open.saturating_add(amount) <= balance.into();
        drop(purses);
        (enough && mined_in <= latest).then(|| self.count(purse, amount))
    }

    fn count(&self, purse: P, amount: u128) -> Stake<P> {
        let mut purses = self.0.borrow_mut();
        let taken = purses.entry(purse.clone()).or_default();
        taken.open = taken.open.saturating_add(amount);
        taken.transfers += 1;
        Stake { stakes: self.0.clone(), purse, amount }
    }
}

impl<P: Eq + Hash> Stake<P> {
    /// The transfer was seen in this block: balances from there on know of it.
    pub fn mined(self, block: u64) {
        if let Some(taken) = self.stakes.borrow_mut().get_mut(&self.purse) {
            taken.mined_in = taken.mined_in.max(block);
        }
    }
}

impl<P: Eq + Hash> Drop for Stake<P> {
    fn drop(&mut self) {
        let mut purses = self.stakes.borrow_mut();
        if let Some(taken) = purses.get_mut(&self.purse) {
            taken.open = taken.open.saturating_sub(self.amount);
            taken.transfers = taken.transfers.saturating_sub(1);
            if taken.transfers == 0 && taken.mined_in == 0 {
                purses.remove(&self.purse);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_money_is_staked_once_and_a_balance_of_before_is_not_believed() {
        let stakes = Stakes::default();
        let claim = |amount, balance, latest| stakes.claim("purse", Micros::new(amount), balance, latest);
        let first = claim(10, 25, 7).unwrap();
        let second = claim(10, 25, 7).unwrap();
        assert!(claim(10, 25, 7).is_none(), "30 of 25");
        assert!(stakes.claim("other", Micros::new(10), 10, 7).is_some(), "others have money of their own");
        first.mined(8);
        assert!(claim(10, 25, 7).is_none(), "this balance does not know of the first");
        assert!(claim(10, 15, 8).is_none(), "20 of 15");
        assert!(claim(5, 15, 8).is_some());
        drop(second);
        assert!(claim(10, 15, 8).is_some(), "the second did not happen");
        assert!(claim(10, 0, 8).is_some(), "alone, the simulation is believed");
        assert_eq!(stakes.0.borrow().len(), 1);
        drop(stakes.claim("other", Micros::new(10), 10, 8 + REMEMBERED + 1));
        assert!(stakes.0.borrow().is_empty(), "nobody is remembered for ever");
    }
}
