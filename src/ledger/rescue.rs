//! After a failed write: the mark it leaves, and the new file that the next start makes before it trusts the old one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Broken, store};
use crate::fault;

/// Says next to the ledger that a write has failed. Best effort: the disk may refuse this as well.
pub(super) fn mark(ledger: &Path, cause: &str) {
    if let Err(error) = fs::write(suspect(ledger), cause) {
        tracing::error!(%error, "the failed write could not be marked on disk");
    }
}

/// After a failed fsync the page cache may show what the disk does not have, so a marked ledger is read as a whole into a
/// new file, which is made durable and takes the old one's place.
pub(super) fn rewrite_if_marked(ledger: &Path) -> Result<(), Broken> {
    let mark = suspect(ledger);
    if !mark.exists() || !ledger.exists() {
        return Ok(());
    }
    tracing::warn!(file = %ledger.display(), "a write had failed; reading the ledger into a new file");
    let fresh = ledger.with_extension("rewrite");
    remove(&fresh)?;
    store::copy(ledger, &fresh)?;
    fault::point("rescue.copied");
    let replace = || -> io::Result<()> {
        File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, ledger)?;
        fault::point("rescue.renamed");
        sync_folder(ledger)
    };
    replace().map_err(|error| Broken::new("replace", error))?;
    fault::point("rescue.replaced");
    remove(&mark)?;
    fault::point("rescue.unmarked");
    Ok(())
}

fn suspect(ledger: &Path) -> PathBuf {
    ledger.with_extension("suspect")
}

fn remove(path: &Path) -> Result<(), Broken> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Broken::new("remove", error)),
        _ => Ok(()),
    }
}

/// A rename is durable once its folder is.
fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
