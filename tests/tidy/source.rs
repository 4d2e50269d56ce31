//! The project's own source as the rules read it: comments and literals blanked, test code cut out, modules named.

use std::fs;
use std::path::Path;

/// One Rust file.
#[derive(Clone, Debug)]
pub struct Source {
    /// From the project's folder, with `/`.
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    /// The top module it belongs to: `chain` for `src/chain/evm/abi.rs` and `src/chain.rs`; `None` outside `src`.
    pub fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"))
    }

    /// How many `super::` lead from this file to the crate's root.
    pub fn depth(&self) -> usize {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let inside = inside.strip_suffix("/mod.rs").unwrap_or(inside);
        inside.split('/').count()
    }

    /// The code without comments, literals and test code; every line stays where it was.
    pub fn code(&self) -> String {
        if self.path.ends_with("/tests.rs") || (self.path.starts_with("src/") && self.path.contains("/tests/")) {
            return String::new();
        }
        without_tests(&blanked(&self.text))
    }
}

/// All Rust files of the project, in order.
pub fn project() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in ["src", "tests", "bench", "examples", "fuzz/src", "fuzz/tests", "fuzz/libfuzzer/src"] {
        collect(Path::new(env!("CARGO_MANIFEST_DIR")), &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut sources);
    }
    assert!(sources.len() > 10, "the project's files were found");
    sources
}

fn collect(root: &Path, folder: &Path, into: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "node_modules" && !name.starts_with('.') {
            collect(root, &path, into);
        } else if name.ends_with(".rs") {
            let relative = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            into.push(Source { path: relative, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

/// The text with comments, strings and characters blanked; what they contain is not code.
pub fn blanked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(next) = rest.chars().next() {
        let length = literal(rest, before).unwrap_or(0);
        if length == 0 {
            out.push(next);
            before = next;
            rest = &rest[next.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            before = ' ';
            rest = &rest[length..];
        }
    }
    out
}

/// The length of the comment or literal that `text` starts with, if it does.
fn literal(text: &str, before: char) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |end| end + 2));
    }
    if text.starts_with('"') {
        return Some(quoted(text, '"'));
    }
    let raw = text.trim_start_matches('b').strip_prefix('r').filter(|_| !before.is_alphanumeric() && before != '_');
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = text.len() - raw.len() + hashes + 1;
            return Some(text[start..].find(&close).map_or(text.len(), |end| start + end + close.len()));
        }
    }
    // 'a' and '\n' are characters, 'a in a type is a lifetime.
    let mut chars = text.strip_prefix('\'')?.chars();
    match (chars.next()?, chars.next()?) {
        ('\\', _) => Some(quoted(text, '\'')),
        (_, '\'') => Some(quoted(text, '\'')),
        _ => None,
    }
}

fn quoted(text: &str, close: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == close => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Blanks every item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        let item = &rest[start..];
        let length = match (item.find(';'), item.find('{')) {
            (Some(semicolon), Some(brace)) if semicolon < brace => semicolon + 1,
            (_, Some(brace)) => brace + block(&item[brace..]).unwrap_or(item.len() - brace),
            _ => item.len(),
        };
        out.push_str(&rest[..start]);
        out.extend(item[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &item[length..];
    }
    out.push_str(rest);
    out
}

/// The length of the `{…}` that `code` starts with.
pub fn block(code: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// Where `word` stands in `code` as a whole word: its line number, counted from 1, and what follows it.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).filter_map(move |(at, _)| {
        let after = &code[at + word.len()..];
        let joined_before = word.starts_with(part) && code[..at].ends_with(part);
        let joined_after = word.ends_with(part) && after.starts_with(part);
        (!joined_before && !joined_after).then(|| (1 + code[..at].matches('\n').count(), after))
    })
}
