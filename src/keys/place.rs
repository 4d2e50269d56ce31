//! The index's place on disk: who may open it, what is done when it cannot be believed, and how a new one gets there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::history::History;
use super::store::Store;
use super::{Broken, Opened, Remedy};
use crate::fault;

/// Said to the second of two programs on the same keys.
const TAKEN: &str = "another farebox has these keys open; stop it first, or give this one a data_dir of its own";

/// For a second it is tried to get the lock: somebody who has let go of it may have forked a moment ago, and the child has
/// what its parent had open until it becomes another program.
const TRIES: u32 = 100;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// So many damaged indexes are kept for somebody to look at. A disk that breaks every one of them is not filled with them.
const KEPT: usize = 5;

/// Takes the index for this process, for as long as the file that is returned stays open. sled locks its own file; this
/// keeps a second program from that file while another one is put in its place.
pub(super) fn lock(folder: &Path) -> Result<File, Broken> {
    let path = folder.with_extension("lock");
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|error| Broken::file("lock", &path, &error))?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(BETWEEN_TRIES),
            Err(TryLockError::Error(error)) => return Err(Broken::file("lock", &path, &error)),
        }
    }
    Err(Broken::change("lock", TAKEN))
}

/// Opens the index as the journal has it: as it is, brought up to date, or made anew.
pub(super) fn open<B: AsRef<[u8]>>(folder: &Path, journal: &[(u64, B)], now: &History) -> Result<(Store, Opened), Broken> {
    let mut opened = Opened { keys: now.records.len(), ..Opened::default() };
    let why = match up_to_date(folder, journal, now) {
        Ok(Some((store, caught_up))) => return Ok((store, Opened { caught_up, ..opened })),
        Ok(None) => None,
        Err(broken) if broken.remedy == Remedy::StartAgain => Some(broken.cause),
        Err(broken) => return Err(broken),
    };
    opened.moved_to = make_anew(folder, now)?;
    if let Some(why) = &why {
        tracing::warn!(%why, moved_to = ?opened.moved_to, "the index of keys was damaged; it was made anew from the journal");
    }
    opened.rebuilt = why.or_else(|| (!journal.is_empty()).then(|| "there was none".into()));
    match believed(folder, journal, now)? {
        Some(store) => Ok((store, opened)),
        None => Err(Broken::new("open", "the index that was just made is gone")),
    }
}

/// The index that is there, with the events that it had not seen yet, and how many those were.
fn up_to_date<B: AsRef<[u8]>>(folder: &Path, journal: &[(u64, B)], now: &History) -> Result<Option<(Store, usize)>, Broken> {
    let Some(store) = believed(folder, journal, now)? else { return Ok(None) };
    let caught_up = store.catch_up(journal)?;
    Ok(Some((store, caught_up)))
}

/// What is wrong with the index; what is missing or behind is not.
pub(super) fn examine<B: AsRef<[u8]>>(folder: &Path, journal: &[(u64, B)], now: &History) -> Result<Vec<String>, Broken> {
    match believed(folder, journal, now) {
        Ok(_) => Ok(Vec::new()),
        Err(broken) if broken.remedy == Remedy::StartAgain => Ok(vec![broken.to_string()]),
        Err(broken) => Err(broken),
    }
}

/// The index that is there, if it says what the journal said up to the same event. `now` is the whole journal: most often the
/// index got as far, and a long journal is read once.
fn believed<B: AsRef<[u8]>>(folder: &Path, journal: &[(u64, B)], now: &History) -> Result<Option<Store>, Broken> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Broken::file("open", folder, &error)),
        Ok(_) => {}
    }
    let store = Store::open(folder)?;
    let problems = match store.applied() == now.last {
        true => store.differences(now)?,
        false => store.differences(&History::read(journal, store.applied())?)?,
    };
    match problems.first() {
        None => Ok(Some(store)),
        Some(problem) => Err(Broken::new("compare", format!("{problem} (and {} more)", problems.len() - 1))),
    }
}

/// Makes an index of the whole journal beside the place, and puts it there. Under its own name there never is one that is
/// not whole. Returns where the old one went.
fn make_anew(folder: &Path, now: &History) -> Result<Option<PathBuf>, Broken> {
    let fresh = folder.with_extension("new");
    remove(&fresh)?;
    let made = fill(&fresh, now);
    // One that does not fit is worth nothing and only takes more of a disk that is full.
    made.inspect_err(|_| drop(fs::remove_dir_all(&fresh)))?;
    fault::point("keys.index.made");
    let aside = set_aside(folder)?;
    fault::point("keys.index.aside");
    fs::rename(&fresh, folder).map_err(|error| Broken::file("place", folder, &error))?;
    fault::point("keys.index.placed");
    sync_folder(folder).map_err(|error| Broken::new("place", error))?;
    Ok(aside)
}

fn fill(fresh: &Path, now: &History) -> Result<(), Broken> {
    let private = || fs::DirBuilder::new().mode(0o700).create(fresh);
    private().map_err(|error| Broken::file("make", fresh, &error))?;
    let store = Store::open(fresh)?;
    store.fill(now)?;
    drop(store);
    sync_tree(fresh).map_err(|error| Broken::new("sync", error))
}

/// Moves what cannot be believed out of the way.
fn set_aside(folder: &Path) -> Result<Option<PathBuf>, Broken> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Broken::file("set aside", folder, &error)),
        Ok(_) => {}
    }
    let places = (1..=KEPT).map(|number| folder.with_extension(format!("damaged-{number}")));
    match places.into_iter().find(|place| fs::symlink_metadata(place).is_err()) {
        Some(place) => {
            fs::rename(folder, &place).map_err(|error| Broken::file("set aside", folder, &error))?;
            Ok(Some(place))
        }
        None => remove(folder).map(|()| None),
    }
}

fn remove(path: &Path) -> Result<(), Broken> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Broken::file("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Makes a folder with all that is in it durable.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => sync_tree(&path)?,
            false => File::open(path)?.sync_all()?,
        }
    }
    File::open(folder)?.sync_all()
}

/// A rename is durable once the folder is that holds the name.
pub(super) fn sync_folder(name: &Path) -> io::Result<()> {
    let folder = name.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
