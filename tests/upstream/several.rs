//! Several upstreams for one model: weights, one call at a time that finds out, and what a caller who leaves says: nothing.

use std::path::Path;

use farebox::config::Config;
use farebox::dialect::{Goods, Task};

use super::*;

/// A pause that no test waits out, and that no machine is slow enough to.
const LONG: Duration = Duration::from_secs(60);
/// A pause that a test waits out; whether one call alone finds out shows for as long after it.
const SHORT: Duration = Duration::from_secs(1);

/// Two workers with the same upstreams, which take one for down after so many failures in a row, for so long.
fn workers(urls: &[&str], failures: u32, pause: Duration) -> ([Upstreams; 2], Vec<Serving>) {
    let (configured, servings) = configured(urls);
    let health = Health::new(&configured, Failover { failures, pause, longest_pause: Duration::from_secs(30).max(pause) });
    ([(); 2].map(|()| Upstreams::sharing(&configured, health.clone()).unwrap()), servings)
}

#[actix_web::test]
async fn weights_share_the_calls_out_and_the_others_of_the_group_fall_in() {
    let fakes = [FakeUpstream::start(), FakeUpstream::start(), FakeUpstream::start()];
    let urls = fakes.each_ref().map(FakeUpstream::url);
    let ([upstreams, _], mut servings) = workers(&urls.each_ref().map(String::as_str), 1, LONG);
    for (serving, weight) in servings.iter_mut().zip([Some(3), Some(1), None]) {
        serving.weight = weight.and_then(std::num::NonZeroU32::new);
    }
    let sent = call(Dialect::Chat, false, "hi");
    for lot in 0..1000 {
        sent.with_lot(lot, &upstreams, &servings).await.unwrap();
    }
    let [heavy, light, last] = fakes.each_ref().map(|fake| fake.calls().len());
    assert!(heavy.abs_diff(750) < 40 && heavy + light == 1000, "{heavy} and {light} of 1000");
    assert_eq!(last, 0, "who has no weight comes when the group has failed");

    // The heavy one goes down: the light one gets its share.
    fakes[0].configure(&json!({ "status": 401 }));
    for lot in 0..20 {
        assert_eq!(sent.with_lot(lot, &upstreams, &servings).await.unwrap().upstream, "up1");
    }
    assert_eq!(fakes[0].calls().len() - heavy, 1, "it was asked until it was found to be down");
    fakes[1].configure(&json!({ "status": 401 }));
    assert_eq!(sent.with_lot(7, &upstreams, &servings).await.unwrap().upstream, "up2");
}

#[actix_web::test]
async fn what_one_worker_finds_out_is_known_to_all() {
    let fake = FakeUpstream::start();
    let (workers, servings) = workers(&[&fake.url()], 2, LONG);
    let sent = call(Dialect::Chat, false, "hi");
    fake.configure(&json!({ "status": 401 }));
    let goods = Goods::Words(Dialect::Chat);
    for (worker, account) in workers.iter().zip([1, 2]) {
        assert!(worker.ready(&servings, goods, None).is_ok());
        assert_eq!(sent.of((7, account), worker, &servings).await.unwrap_err().code, Code::UpstreamAuth);
    }
    for worker in &workers {
        let error = sent.through(worker, &servings).await.unwrap_err();
        let told = error.retry_after.unwrap_or_default();
        assert!(error.code == Code::UpstreamUnavailable && (40..=60).contains(&told), "{error:?}");
        assert_eq!(worker.ready(&servings, goods, None).unwrap_err().code, Code::UpstreamUnavailable);
    }
    assert_eq!(fake.calls().len(), 2);
}

#[actix_web::test]
async fn after_a_pause_one_call_alone_finds_out_and_all_others_follow() {
    let fake = FakeUpstream::start();
    let (workers, servings) = workers(&[&fake.url()], 2, SHORT);
    let (sent, goods) = (call(Dialect::Chat, false, "hi"), Goods::Words(Dialect::Chat));
    fake.configure(&json!({ "status": 401 }));
    for (worker, account) in workers.iter().zip([1, 2]) {
        assert_eq!(sent.of((7, account), worker, &servings).await.unwrap_err().code, Code::UpstreamAuth);
    }
    fake.configure(&json!({}));
    fake.configure(&json!({ "ttfb": 400 }));
    tokio::time::sleep(SHORT).await;
    assert!(workers[1].ready(&servings, goods, None).is_ok());
    let (first, second) = tokio::join!(sent.through(&workers[0], &servings), sent.through(&workers[1], &servings));
    assert!(first.is_ok(), "{first:?}");
    assert_eq!(second.unwrap_err().code, Code::UpstreamUnavailable, "one call finds out");
    assert_eq!(fake.calls().len(), 3);
    assert!(sent.through(&workers[1], &servings).await.is_ok(), "and all others follow");
}

#[actix_web::test]
async fn a_caller_who_leaves_while_it_finds_out_holds_up_nobody() {
    let fake = FakeUpstream::start();
    let ([worker, _], servings) = workers(&[&fake.url()], 1, SHORT);
    fake.configure(&json!({ "status": 401 }));
    assert!(call(Dialect::Chat, false, "hi").through(&worker, &servings).await.is_err());
    fake.configure(&json!({}));
    tokio::time::sleep(SHORT).await;
    let slow = call(Dialect::Chat, true, "<<fake ttfb=60000>>");
    let mut finding_out = Box::pin(slow.through(&worker, &servings));
    while fake.calls().len() < 2 {
        let waited = tokio::time::timeout(Duration::from_millis(20), &mut finding_out).await;
        assert!(waited.is_err(), "it was not on its way: {waited:?}");
    }
    drop(finding_out);
    let answer = call(Dialect::Chat, false, "hi").through(&worker, &servings).await;
    assert!(answer.is_ok(), "{answer:?}");
}

