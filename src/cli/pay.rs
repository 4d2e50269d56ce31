//! `farebox pay`: the reference buyer. It asks, shows the quote, signs, streams the answer and prints the receipt.

mod top_up;

use std::process::ExitCode;

use awc::error::SendRequestError;
use awc::http::StatusCode;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::{FOUND_A_PROBLEM, machine_clock, say};
use crate::chain::buyer::{Wallet, check_asset};
use crate::dialect::{Dialect, Event, Splitter};
use crate::error::Code;
use crate::money::Micros;
use crate::x402::names::Family;
use crate::x402::{self, OFFER_HEADER, PAYMENT_HEADERS, RECEIPT_HEADERS, Requirements, Resource};

/// The environment variable with the buyer's private key: of an EVM wallet in hex, of a Solana wallet in base58.
const KEY: &str = "FAREBOX_PAYER_KEY";

#[derive(clap::Args)]
pub struct Arguments {
    /// What to ask.
    #[arg(default_value = "Hello")]
    prompt: String,
    /// The gateway to buy from.
    #[arg(long, default_value = "http://127.0.0.1:4020")]
    url: String,
    /// The model; the first one on sale when left out.
    #[arg(long)]
    model: Option<String>,
    /// Ask in Anthropic's dialect, on /v1/messages.
    #[arg(long)]
    messages: bool,
    /// Ask for one of OpenAI's responses, on /v1/responses.
    #[arg(long, conflicts_with = "messages")]
    responses: bool,
    /// Tokens the answer may have.
    #[arg(long, default_value_t = 1024)]
    max_tokens: u32,
    /// Only sign this offer (the value of a PAYMENT-REQUIRED header) and print the PAYMENT-SIGNATURE for it.
    #[arg(long, value_name = "OFFER")]
    sign: Option<String>,
    /// The most to pay, in USD.
    #[arg(long, default_value = "1.00")]
    max_usd: String,
    /// Buy no call: pay this much, in USD, into the balance of the wallet that pays.
    #[arg(long, value_name = "USD", conflicts_with_all = ["sign", "model", "messages", "responses", "max_tokens", "max_usd", "prompt"])]
    top_up: Option<String>,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    match actix_web::rt::System::new().block_on(Buyer { client: client(), arguments }.buy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say::err(format_args!("farebox: {problem}"));
            ExitCode::from(FOUND_A_PROBLEM)
        }
    }
}

fn client() -> awc::Client {
    awc::Client::builder().disable_redirects().disable_timeout().finish()
}

type Answer = awc::ClientResponse;

struct Buyer<'a> {
    client: awc::Client,
    arguments: &'a Arguments,
}

