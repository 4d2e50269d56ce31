//! `farebox check`: is the configuration right, does everything that it names answer, and what is in effect.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{BAD_CONFIGURATION, FOUND_A_PROBLEM, machine_clock, operator, say};
use crate::catalogue::Model;
use crate::chain::{Attempt, ChainError, Chains, Journal, JournalClosed, JournalFuture, NetworkStatus, Settlement};
use crate::config::{self, Config, line_of};
use crate::gateway;
use crate::http;
use crate::ids::PaymentId;
use crate::metrics::Value as Number;
use crate::money::Micros;
use crate::upstream::{Probe, Upstreams};
use crate::webhooks;

/// How long an upstream may take to list its models.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
pub struct Arguments {
    /// Print all of it as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Failure,
}

/// One thing that was looked at.
struct Finding {
    level: Level,
    what: String,
    /// What is so, and what to do where it is wrong.
    said: String,
    line: Option<usize>,
}

/// What was found, and whether the configuration itself is at fault.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    unusable: bool,
}

impl Findings {
    fn add(&mut self, level: Level, what: impl Into<String>, said: impl Into<String>) {
        self.list.push(Finding { level, what: what.into(), said: said.into(), line: None });
    }

    /// The configuration cannot be used.
    fn refuse(&mut self, key: String, said: String, line: Option<usize>) {
        self.unusable = true;
        self.list.push(Finding { level: Level::Failure, what: key, said, line });
    }

    fn code(&self) -> u8 {
        match self.list.iter().any(|finding| finding.level == Level::Failure) {
            _ if self.unusable => BAD_CONFIGURATION,
            true => FOUND_A_PROBLEM,
            false => 0,
        }
    }
}

pub fn run(arguments: &Arguments, path: &Path) -> ExitCode {
    let mut findings = Findings::default();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let config = match Config::load(path, &|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(error) => {
            findings.refuse(error.key, error.problem, error.line);
            return print(arguments, &findings, path, None);
        }
    };
    here(&config, &text, &mut findings);
    actix_web::rt::System::new().block_on(everywhere(&config, &text, &mut findings));
    print(arguments, &findings, path, Some(&config))
}

/// What can be told without asking anybody.
fn here(config: &Config, text: &str, findings: &mut Findings) {
    findings.add(Level::Ok, "configuration", format!("{} models on sale", config.catalogue.models().len()));
    if let Err(wrong) = gateway::operators(&config.operators) {
        let line = line_of(text, &wrong.key);
        findings.refuse(wrong.key, wrong.problem, line);
    }
    if config.is_simulated() {
        findings.add(Level::Warning, "money", "it is simulated: no USDC moves; settle by rpc or facilitator to sell for real");
    }
    if config.is_readable_on_the_way() {
        let said =
            "callers come over plain http, where keys and sign-ins are read along; put a TLS proxy in front and write https://";
        findings.add(Level::Warning, "server.public_url", said);
    }
    if let Some(config::Tls::Authority(place)) = &config.tls
        && !place.names.iter().any(|name| config.public_url == format!("https://{name}"))
    {
        let said = format!("the certificate is for {}, and callers are told another name", place.names.join(", "));
        findings.add(Level::Warning, "server.public_url", said);
    }
    if config.networks.is_empty() {
        findings.add(Level::Warning, "network", "there is none, so nobody can pay; add a [[network]]");
    }
    if config.catalogue.models().is_empty() {
        findings.add(Level::Warning, "model", "there is none, so nothing is sold; examples/catalogue.toml has many");
    }
    for (model, said) in config::below_cost(text) {
        let line = line_of(text, &format!("model {model:?}, price"));
        findings.list.push(Finding { level: Level::Warning, what: format!("model {model:?}"), said, line });
    }
    data_dir(config, findings);
    if let Err(why) = webhooks::open(&config.webhooks, machine_clock()).1.deliver().map(drop) {
        findings.refuse("webhook".into(), why, None);
    }
}

