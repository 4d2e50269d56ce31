//! Named instants at which a test build can be made to die, so that every step of a sale is tried; a release build has none of them.
//!
//! A point is written `fault::point("claim.before")`. Built without the feature `fault-points` the call and its name vanish.
//! Built with it, a process that was armed with `claim.before:2` dies the second time it comes by, as if it had been
//! killed: nothing is unwound, nothing is flushed. A step on a disk is written `fault::disk("keys.sync", || …)`: armed with
//! `keys.sync:2` it fails the second time, as a broken disk would make it fail.
//!
//! A name stands in one place, and `tests/sale/faults` dies five times at every one of them; a point without such a test
//! fails there.

#[cfg(feature = "fault-points")]
mod armed {
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        name: String,
        left: AtomicU64,
    }

    static ARMED: OnceLock<Armed> = OnceLock::new();

    /// Arms one point: `name`, or `name:n` for the n-th time (counted from 1) that the process comes by.
    ///
    /// # Errors
    /// What is wrong with `text`, or that a point is armed already.
    pub fn arm(text: &str) -> Result<(), String> {
        let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
        let nth: u64 =
            nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(|| format!("`{text}` is not NAME or NAME:N, N from 1"))?;
        let armed = Armed { name: name.to_owned(), left: AtomicU64::new(nth) };
        ARMED.set(armed).map_err(|_| "a fault point is armed already".to_owned())
    }

    /// Whether this is the place and the time that was asked for.
    fn strikes(name: &str) -> bool {
        ARMED.get().is_some_and(|armed| armed.name == name && armed.left.fetch_sub(1, Ordering::SeqCst) == 1)
    }

    /// Dies here, if it was asked for.
    pub fn point(name: &str) {
        if strikes(name) {
            std::process::abort();
        }
    }

    /// Does a step on a disk, or fails instead, if it was asked for.
    pub fn disk<T>(name: &str, step: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if strikes(name) { Err(io::Error::other("the armed fault of the disk strikes")) } else { step() }
    }
}

#[cfg(feature = "fault-points")]
pub use armed::{arm, disk, point};

/// A place where a test build may be made to die; here it is nothing.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// A step on a disk that a test build may be made to fail; here it is only done.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn disk<T>(_name: &'static str, step: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    step()
}
