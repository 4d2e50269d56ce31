//! What a payer signs: the EIP-712 digest of an EIP-3009 `TransferWithAuthorization`.

use super::address::Address;
use super::keccak;
use super::payload::Authorization;
use super::word::Word;

/// keccak256 of `EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)`.
const DOMAIN_TYPE: [u8; 32] = [
    0x8b, 0x73, 0xc3, 0xc6, 0x9b, 0xb8, 0xfe, 0x3d, 0x51, 0x2e, 0xcc, 0x4c, 0xf7, 0x59, 0xcc, 0x79, 0x23, 0x9f, 0x7b, 0x17, 0x9b,
    0x0f, 0xfa, 0xca, 0xa9, 0xa7, 0x5d, 0x52, 0x2b, 0x39, 0x40, 0x0f,
];

/// keccak256 of `TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256
/// validBefore,bytes32 nonce)`.
const TRANSFER_TYPE: [u8; 32] = [
    0x7c, 0x7c, 0x6c, 0xdb, 0x67, 0xa1, 0x87, 0x43, 0xf4, 0x9e, 0xc6, 0xfa, 0x9b, 0x35, 0xf5, 0x0d, 0x52, 0xed, 0x05, 0xcb, 0xed,
    0x4c, 0xc5, 0x92, 0xe1, 0x3b, 0x44, 0x50, 0x1c, 0x1a, 0x22, 0x67,
];

/// The domain separator of a token: its name, version, chain and address, hashed as EIP-712 says.
pub fn domain_separator(name: &str, version: &str, chain_id: u64, token: Address) -> [u8; 32] {
    keccak(&[DOMAIN_TYPE, keccak(name.as_bytes()), keccak(version.as_bytes()), Word::from(chain_id).0, token.to_word()].concat())
}

/// The digest that is signed for `authorization` under `domain`.
pub fn digest(domain: &[u8; 32], authorization: &Authorization) -> [u8; 32] {
    let message = keccak(
        &[
            TRANSFER_TYPE,
            authorization.from.to_word(),
            authorization.to.to_word(),
            authorization.value.0,
            authorization.valid_after.0,
            authorization.valid_before.0,
            authorization.nonce,
        ]
        .concat(),
    );
    keccak(&[&[0x19, 0x01], &domain[..], &message[..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::evm::hex;
    use crate::chain::evm::token;
    use serde_json::Value;

    #[test]
    fn the_type_hashes_are_those_of_the_texts() {
        let domain = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
        assert_eq!(DOMAIN_TYPE, keccak(domain.as_bytes()));
        let transfer = "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,\
                        uint256 validBefore,bytes32 nonce)";
        assert_eq!(TRANSFER_TYPE, keccak(transfer.as_bytes()));
    }

    #[test]
    fn the_domain_of_every_known_token_is_the_published_one() {
        let constants: Value = serde_json::from_str(include_str!("../../../tests/vectors/constants.json")).unwrap();
        for (name, expected) in constants["domainSeparators"].as_object().unwrap() {
            let caip2 = crate::x402::names::caip2(name).unwrap();
            let token = token::known(caip2).unwrap_or_else(|| panic!("{name} is in the table"));
            let domain = domain_separator(token.name, token.version, token.chain_id, token.asset);
            assert_eq!(hex::encode(&domain), expected.as_str().unwrap(), "{name}");
        }
    }

    #[test]
    fn the_digest_is_the_one_that_wallets_sign() {
        let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/evm.json")).unwrap();
        let mut checked = 0;
        for vector in file["vectors"].as_array().unwrap() {
            let payload = &vector["payload"]["payload"];
            let domain = &vector["eip712"]["domain"];
            let (Some(digest_text), Some(_)) = (vector["eip712"]["digest"].as_str(), payload.get("authorization")) else {
                continue;
            };
            let raw = serde_json::value::to_raw_value(payload).unwrap();
            let (authorization, _) = crate::chain::evm::payload::parse(&raw).unwrap();
            let token = Address::parse(domain["verifyingContract"].as_str().unwrap()).unwrap();
            let text = |key: &str| domain[key].as_str().unwrap();
            let separator = domain_separator(text("name"), text("version"), domain["chainId"].as_u64().unwrap(), token);
            if Some(hex::encode(&separator).as_str()) == vector["eip712"]["domainSeparator"].as_str() {
                assert_eq!(hex::encode(&digest(&separator, &authorization)), digest_text, "{}", vector["id"]);
                checked += 1;
            }
        }
        assert!(checked >= 2, "only {checked} vectors carried a digest");
    }
}
