//! What an operator and a buyer see on the command line: outputs, exit codes, and refusals that name what is wrong.

#[path = "command_line/books.rs"]
mod books;
#[path = "command_line/configuration.rs"]
mod configuration;
#[path = "command_line/inspect.rs"]
mod inspect;
#[path = "command_line/pay.rs"]
mod pay;
#[path = "command_line/pipes.rs"]
mod pipes;

use farebox_rig::server::Server;

/// The binary under test.
const FAREBOX: &str = env!("CARGO_BIN_EXE_farebox");
/// The configuration that the repository ships.
const SHIPPED: &str = include_str!("../config.toml");

/// The shipped configuration on a free port.
fn on_a_free_port() -> String {
    let public_url = "public_url = \"http://127.0.0.1:4020\"\n";
    assert!(SHIPPED.contains(public_url), "the shipped configuration says where it is seen");
    let config = SHIPPED.replace(public_url, "");
    assert!(config.contains("bind = \"127.0.0.1:4020\""));
    config.replace("bind = \"127.0.0.1:4020\"", "bind = \"127.0.0.1:0\"")
}

/// `farebox` as `cargo run` starts it in a fresh clone: nothing configured but what is shipped.
fn shipped() -> Server {
    Server::configured(FAREBOX, &on_a_free_port())
}
