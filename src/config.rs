//! What the operator wrote in config.toml, checked once: every refusal names the key at fault and says why.

mod changes;
mod costs;
mod failover;
mod file;
mod model;
mod network;
mod place;
mod prepaid;
mod secret;
mod shown;
#[cfg(test)]
mod tests;
mod tls;
mod webhook;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::catalogue::Catalogue;
use crate::dialect::LimitField;
use crate::money::Micros;
use crate::x402::names::Family;

pub use changes::Changes;
pub use costs::below_cost;
pub use failover::Failover;
pub use file::Speaks;
pub(crate) use network::is_test_network;
pub use network::{Network, Settlement};
pub use place::line_of;
pub use prepaid::{NoncePolicy, Prepaid};
pub use secret::Secret;
pub use tls::{CertificateAuthority, CertificateFiles, Tls, TlsFiles};
pub use webhook::{Occasion, Webhook};

/// A configuration that was checked as a whole.
#[derive(Debug, Clone)]
pub struct Config {
    pub bind: SocketAddr,
    /// With a certificate of ours; without one somebody else speaks TLS for us, or nobody does.
    pub tls: Option<Tls>,
    /// What callers see, without a trailing slash.
    pub public_url: String,
    pub trusted_proxies: Vec<Cidr>,
    pub data_dir: PathBuf,
    /// Wallets that may look at how the gateway does, as they were typed.
    pub operators: Vec<String>,
    /// Where the operator's own listener is: numbers, and reasons that are nobody else's business.
    pub metrics: Option<SocketAddr>,
    pub networks: Vec<Network>,
    pub upstreams: Vec<Upstream>,
    pub catalogue: Catalogue,
    pub limits: Limits,
    pub payments: Payments,
    pub prepaid: Prepaid,
    pub failover: Failover,
    /// As it was typed, for comparing it with what is typed later.
    written: changes::Written,
    pub webhooks: Vec<Webhook>,
}

/// One of the operator's inference accounts.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub name: String,
    pub kind: UpstreamKind,
    pub speaks: Vec<Speaks>,
}

#[derive(Debug, Clone)]
pub enum UpstreamKind {
    /// Built in: answers with the prompt.
    Echo,
    Http {
        base_url: String,
        api_key: Option<Secret>,
        ca_file: Option<PathBuf>,
        limit_field: LimitField,
        /// Where it may put what jobs make beside its own address: `https://` and a host, with a port if it is not the usual one.
        media_hosts: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub per_ip_per_second: u32,
    pub per_ip_burst: u32,
    /// Calls that one wallet's balance pays for.
    pub per_account_per_second: u32,
    pub per_account_burst: u32,
    /// Open connections of one address at the same time.
    pub connections_per_ip: usize,
    pub payments_per_ip_per_minute: u32,
    pub key_changes_per_ip_per_minute: u32,
    /// Payments to the top-up route, which count as payments, too.
    pub top_ups_per_ip_per_minute: u32,
    /// How often one wallet may ask for its balance, and for a page of its statement.
    pub balance_reads_per_minute: u32,
    pub statement_reads_per_minute: u32,
    /// How often one wallet's jobs may be asked for.
    pub job_polls_per_minute: u32,
    /// How long a job can be asked for.
    pub jobs_kept: Duration,
    pub streams: usize,
    /// Prepaid calls of one wallet at the same time.
    pub streams_per_account: usize,
    pub max_body: usize,
    /// Bytes of all request bodies in memory together.
    pub max_bodies: usize,
    /// How long a request body may take to arrive.
    pub body_time: Duration,
    /// From the arrival of a request to its last byte.
    pub wall_clock: Duration,
}

/// So long the upstream may take to refuse where payments end with their blockhash: of the 40 blocks that one must have left when
/// it is presented, 20 are for settling it, and a block takes 0.4 s.
const LONGEST_ON_SOLANA: Duration = Duration::from_millis(8000);

/// How pay-per-call sales are made.
#[derive(Debug, Clone)]
pub struct Payments {
    pub order: Order,
    /// How long the upstream may take to accept before settlement starts anyway.
    pub settle_after: Duration,
    /// How long a caller waits for a confirmation before it is told `settlement_pending`.
    pub settle_wait: Duration,
    pub remainder: Remainder,
    pub max_timeout_seconds: u64,
    /// Failed settlements of all wallets together per day before every sale settles first.
    pub failed_settlements_per_day: u32,
    /// Transfers on one network that failed in their blocks, at our expense, per day before only wallets that have money here, or
    /// have brought some, are settled for there.
    pub failed_transfers_per_day: u32,
    /// Prepaid holds above this wait for their durable record before the upstream is called.
    pub hold_durable_above: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Settle while the upstream works.
    Overlap,
    /// Confirm before the upstream is opened.
    SettleFirst,
}

/// What becomes of the part of a payment that the call did not cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remainder {
    Credit,
    Keep,
}

