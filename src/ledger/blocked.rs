//! Wallets that the operator has barred: nothing is sold to them and nothing taken of them; what they have here stays theirs.

use std::future::{Future, pending};

use redb::ReadTransaction;
use serde::{Deserialize, Serialize};

use super::book::{Book, Refused, Rows, Write};
use super::snapshot::{account, json};
use super::tables::BLOCKED;
use super::{Broken, Denied, History, Inner, Ledger, Stopped};
use crate::account::AccountId;
use crate::fault;

/// Why a wallet is barred, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The operator's own words, which its buyer is never shown.
    pub reason: String,
    /// In milliseconds since 1970.
    pub at: u64,
}

impl Book {
    /// Bars a wallet. One that is barred stays so since when it was, for the reason that it had.
    pub fn block(&mut self, wallet: AccountId, wanted: Block) -> Rows {
        if self.blocked.contains_key(&wallet) {
            return Rows::new();
        }
        self.blocked.insert(wallet, wanted.clone());
        self.blocks_due.get_or_insert(self.ticket);
        vec![Write::Block(wallet, Some(wanted))]
    }

    /// Lets a wallet in again; with it, what it was barred for, if it was.
    pub fn unblock(&mut self, wallet: AccountId) -> (Rows, Option<Block>) {
        let ended = self.blocked.remove(&wallet);
        if ended.is_some() {
            self.blocks_due.get_or_insert(self.ticket);
        }
        let rows = ended.iter().map(|_| Write::Block(wallet, None)).collect();
        (rows, ended)
    }

    /// Nothing is held or claimed for a wallet that is barred.
    pub(super) fn check_blocked(&self, wallet: AccountId) -> Result<(), Refused> {
        if self.blocked.contains_key(&wallet) { Err(Refused::Blocked) } else { Ok(()) }
    }
}

impl Ledger {
    /// Bars a wallet from buying. It is durable and has effect when this returns, also on calls that run. Returns what stands in
    /// the books, and whether it is new: a wallet that was barred before stays so since then.
    ///
    /// # Errors
    /// [`Stopped`] alone.
    pub async fn block(&self, wallet: AccountId, reason: &str) -> Result<(Block, bool), Denied> {
        fault::point("block.before");
        let mut done = None;
        let durable = self.run(|inner, book| {
            let wanted = Block { reason: reason.to_owned(), at: inner.clock.now().millis() };
            let rows = book.block(wallet, wanted);
            done = book.blocked.get(&wallet).cloned().map(|stands| (stands, !rows.is_empty()));
            Ok(rows)
        })?;
        durable.wait().await?;
        fault::point("block.after");
        done.ok_or(Denied::Stopped(Stopped))
    }

    /// Lets a wallet buy again. Durable when this returns. Returns what it was barred for, if it was.
    ///
    /// # Errors
    /// [`Stopped`] alone.
    pub async fn unblock(&self, wallet: AccountId) -> Result<Option<Block>, Denied> {
        fault::point("unblock.before");
        let mut ended = None;
        let durable = self.run(|_, book| {
            let (rows, was) = book.unblock(wallet);
            ended = was;
            Ok(rows)
        })?;
        durable.wait().await?;
        fault::point("unblock.after");
        Ok(ended)
    }

    /// Whether a wallet is barred. Asked for every call; [`Ledger::reserve`], [`Ledger::claim`] and [`Ledger::deposit`] decide.
    pub fn is_blocked(&self, wallet: AccountId) -> bool {
        self.inner.blocked.borrow().contains(&wallet)
    }

    /// How many wallets are barred.
    pub fn count_blocked(&self) -> usize {
        self.inner.blocked.borrow().len()
    }

    /// Resolves when a wallet is barred; at once if it is.
    pub fn until_blocked(&self, wallet: AccountId) -> impl Future<Output = ()> + use<> {
        let mut barred = self.inner.blocked.subscribe();
        async move {
            if barred.wait_for(|barred| barred.contains(&wallet)).await.is_err() {
                // Nobody can bar it any more: the ledger is gone.
                pending().await
            }
        }
    }

    /// Why a wallet is barred, if it is.
    ///
    /// # Errors
    /// [`Stopped`] alone.
    pub fn block_of(&self, wallet: AccountId) -> Result<Option<Block>, Denied> {
        Ok(self.inner.lock()?.blocked.get(&wallet).cloned())
    }

    /// The wallets that are barred.
    ///
    /// # Errors
    /// [`Stopped`] alone.
    pub fn blocked(&self) -> Result<Vec<(AccountId, Block)>, Denied> {
        let mut blocked: Vec<_> = self.inner.lock()?.blocked.iter().map(|(wallet, block)| (*wallet, block.clone())).collect();
        blocked.sort_by_key(|(wallet, _)| *wallet);
        Ok(blocked)
    }
}

impl Inner {
    /// What is durable of the list has effect before whoever asked for it hears that it is: those learn it who look without the
    /// lock, and those who wait.
    pub(super) fn tell_blocked(&self, book: &mut Book, ticket: u64) {
        if book.blocks_due.is_some_and(|due| due <= ticket) {
            book.blocks_due = None;
            self.blocked.send_replace(book.blocked.keys().copied().collect());
        }
    }
}

impl History {
    /// Every wallet that is barred.
    ///
    /// # Errors
    /// The file cannot be read, or a row of it.
    pub fn blocked(&self, visit: impl FnMut(AccountId, Block)) -> Result<(), Broken> {
        each(self.tx(), visit)
    }
}

/// All wallets that are barred; none in books of before there were any.
pub(super) fn each(tx: &ReadTransaction, mut visit: impl FnMut(AccountId, Block)) -> Result<(), Broken> {
    use redb::ReadableTable as _;
    let failed = |error: redb::Error| Broken::new("read blocked", error);
    let table = match tx.open_table(BLOCKED) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(failed(error.into())),
    };
    for row in table.iter().map_err(|error| failed(error.into()))? {
        let (wallet, row) = row.map_err(|error| failed(error.into()))?;
        visit(account(wallet.value(), "blocked")?, json(row.value())?);
    }
    Ok(())
}
