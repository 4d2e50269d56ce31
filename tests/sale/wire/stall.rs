//! A shop for crowds: many buyers at once, whose payments are checked for real and settle without a chain.

use std::fmt::Write as _;

use farebox_rig::anvil::{BUYER, PAY_TO};
use farebox_rig::buyer::{Intent, sign};
use farebox_rig::http::Request;
use farebox_rig::server::{INPUT_PRICE, MODEL, OUTPUT_PRICE, Server};

use crate::shop::now;

pub struct Stall {
    pub server: Server,
    paid: u64,
}

impl Stall {
    /// Sells [`MODEL`] of the first upstream, and `MODEL-1`, `MODEL-2` of the others; `limits` are lines for `[limits]`.
    pub fn open(upstreams: &[String], limits: &[&str]) -> Stall {
        let mut config = format!(
            "[server]\nbind = \"127.0.0.1:0\"\ndata_dir = \"data\"\n\n[[network]]\nid = \"base-sepolia\"\n\
             pay_to = \"{}\"\nsettlement = \"simulated\"\n",
            PAY_TO.address
        );
        for (n, url) in upstreams.iter().enumerate() {
            let id = if n == 0 { MODEL.to_owned() } else { format!("{MODEL}-{n}") };
            // Writing to a String cannot fail.
            let _ = write!(
                config,
                "\n[[upstream]]\nname = \"up{n}\"\nbase_url = \"{url}\"\napi_key = \"env:TEST_UPSTREAM_KEY\"\n\
                 speaks = [\"chat\", \"messages\"]\n\n[[model]]\nid = \"{id}\"\n\
                 upstreams = [{{ name = \"up{n}\", model = \"m\" }}]\n\
                 price = {{ input = \"{INPUT_PRICE}\", output = \"{OUTPUT_PRICE}\" }}\n"
            );
        }
        let wide = ["per_ip_per_second = 100000", "per_ip_burst = 100000", "payments_per_ip_per_minute = 100000"];
        let _ = write!(config, "\n[limits]\n{}\n{}\n", wide.join("\n"), limits.join("\n"));
        config.push_str("\n[payments]\nsettle_after_ms = 20000\n");
        Stall { server: Server::configured(env!("CARGO_BIN_EXE_farebox"), &config), paid: 0 }
    }

    /// `count` requests for `body`, each with a payment of its own that settles when its call is accepted.
    pub fn orders(&mut self, route: &str, body: &str, count: usize) -> Vec<Request> {
        let answer = self.server.send(&Request::post(route, body));
        assert_eq!(answer.status, 402, "an unpaid request gets an offer: {}", answer.text());
        let requirements = answer.decoded("payment-required").expect("a 402 carries PAYMENT-REQUIRED")["accepts"][0].clone();
        let amount: u64 = requirements["amount"].as_str().and_then(|amount| amount.parse().ok()).expect("an amount");
        let intent = Intent { wallet: BUYER, requirements, valid_before: now() + 300 };
        self.paid += amount * u64::try_from(count).expect("not that many");
        let signed = sign(&vec![intent; count]);
        let header = |payment: &serde_json::Value| payment["v2"].as_str().expect("a header value").to_owned();
        signed.iter().map(|payment| Request::post(route, body).header("payment-signature", &header(payment))).collect()
    }

    /// Ends the day: the books are clean, and of everything that was paid, `charge` (which gets the sum) is right and the
    /// rest is the buyer's balance. `refused` payments never settled.
    pub fn close(mut self, refused: u64, charge: impl Fn(u64) -> bool) {
        let books = self.server.audit();
        assert!(books.clean, "the books are not clean: {:#}", books.json);
        let (paid, balance) = (self.paid - refused, books.balance(BUYER.address));
        assert!(balance <= paid, "{balance} of {paid}: nobody is given what he did not pay");
        assert!(charge(paid - balance), "charged {} of {paid}: {:#}", paid - balance, books.json);
    }
}
