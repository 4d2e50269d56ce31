//! The shape of the project, held by tests: arrows point down, the core is pure, money has one door, files stay readable.

#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/release.rs"]
mod release;
#[path = "tidy/source.rs"]
mod source;

use source::{Source, block, project, words};

/// A rule reads all sources and returns its complaints.
type Rule = fn(&[Source]) -> Vec<String>;

fn hold(rule: Rule) {
    let complaints = rule(&project());
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The layers as `src/lib.rs` draws them, lowest first, and which of them are strangers to each other.
struct Map {
    layers: Vec<Vec<String>>,
    strangers: Vec<String>,
}

impl Map {
    fn read(sources: &[Source]) -> Map {
        let lib = sources.iter().find(|source| source.path == "src/lib.rs").expect("src/lib.rs holds the map");
        let drawing = lib.text.split("//! ```").nth(1).expect("the map stands between two fences");
        let mut map = Map { layers: Vec::new(), strangers: Vec::new() };
        for line in drawing.lines().skip(1) {
            let row = line.trim_start_matches("//!").trim();
            let (names, meaning) = row.split_once("  ").unwrap_or((row, ""));
            let names: Vec<String> = names.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            if meaning.contains("strangers") {
                map.strangers = names.clone();
            }
            if !names.is_empty() {
                map.layers.push(names);
            }
        }
        map
    }

    fn layer(&self, module: &str) -> Option<usize> {
        self.layers.iter().position(|names| names.iter().any(|name| name == module))
    }

    /// Everything below `config`.
    fn is_pure(&self, module: &str) -> bool {
        self.layer(module).is_some_and(|layer| Some(layer) < self.layer("config"))
    }
}

/// The files of the product that belong to a layer, with the name of their module and their code.
fn product(sources: &[Source]) -> impl Iterator<Item = (&Source, &str, String)> {
    let placed = sources.iter().filter_map(|source| Some((source, source.module()?)));
    placed.filter(|(_, module)| *module != "lib").map(|(source, module)| (source, module, source.code()))
}

/// The top modules that a file names, with their lines: `crate::x`, `crate::{x, y}`, `farebox::x`, `super::super::x`.
fn imports(source: &Source, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let to_root = "super::".repeat(source.depth());
    for root in ["crate::", "farebox::", to_root.as_str()] {
        for (line, rest) in words(code, root) {
            let names = match block(rest) {
                Some(length) if rest.starts_with('{') => top_names(&rest[1..length - 1]),
                _ => vec![first_name(rest)],
            };
            found.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| (line, name)));
        }
    }
    found
}

fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first names of the entries of a `use` group; what stands in inner groups belongs to those entries.
fn top_names(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut entries = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => entries.push(String::new()),
            _ if depth == 0 => entries.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    entries.iter().map(|entry| first_name(entry)).collect()
}

fn upward_imports(sources: &[Source]) -> Vec<String> {
    let map = Map::read(sources);
    let mut complaints = Vec::new();
    for (source, module, code) in product(sources) {
        for (line, name) in imports(source, &code) {
            let (Some(from), Some(to)) = (map.layer(module), map.layer(&name)) else { continue };
            if to > from {
                complaints.push(format!("{}:{line}: {module} must not know {name}, which stands above it", source.path));
            }
        }
    }
    complaints
}

#[test]
fn arrows_point_down() {
    hold(upward_imports);
}

fn acquainted_strangers(sources: &[Source]) -> Vec<String> {
    let strangers = Map::read(sources).strangers;
    let is_stranger = |name: &str| strangers.iter().any(|other| other == name);
    let mut complaints = Vec::new();
    for (source, module, code) in product(sources).filter(|(_, module, _)| is_stranger(module)) {
        for (line, name) in imports(source, &code) {
            if name != module && is_stranger(&name) {
                complaints.push(format!("{}:{line}: {module} and {name} are strangers", source.path));
            }
        }
    }
    complaints
}

#[test]
fn the_strangers_do_not_know_each_other() {
    hold(acquainted_strangers);
    assert!(Map::read(&project()).strangers.len() >= 3);
}

fn homeless_modules(sources: &[Source]) -> Vec<String> {
    let map = Map::read(sources);
    let homeless = product(sources).filter(|(_, module, _)| map.layer(module).is_none());
    homeless.map(|(source, module, _)| format!("{}: {module} has no layer on the map in src/lib.rs", source.path)).collect()
}

#[test]
fn every_module_has_a_layer() {
    hold(homeless_modules);
}

