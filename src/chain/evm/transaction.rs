//! Our own transactions: EIP-1559 in RLP, signed, hashed before they are sent, and read back after a restart.

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};

use super::address::Address;
use super::keccak;
use super::key::PrivateKey;

/// The type byte of an EIP-1559 transaction (EIP-2718).
const TYPE: u8 = 2;

/// A transaction that carries no ether. Fees in wei per gas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub chain_id: u64,
    pub nonce: u64,
    pub tip: u128,
    pub max_fee: u128,
    pub gas: u64,
    pub to: Address,
    pub data: Vec<u8>,
}

/// A transaction ready to send.
#[derive(Clone)]
pub struct Signed {
    pub transaction: Transaction,
    pub from: Address,
    pub hash: [u8; 32],
    pub raw: Vec<u8>,
}

impl Transaction {
    pub fn sign(self, key: &PrivateKey) -> Signed {
        let (r, s, parity) = key.sign(&keccak(&self.envelope(None)));
        let raw = self.envelope(Some((&r, &s, parity)));
        Signed { from: key.address(), hash: keccak(&raw), raw, transaction: self }
    }

    /// `0x02 || rlp([chain_id, nonce, tip, max_fee, gas, to, value, data, access_list, parity, r, s])`; without the last
    /// three this is what is signed.
    fn envelope(&self, signature: Option<(&[u8; 32], &[u8; 32], u8)>) -> Vec<u8> {
        let mut fields = Vec::new();
        number(&mut fields, self.chain_id.into());
        number(&mut fields, self.nonce.into());
        number(&mut fields, self.tip);
        number(&mut fields, self.max_fee);
        number(&mut fields, self.gas.into());
        string(&mut fields, &self.to.0);
        number(&mut fields, 0);
        string(&mut fields, &self.data);
        length(&mut fields, 0xc0, 0);
        if let Some((r, s, parity)) = signature {
            number(&mut fields, parity.into());
            string(&mut fields, without_zeros(r));
            string(&mut fields, without_zeros(s));
        }
        let mut envelope = vec![TYPE];
        length(&mut envelope, 0xc0, fields.len());
        envelope.extend_from_slice(&fields);
        envelope
    }
}

