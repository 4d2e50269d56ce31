//! Where in config.toml a key stands, so that a refusal can name its line.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::x402::names;

/// The line of a key, such as `limits.streams` or `network "base", pay_to`, or of the section that it should stand in; the first
/// line is 1. `None` for a text that is no TOML, and for a key of which nothing stands there.
pub fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let root = document.get_ref();
    let at = match key.split_once(' ') {
        Some((section, rest)) => {
            let (name, field) = rest.rsplit_once(", ")?;
            let (_, value) = entry(root, section)?;
            let DeValue::Array(rows) = value.get_ref() else { return None };
            let mut numbered = rows.iter().enumerate();
            let (_, row) = numbered.find(|(place, row)| is_named(row.get_ref(), place + 1, name))?;
            follow(row.get_ref(), field, row.span().start)
        }
        None => {
            let (first, rest) = key.split_once('.').unwrap_or((key, ""));
            let (name, value) = entry(root, first)?;
            follow(value.get_ref(), rest, name.span().start)
        }
    };
    Some(text.get(..at)?.matches('\n').count() + 1)
}

type Entry<'a, 'i> = (&'a Spanned<Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

fn entry<'a, 'i>(table: &'a DeTable<'i>, name: &str) -> Option<Entry<'a, 'i>> {
    table.iter().find(|(key, _)| key.get_ref() == name)
}

/// Whether a row of an array is the one that an error means: by its number, or by its `id` or `name` as it is quoted. A network
/// may be named by its short name in the one and by CAIP-2 in the other.
fn is_named(row: &DeValue<'_>, number: usize, wanted: &str) -> bool {
    let DeValue::Table(row) = row else { return false };
    let own = ["id", "name"].into_iter().find_map(|field| entry(row, field)?.1.get_ref().as_str());
    let quoted = |name: &str| format!("{name:?}") == wanted;
    number.to_string() == wanted || own.is_some_and(|own| quoted(own) || names::caip2(own).is_some_and(quoted))
}

/// Goes on along `path` as far as it stands there; where several rows have it, in the first.
fn follow(value: &DeValue<'_>, path: &str, at: usize) -> usize {
    let value = match value {
        DeValue::Array(rows) => match rows.iter().next() {
            Some(row) => row.get_ref(),
            None => return at,
        },
        value => value,
    };
    let DeValue::Table(table) = value else { return at };
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    match entry(table, first) {
        Some((name, value)) => follow(value.get_ref(), rest, name.span().start),
        None => at,
    }
}

#[cfg(test)]
mod tests {
    use super::line_of;

    #[test]
    fn a_key_is_found_where_it_stands_and_one_that_is_missing_at_its_section() {
        let text = "[server]\nbind = \"x\"\n\n[[network]]\nid = \"base\"\npay_to = \"0x\"\n[[network]]\nid = \"polygon\"\n\
                    pay_to = \"0y\"\n[[model]]\nid = \"a.b, c\"\nprice = { input = \"1\",\n  long = { above = 1 } }\n[limits]\n\
                    streams = 1\n[[webhook]]\nurl = \"u\"\n[[webhook]]\nurl = \"v\"\n";
        for (key, line) in [
            ("server.bind", Some(2)),
            ("server.public_url", Some(1)),
            ("limits.streams", Some(15)),
            ("limits", Some(14)),
            ("network \"polygon\", pay_to", Some(9)),
            ("network \"eip155:137\", pay_to", Some(9)),
            ("network \"polygon\", rpc_urls", Some(7)),
            ("network.id", Some(5)),
            ("model \"a.b, c\", price.input", Some(12)),
            ("model \"a.b, c\", price.long.above", Some(13)),
            ("webhook 2, url", Some(19)),
            ("webhook 3, url", None),
            ("failover.pause_ms", None),
        ] {
            assert_eq!(line_of(text, key), line, "{key}");
        }
        assert_eq!(line_of("[server", "server.bind"), None);
    }
}
