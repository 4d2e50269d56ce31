//! What a release binary must be: small, stripped, quick to start, and without the points at which a test build dies.

use std::fs;
use std::path::Path;

use memchr::memmem;

use crate::report::{Report, Target};

/// The environment variables that bring faults about in a test build: a death, a failing disk, a wrong clock.
const ARMS: [&str; 3] = ["FAREBOX_FAULT", "FAREBOX_DISK_FAULT", "FAREBOX_CLOCK"];

/// Size, symbols, and the names of fault points, which are read from the project's own source.
pub fn inspect(report: &mut Report, binary: &Path, source: &Path) -> Result<(), String> {
    let bytes = fs::read(binary).map_err(|error| format!("{}: {error}", binary.display()))?;
    let names = fault_points(source)?;
    report.add(
        "stripped binary",
        Some(bytes.len() as f64 / 1e6),
        "MB",
        Target::AtMost(20.0),
        "the file that `cargo build --release` makes",
    );
    if memmem::find(&bytes, b".symtab\0").is_some() {
        report.wrong("the release binary is not stripped");
    }
    let present = contained(&bytes, names.iter().map(String::as_str).chain(ARMS));
    present.iter().for_each(|name| report.wrong(format!("the release binary contains the fault point name {name:?}")));
    let found = Some(present.len() as f64);
    let note = format!("{} names of fault points in src/, and {}, searched in the binary", names.len(), ARMS.join(", "));
    report.add("fault points in the release", found, "", Target::AtMost(0.0), &note);
    Ok(())
}

fn contained<'a>(bytes: &[u8], names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.filter(|name| memmem::find(bytes, name.as_bytes()).is_some()).map(str::to_owned).collect()
}

/// The names in every `fault::point("…")` below a folder.
fn fault_points(folder: &Path) -> Result<Vec<String>, String> {
    let why = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(why)? {
        let path = entry.map_err(why)?.path();
        if path.is_dir() {
            names.extend(fault_points(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(points(&fs::read_to_string(&path).map_err(why)?));
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn points(text: &str) -> Vec<String> {
    let after = text.split("fault::point(\"").skip(1);
    after.filter_map(|rest| rest.split_once('"').map(|(name, _)| name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_point_that_was_left_in_is_found() {
        let names = points("a(); fault::point(\"claim.before\"); fault::point(\"post.after\");");
        assert_eq!(names, ["claim.before", "post.after"]);
        let found = contained(b"\x00claim.before\x00", names.iter().map(String::as_str));
        assert_eq!(found, ["claim.before"]);
    }
}
