//! `GET /openapi.json`: every row of the route table as an OpenAPI 3.1 document, for people, tools and crawlers.

use serde_json::{Map, Value, json};

use super::discovery::Prices;
use super::table::{Access, Fields, Operation, Row};
use crate::dialect::{Answers, Dialect, Form, Goods};
use crate::money::Micros;

/// What the document says of this gateway, beside its routes.
pub struct About<'a> {
    /// What callers see.
    pub url: &'a str,
    /// What ordinary calls of what a route sells are quoted; nothing where no model is sold on it.
    pub prices: &'a dyn Fn(Goods) -> Option<Prices>,
    /// What a top-up may bring.
    pub top_up: Prices,
}

const INTRODUCTION: &str = "Inference for USDC, over x402. A call is paid for by a payment that it brings (PAYMENT-SIGNATURE), or from \
                            the balance of a wallet that signs in (SIGN-IN-WITH-X) or whose key is sent. Without any of them the \
                            answer is a 402 whose PAYMENT-REQUIRED header says in base64 what this very call costs at most and how \
                            to pay. Routes below /v1 and /api/v1 are the same, but for the shape of their errors.";

/// The whole document; a pure function of the table and of what is sold.
pub fn document(rows: &[Row], about: &About<'_>) -> Value {
    let mut paths = Map::new();
    for row in rows.iter().filter(|row| !row.operations.is_empty()) {
        let parameters = parameters(&row.path);
        let mut item = Map::new();
        if !parameters.is_empty() {
            item.insert("parameters".into(), parameters.into());
        }
        for operation in &row.operations {
            item.insert(operation.method.name().to_ascii_lowercase(), describe(row, operation, about));
        }
        paths.insert(row.path.clone(), item.into());
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Farebox", "version": env!("CARGO_PKG_VERSION"), "description": INTRODUCTION },
        "servers": [{ "url": about.url }],
        "paths": paths,
        "components": { "securitySchemes": schemes(), "schemas": schemas(), "responses": responses() },
    })
}

/// Those in braces.
fn parameters(path: &str) -> Vec<Value> {
    let named = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    named.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })).collect()
}

fn describe(row: &Row, operation: &Operation, about: &About<'_>) -> Value {
    let method = operation.method.name().to_ascii_lowercase();
    let words = row.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let id = words.fold(method, |id, word| format!("{id}_{word}"));
    let query = |name: &&str| json!({ "name": name, "in": "query", "required": false, "schema": { "type": "string" } });
    let mut described = json!({
        "operationId": id,
        "summary": operation.does,
        "security": security(operation.access),
        "responses": { "200": done(operation), "default": { "$ref": "#/components/responses/Refused" } },
    });
    if !operation.query.is_empty() {
        described["parameters"] = operation.query.iter().map(query).collect::<Vec<_>>().into();
    }
    let prices = match operation.access {
        Access::Buyer(goods) => {
            described["requestBody"] = request(goods);
            (about.prices)(goods)
        }
        Access::TopUp => Some(about.top_up),
        _ => None,
    };
    if let Some(fields) = operation.takes {
        described["requestBody"] = object(fields);
    }
    if matches!(operation.access, Access::Buyer(_) | Access::TopUp) {
        described["responses"]["402"] = json!({ "$ref": "#/components/responses/PaymentRequired" });
    }
    if let Some(Prices { least, most }) = prices {
        let price = json!({ "mode": "dynamic", "currency": "USD", "min": usd(least), "max": usd(most) });
        described["x-payment-info"] = json!({ "protocols": ["x402"], "price": price });
    }
    described
}

fn usd(amount: Micros) -> String {
    amount.to_string()
}

/// Any one of these.
fn security(access: Access) -> Value {
    let any = |names: &[&str]| names.iter().map(|name| json!({ *name: [] })).collect::<Vec<_>>().into();
    match access {
        Access::Anybody => json!([]),
        Access::Buyer(_) => any(&["payment", "signIn", "key", "keyHeader"]),
        Access::TopUp => any(&["payment"]),
        Access::Wallet => any(&["signIn"]),
        Access::WalletOrKey => any(&["signIn", "key", "keyHeader"]),
        Access::Owner => any(&["session", "signIn"]),
        Access::Session => any(&["session"]),
        Access::Key => any(&["key", "keyHeader"]),
    }
}

