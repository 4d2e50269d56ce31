//! The rig: everything a test starts (test chain, fake upstream, the farebox binary, real clients) and how it asks them.
//!
//! What is missing on the machine is a panic that names the command which installs it, never a test that quietly passes.
//! Ports are chosen by the programs themselves, and every program is killed when its handle is dropped.

pub mod account;
pub mod anvil;
pub mod buyer;
pub mod chain;
pub mod facilitator;
pub mod http;
pub mod line;
pub mod machine;
pub mod pebble;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod sdk;
pub mod secure;
pub mod server;
pub mod sign_in;
pub mod solana;
pub mod stub;
pub mod upstream;

use std::path::{Path, PathBuf};

/// The project's `tests` folder.
pub fn tests_dir() -> PathBuf {
    let rig = Path::new(env!("CARGO_MANIFEST_DIR"));
    rig.parent().expect("the rig stands in tests/support").to_owned()
}

/// A file that `scripts/test` installs; panics with what to do when it is not there.
pub fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run scripts/test once, it installs what the tests need", path.display());
    path
}
