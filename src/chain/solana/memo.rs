//! The memos that bind payments to offers: each is said once, and only who made it can tell for what.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of the number that no two memos share.
const NUMBER: usize = 8;
/// Bytes of the mark: nobody guesses one that is good in the minute for which a blockhash lives.
const MARK: usize = 16;

/// Makes memos and knows its own again, without keeping any. A payer whose offers all said the same would sign the same
/// message twice in the same moment, and be sold one call for two.
pub struct Memos(Zeroizing<[u8; 32]>);

impl Memos {
    /// `secret` decides who can make memos; the same secret knows them again after a restart.
    pub fn new(secret: &[u8]) -> Memos {
        let key = Sha256::new().chain_update(b"memos of offers").chain_update(secret).finalize();
        Memos(Zeroizing::new(key.into()))
    }

    /// A memo for an offer of `subject`. `number` must never be given twice.
    pub fn make(&self, number: u64, subject: &str) -> String {
        let number = number.to_be_bytes();
        bs58::encode([&number[..], &self.mark(number, subject)].concat()).into_string()
    }

    /// Whether a memo was made here, for this subject.
    pub fn is_for(&self, memo: &str, subject: &str) -> bool {
        let mut bytes = [0; NUMBER + MARK];
        // Decoding takes time that grows with the square of the length.
        if memo.len() > 2 * bytes.len() || bs58::decode(memo).onto(&mut bytes) != Ok(bytes.len()) {
            return false;
        }
        let (number, mark) = bytes.split_at(NUMBER);
        self.mac(number, subject).verify_truncated_left(mark).is_ok()
    }

    fn mark(&self, number: [u8; NUMBER], subject: &str) -> [u8; MARK] {
        let whole: [u8; 32] = self.mac(&number, subject).finalize().into_bytes().into();
        let mut mark = [0; MARK];
        mark.copy_from_slice(&whole[..MARK]);
        mark
    }

    fn mac(&self, number: &[u8], subject: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0[..]).expect("HMAC takes keys of every length");
        mac.update(number);
        mac.update(subject.as_bytes());
        mac
    }
}

impl std::fmt::Debug for Memos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memos(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_is_known_again_for_what_it_was_made_and_for_nothing_else() {
        let memos = Memos::new(b"secret");
        let memo = memos.make(7, "one call of a");
        assert!(memos.is_for(&memo, "one call of a") && Memos::new(b"secret").is_for(&memo, "one call of a"));
        assert_ne!(memo, memos.make(8, "one call of a"), "two offers are two");
        assert!(!memos.is_for(&memo, "one call of b"));
        assert!(!Memos::new(b"other").is_for(&memo, "one call of a"));
        for other in ["", "7", &memo[1..], &format!("{memo}1"), &format!("1{memo}"), &"z".repeat(9000), "0OIl", &"1".repeat(24)] {
            assert!(!memos.is_for(other, "one call of a"), "{other}");
        }
        assert!(memo.len() <= 256 && memo.is_ascii(), "x402 allows so much");
    }
}
