//! What is different between two configurations: what a running gateway takes over, and what waits for its next start.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use toml::{Table, Value};

use super::file::File;
use super::{Config, Upstream, UpstreamKind};

/// What another start is needed for: where a gateway listens, what its offers say, whose money it is, how a sale is made. An
/// offer that is out would not be honoured otherwise.
const FIXED: [&str; 5] = ["network", "payments", "server.bind", "server.data_dir", "server.public_url"];
/// What may be shown. Elsewhere there may be keys of node providers in addresses.
const SHOWN: [&str; 4] = ["failover", "limits", "model", "prepaid"];

/// A configuration as it was typed, what was left out filled in.
#[derive(Clone)]
pub(super) struct Written(Table);

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written")
    }
}

impl Written {
    pub fn new(file: &File) -> Written {
        Written(Table::try_from(file).expect("what was read from TOML can be written as TOML"))
    }
}

/// What is different, each as `limits.streams: 4096 -> 100`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// What counts from now on.
    pub changed: Vec<String>,
    /// What was typed and counts after the next start only.
    pub after_a_restart: Vec<String>,
}

impl Changes {
    pub(super) fn between(running: &Config, next: &Config) -> Changes {
        let mut changes = Changes::default();
        compare("", &running.written.0, &next.written.0, &mut |path, said| {
            // A listener speaks TLS or does not; with which certificate can change.
            let is_fixed = path == "server.tls" || FIXED.iter().any(|fixed| is_within(path, fixed));
            let list = if is_fixed { &mut changes.after_a_restart } else { &mut changes.changed };
            list.push(said);
        });
        for upstream in &next.upstreams {
            let before = running.upstreams.iter().find(|before| before.name == upstream.name);
            if before.is_some_and(|before| key(before).zip(key(upstream)).is_some_and(|(before, now)| before != now)) {
                changes.changed.push(format!("upstream {:?}, api_key: another key", upstream.name));
            }
        }
        changes
    }

    /// Whether nothing is different that would count.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.after_a_restart.is_empty()
    }
}

fn key(upstream: &Upstream) -> Option<&super::Secret> {
    match &upstream.kind {
        UpstreamKind::Http { api_key, .. } => api_key.as_ref(),
        UpstreamKind::Echo => None,
    }
}

/// Whether a path is `place`, or under it.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ' ']))
}

/// Tells of every value that differs, by its path.
fn compare(place: &str, before: &Table, now: &Table, tell: &mut impl FnMut(&str, String)) {
    for name in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        let path = match (place.is_empty(), place.ends_with('"')) {
            (true, _) => name.clone(),
            (false, true) => format!("{place}, {name}"),
            (false, false) => format!("{place}.{name}"),
        };
        match (before.get(name), now.get(name)) {
            (Some(Value::Table(before)), Some(Value::Table(now))) => compare(&path, before, now, tell),
            (before, now) if before == now => {}
            (before, now) if is_list_of_named(before) || is_list_of_named(now) => {
                compare_named(&path, list(before), list(now), tell);
            }
            (before, now) => {
                let shown = SHOWN.iter().any(|shown| is_within(&path, shown));
                let show = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
                let said = if shown { format!("{path}: {} -> {}", show(before), show(now)) } else { path.clone() };
                tell(&path, said);
            }
        }
    }
}

/// Rows such as `[[model]]`, found again by their name.
fn compare_named(place: &str, before: &[Value], now: &[Value], tell: &mut impl FnMut(&str, String)) {
    let named =
        |rows: &[Value], name: &str| rows.iter().find(|row| name_of(row) == Some(name)).and_then(Value::as_table).cloned();
    for name in before.iter().chain(now).filter_map(name_of).collect::<BTreeSet<_>>() {
        let path = format!("{place} {name:?}");
        match (named(before, name), named(now, name)) {
            (Some(before), Some(now)) => compare(&path, &before, &now, tell),
            (None, _) => tell(&path, format!("{path}: new")),
            (_, None) => tell(&path, format!("{path}: gone")),
        }
    }
}