#[actix_web::test]
async fn nothing_that_a_caller_does_wrong_makes_an_upstream_look_down() {
    let fake = FakeUpstream::start();
    let ([worker, _], servings) = workers(&[&fake.url()], 1, LONG);
    for behaviour in ["status=400", "status=404", "status=413", "status=422", "status=429", "status=504", "status=408"] {
        let error = call(Dialect::Chat, false, &format!("<<fake {behaviour}>>")).through(&worker, &servings).await.unwrap_err();
        assert!(call(Dialect::Chat, false, "hi").through(&worker, &servings).await.is_ok(), "{behaviour}: {error:?}");
    }
    for behaviour in ["status=500", "status=502 shape=html", "status=529", "status=401", "status=402"] {
        let (workers, servings) = workers(&[&fake.url()], 1, LONG);
        let before = fake.calls().len();
        assert!(call(Dialect::Chat, false, &format!("<<fake {behaviour}>>")).through(&workers[0], &servings).await.is_err());
        let tried = fake.calls().len() - before;
        let error = call(Dialect::Chat, false, "hi").through(&workers[1], &servings).await.unwrap_err();
        assert_eq!((error.code, fake.calls().len() - before), (Code::UpstreamUnavailable, tried), "{behaviour}");
        let of_another = call(Dialect::Chat, false, "hi").of((7, 2), &workers[1], &servings).await;
        assert!(of_another.is_ok(), "{behaviour}: what fails for one account alone keeps nobody else out");
    }
}

#[actix_web::test]
async fn a_dead_model_takes_none_of_its_neighbours_along_and_a_dead_upstream_all() {
    let fake = FakeUpstream::start();
    let ([worker, _], servings) = workers(&[&fake.url()], 2, LONG);
    let other: Vec<_> = servings.iter().map(|one| Serving { model: "another".into(), ..one.clone() }).collect();
    fake.configure(&json!({ "status": 500 }));
    for account in [1, 2] {
        assert!(call(Dialect::Chat, false, "hi").of((7, account), &worker, &servings).await.is_err());
    }
    fake.configure(&json!({}));
    let (sent, asked) = (call(Dialect::Chat, false, "hi"), fake.calls().len());
    assert_eq!(sent.of((7, 3), &worker, &servings).await.unwrap_err().code, Code::UpstreamUnavailable);
    assert_eq!(fake.calls().len(), asked, "it is not asked for the dead model");
    assert!(sent.through(&worker, &other).await.is_ok(), "nor paused with the other one");

    // Nobody listens there.
    let ([worker, _], servings) = workers(&["http://127.0.0.1:9"], 2, LONG);
    let other: Vec<_> = servings.iter().map(|one| Serving { model: "another".into(), ..one.clone() }).collect();
    for _ in 0..2 {
        assert_eq!(sent.through(&worker, &servings).await.unwrap_err().code, Code::UpstreamError);
    }
    let goods = Goods::Words(Dialect::Chat);
    assert_eq!(worker.ready(&other, goods, None).unwrap_err().code, Code::UpstreamUnavailable, "no model can be had of it");
}

#[actix_web::test]
async fn of_many_times_to_wait_the_caller_is_told_the_shortest() {
    let fakes = [FakeUpstream::start(), FakeUpstream::start()];
    let ([worker, _], servings) = workers(&[&fakes[0].url(), &fakes[1].url()], 0, SHORT);
    let sent = call(Dialect::Messages, true, "hi");
    for (fake, seconds) in fakes.iter().zip([50, 20]) {
        fake.configure(&json!({ "status": 429, "retry_after": seconds }));
    }
    for (tries, least) in [(1, 20), (1, 10), (1, 10)] {
        let error = sent.through(&worker, &servings).await.unwrap_err();
        let told = error.retry_after.unwrap_or_default();
        assert!(error.code == Code::UpstreamUnavailable && (least..=20).contains(&told), "{error:?}");
        assert_eq!(fakes.each_ref().map(|fake| fake.calls().len()), [tries; 2], "each was asked once, and then left alone");
    }
    fakes.iter().for_each(|fake| fake.configure(&json!({})));
    let other: Vec<_> = servings.iter().map(|one| Serving { model: "another".into(), ..one.clone() }).collect();
    assert_eq!(sent.through(&worker, &other).await.unwrap().upstream, "up0", "a limit is that of one model");
}

#[test]
fn every_model_of_the_example_catalogue_is_sold_on_a_route_by_each_of_its_upstreams() {
    let catalogue = include_str!("../../examples/catalogue.toml");
    let keys = |name: &str| name.ends_with("_API_KEY").then(|| "sk-example".to_owned());
    let config = Config::parse(&format!("[server]\n{catalogue}"), Path::new("."), &keys).unwrap();
    let upstreams = Upstreams::new(&config.upstreams).unwrap();
    let routes = || Dialect::ALL.into_iter().map(Goods::Words).chain(Task::ALL.into_iter().map(Goods::Media));
    for model in config.catalogue.models() {
        for serving in &model.upstreams {
            let is_sold =
                |goods: &Goods| goods.sells(model.kind) && upstreams.forms(std::slice::from_ref(serving), *goods).is_ok();
            assert!(routes().any(|goods| is_sold(&goods)), "{} from {}", model.id, serving.upstream);
        }
    }
}
