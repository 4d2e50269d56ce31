//! Why the ledger cannot be used or did not do what it was asked, and what helps.

use super::book::Refused;

/// The store failed: which step, and how, and what helps.
#[derive(Debug, Clone, thiserror::Error)]
#[error("ledger, {step}: {cause}")]
pub struct Broken {
    pub step: &'static str,
    pub cause: String,
    pub remedy: Remedy,
}

/// What helps against a ledger that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The disk failed, and the outcome is unknown: the next start finds what is true.
    StartAgain,
    /// Nothing is wrong with the books; something around them has to be changed first, and the cause says what.
    Change,
    /// The books are not what they must be: no start mends that, somebody has to look.
    Examine,
}

/// Said to the second of two programs on the same books.
pub(super) const TAKEN: &str = "another farebox has these books open; stop it first, or give this one a data_dir of its own";

/// How the system's errors end that say that there is no room: of a disk (ENOSPC), or of a user's share of it (EDQUOT).
const FULL: [&str; 2] = ["(os error 28)", "(os error 122)"];

impl Broken {
    pub(super) fn new(step: &'static str, cause: impl ToString) -> Self {
        let mut cause = cause.to_string();
        // The database hands the system's error on as text.
        if FULL.iter().any(|full| cause.ends_with(full)) {
            cause.push_str("; make room on the disk and start again");
        }
        Broken { step, cause, remedy: Remedy::StartAgain }
    }

    pub(super) fn change(step: &'static str, cause: impl ToString) -> Self {
        Broken { remedy: Remedy::Change, ..Broken::new(step, cause) }
    }

    pub(super) fn examine(step: &'static str, cause: impl ToString) -> Self {
        Broken { remedy: Remedy::Examine, ..Broken::new(step, cause) }
    }

    /// Whether another program has the books open.
    pub fn is_taken(&self) -> bool {
        self.cause == TAKEN
    }

    pub(super) fn open(error: redb::DatabaseError) -> Self {
        use redb::{DatabaseError, StorageError};
        match error {
            DatabaseError::DatabaseAlreadyOpen => Broken::change("open", TAKEN),
            DatabaseError::UpgradeRequired(_) => {
                Broken::change("open", format!("{error}; start the version of farebox that wrote it"))
            }
            DatabaseError::Storage(StorageError::Corrupted(_)) => Broken::damaged(error),
            DatabaseError::Storage(StorageError::Io(ref io)) if io.kind() == std::io::ErrorKind::InvalidData => {
                Broken::damaged(error)
            }
            other => Broken::new("open", other),
        }
    }

    pub(super) fn damaged(error: impl std::fmt::Display) -> Self {
        Broken::examine("open", format!("the books are damaged: {error}; restore them from a copy"))
    }

    /// A file or folder could not be opened: that it is missing or closed to us does not mend itself.
    pub(super) fn file(step: &'static str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem, Unsupported};
        match error.kind() {
            NotFound | PermissionDenied | ReadOnlyFilesystem | Unsupported | IsADirectory | NotADirectory => {
                Broken::change(step, kept_out(error))
            }
            _ => Broken::new(step, error),
        }
    }

    pub(super) fn row(table: &'static str) -> Self {
        Broken::examine("read", format!("a row of {table} is damaged"))
    }
}

/// The error, and what else than the disk may be the reason: a service may write only where its unit says.
pub fn kept_out(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem => {
            format!(
                "{error}; under systemd a data_dir outside /var/lib/farebox needs ReadWritePaths= in the unit, and none is in /home"
            )
        }
        _ => error.to_string(),
    }
}

/// The ledger has stopped after a failed write, or is too far behind; nothing was changed by this command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ledger does not take commands")]
pub struct Stopped;

/// Why a command did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("refused: {0:?}")]
    Refused(Refused),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        Denied::Refused(refused)
    }
}