/// The tables that have rows with a name. What stands in them is compared value by value.
fn is_list_of_named(value: Option<&Value>) -> bool {
    list(value).iter().any(|row| name_of(row).is_some() && row.get("model").is_none())
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn name_of(row: &Value) -> Option<&str> {
    row.get("id").or_else(|| row.get("name")).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = r#"
        [server]
        bind = "127.0.0.1:0"
        [[network]]
        id = "base-sepolia"
        pay_to = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
        settlement = "simulated"
        [[upstream]]
        name = "u"
        base_url = "http://127.0.0.1:1"
        api_key = "env:KEY"
        speaks = ["chat"]
        [[model]]
        id = "m"
        upstreams = [{ name = "u", model = "n" }]
        price = { input = "3.00", output = "15.00" }
    "#;

    /// Changes `TEXT`, and the secret, under a gateway that runs.
    fn changed(key: &str, change: impl Fn(&str) -> String) -> Result<(Config, Changes), super::super::ConfigError> {
        let env = |value: &str| {
            let value = value.to_owned();
            move |name: &str| (name == "KEY").then(|| value.clone())
        };
        let running = Config::parse(TEXT, Path::new("."), &env("before")).unwrap();
        let running = running.bound_to("127.0.0.1:4020".parse().unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), change(TEXT)).unwrap();
        running.again(file.path(), &env(key))
    }

    #[test]
    fn what_is_typed_otherwise_and_means_the_same_is_no_change() {
        let (_, changes) = changed("before", |text| {
            let text = text.replace("[[network]]", "[[network]]\nconfirmations = 0\n");
            format!("{text}\n[limits]\nstreams = 4096\n")
        })
        .unwrap();
        assert!(changes.is_empty(), "{changes:?}");
    }

    #[test]
    fn a_price_a_limit_a_model_and_a_key_count_and_are_named() {
        let more = "[[model]]\nid = \"o\"\nupstreams = [{ name = \"u\", model = \"o\" }]\nprice = { call = \"0.01\" }\n";
        let (next, changes) = changed("after", |text| {
            format!("{}{more}[limits]\nstreams = 5\n", text.replace("\"3.00\"", "\"4.00\"").replace("\"n\"", "\"k\""))
        })
        .unwrap();
        let model = r#"model "m", upstreams: [{ model = "n", name = "u" }] -> [{ model = "k", name = "u" }]"#;
        assert_eq!(
            changes.changed,
            [
                "limits.streams: 4096 -> 5",
                r#"model "m", price.input: "3.00" -> "4.00""#,
                model,
                r#"model "o": new"#,
                r#"upstream "u", api_key: another key"#
            ]
        );
        assert!(changes.after_a_restart.is_empty() && next.limits.streams == 5 && next.catalogue.models().len() == 2);
    }

    #[test]
    fn what_cannot_change_is_named_and_stays() {
        let (next, changes) = changed("before", |text| {
            let text = text
                .replace("127.0.0.1:0", "127.0.0.1:9")
                .replace("0x2096", "0x0000")
                .replace("[server]", "[server]\ndata_dir = \"d\"");
            format!("{text}\n[payments]\npayg_remainder = \"keep\"\n")
        })
        .unwrap_or_else(|error| panic!("{error}"));
        let kept = ["network \"eip155:84532\"", "payments.payg_remainder", "server.bind", "server.data_dir"];
        assert!(changes.changed.is_empty(), "{changes:?}");
        assert_eq!(changes.after_a_restart.len(), kept.len(), "{changes:?}");
        assert_eq!((next.bind.port(), next.public_url.as_str()), (4020, "http://127.0.0.1:4020"));
        assert!(next.networks[0].pay_to.starts_with("0x2096") && next.payments.remainder == super::super::Remainder::Credit);
    }

    #[test]
    fn nothing_of_addresses_is_repeated() {
        let (_, changes) = changed("before", |text| text.replace("127.0.0.1:1", "127.0.0.1:1/secret")).unwrap();
        assert_eq!(changes.changed, [r#"upstream "u", base_url"#]);
    }

    #[test]
    fn a_price_that_only_a_kept_remainder_would_allow_is_refused_while_it_is_credited() {
        let refused = changed("before", |text| {
            let text = text.replace("price = { input = \"3.00\", output = \"15.00\" }", "ceiling = \"0.25\"\nprice = {}");
            format!("{text}\n[payments]\npayg_remainder = \"keep\"\n")
        });
        assert!(refused.is_err_and(|error| error.key.contains("price")));
    }
}
