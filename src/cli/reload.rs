//! `farebox reload`, and what SIGHUP does: the configuration is read again, and counts for every request that begins afterwards.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::socket::{Answer, ask};
use super::{FOUND_A_PROBLEM, say};
use crate::config::Config;
use crate::error::{Code, Error};
use crate::gateway::operator::Command;
use crate::http::Editions;

/// The configuration of a gateway that runs. A clone is the same one.
#[derive(Clone)]
pub struct Running {
    path: PathBuf,
    config: Arc<Mutex<Config>>,
    editions: Editions,
}

impl Running {
    pub fn new(path: PathBuf, config: Config, editions: Editions) -> Running {
        Running { path, config: Arc::new(Mutex::new(config)), editions }
    }

    pub fn editions(&self) -> &Editions {
        &self.editions
    }

    /// Reads the configuration again and has it count, or leaves everything as it is; says in the log which.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`]: what is wrong with the new configuration.
    pub async fn reload(&self) -> Result<Value, Error> {
        // One at a time: each is compared with the one before.
        let mut running = self.config.lock().await;
        let refused = |why: String| {
            let error = format!("the new configuration is refused and the old one stays: {why}");
            tracing::error!("{error}");
            Error::new(Code::InvalidRequest, error)
        };
        let (next, changes) =
            running.again(&self.path, &|name| std::env::var(name).ok()).map_err(|error| refused(error.to_string()))?;
        self.editions.publish(&next).map_err(|error| refused(error.to_string()))?;
        let (changed, waiting) = (changes.changed.join("; "), changes.after_a_restart.join("; "));
        tracing::info!(changed, "the configuration was read again and counts from now on");
        if !waiting.is_empty() {
            tracing::warn!(waiting, "some of the new configuration counts only after a restart");
        }
        *running = next;
        Ok(json!(changes))
    }
}

/// Has the gateway read its configuration again, and says what has changed.
pub fn run(config: &Config) -> ExitCode {
    let problem = match ask(&config.data_dir, &Command::Reload) {
        Ok(Some(Answer::Done(changes))) => match say::out(format_args!("{}", told(&changes))) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(problem) => problem,
        },
        Ok(Some(Answer::Refused { message, .. })) => message,
        Ok(None) => format!("no gateway runs on {}; it reads its configuration when it starts", config.data_dir.display()),
        Err(problem) => problem,
    };
    say::err(format_args!("farebox: {problem}"));
    ExitCode::from(FOUND_A_PROBLEM)
}

/// What has changed, line by line.
fn told(changes: &Value) -> String {
    let list = |name: &str| changes[name].as_array().into_iter().flatten().filter_map(Value::as_str);
    let changed = list("changed").map(|change| format!("changed   {change}"));
    let waiting = list("after_a_restart").map(|change| format!("stays     {change} (counts after a restart)"));
    let lines: Vec<_> = changed.chain(waiting).collect();
    if lines.is_empty() { "nothing has changed".to_owned() } else { lines.join("\n") }
}
