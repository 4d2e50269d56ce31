//! The configuration as it is in effect, defaults included, for its operator to read: no secret, and no key within a URL.

use serde_json::{Value, json};

use super::{Config, Network, Order, Remainder, Settlement, Upstream, UpstreamKind};
use crate::catalogue::{Model, Serving};

/// What stands for a secret.
const MASKED: &str = "…";

impl Config {
    /// As JSON, without anything that only the operator may know.
    pub fn shown(&self) -> Value {
        let cidr = |range: &super::Cidr| format!("{}/{}", range.address, range.prefix);
        json!({
            "server": {
                "bind": self.bind.to_string(),
                "public_url": self.public_url,
                "trusted_proxies": self.trusted_proxies.iter().map(cidr).collect::<Vec<_>>(),
                "data_dir": self.data_dir.display().to_string(),
                "metrics": self.metrics.map(|address| address.to_string()),
            },
            "network": self.networks.iter().map(network).collect::<Vec<_>>(),
            "upstream": self.upstreams.iter().map(upstream).collect::<Vec<_>>(),
            "model": self.catalogue.models().iter().map(model).collect::<Vec<_>>(),
            "limits": self.limits_shown(),
            "payments": self.payments_shown(),
            "prepaid": self.prepaid_shown(),
            "failover": {
                "failures": self.failover.failures,
                "pause_ms": millis(self.failover.pause),
                "longest_pause_ms": millis(self.failover.longest_pause),
            },
            "webhook": self.webhooks.iter().map(|webhook| json!({
                "url": without_keys(&webhook.url),
                "secret": MASKED,
                "events": webhook.events.iter().map(|event| event.name()).collect::<Vec<_>>(),
                "low_balance": webhook.low_balance.to_string(),
            })).collect::<Vec<_>>(),
        })
    }

    fn limits_shown(&self) -> Value {
        let limits = &self.limits;
        json!({
            "per_ip_per_second": limits.per_ip_per_second,
            "per_ip_burst": limits.per_ip_burst,
            "payments_per_ip_per_minute": limits.payments_per_ip_per_minute,
            "top_ups_per_ip_per_minute": limits.top_ups_per_ip_per_minute,
            "key_changes_per_ip_per_minute": limits.key_changes_per_ip_per_minute,
            "balance_reads_per_minute": limits.balance_reads_per_minute,
            "statement_reads_per_minute": limits.statement_reads_per_minute,
            "job_polls_per_minute": limits.job_polls_per_minute,
            "streams": limits.streams,
            "streams_per_account": limits.streams_per_account,
            "max_body_bytes": limits.max_body,
            "max_bodies_bytes": limits.max_bodies,
            "body_seconds": limits.body_time.as_secs(),
            "wall_clock_seconds": limits.wall_clock.as_secs(),
            "jobs_kept_seconds": limits.jobs_kept.as_secs(),
        })
    }

    fn payments_shown(&self) -> Value {
        let payments = &self.payments;
        json!({
            "payg_order": match payments.order { Order::Overlap => "overlap", Order::SettleFirst => "settle-first" },
            "payg_remainder": match payments.remainder { Remainder::Credit => "credit", Remainder::Keep => "keep" },
            "settle_after_ms": millis(payments.settle_after),
            "settle_wait_ms": millis(payments.settle_wait),
            "max_timeout_seconds": payments.max_timeout_seconds,
            "failed_settlements_per_day": payments.failed_settlements_per_day,
            "failed_transfers_per_day": payments.failed_transfers_per_day,
            "hold_durable_above": payments.hold_durable_above.to_string(),
        })
    }

    fn prepaid_shown(&self) -> Value {
        let prepaid = &self.prepaid;
        json!({
            "top_up_minimum": prepaid.top_up_minimum.to_string(),
            "top_up_suggested": prepaid.top_up_suggested.to_string(),
            "top_up_maximum": prepaid.top_up_maximum.to_string(),
            "top_up_wait_ms": millis(prepaid.top_up_wait),
            "hold_output": prepaid.hold_output,
            "keys_per_account": prepaid.keys_per_account,
            "sign_in_statement": prepaid.sign_in_statement,
        })
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn network(network: &Network) -> Value {
    let urls = |urls: &[String]| urls.iter().map(|url| without_keys(url)).collect::<Vec<_>>();
    let how = match &network.settlement {
        Settlement::Rpc { urls: nodes, .. } => json!({ "settlement": "rpc", "rpc_urls": urls(nodes), "settler_key": MASKED }),
        Settlement::Facilitator { url, authorization, rpc_urls } => json!({
            "settlement": "facilitator",
            "facilitator_url": without_keys(url),
            "facilitator_authorization": authorization.as_ref().map(|_| MASKED),
            "rpc_urls": urls(rpc_urls),
        }),
        Settlement::Simulated => json!({ "settlement": "simulated" }),
    };
    let mut shown = json!({
        "id": network.id,
        "pay_to": network.pay_to,
        "asset": network.asset,
        "confirmations": network.confirmations,
        "safe_above": network.safe_above.to_string(),
        "coin_usd": network.coin_usd.map(|price| price.to_string()),
        "surcharge": network.surcharge.to_string(),
        "max_fee_gwei": u64::try_from(network.max_fee_per_gas / 1_000_000_000).unwrap_or(u64::MAX),
    });
    if let (Value::Object(shown), Value::Object(how)) = (&mut shown, how) {
        shown.extend(how);
    }
    shown
}

fn upstream(upstream: &Upstream) -> Value {
    let speaks = upstream.speaks.iter().map(|word| format!("{word:?}").to_lowercase()).collect::<Vec<_>>();
    match &upstream.kind {
        UpstreamKind::Echo => json!({ "name": upstream.name, "kind": "echo", "speaks": speaks }),
        UpstreamKind::Http { base_url, api_key, .. } => json!({
            "name": upstream.name, "base_url": base_url, "api_key": api_key.as_ref().map(|_| MASKED), "speaks": speaks,
        }),
    }
}

fn model(model: &Model) -> Value {
    let serving =
        |serving: &Serving| json!({ "name": serving.upstream, "model": serving.model, "weight": serving.weight.map(u32::from) });
    json!({
        "id": model.id,
        "kind": model.kind.name(),
        "upstreams": model.upstreams.iter().map(serving).collect::<Vec<_>>(),
        "ordinary_quote": model.typical_quote().to_string(),
        "max_output": model.max_output,
        "default_output": model.default_output,
    })
}

/// Scheme, host and port of a URL: nodes and programs have keys in the rest.
fn without_keys(url: &str) -> String {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(host..).and_then(|rest| rest.find(['/', '?'])).map_or(url.len(), |at| host + at);
    let (origin, rest) = url.split_at_checked(end).unwrap_or((url, ""));
    if rest.len() > 1 { format!("{origin}/{MASKED}") } else { origin.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::without_keys;

    #[test]
    fn of_a_url_only_the_address_is_shown() {
        for (url, shown) in [
            ("https://node.example/v2/secret", "https://node.example/…"),
            ("https://node.example:8545?key=secret", "https://node.example:8545/…"),
            ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
            ("http://127.0.0.1:8545/", "http://127.0.0.1:8545"),
        ] {
            assert_eq!(without_keys(url), shown);
        }
    }
}