/// An address range such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub address: std::net::IpAddr,
    pub prefix: u8,
}

/// A configuration that cannot be used: which key, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{key}: {problem}", line.map(|line| format!("line {line}, ")).unwrap_or_default())]
pub struct ConfigError {
    pub key: String,
    pub problem: String,
    /// Where the key stands, or the section that it is missing in; the first line is 1.
    pub line: Option<usize>,
}

fn bad(key: impl Into<String>, problem: impl ToString) -> ConfigError {
    ConfigError { key: key.into(), problem: problem.to_string(), line: None }
}

impl Config {
    /// Reads and checks a file; secrets come from `env`, relative paths start at the file's folder.
    pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| bad(path.display().to_string(), error))?;
        Config::parse(&text, path.parent().unwrap_or(Path::new(".")), env)
    }

    /// Checks the text of a configuration whose relative paths start at `folder`.
    pub fn parse(text: &str, folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        Config::check(text, folder, env, None)
    }

    /// Reads the file again for a gateway that runs on this configuration, and says what is different. What only another
    /// start can change stays as it is.
    ///
    /// # Errors
    /// As [`Config::load`]: what is wrong with the file, or does not go together with what stays.
    pub fn again(&self, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<(Config, Changes), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| bad(path.display().to_string(), error))?;
        let next = Config::check(&text, path.parent().unwrap_or(Path::new(".")), env, Some(self))?;
        let changes = Changes::between(self, &next);
        Ok((next, changes))
    }

    /// Checks a text as a whole, together with what a `running` gateway keeps.
    fn check(
        text: &str,
        folder: &Path,
        env: &dyn Fn(&str) -> Option<String>,
        running: Option<&Config>,
    ) -> Result<Config, ConfigError> {
        let located = |error: ConfigError| ConfigError { line: error.line.or_else(|| line_of(text, &error.key)), ..error };
        Config::read(text, folder, env, running).map_err(located)
    }

    fn read(
        text: &str,
        folder: &Path,
        env: &dyn Fn(&str) -> Option<String>,
        running: Option<&Config>,
    ) -> Result<Config, ConfigError> {
        let file: file::File = toml::from_str(text).map_err(|error| unreadable(text, &error))?;
        let bind: SocketAddr =
            file.server.bind.parse().map_err(|_| bad("server.bind", "write ADDRESS:PORT, such as 127.0.0.1:4020"))?;
        let networks = network::networks(&file.network, folder, env)?;
        let upstreams = upstreams(&file.upstream, folder, env)?;
        let payments = payments(&file.payments)?;
        // Those that count decide which prices a model needs.
        let payments = running.map_or(payments, |running| running.payments.clone());
        let catalogue = model::catalogue(&file.model, &upstreams, payments.remainder)?;
        let mut config = Config {
            bind,
            public_url: public_url(&file.server, bind)?,
            tls: file.server.tls.as_ref().map(|row| tls::tls(row, folder, &folder.join(&file.server.data_dir))).transpose()?,
            trusted_proxies: file.server.trusted_proxies.iter().map(|text| cidr(text)).collect::<Result<_, _>>()?,
            data_dir: folder.join(&file.server.data_dir),
            operators: file.server.operators.clone(),
            networks,
            upstreams,
            catalogue,
            limits: limits(&file.limits)?,
            payments,
            prepaid: prepaid::prepaid(&file.prepaid)?,
            failover: failover::failover(&file.failover)?,
            written: changes::Written::new(&file),
            webhooks: webhook::webhooks(&file.webhook, folder, env)?,
            metrics: metrics(file.server.metrics.as_deref(), bind)?,
        };
        if let Some(running) = running {
            config.stay(running);
        }
        config.check_networks()?;
        config.check_head_start()?;
        Ok(config)
    }

    /// Takes over what a gateway cannot change while it runs, beside its payments.
    fn stay(&mut self, running: &Config) {
        let Config { bind, public_url, data_dir, networks, .. } = running.clone();
        (self.bind, self.public_url, self.data_dir, self.networks) = (bind, public_url, data_dir, networks);
        if self.tls.is_some() != running.tls.is_some() {
            self.tls.clone_from(&running.tls);
        }
        if let Some(Tls::Authority(place)) = &mut self.tls {
            place.keep_in(&running.data_dir);
        }
    }

    /// The same, now that the system has chosen the port where the operator wrote port 0.
    pub fn bound_to(mut self, address: SocketAddr) -> Config {
        let scheme = self.scheme();
        if self.public_url == format!("{scheme}://{}", self.bind) {
            self.public_url = format!("{scheme}://{address}");
        }
        self.bind = address;
        self
    }

    /// What a caller's client speaks to us directly: `https` where we have a certificate.
    pub fn scheme(&self) -> &'static str {
        scheme(self.tls.is_some())
    }

    /// Whether any network only pretends to move money.
    pub fn is_simulated(&self) -> bool {
        self.networks.iter().any(|network| matches!(network.settlement, Settlement::Simulated))
    }

    /// Whether what callers see leads to the machine they sit at: then nobody else calls.
    pub fn is_for_this_machine(&self) -> bool {
        is_loopback(&self.public_url)
    }

    /// Whether callers from elsewhere come over plain http, where everybody on the way reads keys and sign-ins along.
    pub fn is_readable_on_the_way(&self) -> bool {
        self.public_url.starts_with("http://") && !self.is_for_this_machine()
    }

    /// Whether all networks are test networks; they never stand together with main ones.
    pub fn is_test(&self) -> bool {
        self.networks.iter().all(|network| is_test_network(&network.id))
    }

    /// A payment on Solana lives for a minute, whatever it says.
    fn check_head_start(&self) -> Result<(), ConfigError> {
        let is_real = |network: &Network| !matches!(network.settlement, Settlement::Simulated);
        let counts_blocks = |network: &&Network| is_real(network) && Family::of_network(&network.id) == Some(Family::Solana);
        match self.networks.iter().find(counts_blocks) {
            Some(network) if self.payments.order == Order::Overlap && self.payments.settle_after > LONGEST_ON_SOLANA => {
                let most = LONGEST_ON_SOLANA.as_millis();
                let problem =
                    format!("at most {most} where {} is sold on: a payment there must be settled within a minute", network.id);
                Err(bad("payments.settle_after_ms", problem))
            }
            _ => Ok(()),
        }
    }

    fn check_networks(&self) -> Result<(), ConfigError> {
        let ids: HashSet<_> = self.networks.iter().map(|network| network.id.as_str()).collect();
        if ids.len() < self.networks.len() {
            return Err(bad("network.id", "the same network stands there twice"));
        }
        if self.is_simulated() && !self.bind.ip().is_loopback() {
            return Err(bad("network.settlement", "simulated money is for loopback only; bind to 127.0.0.1 or settle for real"));
        }
        if self.is_simulated() && self.networks.iter().any(|network| !matches!(network.settlement, Settlement::Simulated)) {
            return Err(bad(
                "network.settlement",
                "simulated and real money never share a ledger; simulate all networks or none",
            ));
        }
        if self.is_simulated() && (!is_loopback(&self.public_url) || !self.trusted_proxies.is_empty()) {
            let problem = "it or server.trusted_proxies leads callers here from elsewhere, and simulated money is for loopback only; settle for real";
            return Err(bad("server.public_url", problem));
        }
        let simulated = |network: &&Network| matches!(network.settlement, Settlement::Simulated);
        if let Some(main) = self.networks.iter().filter(simulated).find(|network| !is_test_network(&network.id)) {
            let problem = format!("money on {} is real and never simulated; use its test network", main.id);
            return Err(bad("network.settlement", problem));
        }
        if let Some(test) = self.networks.iter().find(|network| is_test_network(&network.id))
            && let Some(main) = self.networks.iter().find(|network| !is_test_network(&network.id))
        {
            return Err(bad("network.id", format!("{} is a test network and {} is not; never sell for both", test.id, main.id)));
        }
        Ok(())
    }
}

