//! `farebox export`: the books row by row, for a spreadsheet or a program; from a copy, so that the gateway may run and memory does not grow.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::backup::{Copy, wrong};
use super::serve::{Trouble, trouble};
use super::sheet::{Cell, csv};
use super::{FOUND_A_PROBLEM, USAGE, code_of};
use crate::clock::{Day, Timestamp};
use crate::config::Config;
use crate::ids::{JobId, PaymentId, RequestId};
use crate::ledger::{Account, Block, Broken, History, Job, Payment, Receipt, Reference, Span, Transfer};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    what: What,
    #[arg(long, default_value = "csv")]
    format: Format,
    /// The first day (UTC), such as 2027-01-01; all, if left out.
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// The last day.
    #[arg(long, value_name = "DAY")]
    until: Option<String>,
    /// A new file, in the place of standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Every movement of money: its debit and its credit, in the order of the hash chain.
    Postings,
    /// What each call cost, by when it ended.
    Receipts,
    /// Payments and what became of them, by when they were brought.
    Payments,
    /// What every account has now.
    Accounts,
    /// Jobs, by when they were ordered.
    Jobs,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Csv,
    /// One JSON object on each line.
    Jsonl,
}

pub fn run(arguments: &Arguments, config: &Config) -> Result<(), Trouble> {
    let span = arguments.span().map_err(trouble(USAGE))?;
    let mut options = OpenOptions::new();
    let to: Box<dyn Write> = match &arguments.output {
        Some(path) => Box::new(options.write(true).create_new(true).mode(0o600).open(path).map_err(wrong(path))?),
        None => Box::new(io::stdout().lock()),
    };
    let copy = Copy::of_books(config)?;
    let unreadable = |broken: Broken| trouble(code_of(&broken))(broken.to_string());
    let history = History::of_copy(&copy.0).map_err(unreadable)?;
    // It is gone from the folder: whoever breaks off here leaves nothing.
    drop(copy);
    let mut sheet = Sheet { to: BufWriter::new(to), format: arguments.format, begun: false, written: Ok(()) };
    arguments.write(&history, span, &mut sheet).map_err(unreadable)?;
    match sheet.written.and_then(|()| sheet.to.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(trouble(FOUND_A_PROBLEM)(format!("the output could not be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Where rows go, one at a time.
struct Sheet<W: Write> {
    to: BufWriter<W>,
    format: Format,
    begun: bool,
    written: io::Result<()>,
}

type Row = Vec<(&'static str, Cell)>;

impl<W: Write> Sheet<W> {
    fn row(&mut self, row: Row) -> ControlFlow<()> {
        if self.written.is_ok() {
            self.written = self.put(row);
        }
        if self.written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn put(&mut self, row: Row) -> io::Result<()> {
        match self.format {
            Format::Csv => {
                if !std::mem::replace(&mut self.begun, true) {
                    let names: Vec<_> = row.iter().map(|(name, _)| *name).collect();
                    writeln!(self.to, "{}", names.join(","))?;
                }
                let cells: Vec<_> = row.into_iter().map(|(_, cell)| cell).collect();
                writeln!(self.to, "{}", csv(&cells))
            }
            Format::Jsonl => {
                let value = |cell: Cell| match cell {
                    Cell::Text(text) => Value::String(text),
                    Cell::Number(number) => number.parse().map_or(Value::String(number), Value::Number),
                    Cell::Empty => Value::Null,
                };
                let fields: Map<_, _> = row.into_iter().map(|(name, cell)| (name.to_owned(), value(cell))).collect();
                writeln!(self.to, "{}", Value::Object(fields))
            }
        }
    }
}

impl Arguments {
    fn span(&self) -> Result<Span, String> {
        let day = |text: &Option<String>, other: Day| match text {
            None => Ok(other),
            Some(text) => Timestamp::from_rfc3339(&format!("{text}T00:00:00Z"))
                .map(Timestamp::day)
                .ok_or_else(|| format!("{text:?} is not a day such as 2027-01-31")),
        };
        let span = Span { from: day(&self.from, Day(0))?, until: day(&self.until, Day(u32::MAX))? };
        if span.until < span.from { Err("it would end before it begins".into()) } else { Ok(span) }
    }

    fn write<W: Write>(&self, history: &History, span: Span, sheet: &mut Sheet<W>) -> Result<(), Broken> {
        match self.what {
            What::Postings => history.transfers(span, |number, transfer| sheet.row(posting(number, &transfer))),
            What::Receipts => history.receipts(span, |request, receipt| sheet.row(self::receipt(request, receipt))).map(|_| ()),
            What::Payments => history.payments(|id, row| {
                if span.has(Timestamp::from_millis(row.claimed_at)) {
                    let _ = sheet.row(payment(id, row));
                }
            }),
            What::Accounts => accounts(history, sheet),
            What::Jobs => history.jobs(span, |id, row| {
                let _ = sheet.row(job(id, row));
            }),
        }
    }
}

fn at(millis: u64) -> Cell {
    Cell::text(Timestamp::from_millis(millis).to_rfc3339())
}

fn or_empty<T>(value: Option<T>, cell: impl FnOnce(T) -> Cell) -> Cell {
    value.map_or(Cell::Empty, cell)
}

fn posting(number: u64, transfer: &Transfer) -> Row {
    let about = match transfer.reference {
        Reference::Payment(id) => id.to_string(),
        Reference::Request(id) => id.to_string(),
        Reference::Adjustment(name) => format!("adj_{:032x}", u128::from_be_bytes(name)),
    };
    vec![
        ("number", Cell::number(number)),
        ("at", at(transfer.at.millis())),
        ("kind", Cell::text(format!("{:?}", transfer.kind).to_lowercase())),
        ("debit", Cell::text(transfer.debit.to_string())),
        ("credit", Cell::text(transfer.credit.to_string())),
        ("amount_micros", Cell::number(transfer.amount.get())),
        ("about", Cell::text(about)),
    ]
}

fn receipt(request: RequestId, receipt: Receipt) -> Row {
    let number = |number: u64| Cell::number(number);
    vec![
        ("request", Cell::text(request.to_string())),
        ("ended_at", at(receipt.at)),
        ("account", Cell::text(receipt.account.to_string())),
        ("key", or_empty(receipt.key, |key| Cell::text(key.to_string()))),
        ("payment", or_empty(receipt.payment, |payment| Cell::text(payment.to_string()))),
        ("tx", or_empty(receipt.tx, Cell::Text)),
        ("path", Cell::Text(receipt.path)),
        ("model", Cell::Text(receipt.model)),
        ("upstream", Cell::Text(receipt.upstream)),
        ("whole", Cell::text(receipt.whole.to_string())),
        ("input", number(receipt.input)),
        ("output", number(receipt.output)),
        ("cache_read", number(receipt.cache_read)),
        ("cache_write", number(receipt.cache_write)),
        ("units", number(receipt.units)),
        ("ceiling_micros", number(receipt.ceiling)),
        ("charge_micros", number(receipt.charge)),
        ("by_allowance_micros", number(receipt.allowance)),
        ("credited_micros", number(receipt.credited)),
        ("refunded_micros", number(receipt.refunded)),
        // Unknown, where it is empty.
        ("cost_micros", or_empty(receipt.cost, number)),
    ]
}

/// Without what was signed: whoever has an authorization that was not used yet could still use it.
fn payment(id: PaymentId, payment: Payment) -> Row {
    let (tx, block) = payment.confirmed.unzip();
    vec![
        ("payment", Cell::text(id.to_string())),
        ("brought_at", at(payment.claimed_at)),
        ("state", Cell::text(format!("{:?}", payment.state).to_lowercase())),
        ("network", Cell::Text(payment.network)),
        ("asset", Cell::Text(payment.asset)),
        ("payer", Cell::text(payment.payer.to_string())),
        ("amount_micros", Cell::number(payment.amount)),
        ("top_up", Cell::text(payment.top_up.to_string())),
        ("path", Cell::Text(payment.route)),
        ("request", Cell::text(RequestId(payment.request).to_string())),
        ("tx", or_empty(tx, Cell::Text)),
        ("block", or_empty(block, Cell::number)),
        ("reason", or_empty(payment.reason, Cell::Text)),
    ]
}

/// Every account that money ever moved for, then the wallets that were barred before any did.
fn accounts<W: Write>(history: &History, sheet: &mut Sheet<W>) -> Result<(), Broken> {
    let mut blocked = BTreeMap::new();
    history.blocked(|wallet, block| _ = blocked.insert(Account::Wallet(wallet).to_string(), block))?;
    history.balances(|account, micros| {
        let name = account.to_string();
        let block = blocked.remove(&name);
        let _ = sheet.row(balance(name, micros, block));
    })?;
    for (name, block) in blocked {
        let _ = sheet.row(balance(name, 0, Some(block)));
    }
    Ok(())
}

fn balance(account: String, micros: i64, block: Option<Block>) -> Row {
    let (since, reason) = block.map(|block| (block.at, block.reason)).unzip();
    vec![
        ("account", Cell::Text(account)),
        ("balance_micros", Cell::number(micros)),
        ("blocked_at", or_empty(since, at)),
        ("block_reason", or_empty(reason, Cell::Text)),
    ]
}

fn job(id: JobId, job: Job) -> Row {
    let charge = job.charge().get();
    vec![
        ("job", Cell::text(id.to_string())),
        ("ordered_at", at(job.created)),
        ("account", Cell::text(job.account.to_string())),
        ("request", Cell::text(RequestId(job.request).to_string())),
        ("task", Cell::Text(job.task)),
        ("model", Cell::Text(job.model)),
        ("upstream", Cell::Text(job.upstream)),
        ("upstream_job", Cell::Text(job.upstream_job)),
        ("state", Cell::text(job.state.name())),
        ("charge_micros", Cell::number(charge)),
    ]
}
