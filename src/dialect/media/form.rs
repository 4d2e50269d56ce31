//! A form with files (RFC 7578), read where it lies.

use memchr::memmem;

use crate::error::{Code, Error};

/// Parts of one form; no client sends half as many.
const MAX_PARTS: usize = 64;
/// The longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;
/// The head of one part.
const MAX_HEAD: usize = 4096;
/// Characters of a file's name.
const MAX_FILE_NAME: usize = 200;
/// Boundaries of our own that are tried.
const MAX_BOUNDARIES: usize = 8;

/// One field of a form.
///
/// What is read of its head is all that is forwarded of it: nobody after us may read it differently.
pub(super) struct Part<'a> {
    pub name: &'a str,
    /// Of a file.
    pub file_name: Option<&'a str>,
    pub content_type: Option<&'a str>,
    pub value: &'a [u8],
}

impl<'a> Part<'a> {
    /// The value of a field that is no file.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.value).map_err(|_| wrong(format!("the field {:?} of the form is not UTF-8", self.name)))
    }

    /// Its head, written anew.
    pub fn head(&self) -> String {
        let mut head = format!("Content-Disposition: form-data; name=\"{}\"", self.name);
        if let Some(name) = self.file_name {
            // A name, and no path to anywhere.
            let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
            let plain: String = name.chars().filter(|c| !c.is_control() && *c != '"').take(MAX_FILE_NAME).collect();
            // Upstreams go by what follows its last dot.
            head.push_str(&format!("; filename=\"{}\"", if plain.is_empty() { "file" } else { &plain }));
        }
        // Of a text it could only say that it is not the UTF-8 as which it was read.
        if let Some(content_type) = self.content_type.filter(|_| self.file_name.is_some()) {
            head.push_str(&format!("\r\nContent-Type: {content_type}"));
        }
        head
    }
}

/// A boundary that is in none of the parts.
///
/// # Errors
/// Somebody took pains that there is none.
pub(super) fn fresh_boundary(parts: &[Part<'_>]) -> Result<String, Error> {
    let boundary = |number: usize| format!("farebox-part-of-a-form-{number}");
    let is_free = |boundary: &String| {
        let finder = memmem::Finder::new(boundary.as_bytes());
        parts.iter().all(|part| finder.find(part.value).is_none())
    };
    let found = (0..MAX_BOUNDARIES).map(boundary).find(is_free);
    found.ok_or_else(|| wrong("a file of the form has the boundaries of forms in it".into()))
}

/// Whether a `Content-Type` is a form's.
pub(super) fn is_form(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("multipart/form-data"))
}

/// The boundary that a `Content-Type` names, if it is a form's.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let (_, parameters) = content_type.split_once(';').filter(|_| is_form(content_type))?;
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    })?;
    let plain = value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    (plain && !value.is_empty() && value.len() <= MAX_BOUNDARY).then_some(value)
}

/// The parts of a form.
///
/// # Errors
/// [`Code::InvalidRequest`]: it is not well formed, was cut, or has too many parts.
pub(super) fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, Error> {
    let delimiter = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    // The first delimiter has no line before it, unless there is a preamble.
    let mut rest = match body.strip_prefix(&delimiter.as_bytes()[2..]) {
        Some(rest) => rest,
        None => after(body, &finder, delimiter.len())?,
    };
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        // White space may stand behind a delimiter.
        let line = memmem::find(rest, b"\r\n").ok_or_else(cut)?;
        if !rest[..line].trim_ascii().is_empty() {
            return Err(wrong("what follows a boundary of the form is not a new line".into()));
        }
        let start = line + 2;
        let end = finder.find(&rest[line..]).ok_or_else(cut)? + line;
        if parts.len() == MAX_PARTS {
            return Err(wrong(format!("the form has more than {MAX_PARTS} parts")));
        }
        parts.push(part(rest.get(start..end).unwrap_or_default())?);
        rest = &rest[end + delimiter.len()..];
    }
}

fn after<'a>(body: &'a [u8], finder: &memmem::Finder<'_>, length: usize) -> Result<&'a [u8], Error> {
    let at = finder.find(body).ok_or_else(cut)?;
    Ok(&body[at + length..])
}

fn part(bytes: &[u8]) -> Result<Part<'_>, Error> {
    let at = memmem::find(&bytes[..bytes.len().min(MAX_HEAD)], b"\r\n\r\n");
    let at = at.ok_or_else(|| wrong("a part of the form has no head, or one that does not end".into()))?;
    let head = std::str::from_utf8(&bytes[..at]).map_err(|_| wrong("the head of a part of the form is not UTF-8".into()))?;
    let line = |wanted: &str| {
        head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case(wanted).then_some(value)
        })
    };
    let disposition = line("content-disposition").ok_or_else(|| wrong("a part of the form has no Content-Disposition".into()))?;
    let name = parameter(disposition, "name").ok_or_else(|| wrong("a part of the form has no name".into()))?;
    let extended = || parameter(disposition, "filename*").and_then(|name| name.rsplit('\'').next());
    let file_name = parameter(disposition, "filename").or_else(extended);
    let is_plain = |kind: &&str| kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/+-.;= ".contains(&byte));
    let content_type = line("content-type").map(str::trim).filter(is_plain);
    Ok(Part { name, file_name, content_type, value: &bytes[at + 4..] })
}

