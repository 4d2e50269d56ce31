//! A job from its order to its bytes: each kind, by key, by sign-in and by payment, also over a restart.

use farebox_rig::anvil::BUYER;
use farebox_rig::http::{Answer, Request};
use farebox_rig::process::{eventually, run};
use serde_json::json;

use crate::shop::{By, FIVE, KINDS, Kind, Shop, WAYS};

/// Sends a request as the buyer of this way does: who paid by a payment sends nothing.
fn ask(shop: &Shop, by: By, request: Request) -> Answer {
    match by {
        By::Key => shop.send_keyed(request),
        By::SignIn => shop.server.send(&shop.signed(BUYER, request)),
        By::Payment => shop.server.send(&request),
    }
}

fn assert_working(kind: Kind, answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    match kind {
        Kind::Videos => assert_eq!((&told["status"], &told["object"]), (&json!("in_progress"), &json!("video")), "{told}"),
        Kind::Music | Kind::Video => {
            assert_eq!(told["status"], "PROCESSING", "{told}");
            assert!(told["average_execution_time"].is_u64() && told["execution_duration"].is_u64(), "{told}");
        }
    }
}

/// Who says whose job it is hears what that wallet can spend; the name of a job alone tells nobody.
fn assert_tells_balance(by: By, answer: &Answer, balance: i64) {
    let told = answer.header("x-balance-remaining").map(|text| text.replace('.', "").parse::<i64>().unwrap());
    assert_eq!(told, (by != By::Payment).then_some(balance), "{by:?}");
}

fn assert_media(kind: Kind, answer: &Answer) {
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind.media_type())), "{}", answer.text());
    assert!(answer.complete && !answer.body.is_empty() && serde_json::from_slice::<serde_json::Value>(&answer.body).is_err());
}

#[test]
fn a_wallet_that_is_barred_fetches_what_it_had_ordered_and_orders_nothing_more() {
    let shop = Shop::open();
    let id = KINDS.map(|kind| shop.order(kind, "<<fake video_polls=1>>"));
    let ways = [By::Key, By::SignIn];
    let payment = shop.paid(BUYER, Request::post(Kind::Music.route(), Kind::Music.body("")));
    let (ordered, balance) = (shop.ordered(), shop.balance());
    let (code, _, said) = run(shop.server.command(&["block", BUYER.address, "--reason", "spam"]), "");
    assert_eq!(code, 0, "{said}");
    for (kind, by) in KINDS.into_iter().flat_map(|kind| ways.map(|by| (kind, by))) {
        let refused = shop.order_by(by, kind, "");
        assert_eq!((refused.status, refused.code().to_lowercase().as_str()), (403, "account_blocked"), "{}", refused.text());
    }
    assert_eq!(shop.server.send(&payment).status, 403);
    for (kind, id) in KINDS.iter().zip(&id) {
        assert_working(*kind, &ask(&shop, By::Key, kind.poll(id)));
        ways.iter().for_each(|by| assert_media(*kind, &eventually_done(&shop, *by, *kind, id)));
    }
    assert_eq!((shop.ordered(), shop.balance(), shop.chain.transfers().len()), (ordered, balance, 1), "nothing was sold to it");
    shop.close(KINDS.iter().map(|kind| kind.charge()).sum());
}

/// What a job made, once it is there.
fn eventually_done(shop: &Shop, by: By, kind: Kind, id: &str) -> Answer {
    let mut fetched = ask(shop, by, kind.fetch(id));
    eventually("the job is done", || {
        fetched = ask(shop, by, kind.fetch(id));
        fetched.header("content-type") == Some(kind.media_type())
    });
    fetched
}

#[test]
fn every_kind_of_job_is_paid_once_waited_for_and_fetched_by_whoever_bought_it() {
    let shop = Shop::open();
    let mut charges = 0;
    for (kind, by) in KINDS.into_iter().flat_map(|kind| WAYS.map(|by| (kind, by))) {
        let (before, paid_before) = (shop.balance(), shop.chain.transfers().len());
        let ordered = shop.order_by(by, kind, "<<fake video_polls=1>>");
        let id = kind.id(&ordered);
        charges += kind.charge();
        let balance = before - i64::try_from(kind.charge()).unwrap();
        match by {
            By::Payment => {
                assert!(ordered.header("payment-response").is_some());
                let paid = shop.chain.transfers().last().map(|transfer| transfer.value);
                assert_eq!((shop.chain.transfers().len() - paid_before, paid), (1, Some(kind.charge())), "{kind:?}");
                assert_eq!(shop.balance(), before, "the payment paid, the balance did not");
            }
            By::Key | By::SignIn => {
                assert_eq!(shop.chain.transfers().len(), paid_before, "nothing moved on the chain");
                assert_eq!(shop.balance(), balance, "{kind:?} by {by:?}: charged when it is queued");
                let told = ordered.header("x-balance-remaining").map(|text| text.replace('.', "").parse::<i64>().unwrap());
                assert_eq!(told, Some(balance), "and the answer says what is left");
            }
        }
        let after = shop.balance();
        let working = ask(&shop, by, kind.poll(&id));
        assert_working(kind, &working);
        assert_tells_balance(by, &working, after);
        if kind == Kind::Videos {
            let done = ask(&shop, by, kind.poll(&id)).json();
            assert_eq!((&done["status"], &done["progress"]), (&json!("completed"), &json!(100)), "{done}");
            let content = format!("{}/v1/videos/{id}/content", shop.server.url());
            assert_eq!(done["url"], content, "at an address of ours: {done}");
        }
        // As often as it is asked for.
        for _ in 0..2 {
            let fetched = ask(&shop, by, kind.fetch(&id));
            assert_media(kind, &fetched);
            assert_tells_balance(by, &fetched, after);
        }
        assert_eq!(shop.balance(), after, "looking after a job is free");
    }
    assert_eq!(shop.ordered(), 9, "each was ordered once");
    shop.close(charges);
}

