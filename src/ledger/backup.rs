//! A copy of the books as they are at one moment, made while they go on: in a file of its own, whole or not there.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use redb::ReadableDatabase as _;

use super::history::History;
use super::store;
use super::{Broken, Ledger};
use crate::clock::Timestamp;
use crate::fault;

/// What the names of copies in the data folder begin and end with. Whoever asked for one takes it away.
const COPY: (&str, &str) = ("copy-", ".redb");

/// Room that a copy leaves on the disk: the books go on while it is made, and a full disk would stop them.
const SPARE: u64 = 64 * 1024 * 1024;

/// Whoever asked for a copy opens it or moves it away at once; one that is older belongs to somebody who has died.
const FORGOTTEN: Duration = Duration::from_secs(60 * 60);

impl Ledger {
    /// Writes everything that is durable now into a new file beside the ledger, readable for its owner alone; `name` tells it
    /// from others. The ledger goes on meanwhile. Blocks for as long as the disk takes, and while another copy is made: two of
    /// them would count on the same room. Copies that are older than an hour are taken away first.
    ///
    /// # Errors
    /// The disk has no room for it or failed; then there is no copy, and the ledger goes on.
    pub fn copy_beside(&self, name: u128) -> Result<PathBuf, Broken> {
        let ledger = self.inner.path.as_deref().ok_or_else(|| Broken::change("copy", "these books are in no file"))?;
        let folder = ledger.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // It guards no data: what another one left when it panicked is a copy that is not whole.
        let _alone = self.inner.copying.lock().unwrap_or_else(PoisonError::into_inner);
        forget(folder, |made| made.plus(FORGOTTEN) < self.inner.clock.now());
        room_for(folder, fs::metadata(ledger).map_err(|error| Broken::file("copy", &error))?.len())?;
        let (begin, end) = COPY;
        let path = folder.join(format!("{begin}{name:032x}{end}"));
        fault::point("copy.before");
        self.inner.store.copy_to(&path).inspect_err(|_| drop(fs::remove_file(&path)))?;
        fault::point("copy.after");
        Ok(path)
    }
}

/// Takes away the copies in a data folder that nobody took: whoever asked for them has died. Best effort.
pub fn forget_copies(folder: &Path) {
    forget(folder, |_| true);
}

/// Whether a copy of so many bytes fits into a folder and leaves the books, which may be on the same disk, room to go on.
///
/// # Errors
/// It does not, or nobody can say.
pub fn room_for(folder: &Path, size: u64) -> Result<(), Broken> {
    let free = rustix::fs::statvfs(folder).map_err(|error| Broken::file("copy", &error.into()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if free < size.saturating_add(SPARE) {
        let say = format!("{free} bytes are free and the copy takes up to {size}, and must leave {SPARE}: make room on the disk");
        return Err(Broken::change("copy", say));
    }
    Ok(())
}

/// Takes away the copies that are chosen by when they were last written. Best effort.
fn forget(folder: &Path, chosen: impl Fn(Timestamp) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let (begin, end) = COPY;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_copy = name.to_str().is_some_and(|name| name.starts_with(begin) && name.ends_with(end));
        let made = || entry.metadata().ok().and_then(|metadata| u64::try_from(metadata.mtime()).ok());
        if is_copy && made().is_some_and(|seconds| chosen(Timestamp::from_millis(seconds.saturating_mul(1000)))) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl History {
    /// The books of a copy that is nobody else's. It has no name any more when this returns, so that however its reader ends,
    /// nothing of it is left behind.
    ///
    /// # Errors
    /// It cannot be read, or is of a layout that is not known.
    pub fn of_copy(path: &Path) -> Result<History, Broken> {
        let db = store::existing(path)?;
        fs::remove_file(path).map_err(|error| Broken::file("open", &error))?;
        let read = db.begin_read().map_err(|error| Broken::new("read", error))?;
        Ok(History::new(read, Some(db)))
    }
}
