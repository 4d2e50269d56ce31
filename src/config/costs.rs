//! Prices below what the operator pays: read from the text itself, so that every price and cost that stands there is compared.

use toml::{Table, Value};

use crate::money::UnitPrice;

/// What is sold below cost: the model, and in words what of it. Empty for a text that cannot be read, which others refuse.
pub fn below_cost(text: &str) -> Vec<(String, String)> {
    let document: Table = text.parse().unwrap_or_default();
    let mut found = Vec::new();
    for model in rows(document.get("model")) {
        let (Some(id), Some(price)) = (model.get("id").and_then(Value::as_str), model.get("price")) else { continue };
        let mut compare = |cost: Option<&Value>, whose: &str| {
            let Some(cost) = cost else { return };
            let mut said = Vec::new();
            dearer(price, cost, "", &mut said);
            found.extend(said.into_iter().map(|words| (id.to_owned(), format!("{words}{whose}"))));
        };
        compare(model.get("cost"), "");
        for serving in rows(model.get("upstreams")) {
            let name = serving.get("name").and_then(Value::as_str).unwrap_or_default();
            compare(serving.get("cost"), &format!(" at upstream {name:?}"));
        }
    }
    found
}

fn rows(value: Option<&Value>) -> impl Iterator<Item = &Table> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
}

/// Compares what stands under the same names on both sides.
fn dearer(price: &Value, cost: &Value, name: &str, found: &mut Vec<String>) {
    match (price, cost) {
        (Value::Table(prices), Value::Table(costs)) => {
            for (key, cost) in costs {
                // What has no price of its own has that of all others.
                let Some(price) = prices.get(key).or_else(|| prices.get("default")) else { continue };
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                dearer(price, cost, &name, found);
            }
        }
        (Value::String(_), Value::Table(costs)) => {
            costs.iter().for_each(|(key, cost)| dearer(price, cost, &format!("{name}.{key}"), found));
        }
        (Value::String(price), Value::String(cost)) => {
            // Both are in the same unit, and only their order matters.
            if let (Ok(asked), Ok(paid)) = (UnitPrice::each(price), UnitPrice::each(cost))
                && asked < paid
            {
                found.push(format!("price.{name} is {price}, and it costs you {cost}"));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::below_cost;

    #[test]
    fn each_price_is_held_against_its_own_cost() {
        let text = r#"
            [[model]]
            id = "loss"
            upstreams = [{ name = "dear", model = "m", cost = { output = "9.01" } }, { name = "fair", model = "m", cost = { output = "9" } }]
            price = { input = "3.00", output = "9.00" }
            cost = { input = "3.000001", output = "8" }
            [[model]]
            id = "picture"
            upstreams = []
            price = { image = { "1024x1024" = "0.04", default = "0.10" } }
            cost = { image = { "1024x1024" = "0.05", "2048x2048" = "0.09" } }
            [[model]]
            id = "fine"
            upstreams = []
            price = { input = "1", call = "0" }
            cost = { input = "1" }
        "#;
        let said: Vec<_> = below_cost(text).into_iter().map(|(model, words)| format!("{model}: {words}")).collect();
        assert_eq!(
            said,
            [
                "loss: price.input is 3.00, and it costs you 3.000001",
                "loss: price.output is 9.00, and it costs you 9.01 at upstream \"dear\"",
                "picture: price.image.1024x1024 is 0.04, and it costs you 0.05",
            ]
        );
        assert!(below_cost("[[model").is_empty());
    }
}
