//! Books that are put back from a copy: their folder is kept for whoever does it, and no start makes empty ones meanwhile or after a cut-off.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::verify::{Counted, Report};
use super::{Broken, rescue, store};
use crate::clock::Timestamp;

/// Where books lie that are not yet put back as the ledger at this path. While they do, no start makes new ones.
pub fn unchecked_books(ledger: &Path) -> PathBuf {
    ledger.with_extension("restored")
}

/// The folder of a ledger that is being put back, kept for this program.
pub struct Restoring {
    ledger: PathBuf,
    // Held until the books are in their place.
    _lock: File,
}

impl Restoring {
    /// Takes the folder, in which nobody can open or make books from now on.
    ///
    /// # Errors
    /// Somebody has it, or it cannot be written.
    pub fn begin(ledger: &Path) -> Result<Restoring, Broken> {
        Ok(Restoring { _lock: rescue::lock(ledger)?, ledger: ledger.to_owned() })
    }

    /// Checks the books that lie at [`unchecked_books`]. Every payment is shown to `visit`, none is kept.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn check(&self, visit: impl FnMut(Counted)) -> Result<Report, Broken> {
        Report::of_kept(&unchecked_books(&self.ledger), visit)
    }

    /// Notes in them that they are put back now. What was used up after the copy was made is not known to be: sign-ins of before
    /// this second, as wallets count, are not taken any more.
    ///
    /// # Errors
    /// The disk failed.
    pub fn note(&self, now: Timestamp) -> Result<(), Broken> {
        store::note_restored(&unchecked_books(&self.ledger), Timestamp::from_secs(now.secs()))
    }

    /// Makes them the ledger, durably and with all that lies beside them.
    ///
    /// # Errors
    /// The disk failed; the books lie at either place then.
    pub fn place(self) -> io::Result<()> {
        rescue::sync_folder(&self.ledger)?;
        fs::rename(unchecked_books(&self.ledger), &self.ledger)?;
        rescue::sync_folder(&self.ledger)
    }
}
