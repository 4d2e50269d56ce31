//! `farebox backup`: the books, the pepper and the noted prices in a folder of their own, checked before it gets its name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::serve::{Trouble, trouble};
use super::{FOUND_A_PROBLEM, USAGE, code_of, machine_clock, operator, say};
use crate::config::Config;
use crate::fault;
use crate::gateway::operator::Command;
use crate::keys;
use crate::ledger::{self, Report};

/// What a backup says of itself.
pub(super) const MANIFEST: &str = "backup.json";
/// How the name of a folder ends that is not whole yet.
const PARTIAL: &str = ".partial";
/// The file by which a data folder is kept for one program; of no use in a backup.
const LOCK: &str = "lock";
/// Prices of an earlier configuration that are still honoured.
const PRICES: &str = "prices.json";
/// What a data folder has beside its books that cannot be made anew.
pub(super) const BESIDE: [&str; 2] = [keys::PEPPER, PRICES];

#[derive(clap::Args)]
pub struct Arguments {
    /// A folder that is not there yet.
    folder: PathBuf,
}

/// One file of a backup.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub name: String,
    pub sha256: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub farebox: String,
    /// Before the books were copied: all that was acknowledged by then is in them.
    pub made_at: String,
    pub postings: u64,
    pub receipts: usize,
    pub files: Vec<Kept>,
}

/// A copy of the books that is taken away when nobody needs it any more.
pub(super) struct Copy(pub PathBuf);

impl Copy {
    /// Asks for one wherever the books are open.
    pub fn of_books(config: &Config) -> Result<Copy, Trouble> {
        let made = operator::told(&Command::CopyBooks, config)?;
        let name = made["file"].as_str().ok_or_else(|| trouble(FOUND_A_PROBLEM)("the gateway named no copy".into()))?;
        Ok(Copy(config.data_dir.join(name)))
    }

    /// Puts it where nothing is yet. On its own disk it gets another name and nothing else: a second copy could take the room
    /// that the books need.
    fn place(self, to: &Path) -> Result<(), Trouble> {
        match fs::rename(&self.0, to) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let size = fs::metadata(&self.0).map_err(wrong(&self.0))?.len();
                let folder = to.parent().unwrap_or(Path::new("."));
                ledger::room_for(folder, size)
                    .map_err(|broken| trouble(FOUND_A_PROBLEM)(format!("{}: {broken}", folder.display())))?;
                put(&self.0, to).map_err(wrong(to))
            }
            renamed => renamed.and_then(|()| File::open(to)?.sync_all()).map_err(wrong(to)),
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What is left behind the next start takes away.
        let _ = fs::remove_file(&self.0);
    }
}

pub fn run(arguments: &Arguments, config: &Config) -> Result<(), Trouble> {
    let folder = &arguments.folder;
    let shown = folder.display();
    if folder.symlink_metadata().is_ok() {
        return Err(trouble(USAGE)(format!("{shown} is there already, and a backup writes over nothing; name a new folder")));
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let partial = match folder.file_name() {
        Some(name) => parent.join(format!("{}{PARTIAL}", name.to_string_lossy())),
        None => return Err(trouble(USAGE)(format!("{shown} is no name for a folder"))),
    };
    tell_of_others(parent, &partial);
    // Until it has its name nobody else begins or takes away a backup there.
    let _kept = begin(&partial)?;
    let made = fill(&partial, config).and_then(|manifest| {
        fs::rename(&partial, folder).map_err(wrong(folder))?;
        sync_folder(parent).map_err(wrong(folder))?;
        Ok(manifest)
    });
    let manifest = made.inspect_err(|_| drop(fs::remove_dir_all(&partial)))?;
    let files: Vec<_> = manifest.files.iter().map(|file| &file.name).collect();
    let secret = format!("whoever has {} can check and forge keys: keep this folder as you keep a private key", keys::PEPPER);
    let told = json!({
        "backup": folder, "made_at": manifest.made_at, "postings": manifest.postings, "receipts": manifest.receipts,
        "files": files, "secret": secret,
    });
    say::out(format_args!("{told:#}")).map_err(trouble(FOUND_A_PROBLEM))
}

/// Makes the folder that is to be a backup, or empties one that an earlier try of the same name left when it was killed. It is
/// kept for this program for as long as what is returned stays open.
fn begin(partial: &Path) -> Result<File, Trouble> {
    let made = fs::DirBuilder::new().mode(0o700).create(partial);
    let is_left = made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists);
    made.or_else(|error| if is_left { Ok(()) } else { Err(error) }).map_err(wrong(partial))?;
    let folder = File::open(partial).map_err(wrong(partial))?;
    let shown = partial.display();
    folder.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => trouble(FOUND_A_PROBLEM)(format!("{shown}: another backup of this name is being made")),
        TryLockError::Error(error) => wrong(partial)(error),
    })?;
    if !is_left {
        return Ok(folder);
    }
    let ours = [ledger::FILE, MANIFEST, LOCK].into_iter().chain(BESIDE).collect::<Vec<_>>();
    for entry in fs::read_dir(partial).map_err(wrong(partial))? {
        let name = entry.map_err(wrong(partial))?.file_name();
        let name = name.to_string_lossy();
        if !ours.contains(&&*name) {
            return Err(trouble(USAGE)(format!("{shown} has {name}, which is of no backup; name another folder")));
        }
    }
    let left = ours.iter().map(|name| partial.join(name)).filter(|path| path.exists());
    left.into_iter().try_for_each(|path| fs::remove_file(&path).map_err(wrong(&path)))?;
    say::err(format_args!("farebox: a backup of this name had been broken off; what was left of it is taken away"));
    Ok(folder)
}

