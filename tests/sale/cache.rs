//! What an upstream reads from and writes to its prompt cache is charged at its own price, in every dialect, plain and streamed.

use farebox_rig::server::Settings;

use crate::shop::{CHAT, MESSAGES, RESPONSES, Shop, body_for};

#[test]
fn cached_tokens_are_charged_at_their_own_prices_to_the_micro() {
    let prices = ["cache_read = \"0.30\"", "cache_write_5m = \"3.75\"", "cache_write_1h = \"6\""].map(str::to_owned).to_vec();
    let mut shop = Shop::with(84532, &Settings { prices, ..Settings::default() });
    // OpenAI counts cached tokens among its prompt tokens: 50 x 3 + 100 x 0.3 + 50 x 3.75 + 7 x 15, rounded up once.
    let chat = ("<<fake in=200 out=7 cached=100 cw=50 text=hello+wallet>>", 473);
    // Anthropic counts them apart: 50 x 3 + 100 x 0.3 + 50 x 3.75 + 20 x 6 + 7 x 15, rounded up once.
    let messages = ("<<fake in=50 out=7 cached=100 cw=50 cw1h=20 text=hello+wallet>>", 593);
    let mut charges = 0;
    for (route, (usage, charge)) in [(CHAT, chat), (MESSAGES, messages), (RESPONSES, chat)] {
        for stream in [false, true] {
            let body = body_for(route, usage, stream);
            let payment = shop.pay(route, &body);
            let answer = shop.buy(route, &body, &payment);
            assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
            assert!(payment.amount > charge);
            charges += charge;
        }
    }
    shop.close(charges);
}
