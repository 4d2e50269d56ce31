//! A folder for one program's files, on the disk that the project is on; removed when it is dropped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// An empty folder of our own.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one below the folder of this program, which is the project's `target`.
    pub fn new() -> io::Result<Folder> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let own = std::env::current_exe()?;
        let above = own.parent().and_then(Path::parent).ok_or(io::ErrorKind::NotFound)?;
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = above.join("bench").join(name);
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is below `target`, where nobody minds it.
        let _ = fs::remove_dir_all(&self.0);
    }
}
