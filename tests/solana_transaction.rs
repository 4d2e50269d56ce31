//! Transactions are read as Solana's own code reads them: what we take it takes and means the same, and what it takes we refuse
//! only for being another spelling, too long, or naming a key twice.

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox::chain::solana::address::Pubkey;
use farebox::chain::solana::transaction::{MAX_BYTES, Malformed, Transaction};
use farebox_rig::process::run;
use farebox_rig::{installed, tests_dir};
use serde_json::{Value, json};

const VECTORS: &str = include_str!("vectors/svm.json");
const MUTATIONS: usize = 6_000;

/// Transactions of the published vectors, and of each a legacy one and one that looks accounts up.
fn seeds() -> Vec<Vec<u8>> {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let wire = |vector: &Value| STANDARD.decode(vector.pointer("/payload/payload/transaction")?.as_str()?).ok();
    let published: Vec<_> = file["vectors"].as_array().unwrap().iter().filter_map(wire).collect();
    assert!(published.len() > 20);
    let version = 1 + 2 * 64;
    let whole = |wire: &&Vec<u8>| wire.len() > 300 && wire[version] == 0x80 && wire.last() == Some(&0);
    let legacy = |wire: &Vec<u8>| [&wire[..version], &wire[version + 1..wire.len() - 1]].concat();
    let looking = |wire: &Vec<u8>| [&wire[..wire.len() - 1], &[1], &[8; 32], &[2, 0, 1, 1, 7]].concat();
    let others = published.iter().filter(whole).flat_map(|wire| [legacy(wire), looking(wire)]).collect::<Vec<_>>();
    [published, others].concat()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// A change near the lengths and positions, where most of the meaning is, or anywhere.
fn mutated(mut wire: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(2) {
        let places = [0, 129, 130, 131, 132, 133, random.below(wire.len() + 1), wire.len().saturating_sub(1 + random.below(90))];
        let at = places[random.below(places.len())].min(wire.len());
        let byte = [0, 1, 2, 3, 4, 7, 0x7f, 0x80, 0x81, 0x88, 0xff, random.below(256) as u8][random.below(12)];
        match random.below(6) {
            0 if at < wire.len() => wire[at] ^= 1 << random.below(8),
            1 | 2 if at < wire.len() => wire[at] = byte,
            3 if at < wire.len() => drop(wire.remove(at)),
            4 => wire.truncate(at.max(100)),
            _ => wire.insert(at, byte),
        }
    }
    wire
}

/// What Solana's own code reads in each; `null` for what is no transaction to it.
fn read_by_solana(inputs: &[Vec<u8>]) -> Vec<Value> {
    let folder = tests_dir().join("chain/solana");
    let mut command = Command::new(installed(folder.join(".venv/bin/python")));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, inputs.iter().map(|input| hex(input) + "\n").collect::<String>()).unwrap();
    command.arg(folder.join("read.py")).arg(file.path());
    let (code, stdout, stderr) = run(command, "");
    assert_eq!(code, 0, "{stderr}");
    let verdicts: Vec<_> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(verdicts.len(), inputs.len());
    verdicts
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same that `read.py` says.
fn read_by_us(wire: &[u8]) -> Result<Value, Malformed> {
    let transaction = Transaction::parse(wire)?;
    let message = &transaction.message;
    let calls = message.instructions().iter().map(|call| json!([call.program, call.accounts, hex(&call.data)]));
    let signed = message.signers().iter().zip(&transaction.signatures);
    Ok(json!({
        "wire": hex(&transaction.to_bytes()),
        "keys": message.keys().iter().map(Pubkey::to_string).collect::<Vec<_>>(),
        "blockhash": Pubkey(message.recent_blockhash()).to_string(),
        "signers": message.signers().len(),
        "instructions": calls.collect::<Vec<_>>(),
        "looked_up": message.looked_up(),
        "signed": signed.map(|(key, signature)| key.signed(message.bytes(), signature)).collect::<Vec<_>>(),
    }))
}

#[test]
fn we_and_solanas_own_code_read_the_same_in_any_bytes() {
    let (seeds, mut random) = (seeds(), Random(0x501a4a));
    let mutations = (0..MUTATIONS).map(|_| mutated(seeds[random.below(seeds.len())].clone(), &mut random));
    let inputs = [seeds.clone(), mutations.collect()].concat();
    let (mut taken, mut refused, mut stricter) = (0, 0, HashSet::new());
    for (input, theirs) in inputs.iter().zip(read_by_solana(&inputs)) {
        match read_by_us(input) {
            Ok(ours) => {
                assert_eq!(ours, theirs, "{}", hex(input));
                taken += 1;
            }
            Err(_) if theirs.is_null() => refused += 1,
            Err(why) => {
                let keys: Vec<_> = theirs["keys"].as_array().unwrap().iter().map(Value::as_str).collect();
                let twice = keys.iter().collect::<HashSet<_>>().len() < keys.len();
                let respelt = theirs["wire"] != hex(input);
                assert!(twice || respelt || input.len() > MAX_BYTES, "{why}: {}", hex(input));
                stricter.insert(why.0);
            }
        }
    }
    assert!(taken > 500 && refused > 500 && !stricter.is_empty(), "{taken} taken, {refused} refused, {stricter:?}");
}
