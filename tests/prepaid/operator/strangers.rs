//! The operator's socket is for the gateway's own user and for root: anybody else is turned away, at its door and behind it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use farebox_rig::process::run;
use serde_json::json;

use crate::owner::{CHARGE, DOLLAR, MODEL, Owner, Shop};

/// The user `nobody`, who owns nothing.
const NOBODY: u32 = 65_534;

fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_command_of_another_user_does_nothing_even_when_the_door_stands_open() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let (id, key) = shop.mint(&owner, &json!({ "name": "k" }));
    let data_dir = shop.server.data_dir();
    let folder = data_dir.parent().unwrap().to_owned();
    let socket = data_dir.join("operator.sock");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data_dir), mode(&socket)), (0o700, 0o600), "only its own user comes as far as the socket");
    // Without root there is no other user to be; who is let in is then told by `admits`, in a test of its own.
    if fs::metadata(&folder).unwrap().uid() == 0 {
        // A copy that the other user can run, wherever the build is.
        let binary = folder.join("farebox");
        fs::copy(env!("CARGO_BIN_EXE_farebox"), &binary).unwrap();
        open_to_all(&binary, 0o755);
        open_to_all(&folder, 0o755);
        open_to_all(&folder.join("config.toml"), 0o644);
        let ask = |arguments: &[&str]| {
            let mut command = Command::new(&binary);
            command.arg("--config").arg(folder.join("config.toml")).args(arguments);
            command.env_clear().envs(envs(&shop)).current_dir("/").uid(NOBODY).gid(NOBODY);
            run(command, "")
        };
        let address = owner.address();
        let commands: [&[&str]; 4] = [
            &["keys", "revoke", &id],
            &["keys", "mint", "--account", &address, "--name", "stolen"],
            &["allowance", "set", &address, "1000"],
            &["account", &address],
        ];
        for (door, words) in
            [("shut", "run this as the user that the gateway runs as"), ("open", "this one came from the user 65534")]
        {
            if door == "open" {
                open_to_all(&data_dir, 0o711);
                open_to_all(&socket, 0o666);
            }
            for command in commands {
                let (code, printed, said) = ask(command);
                assert_eq!((code, printed.as_str()), (1, ""), "{door}, {command:?}: {said}");
                assert!(said.contains(words), "{door}, {command:?}: {said}");
            }
        }
        open_to_all(&data_dir, 0o700);
        shop.server.has_said("it came from the user 65534");
    }
    assert_eq!(shop.call(&key, MODEL).status, 200, "the key was not revoked");
    assert_eq!(shop.listed(&owner).len(), 1, "none was minted");
    assert_eq!(
        shop.operator(&["allowance", "list"]).1,
        json!({ "allowances": [] }),
        "nothing was granted, and its own user is heard"
    );
    shop.wait_settled(&owner);
    shop.close(&[(&owner, DOLLAR - u64::try_from(CHARGE).unwrap())]);
}

/// What the configuration asks of the environment.
fn envs(shop: &Shop) -> Vec<(String, String)> {
    let command = shop.server.command(&[]);
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?)))).collect()
}
