//! `farebox report`: what was earned in a span of days, as a table for people, as CSV or as JSON.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::json;

use super::sheet::{Cell, aligned, csv};
use super::{FOUND_A_PROBLEM, machine_clock, operator, say};
use crate::chain::{self, Treasury};
use crate::clock::{Day, Timestamp};
use crate::config::Config;
use crate::gateway::operator::Command;
use crate::gateway::report::{Received, Report, Sold, Standing};
use crate::money::Micros;

/// The most days of one report.
const MOST_DAYS: u32 = 36_500;

#[derive(clap::Args)]
pub struct Arguments {
    /// The last so many days (UTC), today among them.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_DAYS)))]
    days: u32,
    /// The first day instead, such as 2027-01-01.
    #[arg(long, value_name = "DAY", conflicts_with = "days")]
    from: Option<String>,
    /// The last day, such as 2027-01-31; today, if left out.
    #[arg(long, value_name = "DAY")]
    until: Option<String>,
    /// Also ask the chains what lies at pay_to now.
    #[arg(long)]
    chain: bool,
    /// Print it as CSV for a spreadsheet.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print it as JSON, amounts in micro-USDC.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, config: &Config) -> ExitCode {
    let made = match operator::done(&arguments.command(machine_clock().now()), config) {
        Ok(made) => made,
        Err(code) => return code,
    };
    let mut report: Report = match serde_json::from_value(made) {
        Ok(report) => report,
        Err(error) => {
            say::err(format_args!("farebox: the gateway that runs is of another version and its report cannot be read: {error}"));
            return ExitCode::from(FOUND_A_PROBLEM);
        }
    };
    report.price_fees(|id| config.networks.iter().find(|network| network.id == id)?.coin_usd);
    let treasury = if arguments.chain { chain::treasury(&config.networks) } else { Vec::new() };
    let lines = match (arguments.json, arguments.csv) {
        (true, _) => vec![as_json(&report, &treasury)],
        (_, true) => rows(&report, &treasury).iter().map(|row| csv(row)).collect(),
        _ => table(&report, &treasury),
    };
    match say::out(lines.join("\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say::err(format_args!("farebox: {problem}"));
            ExitCode::from(FOUND_A_PROBLEM)
        }
    }
}

impl Arguments {
    fn command(&self, now: Timestamp) -> Command {
        let today = now.day();
        let until = self.until.clone().unwrap_or_else(|| today.to_string());
        let last = Timestamp::from_rfc3339(&format!("{until}T00:00:00Z")).map_or(today, Timestamp::day);
        let first = Day(last.0.saturating_sub(self.days.saturating_sub(1)));
        Command::Report { from: self.from.clone().unwrap_or_else(|| first.to_string()), until }
    }
}

fn as_json(report: &Report, treasury: &[Treasury]) -> String {
    let mut shown = json!(report);
    let on_chain = treasury.iter().map(|one| {
        let (held, problem) = match &one.held {
            Ok(held) => (Some(held.get()), None),
            Err(why) => (None, Some(why)),
        };
        json!({ "network": one.network, "pay_to": one.pay_to, "held_micros": held, "problem": problem })
    });
    if !treasury.is_empty() {
        shown["now"]["on_chain"] = on_chain.collect();
    }
    format!("{shown:#}")
}

/// A cost or margin that is not known is said to be so, and is never nothing.
fn cost(sold: &Sold) -> Cell {
    match sold.cost_micros {
        Some(cost) => Cell::usd(cost),
        None if sold.calls_of_unknown_cost == 0 => Cell::usd(0),
        None => Cell::text("unknown"),
    }
}

fn margin(sold: &Sold) -> Cell {
    sold.margin_micros.map_or(Cell::text("unknown"), Cell::usd)
}

fn sold_cells(name: Cell, sold: &Sold) -> Vec<Cell> {
    let Sold { calls, revenue_micros, refunded_micros, allowance_micros, calls_of_unknown_cost, .. } = sold;
    let usd = |micros: &u64| Cell::usd(*micros);
    let [revenue, refunded, allowance] = [revenue_micros, refunded_micros, allowance_micros].map(usd);
    let unknown = Cell::number(calls_of_unknown_cost);
    vec![name, Cell::number(calls), revenue, refunded, allowance, cost(sold), margin(sold), unknown]
}

const SOLD: [&str; 7] = ["calls", "revenue", "refunds", "by allowance", "cost", "margin", "of unknown cost"];

