//! What this process counts while it works: atomic numbers that cost a call some nanoseconds, written as Prometheus reads them.
//!
//! Numbers only: no money is decided here, and none is in the books because of what stands here. Labels come from the
//! configuration and from tables in the code, never from a request, so that strangers cannot make more of them.

mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::money::Micros;

pub use text::{Page, Value};

/// Money that was moved in the books since the start, by why.
pub static MOVED: Family<Usdc> =
    Family::new("farebox_moved_usdc_total", "Money moved in the books, by kind; charge less refund is revenue.", &["kind"]);
/// Calls that have ended, by how.
pub static SALES: Family<Counter> =
    Family::new("farebox_sales_total", "Calls that ended in the books.", &["model", "upstream", "paid_by", "outcome"]);
/// What they were charged.
pub static CHARGES: Family<Usdc> =
    Family::new("farebox_charges_usdc_total", "What calls were charged.", &["model", "upstream", "paid_by"]);
/// What they used.
pub static TOKENS: Family<Counter> = Family::new("farebox_tokens_total", "Tokens that were charged.", &["model", "kind"]);
/// Refusals of requests, by their code.
pub static REFUSALS: Family<Counter> = Family::new("farebox_refusals_total", "Requests that were refused.", &["code"]);
/// From the arrival of a request until the head of its answer.
pub static HEADS: Family<Histogram> =
    Family::new("farebox_response_seconds", "From a request's arrival to the head of its answer.", &["route"]);
/// Top-ups that were credited.
pub static TOP_UPS: Family<Usdc> = Family::new("farebox_top_ups_usdc_total", "Top-ups that were credited.", &["network"]);
/// How waiting for settlements has ended.
pub static SETTLEMENTS: Family<Counter> =
    Family::new("farebox_settlements_total", "Settlements that were waited for, by how that ended.", &["network", "outcome"]);
/// How long those took that arrived.
pub static SETTLING: Family<Histogram> =
    Family::new("farebox_settlement_seconds", "From handing a payment to its chain until it was in the books.", &["network"]);
/// Attempts at upstreams.
pub static UPSTREAM_CALLS: Family<Counter> =
    Family::new("farebox_upstream_calls_total", "Calls to upstreams: ok, or the code of the failure.", &["upstream", "outcome"]);
/// How long upstreams took to begin an answer.
pub static UPSTREAM_HEADS: Family<Histogram> =
    Family::new("farebox_upstream_first_byte_seconds", "From a call to an upstream until its answer began.", &["upstream"]);
/// Commits of the ledger.
pub static COMMITS: Family<Histogram> = Family::new("farebox_commit_seconds", "Commits of the ledger, fsync included.", &[]);
/// Webhooks that were delivered, given up or never queued.
pub static WEBHOOKS: Family<Counter> = Family::new("farebox_webhooks_total", "Webhooks, by what became of them.", &["outcome"]);

/// Writes everything that is counted here.
pub fn write(page: &mut Page) {
    MOVED.write(page);
    SALES.write(page);
    CHARGES.write(page);
    TOKENS.write(page);
    REFUSALS.write(page);
    HEADS.write(page);
    TOP_UPS.write(page);
    SETTLEMENTS.write(page);
    SETTLING.write(page);
    UPSTREAM_CALLS.write(page);
    UPSTREAM_HEADS.write(page);
    COMMITS.write(page);
    WEBHOOKS.write(page);
}

/// Members that one family may have. A configuration with more of them counts the rest as one.
const MOST: usize = 4096;
/// What the rest is called.
const OTHERS: &str = "other";

/// One number for each combination of labels.
pub struct Family<M> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    /// By the values of the labels, in their order.
    members: RwLock<BTreeMap<String, Arc<M>>>,
}

/// Between the values of labels in the name of a member.
const AND: char = '\u{1f}';

impl<M: Member> Family<M> {
    const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family<M> {
        Family { name, help, labels, members: RwLock::new(BTreeMap::new()) }
    }

    /// The member with these values of the labels.
    pub fn of(&self, values: &[&str]) -> Arc<M> {
        let name = named(values.iter().copied());
        let known = self.members.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        known.unwrap_or_else(|| {
            let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
            let is_one_too_many = members.len() >= MOST && !members.contains_key(&name);
            let name = if is_one_too_many { named(self.labels.iter().map(|_| OTHERS)) } else { name };
            Arc::clone(members.entry(name).or_default())
        })
    }

    fn write(&self, page: &mut Page) {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        page.begin(self.name, M::TYPE, self.help);
        for (name, member) in members.iter() {
            let labels: Vec<_> = self.labels.iter().copied().zip(name.split(AND)).collect();
            member.write(self.name, &labels, page);
        }
    }
}

fn named<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let mut name = String::with_capacity(64);
    for (place, value) in values.enumerate() {
        if place > 0 {
            name.push(AND);
        }
        name.push_str(value);
    }
    name
}