#[test]
fn a_job_survives_a_restart_and_a_kill_between_its_order_and_its_bytes() {
    let mut shop = Shop::open();
    let jobs: Vec<_> = KINDS.into_iter().flat_map(|kind| WAYS.map(|by| (kind, by))).collect();
    let ids: Vec<_> = jobs.iter().map(|(kind, by)| kind.id(&shop.order_by(*by, *kind, "<<fake video_polls=0>>"))).collect();
    let balance = shop.balance();
    shop.server.kill();
    shop.server.restart();
    for ((kind, by), id) in jobs.iter().zip(&ids) {
        assert_media(*kind, &ask(&shop, *by, kind.fetch(id)));
    }
    assert_eq!(shop.balance(), balance, "what was charged stays charged");
    let charges = jobs.iter().map(|(kind, _)| kind.charge()).sum();
    shop.close(charges);
}

#[test]
fn a_completed_job_is_there_no_more_and_its_upstream_hears_of_it() {
    let shop = Shop::open();
    for kind in [Kind::Music, Kind::Video] {
        let id = shop.order(kind, "<<fake video_polls=0>>");
        assert_media(kind, &shop.send_keyed(kind.fetch(&id)));
        for _ in 0..2 {
            let done = shop.send_keyed(kind.complete(&id).unwrap());
            assert_eq!((done.status, done.json()), (200, json!({ "success": true })), "as often as it is said");
        }
        let path = if kind == Kind::Music { "/audio/complete" } else { "/video/complete" };
        assert_eq!(shop.asked(path), 1, "the upstream is told once");
        let gone = shop.send_keyed(kind.fetch(&id));
        assert_eq!((gone.status, gone.code().as_str()), (404, "media_not_found"), "{}", gone.text());
    }
    let spent = Kind::Music.charge() + Kind::Video.charge();
    assert_eq!(shop.balance(), i64::try_from(FIVE - spent).unwrap(), "completing gives nothing back");
    shop.close(spent);
}

#[test]
fn a_job_that_shall_be_deleted_with_its_fetch_is_completed_when_all_of_it_has_passed() {
    let shop = Shop::open();
    for flag in ["delete_media_on_completion", "delete_after_retrieval"] {
        let id = shop.order(Kind::Video, "<<fake video_polls=1>>");
        let fetch =
            || shop.send_keyed(Request::post("/api/v1/video/retrieve", json!({ "queue_id": id, flag: true }).to_string()));
        assert_working(Kind::Video, &fetch());
        let before = shop.asked("/video/complete");
        assert_media(Kind::Video, &fetch());
        // Asked without the flag: a second fetch with it would complete the job a second time.
        farebox_rig::process::eventually("it is completed", || shop.send_keyed(Kind::Video.poll(&id)).status == 404);
        farebox_rig::process::eventually("the upstream is told", || shop.asked("/video/complete") == before + 1);
        assert_eq!(fetch().code(), "MEDIA_NOT_FOUND");
    }
    shop.close(2 * Kind::Video.charge());
}

#[test]
fn a_quote_is_what_the_job_costs_and_asks_nobody_who_he_is() {
    let shop = Shop::open();
    let quote = |path: &str, body: &str| shop.server.send(&Request::post(path, body));
    let whole = quote("/v1/video/quote", &Kind::Video.body(""));
    assert_eq!((whole.status, whole.json()), (200, json!({ "quote": 0.5 })), "{}", whole.text());
    let without_prompt = quote("/api/v1/video/quote", &json!({ "model": "film", "duration": "5s" }).to_string());
    assert_eq!(without_prompt.json(), json!({ "quote": 0.5 }));
    let song = json!({ "model": "song", "duration_seconds": "30" }).to_string();
    assert_eq!(quote("/v1/audio/quote", &song).json(), json!({ "quote": 0.3 }));
    let endless = quote("/api/v1/audio/quote", &json!({ "model": "song" }).to_string());
    assert_eq!((endless.status, &endless.json()["param"]), (400, &json!("duration_seconds")), "{}", endless.text());
    assert_eq!(quote("/v1/video/quote", &json!({ "model": "nope", "duration": "5s" }).to_string()).status, 404);
    assert_eq!(quote("/v1/video/quote", "nonsense").code(), "invalid_json");
    assert_eq!(shop.upstream.calls().len(), 0, "nobody was asked");
    shop.close(0);
}
