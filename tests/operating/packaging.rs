//! What an operator installs: the unit, the installation, the dashboard. Each is tried as the system's own programs see it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use farebox_rig::process::run;
use tempfile::TempDir;

use crate::shop::{CHARGE, Shop, USAGE};

const FAREBOX: &str = env!("CARGO_BIN_EXE_farebox");

/// A file of the project.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

/// A program of the system, with what brings it.
fn system(program: &str, package: &str) -> Command {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).exists());
    assert!(found, "{program} is missing: run scripts/test once, or apt install {package}");
    Command::new(program)
}

#[test]
fn the_unit_is_hardened_to_2_or_less_and_systemd_understands_all_of_it() {
    let mut security = system("systemd-analyze", "systemd");
    security.args(["security", "--offline=true", "--no-pager", "--threshold=20"]).arg(script("farebox.service"));
    let (code, stdout, stderr) = run(security, "");
    assert_eq!(code, 0, "exposure above 2.0:\n{stdout}{stderr}");
    assert!(stdout.contains("Overall exposure level"), "{stdout}{stderr}");

    // The same with a program that is there.
    let folder = TempDir::new().unwrap();
    let unit = fs::read_to_string(script("farebox.service")).unwrap();
    let copy = folder.path().join("farebox.service");
    assert!(unit.contains("ExecStart=/usr/local/bin/farebox serve "));
    fs::write(&copy, unit.replace("/usr/local/bin/farebox", FAREBOX)).unwrap();
    let mut verify = system("systemd-analyze", "systemd");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&copy);
    let (code, stdout, stderr) = run(verify, "");
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert!(!stderr.contains("farebox.service"), "{stderr}");
    for line in ["RestartPreventExitStatus=1 2 78", "User=farebox", "StateDirectory=farebox"] {
        assert!(unit.lines().any(|other| other == line), "{line}");
    }
}

/// Installs into a folder and returns what was printed.
fn install(root: &Path) -> String {
    let mut command = Command::new(script("install"));
    command.arg(FAREBOX).env("DESTDIR", root);
    let (code, stdout, stderr) = run(command, "");
    assert_eq!(code, 0, "{stdout}{stderr}");
    stdout
}

#[test]
fn an_installation_serves_and_a_second_one_keeps_what_was_written_and_the_books() {
    let root = TempDir::new().unwrap();
    let at = |path: &str| root.path().join(path);
    let mode = |path: &str| fs::metadata(at(path)).unwrap().permissions().mode() & 0o777;
    assert!(install(root.path()).contains("is installed"));
    assert_eq!((mode("usr/local/bin/farebox"), mode("etc/farebox"), mode("etc/farebox/secrets.env")), (0o755, 0o750, 0o600));
    assert_eq!((mode("var/lib/farebox"), mode("etc/farebox/config.toml")), (0o700, 0o640));
    let config = fs::read_to_string(at("etc/farebox/config.toml")).unwrap();
    assert!(config.contains("data_dir = \"/var/lib/farebox\""), "the books are where the unit may write");

    // As it is, but for the places of this test.
    let own = config.replace("/var/lib/farebox", at("var/lib/farebox").to_str().unwrap());
    let own = own.replace("\ndata_dir = ", "\nmetrics = \"127.0.0.1:0\"\ndata_dir = ");
    fs::write(at("etc/farebox/config.toml"), &own).unwrap();
    fs::write(at("etc/farebox/secrets.env"), "A=b\n").unwrap();
    fs::write(at("var/lib/farebox/ledger.redb"), "books").unwrap();
    let mut check = Command::new(at("usr/local/bin/farebox"));
    check.args(["check", "--config"]).arg(at("etc/farebox/config.toml"));
    let (code, stdout, stderr) = run(check, "");
    assert_eq!(code, 0, "{stdout}{stderr}");

    install(root.path());
    assert_eq!(fs::read_to_string(at("etc/farebox/config.toml")).unwrap(), own);
    assert_eq!(fs::read_to_string(at("etc/farebox/secrets.env")).unwrap(), "A=b\n");
    assert_eq!(fs::read_to_string(at("var/lib/farebox/ledger.redb")).unwrap(), "books");
    assert_eq!(fs::read_to_string(at("etc/farebox/config.toml.shipped")).unwrap(), config, "what is new can be looked up");
    assert_eq!(mode("etc/farebox/secrets.env"), 0o600);
}

#[test]
fn an_installation_without_a_program_changes_nothing() {
    let root = TempDir::new().unwrap();
    let mut command = Command::new(script("install"));
    command.arg("/nowhere/farebox").env("DESTDIR", root.path());
    let (code, _, stderr) = run(command, "");
    assert!(code != 0 && stderr.contains("cargo build --release"), "{stderr}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

/// The names of metrics in a text: words that begin as ours do.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("farebox_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn every_number_on_the_dashboard_is_told_and_every_number_that_is_told_is_on_it() {
    let mut shop = Shop::open();
    let key = shop.key();
    shop.call(&key, USAGE, false, CHARGE);
    let text = shop.numbers().text;
    let told = names(&text);
    let dashboard: serde_json::Value = serde_json::from_str(&fs::read_to_string(script("grafana.json")).unwrap()).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let used = names(target["expr"].as_str().unwrap());
            assert!(!used.is_empty(), "{panel}");
            shown.extend(used);
        }
    }
    assert_eq!(shown.difference(&told).collect::<Vec<_>>(), Vec::<&String>::new(), "nobody tells of these");
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let parts = ["", "_bucket", "_sum", "_count"];
    let is_shown = |family: &&str| parts.iter().any(|part| shown.contains(&format!("{family}{part}")));
    let unseen: Vec<_> = families.filter(|family| !is_shown(family)).collect();
    assert_eq!(unseen, ["farebox_build_info", "farebox_ledger_backlog_limit"], "these alone are not drawn");
    shop.close();
}