/// Complaints for each of `forbidden` in the code of the modules that `applies` picks.
fn forbid(sources: &[Source], forbidden: &[&str], applies: impl Fn(&str) -> bool, why: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (source, _, code) in product(sources).filter(|(_, module, _)| applies(module)) {
        for word in forbidden {
            complaints.extend(words(&code, word).map(|(line, _)| format!("{}:{line}: `{word}` {why}", source.path)));
        }
    }
    complaints
}

fn impure_core(sources: &[Source]) -> Vec<String> {
    const OUTSIDE: [&str; 18] = [
        "SystemTime",
        "Instant",
        "std::net",
        "std::fs",
        "std::io",
        "std::env",
        "std::thread",
        "std::process",
        "getrandom",
        "rand",
        "tokio",
        "actix_web",
        "awc",
        "redb",
        "async",
        "await",
        "println!",
        "tracing",
    ];
    let map = Map::read(sources);
    forbid(sources, &OUTSIDE, |module| map.is_pure(module), "has no place in the pure core: pass it in")
}

#[test]
fn the_pure_core_reads_no_clock_no_socket_no_file_and_no_randomness() {
    hold(impure_core);
}

/// So that a test that moves this clock moves every time the program reads.
fn other_wall_clocks(sources: &[Source]) -> Vec<String> {
    forbid(sources, &["SystemTime", "UNIX_EPOCH", "Utc::now"], |module| module != "cli", "is read in cli's machine_clock only")
}

#[test]
fn one_place_reads_the_machines_clock() {
    hold(other_wall_clocks);
}

fn floats(sources: &[Source]) -> Vec<String> {
    let money = |module: &str| !matches!(module, "http" | "cli" | "upstream");
    forbid(sources, &["f64", "f32"], money, "cannot hold money: use Micros")
}

#[test]
fn no_float_comes_near_money() {
    hold(floats);
}

fn shortcuts(sources: &[Source]) -> Vec<String> {
    const SHORTCUTS: [&str; 9] =
        [".unwrap()", ".unwrap_err()", "panic!", "todo!", "unimplemented!", "dbg!", "unsafe", "#[allow", "#![allow"];
    forbid(sources, &SHORTCUTS, |_| true, "is not for code that handles money")
}

#[test]
fn nothing_is_unsafe_unfinished_or_silenced() {
    hold(shortcuts);
}

fn funds_outside_the_ledger(sources: &[Source]) -> Vec<String> {
    implemented_outside_the_ledger(sources, "Funds for", "only the ledger's reservation stands for a call")
}

fn jobs_outside_the_ledger(sources: &[Source]) -> Vec<String> {
    implemented_outside_the_ledger(sources, "Bought for", "only the ledger's job says that a job was charged")
}

/// Traits that are proofs: one type of the ledger has each.
fn implemented_outside_the_ledger(sources: &[Source], proof: &str, rule: &str) -> Vec<String> {
    let mut places = Vec::new();
    for (source, module, code) in product(sources) {
        places.extend(words(&code, proof).map(|(line, _)| (module.to_owned(), format!("{}:{line}", source.path))));
    }
    match places.as_slice() {
        [(module, _)] if module == "ledger" => Vec::new(),
        [] => vec![format!("nothing implements `{proof}`: {rule}")],
        _ => places.into_iter().map(|(_, place)| format!("{place}: {rule}")).collect(),
    }
}

#[test]
fn only_the_ledgers_job_says_that_a_job_was_charged() {
    hold(jobs_outside_the_ledger);
}

#[test]
fn only_the_ledgers_reservation_stands_for_a_call() {
    hold(funds_outside_the_ledger);
}

fn named_statuses(sources: &[Source]) -> Vec<String> {
    // What other servers answered is read by number in chain and upstream; what we answer comes from the table in error.rs.
    let ours = |module: &str| !matches!(module, "error" | "chain" | "upstream");
    let mut complaints = Vec::new();
    for (source, _, code) in product(sources).filter(|(_, module, _)| ours(module)) {
        for (kind, fine) in [
            ("HttpResponse::", &["Ok", "NoContent", "NotModified", "build", "new", "with_body"][..]),
            ("StatusCode::", &["OK", "NO_CONTENT", "NOT_MODIFIED", "from_u16"][..]),
        ] {
            for (line, rest) in words(&code, kind) {
                let name = first_name(rest);
                if !fine.contains(&name.as_str()) {
                    complaints.push(format!("{}:{line}: {kind}{name}: statuses stand in the table of error.rs", source.path));
                }
            }
        }
    }
    complaints
}