/// Looks at the folder of the books, and makes none.
fn data_dir(config: &Config, findings: &mut Findings) {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, what) = (&config.data_dir, "server.data_dir");
    let shown = folder.display();
    match std::fs::metadata(folder) {
        Ok(found) if !found.is_dir() => findings.refuse(what.into(), format!("{shown} is no folder"), None),
        Ok(found) => {
            if let Some(problem) = operator::somebody_elses(folder) {
                findings.add(Level::Warning, what, problem);
            } else if let Err(error) = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK) {
                findings.add(Level::Failure, what, format!("{shown} cannot be written: {error}; chown or remount it"));
            } else if found.permissions().mode() & 0o077 != 0 {
                findings.add(Level::Warning, what, format!("{shown} is open to other users; run chmod 700 {shown}"));
            } else {
                findings.add(Level::Ok, what, format!("{shown} is there"));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            findings.add(Level::Ok, what, format!("{shown} is made by the first start"));
        }
        Err(error) => findings.add(Level::Failure, what, format!("{shown}: {error}")),
    }
}

/// What others have to say: nodes, facilitators, upstreams. Nobody is paid and nothing is bought.
async fn everywhere(config: &Config, text: &str, findings: &mut Findings) {
    match Chains::start(&config.networks, Arc::new(Nothing), machine_clock()) {
        Ok(chains) => chains.networks().iter().for_each(|network| judge(config, network, findings)),
        Err(ChainError::Config { network, field, why }) => {
            let key = format!("network {network:?}, {field}");
            let line = line_of(text, &key);
            findings.refuse(key, why, line);
        }
        Err(error) => findings.add(Level::Failure, "network", error.to_string()),
    }
    let upstreams = match Upstreams::new(&config.upstreams) {
        Ok(upstreams) => upstreams,
        Err(error) => {
            let key = format!("upstream {:?}, {}", error.name, error.key);
            let line = line_of(text, &key);
            return findings.refuse(key, error.why, line);
        }
    };
    if let Some(place) = &config.tls {
        certificate(place, config, text, findings).await;
    }
    let deadline = Instant::now() + PATIENCE;
    let asked = config.upstreams.iter().map(|upstream| upstreams.probe(&upstream.name, deadline));
    let answers = futures_util::future::join_all(asked).await;
    for (upstream, probe) in config.upstreams.iter().zip(answers) {
        if let Some(probe) = probe {
            heard(config, &upstream.name, &probe, findings);
        }
    }
}

/// Looks at the certificate that callers are shown, and whether the authority answers that gives the next.
async fn certificate(place: &config::Tls, config: &Config, text: &str, findings: &mut Findings) {
    let what = "server.tls";
    match http::Certificate::open(place, machine_clock()).map(|certificate| certificate.standing()) {
        Ok((http::Standing::Good, said)) => findings.add(Level::Ok, what, said),
        Ok((http::Standing::EndsSoon, said)) => findings.add(Level::Warning, what, said),
        Ok((http::Standing::Untimely, said)) => findings.add(Level::Failure, what, said),
        // The first start asks for it.
        Ok((http::Standing::Missing, _)) => {}
        // What an authority gave is in `data_dir`, and only its owner reads that: said already.
        Err(_) if matches!(place, config::Tls::Authority(_)) && operator::somebody_elses(&config.data_dir).is_some() => {}
        Err(why) => findings.refuse(what.into(), why, line_of(text, what)),
    }
    let config::Tls::Authority(place) = place else { return };
    match http::looked_up(place).await {
        Ok(()) => {
            let said = format!("{} answers; it is asked for {}", place.directory, place.names.join(", "));
            findings.add(Level::Ok, what, said);
        }
        Err(why) => findings.add(Level::Failure, what, why),
    }
}

fn judge(config: &Config, network: &NetworkStatus, findings: &mut Findings) {
    let what = format!("network {}", network.id);
    match &network.sellable {
        Err(why) => findings.add(Level::Failure, &what, format!("nothing can be sold on it: {why}")),
        Ok(()) => findings.add(Level::Ok, &what, format!("{}, paid to {}", network.settlement, network.pay_to)),
    }
    if let Some(purse) = &network.purse {
        let coins = |units| Number::Coins(units, purse.digits);
        let (has, needs) = (coins(purse.has), coins(purse.needs));
        let said = format!("the settler {} has {has} for gas; below {needs} nothing is sold", purse.address);
        match purse.is_low() {
            true => findings.add(Level::Warning, &what, format!("{said}: send it some soon")),
            false => findings.add(Level::Ok, &what, said),
        }
    }
    let Some(gas) = network.gas else { return };
    let own = config.networks.iter().find(|own| own.id == network.id);
    let surcharge = own.map_or(0, |own| own.surcharge.get());
    let quoted = |model: &Model| Micros::new(model.typical_quote().get().saturating_add(surcharge));
    for model in config.catalogue.models().iter().filter(|model| quoted(model) < gas) {
        let (id, quote) = (&model.id, quoted(model));
        let said = format!(
            "an ordinary call of {id} is quoted {quote} USDC, less than the gas of its settlement ({gas}); set surcharge"
        );
        findings.add(Level::Warning, &what, said);
    }
}

