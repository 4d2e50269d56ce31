//! A disk that is small and becomes full: while the gateway sells, at its start, and under a backup. Nobody loses what was acknowledged,
//! one sentence says what to do, and with room again all goes on.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use farebox_rig::anvil::BUYER;
use farebox_rig::http;
use farebox_rig::process::{Process, eventually, run};
use farebox_rig::server::Server;

use crate::shop::{CHARGE, FIVE, Shop, USAGE, with_key};

/// What the program ends with when its ledger has failed.
const FAIL_STOP: i32 = 70;
/// What the system says of a disk that is full.
const FULL: &str = "No space left on device";

/// What a system may keep from everybody but root.
const NEEDED: &str = "this test mounts a disk in a user namespace, which takes root where the system keeps that from others, as \
                      Ubuntu does until `sysctl kernel.apparmor_restrict_unprivileged_userns=0`";

/// A disk of its own in the place of a folder, for programs that are started on it.
pub struct SmallDisk {
    folder: PathBuf,
    /// It is there for as long as this runs.
    keeper: Process,
}

impl SmallDisk {
    pub fn over(folder: &Path, megabytes: u32) -> SmallDisk {
        let script = format!("mount -t tmpfs -o size={megabytes}m,mode=700 tmpfs \"$0\" && echo mounted && exec sleep infinity");
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", &script]).arg(folder);
        let mut keeper = Process::spawn(command);
        let mounted = keeper.wait_for_or_end("mounted");
        assert!(mounted.is_some(), "{NEEDED}; it said: {}", keeper.output());
        SmallDisk { folder: folder.to_owned(), keeper }
    }

    /// In the place of a server's data folder, which begins anew.
    pub fn under(server: &mut Server, megabytes: u32) -> SmallDisk {
        server.kill();
        let folder = server.data_dir();
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        let disk = SmallDisk::over(&folder, megabytes);
        server.start_through(disk.program());
        disk
    }

    /// What starts programs that see it.
    pub fn program(&self) -> Vec<String> {
        let keeper = self.keeper.id().to_string();
        ["nsenter", "--target", &keeper, "--user", "--mount", "--"].map(str::to_owned).to_vec()
    }

    /// A file on it, as it is seen from outside.
    pub fn path(&self, name: &str) -> PathBuf {
        let outside = format!("/proc/{}/root{}", self.keeper.id(), self.folder.display());
        Path::new(&outside).join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Somebody else takes all the room that is left.
    pub fn fill(&self) {
        let mut ballast = File::create(self.path("ballast")).unwrap();
        let mut piece = vec![1; 1 << 16];
        while !piece.is_empty() {
            if let Err(error) = ballast.write_all(&piece) {
                assert!(error.to_string().contains(FULL), "{error}");
                piece.truncate(piece.len() / 2);
            }
        }
    }

    /// There is room again.
    pub fn clear(&self) {
        fs::remove_file(self.path("ballast")).unwrap();
    }
}

/// The lines of a log that say that something is full, without those about single calls.
fn sentences(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.contains(FULL)).filter(|line| !line.contains("request.id=")).collect()
}

#[test]
fn a_disk_that_fills_up_under_sales_ends_the_program_and_loses_nothing_that_was_acknowledged() {
    let mut shop = Shop::open();
    let disk = SmallDisk::under(&mut shop.server, 16);
    shop.server.restart();
    let key = shop.key();
    for _ in 0..3 {
        assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    }
    shop.server.wait_posted(BUYER.address);
    disk.fill();
    let (mut served, mut refused) = (0, None);
    // The file of the books has some room of its own.
    while refused.is_none() {
        match http::send(shop.server.address(), &with_key(&key, USAGE, false)) {
            Ok(answer) if answer.status == 200 => served += 1,
            Ok(answer) => {
                assert_eq!((answer.status, answer.code().as_str()), (503, "ledger_unavailable"), "{}", answer.text());
                refused = Some(true);
            }
            // It has ended meanwhile.
            Err(_) => refused = Some(false),
        }
    }
    assert_eq!(shop.server.wait_code(), Some(FAIL_STOP));
    let said = shop.server.output();
    let told = sentences(&said);
    assert_eq!(told.len(), 1, "one sentence:\n{said}");
    assert!(told[0].contains("the ledger has stopped") && told[0].contains("make room"), "{}", told[0]);
    assert!(!said.contains("panicked"), "{said}");

    // As a service manager does, for as long as it is full.
    for _ in 0..2 {
        let (code, stdout, stderr) = run(shop.server.command(&["serve"]), "");
        let said = stdout + &stderr;
        assert_eq!(code, FAIL_STOP, "{said}");
        let told = sentences(&said);
        assert_eq!(told.len(), 1, "one sentence:\n{said}");
        assert!(told[0].starts_with("farebox: ") && told[0].contains("make room"), "{}", told[0]);
        assert!(!said.contains("panicked") && !said.contains("listening"), "{said}");
    }

    disk.clear();
    shop.server.restart();
    assert_eq!(disk.names().iter().filter(|name| name.ends_with("rewrite") || name.ends_with("new")).count(), 0);
    let charged = FIVE - shop.buyer_has();
    // The operator loses what had not reached the disk; the buyer pays for nothing that it did not get.
    assert!((3 * CHARGE..=(3 + served) * CHARGE).contains(&charged), "{charged} of {served} calls and 3");
    assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200, "the key works, and it sells again");
    shop.came_in(0, charged - 3 * CHARGE);
    shop.close();
}

