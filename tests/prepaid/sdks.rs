//! What else the unmodified SDKs do: answers of a shape that the caller names, tools that they run themselves, routes that are not sold.

use farebox_rig::anvil::BUYER;
use farebox_rig::sdk::Sdk;
use farebox_rig::server::MODEL;
use serde_json::{Value, json};

use crate::anthropic;
use crate::openai;
use crate::shop::{CANARY, CHARGE, FIVE, Shop, asked, params, step, values};

/// Makes the upstream say a city as JSON, and report 20 tokens in and 7 out.
const A_CITY: &str = "<<fake in=20 out=7 text=%7B%22city%22%3A%22Ulm%22%7D>>";

fn schema() -> Value {
    json!({
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"], "additionalProperties": false,
    })
}

/// A step whose answer shall be a city.
fn shaped(word: &str, params: Value) -> Value {
    let mut step = step(word, params);
    step["schema"] = schema();
    step
}

/// What a schema was called on its way: whatever the SDK writes into one beside it, it names the city.
fn assert_asks_for_a_city(format: &Value) {
    assert_eq!(format["type"], "json_schema", "{format}");
    assert!(format.to_string().contains(r#""required":["city"]"#), "{format}");
}

#[test]
fn answers_of_a_wanted_shape_and_single_models_are_had_through_the_openai_sdks() {
    for sdk in [Sdk::OpenAiNode, Sdk::OpenAiPython] {
        let mut shop = Shop::open();
        let key = shop.buyer_with_key();
        let steps =
            [json!({ "do": "model", "id": MODEL }), shaped("parse", params(A_CITY)), shaped("respond_parse", asked(A_CITY))];
        let done = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
        let values = values(&done);
        assert_eq!((&values[0]["id"], &values[0]["object"]), (&MODEL.into(), &"model".into()), "{}", values[0]);
        assert_eq!(values[1..], [&json!({ "city": "Ulm" }); 2], "{sdk:?}");
        let calls = shop.upstream.calls();
        assert_asks_for_a_city(&calls[0]["body"]["response_format"]);
        assert_asks_for_a_city(&calls[1]["body"]["text"]["format"]);
        assert_eq!(shop.logged(), [CHARGE; 2], "a model is looked at for nothing");
        shop.close(&[]);
    }
}

#[test]
fn answers_of_a_wanted_shape_are_had_through_the_anthropic_sdks_which_run_tools_by_themselves() {
    for sdk in [Sdk::AnthropicNode, Sdk::AnthropicPython] {
        let mut shop = Shop::open();
        let key = shop.buyer_with_key();
        let steps = [shaped("parse", params(A_CITY)), step("run_tools", anthropic::with_tool(json!({})))];
        let done = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
        let values = values(&done);
        assert_eq!(values[0], &json!({ "city": "Ulm" }), "{sdk:?}");
        assert_eq!(values[1], "TOOLRESULT:rain in Llanfairpwllgwyngyll", "{sdk:?}");
        let calls = shop.upstream.calls();
        assert_asks_for_a_city(&calls[0]["body"]["output_config"]["format"]);
        assert_eq!(calls.len(), 3, "the tool is asked for, and answered");
        assert_eq!(shop.logged().len(), 3, "each is charged what it used");
        shop.close(&[]);
    }
}

#[test]
fn the_typescript_sdk_of_openai_runs_tools_by_itself() {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let steps = [step("run_tools", openai::with_tool(json!({})))];
    let done = Sdk::OpenAiNode.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
    assert_eq!(values(&done), [&json!("TOOLRESULT:rain in Llanfairpwllgwyngyll")]);
    assert_eq!(shop.logged(), [CHARGE; 2]);
    shop.close(&[]);
}

/// A method by its name in each language, with what it is given there.
struct NotSold {
    node: &'static str,
    python: &'static str,
    arguments: Value,
    named: Value,
}

fn not_sold(node: &'static str, python: &'static str, arguments: Value, named: Value) -> NotSold {
    NotSold { node, python, arguments, named }
}

/// Methods of the SDKs for what is kept at a provider, or made in other ways.
fn of_openai() -> Vec<NotSold> {
    let input = json!({ "model": MODEL, "input": CANARY });
    let words = json!({ "model": MODEL, "prompt": CANARY });
    let prompt = |input: &Value| json!([input]);
    vec![
        not_sold("responses.retrieve", "responses.retrieve", json!(["resp_1"]), json!({})),
        not_sold("responses.delete", "responses.delete", json!(["resp_1"]), json!({})),
        not_sold("responses.cancel", "responses.cancel", json!(["resp_1"]), json!({})),
        not_sold("responses.inputItems.list", "responses.input_items.list", json!(["resp_1"]), json!({})),
        not_sold("completions.create", "completions.create", prompt(&words), words),
        not_sold("moderations.create", "moderations.create", prompt(&input), input),
        not_sold("files.list", "files.list", json!([]), json!({})),
        not_sold("batches.list", "batches.list", json!([]), json!({})),
        not_sold("vectorStores.list", "vector_stores.list", json!([]), json!({})),
        not_sold("fineTuning.jobs.list", "fine_tuning.jobs.list", json!([]), json!({})),
        not_sold("chat.completions.retrieve", "chat.completions.retrieve", json!(["chatcmpl_1"]), json!({})),
    ]
}

fn of_anthropic() -> Vec<NotSold> {
    let batch = json!({ "requests": [{ "custom_id": "one", "params": params(CANARY) }] });
    vec![
        not_sold("messages.batches.create", "messages.batches.create", json!([batch]), batch),
        not_sold("messages.batches.list", "messages.batches.list", json!([]), json!({})),
        not_sold("beta.files.list", "beta.files.list", json!([]), json!({})),
    ]
}

#[test]
fn what_the_sdks_have_and_nobody_sells_is_refused_in_words_and_costs_nothing() {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let libraries = [
        (Sdk::OpenAiNode, of_openai()),
        (Sdk::OpenAiPython, of_openai()),
        (Sdk::AnthropicNode, of_anthropic()),
        (Sdk::AnthropicPython, of_anthropic()),
    ];
    for (sdk, methods) in libraries {
        let is_python = matches!(sdk, Sdk::OpenAiPython | Sdk::AnthropicPython);
        let call = |method: &NotSold| {
            // What is given by its name in Python is one object in TypeScript.
            let alone = method.named.as_object().is_some_and(serde_json::Map::is_empty);
            let arguments = if is_python && !alone { json!([]) } else { method.arguments.clone() };
            let name = if is_python { method.python } else { method.node };
            json!({ "do": "call", "method": name, "arguments": arguments, "named": method.named })
        };
        let steps: Vec<_> = methods.iter().map(call).collect();
        let done = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
        for (step, outcome) in steps.iter().zip(&done) {
            let error = &outcome["error"];
            let seen = (error["class"].as_str(), error["status"].as_u64());
            assert_eq!(seen, (Some("NotFoundError"), Some(404)), "{sdk:?} {step}: {outcome}");
            let message = error["message"].as_str().unwrap_or_default();
            let says_what_to_do =
                message.contains("POST /v1/") && (message.contains("there is nothing at") || message.contains("not stored"));
            assert!(says_what_to_do, "{sdk:?} {step}: {message}");
        }
    }
    assert_eq!(shop.upstream.calls().len(), 0, "the upstream was not asked");
    assert_eq!(shop.account(BUYER).available(), i64::try_from(FIVE).unwrap(), "and nothing was charged");
    shop.close(&[]);
}
