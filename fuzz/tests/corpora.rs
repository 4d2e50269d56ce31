//! Every promise about any bytes, kept for the committed corpora, for every published vector, and for mutations of them.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_fuzz::{Check, TARGETS};
use serde_json::Value;

/// Mutations of all inputs of a target together.
const MUTATIONS: u64 = 4_000;
/// The ledger lives a whole life for each.
const LIVES: u64 = 150;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn target(name: &str) -> Check {
    TARGETS.iter().find(|(known, _)| *known == name).expect("a target").1
}

/// The committed inputs of a target.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder("corpus").join(name)).expect("every target has a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    paths.sort();
    assert!(paths.len() > 5, "{name} has a corpus of {} inputs only", paths.len());
    paths.iter().map(|path| fs::read(path).expect("the input can be read")).collect()
}

/// Payment headers of the published vectors, and the JSON inside them.
fn vectors() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for file in ["evm.json", "legacy-v1.json", "svm.json"] {
        let text = fs::read(folder("../tests/vectors").join(file)).expect("the vectors are there");
        let file: Value = serde_json::from_slice(&text).expect("the vectors are JSON");
        for vector in file["vectors"].as_array().expect("a list of vectors") {
            inputs.push(vector["header"].as_str().unwrap_or_default().as_bytes().to_vec());
            inputs.push(vector["payload"].to_string().into_bytes());
        }
    }
    assert!(inputs.len() > 40, "only {} vectors", inputs.len());
    inputs
}

/// Transactions of the published vectors.
fn transactions() -> Vec<Vec<u8>> {
    let text = fs::read(folder("../tests/vectors/svm.json")).expect("the vectors are there");
    let file: Value = serde_json::from_slice(&text).expect("the vectors are JSON");
    let wire = |vector: &Value| STANDARD.decode(vector.pointer("/payload/payload/transaction")?.as_str()?).ok();
    let inputs: Vec<_> = file["vectors"].as_array().expect("a list of vectors").iter().filter_map(wire).collect();
    assert!(inputs.len() > 20, "only {} vectors", inputs.len());
    inputs
}

/// Sign-in headers of the published vectors, the JSON inside them, and the texts that were signed.
fn sign_ins() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    let read = |file| serde_json::from_slice(&fs::read(folder("../tests/vectors").join(file)).expect("the vectors are there"));
    let file: Value = read("siwx.json").expect("the vectors are JSON");
    let wallet: Value = read("wallet-client.json").expect("the vectors are JSON");
    let lists = ["vectors", "veniceStyle"].map(|list| file[list].as_array().expect("a list of vectors"));
    let all = lists.into_iter().flatten().chain([&wallet["evm"], &wallet["solana"]]);
    let fields = ["/header", "/payload", "/json", "/message", "/json/message", "/messageWithoutStatementOrExpiry"];
    for vector in all {
        for value in fields.iter().filter_map(|field| vector.pointer(field)) {
            inputs.push(value.as_str().map_or_else(|| value.to_string(), str::to_owned).into_bytes());
        }
    }
    assert!(inputs.len() > 60, "only {} vectors", inputs.len());
    inputs
}

/// Runs a target on `inputs` and on mutations of them that follow from a fixed seed. The input that breaks the promise is
/// written where the panic can be looked at.
fn keep(name: &str, inputs: &[Vec<u8>], mutations: u64) {
    let check = target(name);
    let run = |input: &[u8], what: &str| {
        let kept = std::panic::catch_unwind(|| check(input));
        kept.unwrap_or_else(|_| panic!("{name}, {what}: {}", String::from_utf8_lossy(input).escape_debug()));
    };
    for (n, input) in inputs.iter().enumerate() {
        run(input, &format!("input {n}"));
    }
    let mut random = Random(0x5eed);
    for n in 0..mutations {
        let mut input = inputs[random.below(inputs.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, &inputs[random.below(inputs.len())], &mut random);
        }
        run(&input, &format!("mutation {n}"));
    }
}

/// What parsers stumble over.
const WORDS: [&str; 12] =
    ["\"", "\\u0000", "\\ud800", "{", "]", "-1", "1e999", "18446744073709551616", "null", "\n\n", "\r", "data: "];

fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(7) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.below(256) as u8,
        2 => input.truncate(at),
        3 => drop(input.splice(at..at, WORDS[random.below(WORDS.len())].bytes())),
        4 => {
            let end = at + random.below(input.len() - at + 1).min(16);
            input.drain(at..end);
        }
        5 => {
            let from = random.below(other.len() + 1);
            let part = &other[from..(from + random.below(64)).min(other.len())];
            input.splice(at..at, part.iter().copied());
        }
        _ => input.insert(at, random.below(256) as u8),
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

#[test]
fn a_payment_header_of_any_bytes_is_judged_and_never_forged() {
    keep("payment", &[corpus("payment"), vectors()].concat(), MUTATIONS / 4);
}

#[test]
fn a_sign_in_of_any_bytes_is_judged_and_never_forged() {
    keep("sign_in", &[corpus("sign_in"), sign_ins()].concat(), MUTATIONS / 4);
}

#[test]
fn an_amount_is_read_exactly_or_not_at_all() {
    keep("amount", &corpus("amount"), MUTATIONS);
}

#[test]
fn a_stream_is_the_same_however_it_is_cut() {
    keep("stream", &corpus("stream"), MUTATIONS);
}

#[test]
fn an_unstreamed_answer_is_the_same_however_it_is_cut() {
    keep("unstreamed", &corpus("unstreamed"), MUTATIONS);
}

#[test]
fn a_request_is_json_to_everybody_or_refused() {
    keep("request", &corpus("request"), MUTATIONS);
}

#[test]
fn a_translated_request_is_sold_as_it_was_quoted() {
    keep("translate", &corpus("translate"), MUTATIONS);
}

#[test]
fn a_stored_transaction_is_ours_or_nothing() {
    keep("transaction", &corpus("transaction"), MUTATIONS);
}

#[test]
fn a_solana_transaction_has_one_spelling_and_never_pays_with_who_did_not_sign() {
    keep("solana", &[corpus("solana"), transactions()].concat(), MUTATIONS);
}

#[test]
fn an_answer_of_a_node_is_what_was_asked_for_or_no_answer() {
    keep("node", &corpus("node"), MUTATIONS);
}

#[test]
fn the_ledger_does_what_its_model_says_for_any_commands() {
    keep("ledger", &corpus("ledger"), LIVES);
}