fn schemes() -> Value {
    let header = |name: &str, what: &str| json!({ "type": "apiKey", "in": "header", "name": name, "description": what });
    let bearer = |what: &str| json!({ "type": "http", "scheme": "bearer", "description": what });
    json!({
        "payment": header(
            "PAYMENT-SIGNATURE",
            "A signed x402 payment, base64 of JSON, that answers an offer of PAYMENT-REQUIRED. Version 1 has it in X-PAYMENT, wallet \
             clients in X-402-Payment.",
        ),
        "signIn": header(
            "SIGN-IN-WITH-X",
            "A message that the wallet has just signed (EIP-4361, or its twin for Solana), base64 of JSON; also as X-Sign-In-With-X.",
        ),
        "key": bearer("A key of a wallet, sk-x402-…"),
        "keyHeader": header("x-api-key", "The same key, as Anthropic's clients send it."),
        "session": bearer("The token that POST /api/session answers a sign-in with."),
    })
}

/// What goes in where nothing is bought.
fn object(Fields { needed, others }: Fields) -> Value {
    let properties: Map<String, Value> = needed.iter().chain(others).map(|name| ((*name).to_owned(), json!({}))).collect();
    let schema = json!({ "type": "object", "required": needed, "properties": properties });
    json!({ "required": !needed.is_empty(), "content": { "application/json": { "schema": schema } } })
}

/// What goes in.
fn request(goods: Goods) -> Value {
    let any = || json!({});
    let text = || json!({ "type": "string" });
    let (required, properties, more) = match goods {
        Goods::Words(dialect) => {
            let count = || json!({ "type": "integer", "minimum": 1 });
            let messages = || json!({ "type": "array", "minItems": 1, "items": { "type": "object" } });
            let (required, mut fields) = match dialect {
                Dialect::Chat => (vec!["model", "messages"], json!({ "messages": messages(), "max_completion_tokens": count() })),
                Dialect::Messages => {
                    (vec!["model", "max_tokens", "messages"], json!({ "messages": messages(), "max_tokens": count() }))
                }
                Dialect::Responses => (vec!["model", "input"], json!({ "input": any(), "max_output_tokens": count() })),
            };
            fields["model"] = text();
            fields["stream"] = json!({ "type": "boolean" });
            (required, fields, true)
        }
        Goods::Media(task) => {
            let task = task.row();
            let alone = task.needs.iter().copied().filter(|name| !name.contains('|'));
            let fields = task.needs.iter().flat_map(|names| names.split('|')).chain(task.fields.iter().copied());
            let mut properties: Map<String, Value> = fields.map(|name| (name.to_owned(), any())).collect();
            properties.insert(task.model_field.into(), text());
            (alone.collect(), properties.into(), false)
        }
    };
    let schema = json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": true });
    let note =
        if more { "The fields of the dialect; those that would cost extra are refused." } else { "Other fields are left out." };
    let content = match goods {
        Goods::Words(_) => json!({ "application/json": { "schema": schema } }),
        Goods::Media(task) => match task.row().form {
            Form::Json => json!({ "application/json": { "schema": schema } }),
            Form::Multipart => json!({ "multipart/form-data": { "schema": schema } }),
            Form::Either => json!({ "application/json": { "schema": schema }, "multipart/form-data": { "schema": schema } }),
        },
    };
    json!({ "required": true, "description": note, "content": content })
}

/// What comes out.
fn done(operation: &Operation) -> Value {
    let json = || json!({ "schema": { "type": "object" } });
    let bytes = || json!({ "schema": { "type": "string", "contentMediaType": "application/octet-stream" } });
    let text = || json!({ "schema": { "type": "string" } });
    let of = |answers: Answers| match answers {
        Answers::Json => json!({ "application/json": json() }),
        Answers::JsonOrBytes => json!({ "application/json": json(), "*/*": bytes() }),
        Answers::Bytes => json!({ "*/*": bytes() }),
        Answers::JsonOrText => json!({ "application/json": json(), "text/plain": text() }),
    };
    let Access::Buyer(goods) = operation.access else {
        return json!({ "description": "Done.", "content": of(operation.answers) });
    };
    let content = match goods {
        Goods::Words(_) => json!({ "application/json": json(), "text/event-stream": text() }),
        Goods::Media(task) => of(task.row().answers),
    };
    let header = |what: &str| json!({ "description": what, "schema": { "type": "string" } });
    json!({
        "description": "The answer, paid for.",
        "headers": {
            "PAYMENT-RESPONSE": header("The receipt of a payment, base64 of JSON; also as X-PAYMENT-RESPONSE."),
            "X-Balance-Remaining": header("What the wallet of a sign-in or key can still spend, in USD."),
            "X-Request-Id": header("The name of this call, under which its charge stands in the statement."),
        },
        "content": content,
    })
}