/// A parameter of a header, as far as names of fields go: quoted without escapes, or bare.
fn parameter<'a>(header: &'a str, wanted: &str) -> Option<&'a str> {
    let mut rest = header.split_once(';')?.1;
    loop {
        let (name, value) = rest.split_once('=')?;
        let value = value.trim_start();
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_once(';').map_or((value.trim_end(), ""), |(value, behind)| (value.trim_end(), behind)),
        };
        if name.trim_matches([' ', ';', '\t']).eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = behind;
    }
}

fn wrong(what: String) -> Error {
    Error::new(Code::InvalidRequest, format!("{what}; send multipart/form-data as RFC 7578 has it, as the SDKs do"))
}

fn cut() -> Error {
    wrong("the form ends before its last boundary".into())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const FORM: &str = "--xx\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--xx\r\n\
        content-disposition: form-data; name=\"file\"; filename=\"a;b.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n--x\r\n\r\n--xx--\r\n";

    #[test]
    fn a_form_is_read_where_it_lies() {
        let parts = parts(FORM.as_bytes(), "xx").unwrap();
        let seen: Vec<_> = parts.iter().map(|part| (part.name, part.file_name, part.value)).collect();
        assert_eq!(seen, [("model", None, &b"whisper-1"[..]), ("file", Some("a;b.wav"), &b"RIFF\r\n--x\r\n"[..])]);
    }

    #[test]
    fn what_others_might_read_differently_is_not_forwarded() {
        let form = "--xx\r\nContent-Disposition: form-data; name=\"user\"; name=\"n\"; filename=\"..\\a/../b\"\r\n\
            Content-Disposition: form-data; name=\"n\"\r\nContent-Type: text/plain\"\r\nX-Other: n\r\n\r\n--yy\r\n--xx--";
        let parts = parts(form.as_bytes(), "xx").unwrap();
        assert_eq!(parts[0].head(), "Content-Disposition: form-data; name=\"user\"; filename=\"b\"");
    }

    #[test]
    fn a_text_has_no_type_of_its_own() {
        let form =
            "--xx\r\nContent-Disposition: form-data; name=\"n\"\r\nContent-Type: text/plain; charset=utf-16\r\n\r\n1\r\n--xx--";
        let head = parts(form.as_bytes(), "xx").unwrap()[0].head();
        assert_eq!(head, "Content-Disposition: form-data; name=\"n\"");
    }

    #[test]
    fn a_boundary_of_our_own_is_in_no_part() {
        let part = |value| Part { name: "file", file_name: Some("f"), content_type: None, value };
        let (first, second) = (fresh_boundary(&[part(b"x")]).unwrap(), "farebox-part-of-a-form-1");
        assert_ne!(first, second);
        assert_eq!(fresh_boundary(&[part(b"x"), part(first.as_bytes())]).unwrap(), second);
        let all: String = (0..MAX_BOUNDARIES).map(|number| format!("farebox-part-of-a-form-{number}\n")).collect();
        assert!(fresh_boundary(&[part(all.as_bytes())]).is_err());
    }

    #[test]
    fn a_form_that_is_cut_anywhere_is_refused() {
        let whole = FORM.trim_end().len();
        for end in 0..whole {
            assert!(super::parts(&FORM.as_bytes()[..end], "xx").is_err(), "{end}");
        }
        assert!(super::parts(FORM.as_bytes(), "y").is_err());
    }

    #[test]
    fn a_boundary_is_read_as_clients_write_it() {
        assert_eq!(boundary("multipart/form-data; boundary=abc"), Some("abc"));
        assert_eq!(boundary("Multipart/Form-Data; charset=utf-8; boundary=\"a b\""), Some("a b"));
        for none in ["multipart/form-data", "application/json; boundary=a", "multipart/form-data; boundary="] {
            assert_eq!(boundary(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_pieces_of_a_form_are_read_or_refused_and_what_is_read_is_read_again_from_what_is_written(
            written in vec((vec(select(&PIECES[..]), 0..3), vec(select(&PIECES[..]), 0..6)), 0..4),
        ) {
            let disposition = "Content-Disposition: form-data; name=\"n\"";
            let part = |(head, value): &(Vec<&str>, Vec<&str>)| {
                format!("--xx\r\n{disposition}{}\r\n\r\n{}\r\n", head.concat(), value.concat())
            };
            let body = written.iter().map(part).collect::<String>() + "--xx--";
            let Ok(read) = parts(body.as_bytes(), "xx") else { return Ok(()) };
            let boundary = fresh_boundary(&read).unwrap();
            let write = |part: &Part<'_>| format!("--{boundary}\r\n{}\r\n\r\n{}\r\n", part.head(), part.text().unwrap());
            let written = read.iter().map(write).collect::<String>() + &format!("--{boundary}--\r\n");
            let again = parts(written.as_bytes(), &boundary).unwrap();
            let seen = |parts: &[Part<'_>]| -> Vec<_> {
                let each = parts.iter().map(|part| (part.name.to_owned(), part.file_name.is_some(), part.value.to_vec()));
                each.collect()
            };
            prop_assert_eq!(seen(&again), seen(&read));
        }
    }

    /// What forms are made of, whole and broken.
    const PIECES: [&str; 14] = [
        "\r\n",
        "\r\n\r\n",
        "\n",
        "--xx",
        "\r\n--xx\r\n",
        "\r\n--xx--",
        "--",
        "Content-Disposition: form-data; name=\"n\"",
        "Content-Disposition: form-data; name=file; filename=\"a\\b\"",
        "; filename*=UTF-8''x",
        "Content-Type: text/plain",
        ":",
        "\"",
        "value",
    ];
}