/// Says what earlier backups of other names left in the same place when they were killed: whoever backs up by a clock would never
/// see that they take up room. They are in nobody's way, and taken away by nobody but the operator.
fn tell_of_others(place: &Path, own: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_partial = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(PARTIAL));
        if !is_partial || path == own || !path.join(ledger::FILE).exists() {
            continue;
        }
        // One that is being made is kept.
        if File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok()) {
            let shown = path.display();
            say::err(format_args!("farebox: {shown} was left by a backup that was broken off; it is none, remove it"));
        }
    }
}

fn fill(partial: &Path, config: &Config) -> Result<Manifest, Trouble> {
    let made_at = machine_clock().now().to_rfc3339();
    let books = partial.join(ledger::FILE);
    Copy::of_books(config)?.place(&books)?;
    fault::point("backup.copied");
    for name in BESIDE {
        let from = config.data_dir.join(name);
        match put(&from, &partial.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(&from)(error)),
            _ => {}
        }
    }
    let report = checked(&books)?;
    if report.key_events > 0 && !partial.join(keys::PEPPER).exists() {
        let lost = config.data_dir.join(keys::PEPPER);
        return Err(trouble(FOUND_A_PROBLEM)(format!(
            "{} is not there, and without it none of the keys in these books can be used: no backup was made; put it back, or stop \
             the gateway and end all keys with farebox keys forget-all",
            lost.display()
        )));
    }
    // Of the check, whose lock it was.
    let _ = fs::remove_file(partial.join(LOCK));
    let names = [ledger::FILE].into_iter().chain(BESIDE).filter(|name| partial.join(name).exists());
    let files = names.map(|name| {
        let path = partial.join(name);
        Ok(Kept { name: name.to_owned(), sha256: sum(&path).map_err(wrong(&path))? })
    });
    let files = files.collect::<Result<Vec<_>, Trouble>>()?;
    let farebox = env!("CARGO_PKG_VERSION").to_owned();
    let manifest = Manifest { farebox, made_at, postings: report.postings, receipts: report.receipts, files };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| trouble(FOUND_A_PROBLEM)(error.to_string()))?;
    let path = partial.join(MANIFEST);
    write(&path, &text).and_then(|()| sync_folder(partial)).map_err(wrong(&path))?;
    fault::point("backup.whole");
    Ok(manifest)
}

/// Books that are not whole are no backup.
pub(super) fn checked(books: &Path) -> Result<Report, Trouble> {
    let report = Report::of_file(books, |_| ()).map_err(|broken| {
        let code = code_of(&broken);
        trouble(code)(format!("{}: {broken}", books.display()))
    })?;
    match report.problems.first() {
        None => Ok(report),
        Some(problem) => Err(trouble(FOUND_A_PROBLEM)(format!("the books are broken: {problem}; run farebox verify"))),
    }
}

/// Copies a file so that it is durable and its owner's alone. Nothing is there to be written over.
pub(super) fn put(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut source, &mut target)?;
    target.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// SHA-256 of a file, in hex.
pub(super) fn sum(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut piece) = (File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            length => hasher.update(&piece[..length]),
        }
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn wrong(path: &Path) -> impl Fn(io::Error) -> Trouble {
    let shown = path.display().to_string();
    move |error| trouble(FOUND_A_PROBLEM)(format!("{shown}: {error}"))
}
