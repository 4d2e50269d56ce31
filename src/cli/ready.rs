//! Telling a service manager that the gateway serves, if it has asked to be told (`Type=notify` of systemd).

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixDatagram;

/// The environment variable that names the manager's socket.
pub(super) const SOCKET: &str = "NOTIFY_SOCKET";

/// Says to the manager at `socket` that callers are served from now on; nobody listens where there is none.
///
/// # Errors
/// The manager cannot be reached. It takes the program for one that still starts, and ends it after a while.
pub(super) fn tell(socket: Option<&OsStr>) -> io::Result<()> {
    let Some(path) = socket else { return Ok(()) };
    UnixDatagram::unbound()?.send_to(b"READY=1", path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_asked_is_told_once_and_without_one_nothing_happens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        assert!(tell(Some(path.as_os_str())).is_err(), "nobody listens there");
        let manager = UnixDatagram::bind(&path).unwrap();
        tell(None).unwrap();
        tell(Some(path.as_os_str())).unwrap();
        let mut said = [0; 64];
        let read = manager.recv(&mut said).unwrap();
        assert_eq!(&said[..read], b"READY=1");
        manager.set_nonblocking(true).unwrap();
        assert!(manager.recv(&mut said).is_err(), "and nothing else");
    }
}
