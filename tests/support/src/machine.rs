//! A machine that runs a systemd of its own beside this one's, so that what is installed can be run as it will be.
//!
//! It shares the network with this machine, and its files as they are, but nothing that is written there stays.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::process::{eventually, run};
use crate::tests_dir;

/// What a machine needs that a container or a stranger's account may not have.
const NEEDED: &str = "this test runs a systemd of its own, which takes root (or sudo without a password), util-linux, and a system \
                      that lets root make namespaces, mounts and cgroups: no container without --privileged";

/// A running machine. Dropping it ends it, with everything in it.
pub struct Machine {
    boot: Child,
    /// Of its systemd, on this machine.
    pid: String,
    folder: TempDir,
}

impl Machine {
    /// Boots one and waits until its systemd has nothing left to start.
    pub fn boot() -> Machine {
        let folder = TempDir::new().expect("a temporary folder");
        let place = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).expect("the folder is writable");
            path
        };
        let mut command = as_root(&tests_dir().join("support/machine/boot"));
        command.arg(place("mount")).arg(place("shared"));
        let mut boot = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect(NEEDED);
        let mut pid = String::new();
        let stdout = boot.stdout.take().expect("stdout is piped");
        let read = BufReader::new(stdout).read_line(&mut pid);
        let mut machine = Machine { boot, pid: pid.trim().to_owned(), folder };
        assert!(read.is_ok() && !machine.pid.is_empty(), "{NEEDED}; it said: {}", machine.last_words());
        let mut state = String::new();
        // It answers once its first process has become systemd; before, there is no /run of its own to ask in.
        eventually("the machine has booted", || {
            state = machine.run("systemctl is-system-running --wait").1.trim().to_owned();
            let ended = machine.boot.try_wait().is_ok_and(|ended| ended.is_some());
            assert!(!ended, "{NEEDED}; it said: {}", machine.last_words());
            ["running", "degraded"].contains(&state.as_str())
        });
        assert_eq!(state, "running", "{}", machine.run("systemctl --failed; journalctl --no-pager").1);
        machine
    }

    /// Runs a line of shell in it as root; returns the exit code, what it printed, and its complaints behind that.
    pub fn run(&self, line: &str) -> (i32, String) {
        let mut command = as_root(Path::new("nsenter"));
        command.args(["--target", &self.pid, "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--", "env", "-i"]);
        command.args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "sh", "-c", line]);
        let (code, stdout, stderr) = run(command, "");
        (code, stdout + &stderr)
    }

    /// The same for a line that must succeed; returns what it printed.
    pub fn must(&self, line: &str) -> String {
        let (code, said) = self.run(line);
        assert_eq!(code, 0, "{line}:\n{said}\n{}", self.run("journalctl --no-pager --lines=60").1);
        said
    }

    /// The folder of this machine that is its `/srv/farebox`.
    pub fn shared(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    /// The process id of its systemd on this machine.
    pub fn pid(&self) -> &str {
        &self.pid
    }

    fn last_words(&mut self) -> String {
        self.end();
        let mut text = String::new();
        if let Some(mut stderr) = self.boot.stderr.take() {
            // What cannot be read is not said.
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    /// It ends with its standard input, and removes what it made.
    fn end(&mut self) {
        drop(self.boot.stdin.take());
        // An error means that it had already ended.
        let _ = self.boot.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- journal of the machine\n{}", self.run("journalctl --no-pager --lines=200").1);
        }
        self.end();
    }
}

/// The program as root, who this may be already.
pub fn as_root(program: &Path) -> Command {
    let mut id = Command::new("id");
    id.arg("-u");
    if run(id, "").1.trim() == "0" {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-n").arg(program);
    command
}
