//! Parse the arguments, set up the log, run the subcommand.

use std::process::ExitCode;

use clap::Parser as _;
use farebox::cli;

fn main() -> ExitCode {
    // Before any secret is read.
    let private = cli::keep_private();
    let arguments = cli::Arguments::parse();
    cli::start_log();
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