fn responses() -> Value {
    let content = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } });
    let offer = json!({ "description": "The offer of x402 version 2, base64 of JSON.", "schema": { "type": "string" } });
    json!({
        "PaymentRequired": {
            "description": "What this call costs at most, and how to pay it. The offer of version 1 stands in the body.",
            "headers": { "PAYMENT-REQUIRED": offer },
            "content": content,
        },
        "Refused": {
            "description": "Nothing was charged; the code says why, and the message what to do next.",
            "content": content,
        },
    })
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let error = json!({
        "type": "object",
        "required": ["type", "code", "message"],
        "properties": { "type": text(), "code": text(), "message": text(), "param": { "type": ["string", "null"] } },
    });
    let way = json!({
        "type": "object",
        "required": ["scheme", "network", "asset", "payTo", "maxTimeoutSeconds"],
        "properties": {
            "scheme": { "const": "exact" },
            "network": text(),
            "amount": { "type": "string", "description": "Units of a millionth of a USDC, in version 2." },
            "maxAmountRequired": { "type": "string", "description": "The same in version 1." },
            "asset": text(),
            "payTo": text(),
            "maxTimeoutSeconds": { "type": "integer" },
            "extra": { "type": "object" },
        },
    });
    json!({
        "Error": {
            "description": "Below /v1 the error is an object that OpenAI's and Anthropic's clients read, below /api/v1 a text with its \
                            code beside it.",
            "type": "object",
            "required": ["error"],
            "properties": {
                "type": { "const": "error" },
                "error": { "anyOf": [error, text()] },
                "code": text(),
                "message": text(),
                "request_id": text(),
                "required_micro": { "type": "integer", "description": "What the call costs at most, in millionths of a USDC." },
                "x402Version": { "type": "integer" },
                "accepts": { "type": "array", "items": { "$ref": "#/components/schemas/WayToPay" } },
            },
        },
        "WayToPay": way,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::routes;
    use crate::http::table::Method;

    fn whole() -> Value {
        let prices = Prices { least: Micros::new(12_000), most: Micros::ONE };
        document(&routes::rows(), &About { url: "https://your.name", prices: &|_| Some(prices), top_up: prices })
    }

    #[test]
    fn every_route_of_the_table_is_in_the_document_and_nothing_else() {
        let document = whole();
        let mut documented = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                documented.insert((path.as_str(), method.to_ascii_uppercase()));
            }
        }
        let rows = routes::rows();
        let operations = rows.iter().flat_map(|row| row.operations.iter().map(|one| (row.path.as_str(), one.method)));
        let laid: Vec<_> = operations.map(|(path, method)| (path, method.name().to_owned())).collect();
        assert_eq!(documented, laid.iter().cloned().collect(), "what is served is documented");
        assert_eq!(documented.len(), laid.len(), "and each once");
        assert!(laid.len() > 50 && laid.contains(&("/api/session", Method::Delete.name().to_owned())), "{}", laid.len());
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_says_who_may_and_what_a_refusal_is() {
        let document = whole();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let declared = item["parameters"].as_array().map_or(0, Vec::len);
            assert_eq!(declared, path.matches('{').count(), "{path}");
            for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
                assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
                assert!(operation["summary"].as_str().is_some_and(|does| does.len() > 10), "{method} {path}");
                assert!(operation["responses"]["default"]["$ref"].is_string(), "{method} {path}");
                for scheme in operation["security"].as_array().unwrap().iter().flat_map(|one| one.as_object().unwrap().keys()) {
                    assert!(document["components"]["securitySchemes"][scheme].is_object(), "{scheme}");
                }
                let costs = operation.get("x-payment-info").is_some();
                assert_eq!(costs, operation["responses"].get("402").is_some(), "{method} {path}: what costs says how much");
            }
        }
    }

    #[test]
    fn what_is_posted_and_what_comes_back_is_said_also_where_nothing_is_bought() {
        let document = whole();
        let posted = |path: &str| &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(posted("/v1/video/retrieve")["required"], json!(["queue_id"]));
        assert_eq!(posted("/api/keys")["required"], json!(["name"]));
        assert!(posted("/v1/messages/count_tokens")["properties"]["system"].is_object());
        let comes = |path: &str, method: &str| document["paths"][path][method]["responses"]["200"]["content"].clone();
        assert!(comes("/v1/videos/{id}/content", "get").get("application/json").is_none(), "a film is no JSON");
        assert!(comes("/api/v1/audio/retrieve", "post").get("*/*").is_some(), "nor is a song");
        // What takes no body says so by naming none.
        assert!(document["paths"]["/api/keys/{id}/revoke"]["post"].get("requestBody").is_none());
    }

    #[test]
    fn a_route_on_which_nothing_is_sold_names_no_price() {
        let nothing = Prices { least: Micros::ONE, most: Micros::ONE };
        let document = document(&routes::rows(), &About { url: "https://your.name", prices: &|_| None, top_up: nothing });
        let paths = document["paths"].as_object().unwrap();
        assert!(paths["/v1/chat/completions"]["post"].get("x-payment-info").is_none());
        assert_eq!(paths["/v1/x402/top-up"]["post"]["x-payment-info"]["price"]["min"], "1.000000");
    }
}
