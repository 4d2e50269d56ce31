//! What we depend on: licences we may ship, one TLS provider, one HTTP stack, crates.io only, and a reason for each.

use std::process::Command;

/// The list of `deny.toml`.
const LICENCES: [&str; 10] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "MPL-2.0",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
    "Apache-2.0 WITH LLVM-exception",
];
/// OpenSSL and aws-lc would be a second TLS provider, hyper a second HTTP stack.
const BANNED: [&str; 6] = ["openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys", "hyper", "reqwest"];
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Complaints about the sources in a `Cargo.lock`.
pub fn locked(lock: &str) -> Vec<String> {
    let lock: toml::Table = toml::from_str(lock).unwrap();
    let packages = lock["package"].as_array().unwrap();
    let mut complaints = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        match package.get("source").and_then(|source| source.as_str()) {
            None if name.starts_with("farebox") => {}
            Some(CRATES_IO) => {}
            source => complaints.push(format!("{name} comes from {source:?}, not from crates.io")),
        }
    }
    complaints
}

/// Everything that is built for this machine, with all features: a lock file also names what no feature turns on.
pub fn built() -> String {
    run(&["tree", "--workspace", "--all-features", "--locked", "--offline", "--prefix", "none"])
}

/// Complaints about the names in a list of what is built.
pub fn banned(built: &str) -> Vec<String> {
    let names = built.lines().filter_map(|line| line.split(' ').next());
    names.filter(|name| BANNED.contains(name)).map(|name| format!("{name} is banned")).collect()
}

/// Complaints about the licences of everything that is built for this machine.
pub fn licences() -> Vec<String> {
    let version = run(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
    let metadata = run(&["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "the whole graph was read");
    let complaint = |package: &serde_json::Value| {
        let licence = package["license"].as_str().unwrap_or_default();
        (!allowed(licence)).then(|| format!("{} has the licence {licence:?}", package["name"]))
    };
    packages.iter().filter_map(complaint).collect()
}

fn run(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether an SPDX expression can be met with our licences. AND binds tighter than OR.
pub fn allowed(expression: &str) -> bool {
    let expression = expression.trim().replace('/', " OR ");
    let one = |part: &str| match part.trim().strip_prefix('(').and_then(|part| part.strip_suffix(')')) {
        Some(inner) => allowed(inner),
        None => LICENCES.contains(&part.trim()),
    };
    split(&expression, " OR ").into_iter().any(|choice| split(choice, " AND ").into_iter().all(one))
}

/// Splits at `separator` outside parentheses.
fn split<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(separator) {
        let before = &text[start..at];
        if before.matches('(').count() == before.matches(')').count() {
            parts.push(before);
            start = at + separator.len();
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Dependencies without a comment above them that says what they are for. Crates of one family may share one.
pub fn unexplained(manifest: &str) -> Vec<String> {
    let family = |line: &str| line.split(['=', '-', ' ']).next().unwrap_or_default().to_owned();
    let mut complaints = Vec::new();
    let mut in_dependencies = false;
    let mut above = "";
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && line.contains('=') && !line.starts_with('#') {
            let explained = above.starts_with('#') || (above.contains('=') && family(above) == family(line));
            if !explained {
                complaints.push(format!("{line}: no comment says what it is for"));
            }
        }
        above = line;
    }
    complaints
}