#[test]
fn a_disk_that_is_full_at_the_first_start_is_one_sentence_and_70_and_no_matter_once_there_is_room() {
    let mut shop = Shop::open();
    let disk = SmallDisk::under(&mut shop.server, 16);
    disk.fill();
    for arguments in [&["serve"][..], &["keys", "list", "--account", BUYER.address]] {
        let (code, stdout, stderr) = run(shop.server.command(arguments), "");
        let said = stdout + &stderr;
        assert_eq!(code, FAIL_STOP, "{arguments:?}: {said}");
        let told = sentences(&said);
        assert_eq!(told.len(), 1, "{arguments:?}: one sentence:\n{said}");
        assert!(told[0].contains(shop.server.data_dir().to_str().unwrap()) && told[0].contains("make room"), "{}", told[0]);
        assert!(!said.contains("panicked") && !said.contains("listening"), "{said}");
        let left = disk.names();
        assert!(left.iter().all(|name| ["ballast", "lock"].contains(&name.as_str())), "no half of a file is left: {left:?}");
    }
    disk.clear();
    shop.server.restart();
    let key = shop.key();
    assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    assert!(shop.server.audit().clean);
    // Books that were closed in good order may have room of their own for one more start, and for some calls.
    disk.fill();
    let mut process = Process::spawn(shop.server.command(&["serve"]));
    if let Some(address) = process.wait_for_or_end("listening on http://") {
        while http::send(&address, &with_key(&key, USAGE, false)).is_ok_and(|answer| answer.status == 200) {}
    }
    let (status, said) = (process.wait_exit(), process.output());
    assert_eq!((status.code(), sentences(&said).len()), (Some(FAIL_STOP), 1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    disk.clear();
    shop.server.restart();
    let charged = FIVE - shop.buyer_has();
    assert_eq!((charged % CHARGE, charged >= CHARGE), (0, true), "{charged}: what was sold before is charged");
    assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    shop.came_in(0, charged - CHARGE);
    shop.close();
}

#[test]
fn a_backup_that_does_not_fit_is_refused_leaves_nothing_and_holds_no_sale_up() {
    let mut shop = Shop::open();
    let place = tempfile::TempDir::new().unwrap();
    let other = SmallDisk::over(place.path(), 4);
    let key = shop.key();
    // A disk of its own for backups that is full, and one that is too small for the books and a copy of them.
    shop.server.start_through(other.program());
    other.fill();
    let away = place.path().join("copy");
    let refused = |server: &Server, folder: &Path| {
        let (code, stdout, stderr) = run(server.command(&["backup", folder.to_str().unwrap()]), "");
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "one sentence: {stderr}");
        assert!(stderr.contains("make room") || stderr.contains(FULL), "{stderr}");
    };
    refused(&shop.server, &away);
    other.clear();
    refused(&shop.server, &away);
    assert_eq!(other.names(), [""; 0], "neither a backup nor half of one");
    assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    let copies = || fs::read_dir(shop.server.data_dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    eventually("no copy is left", || copies().all(|name| !name.starts_with("copy-")));
    shop.close();
}

#[test]
fn a_log_on_a_disk_that_is_full_costs_lines_and_no_sale() {
    let mut shop = Shop::open();
    let place = tempfile::TempDir::new().unwrap();
    let disk = SmallDisk::over(place.path(), 1);
    let log = place.path().join("log");
    let mut program = disk.program();
    program.extend(["sh", "-c", "log=$1; shift; exec \"$@\" 2>>\"$log\"", "sh"].map(str::to_owned));
    program.push(log.to_str().unwrap().to_owned());
    shop.server.start_through(program);
    shop.server.restart();
    let key = shop.key();
    let lines = || fs::read_to_string(disk.path("log")).unwrap().matches("charged 0.000165").count();
    assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    eventually("a sale is in the log", || lines() > 0);
    disk.fill();
    for stream in [false, true, false] {
        let answer = shop.call(&key, USAGE, stream, CHARGE);
        assert!(answer.status == 200 && answer.complete, "{}", answer.text());
    }
    // Until the block that it had begun is full.
    for _ in 0..20 {
        assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    }
    disk.clear();
    let before = lines();
    assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    eventually("it is written again", || lines() > before);
    shop.server.start_through(disk.program());
    shop.close();
}