#[test]
fn a_status_is_named_in_the_table_of_codes_and_nowhere_else() {
    hold(named_statuses);
}

fn long_files(sources: &[Source]) -> Vec<String> {
    let long = sources.iter().filter(|source| source.text.lines().count() > 600);
    long.map(|source| format!("{}: longer than 600 lines; split it by noun", source.path)).collect()
}

#[test]
fn files_stay_short() {
    hold(long_files);
}

fn silent_files(sources: &[Source]) -> Vec<String> {
    let opens = |source: &Source| source.text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 20);
    let silent = sources.iter().filter(|source| !opens(source));
    silent.map(|source| format!("{}: does not open with a //! sentence that says what it is for", source.path)).collect()
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    hold(silent_files);
}

/// Where the body of a function begins, after `fn `; `None` when it is only declared.
fn body(rest: &str) -> Option<usize> {
    let mut brackets = 0;
    for (at, c) in rest.char_indices() {
        match c {
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets -= 1,
            // The `;` of `[u8; 32]` is inside brackets.
            ';' if brackets == 0 => return None,
            '{' if brackets == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn long_functions(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let code = source::blanked(&source.text);
        for (line, rest) in words(&code, "fn ") {
            let Some(open) = body(rest) else { continue };
            let lines = block(&rest[open..]).map_or(0, |length| 1 + rest[..open + length].matches('\n').count());
            if lines > 70 {
                complaints.push(format!("{}:{line}: fn {} has {lines} lines", source.path, first_name(rest)));
            }
        }
    }
    complaints
}

#[test]
fn functions_fit_on_a_screen() {
    hold(long_functions);
}

#[test]
fn every_dependency_says_what_it_is_for() {
    for manifest in [
        include_str!("../Cargo.toml"),
        include_str!("support/Cargo.toml"),
        include_str!("../bench/Cargo.toml"),
        include_str!("../fuzz/Cargo.toml"),
    ] {
        assert_eq!(dependencies::unexplained(manifest), Vec::<String>::new());
    }
    assert_eq!(dependencies::unexplained("[dependencies]\n\nserde = \"1\"\n").len(), 1);
    assert_eq!(
        dependencies::unexplained("[dependencies]\n# Logs.\ntracing = \"1\"\ntracing-log = \"1\"\nclap = \"4\"\n").len(),
        1
    );
}

#[test]
fn a_release_cannot_be_made_to_die() {
    for manifest in [include_str!("../Cargo.toml"), include_str!("support/Cargo.toml"), include_str!("../bench/Cargo.toml")] {
        assert_eq!(release::turned_on(manifest), Vec::<String>::new());
    }
    hold(release::unguarded);
    assert_eq!(release::turned_on("[features]\ndefault = [\"fault-points\"]\nfault-points = []\n").len(), 2);
    assert_eq!(release::turned_on("[dependencies]\nfarebox = { path = \".\", features = [\"fault-points\"] }\n").len(), 1);
    for (path, text) in [
        ("src/main.rs", "fn main() {\n    farebox::fault::arm(\"claim.after\");\n}"),
        ("src/http/mod.rs", "#[cfg(feature = \"fault-points\")]\nfn f() {}"),
        ("src/fault.rs", "pub fn point(name: &'static str) { die(name) }"),
    ] {
        assert_eq!(release::unguarded(&[Source::new(path, text)]).len(), 1, "{path} slipped through");
    }
}

#[test]
fn dependencies_come_from_crates_io_and_bring_no_second_tls_or_http_stack() {
    assert_eq!(dependencies::locked(include_str!("../Cargo.lock")), Vec::<String>::new());
    let strange = "[[package]]\nname = \"hyper\"\nversion = \"1.0.0\"\nsource = \"git+https://example.com/x\"\n";
    assert_eq!(dependencies::locked(strange).len(), 1);
    let built = dependencies::built();
    assert!(built.lines().count() > 100 && built.contains("\nring v"), "the whole graph was read");
    assert_eq!(dependencies::banned(&built), Vec::<String>::new());
    assert_eq!(dependencies::banned("ring v0.17.14\nhyper v1.12.0 (*)\n").len(), 1);
}

#[test]
fn every_licence_lets_us_ship() {
    assert_eq!(dependencies::licences(), Vec::<String>::new());
    assert!(dependencies::allowed("(MIT OR GPL-3.0) AND Unicode-3.0"));
    assert!(!dependencies::allowed("GPL-3.0-or-later"));
    assert!(!dependencies::allowed("MIT AND GPL-3.0"));
    assert!(!dependencies::allowed(""));
}

#[test]
fn each_rule_catches_what_it_is_for() {
    let map =
        "//! ```text\n//! money     counted\n//! config    typed\n//! ledger chain   strangers\n//! http     edge\n//! ```\n";
    let long_body = "x();\n".repeat(80);
    let cases: [(Rule, &str, &str); 25] = [
        (upward_imports, "src/money.rs", "use crate::config::Config;"),
        (upward_imports, "src/chain/evm/abi.rs", "use crate::{money::{Micros}, http};"),
        (upward_imports, "src/chain/evm.rs", "fn f() { super::super::http::go() }"),
        (acquainted_strangers, "src/chain/evm.rs", "use crate::ledger::Ledger;"),
        (homeless_modules, "src/utils.rs", ""),
        (impure_core, "src/money.rs", "fn f() { std::time::SystemTime::now(); }"),
        (impure_core, "src/money.rs", "async fn f() {}"),
        (other_wall_clocks, "src/gateway/trust.rs", "fn f() { std::time::SystemTime::now(); }"),
        (floats, "src/ledger/mod.rs", "struct Balance(f64);"),
        (shortcuts, "src/http/mod.rs", "fn f() { x.unwrap(); }"),
        (shortcuts, "src/http/mod.rs", "fn f<'a>(x: &'a str) { let c = '\"'; panic!(\"no\"); }"),
        (shortcuts, "src/http/mod.rs", "#[allow(dead_code)] fn f() {}"),
        (shortcuts, "src/http/mod.rs", "#[cfg(test)] mod tests { fn f() {} } fn g() { todo!() }"),
        (funds_outside_the_ledger, "src/money.rs", ""),
        (jobs_outside_the_ledger, "src/upstream/mod.rs", "impl Bought for Anything {}"),
        (funds_outside_the_ledger, "src/chain/evm.rs", "impl Funds for Anything {}"),
        (funds_outside_the_ledger, "src/ledger/mod.rs", "impl Funds for A {} impl<'a> Funds for B<'a> {}"),
        (named_statuses, "src/http/mod.rs", "fn f() { HttpResponse::BadRequest() }"),
        (named_statuses, "src/http/mod.rs", "const X: StatusCode = StatusCode::PAYMENT_REQUIRED;"),
        (long_files, "src/money.rs", &"\n".repeat(601)),
        (silent_files, "tests/a.rs", "use std::fmt;"),
        (silent_files, "tests/a.rs", "//! Money."),
        (long_functions, "tests/a.rs", &format!("fn f<T>() -> Vec<T> {{\n{long_body}}}")),
        (long_functions, "src/money.rs", &format!("fn f(x: [u8; 3]) {{\n{long_body}}}")),
        (long_functions, "src/money.rs", &format!("trait T {{ fn short(); }} fn f() {{\n{long_body}}}")),
    ];
    for (number, (rule, path, text)) in cases.into_iter().enumerate() {
        let sources = [Source::new("src/lib.rs", map), Source::new(path, text)];
        let found = rule(&sources).iter().any(|complaint| complaint.contains(path) || complaint.contains("nothing implements"));
        assert!(found, "case {number} slipped through: {path}: {text:.60}");
    }
}

#[test]
fn no_rule_complains_about_tests_comments_and_strings() {
    let map =
        "//! ```text\n//! money     counted\n//! config    typed\n//! ledger chain   strangers\n//! http     edge\n//! ```\n";
    let innocent = r##"//! What is said here about f64 and crate::config is only said.
use crate::chain::Word;
/* panic!("nested") */
fn f<'a>(x: &'a str) -> &'a str { let _ = ("todo!()", r#"x.unwrap() "quoted" "#, 'u', '\'', b"unsafe"); x.unwrap_or_default() }
#[cfg(test)]
mod tests { use crate::http; fn f() { x.unwrap(); panic!("{}", 1f64); } }
"##;
    let sources = [Source::new("src/lib.rs", map), Source::new("src/chain/evm.rs", innocent)];
    let rules: [Rule; 8] =
        [upward_imports, acquainted_strangers, homeless_modules, impure_core, floats, shortcuts, named_statuses, silent_files];
    for rule in rules {
        let complaints: Vec<_> = rule(&sources).into_iter().filter(|complaint| complaint.contains("evm.rs")).collect();
        assert_eq!(complaints, Vec::<String>::new());
    }
}
