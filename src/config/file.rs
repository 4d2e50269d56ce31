//! The shape of config.toml as it is typed; unknown keys are refused, so that a misspelt one is noticed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub server: Server,
    #[serde(default)]
    pub network: Vec<Network>,
    #[serde(default)]
    pub upstream: Vec<Upstream>,
    #[serde(default)]
    pub model: Vec<Model>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub payments: Payments,
    #[serde(default)]
    pub prepaid: Prepaid,
    #[serde(default)]
    pub failover: Failover,
    #[serde(default)]
    pub webhook: Vec<Webhook>,
}

/// See `config::Webhook`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    pub url: String,
    pub secret: Option<String>,
    pub events: Option<Vec<super::Occasion>>,
    pub low_balance: Option<String>,
    pub ca_file: Option<PathBuf>,
}

/// See `config::Failover`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Failover {
    pub failures: u32,
    pub pause_ms: u64,
    pub longest_pause_ms: u64,
}

impl Default for Failover {
    fn default() -> Self {
        Failover { failures: 5, pause_ms: 5000, longest_pause_ms: 120_000 }
    }
}

/// See `config::Prepaid`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Prepaid {
    pub top_up_minimum: String,
    pub top_up_suggested: String,
    pub top_up_maximum: String,
    pub top_up_wait_ms: u64,
    pub hold_output: u64,
    pub keys_per_account: usize,
    pub sign_in_nonces: super::NoncePolicy,
    pub sign_in_domains: Vec<String>,
    pub sign_in_statement: String,
}

impl Default for Prepaid {
    fn default() -> Self {
        Prepaid {
            top_up_minimum: "1.00".into(),
            top_up_suggested: "10.00".into(),
            top_up_maximum: "10000.00".into(),
            top_up_wait_ms: 60_000,
            hold_output: 4096,
            keys_per_account: 100,
            sign_in_nonces: super::NoncePolicy::PerCharge,
            sign_in_domains: Vec::new(),
            sign_in_statement: "Sign in to Farebox".into(),
        }
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    #[serde(default = "default_bind")]
    pub bind: String,
    pub public_url: Option<String>,
    pub tls: Option<Tls>,
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    #[serde(default)]
    pub operators: Vec<String>,
    pub metrics: Option<String>,
}

/// See `config::Tls`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub certificate: Option<PathBuf>,
    pub key: Option<String>,
    pub names: Option<Vec<String>>,
    pub contact: Option<String>,
    pub authority: Option<String>,
    pub ca_file: Option<PathBuf>,
}

fn default_bind() -> String {
    "127.0.0.1:4020".into()
}

fn default_data_dir() -> PathBuf {
    "data".into()
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub id: String,
    pub pay_to: String,
    pub settlement: Settlement,
    #[serde(default)]
    pub rpc_urls: Vec<String>,
    pub settler_key: Option<String>,
    pub facilitator_url: Option<String>,
    pub facilitator_authorization: Option<String>,
    pub asset: Option<String>,
    pub asset_name: Option<String>,
    pub asset_version: Option<String>,
    #[serde(default)]
    pub confirmations: u64,
    #[serde(default = "default_safe_above")]
    pub safe_above: String,
    pub coin_usd: Option<String>,
    pub surcharge: Option<String>,
    pub max_fee_gwei: Option<u32>,
    pub ca_file: Option<PathBuf>,
}

/// As much as a top-up is suggested to be: one that nobody waits minutes for.
fn default_safe_above() -> String {
    "10.00".into()
}

#[derive(Deserialize, Serialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum Settlement {
    Rpc,
    Facilitator,
    Simulated,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    pub name: String,
    pub kind: Option<UpstreamKind>,
    pub base_url: Option<String>,
    pub api_key: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub output_limit_field: Option<OutputLimitField>,
    #[serde(default)]
    pub media_hosts: Vec<String>,
    #[serde(default)]
    pub speaks: Vec<Speaks>,
}

#[derive(Deserialize, Serialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum UpstreamKind {
    Echo,
}

/// See `dialect::LimitField`.
#[derive(Deserialize, Serialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutputLimitField {
    MaxTokens,
    MaxCompletionTokens,
}