/// What is wrong with the text, by line and key. The rest of the line is not repeated: somebody may have typed a secret there.
fn unreadable(text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or_default();
    let line = text.lines().nth(before.matches('\n').count()).unwrap_or_default();
    let key = line.split_once('=').map(|(key, _)| key.trim()).unwrap_or_default();
    let key = if key.is_empty() { "config" } else { key };
    ConfigError { line: Some(before.matches('\n').count() + 1), ..bad(key, error.message()) }
}

fn upstreams(rows: &[file::Upstream], folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Upstream>, ConfigError> {
    let mut names = HashSet::new();
    rows.iter()
        .map(|row| {
            let key = |field: &str| format!("upstream {:?}, {field}", row.name);
            if !names.insert(&row.name) {
                return Err(bad(key("name"), "the same name stands there twice"));
            }
            let kind = match (row.kind, &row.base_url) {
                (Some(file::UpstreamKind::Echo), _) => UpstreamKind::Echo,
                (None, None) => return Err(bad(key("base_url"), "where the upstream is, such as https://api.openai.com")),
                (None, Some(url)) => {
                    http_url(url).map_err(|why| bad(key("base_url"), why))?;
                    let api_key = row.api_key.as_deref().map(|source| Secret::load(source, folder, env)).transpose();
                    let ca_file = row.ca_file.as_ref().map(|path| folder.join(path));
                    let base_url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
                    UpstreamKind::Http {
                        limit_field: limit_field(row, &base_url),
                        base_url,
                        api_key: api_key.map_err(|why| bad(key("api_key"), why))?,
                        ca_file,
                        media_hosts: row
                            .media_hosts
                            .iter()
                            .map(|host| media_host(host).map_err(|why| bad(key("media_hosts"), why)))
                            .collect::<Result<_, _>>()?,
                    }
                }
            };
            if row.speaks.is_empty() {
                return Err(bad(key("speaks"), "say which dialects it speaks, such as [\"chat\", \"messages\"]"));
            }
            Ok(Upstream { name: row.name.clone(), kind, speaks: row.speaks.clone() })
        })
        .collect()
}

/// What the operator says, else what the newer models of OpenAI itself insist on, else what everybody knows.
/// The address that a media host stands for. Exactly one, and on https: what comes from there is passed on as what was bought.
fn media_host(host: &str) -> Result<String, String> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let url = format!("https://{host}");
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    match plain && http_url(&url).is_ok() {
        true => Ok(url.to_ascii_lowercase()),
        false => Err(format!("{host:?} is no host's name such as \"media.example.com\"; results are fetched over https")),
    }
}

