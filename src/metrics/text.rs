//! The text format of Prometheus, version 0.0.4: numbers are exact decimals, and no label breaks out of its quotes.

use std::fmt::{self, Write as _};

/// The text that is being written.
#[derive(Default)]
pub struct Page(String);

/// A number, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Whole(i128),
    /// Micros, written as USD.
    Usdc(i128),
    /// Millionths, such as microseconds written as seconds.
    Millionths(i128),
    /// So many of the smallest unit of a coin, of which one coin has ten to this power.
    Coins(u128, u32),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::Whole(number) => write!(f, "{number}"),
            Value::Usdc(micros) | Value::Millionths(micros) => {
                f.write_str(if micros < 0 { "-" } else { "" })?;
                decimal(f, micros.unsigned_abs(), 6)
            }
            Value::Coins(units, digits) => decimal(f, units, digits),
        }
    }
}

/// A number with so many digits behind its point, without zeros at its end.
fn decimal(f: &mut fmt::Formatter<'_>, units: u128, digits: u32) -> fmt::Result {
    let one = 10u128.saturating_pow(digits);
    write!(f, "{}", units / one)?;
    let rest = format!("{:0width$}", units % one, width = digits as usize);
    match rest.trim_end_matches('0') {
        "" => Ok(()),
        rest => write!(f, ".{rest}"),
    }
}

impl Page {
    /// Says what the samples are that follow.
    pub fn begin(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: Value) {
        self.begin(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// The same for each of several things.
    pub fn gauges<'a>(&mut self, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = (&'a str, Value)>) {
        self.begin(name, "gauge", help);
        for (what, value) in values {
            self.sample(name, &[(label, what)], value);
        }
    }

    /// One line.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: Value) {
        self.0.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            self.0.push(if place == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{end} {value}");
    }

    /// What was written.
    pub fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn numbers_are_exact() {
        for (value, text) in [
            (Value::Whole(0), "0"),
            (Value::Usdc(-1), "-0.000001"),
            (Value::Usdc(1_000_000), "1"),
            (Value::Usdc(-12_500_000), "-12.5"),
            (Value::Millionths(500), "0.0005"),
            (Value::Coins(1, 18), "0.000000000000000001"),
            (Value::Coins(25_000_000_000_000_000_000, 18), "25"),
            (Value::Coins(5000, 9), "0.000005"),
        ] {
            assert_eq!(value.to_string(), text);
        }
    }
}
