//! The table of figures: what was measured, what it should be, and whether it is.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Shown beside others; nothing is asked of it.
    Shown,
}

/// One line of the report.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: String,
    /// `None`: could not be measured here; `note` says why.
    pub value: Option<f64>,
    pub unit: &'static str,
    pub target: Target,
    /// Exactly what is in it.
    pub note: String,
}

/// All figures of one run, and everything that was wrong.
#[derive(Default)]
pub struct Report {
    figures: Vec<Figure>,
    wrong: Vec<String>,
    /// Targets are left out: what follows was measured in too little time to be judged.
    is_quick: bool,
}

impl Figure {
    /// A miss is a finding, not an error.
    pub fn verdict(&self) -> &'static str {
        match (self.value, self.target) {
            (None, _) => "not measured",
            (Some(_), Target::Shown) => "",
            (Some(value), Target::AtMost(limit)) if value <= limit => "met",
            (Some(value), Target::AtLeast(limit)) if value >= limit => "met",
            (Some(_), Target::AtMost(_) | Target::AtLeast(_)) => "MISSED",
        }
    }
}

impl Report {
    /// From now on no target is held against a figure.
    pub fn stop_judging(&mut self) {
        self.is_quick = true;
    }

    pub fn add(&mut self, name: &str, value: Option<f64>, unit: &'static str, target: Target, note: &str) {
        let target = if self.is_quick { Target::Shown } else { target };
        let figure = Figure { name: name.to_owned(), value, unit, target, note: note.to_owned() };
        eprintln!("  {}", line(&figure));
        self.figures.push(figure);
    }

    /// Something that must never happen did: the run fails.
    pub fn wrong(&mut self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("  WRONG: {what}");
        self.wrong.push(what);
    }

    /// Notes what went wrong in a step, if anything did.
    pub fn check<T>(&mut self, step: &str, outcome: Result<T, String>) -> Option<T> {
        outcome.map_err(|why| self.wrong(format!("{step}: {why}"))).ok()
    }

    /// Prints the table, writes it to `folder`, and says whether everything was correct.
    pub fn finish(&self, folder: &Path, machine: &str) -> Result<bool, String> {
        println!("\n{machine}\n");
        println!("| figure | value | target | | what is in it |\n|---|---|---|---|---|");
        for figure in &self.figures {
            let (value, target) = (shown(figure), aim(figure));
            println!("| {} | {value} | {target} | {} | {} |", figure.name, figure.verdict(), figure.note);
        }
        println!();
        match self.wrong.as_slice() {
            [] => println!("Every answer was complete, every book clean."),
            wrong => wrong.iter().for_each(|what| println!("WRONG: {what}")),
        }
        let figures: Vec<Value> = self.figures.iter().map(as_json).collect();
        let report = json!({ "machine": machine, "figures": figures, "wrong": self.wrong });
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(folder.join("report.json"), format!("{report:#}\n")))
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(self.wrong.is_empty())
    }
}

fn as_json(figure: &Figure) -> Value {
    let (name, value, unit, note) = (&figure.name, figure.value, figure.unit, &figure.note);
    json!({ "figure": name, "value": value, "unit": unit, "target": aim(figure), "verdict": figure.verdict(), "note": note })
}

fn line(figure: &Figure) -> String {
    format!("{}: {} ({}) {}", figure.name, shown(figure), aim(figure), figure.verdict())
}

fn shown(figure: &Figure) -> String {
    match figure.value {
        Some(value) => format!("{} {}", digits(value), figure.unit).trim_end().to_owned(),
        None => "-".into(),
    }
}

fn aim(figure: &Figure) -> String {
    match figure.target {
        Target::AtMost(limit) => format!("at most {} {}", digits(limit), figure.unit).trim_end().to_owned(),
        Target::AtLeast(limit) => format!("at least {} {}", digits(limit), figure.unit).trim_end().to_owned(),
        Target::Shown => "shown only".into(),
    }
}

/// As many digits as are worth reading.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_is_called_a_miss_and_what_was_not_measured_is_never_met() {
        let figure = |value, target| Figure { name: "x".into(), value, unit: "us", target, note: String::new() }.verdict();
        assert_eq!(figure(Some(20.1), Target::AtMost(20.0)), "MISSED");
        assert_eq!(figure(Some(20.0), Target::AtMost(20.0)), "met");
        assert_eq!(figure(Some(0.89), Target::AtLeast(0.9)), "MISSED");
        assert_eq!(figure(None, Target::AtMost(20.0)), "not measured");
    }
}