fn limit_field(row: &file::Upstream, base_url: &str) -> LimitField {
    match row.output_limit_field {
        Some(file::OutputLimitField::MaxTokens) => LimitField::MaxTokens,
        Some(file::OutputLimitField::MaxCompletionTokens) => LimitField::MaxCompletionTokens,
        None if base_url == "https://api.openai.com" => LimitField::MaxCompletionTokens,
        None => LimitField::MaxTokens,
    }
}

fn limits(row: &file::Limits) -> Result<Limits, ConfigError> {
    if !(1..=3600).contains(&row.body_seconds) {
        return Err(bad("limits.body_seconds", "between 1 and 3600"));
    }
    if !(1..=3600).contains(&row.wall_clock_seconds) {
        return Err(bad("limits.wall_clock_seconds", "between 1 and 3600"));
    }
    if row.streams == 0 || !(1..=1024).contains(&row.max_body_mb) {
        return Err(bad("limits", "streams is at least 1, max_body_mb between 1 and 1024"));
    }
    let buckets = [
        row.per_ip_per_second,
        row.per_ip_burst,
        row.per_account_per_second,
        row.per_account_burst,
        row.payments_per_ip_per_minute,
        row.key_changes_per_ip_per_minute,
        row.top_ups_per_ip_per_minute,
        row.balance_reads_per_minute,
        row.statement_reads_per_minute,
        row.job_polls_per_minute,
    ];
    if buckets.contains(&0) || row.connections_per_ip == 0 {
        return Err(bad("limits", "a bucket of zero would refuse everybody"));
    }
    if !(1..=3650).contains(&row.jobs_kept_days) {
        return Err(bad("limits.jobs_kept_days", "between 1 and 3650"));
    }
    // A quarter for one address, and a body may be there four times: with less it would never be taken.
    if row.max_bodies_mb < row.max_body_mb.saturating_mul(16) {
        return Err(bad("limits.max_bodies_mb", "at least sixteen times max_body_mb"));
    }
    Ok(Limits {
        per_ip_per_second: row.per_ip_per_second,
        per_ip_burst: row.per_ip_burst,
        per_account_per_second: row.per_account_per_second,
        per_account_burst: row.per_account_burst,
        connections_per_ip: row.connections_per_ip,
        payments_per_ip_per_minute: row.payments_per_ip_per_minute,
        key_changes_per_ip_per_minute: row.key_changes_per_ip_per_minute,
        top_ups_per_ip_per_minute: row.top_ups_per_ip_per_minute,
        balance_reads_per_minute: row.balance_reads_per_minute,
        statement_reads_per_minute: row.statement_reads_per_minute,
        job_polls_per_minute: row.job_polls_per_minute,
        jobs_kept: Duration::from_secs(row.jobs_kept_days * 24 * 3600),
        streams: row.streams,
        streams_per_account: row.streams_per_account.max(1),
        max_body: row.max_body_mb.saturating_mul(1024 * 1024),
        max_bodies: row.max_bodies_mb.saturating_mul(1024 * 1024),
        body_time: Duration::from_secs(row.body_seconds),
        wall_clock: Duration::from_secs(row.wall_clock_seconds),
    })
}