impl Signed {
    /// Reads bytes that [`Transaction::sign`] made, whoever's key it was; `None` for anything else.
    pub fn read(raw: &[u8]) -> Option<Signed> {
        let (kind, rest) = raw.split_first()?;
        let (list, mut body, end) = item(rest)?;
        if *kind != TYPE || !list || !end.is_empty() {
            return None;
        }
        let mut next = || {
            let (is_list, content, rest) = item(body)?;
            body = rest;
            (!is_list || content.is_empty()).then_some(content)
        };
        let transaction = Transaction {
            chain_id: u64::try_from(uint(next()?)?).ok()?,
            nonce: u64::try_from(uint(next()?)?).ok()?,
            tip: uint(next()?)?,
            max_fee: uint(next()?)?,
            gas: u64::try_from(uint(next()?)?).ok()?,
            to: Address(next()?.try_into().ok()?),
            data: {
                let value = next()?;
                if !value.is_empty() {
                    return None;
                }
                next()?.to_vec()
            },
        };
        let access_list = next()?;
        let (parity, r, s) = (uint(next()?)?, padded(next()?)?, padded(next()?)?);
        if !access_list.is_empty() || next().is_some() {
            return None;
        }
        let parity = u8::try_from(parity).ok()?;
        let signature = Signature::from_slice(&[r, s].concat()).ok()?;
        let digest = keccak(&transaction.envelope(None));
        let key = VerifyingKey::recover_from_prehash(&digest, &signature, RecoveryId::from_byte(parity)?).ok()?;
        let again = transaction.envelope(Some((&r, &s, parity)));
        (again == raw).then(|| Signed { transaction, from: Address::of(&key), hash: keccak(raw), raw: raw.to_vec() })
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    &bytes[first..]
}

fn number(out: &mut Vec<u8>, number: u128) {
    string(out, without_zeros(&number.to_be_bytes()));
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes {
        [byte] if *byte < 0x80 => out.push(*byte),
        _ => {
            length(out, 0x80, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}

fn length(out: &mut Vec<u8>, offset: u8, length: usize) {
    if length < 56 {
        // Below 56, so the sum stays below 0xf8.
        out.push(offset + length as u8);
        return;
    }
    let length = (length as u64).to_be_bytes();
    let digits = without_zeros(&length);
    out.push(offset + 55 + digits.len() as u8);
    out.extend_from_slice(digits);
}

/// One RLP item: whether it is a list, its content, and what follows it.
fn item(bytes: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0x80 {
        return Some((false, &bytes[..1], rest));
    }
    let list = *first >= 0xc0;
    let short = usize::from(first - if list { 0xc0 } else { 0x80 });
    let (size, rest) = if short < 56 {
        (short, rest)
    } else {
        let (digits, rest) = rest.split_at_checked(short - 55)?;
        (usize::try_from(uint(digits)?).ok()?, rest)
    };
    let (content, rest) = rest.split_at_checked(size)?;
    Some((list, content, rest))
}

fn uint(bytes: &[u8]) -> Option<u128> {
    let mut wide = [0; 16];
    wide.get_mut(16usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(u128::from_be_bytes(wide))
}

fn padded(bytes: &[u8]) -> Option<[u8; 32]> {
    let mut wide = [0; 32];
    wide.get_mut(32usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(wide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::evm::hex;

    fn key() -> PrivateKey {
        PrivateKey::parse("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d").unwrap()
    }

    /// The expected bytes were made with viem 2.57.1.
    #[test]
    fn our_transactions_are_the_bytes_that_other_wallets_make() {
        let token = Address::parse("0x036CbD53842c5426634e7929541eC2318f3dCF7e").unwrap();
        let mut data = vec![0xe3, 0xee, 0x16, 0x0e];
        data.extend([0x11; 288]);
        let transfer =
            Transaction { chain_id: 84532, nonce: 0, tip: 1_000_000, max_fee: 2_000_000_000, gas: 120_000, to: token, data };
        let signed = transfer.sign(&key());
        assert_eq!(hex::encode(&signed.hash), "0x7a632c45ec8ab4ab6ae88904826ca424acb879aa9c9b1189019326b81aee1561");
        let nothing = Transaction {
            chain_id: 8453,
            nonce: 300,
            tip: 1,
            max_fee: (1 << 100) + 5,
            gas: 21_000,
            to: key().address(),
            data: Vec::new(),
        };
        let signed = nothing.sign(&key());
        let expected = "0x02f87382210582012c018d100000000000000000000000058252089470997970c51812dc3a010c7d01b50e0d17dc79c8\
            8080c001a0785d9928291581c93a37d851b518531cad08fddc56f0fdcd9008acc7d5b16aefa041bacbc324b2ef0ea8429db166c45d0e7ff3\
            5b9c828e5b27390f96c9f3d96356";
        assert_eq!(hex::encode(&signed.raw), expected);
        assert_eq!(hex::encode(&signed.hash), "0x101fe4803d067d53f86d1c9af603900b945adc63e225a73f41a46f0b6298b989");
    }

    #[test]
    fn stored_bytes_tell_who_signed_them_and_at_what_fee() {
        let to = Address([9; 20]);
        for (nonce, data) in [(0, vec![]), (127, vec![1]), (128, vec![0x80]), (u64::MAX, vec![7; 300])] {
            let transaction = Transaction { chain_id: 1, nonce, tip: 0, max_fee: u128::MAX, gas: 1, to, data };
            let signed = transaction.clone().sign(&key());
            let read = Signed::read(&signed.raw).unwrap();
            assert_eq!((read.transaction, read.from, read.hash), (transaction, key().address(), signed.hash));
            for cut in 0..signed.raw.len() {
                assert!(Signed::read(&signed.raw[..cut]).is_none());
            }
        }
        assert!(Signed::read(&[]).is_none());
        assert!(Signed::read(&[2, 0xff, 255, 255, 255, 255, 255, 255, 255, 255]).is_none());
    }
}
