//! Parse the arguments, set up the log, run the subcommand.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use farebox::cli;

fn main() -> ExitCode {
    // Before any secret is read.
    let private = cli::keep_private();
    let arguments = cli::Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("FAREBOX_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,actix_server=warn,actix_http::h1::dispatcher=off"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    // It would tell of a stderr that nobody reads on stderr, and panic.
    let log = log.log_internal_errors(false);
    // One JSON object a line for machines, plain text for people.
    match std::env::var("FAREBOX_LOG_FORMAT").as_deref() {
        Ok("json") => log.json().init(),
        _ => log.init(),
    }
    if let Err(error) = private {
        tracing::warn!(%error, "core dumps could not be turned off: a crash may write keys and prompts to a file");
    }
    // A process-wide default exists in case a library asks for one; every TLS set-up of ours names ring itself.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    #[cfg(feature = "fault-points")]
    if let Some(why) = std::env::var("FAREBOX_FAULT").ok().and_then(|point| farebox::fault::arm(&point).err()) {
        tracing::error!(%why, "FAREBOX_FAULT");
        return ExitCode::from(2);
    }
    #[cfg(feature = "fault-points")]
    if let Some(why) = std::env::var("FAREBOX_DISK_FAULT").ok().and_then(|fault| farebox::ledger::faulty::arm(&fault).err()) {
        tracing::error!(%why, "FAREBOX_DISK_FAULT");
        return ExitCode::from(2);
    }
    cli::run(arguments)
}