fn payments(row: &file::Payments) -> Result<Payments, ConfigError> {
    // A stock buyer signs for exactly this long, and a payment must outlive the head start of the upstream.
    if !(60 + row.settle_after_ms.div_ceil(1000)..=3600).contains(&row.max_timeout_seconds) {
        return Err(bad("payments.max_timeout_seconds", "between 60 s more than settle_after_ms, and 3600"));
    }
    if row.settle_after_ms > 60_000 || !(1..=600_000).contains(&row.settle_wait_ms) {
        return Err(bad("payments", "settle_after_ms is at most 60000, settle_wait_ms between 1 and 600000"));
    }
    Ok(Payments {
        order: match row.payg_order {
            file::PaygOrder::Overlap => Order::Overlap,
            file::PaygOrder::SettleFirst => Order::SettleFirst,
        },
        settle_after: Duration::from_millis(row.settle_after_ms),
        settle_wait: Duration::from_millis(row.settle_wait_ms),
        remainder: match row.payg_remainder {
            file::PaygRemainder::Credit => Remainder::Credit,
            file::PaygRemainder::Keep => Remainder::Keep,
        },
        max_timeout_seconds: row.max_timeout_seconds,
        failed_settlements_per_day: row.failed_settlements_per_day,
        failed_transfers_per_day: row.failed_transfers_per_day,
        hold_durable_above: Micros::parse_usd(&row.hold_durable_above).map_err(|why| bad("payments.hold_durable_above", why))?,
    })
}

/// Not where callers are served: what stands there is for the operator alone.
fn metrics(text: Option<&str>, bind: SocketAddr) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let address: SocketAddr = text.parse().map_err(|_| bad("server.metrics", "write ADDRESS:PORT, such as 127.0.0.1:9402"))?;
    if address.port() != 0 && address.port() == bind.port() {
        return Err(bad(
            "server.metrics",
            format!("port {} is server.bind's; callers must not read it, so give it another", bind.port()),
        ));
    }
    Ok(Some(address))
}

fn scheme(has_tls: bool) -> &'static str {
    if has_tls { "https" } else { "http" }
}

fn public_url(server: &file::Server, bind: SocketAddr) -> Result<String, ConfigError> {
    let named = server.tls.as_ref().and_then(|tls| Some(format!("https://{}", tls.names.as_ref()?.first()?)));
    let text = server.public_url.as_deref().or(named.as_deref());
    if text.is_none() && bind.ip().is_unspecified() {
        let problem = format!(
            "{bind} is no address that callers see, and sign-ins are signed for one; write public_url = \"https://your.name\""
        );
        return Err(bad("server.public_url", problem));
    }
    let url = text.map_or_else(|| format!("{}://{bind}", scheme(server.tls.is_some())), str::to_owned);
    http_url(&url).map_err(|why| bad("server.public_url", why))?;
    Ok(url.trim_end_matches('/').to_owned())
}

/// Whether a URL that [`http_url`] accepts leads to the machine it is used on.
fn is_loopback(url: &str) -> bool {
    let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn http_url(url: &str) -> Result<(), String> {
    match url.contains(['?', '#']) {
        // What stands there may be a secret, so it is not repeated.
        true => Err("a URL without ? and #".into()),
        false => node_url(url),
    }
}

/// Node providers put their key into the path or the query.
fn node_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    let plain = !url.contains(['#', '@']) && url.bytes().all(|b| b.is_ascii_graphic());
    if host.is_empty() || !plain {
        return Err("not a plain http:// or https:// URL; one with a user and password is not used".into());
    }
    Ok(())
}

fn cidr(text: &str) -> Result<Cidr, ConfigError> {
    let parsed = (|| {
        let (address, prefix) = text.split_once('/').unzip();
        let address: std::net::IpAddr = address.unwrap_or(text).parse().ok()?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(widest), str::parse).ok().filter(|prefix| *prefix <= widest)?;
        Some(Cidr { address, prefix })
    })();
    parsed.ok_or_else(|| bad("server.trusted_proxies", format!("{text:?} is not an address range such as 10.0.0.0/8")))
}

impl Cidr {
    pub fn contains(&self, other: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        let (mine, theirs, width) = match (self.address, other) {
            (V4(a), V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
            (V6(a), V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let shift = width - u32::from(self.prefix);
        shift == 128 || mine >> shift == theirs >> shift
    }
}
