//! The token's interface: calldata that we send, answers and revert reasons that we read.

use super::address::Address;
use super::payload::Authorization;
use super::signature::{self, Kind};
use super::word::Word;

/// keccak256 of `Transfer(address,address,uint256)`.
pub const TRANSFER_EVENT: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
/// keccak256 of `AuthorizationUsed(address,bytes32)`.
pub const USED_EVENT: &str = "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5";
/// keccak256 of `AuthorizationCanceled(address,bytes32)`.
pub const CANCELED_EVENT: &str = "0x1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81";

/// `decimals()`.
pub const DECIMALS: [u8; 4] = [0x31, 0x3c, 0xe5, 0x67];
/// `DOMAIN_SEPARATOR()`.
pub const DOMAIN_SEPARATOR: [u8; 4] = [0x36, 0x44, 0xe5, 0x15];
/// `balanceOf(address)`.
const BALANCE_OF: [u8; 4] = [0x70, 0xa0, 0x82, 0x31];
/// `transfer(address,uint256)`.
const TRANSFER: [u8; 4] = [0xa9, 0x05, 0x9c, 0xbb];
/// `authorizationState(address,bytes32)`.
const AUTHORIZATION_STATE: [u8; 4] = [0xe9, 0x4a, 0x01, 0x02];
/// `transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)`.
const TRANSFER_VRS: [u8; 4] = [0xe3, 0xee, 0x16, 0x0e];
/// `transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)`.
const TRANSFER_BYTES: [u8; 4] = [0xcf, 0x09, 0x29, 0x95];
/// `Error(string)`, how `require` reverts.
const ERROR: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];

fn call(selector: [u8; 4], words: &[[u8; 32]]) -> Vec<u8> {
    let mut data = selector.to_vec();
    words.iter().for_each(|word| data.extend_from_slice(word));
    data
}

pub fn balance_of(owner: Address) -> Vec<u8> {
    call(BALANCE_OF, &[owner.to_word()])
}

/// A transfer by whoever calls.
pub fn transfer(to: Address, value: &Word) -> Vec<u8> {
    call(TRANSFER, &[to.to_word(), value.0])
}

/// Whether an authorization is used up, by a transfer or by a cancellation.
pub fn authorization_state(authorization: &Authorization) -> Vec<u8> {
    call(AUTHORIZATION_STATE, &[authorization.from.to_word(), authorization.nonce])
}

fn six(authorization: &Authorization) -> [[u8; 32]; 6] {
    [
        authorization.from.to_word(),
        authorization.to.to_word(),
        authorization.value.0,
        authorization.valid_after.0,
        authorization.valid_before.0,
        authorization.nonce,
    ]
}

/// The transfer of a payer without code: the signature as `v`, `r`, `s`. `None` when it is not 65 good bytes.
pub fn transfer_plain(authorization: &Authorization, signature: &[u8]) -> Option<Vec<u8>> {
    let Ok(Kind::Plain { r, s, v }) = signature::classify(signature) else { return None };
    let mut words = six(authorization).to_vec();
    words.extend([Word::from(u64::from(v)).0, r, s]);
    Some(call(TRANSFER_VRS, &words))
}

/// The transfer of a wallet with code: the signature as the wallet made it.
pub fn transfer_wallet(authorization: &Authorization, signature: &[u8]) -> Vec<u8> {
    let mut words = six(authorization).to_vec();
    words.extend([Word::from(7 * 32).0, Word::from(signature.len() as u64).0]);
    let mut data = call(TRANSFER_BYTES, &words);
    data.extend_from_slice(signature);
    let padding = signature.len().next_multiple_of(32) - signature.len();
    data.resize(data.len() + padding, 0);
    data
}

/// One 32-byte word of an answer.
pub fn word(answer: &[u8]) -> Option<Word> {
    (answer.len() == 32).then(|| answer.try_into().map(Word).ok()).flatten()
}

/// The text of `Error(string)`; `None` when the call reverted in another way.
pub fn revert_text(data: &[u8]) -> Option<String> {
    let body = data.strip_prefix(&ERROR)?;
    let length = word(body.get(32..64)?)?.as_u64()?;
    let text = body.get(64..)?.get(..usize::try_from(length).ok()?)?;
    // Whoever wrote the token may put anything here; it ends up in our messages.
    Some(String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::evm::{hex, keccak};

    fn selector(text: &str) -> [u8; 4] {
        keccak(text.as_bytes())[..4].try_into().unwrap()
    }

    #[test]
    fn selectors_and_topics_are_those_of_the_texts() {
        assert_eq!(DECIMALS, selector("decimals()"));
        assert_eq!(DOMAIN_SEPARATOR, selector("DOMAIN_SEPARATOR()"));
        assert_eq!(BALANCE_OF, selector("balanceOf(address)"));
        assert_eq!(AUTHORIZATION_STATE, selector("authorizationState(address,bytes32)"));
        let transfer = "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,";
        assert_eq!(TRANSFER_VRS, selector(&format!("{transfer}uint8,bytes32,bytes32)")));
        assert_eq!(TRANSFER_BYTES, selector(&format!("{transfer}bytes)")));
        let topic = |text: &str| hex::encode(&keccak(text.as_bytes()));
        assert_eq!(TRANSFER_EVENT, topic("Transfer(address,address,uint256)"));
        assert_eq!(USED_EVENT, topic("AuthorizationUsed(address,bytes32)"));
        assert_eq!(CANCELED_EVENT, topic("AuthorizationCanceled(address,bytes32)"));
    }

    #[test]
    fn calldata_is_padded_to_whole_words() {
        let authorization = Authorization {
            from: Address([1; 20]),
            to: Address([2; 20]),
            value: Word::from(3),
            valid_after: Word::default(),
            valid_before: Word::from(9),
            nonce: [4; 32],
        };
        for length in [1, 32, 65, 96] {
            let data = transfer_wallet(&authorization, &vec![5; length]);
            assert_eq!(data.len(), 4 + 8 * 32 + length.next_multiple_of(32), "{length}");
            assert_eq!(&data[4 + 8 * 32..][..length], vec![5; length]);
        }
        assert_eq!(transfer_plain(&authorization, &[&[1; 64][..], &[0]].concat()).unwrap().len(), 4 + 9 * 32);
        assert!(transfer_plain(&authorization, &[1; 66]).is_none());
    }

    #[test]
    fn a_revert_reason_is_read_and_nonsense_is_not() {
        let mut data = ERROR.to_vec();
        data.extend(Word::from(32).0);
        data.extend(Word::from(7).0);
        data.extend(b"expired");
        data.resize(4 + 96, 0);
        assert_eq!(revert_text(&data).as_deref(), Some("expired"));
        for bad in [&data[..4], &data[..60], &[], &[0; 100]] {
            assert_eq!(revert_text(bad), None);
        }
    }
}
