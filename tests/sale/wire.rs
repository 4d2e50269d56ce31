//! The wire: every pitfall of the HTTP libraries that was ever met, as a promise held against real sockets.

mod answers;
mod connections;
mod crowd;
mod leaving;
mod stall;
mod tls;
mod trouble;
mod upload;

/// How a pitfall is kept from coming back.
enum Held {
    /// By these tests: `file::name`, files as they stand in this folder.
    By(&'static [&'static str]),
    /// By something that is no test here, for this reason.
    Otherwise(&'static str),
}
use Held::{By, Otherwise};

/// Every pitfall: its number, what goes wrong, and what holds against it.
const PITFALLS: [(usize, &str, Held); 24] = [
    (
        1,
        "the client library gives up on a head after five seconds",
        By(&["connections::an_upstream_that_thinks_for_longer_than_the_librarys_five_seconds_is_waited_for"]),
    ),
    (
        2,
        "its pool has a hundred connections for all hosts together",
        By(&["crowd::three_hundred_slow_streams_live_at_once_and_starve_no_other_upstream"]),
    ),
    (
        3,
        "a client that leaves while the upstream is silent goes unnoticed",
        By(&[
            "leaving::a_client_that_leaves_before_anything_settled_keeps_its_money",
            "leaving::a_client_that_leaves_a_silent_upstream_after_it_paid_has_all_of_it_as_balance",
            "leaving::a_client_that_leaves_in_mid_answer_lets_the_upstream_go_at_once_and_pays_for_what_passed",
        ]),
    ),
    (
        4,
        "one that leaves a chatty upstream is noticed only at the second write",
        By(&["leaving::a_client_that_leaves_in_mid_answer_lets_the_upstream_go_at_once_and_pays_for_what_passed"]),
    ),
    (
        5,
        "chunks that are cut off look like a whole answer",
        By(&[
            "trouble::an_answer_that_breaks_off_never_looks_whole_and_costs_what_passed",
            "tls::a_stream_that_is_cut_inside_tls_never_looks_complete",
        ]),
    ),
    (
        6,
        "a length that is not reached looks like a whole answer",
        By(&["trouble::an_answer_that_breaks_off_never_looks_whole_and_costs_what_passed"]),
    ),
    (
        7,
        "a refusal during an upload reads as a broken connection",
        By(&["upload::a_refusal_that_comes_while_five_megabytes_go_out_is_passed_on_and_costs_nothing"]),
    ),
    (
        8,
        "kept connections are closed in the moment of their use",
        By(&[
            "connections::a_connection_that_was_closed_meanwhile_is_no_buyers_trouble",
            "connections::an_upstream_that_always_hangs_up_is_tried_twice_and_after_a_head_never_again",
        ]),
    ),
    (
        9,
        "the server library refuses bodies above 256 KB, and nothing bounds all bodies together",
        By(&[
            "upload::a_body_of_twenty_megabytes_is_sold_and_one_above_the_limit_is_refused_before_it_is_read",
            "upload::bodies_that_never_end_hold_their_memory_no_longer_than_their_time",
        ]),
    ),
    (
        10,
        "a copy of the request is kept for as long as its answer streams",
        By(&["crowd::a_prompt_of_two_megabytes_is_forgotten_while_its_answer_streams"]),
    ),
    (11, "answers above two megabytes are refused", By(&["upload::an_answer_of_twelve_megabytes_passes_whole"])),
    (
        12,
        "ten redirects are followed, with the operator's key",
        By(&["connections::a_redirect_carries_neither_the_key_nor_the_money_elsewhere"]),
    ),
    (
        13,
        "usage cannot be read from a compressed answer",
        By(&[
            "connections::an_upstream_sees_these_headers_and_a_buyer_those_and_no_others",
            "trouble::an_upstream_that_does_not_begin_costs_nobody_anything",
        ]),
    ),
    (
        14,
        "headers of the caller or the library reach the upstream",
        By(&["connections::an_upstream_sees_these_headers_and_a_buyer_those_and_no_others"]),
    ),
    (
        15,
        "TCP_NODELAY is set on neither side",
        By(&[
            "connections::small_pieces_of_a_stream_do_not_wait_for_an_acknowledgement",
            "../../../src/upstream/connection::small_requests_do_not_wait_for_an_acknowledgement",
        ]),
    ),
    (
        16,
        "HTTP/2 to upstreams is not accounted for",
        By(&["tls::a_call_is_sold_through_an_upstream_behind_a_private_authority_and_in_http11_whatever_it_prefers"]),
    ),
    (
        17,
        "a plain upstream speaks HTTP/1.1 only",
        By(&["connections::an_upstream_sees_these_headers_and_a_buyer_those_and_no_others"]),
    ),
    (
        18,
        "a client that reads nothing fills the memory",
        By(&["crowd::a_flood_for_a_client_that_reads_nothing_waits_at_the_upstream_and_never_looks_whole"]),
    ),
    (
        19,
        "the time limit does not cover every phase",
        By(&["connections::the_time_limit_counts_from_the_requests_arrival_and_holds_in_every_phase"]),
    ),
    (
        20,
        "a stop cuts off answers that are running",
        By(&["connections::a_stop_closes_the_door_at_once_and_lets_a_running_answer_end"]),
    ),
    (
        21,
        "a client cannot be shared between threads, and nothing can be awaited while a call is dropped",
        By(&[
            "crowd::three_hundred_slow_streams_live_at_once_and_starve_no_other_upstream",
            "leaving::a_client_that_leaves_a_silent_upstream_after_it_paid_has_all_of_it_as_balance",
        ]),
    ),
    (
        22,
        "asking the ledger's thread costs more than everything else",
        Otherwise("a matter of speed, which the benchmark judges; a payment's claim has to be durable and waits for the disk"),
    ),
    (
        23,
        "connections and open files have limits of their own",
        By(&["upload::as_many_files_may_be_open_as_the_promised_streams_need"]),
    ),
    (
        24,
        "the server library waits for ever for a client that takes none of its answers",
        By(&["upload::a_caller_that_asks_and_asks_and_reads_no_answer_is_cut"]),
    ),
];

#[test]
fn every_pitfall_is_held_by_a_test_that_exists() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sale/wire");
    for (place, (number, pitfall, held)) in PITFALLS.iter().enumerate() {
        assert_eq!(*number, place + 1, "none is missing: {pitfall}");
        match held {
            Otherwise(reason) => assert!(!reason.is_empty(), "{pitfall}"),
            By(tests) => {
                assert!(!tests.is_empty(), "{pitfall}");
                for test in *tests {
                    let (file, name) = test.rsplit_once("::").expect("file::name");
                    let source = std::fs::read_to_string(format!("{folder}/{file}.rs")).unwrap();
                    let (before, _) = source.split_once(&format!("fn {name}(")).unwrap_or_else(|| panic!("{test} is gone"));
                    let attribute = before.trim_end().trim_end_matches("async").trim_end().lines().last().unwrap_or_default();
                    assert!(attribute.trim().ends_with("test]"), "{test} is no test: {attribute}");
                }
            }
        }
    }
}
