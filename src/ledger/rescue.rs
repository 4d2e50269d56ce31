//! New files of the ledger, made beside their place and moved there when they are whole: the first one, and the one after a failed write.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::failure::TAKEN;
use super::restored::unchecked_books;
use super::{Broken, Remedy, store};
use crate::fault;

/// The name of the lock in the data folder.
const LOCK: &str = "lock";

/// For a second it is tried to get the lock: somebody who has let go of it may have forked a moment ago, and the child has
/// what its parent had open until it becomes another program.
const TRIES: u32 = 100;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// Takes the folder of a ledger for this process, for as long as the file that is returned stays open. The database locks
/// its own file; this keeps a second program from that file while another one is put in its place.
pub(super) fn lock(ledger: &Path) -> Result<File, Broken> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(folder(ledger).join(LOCK));
    let file = file.map_err(|error| Broken::file("lock", &error))?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(BETWEEN_TRIES),
            Err(TryLockError::Error(error)) => return Err(Broken::file("lock", &error)),
        }
    }
    Err(Broken::change("lock", TAKEN))
}

/// Does something with an open ledger file. When the disk fails in the middle of it, what the next start would read may not
/// be what the disk has, whichever operation it was: a repair writes, too.
pub(super) fn marked_on_failure<T>(ledger: &Path, work: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    work().inspect_err(|broken| {
        if broken.remedy == Remedy::StartAgain {
            mark(ledger, &broken.to_string());
        }
    })
}

/// Says next to the ledger that a write has failed. Best effort: the disk may refuse this as well. That the file is there is the
/// mark, which a full disk allows; the cause is for people, and in the log anyway.
pub(super) fn mark(ledger: &Path, cause: &str) {
    match File::create(suspect(ledger)) {
        Ok(mut file) => _ = file.write_all(cause.as_bytes()),
        Err(error) => tracing::error!(%error, "the failed write could not be marked on disk"),
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
    has_room(ledger)?;
    // A copy that does not fit is worth nothing and only takes more of a disk that is full.
    store::copy(ledger, &fresh).inspect_err(|_| drop(fs::remove_file(&fresh)))?;
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

/// Whether a second file of its size fits beside a ledger. A try that ends on a full disk would take what others need there, at every
/// start again.
fn has_room(ledger: &Path) -> Result<(), Broken> {
    let size = fs::metadata(ledger).map_err(|error| Broken::new("replace", error))?.len();
    let disk = rustix::fs::statvfs(folder(ledger)).map_err(|error| Broken::new("replace", error))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    match free < size {
        true => {
            let full = io::Error::from(rustix::io::Errno::NOSPC);
            Err(Broken::new("replace", format!("this takes up to {size} bytes, and {free} are free: {full}")))
        }
        false => Ok(()),
    }
}

/// Makes the ledger of a first start. Under its own name there never is a file that is not whole: the next start could not
/// tell it from one that was destroyed. The folder is locked, so nobody else makes one at the same time.
pub(super) fn make_if_missing(ledger: &Path) -> Result<(), Broken> {
    let fresh = ledger.with_extension("new");
    remove(&fresh)?;
    if ledger.exists() {
        return Ok(());
    }
    let unchecked = unchecked_books(ledger);
    if unchecked.exists() {
        return Err(Broken::change(
            "create",
            format!(
                "a restore was cut off here: run farebox restore with its backup again, or move {} away to start anew with no books",
                unchecked.display()
            ),
        ));
    }
    store::Store::make(&fresh).inspect_err(|_| drop(fs::remove_file(&fresh)))?;
    fault::point("make.made");
    let place = || -> io::Result<()> {
        File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, ledger)?;
        fault::point("make.placed");
        sync_folder(ledger)
    };
    place().map_err(|error| Broken::new("create", error))
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
pub(super) fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder(file))?.sync_all()
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_somebody_is_letting_go_of_is_waited_for_and_one_that_is_kept_is_not_taken() {
        let folder = tempfile::TempDir::new().unwrap();
        let ledger = folder.path().join("ledger.redb");
        let held = lock(&ledger).unwrap();
        // What a child has between fork and exec: the same open file.
        let inherited = held.try_clone().unwrap();
        drop(held);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                drop(inherited);
            });
            assert!(lock(&ledger).is_ok(), "it waits for the child");
        });
        let _kept = lock(&ledger).unwrap();
        assert!(lock(&ledger).is_err_and(|broken| broken.is_taken()));
    }
}