fn sections(report: &Report) -> [(&'static str, &BTreeMap<String, Sold>); 3] {
    [("day", &report.days), ("model", &report.models), ("upstream", &report.upstreams)]
}

fn received_cells(received: &Received) -> Vec<Cell> {
    let usd = |micros: u64| Cell::usd(micros);
    let Received { payments, received_micros, credited_micros, reversed_micros, transactions, fees, fees_micros, .. } = received;
    let paid_out = Cell::usd(received.paid_out_micros);
    let [received, credited, reversed] = [*received_micros, *credited_micros, *reversed_micros].map(usd);
    let paid = fees_micros.map_or(Cell::text("unknown"), usd);
    vec![Cell::number(payments), received, credited, reversed, paid_out, Cell::number(transactions), Cell::number(fees), paid]
}

const RECEIVED: [&str; 8] =
    ["payments", "received", "to balances", "reversed", "paid out", "fees paid for", "wei or lamports", "in USD"];

fn table(report: &Report, treasury: &[Treasury]) -> Vec<String> {
    let mut lines = vec![format!("{} to {} (UTC); amounts in USD", report.from, report.until)];
    let head =
        |name: &str, columns: &[&str]| -> Vec<Cell> { [name].iter().chain(columns).map(|text| Cell::text(*text)).collect() };
    for (name, groups) in sections(report) {
        let mut rows = vec![head(name, &SOLD)];
        rows.extend(groups.iter().map(|(group, sold)| sold_cells(Cell::text(group), sold)));
        if name == "day" {
            rows.push(sold_cells(Cell::text("all days"), &report.total));
        }
        lines.push(String::new());
        lines.extend(aligned(&rows));
    }
    let mut rows = vec![head("network", &RECEIVED)];
    rows.extend(report.networks.iter().map(|(id, received)| [vec![Cell::text(id)], received_cells(received)].concat()));
    lines.push(String::new());
    lines.extend(aligned(&rows));
    lines.push(String::new());
    lines.extend(aligned(&now_rows(report, treasury)));
    if report.total.calls_of_unknown_cost > 0 {
        let unknown = report.total.calls_of_unknown_cost;
        let brought = Micros::new(report.total.revenue_of_unknown_cost_micros);
        lines.push(format!(
            "\nthe cost of {unknown} calls, which brought {brought}, is not known: write cost = {{ … }} into their [[model]], and that \
             of calls from then on is"
        ));
    }
    lines
}

/// How things stand now, and by the chains where they were asked.
fn now_rows(report: &Report, treasury: &[Treasury]) -> Vec<Vec<Cell>> {
    let Standing { liabilities_micros, wallets, in_transit_micros, earned_micros, bad_debt_micros, adjusted_micros, .. } =
        report.now;
    let row = |name: &str, cells: &[Cell]| [&[Cell::text(name)], cells].concat();
    let mut rows = vec![
        row(&format!("now ({})", report.made_at), &[Cell::text("USD")]),
        row(&format!("owed to {wallets} wallets"), &[Cell::usd(liabilities_micros)]),
        row("paid for calls that run", &[Cell::usd(in_transit_micros)]),
        row("on its way back to wallets", &[Cell::usd(report.now.outgoing_micros)]),
        row("earned since the books began", &[Cell::usd(earned_micros)]),
        row("lost to transfers that vanished", &[Cell::usd(bad_debt_micros)]),
        row("taken of wallets by hand or given", &[Cell::usd(adjusted_micros)]),
    ];
    for (network, micros) in &report.now.treasury_micros {
        rows.push(row(&format!("came in on {network} by the books"), &[Cell::usd(*micros)]));
    }
    for Treasury { network, pay_to, held } in treasury {
        let held = held.as_ref().map_or_else(|why| Cell::text(format!("not known: {why}")), |held| Cell::usd(held.get()));
        rows.push(row(&format!("at {pay_to} on {network}"), &[held]));
    }
    let open = Cell::usd(report.now.open_payments_micros);
    rows.push(row(&format!("{} payments whose outcome is not known yet", report.now.open_payments), &[open]));
    rows
}

/// All of it in one table, for a spreadsheet: what a section does not have is empty.
fn rows(report: &Report, treasury: &[Treasury]) -> Vec<Vec<Cell>> {
    let head = ["section", "name", "calls", "revenue_usd", "refunds_usd", "allowance_usd", "cost_usd", "margin_usd"];
    let more = ["calls_of_unknown_cost", "payments", "received_usd", "credited_usd", "reversed_usd", "paid_out_usd"];
    let fees = ["transactions", "fees", "fees_usd", "amount_usd"];
    let head = head.iter().chain(&more).chain(&fees).map(|name| Cell::text(*name)).collect();
    let blank = |cells: usize| vec![Cell::Empty; cells];
    let of = |section: &str, name: &str, sold: &Sold| {
        [vec![Cell::text(section)], sold_cells(Cell::text(name), sold), blank(9)].concat()
    };
    let mut rows: Vec<Vec<Cell>> = vec![head, of("total", "", &report.total)];
    for (section, groups) in sections(report) {
        rows.extend(groups.iter().map(|(name, sold)| of(section, name, sold)));
    }
    for (id, received) in &report.networks {
        rows.push([vec![Cell::text("network"), Cell::text(id)], blank(7), received_cells(received), blank(1)].concat());
    }
    let now = now_rows(report, treasury).into_iter().skip(1);
    rows.extend(now.map(|cells| {
        let [name, amount] = [0, 1].map(|at| cells.get(at).cloned().unwrap_or(Cell::Empty));
        [vec![Cell::text("now"), name], blank(15), vec![amount]].concat()
    }));
    rows
}
