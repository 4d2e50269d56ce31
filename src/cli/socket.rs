//! The socket in the data folder through which the operator's commands reach a gateway that runs: one line of JSON each way.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::operator::fresh;
use super::reload::Running;
use crate::error::{Code, Error};
use crate::gateway::operator::{Command, perform};
use crate::gateway::payouts::pay_out;
use crate::ledger;

/// The name of the socket in the data folder.
const SOCKET: &str = "operator.sock";
/// Bytes of one command.
const MOST: u64 = 64 * 1024;
/// How long a command may take to arrive, and how long to wait for its answer.
const ARRIVAL: Duration = Duration::from_secs(10);
const WORK: Duration = Duration::from_secs(600);
/// Commands at the same time.
const AT_ONCE: usize = 8;

/// What came of a command.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done(Value),
    Refused { code: String, message: String },
}

impl From<Result<Value, Error>> for Answer {
    fn from(done: Result<Value, Error>) -> Self {
        match done {
            Ok(value) => Answer::Done(value),
            Err(error) => Answer::Refused { code: error.code.row().code.into(), message: error.message },
        }
    }
}

/// A socket that commands are taken from; closed and removed when dropped.
pub struct Listening {
    path: PathBuf,
    task: actix_web::rt::task::JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        // What is left behind is replaced by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes commands from the user that this gateway runs as and from root, and from nobody else. The caller has the books open, so a socket
/// that is there already is what a gateway left that was killed.
pub fn listen(data_dir: &Path, running: Running) -> io::Result<Listening> {
    ledger::forget_copies(data_dir);
    let (path, fresh) = (data_dir.join(SOCKET), data_dir.join(format!("{SOCKET}.new")));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    let owner = fs::metadata(&fresh)?.uid();
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    // Under its own name it was never open to others.
    fs::rename(&fresh, &path)?;
    let task = actix_web::rt::spawn(serve(listener, owner, data_dir.to_path_buf(), running));
    Ok(Listening { path, task })
}

async fn serve(listener: tokio::net::UnixListener, owner: u32, data_dir: PathBuf, running: Running) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a command of the operator could not be taken");
                actix_web::rt::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (running, data_dir) = (running.clone(), data_dir.clone());
        actix_web::rt::spawn(async move {
            if let Err(error) = answer(stream, owner, &data_dir, &running).await {
                tracing::warn!(%error, "a command of the operator broke off");
            }
            drop(place);
        });
    }
}

/// Takes one command, does it and says what came of it.
async fn answer(mut stream: tokio::net::UnixStream, owner: u32, data_dir: &Path, running: &Running) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let (reading, mut writing) = stream.split();
    let mut line = Vec::new();
    let mut reading = tokio::io::BufReader::new(reading.take(MOST));
    tokio::time::timeout(ARRIVAL, reading.read_until(b'\n', &mut line)).await??;
    // Heard to its end first: whoever cannot write hears no answer either.
    if !admits(owner, peer) {
        let code = Code::InvalidKey.row().code.to_owned();
        let message =
            format!("this gateway takes commands of the user {owner} and of root, and this one came from the user {peer}");
        say(&mut writing, &Answer::Refused { code, message }).await?;
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("it came from the user {peer}")));
    }
    let command: Command = serde_json::from_slice(&line)?;
    let (what, copies) = (command.name(), matches!(command, Command::CopyBooks));
    let fresh = fresh().map_err(|error| io::Error::other(error.to_string()))?;
    let done = match command {
        Command::Reload => running.reload().await,
        Command::PayOut { terms, payment } => pay_out(&running.editions().gateway(), &terms, payment.as_deref(), &fresh).await,
        command => perform(&running.editions().keyring(), command, fresh).await,
    };
    match &done {
        Ok(_) => tracing::info!("the operator asked to {what}: done"),
        Err(error) => tracing::warn!(code = error.code.row().code, cause = error.cause, "the operator asked to {what}: refused"),
    }
    let copy = done.as_ref().ok().filter(|_| copies).and_then(|made| made["file"].as_str()).map(|name| data_dir.join(name));
    // Whoever has gone would never take it away.
    say(&mut writing, &Answer::from(done)).await.inspect_err(|_| drop(copy.map(fs::remove_file)))
}

/// Root may read and write everything of ours anyway.
fn admits(owner: u32, peer: u32) -> bool {
    peer == owner || peer == 0
}

async fn say(writing: &mut tokio::net::unix::WriteHalf<'_>, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writing.write_all(&line).await?;
    writing.shutdown().await
}

/// Hands a command to the gateway that has this folder open. `None` when nobody listens there.
///
/// # Errors
/// The gateway took the command and did not answer: what came of it is not known.
pub fn ask(data_dir: &Path, command: &Command) -> Result<Option<Answer>, String> {
    let path = data_dir.join(SOCKET);
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => {
            return Err(format!("{}: {error}; run this as the user that the gateway runs as, or as root", path.display()));
        }
    };
    let asked = || -> io::Result<Answer> {
        stream.set_read_timeout(Some(WORK))?;
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        (&stream).write_all(&line)?;
        let mut answer = Vec::new();
        BufReader::new(&stream).take(u64::MAX).read_until(b'\n', &mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    };
    let unknown = "the gateway took the command and did not answer; look what came of it before you ask again";
    asked().map(Some).map_err(|error| format!("{unknown} ({error})"))
}

#[cfg(test)]
mod tests {
    use super::admits;

    #[test]
    fn commands_are_taken_from_the_gateways_own_user_and_from_root() {
        assert!(admits(1000, 1000) && admits(1000, 0) && admits(0, 0));
        assert!(!admits(1000, 1001) && !admits(0, 1000));
    }
}