impl Buyer<'_> {
    async fn buy(&self) -> Result<(), String> {
        if let Some(offer) = &self.arguments.sign {
            return say::out(self.sign(offer).await?);
        }
        if let Some(usd) = &self.arguments.top_up {
            return self.top_up(usd).await;
        }
        let body = self.body().await?;
        let header = self.sign(&self.ask(&body).await?).await?;
        self.call(&body, &header).await
    }

    /// Shows an offer and signs it, if it is not dearer than the buyer's limit.
    async fn sign(&self, offer: &str) -> Result<String, String> {
        let (offer, resource, wallet) = self.payable(offer)?;
        let amount = Micros::parse_units(&offer.amount).ok_or("the offer's amount is not a number")?;
        say::err(format_args!("quote     at most {amount} USDC on {} to {}", offer.network, offer.pay_to));
        let cap = Micros::parse_usd(&self.arguments.max_usd).map_err(|error| format!("--max-usd: {error}"))?;
        if amount > cap {
            return Err(format!(
                "the quote of {amount} USDC is above --max-usd {cap}, so nothing was signed; give a higher --max-usd or ask for less"
            ));
        }
        let wallet = self.wallet(wallet, &offer).await?;
        say::err(format_args!("signing   as {}", wallet.address()));
        let random = random::<32>()?;
        wallet.pay(&offer, resource.as_ref(), random, machine_clock().now()).map_err(|error| error.to_string())
    }

    async fn body(&self) -> Result<Value, String> {
        let arguments = self.arguments;
        let model = match &arguments.model {
            Some(model) => model.clone(),
            None => {
                let list = self.get("/v1/models").await?;
                list["data"][0]["id"].as_str().ok_or("the gateway sells no models")?.to_owned()
            }
        };
        let mut body = json!({ "model": model, "stream": true });
        if self.dialect() == Dialect::Responses {
            body["max_output_tokens"] = arguments.max_tokens.into();
            body["input"] = arguments.prompt.as_str().into();
        } else {
            body["max_tokens"] = arguments.max_tokens.into();
            body["messages"] = json!([{ "role": "user", "content": arguments.prompt }]);
        }
        Ok(body)
    }

    /// Asks without paying; the answer is the offer.
    async fn ask(&self, body: &Value) -> Result<String, String> {
        self.offer(self.post(self.dialect().path()).send_json(body).await).await
    }

    /// The offer of a 402.
    async fn offer(&self, answer: Result<Answer, SendRequestError>) -> Result<String, String> {
        let mut response = answer.map_err(|error| self.unreachable(&error.to_string()))?;
        let header = response.headers().get(OFFER_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let quoted = response.status().as_u16() == Code::PaymentRequired.row().status;
        match header.filter(|_| quoted) {
            Some(offer) => Ok(offer),
            None => Err(format!("no quote: {}", refusal(response.status(), &response.body().await.unwrap_or_default()))),
        }
    }

    /// The first way to pay in an offer that this buyer knows and that the wallet of the environment can take, and that wallet.
    fn payable(&self, offer: &str) -> Result<(Requirements, Option<Resource>, Option<Wallet>), String> {
        let wallet = match std::env::var(KEY) {
            Ok(text) => Some(Wallet::parse(&text).map_err(|error| format!("{KEY}: {error}"))?),
            Err(_) => None,
        };
        let (offer, resource) = payable(offer, wallet.as_ref().map(Wallet::family))?;
        check_asset(&offer).map_err(|error| error.to_string())?;
        Ok((offer, resource, wallet))
    }

    /// The wallet of the environment, or a fresh throw-away one where money is simulated.
    async fn wallet(&self, wallet: Option<Wallet>, offer: &Requirements) -> Result<Wallet, String> {
        if let Some(wallet) = wallet {
            return Ok(wallet);
        }
        let health = self.get("/healthz").await?;
        let networks = health["networks"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !networks.iter().any(|network| network["id"] == offer.network.as_str() && network["settlement"] == "simulated") {
            return Err(format!("money on {} is real: set {KEY} to the private key that pays", offer.network));
        }
        let family = Family::of_network(&offer.network).ok_or("the offer's network is of no known family")?;
        let (wallet, key) = Wallet::fresh(family, &random::<32>()?).map_err(|error| error.to_string())?;
        say::err(format_args!(
            "wallet    a throw-away one, because money on {} is simulated; keep it with {KEY}={}",
            offer.network, *key
        ));
        Ok(wallet)
    }

    async fn call(&self, body: &Value, header: &str) -> Result<(), String> {
        let request = self.post(self.dialect().path()).insert_header((PAYMENT_HEADERS[0], header));
        let mut response = request.send_json(body).await.map_err(|error| self.unreachable(&error.to_string()))?;
        let read = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (receipt, request_id) = (read(RECEIPT_HEADERS[0]), read("x-request-id"));
        let result = match response.status() {
            StatusCode::OK => {
                say::err(format_args!("answer"));
                self.print(response).await
            }
            status => Err(refusal(status, &response.body().await.unwrap_or_default())),
        };
        print_receipt(receipt.as_deref(), request_id.as_deref());
        result
    }

    /// Prints the text of the answer as it comes. Only the dialect's own terminator makes it complete.
    async fn print(&self, mut response: Answer) -> Result<(), String> {
        let mut splitter = Splitter::new();
        let mut complete = false;
        while let Some(chunk) = response.next().await {
            let chunk = chunk.map_err(|error| format!("the answer broke off: {error}"))?;
            for event in splitter.push(chunk) {
                let event = event.map_err(|error| error.to_string())?;
                complete |= print_event(self.dialect(), &event)?;
            }
        }
        say::out("")?;
        if complete { Ok(()) } else { Err("the answer broke off before it was complete".into()) }
    }

    fn dialect(&self) -> Dialect {
        match self.arguments {
            Arguments { messages: true, .. } => Dialect::Messages,
            Arguments { responses: true, .. } => Dialect::Responses,
            _ => Dialect::Chat,
        }
    }

    fn post(&self, path: &str) -> awc::ClientRequest {
        self.client.post(format!("{}{path}", self.base())).insert_header(("anthropic-version", "2023-06-01"))
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        let mut response = self
            .client
            .get(format!("{}{path}", self.base()))
            .send()
            .await
            .map_err(|error| self.unreachable(&error.to_string()))?;
        response.json().await.map_err(|error| format!("{path}: {error}"))
    }

    fn base(&self) -> &str {
        self.arguments.url.trim_end_matches('/')
    }

    fn unreachable(&self, cause: &str) -> String {
        format!("no answer from {}: {cause}; is the gateway running?", self.base())
    }
}

/// The first way to pay in an offer that this buyer knows, of one family if only that can be paid.
fn payable(offer: &str, only: Option<Family>) -> Result<(Requirements, Option<Resource>), String> {
    let bytes = x402::decode_base64(offer)
        .map_err(|what| format!("the offer is {what}; give the value of PAYMENT-REQUIRED as it came"))?;
    let offer: Value = serde_json::from_slice(&bytes).map_err(|error| format!("the offer is not JSON: {error}"))?;
    let accepts = offer["accepts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut known = accepts.iter().filter_map(|entry| Requirements::from_json(entry).ok());
    let payable = known.find(|entry| {
        let family = Family::of_network(&entry.network);
        entry.scheme == "exact" && family.is_some() && (only.is_none() || family == only)
    });
    let resource = serde_json::from_value(offer["resource"].clone()).ok();
    let networks = match only {
        Some(Family::Evm) => "EVM networks (eip155:…), because its key is of one",
        Some(Family::Solana) => "Solana (solana:…), because its key is of that",
        None => "EVM networks (eip155:…) and Solana (solana:…)",
    };
    Ok((payable.ok_or_else(|| format!("this buyer pays \"exact\" on {networks}, and the offer has no such entry"))?, resource))
}

/// Prints the text an event carries; true when it is the terminator.
fn print_event(dialect: Dialect, event: &Event) -> Result<bool, String> {
    if event.data() == b"[DONE]" {
        return Ok(true);
    }
    let Ok(data) = serde_json::from_slice::<Value>(event.data()) else { return Ok(false) };
    if let Some(error) = data.get("error") {
        return Err(format!("the answer broke off: {}", error["message"].as_str().unwrap_or("no reason given")));
    }
    let (text, last) = match dialect {
        Dialect::Chat => (&data["choices"][0]["delta"]["content"], false),
        Dialect::Responses if data["type"] == "response.output_text.delta" => (&data["delta"], false),
        Dialect::Responses => (&Value::Null, data["type"] == "response.completed" || data["type"] == "response.incomplete"),
        Dialect::Messages => (&data["delta"]["text"], data["type"] == "message_stop"),
    };
    say::piece(text.as_str().unwrap_or_default())?;
    Ok(last)
}

fn print_receipt(receipt: Option<&str>, request_id: Option<&str>) {
    let receipt = receipt.and_then(|header| x402::decode_base64(header).ok());
    let receipt = receipt.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    if let Some(receipt) = receipt {
        let field = |name: &str| receipt[name].as_str().unwrap_or("-").to_owned();
        say::err(format_args!("receipt   transaction {}", field("transaction")));
        say::err(format_args!("          network {}, payer {}", field("network"), field("payer")));
    }
    say::err(format_args!("request   {}", request_id.unwrap_or("-")));
}

fn refusal(status: StatusCode, body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &json["error"];
    // Where top-ups are paid, `error` is the code and stands beside the message.
    let message = error["message"].as_str().or(json["message"].as_str()).or(error.as_str()).unwrap_or("no reason given");
    format!("{} {}: {message}", status.as_u16(), error["code"].as_str().or(error.as_str()).unwrap_or_default())
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(bytes)
}
