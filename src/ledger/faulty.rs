//! The ledger's file on a disk that a test can make fail; a release build has none of it.
//!
//! Armed with `any:EIO:17` the 17th operation of the process on the ledger's file (read, write, change of length, sync)
//! fails; with `sync:ENOSPC:3` the third sync; with `:sticky` behind it all later ones fail too. With `slow:2` nothing fails
//! and every sync takes 2 ms longer.

use std::io;
use std::ops::Bound;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

enum Fault {
    Failing(Failing),
    Slow(Duration),
}

struct Failing {
    sync_only: bool,
    errno: i32,
    nth: u64,
    sticky: bool,
    seen: AtomicU64,
}

static FAULT: OnceLock<Fault> = OnceLock::new();

/// Arms one fault for this process.
///
/// # Errors
/// What is wrong with `text`, or that a fault is armed already.
pub fn arm(text: &str) -> Result<(), String> {
    let fault =
        Fault::read(text).ok_or_else(|| format!("`{text}` is not any|sync:EIO|ENOSPC:N, the same with :sticky, or slow:MS"))?;
    FAULT.set(fault).map_err(|_| "a fault is armed already".to_owned())
}

impl Fault {
    fn read(text: &str) -> Option<Fault> {
        if let Some(ms) = text.strip_prefix("slow:") {
            return ms.parse().ok().map(Duration::from_millis).map(Fault::Slow);
        }
        Failing::read(text).map(Fault::Failing)
    }
}

impl Failing {
    fn read(text: &str) -> Option<Failing> {
        let mut parts = text.split(':');
        let sync_only = match parts.next()? {
            "any" => false,
            "sync" => true,
            _ => return None,
        };
        // Linux numbers, as the kernel would give them.
        let errno = match parts.next()? {
            "EIO" => 5,
            "ENOSPC" => 28,
            _ => return None,
        };
        let nth = parts.next()?.parse().ok().filter(|nth| *nth > 0)?;
        let sticky = match parts.next() {
            None => false,
            Some("sticky") => true,
            Some(_) => return None,
        };
        parts.next().is_none().then(|| Failing { sync_only, errno, nth, sticky, seen: AtomicU64::new(0) })
    }
}

fn step(sync: bool) -> io::Result<()> {
    match FAULT.get() {
        Some(Fault::Failing(fault)) if sync || !fault.sync_only => fault.step(),
        Some(Fault::Slow(delay)) if sync => {
            std::thread::sleep(*delay);
            Ok(())
        }
        _ => Ok(()),
    }
}

impl Failing {
    fn step(&self) -> io::Result<()> {
        let now = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        if now == self.nth || (self.sticky && now > self.nth) {
            tracing::warn!(operation = now, "the armed fault of the disk strikes");
            return Err(io::Error::from_raw_os_error(self.errno));
        }
        Ok(())
    }
}

/// A file, as redb keeps it, behind the fault that is armed.
#[derive(Debug)]
pub(super) struct Faulty(pub FileBackend);

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        step(false)?;
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        step(false)?;
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        step(true)?;
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        step(false)?;
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_exactly_or_not_at_all() {
        let fault = Failing::read("sync:ENOSPC:3:sticky").expect("this is how it is written");
        assert_eq!((fault.sync_only, fault.errno, fault.nth, fault.sticky), (true, 28, 3, true));
        assert!(matches!(Fault::read("slow:2"), Some(Fault::Slow(delay)) if delay == Duration::from_millis(2)));
        for wrong in [
            "slow:",
            "slow:x",
            "slow:1:sticky",
            "",
            "any",
            "any:EIO",
            "any:EIO:0",
            "any:EIO:x",
            "all:EIO:1",
            "any:EPERM:1",
            "any:EIO:1:often",
            "any:EIO:1:sticky:",
        ] {
            assert!(Fault::read(wrong).is_none(), "{wrong}");
        }
    }
}