/// One number of a family.
pub trait Member: Default {
    /// What Prometheus calls its kind.
    const TYPE: &'static str;
    /// Writes its samples.
    fn write(&self, name: &str, labels: &[(&str, &str)], page: &mut Page);
}

/// How often something happened.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Once more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So often more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

impl Member for Counter {
    const TYPE: &'static str = "counter";

    fn write(&self, name: &str, labels: &[(&str, &str)], page: &mut Page) {
        page.sample(name, labels, Value::Whole(self.0.load(Ordering::Relaxed).into()));
    }
}

/// How much money, written as exact USD.
#[derive(Default)]
pub struct Usdc(AtomicU64);

impl Usdc {
    /// So much more.
    pub fn add(&self, more: Micros) {
        self.0.fetch_add(more.get(), Ordering::Relaxed);
    }
}

impl Member for Usdc {
    const TYPE: &'static str = "counter";

    fn write(&self, name: &str, labels: &[(&str, &str)], page: &mut Page) {
        page.sample(name, labels, Value::Usdc(i128::from(self.0.load(Ordering::Relaxed))));
    }
}

/// Upper ends of the classes of a histogram, in microseconds: from a commit on a good disk to the longest call.
const CLASSES: [u64; 19] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    20_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    240_000_000,
];

/// How long something took.
#[derive(Default)]
pub struct Histogram {
    /// How many fell into each class, those beyond the last one not among them.
    classes: [AtomicU64; CLASSES.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    /// It took so long once.
    pub fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(class) = CLASSES.iter().position(|end| micros <= *end) {
            self.classes[class].fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Member for Histogram {
    const TYPE: &'static str = "histogram";

    fn write(&self, name: &str, labels: &[(&str, &str)], page: &mut Page) {
        let mut sum = 0;
        let bucket = format!("{name}_bucket");
        let mut ends_at = |end: &str, count: u64| {
            page.sample(&bucket, &[labels, &[("le", end)]].concat(), Value::Whole(count.into()));
        };
        for (end, class) in CLASSES.iter().zip(&self.classes) {
            sum += class.load(Ordering::Relaxed);
            ends_at(&Value::Millionths(i128::from(*end)).to_string(), sum);
        }
        // Read last, and never less than the classes: somebody may count while this is written.
        let all = self.count.load(Ordering::Relaxed).max(sum);
        ends_at("+Inf", all);
        page.sample(&format!("{name}_sum"), labels, Value::Millionths(self.micros.load(Ordering::Relaxed).into()));
        page.sample(&format!("{name}_count"), labels, Value::Whole(all.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<M: Member>(family: &Family<M>) -> String {
        let mut page = Page::default();
        family.write(&mut page);
        page.into_text()
    }

    #[test]
    fn a_member_is_found_again_by_its_labels_and_money_is_exact() {
        let family: Family<Usdc> = Family::new("spent_usdc_total", "Spent.", &["model", "by"]);
        family.of(&["a", "key"]).add(Micros::new(1));
        family.of(&["a", "key"]).add(Micros::new(12_000_000));
        family.of(&["b\"\\\n", "key"]).add(Micros::new(9_007_199_254_740_993));
        assert_eq!(
            text(&family),
            "# HELP spent_usdc_total Spent.\n# TYPE spent_usdc_total counter\n\
             spent_usdc_total{model=\"a\",by=\"key\"} 12.000001\n\
             spent_usdc_total{model=\"b\\\"\\\\\\n\",by=\"key\"} 9007199254.740993\n"
        );
    }

    #[test]
    fn a_histogram_counts_up_to_each_end_and_what_is_beyond_all_of_them() {
        let family: Family<Histogram> = Family::new("wait_seconds", "Waited.", &[]);
        for micros in [500, 501, 3_000_000, 999_000_000] {
            family.of(&[]).took(Duration::from_micros(micros));
        }
        let text = text(&family);
        let has = |line: &str| assert!(text.lines().any(|other| other == line), "{line:?} is missing in\n{text}");
        has("wait_seconds_bucket{le=\"0.0005\"} 1");
        has("wait_seconds_bucket{le=\"0.001\"} 2");
        has("wait_seconds_bucket{le=\"2.5\"} 2");
        has("wait_seconds_bucket{le=\"5\"} 3");
        has("wait_seconds_bucket{le=\"240\"} 3");
        has("wait_seconds_bucket{le=\"+Inf\"} 4");
        has("wait_seconds_sum 1002.001001");
        has("wait_seconds_count 4");
    }

    #[test]
    fn whoever_makes_labels_up_makes_no_more_memory_than_is_bounded() {
        let family: Family<Counter> = Family::new("made_up_total", "Made up.", &["name"]);
        (0..MOST + 500).for_each(|name| family.of(&[&name.to_string()]).count());
        family.of(&["7"]).count();
        let text = text(&family);
        assert_eq!(text.lines().count(), MOST + 3);
        assert!(text.contains("made_up_total{name=\"other\"} 500\n") && text.contains("made_up_total{name=\"7\"} 2\n"));
    }
}