fn heard(config: &Config, name: &str, probe: &Probe, findings: &mut Findings) {
    let what = format!("upstream {name:?}");
    match probe {
        Probe::BuiltIn => findings.add(Level::Ok, what, "built in"),
        Probe::Lists(models) => {
            let servings = config.catalogue.models().iter().flat_map(|model| &model.upstreams);
            let missing: Vec<_> = servings
                .filter(|serving| serving.upstream == name && !models.contains(&serving.model))
                .map(|serving| serving.model.as_str())
                .collect();
            findings.add(Level::Ok, &what, format!("answers, takes the key and lists {} models", models.len()));
            if !models.is_empty() && !missing.is_empty() {
                findings.add(Level::Warning, &what, format!("does not list {}; is that its name there?", missing.join(", ")));
            }
        }
        Probe::Answers(status) => {
            let said = format!("answers ({status} to GET /v1/models); whether it takes the key shows at the first call");
            findings.add(Level::Ok, what, said);
        }
        Probe::Refuses(status) => {
            findings.add(Level::Failure, what, format!("does not take the key ({status}); look at its api_key"));
        }
        Probe::Fails(status) => {
            findings.add(Level::Failure, what, format!("fails ({status} to GET /v1/models); ask again later, or its operator"));
        }
        Probe::Silent(why) => {
            findings.add(Level::Failure, what, format!("cannot be reached: {why}; look at its base_url and at your network"));
        }
    }
}

fn print(arguments: &Arguments, findings: &Findings, path: &Path, config: Option<&Config>) -> ExitCode {
    let effective = config.map(Config::shown);
    let printed = match arguments.json {
        true => say::out(format_args!("{:#}", json_of(findings, effective.as_ref()))),
        false => lines(findings, path, effective.as_ref()),
    };
    match printed {
        Ok(()) => ExitCode::from(findings.code()),
        Err(problem) => {
            say::err(format_args!("farebox: {problem}"));
            ExitCode::from(FOUND_A_PROBLEM)
        }
    }
}

fn json_of(findings: &Findings, effective: Option<&Value>) -> Value {
    let shown = |Finding { level, what, said, line }: &Finding| json!({ "level": word(*level).to_lowercase(), "what": what, "said": said, "line": line });
    let list: Vec<_> = findings.list.iter().map(shown).collect();
    json!({ "ok": findings.code() == 0, "findings": list, "configuration": effective })
}

fn lines(findings: &Findings, path: &Path, effective: Option<&Value>) -> Result<(), String> {
    if let Some(effective) = effective {
        say::out(format_args!("In effect, with defaults and without secrets:\n{effective:#}\n"))?;
    }
    for Finding { level, what, said, line } in &findings.list {
        let line = line.map(|line| format!("{}:{line}: ", path.display())).unwrap_or_default();
        say::out(format_args!("{:8}{line}{what}: {said}", word(*level)))?;
    }
    Ok(())
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Failure => "FAILURE",
    }
}

/// No payment is settled by a check.
struct Nothing;

impl Journal for Nothing {
    fn signed(&self, _: PaymentId, _: Attempt) -> JournalFuture {
        Box::pin(async { Err(JournalClosed) })
    }

    fn sent(&self, _: PaymentId) {}

    fn wasted(&self, _: PaymentId) {}

    fn settled(&self, _: PaymentId, _: Settlement) -> JournalFuture {
        Box::pin(async { Err(JournalClosed) })
    }

    fn forgotten(&self, _: PaymentId) {}

    fn unconfirmed(&self, _: PaymentId) {}

    fn finalized(&self, _: PaymentId) {}
}
