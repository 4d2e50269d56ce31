//! Nodes as providers run them: they do not know a word, are behind in one thing and not in another, or refuse long lists.

use farebox::money::Micros;
use farebox_rig::stub::Stub;
use serde_json::{Value, json};

use super::shop::{self, PRICE, Shop, confirmed, still_open, wait};

/// A shop that believes a payment only in a safe block, and whose node is asked what is safe through `answer`.
fn open_cautious(answer: impl Fn(&Value, &dyn Fn(&Value) -> Value) -> Value + Send + Sync + 'static) -> Shop {
    shop::open_with(|node, network| {
        let proxy = Stub::before_node(node.address(), move |call, ask| match call["params"][0] == "safe" {
            true => answer(call, ask),
            false => ask(call),
        });
        network.safe_above = Micros::new(PRICE - 1);
        shop::lead_to(network, &[proxy.url()]);
    })
}

#[test]
fn a_large_payment_counts_once_it_is_final_where_the_node_does_not_say_what_is_safe() {
    type Answer = fn(&Value, &dyn Fn(&Value) -> Value) -> Value;
    let answers: [Answer; 4] = [
        // Polygon's node, and Ethereum's without a beacon.
        |call, _| shop::node_error(call, -32000, "safe block not found"),
        |call, _| shop::node_error(call, -39001, "Unknown block"),
        |call, _| json!({"jsonrpc": "2.0", "id": call["id"], "result": null}),
        // The latest is called safe.
        |call, ask| {
            let mut latest = call.clone();
            latest["params"][0] = "latest".into();
            ask(&latest)
        },
    ];
    for answer in answers {
        let shop = open_cautious(answer);
        let mut outcome = shop.chains.settle(shop.pay(300));
        shop::eventually("it is mined", || shop.received() == PRICE);
        // Two blocks back is safe there, and four are final.
        shop.node.mine(3);
        still_open(&mut outcome, 6);
        shop.node.mine(1);
        confirmed(wait(outcome));
        assert_eq!((shop.received(), shop.sent(), shop.journal.books().settled.len()), (PRICE, 1, 1));
    }
}