/// A dialect an upstream answers in.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// OpenAI's chat completions.
    Chat,
    /// Anthropic's messages.
    Messages,
    /// OpenAI's responses.
    Responses,
    /// OpenAI's embeddings.
    Embeddings,
    /// OpenAI's image generations and edits.
    Images,
    /// The wallet clients' images: generate, upscale, edit, multi-edit, background-remove.
    Image,
    /// Speech and transcriptions.
    Audio,
    /// The wallet clients' music: queue, retrieve, complete.
    Music,
    /// The wallet clients' video: queue, retrieve, complete, and transcriptions.
    Video,
    /// OpenAI's videos.
    Videos,
    /// The same where an order goes to a path below theirs.
    #[serde(rename = "videos/generations")]
    VideosGenerations,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub id: String,
    #[serde(default)]
    pub kind: ModelKind,
    pub upstreams: Vec<Serving>,
    pub price: Price,
    /// What upstreams ask of the operator.
    pub cost: Option<Price>,
    #[serde(default = "default_output")]
    pub default_output: u32,
    pub max_output: Option<u32>,
    #[serde(default = "default_image_tokens")]
    pub image_tokens: u32,
    #[serde(default)]
    pub hidden_output: bool,
    pub context: Option<u32>,
    #[serde(default = "default_ceiling")]
    pub ceiling: String,
}

fn default_output() -> u32 {
    4096
}

fn default_image_tokens() -> u32 {
    2048
}

fn default_ceiling() -> String {
    "computed".into()
}

/// See `catalogue::Kind`.
#[derive(Deserialize, Serialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
pub(super) enum ModelKind {
    #[default]
    Chat,
    Embedding,
    Image,
    Edit,
    Upscale,
    Speech,
    Transcription,
    Video,
    Music,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Serving {
    pub name: String,
    pub model: String,
    pub weight: Option<NonZeroU32>,
    /// What this one asks, in the place of the model's.
    pub cost: Option<Price>,
}

/// Exact decimal strings: USD per million tokens, and USD per call, image, second or character.
#[derive(Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Price {
    pub input: Option<String>,
    pub output: Option<String>,
    pub cache_read: Option<String>,
    pub cache_write_5m: Option<String>,
    pub cache_write_1h: Option<String>,
    pub call: Option<String>,
    pub long: Option<LongPrice>,
    pub image: Option<Pieces>,
    pub second: Option<Pieces>,
    pub character: Option<Pieces>,
}

/// The prices of all tokens of a call whose prompt has more than `above` of them. What is left out is as for others.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LongPrice {
    pub above: u64,
    pub input: Option<String>,
    pub output: Option<String>,
    pub cache_read: Option<String>,
    pub cache_write_5m: Option<String>,
    pub cache_write_1h: Option<String>,
}

/// One price, or one for each size or quality, where `default` is for all others.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Pieces {
    One(String),
    Table(BTreeMap<String, String>),
}

#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub per_ip_per_second: u32,
    pub per_ip_burst: u32,
    pub per_account_per_second: u32,
    pub per_account_burst: u32,
    pub connections_per_ip: usize,
    pub payments_per_ip_per_minute: u32,
    pub key_changes_per_ip_per_minute: u32,
    pub top_ups_per_ip_per_minute: u32,
    pub balance_reads_per_minute: u32,
    pub statement_reads_per_minute: u32,
    pub job_polls_per_minute: u32,
    pub jobs_kept_days: u64,
    pub streams: usize,
    pub streams_per_account: usize,
    pub max_body_mb: usize,
    pub max_bodies_mb: usize,
    pub body_seconds: u64,
    pub wall_clock_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            per_ip_per_second: 20,
            per_ip_burst: 40,
            per_account_per_second: 200,
            per_account_burst: 2000,
            connections_per_ip: 1000,
            payments_per_ip_per_minute: 60,
            key_changes_per_ip_per_minute: 60,
            top_ups_per_ip_per_minute: 10,
            balance_reads_per_minute: 30,
            statement_reads_per_minute: 20,
            job_polls_per_minute: 600,
            jobs_kept_days: 30,
            streams: 4096,
            streams_per_account: 16,
            max_body_mb: 32,
            max_bodies_mb: 512,
            body_seconds: 120,
            wall_clock_seconds: 240,
        }
    }
}

#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Payments {
    pub payg_order: PaygOrder,
    pub settle_after_ms: u64,
    pub settle_wait_ms: u64,
    pub payg_remainder: PaygRemainder,
    pub max_timeout_seconds: u64,
    pub failed_settlements_per_day: u32,
    pub failed_transfers_per_day: u32,
    pub hold_durable_above: String,
}

impl Default for Payments {
    fn default() -> Self {
        Payments {
            payg_order: PaygOrder::Overlap,
            settle_after_ms: 250,
            settle_wait_ms: 25_000,
            payg_remainder: PaygRemainder::Credit,
            max_timeout_seconds: 300,
            failed_settlements_per_day: 100,
            failed_transfers_per_day: 100,
            hold_durable_above: "0.25".into(),
        }
    }
}

#[derive(Deserialize, Serialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PaygOrder {
    Overlap,
    SettleFirst,
}

#[derive(Deserialize, Serialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum PaygRemainder {
    Credit,
    Keep,
}
