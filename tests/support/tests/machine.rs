//! The machine that runs a systemd of its own: what is done in it stays in it, and nothing of it is left.

use std::fs;
use std::path::Path;

use farebox_rig::machine::{Machine, as_root};
use farebox_rig::process::{eventually, run};

/// The cgroups of this machine whose name contains `name`.
fn cgroups(name: &str) -> Vec<String> {
    let mut roots = vec!["/sys/fs/cgroup".to_owned()];
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    roots.extend(hierarchies.map(|entry| entry.path().display().to_string()));
    roots.into_iter().map(|root| format!("{root}/{name}")).filter(|path| Path::new(path).exists()).collect()
}

/// The name of its cgroups.
fn name_of(machine: &Machine) -> String {
    let paths = fs::read_to_string(format!("/proc/{}/cgroup", machine.pid())).unwrap();
    let name = paths.split(['/', ':', '\n']).find(|part| part.starts_with("farebox-test-"));
    name.expect("it has cgroups of its own").to_owned()
}

#[test]
fn what_is_done_in_a_machine_leaves_nothing_behind() {
    let before = ["/etc/passwd", "/proc/self/mounts", "/proc/sys/fs/file-max"].map(|path| fs::read(path).unwrap());
    let machine = Machine::boot();
    let name = name_of(&machine);
    assert!(!cgroups(&name).is_empty(), "the test looks in the right place");
    machine
        .must("useradd --system stranger && touch /etc/stranger && mount -t tmpfs tmpfs /mnt && systemd-run --quiet sleep 1000");
    assert_ne!(machine.run("echo 1 >/proc/sys/fs/file-max").0, 0, "the kernel's settings are not its own");
    drop(machine);
    assert_eq!(before, ["/etc/passwd", "/proc/self/mounts", "/proc/sys/fs/file-max"].map(|path| fs::read(path).unwrap()));
    assert!(!Path::new("/etc/stranger").exists());
    assert_eq!(cgroups(&name), Vec::<String>::new());
}

#[test]
fn a_machine_whose_keeper_is_killed_ends_and_the_next_one_cleans_up_after_it() {
    let machine = Machine::boot();
    let (name, systemd) = (name_of(&machine), format!("/proc/{}/exe", machine.pid()));
    let keeper = name.trim_start_matches("farebox-test-");
    let mut kill = as_root(Path::new("kill"));
    kill.args(["-9", keeper]);
    assert_eq!(run(kill, "").0, 0);
    eventually("it has ended", || fs::read_link(&systemd).is_err());
    drop(machine);
    drop(Machine::boot());
    assert_eq!(cgroups(&name), Vec::<String>::new());
}
