//! What the pages write byte by byte is what the libraries of everybody else write and read.

use std::process::Command;

use farebox_rig::process::run;
use farebox_rig::{installed, tests_dir};
use serde_json::Value;

#[test]
fn transactions_addresses_and_signatures_of_the_pages_are_those_of_other_libraries() {
    let clients = tests_dir().join("clients");
    installed(clients.join("node_modules/@solana/kit"));
    let mut command = Command::new("node");
    command.arg(clients.join("serializer.mjs"));
    command.env("STATIC", tests_dir().parent().expect("the project").join("static"));
    command.env("VECTORS", tests_dir().join("vectors/svm.json"));
    let (code, stdout, stderr) = run(command, "");
    assert_eq!(code, 0, "{stderr}");
    let done: Value = serde_json::from_str(stdout.trim()).expect("one line of JSON");
    for (what, least) in [("vector", 1), ("transaction", 25), ("base58", 4), ("no address", 7), ("ethereum", 8)] {
        assert!(done[what].as_u64().is_some_and(|count| count >= least), "{what}: {done}");
    }
}
