//! What a release must not contain: the instants at which a test can kill the program.

use super::source::Source;

const FEATURE: &str = "fault-points";
const GUARD: &str = "#[cfg(feature = \"fault-points\")]";
/// The files that know it, each under the guard alone: who dies, who arms, the clock that moves, the disk that fails.
const PLACES: [&str; 5] = ["src/fault.rs", "src/main.rs", "src/cli/mod.rs", "src/ledger/mod.rs", "src/ledger/store.rs"];
/// What brings a fault about.
const ARMS: [&str; 5] = ["FAREBOX_FAULT", "FAREBOX_DISK_FAULT", "FAREBOX_CLOCK", "fault::arm", "faulty::"];
/// All that is left of a point without the feature: nothing, not even its name.
const NOTHING: &str = "#[cfg(not(feature = \"fault-points\"))]\n#[inline(always)]\npub fn point(_name: &'static str) {}";

/// Complaints about a `Cargo.toml` that turns the feature on by itself.
pub fn turned_on(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = toml::from_str(manifest).unwrap();
    let mut complaints = Vec::new();
    for (section, content) in &manifest {
        for (name, value) in content.as_table().into_iter().flatten() {
            if value.to_string().contains(FEATURE) {
                complaints.push(format!("{name} in [{section}] turns {FEATURE} on"));
            }
        }
    }
    if manifest.get("features").and_then(|features| features.get("default")).is_some() {
        complaints.push("there are default features; a release is built with them".into());
    }
    complaints
}

/// Complaints about code that knows the feature outside of its two places, or arms a point without it.
pub fn unguarded(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        let places = PLACES.contains(&source.path.as_str());
        let lines: Vec<_> = source.text.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
        for (place, line) in lines.iter().enumerate() {
            if line.contains(FEATURE) && !places {
                complaints.push(format!("{}: this file has no business with the feature: {line}", source.path));
            }
            let arms = ARMS.iter().any(|arm| line.contains(arm));
            let guarded = lines[..place].iter().rev().take(3).any(|before| *before == GUARD);
            if arms && !guarded {
                complaints.push(format!("{}: a release must not arm a point: {line}", source.path));
            }
        }
        if source.path == "src/fault.rs" && !source.text.contains(NOTHING) {
            complaints.push("src/fault.rs: without the feature a point must be nothing".into());
        }
    }
    complaints
}
