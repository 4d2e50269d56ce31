//! What comes back from chains and from our own journal: stored transactions and nodes' answers.

use farebox::chain::evm::transaction::Signed;
use farebox::chain::evm::{read_block, read_bytes, read_number, read_quantity, read_receipt};
use serde_json::Value;

/// A stored transaction is read only if it is exactly what we would have written.
pub fn check_transaction(data: &[u8]) {
    if let Some(signed) = Signed::read(data) {
        assert_eq!(signed.raw, data);
        let again = Signed::read(&signed.raw).expect("what was read is read again");
        assert_eq!((again.transaction, again.from, again.hash), (signed.transaction, signed.from, signed.hash));
        assert!(Signed::read(&data[..data.len() - 1]).is_none(), "a cut transaction is none");
    }
}

/// Whatever a node answers is read as the type that was asked for, or as no answer; never as a default.
pub fn check_answers(data: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<Value>(data) else { return };
    if let Ok(number) = read_quantity(&answer) {
        let text = answer.as_str().expect("quantities are text");
        let digits = text.strip_prefix("0x").expect("quantities are hex");
        assert_eq!(u128::from_str_radix(digits, 16), Ok(number));
    }
    if let Ok(number) = read_number(&answer) {
        assert_eq!(read_quantity(&answer).ok(), Some(u128::from(number)));
    }
    if let Ok(bytes) = read_bytes(&answer) {
        assert_eq!(answer.as_str().map(str::len), Some(2 + 2 * bytes.len()));
    }
    if let Ok(block) = read_block(answer.clone()) {
        assert_eq!(read_number(&answer["number"]).ok(), Some(block.number));
        assert_eq!(read_number(&answer["timestamp"]).ok(), Some(block.timestamp));
    }
    let asked = [0xaa; 32];
    if let Ok(receipt) = read_receipt(&answer, &asked) {
        let pending = answer.is_object() && answer["blockNumber"].is_null();
        assert_eq!(receipt.is_none(), answer.is_null() || pending, "nothing else says that there is no receipt");
        if let Some(receipt) = receipt {
            assert_eq!(receipt.tx, asked, "the receipt of something else is no answer");
            assert_eq!(receipt.succeeded, answer["status"] == "0x1", "{}", answer["status"]);
            assert_eq!(receipt.logs.len(), answer["logs"].as_array().map_or(0, Vec::len));
        }
    }
}
