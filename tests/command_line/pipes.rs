//! A reader who leaves, as `| head` does, ends no command in a panic; an output that is lost is told.

use std::process::{Command, Stdio};

use crate::{FAREBOX, shipped};

/// A pipe that nobody reads any more.
fn abandoned() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

/// The exit code of a command and what it said on stderr, with a stdout that nobody reads.
fn unread(mut command: Command) -> (i32, String) {
    let output = command.stdin(Stdio::null()).stdout(abandoned()).output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

fn commands() -> Vec<(Vec<String>, i32)> {
    let wallet = format!("0x{}", "11".repeat(20));
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    vec![
        (own(&["verify"]), 0),
        (own(&["account", &wallet]), 0),
        (own(&["keys", "mint", "--account", &wallet, "--name", "k"]), 0),
        (own(&["keys", "list", "--account", &wallet]), 0),
        (own(&["allowance", "list"]), 0),
        (own(&["refund", "req_1"]), 2),
        (own(&["inspect", "sign-in", "--domain", "localhost", "--now", "1", "bm8="]), 1),
        (own(&["--help"]), 0),
        (own(&["nonsense"]), 2),
        (own(&["pay", "--url", "http://127.0.0.1:9", "hi"]), 1),
    ]
}

#[test]
fn a_command_whose_reader_has_left_ends_as_quietly_as_if_it_had_been_read() {
    let mut server = shipped();
    let pay = ["pay", "--url", &server.url(), "one two three"].map(str::to_owned);
    let (code, said) = unread(server.command(&pay.each_ref().map(String::as_str)));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("receipt   transaction 0x"), "its other output is as ever: {said}");
    assert!(server.audit().clean);
    for (words, code) in commands() {
        let command = || server.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let (ended, said) = unread(command());
        assert!(ended == code && !said.contains("panicked"), "{words:?}: {ended} {said}");
        // Nobody reads what it says of trouble either.
        let status = command().stdin(Stdio::null()).stdout(abandoned()).stderr(abandoned()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
}

#[test]
fn an_output_that_does_not_fit_on_the_disk_is_no_success() {
    let mut server = shipped();
    assert!(server.audit().clean);
    for words in ["verify", "allowance list"] {
        let mut command = server.command(&words.split(' ').collect::<Vec<_>>());
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command.stdin(Stdio::null()).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && !said.contains("panicked"), "{words}: {:?} {said}", output.status);
        assert!(said.contains("the output could not be written"), "{words}: {said}");
    }
    let version = Command::new(FAREBOX).arg("--version").output().unwrap();
    assert!(version.status.success() && version.stdout.starts_with(b"farebox "));
}
