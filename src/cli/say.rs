//! What commands print. Whoever stops reading, as `| head` does, is no trouble of ours; a disk that is full is.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Prints a line on stdout.
///
/// # Errors
/// It could not be written, and somebody wants to read it.
pub(super) fn out(line: impl Display) -> Result<(), String> {
    told(io::stdout().lock(), format!("{line}\n"))
}

/// Prints a piece of a text on stdout, at once.
///
/// # Errors
/// As [`out`].
pub(super) fn piece(text: impl Display) -> Result<(), String> {
    told(io::stdout().lock(), text.to_string())
}

/// Prints a line on stderr. When that fails there is nobody left to tell.
pub(super) fn err(line: impl Display) {
    let _ = told(io::stderr().lock(), format!("{line}\n"));
}

/// In one write, so that a line is not mixed with another one.
fn told(mut to: impl Write, text: String) -> Result<(), String> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("the output could not be written: {error}")),
        _ => Ok(()),
    }
}
