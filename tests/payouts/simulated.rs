//! Where money is simulated, a payout is as well: everything is signed and booked, and no chain is asked.

use farebox_rig::anvil::{BUYER, PAY_TO};
use farebox_rig::process::run;
use farebox_rig::server::Server;

use crate::shop::said;

const CONFIG: &str = r#"
[server]
bind = "127.0.0.1:0"
data_dir = "data"

[[network]]
id = "base-sepolia"
pay_to = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
settlement = "simulated"

[[upstream]]
name = "echo"
kind = "echo"
speaks = ["chat", "messages"]

[[model]]
id = "echo"
upstreams = [{ name = "echo", model = "echo" }]
price = { input = "3", output = "15" }
"#;

#[test]
fn a_simulated_payout_is_signed_and_booked_as_any_other() {
    let mut server = Server::configured(env!("CARGO_BIN_EXE_farebox"), CONFIG);
    let mut pay = server.command(&["pay", "--top-up", "5", "--url", &server.url()]);
    pay.env("FAREBOX_PAYER_KEY", BUYER.key);
    let (code, _, words) = run(pay, "");
    assert_eq!(code, 0, "{words}");
    let payout = |server: &Server, usd: &str, id: &str| {
        let mut command =
            server.command(&["payout", BUYER.address, usd, "--network", "base-sepolia", "--id", id, "--reason", "a test"]);
        command.env("FAREBOX_TREASURY_KEY", PAY_TO.key);
        said(command)
    };
    let tx = payout(&server, "2", "one").paid();
    assert_eq!(payout(&server, "2", "one").paid(), tx);
    payout(&server, "4", "two").refused(2, "can spend 3.000000");
    server.restart();
    assert_eq!(payout(&server, "2", "one").paid(), tx);
    let books = server.audit();
    assert!(books.clean && books.balance(BUYER.address) == 3_000_000, "{:#}", books.json);
    assert_eq!(books.json["house"]["external eip155:84532/0x036CbD53842c5426634e7929541eC2318f3dCF7e"], -3_000_000);
}
