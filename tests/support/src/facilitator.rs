//! A real x402 facilitator, made of the official npm classes, that settles on a test chain.

use std::process::Command;

use crate::chain::Chain;
use crate::process::Process;
use crate::{installed, tests_dir};

/// A running facilitator whose gas or fees are paid by the chain's settler.
pub struct Facilitator {
    address: String,
    _process: Process,
}

impl Facilitator {
    pub fn start(chain: &impl Chain) -> Facilitator {
        let clients = tests_dir().join("clients");
        installed(clients.join("node_modules/@x402/core"));
        let mut command = Command::new("node");
        command.arg(clients.join("facilitator.mjs"));
        command.env("RPC_URL", chain.node_url()).env("NETWORK", chain.network_id()).env("PRIVATE_KEY", chain.settler().0.key);
        let mut process = Process::spawn(command);
        let address = process.wait_for("listening on http://");
        Facilitator { address, _process: process }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
